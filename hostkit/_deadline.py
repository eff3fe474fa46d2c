"""One moment that a whole call must end by, on the monotonic clock."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable


class Deadline:
    """A moment, or none. What crosses to another process is what ``remaining`` says, never the moment itself."""

    __slots__ = ("_clock", "at")

    def __init__(self, at: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.at = at
        self._clock = clock

    @classmethod
    def after(cls, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> Deadline:
        """Return the deadline that is ``seconds`` away; None is without limit, 0 has passed already."""
        return cls(math.inf if seconds is None else clock() + seconds, clock)

    def remaining(self) -> float:
        """Return the seconds left, never below 0; infinity where there is no limit."""
        return max(0.0, self.at - self._clock())

    def wait(self) -> float | None:
        """Return the seconds left as ``Lock.acquire`` and friends take them: None is for ever, and no more than they can count."""
        return None if self.at == math.inf else min(self.remaining(), threading.TIMEOUT_MAX)

    @property
    def passed(self) -> bool:
        """Whether it is too late."""
        return self._clock() >= self.at

    def sooner(self, seconds: float) -> Deadline:
        """Return this deadline or the one ``seconds`` away, whichever comes first."""
        return Deadline(min(self.at, self._clock() + seconds), self._clock)
