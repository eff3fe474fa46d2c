"""Remember what a scan found, and notice whatever would change it.

A look compares the import path, each directory on it, and the entry-point file of *each* distribution in it by modification time
and size (a directory's time misses an edit in place), the manifests and the package directories. With 300 distributions that takes
less than a millisecond; a scan takes a hundred. The index only saves time: loading a plugin reads its manifest anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import __version__, _errors
from ._spec import PluginSpec

SUFFIXES = (".json", ".toml", ".yaml", ".yml")
Stamp = list[int]  # modification time in nanoseconds and size; empty for what isn't there


class Index:
    """What is installed for one group. Not thread-safe: its Host guards it."""

    def __init__(self, group: str, paths: Sequence[Path], *, file: Path | None) -> None:
        self._group = group
        self._paths = list(paths)
        self._file = file
        self._stamps: dict[str, Stamp] | None = None
        self._specs: dict[str, PluginSpec] = {}

    def look(self) -> dict[str, PluginSpec]:
        """Return name → spec; scan only if something changed."""
        if self._stamps is None:
            self._stamps, self._specs = _load(self._file, self._key())
        if self._stamps.get("") != self._where() or any(_stamp(path) != seen for path, seen in self._stamps.items() if path):
            self._scan()
        return self._specs

    def _scan(self) -> None:
        from ._discovery import scan  # importlib-metadata and pydantic, which a hit doesn't need

        search = _search_path()
        before = _stamps_of(search, self._paths)
        self._specs = scan(self._group, self._paths)
        self._stamps = {"": self._where(), **before, **_stamps_of_specs(self._specs.values())}
        if self._file is not None:
            _save(self._file, self._key(), self._stamps, self._specs)

    def _where(self) -> Stamp:
        joined = "\0".join([*_search_path(), *map(str, self._paths)])
        return [int.from_bytes(hashlib.sha256(joined.encode("utf-8", "surrogateescape")).digest()[:8], "big")]

    def _key(self) -> str:
        return f"{__version__} {sys.version_info[:2]} {self._group}"


def default_file(group: str) -> Path | None:
    """Return where the index of this interpreter and group is kept; None where there is no place for it."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    if not os.path.isabs(home):
        return None
    identity = "\0".join([sys.executable or "", group, *sys.path])
    return Path(home, "hostkit", hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:24] + ".json")


def _search_path() -> list[str]:
    return [os.getcwd() if entry == "" else entry for entry in sys.path if isinstance(entry, str)]


def _stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return []
    return [found.st_mtime_ns, found.st_size]


def _stamps_of(search: Sequence[str], paths: Sequence[Path]) -> dict[str, Stamp]:
    stamps: dict[str, Stamp] = {}
    for place in search:
        stamps[place] = _stamp(place)
        for name in _names(place):
            if name.endswith((".dist-info", ".egg-info", ".egg")):
                path = f"{place}/{name}/entry_points.txt"
                stamps[path] = _stamp(path)
    for parent in paths:
        stamps[str(parent)] = _stamp(str(parent))
        for name in _names(str(parent)):
            place = f"{parent}/{name}"
            stamps[place] = _stamp(place)
            for suffix in SUFFIXES:
                path = f"{place}/plugin{suffix}"
                stamps[path] = _stamp(path)
    return stamps


def _names(place: str) -> list[str]:
    try:
        return os.listdir(place)
    except OSError:
        return []


def _stamps_of_specs(specs: Any) -> dict[str, Stamp]:
    stamps: dict[str, Stamp] = {}
    for spec in specs:
        for directory in _package_directories(spec):
            # Not the directory itself: it changes with every .pyc.
            for suffix in SUFFIXES:
                path = f"{directory}/plugin{suffix}"
                stamps[path] = _stamp(path)
    return stamps


def _package_directories(spec: PluginSpec) -> list[str]:
    import importlib.util

    top = spec.entry_point.partition(":")[0].partition(".")[0]
    try:
        package = importlib.util.find_spec(top) if top.isidentifier() else None
    except (ImportError, ValueError, AttributeError):
        return []
    return list(package.submodule_search_locations or ()) if package is not None else []


def _save(file: Path, key: str, stamps: dict[str, Stamp], specs: dict[str, PluginSpec]) -> None:
    text = json.dumps({"key": key, "stamps": stamps, "specs": [_row(spec) for spec in specs.values()]})
    partial = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(file.parent):
            return
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
        with open(descriptor, "w", encoding="utf-8") as out:
            out.write(text)
        os.replace(partial, file)
    except (OSError, UnicodeEncodeError):
        partial.unlink(missing_ok=True)  # no index is only slower


def _load(file: Path | None, key: str) -> tuple[dict[str, Stamp], dict[str, PluginSpec]]:
    try:
        if file is None or not _is_ours(file.parent) or not _is_ours(file):
            return {}, {}
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["key"] != key:
            return {}, {}
        return kept["stamps"], {row["name"]: _spec(row) for row in kept["specs"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, {}


def _is_ours(path: Path) -> bool:
    """Whether nobody else could have written it."""
    found = os.stat(path, follow_symlinks=False)
    return found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o022


def _row(spec: PluginSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "entry_point": spec.entry_point,
        "distribution": spec.distribution,
        "version": spec.version,
        "directory": None if spec.directory is None else str(spec.directory),
        "manifest_path": None if spec.manifest_path is None else str(spec.manifest_path),
        "manifest_data": dict(spec.manifest_data),
        "error": None if spec.error is None else [type(spec.error).__name__, str(spec.error)],
    }


def _spec(row: dict[str, Any]) -> PluginSpec:
    error = row["error"]
    return PluginSpec(
        **{
            **row,
            "directory": None if row["directory"] is None else Path(row["directory"]),
            "manifest_path": None if row["manifest_path"] is None else Path(row["manifest_path"]),
            "error": None if error is None else getattr(_errors, error[0])(error[1]),
        }
    )
