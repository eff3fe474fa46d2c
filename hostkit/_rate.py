"""At most so many calls a second: a token bucket."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ._config import RateConfig


class Rate:
    """Admits ``per_second`` calls on average and ``burst`` at once. Thread-safe."""

    def __init__(self, config: RateConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config
        self._per_second = config.per_second
        self._burst = float(config.burst)
        # Whoever waits as long as he was told must get his turn, though sums and clocks round: a nanosecond's worth less is one.
        self._one = 1.0 - min(0.5, 1e-9 * (1.0 + config.per_second))
        self._clock = clock
        self._lock = threading.Lock()  # guards _tokens and _at
        self._tokens = self._burst
        self._at = clock()

    def take(self) -> float:
        """Take a turn: return 0, or the seconds after which there is one."""
        with self._lock:
            now = self._clock()
            tokens = min(self._burst, self._tokens + (now - self._at) * self._per_second)
            self._at = now
            if tokens >= self._one:
                self._tokens = tokens - 1.0
                return 0.0
            self._tokens = tokens
            return (1.0 - tokens) / self._per_second
