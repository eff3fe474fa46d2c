"""The door of one backend: knows the calls inside, and closes for good."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ._contract import ExecutionContext
from ._deadline import Deadline


class GateShut(Exception):
    """The gate takes no more calls."""


class Gate:
    """The calls in flight. Thread-safe.

    A call enters, then looks whether the gate is shut, and leaves in any case, as ``entered`` does; so nobody waits for a lock, and
    whoever shuts the gate sees every call that looked before.
    """

    __slots__ = ("_changed", "_inside", "enter", "is_shut")

    def __init__(self) -> None:
        # By identity, so that leaving twice, or without having entered, does no harm: a Ctrl-C may come between any two steps.
        self._inside: set[ExecutionContext] = set()
        self.enter = self._inside.add  # one step, which no other thread can divide
        self.is_shut = False
        self._changed = threading.Condition()

    @contextmanager
    def entered(self, context: ExecutionContext) -> Iterator[None]:
        """Be inside for a block. Raises ``GateShut``."""
        try:
            self.enter(context)
            if self.is_shut:
                raise GateShut
            yield
        finally:
            self.leave(context)

    def leave(self, context: ExecutionContext) -> None:
        """Note that a call is over. Idempotent."""
        self._inside.discard(context)
        if self.is_shut:
            with self._changed:
                self._changed.notify_all()

    @property
    def inside(self) -> int:
        """How many calls are in flight."""
        return len(self._inside)

    def overdue(self, now: float) -> set[ExecutionContext]:
        """Return the calls inside that should have ended before ``now``, on the monotonic clock."""
        return {call for call in self._inside.copy() if call._ends_at is not None and call._ends_at < now}

    def shut(self) -> None:
        """Take no more calls. Idempotent."""
        self.is_shut = True

    def wait_empty(self, deadline: Deadline) -> bool:
        """Wait until the last call has left, after ``shut``; return whether it has."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._inside, deadline.wait())
