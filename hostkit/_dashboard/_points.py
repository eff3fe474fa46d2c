"""The last ten minutes of a host as numbers for plots: one row of time, four numbers a plugin for each of its points."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from typing import Any

from ._rows import MOST_PLUGINS, Traffic, rounded

_MOST = 600
_FIELDS = ("calls", "errors", "p50", "p99")
_RECENT = 60


class Points:
    """Rings of numbers. Not thread-safe. ``""`` stands for all plugins together."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._pushed = 0
        self._at = _ring(most, "d")
        self._series: dict[str, dict[str, array[float]]] = {}

    def push(self, at: float, traffic: Mapping[str, Traffic]) -> None:
        """Add a point; plugins that are no longer there are forgotten."""
        for name in [name for name in self._series if name not in traffic]:
            del self._series[name]
        place = self._pushed % self._most
        self._at[place] = at
        for name, found in traffic.items():
            if name not in self._series and len(self._series) > MOST_PLUGINS:
                continue
            series = self._series.setdefault(name, {field: _ring(self._most, "f") for field in _FIELDS})
            for field, ring in series.items():
                number = getattr(found, field)
                ring[place] = math.nan if number is None else number
        self._pushed += 1

    def series(self, name: str = "") -> dict[str, Any]:
        """Return the times, and for each field as many numbers, None where there was nothing."""
        series = self._series.get(name) or {field: _ring(self._most, "f") for field in _FIELDS}
        return {
            "at": [round(at, 2) for at in self._in_order(self._at)],
            **{field: self._numbers(ring) for field, ring in series.items()},
        }

    def recent(self) -> dict[str, list[float | None]]:
        """Return the calls of the last minute for each plugin."""
        return {name: self._numbers(series["calls"])[-_RECENT:] for name, series in self._series.items() if name}

    def _numbers(self, ring: array[float]) -> list[float | None]:
        return [None if math.isnan(number) else rounded(number) for number in self._in_order(ring)]

    def _in_order(self, ring: array[float]) -> array[float]:
        place = self._pushed % self._most
        return ring[place:] + ring[:place] if self._pushed > self._most else ring[: self._pushed]


def _ring(most: int, kind: str) -> array[float]:
    return array(kind, [math.nan]) * most
