"""Remember what a scan found, and notice whatever would change it.

A look compares the import path, each directory on it, the entry-point file of *each* distribution in it (a directory's time misses
an edit in place) and every manifest, there or not, by modification time and size. With 300 distributions that takes a millisecond;
a scan takes twenty, and the imports that it needs a hundred. The index only saves time: loading a plugin reads everything anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import __version__, _errors
from ._spec import PluginSpec
from ._stamps import Stamps, search_path

_FORMAT = 2
_SIZE_LIMIT = 16 * 1024 * 1024
# Every import path has an index of its own, and scripts come and go.
_MOST_FILES = 64


class Index:
    """What is installed for one group. Not thread-safe: its Host guards it."""

    def __init__(self, group: str, paths: Sequence[Path], *, file: Path | None) -> None:
        self._group = group
        self._paths = list(paths)
        self._file = file
        self._key = ""
        self._stamps = Stamps()
        self._specs: dict[str, PluginSpec] = {}

    def look(self) -> dict[str, PluginSpec]:
        """Return name → spec; scan only if something changed."""
        key = self._key_now()
        if not self._key:
            self._key, self._stamps, self._specs = _load(self._file)
        if self._key != key or not self._stamps.hold():
            from ._discovery import scan  # importlib-metadata and pydantic, which a hit doesn't need

            stamps = Stamps()
            specs = scan(self._group, self._paths, stamps)
            self._key, self._stamps, self._specs = key, stamps, specs
            _save(self._file, key, stamps, specs)
        return self._specs

    def _key_now(self) -> str:
        """Everything but files that decides what is found."""
        parts = [__version__, str(_FORMAT), sys.version, self._group, *map(str, self._paths), "", *search_path()]
        return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def default_file(group: str) -> Path | None:
    """Return where the index of this interpreter and group is kept; None where there is no place for it."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    if not os.path.isabs(home):
        return None
    identity = "\0".join([sys.executable or "", group, *map(str, sys.path)])
    return Path(home, "hostkit", hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:24] + ".json")


def _save(file: Path | None, key: str, stamps: Stamps, specs: dict[str, PluginSpec]) -> None:
    if file is None:
        return
    text = json.dumps({"key": key, "stamps": stamps, "specs": [_row(spec) for spec in specs.values()]})
    partial = file.with_suffix(f".{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(file.parent):
            return
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
        try:
            with open(descriptor, "w", encoding="ascii") as out:
                out.write(text)
            os.replace(partial, file)
        except OSError:
            os.unlink(partial)
        _drop_oldest(file.parent)
    except OSError:
        return  # no index is only slower


def _drop_oldest(directory: Path) -> None:
    files = [entry for entry in os.scandir(directory) if entry.name.endswith(".json")]
    for entry in sorted(files, key=lambda entry: entry.stat().st_mtime)[:-_MOST_FILES]:
        os.unlink(entry)


def _load(file: Path | None) -> tuple[str, Stamps, dict[str, PluginSpec]]:
    try:
        if file is not None and _is_ours(file.parent) and _is_ours(file) and file.stat().st_size <= _SIZE_LIMIT:
            kept = json.loads(file.read_text(encoding="ascii"))
            stamps = Stamps(kept["stamps"])
            if stamps.keys() >= set(search_path()):
                return _text(kept["key"]), stamps, {row["name"]: _spec(row) for row in kept["specs"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass  # not one of ours, or half of one: the scan that follows replaces it
    return "", Stamps(), {}


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
    return PluginSpec(
        name=_text(row["name"]),
        entry_point=_text(row["entry_point"]),
        distribution=_text(row["distribution"]),
        version=_text(row["version"]),
        directory=None if row["directory"] is None else Path(row["directory"]),
        manifest_path=None if row["manifest_path"] is None else Path(row["manifest_path"]),
        manifest_data=dict(row["manifest_data"]),
        error=None if row["error"] is None else _error(row["error"], row["name"]),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {type(value).__name__}")
    return value


def _error(row: list[str], name: str) -> _errors.HostkitError:
    kind, message = row
    error = getattr(_errors, kind)
    if not issubclass(error, _errors.HostkitError):
        raise TypeError(f"expected an error of hostkit, found {kind}")
    if error is _errors.PluginLoadError:
        return _errors.PluginLoadError(_text(message), plugin=name, kind="metadata")
    found: _errors.HostkitError = error(_text(message))
    return found
