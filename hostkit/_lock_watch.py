"""Tell when the lock file has become another one. It decides nothing: a load reads the file as it is then, and what is loaded stays.

the file, or what stands in its place ─► another one than before? ─► valid, invalid or missing ─► LockChanged, once
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from ._errors import ConfigError, IntegrityError
from ._events import Event, LockChanged
from ._log import tell
from ._parsing import Unreadable, contents
from ._watching import Watch

_LIMIT = 64 * 1024 * 1024


class LockWatch:
    """Watches one file. ``check`` takes its bytes and raises ``IntegrityError`` where they are no lock. Thread-safe."""

    def __init__(self, path: Path, check: Callable[[bytes], object], emit: Callable[[Event], None]) -> None:
        self.path = path
        self._check = check
        self._emit = emit
        self._lock = threading.Lock()  # guards _stamp, _state, _watch and _stopped
        self._stamp = _stamp(path)
        self._state = self._looked()
        self._watch: Watch | None = None
        self._stopped = False

    def start(self) -> None:
        """Look at it whenever the system says that it changed; without ``hostkit[watch]`` ``look`` alone has to do."""
        try:
            watch = Watch(self.path, self.look, seen=_stamp, what="the lock file")
        except ConfigError as error:
            tell("INFO", f"{error}; until then changes of {self.path} are told when a plugin is loaded")
            return
        with self._lock:
            self._watch = watch
            stopped = self._stopped
        if stopped:
            watch.stop()

    def look(self) -> None:
        """Look at it now, and tell if it is another one than before."""
        with self._lock:
            stamp = _stamp(self.path)
            if stamp == self._stamp or self._stopped:
                return
            before, now = self._state, self._looked()
            self._stamp, self._state = stamp, now
        if now != before:
            self._emit(LockChanged("", str(self.path), *now))

    def stop(self) -> None:
        """Watch no more. Idempotent."""
        with self._lock:
            self._stopped = True
            watch, self._watch = self._watch, None
        if watch is not None:
            watch.stop()

    def _looked(self) -> tuple[str, str]:
        """Return the state, and its digest or what is wrong with it."""
        try:
            data = contents(self.path, limit=_LIMIT)
            self._check(data)
        except Unreadable as error:
            there = os.path.lexists(self.path)
            return ("invalid", f"{_link(self.path)}{error}") if there else ("missing", "")
        except IntegrityError as error:
            return "invalid", f"{_link(self.path)}{error}"
        return "valid", f"{_link(self.path)}sha256 {hashlib.sha256(data).hexdigest()}"


def _link(path: Path) -> str:
    try:
        return f"a link to {os.readlink(path)}, "
    except OSError:
        return ""


def _stamp(path: Path) -> object:
    """Return something that is another one when the file is, or where the name leads; nobody but root can set the time of a change."""
    try:
        own, behind = os.lstat(path), os.stat(path)
    except OSError as error:
        return error.errno
    return tuple((each.st_dev, each.st_ino, each.st_size, each.st_mtime_ns, each.st_ctime_ns) for each in (own, behind))
