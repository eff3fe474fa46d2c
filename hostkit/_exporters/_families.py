"""A host's snapshot as Prometheus' metric families: the names and units are those of its conventions, and the labels are few.

No label has a request's id, a process's or an error's text: whatever happens, there are as many series as there are plugins, times a
number that is known beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric

from .._log import on_one_line
from .._meter import BOUNDS

# Three of the ten bounds in a decade: 1, 2.5 and 5. They are bounds of the meter's own, so the counts are exact.
_LE = [(repr(bound), number) for number, bound in enumerate(BOUNDS) if number % 10 in (0, 4, 7)]

# Of an enumeration each word has a series, 1 for the one that holds.
_STATES = ("loaded", "not loaded", "disabled", "draining", "given up", "broken")
_HEALTH = ("healthy", "degraded", "unhealthy", "offline", "unknown")
_BREAKER = ("closed", "open", "half-open", "off")
_WORKERS = ("serving", "standby", "leaving", "starting")

# There from the beginning, because a rate needs something before the first failure. The others come with their first time.
_OUTCOMES = ("ok", "PluginFailed", "CallTimeout")

_MOST = 200


def empty() -> dict[str, Metric]:
    """Return every family by its name, without a sample."""
    return {family.name: family for family in [*_of_calls(), *_of_plugins(), *_of_workers(), *_of_host(), *_of_exporters()]}


def families(snapshot: Mapping[str, Any]) -> list[Metric]:  # Any: JSON data, as in all of these
    """Return every family, with what a snapshot has."""
    sheet = _Sheet(snapshot["app"])
    names: set[str] = set()
    for plugin in snapshot["plugins"]:
        _add_plugin(sheet, _unlike(names, label(plugin["name"])), plugin)
    _add_host(sheet, snapshot)
    for exporter in snapshot["exporters"]:
        name = label(exporter["name"])
        sheet.add("hostkit_exporter_sent", exporter["sent"], name)
        sheet.add("hostkit_exporter_dropped", exporter["dropped"], name)
        sheet.add("hostkit_exporter_waiting", exporter["waiting"], name)
    return list(sheet.families.values())


def label(text: object) -> str:
    """Return what somebody else chose as a label's value: bounded, and nothing in it that paints or forges."""
    return on_one_line(str(text)[:_MOST])[:_MOST]


def _add_plugin(sheet: _Sheet, name: str, plugin: Mapping[str, Any]) -> None:
    about = {key: label(plugin[key]) for key in ("version", "isolation", "sandbox")}
    sheet.info("hostkit_plugin", about, name)
    sheet.one_of("hostkit_plugin_state", _STATES, plugin["state"], name)
    if plugin["calls"] is not None and (plugin["isolation"] or any(plugin["calls"]["buckets"])):
        _add_calls(sheet, name, plugin["calls"])
    if plugin["isolation"]:
        sheet.add("hostkit_calls_in_flight", plugin["in_flight"], name)
        sheet.add("hostkit_calls_waiting", plugin["waiting"], name)
        sheet.one_of("hostkit_breaker_state", _BREAKER, plugin["breaker"], name)
        sheet.one_of("hostkit_plugin_health", _HEALTH, plugin["health"]["status"], name)
    if plugin["isolation"] not in ("", "none"):
        states = [worker["state"] for worker in plugin["workers"]]
        for state in dict.fromkeys((*_WORKERS, *states)):
            sheet.add("hostkit_workers", states.count(state), name, label(state))
    if plugin["isolation"] not in ("", "none") or plugin["restarts"]:
        sheet.add("hostkit_worker_restarts", plugin["restarts"], name)
    sheet.add("hostkit_workers_resident_memory_bytes", plugin["memory"], name)
    sheet.add("hostkit_workers_cpu_seconds", plugin["cpu"], name)


def _add_calls(sheet: _Sheet, name: str, calls: Mapping[str, Any]) -> None:
    for outcome, count in {**dict.fromkeys(_OUTCOMES, 0), **calls["outcomes"]}.items():
        sheet.add("hostkit_calls", count, name, label(outcome))
    sheet.histogram("hostkit_call_duration_seconds", list(accumulate(calls["buckets"])), calls["seconds"], name)


def _add_host(sheet: _Sheet, snapshot: Mapping[str, Any]) -> None:
    sheet.info("hostkit_host", {key: label(snapshot[key]) for key in ("version", "python")})
    sheet.one_of("hostkit_host_health", _HEALTH, snapshot["status"])
    sheet.add("hostkit_host_start_time_seconds", snapshot["started"])
    sheet.add("hostkit_host_resident_memory_bytes", snapshot["host"]["memory"])
    sheet.add("hostkit_host_cpu_seconds", snapshot["host"]["cpu"])
    sheet.add("hostkit_host_threads", snapshot["host"]["threads"])


