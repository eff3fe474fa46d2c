"""A plugin that was found and not imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._errors import HostkitError

if TYPE_CHECKING:
    from ._manifest import Manifest


@dataclass(frozen=True, slots=True)
class PluginSpec:
    """A plugin found without being imported.

    ``entry_point`` is ``module:attribute``; ``distribution`` and ``version`` say which package ships it (empty for a plugin
    directory, whose path is ``directory``); ``error`` is why it can't be used, None where it can. Immutable.
    """

    name: str
    entry_point: str
    distribution: str = ""
    version: str = ""
    directory: Path | None = None
    manifest_path: Path | None = None
    error: HostkitError | None = None
    manifest_data: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.error is not None:
            # It is kept for long, and its frames would keep whatever they had open.
            self.error.__traceback__ = self.error.__context__ = self.error.__cause__ = None

    @property
    def manifest(self) -> Manifest:
        """What the plugin declares; all defaults where it ships no manifest. Raises ``ManifestError`` for a wrong one."""
        from ._manifest import validated  # pydantic, which a mere listing doesn't need

        return validated(self.manifest_data, self.manifest_path, self.name)
