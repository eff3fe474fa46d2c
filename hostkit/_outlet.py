"""Hand things over to somebody who may be slow, stuck or broken: a bounded queue, and one thread that empties it.

offer ─► queue ─► (the thread) ─► write

Whoever offers waits for nobody. What doesn't fit is dropped, the oldest first, and counted.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from ._worker._failure import message, type_name

T = TypeVar("T")

# Seconds after which one write is taken to be stuck.
_STUCK = 5.0
# Seconds between two looks of the thread, so that nobody who offers has to wake it; and how many in vain until it ends.
_PAUSE, _IN_VAIN = 0.05, 20


class Outlet(Generic[T]):
    """What waits for one reader: ``write`` takes one thing at a time, on the outlet's own thread. Thread-safe.

    ``sent`` and ``dropped`` count; ``trouble`` is what the last failing ``write`` raised, else empty.
    """

    def __init__(self, name: str, write: Callable[[T], object], *, most: int = 10_000) -> None:
        self.name = name
        self.sent = 0
        self.dropped = 0
        self.trouble = ""
        self._write = write
        self._most = most
        self._closed = False
        self.forget()

    def forget(self) -> None:
        """Begin anew in a fork, where the thread isn't: what waits is the parent's to write."""
        self._queue: deque[T] = deque()
        # Guards dropped, the replacement of _thread, and the notification of _done. Reentrant, because a signal's handler and a finalizer
        # may offer something right under it.
        self._lock = threading.RLock()
        self._done = threading.Condition(self._lock)
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._writing_since = 0.0
        self._hurried = False

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    @property
    def stuck_for(self) -> float:
        """Seconds that the ``write`` which runs now has taken; 0 where none runs."""
        since = self._writing_since
        return time.monotonic() - since if since else 0.0

    def state(self) -> dict[str, object]:
        """Return how it is doing, as JSON data: how many are ``sent``, ``dropped`` and ``waiting``, and what the ``trouble`` is."""
        stuck = self.stuck_for
        trouble = f"stuck for {stuck:.0f} s" if stuck > _STUCK else self.trouble
        return {"sent": self.sent, "dropped": self.dropped, "waiting": self.waiting, "trouble": trouble}

    def offer(self, item: T) -> bool:
        """Put something in the queue; return whether a thread is there to write it. Never waits and never raises. After ``close`` it is
        dropped."""
        queue = self._queue
        if self._closed:
            with self._lock:
                self.dropped += 1
            return True
        queue.append(item)
        if self._thread is None or len(queue) > self._most:
            return self._see_to_it()
        return True

    def _see_to_it(self) -> bool:
        with self._lock:
            while len(self._queue) > (0 if self._closed else self._most):
                with suppress(IndexError):  # it was written meanwhile
                    self._queue.popleft()
                    self.dropped += 1
            if self._thread is not None or not self._queue:
                return True
            self._hurried = False
            self._thread = threading.Thread(target=self._run, name=f"hostkit-{self.name}", daemon=True)
            try:
                self._thread.start()
            except (RuntimeError, MemoryError):  # no thread to be had: what waits goes with what comes next, or by ``flush``
                self._thread = None
            return self._thread is not None

    def _run(self) -> None:
        in_vain = 0
        while True:
            in_vain = 0 if self._drain() else in_vain + 1
            if in_vain and (in_vain > _IN_VAIN or self._hurried) and self._ended():
                return
            self._wake.wait(0.0 if self._hurried else _PAUSE)
            self._wake.clear()

    def _drain(self) -> bool:
        """Write what is there; return whether there was anything."""
        found = False
        while self._queue:
            self._writing_since = time.monotonic()
            try:
                item = self._queue.popleft()
            except IndexError:  # it was dropped meanwhile
                break
            found = True
            try:
                self._write(item)
                self.sent += 1
            except BaseException as error:  # foreign code, on a thread of its own: nobody's Ctrl-C
                self.trouble = f"{type_name(error)}: {message(error)}"[:1000]
                with self._lock:
                    self.dropped += 1
        self._writing_since = 0.0
        with self._done:
            self._done.notify_all()
        return found

    def _ended(self) -> bool:
        """End the thread unless there is something again. Who offers looks for the thread after the queue has it, so nothing stays."""
        with self._lock:
            self._thread = None
            if self._queue:
                self._thread = threading.current_thread()
            return self._thread is None

    def flush(self, timeout: float) -> bool:
        """Wait until what was offered is written, for ``timeout`` seconds at the most; return whether it is. The thread ends then, until
        more is offered. Where no thread is to be had, the caller's writes. Not from ``write``."""
        if threading.current_thread() is self._thread:
            return False
        if not self._see_to_it():
            self._drain()
        with self._done:
            self._hurried = True
            self._wake.set()
            self._done.wait_for(lambda: self._thread is None or not (self._queue or self._writing_since), timeout)
        return not self._queue and not self._writing_since

    def close(self, timeout: float) -> bool:
        """Write what waits, within ``timeout`` seconds, then take nothing more; return whether all is written. Idempotent."""
        written = self.flush(timeout)
        self._closed = True
        self._see_to_it()
        self._wake.set()
        return written
