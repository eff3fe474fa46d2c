"""How often and how soon a dead worker is replaced."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable

# The first replacement comes at once; the next ones wait, with full jitter (AWS Architecture Blog, "Exponential Backoff And
# Jitter"), so that a crash loop doesn't burn a CPU.
_BACKOFF, _MOST_BACKOFF = 0.1, 5.0


class Restarts:
    """The deaths within the last ``window`` seconds, of which ``budget`` are forgiven. Not thread-safe."""

    def __init__(
        self,
        budget: int,
        window: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._budget = budget
        self._window = window
        self._clock = clock
        self._jitter = jitter
        self._deaths: deque[float] = deque()

    def died(self) -> None:
        """Count one death."""
        self._deaths.append(self._clock())
        self._forget_old()

    @property
    def count(self) -> int:
        """How many deaths count now."""
        self._forget_old()
        return len(self._deaths)

    @property
    def used_up(self) -> bool:
        """Whether there were more deaths than are forgiven."""
        return self.count > self._budget

    def pause(self) -> float:
        """Return the seconds to wait before the next start."""
        if self.count <= 1:
            return 0.0
        # The exponent is bounded because a float isn't: a budget may be a million.
        longest: float = min(_MOST_BACKOFF, _BACKOFF * 2.0 ** min(self.count - 2, 16))
        return longest * self._jitter()

    def _forget_old(self) -> None:
        now = self._clock()
        while self._deaths and self._deaths[0] <= now - self._window:
            self._deaths.popleft()
