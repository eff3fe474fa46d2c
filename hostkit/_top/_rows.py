"""Two snapshots of a host become what one shows: numbers a second, quantiles of the time between them, a row a plugin.

snapshot ─► Past.see ─► look(the one before, this one) ─► Look(summary, rows), with the rates of the last minutes
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .._meter import Reading, between, quantile

Snapshot = Mapping[str, Any]  # JSON data of the shape that _snapshot draws
_REMEMBERED = 240  # rates of each plugin


@dataclass(frozen=True, slots=True)
class Row:
    """One plugin. Rates are a second and None until there are two snapshots; ``cpu`` is in percent of one core; ``memory`` and
    ``cpu`` are None where no process is the plugin's own."""

    name: str
    version: str
    mode: str
    sandbox: str
    state: str
    health: str
    says: str
    calls: float | None
    errors: float | None
    p50: float | None
    p99: float | None
    in_flight: int
    waiting: int
    breaker: str
    restarts: int
    serving: int
    standby: int
    memory: int | None
    cpu: float | None
    trend: tuple[float, ...] = ()

    @property
    def status(self) -> str:
        """The one word that matters: how a loaded plugin is doing, and of any other one why it isn't there."""
        return self.health if self.state == "loaded" else self.state


@dataclass(frozen=True, slots=True)
class Summary:
    """The host itself; ``troubles`` is what its exporters have to complain about."""

    app: str
    pid: int
    version: str
    uptime: float
    status: str
    message: str
    calls: float | None
    errors: float | None
    memory: int | None
    cpu: float | None
    threads: int | None
    troubles: tuple[str, ...]
    trend: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Look:
    """A host as it was ``at`` a moment."""

    at: float
    summary: Summary
    rows: tuple[Row, ...]


class Past:
    """What was seen of a host so far: its last snapshots, and the rates of each plugin since one watches.

    A rate is of ``shortest`` seconds at least: a look that comes sooner is compared with the same snapshot as the one before.
    """

    def __init__(self, *, shortest: float = 0.0) -> None:
        self._shortest = shortest
        self._base: Snapshot | None = None
        self._last: Snapshot | None = None
        self._trends: dict[str | None, deque[float]] = {}  # None: all plugins together

    def see(self, snapshot: Snapshot) -> Look:
        """Return what a new snapshot shows. Raises ``ValueError`` where that is none, which is then forgotten."""
        last, base = self._last, self._base
        anew = last is None or not same_host(last, snapshot)
        moved_on = last is None or anew or snapshot["at"] - last["at"] >= self._shortest
        base = None if anew else last if moved_on else base
        seen = look(base, snapshot)
        if anew:
            self._trends.clear()
        if moved_on:
            self._base, self._last = base, snapshot
            self._remember(seen)
        rows = tuple(replace(row, trend=tuple(self._trends.get(row.name, ()))) for row in seen.rows)
        return replace(seen, summary=replace(seen.summary, trend=tuple(self._trends.get(None, ()))), rows=rows)

    def _remember(self, seen: Look) -> None:
        rates: dict[str | None, float | None] = {None: seen.summary.calls, **{row.name: row.calls for row in seen.rows}}
        self._trends = {name: self._trends.get(name) or deque(maxlen=_REMEMBERED) for name in rates}
        for name, rate in rates.items():
            if rate is not None:
                self._trends[name].append(rate)


def look(before: Snapshot | None, after: Snapshot) -> Look:
    """Return what ``after`` shows, with rates since ``before``. Raises ``ValueError`` where that is no snapshot."""
    try:
        if before is not None and not (same_host(before, after) and after["at"] > before["at"]):
            before = None
        earlier = {} if before is None else {plugin["name"]: plugin for plugin in before["plugins"]}
        seconds = 0.0 if before is None else after["at"] - before["at"]
        rows = {plugin["name"]: _row(earlier.get(plugin["name"]), plugin, seconds) for plugin in after["plugins"]}
        return Look(float(after["at"]), _summary(before, after, tuple(rows.values()), seconds), tuple(rows.values()))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"not a snapshot as this hostkit reads it: {type(error).__name__}: {error}") from error


def same_host(one: Snapshot, other: Snapshot) -> bool:
    """Whether two snapshots are of one and the same run of a host."""
    return (one["pid"], one["started"]) == (other["pid"], other["started"])


def reading(plugin: Mapping[str, Any]) -> Reading | None:
    """Return what the meter of one plugin in a snapshot has counted; None where it has none."""
    calls = plugin["calls"]
    return None if calls is None else Reading.of(calls)


def _row(before: Mapping[str, Any] | None, after: Mapping[str, Any], seconds: float) -> Row:
    counted = reading(after)
    new = counted if counted is None or before is None else between(reading(before), counted)
    known = new if before is not None else None
    states = [worker["state"] for worker in after["workers"]]
    return Row(
        name=str(after["name"]),
        version=str(after["version"] or ""),
        mode=str(after["isolation"] or ""),
        sandbox=str(after["sandbox"] or "") if after["isolation"] == "process" else "",
        state=str(after["state"]),
        health=str(after["health"]["status"]),
        says=str(after["health"]["message"] or ""),
        calls=None if known is None else known.calls / seconds,
        errors=None if known is None else known.errors / seconds,
        p50=None if known is None else quantile(known.buckets, 0.5),
        p99=None if known is None else quantile(known.buckets, 0.99),
        in_flight=int(after["in_flight"]),
        waiting=int(after["waiting"]),
        breaker=str(after["breaker"]),
        restarts=int(after["restarts"]),
        serving=len(states) - states.count("standby"),
        standby=states.count("standby"),
        memory=after["memory"],
        cpu=_percent(before, after, seconds),
    )


def _summary(before: Snapshot | None, after: Snapshot, rows: tuple[Row, ...], seconds: float) -> Summary:
    host = after["host"]
    return Summary(
        app=str(after["app"]),
        pid=int(after["pid"]),
        version=str(after["version"]),
        uptime=max(0.0, after["at"] - after["started"]),
        status=str(after["status"]),
        message=str(after["message"] or ""),
        calls=_total([row.calls for row in rows]),
        errors=_total([row.errors for row in rows]),
        memory=host["memory"],
        cpu=_percent(before and before["host"], host, seconds),
        threads=host["threads"],
        troubles=tuple(_trouble(exporter) for exporter in after["exporters"] if exporter["trouble"] or exporter["dropped"]),
    )


def _total(rates: list[float | None]) -> float | None:
    known = [rate for rate in rates if rate is not None]
    return sum(known) if known else None


def _percent(before: Mapping[str, Any] | None, after: Mapping[str, Any], seconds: float) -> float | None:
    if before is None or before["cpu"] is None or after["cpu"] is None:
        return None
    return max(0.0, float(after["cpu"]) - float(before["cpu"])) / seconds * 100


def _trouble(exporter: Mapping[str, Any]) -> str:
    lost = f"{exporter['dropped']} dropped" if exporter["dropped"] else ""
    return f"{exporter['name']}: {', '.join(filter(None, (lost, exporter['trouble'])))}"
