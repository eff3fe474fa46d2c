"""Change a file in place so that whoever reads it sees the old or the new one whole, and that two who do it at once lose nothing.

lock the folder ─► read ─► change ─► write a file beside it ─► still what was read? ─► put it in its place
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .._errors import ConfigError

_PATIENCE = 10.0


def replaced(path: Path, change: Callable[[bytes | None], bytes | None], *, patience: float = _PATIENCE) -> None:
    """Give what is in the file, None if it isn't there, to ``change``, and put what that returns in its place, if anything.

    A link stays and what it leads to is replaced, with its permissions and owner. ``change`` is called again where somebody else, who
    knows of no lock, changes the file meanwhile. Raises ``ConfigError`` where that can't be done, and whatever ``change`` raises.
    """
    target = Path(os.path.realpath(path))
    end = time.monotonic() + patience
    try:
        with _locked(target.parent, end):
            while True:
                before = _bytes(target)
                after = change(before)
                if after is None or after == before or _put(target, before, after):
                    return
                if time.monotonic() > end:
                    raise ConfigError(f"{path}: others change it all the time; nothing was written")
    except OSError as error:
        raise ConfigError(f"{path}: can't be written: {error.strerror or error}") from None


@contextmanager
def _locked(folder: Path, end: float) -> Iterator[None]:
    # Of the folder, because the file itself becomes another one, and a file for the lock alone would be left behind.
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        while not _lock(descriptor):
            if time.monotonic() > end:
                raise ConfigError(f"{folder}: somebody else is changing the configuration; try again")
            time.sleep(0.02)  # there is no waiting for a lock with a limit
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _put(target: Path, before: bytes | None, after: bytes) -> bool:
    """Put a new file in the place of one that is still as it was; False if it isn't."""
    known = None if before is None else os.stat(target)
    if known is not None and not os.access(target, os.W_OK):
        raise PermissionError(0, "it is read-only")
    partial = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(partial, flags, 0o666 if known is None else 0o600), "wb") as file:
            file.write(after)
            if known is not None:
                _resemble(file.fileno(), known)
            file.flush()
            os.fsync(file.fileno())
        if _bytes(target) != before:
            return False
        os.replace(partial, target)
    finally:
        with suppress(FileNotFoundError):  # it is in its place
            os.unlink(partial)
    _sync(target.parent)
    return True


def _resemble(descriptor: int, known: os.stat_result) -> None:
    if (known.st_uid, known.st_gid) != (os.geteuid(), os.getegid()):
        with suppress(PermissionError):  # only root gives files away; to write it was allowed all the same
            os.fchown(descriptor, known.st_uid, known.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(known.st_mode))


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
