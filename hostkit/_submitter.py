"""Run submitted calls on a few daemon threads.

Not a ``ThreadPoolExecutor``: the interpreter joins its threads without a limit, so a hanging call would keep a program alive that
forgot ``close()``.
"""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from ._log import tell
from ._worker._failure import is_interrupt, message, type_name

_MOST_THREADS = 32


class CallFuture(Future[Any]):
    """A future that can be cancelled while its call runs. Thread-safe."""

    def __init__(self) -> None:
        super().__init__()
        self._cancelling = threading.Lock()  # guards _stop
        self._stop: Callable[[], object] | None = None
        self._begun = False

    def cancel(self) -> bool:
        """Cancel the call, whether it has begun or not; False where it has ended."""
        with self._cancelling:
            if self.cancelled():
                return True
            # It stays pending until it ends: a future that is said to run can't be cancelled.
            if not super().cancel():
                return False
            self.set_running_or_notify_cancel()  # tells concurrent.futures.wait and as_completed
            stop = self._stop
        if stop is not None:
            stop()
        return True

    def running(self) -> bool:
        """Whether the call has begun, and not ended."""
        return self._begun and not self.done()

    def on_cancel(self, stop: Callable[[], object]) -> None:
        """Call ``stop`` when the call is cancelled from now on."""
        with self._cancelling:
            self._stop = stop
            cancelled = self.cancelled()
        if cancelled:
            stop()

    def carry_out(self, call: Callable[[CallFuture], Any]) -> None:
        """Run a call to its end, which is the future's."""
        self._begun = True
        if self.cancelled():
            return
        settle: Callable[[], None]
        try:
            settle = functools.partial(self.set_result, call(self))
        except BaseException as error:  # the future carries it to whoever waits
            settle = functools.partial(self.set_exception, error)
        if self._ends():
            _settled(settle)

    def _ends(self) -> bool:
        with self._cancelling:
            self._stop = None
            return not self.cancelled() and self.set_running_or_notify_cancel()


class Submitter:
    """Threads that start as they are needed. Thread-safe."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._closed = False
        self.forget()

    def forget(self) -> None:
        """Begin anew in a fork, where the threads are not, and where what is queued is the parent's."""
        self._queue: queue.SimpleQueue[tuple[CallFuture, Callable[[CallFuture], Any]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # guards the two below, and _closed
        self._threads = 0
        self._idle = 0

    def submit(self, call: Callable[[CallFuture], Any]) -> Future[Any]:
        """Run a call soon, and give it its future; one that is cancelled before it began is dropped.

        After ``close``, and where no thread can be had, the caller runs it: it must know by itself that its time is over.
        """
        future = CallFuture()
        if not self._enqueued(future, call):
            future.carry_out(call)
        return future

    def _enqueued(self, future: CallFuture, call: Callable[[CallFuture], Any]) -> bool:
        with self._lock:
            if self._closed:
                return False
            # Below 0 it says how many calls wait.
            if self._idle <= 0 and self._threads < _MOST_THREADS:
                self._start()
            if not self._threads:
                return False
            self._idle -= 1
            self._queue.put((future, call))
            return True

    def _start(self) -> None:
        name = f"{self._name}-{self._threads + 1}"
        try:
            threading.Thread(target=self._run, name=name, daemon=True).start()
        except RuntimeError:  # no more threads, or the interpreter is shutting down: those that there are must do
            return
        self._threads += 1
        self._idle += 1

    def close(self) -> None:
        """Let the threads end after what is queued. Idempotent."""
        with self._lock:
            if not self._closed:
                self._closed = True
                for _ in range(self._threads):
                    self._queue.put(None)

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            future, call = work
            future.carry_out(call)
            del work, future, call
            with self._lock:
                self._idle += 1


def _settled(settle: Callable[[], None]) -> None:
    try:
        settle()
    except BaseException as error:  # the application's own callbacks; concurrent.futures catches no more than an Exception
        if is_interrupt(error):
            raise
        tell("ERROR", f"a callback of a submitted call raised {type_name(error)}: {message(error)}")