class _Sheet:
    """The families of one reading, and the label that all samples have."""

    def __init__(self, app: str) -> None:
        self.families: dict[str, Any] = empty()  # Any: each kind's add_metric is another
        self._app = label(app)

    def add(self, name: str, value: float | None, *labels: str) -> None:
        """Add a sample; none where nothing is known."""
        if value is not None:
            self.families[name].add_metric((self._app, *labels), value)

    def one_of(self, name: str, words: tuple[str, ...], word: str, *labels: str) -> None:
        """Add a sample for each word that may hold, 1 for the one that does."""
        for each in dict.fromkeys((*words, word)):
            self.add(name, float(each == word), *labels, label(each))

    def info(self, name: str, about: dict[str, str], *labels: str) -> None:
        """Add a sample that is 1, for its labels."""
        self.families[name].add_metric((self._app, *labels), about)

    def histogram(self, name: str, buckets: list[int], total: float, *labels: str) -> None:
        """Add what a meter counted, ``buckets`` added up from the quickest."""
        counts = [*((le, buckets[number]) for le, number in _LE), ("+Inf", buckets[-1])]
        self.families[name].add_metric((self._app, *labels), counts, total)


def _unlike(names: set[str], name: str) -> str:
    """Return a name that is none of those there are, and one of them from now on: two series must not be the same."""
    unlike, number = name, 1
    while unlike in names:
        number += 1
        unlike = f"{name[: _MOST - 12]}~{number}"
    names.add(unlike)
    return unlike


_HERE = ("app",)
_EACH = ("app", "plugin")


def _of_calls() -> list[Metric]:
    return [
        CounterMetricFamily("hostkit_calls", "Calls that ended, by how.", labels=(*_EACH, "outcome")),
        HistogramMetricFamily(
            "hostkit_call_duration_seconds",
            "Time that calls took, as their callers saw it: with waiting, repeats and loading.",
            labels=_EACH,
            unit="seconds",
        ),
        GaugeMetricFamily("hostkit_calls_in_flight", "Calls that are inside now.", labels=_EACH),
        GaugeMetricFamily("hostkit_calls_waiting", "Calls that wait for a worker or for a place in the bulkhead.", labels=_EACH),
    ]


def _of_plugins() -> list[Metric]:
    return [
        InfoMetricFamily(
            "hostkit_plugin",
            "Which version there is and where it runs; isolation is empty where it is not loaded.",
            labels=_EACH,
        ),
        GaugeMetricFamily("hostkit_plugin_state", "1 for the state that the plugin is in.", labels=(*_EACH, "state")),
        GaugeMetricFamily(
            "hostkit_plugin_health", "1 for how the plugin is doing, as its last checks say.", labels=(*_EACH, "status")
        ),
        GaugeMetricFamily("hostkit_breaker_state", "1 for the state of the plugin's circuit breaker.", labels=(*_EACH, "state")),
    ]


def _of_workers() -> list[Metric]:
    return [
        GaugeMetricFamily("hostkit_workers", "Worker processes, by what they do.", labels=(*_EACH, "state")),
        CounterMetricFamily("hostkit_worker_restarts", "Workers that died or had to be replaced.", labels=_EACH),
        GaugeMetricFamily(
            "hostkit_workers_resident_memory_bytes", "Resident memory of all workers together.", labels=_EACH, unit="bytes"
        ),
        CounterMetricFamily(
            "hostkit_workers_cpu_seconds", "CPU time of all workers together, ended ones included.", labels=_EACH, unit="seconds"
        ),
    ]


def _of_host() -> list[Metric]:
    return [
        InfoMetricFamily("hostkit_host", "Which hostkit and which Python the host runs.", labels=_HERE),
        GaugeMetricFamily("hostkit_host_health", "1 for how the host is doing as a whole.", labels=(*_HERE, "status")),
        GaugeMetricFamily("hostkit_host_start_time_seconds", "When the host was made, in Unix time.", labels=_HERE, unit="seconds"),
        GaugeMetricFamily(
            "hostkit_host_resident_memory_bytes", "Resident memory of the host's process.", labels=_HERE, unit="bytes"
        ),
        CounterMetricFamily("hostkit_host_cpu_seconds", "CPU time of the host's process.", labels=_HERE, unit="seconds"),
        GaugeMetricFamily("hostkit_host_threads", "Threads of the host's process.", labels=_HERE),
    ]


def _of_exporters() -> list[Metric]:
    each = ("app", "exporter")
    return [
        CounterMetricFamily(
            "hostkit_exporter_sent",
            "Calls and events that were passed on; of prometheus, how often it was read; of log, lines of the host's log.",
            labels=each,
        ),
        CounterMetricFamily(
            "hostkit_exporter_dropped", "Calls and events that an exporter had no room for, or that failed.", labels=each
        ),
        GaugeMetricFamily("hostkit_exporter_waiting", "Calls and events that wait for an exporter.", labels=each),
    ]
