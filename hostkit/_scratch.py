"""Private directories for confined workers: one a worker, gone when it ends, also when the host was killed.

    TMPDIR/hostkit.XXXXXXXX/   one a host, with a file that is locked for as long as that lives
        WORKER/                       mode 0700, the worker's TMPDIR and HOME

Whoever makes one removes those of hosts that are gone: their locks went with them.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import threading
from contextlib import suppress

from ._lifetimes import close_in_forks

_PREFIX, _LOCK = "hostkit.", ".hostkit-lock"


class Scratch:
    """One host's. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the two below
        self._place = ""
        self._fd = -1

    def make(self) -> str:
        """Return a new directory for one worker. Raises ``OSError``."""
        with self._lock:
            if not self._place:
                self._open()
            return tempfile.mkdtemp(dir=self._place, prefix="")

    def _open(self) -> None:
        try:
            self._place, self._fd = _locked_directory()
        except (BlockingIOError, FileNotFoundError):  # another host took it for one that was left behind, the moment it was made
            self._place, self._fd = _locked_directory()
        close_in_forks(self)
        with suppress(OSError):
            _remove_left_behind(*os.path.split(self._place))

    def close(self) -> None:
        """Remove what is left. Idempotent; it may be used again afterwards."""
        with self._lock:
            place, self._place = self._place, ""
            fd, self._fd = self._fd, -1
        if place:
            shutil.rmtree(place, ignore_errors=True)
        if fd >= 0:
            os.close(fd)

    def forget(self) -> None:
        """Let go in a fork, taking no lock: the directory is the parent's."""
        self._lock = threading.Lock()
        fd, self._fd, self._place = self._fd, -1, ""
        if fd >= 0:
            with suppress(OSError):
                os.close(fd)


def _locked_directory() -> tuple[str, int]:
    place = tempfile.mkdtemp(prefix=_PREFIX)
    try:
        return place, _locked(os.path.join(place, _LOCK), os.O_CREAT | os.O_EXCL)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def _locked(path: str, flags: int = 0) -> int:
    """Open and lock a file. Raises ``OSError``, also where it is locked already."""
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(fd)
        raise
    return fd


def remove(place: str) -> None:
    """Remove one worker's directory: at once where it is empty, else on another thread, which the interpreter's exit waits for."""
    try:
        os.rmdir(place)
    except OSError:
        with suppress(RuntimeError):  # no thread to be had: the host's end removes it
            threading.Thread(target=shutil.rmtree, args=(place, True), name="hostkit-scratch").start()


def _remove_left_behind(parent: str, own: str) -> None:
    """Remove what this user's hosts that are gone have left in ``parent``."""
    for entry in os.scandir(parent):
        if entry.name.startswith(_PREFIX) and entry.name != own:
            with suppress(OSError):  # somebody else's, alive, just being made, or nothing of the kind
                fd = _locked(os.path.join(entry.path, _LOCK))
                try:
                    if os.fstat(fd).st_uid == os.geteuid():
                        shutil.rmtree(entry.path, ignore_errors=True)
                finally:
                    os.close(fd)
