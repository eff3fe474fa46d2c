"""The audit log's file: entries are appended whole, whoever else appends to it, and what is there is never changed.

open ─► lock ─► still the file of that name? ─► last whole line ─► what stands behind it is told ─► written ─► on the disk
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ._audit_chain import LINE_LIMIT, NOTHING, Entry, Head, entry_of, line_after, torn_facts
from ._deadline import Deadline

try:
    import fcntl
except ImportError:  # a system without it has nothing that lets several hosts share a file
    fcntl = None  # type: ignore[assignment]

# Seconds between two tries for the lock: there is no wait for it that ends by itself.
_AGAIN = 0.002
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT
_FLAGS |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)


class Unwritable(Exception):
    """Nothing can be appended; the text says why, and nothing was."""


@dataclass(frozen=True, slots=True)
class News:
    """An entry that has no place in the chain yet."""

    at: float
    kind: str
    plugin: str
    facts: Mapping[str, object]


class AuditFile:
    """Appends to one file. It holds it open only while it does, so a file that is moved away is followed by a new one.

    ``beginning`` returns the facts of the entry that goes before the first one of this object in any file. Not thread-safe; other
    processes and other objects of this class may append to the same file at any time.
    """

    def __init__(self, path: Path, beginning: Callable[[], Mapping[str, object]]) -> None:
        self.path = path
        self.head: Head | None = None  # of the last entry that was written here
        self._beginning = beginning
        self._place = _Place(0, 0, 0, 0)

    def append(self, news: Sequence[News], *, deadline: Deadline, sync: bool) -> list[News]:
        """Append entries, all or none; with ``sync`` they are on the disk then. Return those that were put before them, because of what
        the file was like. Raises ``Unwritable``."""
        try:
            with self._locked(deadline) as descriptor:
                return self._append(descriptor, news, sync=sync)
        except OSError as error:
            raise Unwritable(_WORDS.get(error.errno or 0) or error.strerror or str(error)) from error
        except ValueError as error:  # a path that none can be
            raise Unwritable(str(error)) from error

    def _append(self, descriptor: int, news: Sequence[News], *, sync: bool) -> list[News]:
        now = os.fstat(descriptor)
        last, rest = _tail(descriptor, now.st_size)
        if last is None and now.st_size and (b"\n" in rest or rest[: len(_FIRST)] != _FIRST[: len(rest)]):
            raise Unwritable("is no audit log, or its last entries are damaged beyond continuing; move it away")
        lone = None if b"\n" in rest else entry_of(rest)  # whole but for its end
        head = NOTHING if last is None else last.head
        about = [*_about_rest(rest, news[0].at, whole=lone is not None), *self._about(descriptor, now, news[0].at)]
        head = head if lone is None else lone.head
        lines = [b"\n"] if rest and not rest.endswith(b"\n") else []
        for each in (*about, *news):
            line, head = line_after(head, each.at, each.kind, each.plugin, each.facts)
            lines.append(line)
        data = b"".join(lines)
        self._write(descriptor, data, now.st_size, sync=sync)
        self.head = head
        self._place = _Place(now.st_dev, now.st_ino, now.st_size + len(data) - len(lines[-1]), len(lines[-1]))
        return about

    def _about(self, descriptor: int, now: os.stat_result, at: float) -> Iterator[News]:
        """Yield what is to be told before anything else: that this object begins here, or that what it wrote is gone."""
        before, place = self.head, self._place
        if before is None or (place.device, place.inode) != (now.st_dev, now.st_ino):
            yield News(at, "begun", "", {**self._beginning(), "after": None if before is None else str(before)})
            return
        entry = entry_of(os.pread(descriptor, place.length, place.offset).removesuffix(b"\n"))
        if entry is None or entry.head != before:
            yield News(
                at, "damaged", "", {"why": "the entry that this host wrote last is gone or another one", "head": str(before)}
            )

    def _write(self, descriptor: int, data: bytes, size: int, *, sync: bool) -> None:
        try:
            done = 0
            while done < len(data):
                done += os.write(descriptor, data[done:])
            if sync:
                _to_disk(descriptor, None if size else self.path.parent)
        except OSError:
            with suppress(OSError):  # where it may only grow, the next entry tells of the half one
                os.ftruncate(descriptor, size)
            raise

    @contextmanager
    def _locked(self, deadline: Deadline) -> Iterator[int]:
        """Open the file that has this name now, for this object alone."""
        while True:
            descriptor = os.open(self.path, _FLAGS, 0o600)
            try:
                _check(os.fstat(descriptor))
                with _lock(descriptor, deadline):
                    if _is_at(self.path, descriptor):
                        yield descriptor
                        return
            finally:
                os.close(descriptor)
            if deadline.passed:
                raise Unwritable("is replaced again and again")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the last entry of ours is."""

    device: int
    inode: int
    offset: int
    length: int


_FIRST = b'{"seq":1,'
_WORDS = {errno.ELOOP: "is a link", errno.EISDIR: "is a directory", errno.ENXIO: "is no regular file"}


def _check(found: os.stat_result) -> None:
    """Raise ``Unwritable`` for a file that others could write to, or that is something else as well."""
    if not stat.S_ISREG(found.st_mode):
        raise Unwritable("is no regular file")
    if found.st_nlink > 1:
        raise Unwritable("has other names, too (hard links)")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Unwritable(f"may be written by others (mode {stat.S_IMODE(found.st_mode):04o}); make it 0600")
    if hasattr(os, "geteuid") and found.st_uid not in (os.geteuid(), 0):
        raise Unwritable(f"belongs to another user ({found.st_uid})")


@contextmanager
def _lock(descriptor: int, deadline: Deadline) -> Iterator[None]:
    while fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if deadline.passed:
                raise Unwritable("another process holds it and doesn't let go") from None
            time.sleep(_AGAIN)
    try:
        yield
    finally:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing alone is not enough where a fork has the descriptor, too


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _to_disk(descriptor: int, folder: Path | None) -> None:
    getattr(os, "fdatasync", os.fsync)(descriptor)
    if folder is None:
        return
    with suppress(OSError):  # not every file system lets a directory be asked for that
        directory = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0))
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _tail(descriptor: int, size: int) -> tuple[Entry | None, bytes]:
    """Return the last whole line that is an entry, and what stands behind it."""
    rest = b""
    for span in (8 * 1024, 2 * LINE_LIMIT):
        start = max(0, size - span)
        rest = os.pread(descriptor, size - start, start)
        end = rest.rfind(b"\n")
        while end >= 0:
            begin = rest.rfind(b"\n", 0, end) + 1
            entry = entry_of(rest[begin:end])
            if entry is not None:
                return entry, rest[end + 1 :]
            end = begin - 1
        if start == 0:
            break
    return None, rest


def _about_rest(rest: bytes, at: float, *, whole: bool) -> Iterator[News]:
    if rest and not whole:
        if b"\n" not in rest:
            yield News(at, "torn", "", torn_facts(rest))
        else:
            yield News(at, "damaged", "", {"why": f"{len(rest)} bytes at the end are no entries", "bytes": len(rest)})
