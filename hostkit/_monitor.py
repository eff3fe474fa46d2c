"""The one thread that watches all workers of a host: deaths, heartbeats, logs, late replies.

It is an asyncio event loop on a daemon thread. Nothing on it may block: callers wait on their own threads.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ._log import tell


class Monitor:
    """Runs callbacks when descriptors are readable and when times have come. Thread-safe; starts with its first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards everything below
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._held = 0
        self._stopping = False

    def run(self, step: Callable[..., object], *arguments: object) -> None:
        """Run a step on the monitor's thread, soon. After the end of the thread nothing runs any more."""
        loop = self._started()
        if loop is not None:
            with suppress(RuntimeError):  # ended meanwhile
                loop.call_soon_threadsafe(step, *arguments)

    def hold(self) -> bool:
        """Keep the thread running, beyond ``stop`` too, until ``let_go``: a worker that still lives is seen to its end.

        Returns whether that could be had: not after the thread's end. Raises what keeps a thread from starting.
        """
        self._started()
        with self._lock:
            if self._stopping and not self._held:
                return False
            self._held += 1
            return True

    def let_go(self) -> None:
        """Take one ``hold`` back."""
        with self._lock:
            self._held -= 1
            ending = self._stopping and not self._held
        if ending:
            self._end()

    # The following are for steps that run on the monitor's thread.

    def watch(self, fd: int, step: Callable[[], object]) -> None:
        """Run ``step`` whenever ``fd`` is readable."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.add_reader(fd, step)

    def unwatch(self, fd: int) -> None:
        """Stop watching ``fd``, before it is closed."""
        if fd >= 0 and self._loop is not None and not self._loop.is_closed():
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
        """End the thread once nobody holds it. Idempotent."""
        with self._lock:
            self._stopping = True
            held, thread = self._held, self._thread
        if not held:
            self._end()
            if thread is not None and thread is not threading.current_thread():
                thread.join(2.0)

    def forget(self) -> None:
        """Drop a thread that this process doesn't have, because it is a fork of the one that had it."""
        self._lock = threading.Lock()
        self._thread = None
        self._held = 0
        self._stopping = True
        # Closing it here would take the parent's descriptors off the epoll object that a fork shares with its parent.
        self._loop = None

    def _end(self) -> None:
        with self._lock:
            loop = self._loop
        if loop is not None and not loop.is_closed():
            with suppress(RuntimeError):  # ended meanwhile
                loop.call_soon_threadsafe(loop.stop)

    def _started(self) -> asyncio.AbstractEventLoop | None:
        with self._lock:
            if self._thread is None and (self._held or not self._stopping):
                self._loop, self._thread = _begin()
            return self._loop


def _begin() -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
    # Its own selector: a loop that gets no socketpair forgets to close the one it made.
    selector = selectors.DefaultSelector()
    try:
        loop = asyncio.SelectorEventLoop(selector)
    except BaseException:
        selector.close()
        raise
    try:
        loop.set_exception_handler(_tell_of)
        thread = threading.Thread(target=_run, args=(loop,), name="hostkit-monitor", daemon=True)
        thread.start()
    except BaseException:
        loop.close()
        raise
    return loop, thread


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def _tell_of(loop: asyncio.AbstractEventLoop, said: dict[str, Any]) -> None:
    # asyncio's own handler would write to the application's stderr.
    del loop
    tell("ERROR", f"the monitor: {said.get('message')}: {said.get('exception')!r}")
