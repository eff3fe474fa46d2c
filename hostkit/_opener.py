"""Open a plugin's lane: decide where it runs, start its backend there, let its hooks in.

record ─► manifest, read anew ─► decided ─► backend ─► (well?) ─► hooks ─► lane
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from . import _requirements
from ._ahead import Ahead
from ._audit import Audit
from ._backends import BACKENDS, Backend, Opening
from ._config import HostConfig
from ._conflicts import told_with_conflicts
from ._contract import Status
from ._deadline import Deadline
from ._decided import Decided, decide
from ._denials import Denials
from ._discovery import reread
from ._enforcement import Enforcement
from ._errors import HostForkedError, HostkitError, PluginClosed, PluginLoadError, PluginNotFound
from ._events import Events, IsolationChanged, PluginLoaded, PluginUnloaded
from ._health import Asked
from ._here import Unfit, start_here
from ._hooks import Hooks
from ._lane import Lane
from ._lifetimes import FORKED
from ._log import tell
from ._monitor import Monitor
from ._offered import Offered, kept_out, not_found
from ._record import Record

if TYPE_CHECKING:
    from ._confinement import Confinement, Ground
    from ._scratch import Scratch
    from ._template import Template


class Opener:
    """Opens and closes the lanes of one host's plugins. Thread-safe; the caller holds the record's lock."""

    def __init__(self, group: str, config: HostConfig, hooks: Hooks, monitor: Monitor, *, events: Events, audit: Audit) -> None:
        self.config = config
        self.closed = False
        self.forked = False
        self._begun = False  # whether anything was ever opened
        self._group = group
        self._hooks = hooks
        self._monitor = monitor
        self._events = events
        self._audit = audit
        self._denials = Denials(events.emit)
        self._enforcement = Enforcement(group, events)
        self._lock = threading.Lock()  # guards _template, _scratch and _ground
        self._template: Template | None = None
        self._scratch: Scratch | None = None
        self._ground: Ground | None = None

    def open(self, record: Record, specs: Offered, ahead: Ahead | None = None, *, check: bool = False) -> Lane:
        """Start a plugin's backend, after everything that can be known before is in order, or take the one that was started."""
        try:
            decided, backend = self._start(record, specs, ahead)
        except PluginLoadError as error:
            raise told_with_conflicts(error, record.spec) from error.__cause__
        lane = self._opened(record, decided, backend, check=check)
        record.breaker.reset("the plugin was loaded anew")
        self._events.emit(PluginLoaded(record.name, decided.isolation, self._facts(record, decided)))
        if decided.unheld:
            tell("WARNING", f"plugin {record.name!r}: {_UNHELD.format(', '.join(decided.unheld))}", plugin=record.name)
        return lane

    def _start(self, record: Record, specs: Offered, ahead: Ahead | None) -> tuple[Decided, Backend]:
        started = None if ahead is None else ahead.take(record)
        if started is not None:
            return started
        decided = self.decide(record, specs, record.wished)
        try:
            return decided, self.start(record, decided, specs)
        except Unfit as error:
            return self._start_moved(record, specs, error)

    def _start_moved(self, record: Record, specs: Offered, why: Unfit) -> tuple[Decided, Backend]:
        record.moved = str(why)
        try:
            decided = self.decide(record, specs, record.wished)
            backend = self.start(record, decided, specs)
        except BaseException:
            record.moved = ""
            raise
        self._events.emit(IsolationChanged(record.name, "none", decided.isolation, str(why)))
        return decided, backend

    def start(self, record: Record, decided: Decided, specs: Offered) -> Backend:
        """Start a plugin's backend, after the audit log has it. Raises ``PluginLoadError`` and its siblings, and ``Unfit``."""
        self._audit.loading(record.name, self._facts(record, decided))
        opening = self._opening(record, decided, specs)
        if decided.isolation == "none":
            return start_here(opening, record.spec, may_leave=decided.auto, events=self._events)
        return BACKENDS[decided.isolation](opening)

    def decide(self, record: Record, specs: Offered, isolation: str | None) -> Decided:
        """Read the manifest anew, decide, and check what the plugin requires. Raises as ``Host.load``."""
        self.check_open(record)
        self._begun = True
        if record.target is None:
            spec = specs.get(record.name)
            if spec is None:
                raise PluginNotFound(not_found(record.name, specs, self._group))
            found = reread(spec, self._group, self.config.discovery.paths)
            if why := specs.glance.why_not(found):
                raise PluginNotFound(kept_out(record.name, why))
            record.spec = found
            record.manifest = record.spec.manifest
        decided = decide(record.name, record.manifest, record.config, isolation, moved=record.moved)
        seen = _requirements.seen_by_plugin(decided.isolation, decided.settings.environment)
        _requirements.check(record.name, record.manifest, seen)
        specs.there.check(record.name, record.manifest)
        return decided if record.spec is None else self._enforcement.checked(record.spec, decided, self.config.lock)

    def _opening(self, record: Record, decided: Decided, specs: Offered) -> Opening:
        spec = record.spec
        return Opening(
            name=record.name,
            entry_point="" if spec is None else spec.entry_point,
            config=record.config.config,
            settings=decided.settings,
            caller=record.caller,
            monitor=self._monitor,
            directory=None if spec is None else spec.directory,
            target=record.target,
            template=self._template_for(decided),
            confinement=self._confinement(record, decided, specs),
            scratch=self._scratch_for(decided),
            happened=self._events.emit,
            denied=self._denials.heard if _confined(decided) else None,
        )

    def _confinement(self, record: Record, decided: Decided, specs: Offered) -> Confinement | None:
        if decided.settings.sandbox == "off":
            return None
        from ._confinement import Ground  # sysconfig, which an in-process host doesn't need

        with self._lock:
            if self._ground is None or not self._ground.still_holds(specs.installed):
                self._ground = Ground(specs.installed)
            ground = self._ground
        return ground.confinement(decided.settings, record.spec)

    def _scratch_for(self, decided: Decided) -> Scratch | None:
        if decided.settings.sandbox == "off":
            return None
        from ._scratch import Scratch  # what it locks with is not on every system

        with self._lock:
            if self._scratch is None:
                self._scratch = Scratch()
            return self._scratch

    def _template_for(self, decided: Decided) -> Template | None:
        if decided.isolation == "none" or decided.settings.start != "template":
            return None
        from ._template import Template  # multiprocess, which an in-process host doesn't need

        with self._lock:
            if self._template is None:
                self._template = Template(self.config.template.preload, self._monitor)
            return self._template

    def _opened(self, record: Record, decided: Decided, backend: Backend, *, check: bool) -> Lane:
        lane = Lane(backend, decided)
        try:
            if check:
                _check_health(record, backend)
            self._hooks.check(record.name, backend.hooks, isolated=decided.isolation != "none")
            self._hooks.admit(record, lane)
        except BaseException:
            self.close(record, lane, Deadline.after(record.config.close_timeout))
            raise
        return lane

    def check_open(self, record: Record) -> None:
        """Raise where nothing may be opened any more, or this plugin may not."""
        if self.forked:
            raise HostForkedError(FORKED)
        if self.closed:
            raise PluginClosed(f"plugin {record.name!r}: the host is closed", plugin=record.name, phase="queue")
        if not record.config.enabled:
            raise PluginNotFound(f"plugin {record.name!r} is disabled in the configuration (enabled = false)")

    def close(self, record: Record, lane: Lane, deadline: Deadline) -> None:
        """Close a lane's backend, and tell how that went."""
        try:
            lane.backend.close(deadline)
        except HostkitError as error:
            self._events.emit(PluginUnloaded(record.name, str(error)))
        else:
            self._events.emit(PluginUnloaded(record.name))

    def check_lock(self, data: bytes) -> None:
        """Raise ``IntegrityError`` where the bytes are no lock of this application."""
        self._enforcement.check(data, self.config.lock)

    def _facts(self, record: Record, decided: Decided) -> dict[str, Any]:
        """Return what the audit log has of a plugin that is loaded."""
        spec, runs = record.spec, where_it_runs(decided)
        found = {key: runs[key] for key in ("isolation", "moved", "sandbox", "granted", "not_granted", "limits") if runs.get(key)}
        found["policy"] = self.config.lock.policy
        if spec is None:
            return {**found, "registered": True}
        where: dict[str, object] = {"distribution": spec.distribution, "version": spec.version}
        said = {
            "entry_point": spec.entry_point,
            **where,
            "directory": spec.directory and str(spec.directory),
            "digest": decided.settings.locked,
        }
        return {**found, **{key: value for key, value in said.items() if value}}

    def tell_denials(self) -> None:
        """Tell of the denials that were left out, when no plugin is loaded any more."""
        self._denials.told()

    def drop_template(self) -> None:
        """Fork from another template from now on; the workers of this one live on."""
        with self._lock:
            template, self._template = self._template, None
        if template is not None:
            template.close()

    def drop_scratch(self) -> None:
        """Remove the private directories of workers that have ended."""
        with self._lock:
            scratch, self._scratch = self._scratch, None
        if scratch is not None:
            scratch.close()

    def forget(self) -> None:
        """Disarm it in a fork, without a lock. Where nothing was opened before, it is as good as new."""
        self.forked = self._begun
        self._lock = threading.Lock()
        self._hooks.forget(loaded=self._begun)
        if self._template is not None:
            self._template.forget()
        self._scratch = None  # it lets go by itself
        if self._begun:
            self._monitor.forget()


