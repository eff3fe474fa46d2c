"""The one thread that watches all workers of a host: deaths, heartbeats, logs, late replies.

It is an asyncio event loop on a daemon thread. Nothing on it may block: callers wait on their own threads.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable


class Monitor:
    """Runs callbacks when descriptors are readable and when times have come. Thread-safe; starts with its first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _loop and _thread
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, step: Callable[..., object], *arguments: object) -> None:
        """Run a step on the monitor's thread, soon. After ``stop`` nothing runs any more."""
        loop = self._started()
        if loop is not None:
            try:
                loop.call_soon_threadsafe(step, *arguments)
            except RuntimeError:  # stopped meanwhile
                pass

    # The following are for steps that run on the monitor's thread.

    def watch(self, fd: int, step: Callable[[], object]) -> None:
        """Run ``step`` whenever ``fd`` is readable."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.add_reader(fd, step)

    def unwatch(self, fd: int) -> None:
        """Stop watching ``fd``, before it is closed."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(fd)

    def later(self, seconds: float, step: Callable[..., object], *arguments: object) -> asyncio.TimerHandle | None:
        """Run a step in ``seconds``; the handle cancels it."""
        if self._loop is None or self._loop.is_closed():
            return None
        return self._loop.call_later(seconds, step, *arguments)

    @property
    def on_it(self) -> bool:
        """Whether this is the monitor's own thread."""
        return threading.current_thread() is self._thread

    def stop(self) -> None:
        """End the thread. Idempotent."""
        with self._lock:
            thread, loop = self._thread, self._loop
            self._thread = None
        if thread is not None and loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(loop.stop)
            if thread is not threading.current_thread():
                thread.join(2.0)

    def forget(self) -> None:
        """Drop a thread that this process doesn't have, because it is a fork of the one that had it."""
        self._lock = threading.Lock()
        self._thread = None
        self._loop = None

    def _started(self) -> asyncio.AbstractEventLoop | None:
        with self._lock:
            if self._thread is None and self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_run, args=(self._loop,), name="hostkit-monitor", daemon=True)
                self._thread.start()
            return self._loop if self._thread is not None else None


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()
