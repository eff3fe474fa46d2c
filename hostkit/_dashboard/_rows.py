"""What has happened between two snapshots of a host: rates, quantiles and shares of a CPU, a row a plugin. JSON data in and out."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._meter import BOUNDS, Reading, between, quantile

Snapshot = Mapping[str, Any]  # Any: JSON data, in the shape that the host's _snapshot module draws

# More plugins than this are not shown; what is kept for each has a bound.
MOST_PLUGINS = 1000
_LONG = 1000
_NOTHING = Reading({}, 0.0, (0,) * (len(BOUNDS) + 1))


@dataclass(frozen=True, slots=True)
class Traffic:
    """Calls and errors a second, and quantiles in seconds; None is not known."""

    calls: float | None = None
    errors: float | None = None
    p50: float | None = None
    p99: float | None = None


class Window:
    """The snapshots of the last few seconds. Not thread-safe."""

    def __init__(self, seconds: float = 5.0) -> None:
        self._seconds = seconds
        self._snapshots: deque[Snapshot] = deque()

    def push(self, snapshot: Snapshot) -> None:
        """Add the newest. One of another process begins anew, and so does one of an earlier time."""
        if self._snapshots and not _follows(self._snapshots[-1], snapshot):
            self._snapshots.clear()
        self._snapshots.append(snapshot)
        while len(self._snapshots) > 2 and snapshot["at"] - self._snapshots[1]["at"] >= self._seconds:
            self._snapshots.popleft()

    def last_step(self) -> dict[str, Traffic]:
        """Return what happened since the snapshot before the newest one, by plugin; all of them together as ``""``."""
        steps = list(self._snapshots)[-2:]
        return _traffic_by_plugin(steps[0], steps[-1])

    def rows(self) -> list[dict[str, Any]]:
        """Return a row a plugin, with what happened in this window."""
        oldest, newest = self._snapshots[0], self._snapshots[-1]
        traffic, before = _traffic_by_plugin(oldest, newest), _by_name(oldest)
        seconds = newest["at"] - oldest["at"]
        return [_row(plugin, traffic[plugin["name"]], before.get(plugin["name"]), seconds) for plugin in _plugins(newest)]

    def totals(self) -> dict[str, Any]:
        """Return the same for the whole host."""
        oldest, newest = self._snapshots[0], self._snapshots[-1]
        plugins, seconds = _plugins(newest), newest["at"] - oldest["at"]
        before = {name: plugin["cpu"] for name, plugin in _by_name(oldest).items()}
        own = _share(oldest["host"]["cpu"], newest["host"]["cpu"], seconds)
        workers = [_share(before.get(plugin["name"]), plugin["cpu"], seconds) for plugin in plugins]
        cpu = None if own is None else own + sum(share for share in workers if share is not None)
        return {
            **_shown(_traffic_by_plugin(oldest, newest)[""]),
            "in_flight": sum(plugin["in_flight"] for plugin in plugins),
            "waiting": sum(plugin["waiting"] for plugin in plugins),
            "memory": (newest["host"]["memory"] or 0) + sum(plugin["memory"] or 0 for plugin in plugins),
            "cpu": rounded(cpu),
            "workers": sum(len(plugin["workers"]) for plugin in plugins),
            "loaded": sum(plugin["state"] == "loaded" for plugin in plugins),
            "plugins": len(newest["plugins"]),
        }


def rounded(number: float | None) -> float | None:
    """Return four digits of a number, which is what a picture and a cell have room for."""
    return None if number is None else float(f"{number:.4g}")


def _follows(before: Snapshot, after: Snapshot) -> bool:
    return (before["pid"], before["started"]) == (after["pid"], after["started"]) and before["at"] < after["at"]


def _plugins(snapshot: Snapshot) -> Sequence[Mapping[str, Any]]:
    plugins: Sequence[Mapping[str, Any]] = snapshot["plugins"]
    return plugins[:MOST_PLUGINS]


def _by_name(snapshot: Snapshot) -> dict[str, Mapping[str, Any]]:
    return {plugin["name"]: plugin for plugin in _plugins(snapshot)}


def _traffic_by_plugin(before: Snapshot, after: Snapshot) -> dict[str, Traffic]:
    plugins = _plugins(after)
    seconds = after["at"] - before["at"]
    if seconds <= 0:
        return dict.fromkeys(["", *(plugin["name"] for plugin in plugins)], Traffic())
    earlier = {name: _reading(plugin) for name, plugin in _by_name(before).items()}
    counted = {plugin["name"]: between(earlier.get(plugin["name"]), _reading(plugin)) for plugin in plugins}
    return {
        "": _traffic(list(counted.values()), seconds),
        **{name: _traffic([reading], seconds) for name, reading in counted.items()},
    }


def _reading(plugin: Mapping[str, Any]) -> Reading:
    calls = plugin["calls"]
    return _NOTHING if calls is None else Reading.of(calls)


def _traffic(readings: Sequence[Reading], seconds: float) -> Traffic:
    errors = sum(reading.errors for reading in readings)
    buckets = [sum(column) for column in zip(*(reading.buckets for reading in readings), strict=True)]
    return Traffic(
        sum(reading.calls for reading in readings) / seconds, errors / seconds, quantile(buckets, 0.5), quantile(buckets, 0.99)
    )


def _shown(traffic: Traffic) -> dict[str, float | None]:
    return {
        "calls": rounded(traffic.calls),
        "errors": rounded(traffic.errors),
        "p50": rounded(traffic.p50),
        "p99": rounded(traffic.p99),
    }


def _row(plugin: Mapping[str, Any], traffic: Traffic, before: Mapping[str, Any] | None, seconds: float) -> dict[str, Any]:
    kept = (
        "name",
        "version",
        "state",
        "isolation",
        "sandbox",
        "moved",
        "in_flight",
        "waiting",
        "breaker",
        "workers",
        "memory",
        "restarts",
    )
    outcomes = _reading(plugin).outcomes
    health = plugin["health"]
    return {
        **{key: plugin[key] for key in kept},
        "description": plugin["description"][:_LONG],
        "failed": plugin["failed"][:_LONG],
        "health": {**health, "message": health["message"][:_LONG]},
        **_shown(traffic),
        "outcomes": {name: count for name, count in outcomes.items() if count},
        "cpu": rounded(_share(None if before is None else before["cpu"], plugin["cpu"], seconds)),
    }


def _share(before: float | None, after: float | None, seconds: float) -> float | None:
    """Return per cent of one CPU."""
    if before is None or after is None or seconds <= 0 or after < before:
        return None
    return (after - before) / seconds * 100
