"""How many calls of a plugin ended how, and how long they took: counted where they end, read by whoever shows it.

Standard library only: who reads it may be another process, which takes the difference of two readings.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Upper bounds of the buckets in seconds, 1 µs to 80 s. Ten a decade (the R10 series of preferred numbers, ISO 3, rounded): a quantile
# is known to a quarter of itself, and 1, 2.5 and 5 of each decade are among them.
BOUNDS = tuple(
    float(f"{mantissa}e{exponent}") for exponent in range(-6, 2) for mantissa in (1, 1.25, 1.6, 2, 2.5, 3.15, 4, 5, 6.3, 8)
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a meter has counted so far: calls by ``outcomes``, the ``seconds`` of all together, and ``buckets``, one more than
    ``BOUNDS``: how many calls took longer than the bound before and no longer than this one."""

    outcomes: dict[str, int]
    seconds: float
    buckets: tuple[int, ...]

    @property
    def calls(self) -> int:
        """How many calls ended."""
        return sum(self.outcomes.values())

    @property
    def errors(self) -> int:
        """How many of them ended with an error; one whose caller had left by then is nobody's error."""
        return sum(count for outcome, count in self.outcomes.items() if outcome not in _NO_ERROR)

    @classmethod
    def of(cls, calls: Mapping[str, Any]) -> Reading:  # Any: JSON data
        """Return a reading that has come as JSON data, with these names for its parts."""
        return cls(dict(calls["outcomes"]), float(calls["seconds"]), tuple(calls["buckets"]))


_NO_ERROR = ("ok", "Interrupted")


class Meter:
    """Counts the calls of one plugin. Thread-safe."""

    __slots__ = ("_buckets", "_lock", "_outcomes", "_seconds")

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards everything below
        self._outcomes: dict[str, int] = {"ok": 0}
        self._seconds = 0.0
        self._buckets = [0] * (len(BOUNDS) + 1)

    def add(self, outcome: str, seconds: float) -> None:
        """Count one call that ended."""
        bucket = bisect_left(BOUNDS, seconds)
        with self._lock:
            self._buckets[bucket] += 1
            self._seconds += seconds
            try:
                self._outcomes[outcome] += 1
            except KeyError:
                self._outcomes[outcome] = 1

    def reading(self) -> Reading:
        """Return what was counted so far, all at one moment."""
        with self._lock:
            return Reading(dict(self._outcomes), self._seconds, tuple(self._buckets))


def between(before: Reading | None, after: Reading) -> Reading:
    """Return what was counted from one reading to the next; ``after`` itself where there is none before, or the counting began anew."""
    if before is None or before.calls > after.calls:
        return after
    outcomes = {outcome: count - before.outcomes.get(outcome, 0) for outcome, count in after.outcomes.items()}
    buckets = tuple(new - old for old, new in zip(before.buckets, after.buckets, strict=True))
    return Reading(outcomes, after.seconds - before.seconds, buckets)


def quantile(buckets: Sequence[int], share: float) -> float | None:
    """Return the seconds within which that ``share`` of calls ended (0.99 for p99); None where there were none.

    Known to the width of a bucket; inside of one, calls are taken to be spread evenly, as Prometheus' ``histogram_quantile`` does.
    """
    rank = share * sum(buckets)
    below = 0
    for number, count in enumerate(buckets):
        if count and below + count >= rank:
            low = BOUNDS[number - 1] if number else 0.0
            high = BOUNDS[number] if number < len(BOUNDS) else low
            return low + (high - low) * max(0.0, rank - below) / count
        below += count
    return None
