"""Run submitted calls on a few daemon threads.

Not a ``ThreadPoolExecutor``: the interpreter joins its threads without a limit, so a hanging call would keep a program alive that
forgot ``close()``.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

_MOST_THREADS = 32


class Submitter:
    """Threads that start as they are needed. Thread-safe."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # guards the three below
        self._threads = 0
        self._idle = 0
        self._closed = False

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """Run a call soon; one that is cancelled before it began is dropped.

        After ``close``, and where no thread can be had, the caller runs it: it must know by itself that its time is over.
        """
        future: Future[Any] = Future()
        if not self._enqueued(future, call):
            _carry_out(future, call)
        return future

    def _enqueued(self, future: Future[Any], call: Callable[[], Any]) -> bool:
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
            _carry_out(*work)
            del work
            with self._lock:
                self._idle += 1


def _carry_out(future: Future[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except BaseException as error:  # the future carries it to whoever waits
        future.set_exception(error)
