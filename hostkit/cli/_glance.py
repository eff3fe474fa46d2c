"""What a listing needs of the configuration, remembered from its last validation.

pydantic takes a quarter of a second, which is too long for a TAB. A file that was valid and is byte for byte the same is not
validated again; one that looks at the environment always is. Nothing that runs a plugin uses this.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from .._errors import ConfigError
from .._index import _is_ours, default_file
from .._names import normalized

if TYPE_CHECKING:
    from .._config import HostConfig


@dataclass(frozen=True, slots=True)
class Glance:
    """``paths`` are searched for plugin directories, ``isolation`` is the floor of all that have none in ``isolations``, ``words``
    are the places from the least isolated to the most. Names are normalized."""

    paths: list[str] = field(default_factory=list)
    isolation: str | None = None
    isolations: Mapping[str, str | None] = field(default_factory=dict)
    disabled: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def disables(self, name: str) -> bool:
        """Whether a plugin is switched off."""
        return normalized(name) in self.disabled

    def place(self, name: str, wish: str) -> str:
        """Return where a plugin with this wish would run."""
        floor = self.isolations.get(normalized(name), self.isolation)
        if floor is None or wish not in self.words:
            return wish
        return max(wish, floor, key=self.words.index)


def glance(path: Path) -> Glance:
    """Return what holds by the configuration in ``path``. Raises ``ConfigError``."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    file = _file(path)
    digest = hashlib.sha256(f"{__version__}\0{path}\0".encode("utf-8", "surrogateescape") + data).hexdigest()
    found = _load(file, digest)
    if found is None:
        from .._config import load

        found = glance_of(load(path))
        if b"${" not in data:
            _save(file, digest, found)
    return found


def glance_of(config: HostConfig) -> Glance:
    """Return what a listing needs of a configuration."""
    from .._decided import words

    plugins = {normalized(name): config.plugin(name) for name in config.plugins}
    return Glance(
        paths=[str(path) for path in config.discovery.paths],
        isolation=config.defaults.isolation,
        isolations={name: plugin.isolation for name, plugin in plugins.items()},
        disabled=[name for name, plugin in plugins.items() if not plugin.enabled],
        words=words(),
    )


def _file(path: Path) -> Path | None:
    beside = default_file("")
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:24]
    return None if beside is None else beside.with_name(f"config-{name}.json")


def _load(file: Path | None, digest: str) -> Glance | None:
    try:
        if file is None or not _is_ours(file.parent) or not _is_ours(file):
            return None
        kept = json.loads(file.read_bytes())
        return Glance(**kept["glance"]) if kept["digest"] == digest else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _save(file: Path | None, digest: str, found: Glance) -> None:
    if file is None:
        return
    partial = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _is_ours(file.parent):
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
            with open(descriptor, "w", encoding="ascii") as out:
                json.dump({"digest": digest, "glance": asdict(found)}, out)
            os.replace(partial, file)
    except OSError:
        partial.unlink(missing_ok=True)  # without it the next listing is only slower
