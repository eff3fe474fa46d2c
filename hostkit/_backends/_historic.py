"""Historic hook calls of an isolated plugin: each of its workers hears all of them, in order, before its next call.

told to one worker at once ─► remembered ─► told to each other worker, and each that is started later, when it is called
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from .._deadline import Deadline

if TYPE_CHECKING:
    from .._link import Link

Call = TypeVar("Call")
Answer = TypeVar("Answer")


class TurnPassed(Exception):
    """The worker was hearing earlier calls until the deadline."""


class Historic(Generic[Call]):
    """The historic calls of one plugin. Thread-safe; a worker is told by one caller at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the appending to _calls
        self._calls: list[Call] = []

    def missed_by(self, link: Link) -> bool:
        """Whether a worker hasn't heard of everything."""
        return link.heard < len(self._calls)

    def remember(self, call: Call) -> None:
        """Keep a call that no worker could be told of now."""
        with self._lock:
            self._calls.append(call)

    def catch_up(self, link: Link, deadline: Deadline, again: Callable[[Call], object]) -> None:
        """Tell a worker what it has missed. Raises ``TurnPassed``, and what ``again`` raises; a worker is told nothing twice."""
        if not link.hearing.acquire(timeout=_limit(deadline)):
            raise TurnPassed
        try:
            self._catch_up(link, again)
        finally:
            link.hearing.release()

    def add(
        self, link: Link, deadline: Deadline, call: Call, again: Callable[[Call], object], answer: Callable[[Call], Answer]
    ) -> Answer:
        """Tell a worker what it has missed, then this new call, and return its answer. Raises as ``catch_up``."""
        if not link.hearing.acquire(timeout=_limit(deadline)):
            self.remember(call)
            raise TurnPassed
        added = False
        try:
            while not (added := self._added(link, call)):
                self._catch_up(link, again)
            return answer(call)
        finally:
            if added:
                link.heard += 1
            else:
                self.remember(call)
            link.hearing.release()

    def _catch_up(self, link: Link, again: Callable[[Call], object]) -> None:
        while self.missed_by(link):
            try:
                again(self._calls[link.heard])
            finally:
                link.heard += 1  # not before: its other channels wait until it has heard

    def _added(self, link: Link, call: Call) -> bool:
        with self._lock:
            if self.missed_by(link):
                return False
            self._calls.append(call)
            return True


def _limit(deadline: Deadline) -> float:
    seconds = deadline.wait()
    return -1 if seconds is None else min(seconds, threading.TIMEOUT_MAX)
