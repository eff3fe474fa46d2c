"""Apply a changed configuration to a host that runs, as the difference to the one before.

    old, new ─► each plugin: policies at once ─► disabled: unloaded ─► enabled again: loaded ─► runs otherwise: reloaded under traffic

What can't be applied leaves that plugin as it was, and is told; the rest is applied all the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from ._config import HostConfig, LockConfig, PluginConfig
from ._deadline import Deadline
from ._decided import Decided, decide, words
from ._errors import ConfigError, HostkitError
from ._fields import Model
from ._loader import DRAIN, Loader
from ._record import Record

_WHY = "the configuration says so"


class Reconfiguration:
    """Applies configurations to one host, one at a time. Not thread-safe; what it calls is, so that calls go on."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._put_down: set[str] = set()  # loaded when they were disabled, or kept out by a filter

    def apply(self, new: HostConfig) -> tuple[list[str], list[str]]:
        """Apply it; return what changed and what could not be applied, as sentences."""
        changes: list[str] = []
        failures: list[str] = []
        old = self._loader.config
        self._loader.reconfigure(new)
        self._audit_elsewhere(new, changes, failures)
        self._watched_otherwise(old, new, changes, failures)
        changes += [table for table in ("discovery", "template") if getattr(new, table) != getattr(old, table)]
        changes += [f"lock.{difference}" for difference in _lock_differences(old.lock, new.lock)]
        records = {record.name: record for record in (*self._loader.loaded, *self._loader.records)}
        configs = {record: new.plugin(name) for name, record in records.items()}
        kept_out = self._loader.specs.kept_out
        outside = {record: kept_out.get(record.name, "") if record.target is None else "" for record in configs}
        # What is switched off goes first, and before what it needs itself.
        off = [record for record in reversed(configs) if outside[record] or not configs[record].enabled]
        for record in (*off, *(record for record in configs if record not in off)):
            config, out = configs[record], outside[record]
            differences = [*_differences(record.config, config), *self._in_or_out(record, config, out)]
            if said := ", ".join(differences):
                try:
                    self._apply_to(record, config, out)
                except (HostkitError, OSError, RuntimeError) as error:
                    failures.append(f"plugin {record.name!r} keeps what it had ({said}): {error}")
                else:
                    changes.append(f"{record.name}: {said}")
        return changes, failures

    def _audit_elsewhere(self, new: HostConfig, changes: list[str], failures: list[str]) -> None:
        audit = self._loader.audit
        before = audit.path
        try:
            if audit.moved(new.audit.file):
                changes.append(f"audit.file {before or 'none'} → {new.audit.file or 'none'}")
        except ConfigError as error:
            failures.append(str(error))

    def _watched_otherwise(self, old: HostConfig, new: HostConfig, changes: list[str], failures: list[str]) -> None:
        if differences := list(_differences(old.exporters, new.exporters)):
            try:
                self._loader.telemetry.configure(new.exporters)
            except ConfigError as error:
                failures.append(str(error))
            else:
                changes += [f"exporters.{difference}" for difference in differences]

    def _in_or_out(self, record: Record, new: PluginConfig, out: str) -> Iterator[str]:
        if out and record.lane is not None:
            yield f"kept out: {out}"
        elif not out and record.lane is None and record.config.enabled and new.enabled and record.name in self._put_down:
            yield "let in"

    def _apply_to(self, record: Record, new: PluginConfig, out: str) -> None:
        old, wished, moved = record.config, record.wished, record.moved
        record.configure(new)
        try:
            self._put_in_place(record, old, new, out)
            if old.health != new.health:
                self._loader.check_health(record)
        except BaseException:
            record.wished, record.moved = wished, moved
            record.configure(old)
            raise

    def _put_in_place(self, record: Record, old: PluginConfig, new: PluginConfig, out: str) -> None:
        if out or not new.enabled:
            if record.lane is not None:
                self._put_down.add(record.name)
                self._loader.unload(record, Deadline.after(DRAIN))
            return
        if old.isolation != new.isolation:
            record.moved = ""
            if record.wished is not None and _is_below(record.wished, new.isolation):
                record.wished = None  # the operator's word is the last one
        if record.lane is not None:
            if old.config != new.config or self._runs_otherwise(record, record.lane.decided, new):
                self._loader.reload(record, None, why=_WHY)
        elif record.name in self._put_down:
            self._loader.load(record)
            self._put_down.discard(record.name)

    def _runs_otherwise(self, record: Record, now: Decided, new: PluginConfig) -> bool:
        then = decide(record.name, record.manifest, new, record.wished, moved=record.moved)
        # A call carries its own timeout: nothing has to be started anew for another default.
        settings = dataclasses.replace(then.settings, timeout=now.settings.timeout)
        return dataclasses.replace(then, settings=settings) != now


def _is_below(wish: str, floor: str | None) -> bool:
    return floor is not None and words().index(wish) < words().index(floor)


def _lock_differences(old: LockConfig, new: LockConfig) -> Iterator[str]:
    if "off" not in (old.policy, new.policy):
        yield from _differences(old, new)
    elif old.policy != new.policy:  # without a policy the rest means nothing
        yield f"policy {old.policy} → {new.policy}"


def _differences(old: Model, new: Model) -> Iterator[str]:
    for key in type(new).model_fields:
        before, after = getattr(old, key), getattr(new, key)
        if before != after:
            # A plugin's own table may have secrets.
            yield key if key == "config" else f"{key} {_shown(before)} → {_shown(after)}"


def _shown(value: Any) -> str:  # Any: a field of the configuration
    if hasattr(value, "model_dump"):
        return "{" + ", ".join(f"{key} = {_shown(part)}" for key, part in value if part is not None) + "}"
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
