"""Let so much of a flood through, and count the rest: a token bucket for each source of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class _Source:
    tokens: float
    at: float
    left_out: int = 0


class Sieve:
    """Lets ``burst`` through at once and ``per_second`` on average, of each source. Thread-safe."""

    def __init__(self, burst: int, per_second: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst = float(burst)
        self._per_second = per_second
        self._clock = clock
        self._lock = threading.Lock()  # guards _sources
        self._sources: dict[str, _Source] = {}

    def take(self, source: str) -> int | None:
        """Return how many were left out since the last one that got through; None for one that is left out itself."""
        with self._lock:
            now = self._clock()
            found = self._sources.setdefault(source, _Source(self._burst, now))
            found.tokens = min(self._burst, found.tokens + (now - found.at) * self._per_second)
            found.at = now
            if found.tokens < 1.0:
                found.left_out += 1
                return None
            found.tokens -= 1.0
            left_out, found.left_out = found.left_out, 0
            return left_out

    def rest(self) -> dict[str, int]:
        """Return how many were left out and not told of, by source; each is told of once."""
        with self._lock:
            found = {name: source.left_out for name, source in self._sources.items() if source.left_out}
            for name in found:
                self._sources[name].left_out = 0
            return found
