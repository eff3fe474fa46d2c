"""The door of one backend: counts the calls inside, and closes for good."""

from __future__ import annotations

import threading
from types import TracebackType

from ._deadline import Deadline


class GateShut(Exception):
    """The gate takes no more calls."""


class Gate:
    """Counts calls in flight; a context manager around each call. Thread-safe."""

    __slots__ = ("_condition", "_inside", "_lock", "_shut")

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _inside and _shut
        self._condition: threading.Condition | None = None
        self._inside = 0
        self._shut = False

    def __enter__(self) -> None:
        with self._lock:
            if self._shut:
                raise GateShut
            self._inside += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._lock:
            self._inside -= 1
            if self._condition is not None and not self._inside:
                self._condition.notify_all()

    @property
    def inside(self) -> int:
        """How many calls are in flight."""
        return self._inside

    def shut(self) -> None:
        """Take no more calls. Idempotent."""
        with self._lock:
            self._shut = True

    def wait_empty(self, deadline: Deadline) -> bool:
        """Wait until the last call has left; return whether it has."""
        with self._lock:
            if self._condition is None:
                self._condition = threading.Condition(self._lock)
            return self._condition.wait_for(lambda: not self._inside, deadline.wait())
