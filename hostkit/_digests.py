"""The size and SHA-256 of files, and a memory of those that have not changed.

A file counts as unchanged where device, inode, size, time of modification and time of change are what they were: the last of them is
the kernel's, and no ordinary user can set it back. It is still no proof (a file that is mapped for writing changes without it for a
while, and root may move the clock), so what decides whether code runs hashes anew: ``Digests(memory, anew=True)``.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from . import __version__
from ._errors import IntegrityError
from ._names import printable

# Two changes within one tick of the clock for files, 10 ms at most, may bear the same time.
_TICK = 20_000_000
_MOST_FILES = 200_000
_MOST_MEMORIES = 64


class Digest(NamedTuple):
    """What a file's bytes are known by."""

    size: int
    sha256: str


class Memory:
    """What was found out about the files below one place, kept in the user's cache. Not thread-safe.

    ``facts`` are digests of statements that stay true whatever happens to files.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._changed = False
        self.files: dict[str, list[Any]] = {}  # Any: the five numbers of _stamp, and the digest
        self.facts: set[str] = set()
        kept = _kept(file)
        with suppress(KeyError, TypeError, AttributeError, ValueError):  # not one of ours
            if kept["version"] == __version__:
                self.files, self.facts = {str(path): list(row) for path, row in kept["files"].items()}, set(kept["facts"])

    @classmethod
    def of(cls, place: str) -> Memory:
        """Return what is remembered of a place; none where there is no cache."""
        home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        if not os.path.isabs(home):
            return cls(None)
        name = hashlib.sha256(os.fsencode(place)).hexdigest()[:24]
        return cls(Path(home, "hostkit", "digests", f"{name}.json"))

    def know(self, fact: str) -> None:
        """Remember a statement that was found true."""
        if fact not in self.facts:
            self.facts.add(fact)
            self._changed = True

    def learn(self, path: str, row: list[Any]) -> None:
        """Remember a file's digest."""
        self.files[path] = row
        self._changed = True

    def save(self) -> None:
        """Keep it for the next time. Without a cache the next time only takes longer."""
        if self._file is None or not self._changed or len(self.files) > _MOST_FILES:
            return
        data = {"version": __version__, "files": self.files, "facts": sorted(self.facts)}
        partial = self._file.with_suffix(f".{os.getpid()}-{threading.get_ident()}.tmp")
        with suppress(OSError):
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _is_ours(self._file.parent):
                return
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
            try:
                with open(os.open(partial, flags, 0o600), "w", encoding="ascii") as out:
                    json.dump(data, out, separators=(",", ":"))
                os.replace(partial, self._file)
            except OSError:
                os.unlink(partial)
            _drop_oldest(self._file.parent)
        self._changed = False


def _kept(file: Path | None) -> Any:  # Any: JSON data of whoever wrote it
    try:
        if file is not None and _is_ours(file.parent) and _is_ours(file):
            return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        pass
    return {}


def _is_ours(path: Path) -> bool:
    """Whether nobody else could have written it."""
    found = os.stat(path, follow_symlinks=False)
    return found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o022


def _drop_oldest(directory: Path) -> None:
    files = [entry for entry in os.scandir(directory) if entry.name.endswith(".json")]
    for entry in sorted(files, key=lambda entry: entry.stat().st_mtime)[:-_MOST_MEMORIES]:
        os.unlink(entry)


class Digests:
    """Hashes files, each once. With ``anew`` whatever is remembered of files; facts are believed in any case. Not thread-safe."""

    def __init__(self, *, anew: bool = False) -> None:
        self._anew = anew
        self._known: dict[str, Digest] = {}
        self._memories: dict[str, Memory] = {}

    def memory(self, place: str) -> Memory:
        """Return what is remembered of a place."""
        if place not in self._memories:
            self._memories[place] = Memory.of(place)
        return self._memories[place]

    def of(self, path: str, place: str) -> Digest:
        """Return a file's digest; ``place`` is where it belongs. Raises ``IntegrityError`` for what can't be read or is no file."""
        if path not in self._known:
            self._known[path] = self._of(path, self.memory(place))
        return self._known[path]

    def _of(self, path: str, memory: Memory) -> Digest:
        known = memory.files.get(path)
        if known is not None and not self._anew and known[:-1] == _stamp_at(path):
            return Digest(known[2], known[-1])
        with _opened(path) as file:
            before = _stamp(os.fstat(file.fileno()))
            found = Digest(before[2], hashlib.file_digest(file, "sha256").hexdigest())
            after = _stamp(os.fstat(file.fileno()))
        if after != before:
            raise IntegrityError(f"{printable(path, 1000)} was changed while it was read; try again")
        row = [*before, found.sha256]
        if known != row and time.time_ns() - max(before[3:]) > _TICK:
            memory.learn(path, row)
        return found

    def save(self) -> None:
        """Keep what was found out."""
        for memory in self._memories.values():
            memory.save()


def contents(path: str) -> bytes:
    """Return a file's bytes. Raises ``IntegrityError`` for what can't be read or is no file."""
    with _opened(path) as file:
        data: bytes = file.read()
        return data


def _opened(path: str) -> Any:  # Any: a file opened for reading bytes
    try:
        # Not blocking, because a pipe in its place would keep whoever looks waiting.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except (OSError, ValueError) as error:
        raise IntegrityError(f"{printable(path, 1000)} can't be read: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IntegrityError(f"{printable(path, 1000)} is no regular file")
    return open(descriptor, "rb")


def _stamp_at(path: str) -> list[int] | None:
    try:
        return _stamp(os.stat(path))
    except (OSError, ValueError):
        return None


def _stamp(found: os.stat_result) -> list[int]:
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def whole(files: Mapping[str, Digest] | Iterable[tuple[str, Digest]]) -> str:
    """Return one digest for several files, by their relative names."""
    rows = sorted(dict(files).items())
    text = "".join(f"{name}\0{digest.size}\0{digest.sha256}\n" for name, digest in rows)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
