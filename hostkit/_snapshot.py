"""Everything that is known of a host now, as JSON data: what ``hostkit top``, the dashboard and the exporters show.

Nothing is asked of a plugin and nothing is loaded; numbers of calls, errors and CPU seconds only ever grow, so that a reader takes the
difference of two.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from . import __version__
from ._condition import Condition, HostHealth
from ._contract import HealthStatus
from ._lane import Lane
from ._loader import Loader
from ._observing import Observed
from ._record import Record
from ._sinks import lines
from ._spec import PluginSpec
from ._vitals import NONE, Vitals, own


class Snapshots:
    """Takes snapshots of one host. Thread-safe."""

    def __init__(self, app: str, loader: Loader) -> None:
        self.app = app
        self._loader = loader

    def snapshot(self) -> dict[str, Any]:
        """Return the host, its plugins by name, and its exporters."""
        loader = self._loader
        specs = loader.specs
        records = {record.name: record for record in loader.records}
        health = HostHealth({record.name: _known(_condition(record)) for record in loader.loaded})
        return {
            "app": self.app,
            "pid": os.getpid(),
            "version": __version__,
            "python": platform.python_version(),
            "at": time.time(),
            "started": loader.telemetry.started,
            "status": health.status.value,
            "message": health.message,
            "host": own(),
            "plugins": [
                self._plugin(name, records.get(name), specs.get(name)) for name in sorted({*specs, *records} - {*specs.kept_out})
            ],
            "exporters": [*(delivery.state() for delivery in loader.telemetry.deliveries), {"name": "log", **lines.state()}],
        }

    def _plugin(self, name: str, record: Record | None, spec: PluginSpec | None) -> dict[str, Any]:
        lane = None if record is None else record.lane
        vitals = NONE if lane is None else lane.backend.vitals()
        found = {**_identity(record, spec), **_place(lane), **_work(record, lane, vitals)}
        state = self._state(name, spec, lane, vitals)
        restarts, breaker = (0, "closed") if record is None else (record.restarts, _breaker(record))
        condition = Condition() if record is None else _condition(record)
        return {
            "name": name,
            **found,
            "state": state,
            "restarts": restarts,
            "breaker": breaker,
            "health": {
                "status": condition.status.value,
                "message": condition.message,
                "since": condition.since if condition.last_check else None,
                "last_check": condition.last_check,
            },
            "failed": vitals.failed,
            "workers": [asdict(worker) for worker in vitals.workers],
            "memory": sum(worker.memory for worker in vitals.workers) if vitals.workers else None,
            "cpu": self._cpu(record, lane, vitals),
        }

    def _state(self, name: str, spec: PluginSpec | None, lane: Lane | None, vitals: Vitals) -> str:
        if lane is None:
            if not self._loader.config.enables(name):
                return "disabled"
            return "broken" if spec is not None and spec.error is not None else "not loaded"
        if vitals.failed:
            return "given up"
        return "draining" if lane.gate.is_shut else "loaded"

    def _cpu(self, record: Record | None, lane: Lane | None, vitals: Vitals) -> float | None:
        """Return the CPU seconds of all workers that the plugin ever had; None where it never had one."""
        if record is None:
            return None
        leaving = [other.backend.vitals() for owner, other in self._loader.leaving if owner is record and other is not lane]
        total = record.spent + sum(each.spent + sum(worker.cpu for worker in each.workers) for each in (vitals, *leaving))
        return total if total or vitals.workers else None


def _identity(record: Record | None, spec: PluginSpec | None) -> dict[str, Any]:
    said: Mapping[str, Any] = {} if spec is None else spec.manifest_data
    if record is not None and record.spec is not None:
        spec, said = record.spec, record.spec.manifest_data
    distribution = "" if spec is None else spec.version
    description = said.get("description", "")
    return {
        "version": str(said.get("version") or distribution or ""),
        "description": description if isinstance(description, str) else "",
    }


def _place(lane: Lane | None) -> dict[str, str]:
    if lane is None:
        return {"isolation": "", "sandbox": "", "moved": ""}
    decided = lane.decided
    sandbox = decided.settings.sandbox if decided.isolation != "none" else ""
    return {"isolation": decided.isolation, "sandbox": sandbox, "moved": decided.moved}


def _work(record: Record | None, lane: Lane | None, vitals: Vitals) -> dict[str, Any]:
    front = None if record is None else record.front
    calls = front.meter.reading() if isinstance(front, Observed) else None
    return {
        "in_flight": 0 if lane is None else lane.gate.inside,
        "waiting": vitals.waiting + (0 if record is None else record.waiting),
        "calls": None if calls is None else {"outcomes": calls.outcomes, "seconds": calls.seconds, "buckets": calls.buckets},
    }


def _breaker(record: Record) -> str:
    return "off" if record.config.breaker is None else record.breaker.state.value


def _condition(record: Record) -> Condition:
    checked = record.lane is not None and record.config.health is not None and record.checks is not None
    return record.checks.condition if checked and record.checks is not None else Condition()


def _known(condition: Condition) -> HealthStatus:
    return HealthStatus(condition.status, condition.message, condition.last_check)