_UNHELD = "nothing can hold its limits ({}) where it runs; isolate it, with a sandbox, to enforce them"


_WELL = (Status.HEALTHY, Status.DEGRADED, Status.UNKNOWN)


def _check_health(record: Record, backend: Backend) -> None:
    """Raise ``PluginLoadError`` of kind ``health`` for a plugin that isn't fit to take over from itself."""
    health = Asked(backend, record.health_timeout).status()
    if health.status not in _WELL:
        raise PluginLoadError(
            f"plugin {record.name!r} was started anew and is not well ({health.status.value}: {health.message}), so the one before goes "
            "on; mend it, then reload it",
            plugin=record.name,
            kind="health",
        )


def _confined(decided: Decided) -> bool:
    return decided.settings.sandbox != "off"


def where_it_runs(decided: Decided) -> dict[str, Any]:
    """Say where a plugin runs, what holds its limits there, and which of them nothing holds."""
    found: dict[str, Any] = {
        "isolation": decided.isolation,
        "limits": dict(decided.settings.limits or {}),
        "held_by": dict(decided.held),
        "sandbox": decided.settings.sandbox,
        "granted": decided.settings.grants.as_data(),
        "not_granted": [grant.wish for grant in decided.settings.grants.wishes if not grant.granted],
    }
    if decided.moved:
        found["moved"] = decided.moved
    if decided.unheld:
        found["warning"] = _UNHELD.format(", ".join(decided.unheld))
    return found
