"""Find plugins without importing one: entry points of installed distributions, and plugin directories.

    sys.path ─► distributions ─► entry points of the group ─┐
    configured paths ─► NAME/plugin.* ──────────────────────┴─► rows ─► duplicates marked ─► name → PluginSpec

What is broken is a row with its error; the others are found all the same.
"""

from __future__ import annotations

import copy
import importlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ._directories import in_directories, in_directory
from ._distributions import installed, offered_by
from ._errors import DuplicatePlugin, PluginLoadError
from ._names import normalized
from ._package import package_of
from ._spec import PluginSpec
from ._stamps import Stamps


def scan(group: str, paths: Sequence[Path], stamps: Stamps | None = None) -> dict[str, PluginSpec]:
    """Return name → spec of everything there is, sorted by name; ``stamps`` gets every file that had a say in it."""
    stamps = Stamps() if stamps is None else stamps
    importlib.invalidate_caches()  # what was installed a moment ago
    rows = _without_duplicates([*installed(group, stamps), *in_directories(paths, stamps)])
    return {row.name: row for row in sorted(rows, key=lambda row: (row.name, row.distribution))}


def reread(spec: PluginSpec, group: str, paths: Sequence[Path]) -> PluginSpec:
    """Return a plugin as it is installed now, so that nothing remembered decides what runs.

    Raises ``PluginLoadError`` where it no longer is, and whatever is wrong with it.
    """
    if spec.error is not None:
        raise copy.copy(spec.error)  # whose traceback isn't kept with the spec
    if spec.directory is None:
        rows, where = offered_by(spec.distribution, group), f"distribution {spec.distribution!r} offers no such plugin"
    else:
        rows = in_directory(spec.directory) if spec.directory.parent in paths else []
        where = f"{str(spec.directory)!r} is no plugin directory in a configured path"
    found = next((row for row in rows if row.name == spec.name), None)
    if found is None:
        raise PluginLoadError(f"plugin {spec.name!r} is not installed any more: {where}", plugin=spec.name, kind="metadata")
    if found.error is not None:
        raise found.error
    return found


def _without_duplicates(rows: Sequence[PluginSpec]) -> list[PluginSpec]:
    """Give the same error to all rows that claim what only one can have, whatever their order."""
    errors: dict[int, DuplicatePlugin] = {}
    for what, claim in _CLAIMS:
        claimants: dict[str, list[int]] = defaultdict(list)
        for index, row in enumerate(rows):
            if claimed := claim(row):
                claimants[claimed].append(index)
        for claimed, several in claimants.items():
            places = sorted(_place(rows[index]) for index in several)
            if len(set(places)) > 1 or (len(places) > 1 and claim is _name):
                error = DuplicatePlugin(
                    f"the {what} {claimed!r} is claimed by {' and by '.join(places)}: none of them is used; uninstall all but one"
                )
                for index in several:
                    errors.setdefault(index, error)
    return [replace(row, error=errors[index]) if index in errors else row for index, row in enumerate(rows)]


def _name(row: PluginSpec) -> str:
    # What could not be read at all claims nothing.
    return normalized(row.name) if row.entry_point else ""


def _target(row: PluginSpec) -> str:
    return row.entry_point if row.directory is None else ""


def _module(row: PluginSpec) -> str:
    module = row.entry_point.partition(":")[0]
    return module.partition(".")[0] if row.directory is not None else package_of(module).name


_CLAIMS: tuple[tuple[str, Callable[[PluginSpec], str]], ...] = (
    ("name", _name),
    ("entry point", _target),
    ("module", _module),
)


def _place(row: PluginSpec) -> str:
    return f"distribution {row.distribution!r}" if row.directory is None else f"directory {str(row.directory)!r}"
