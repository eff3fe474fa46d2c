"""Find a plugin, decide on it, start its backend, and close it again.

name ─► spec ─► manifest, read anew ─► what it requires, loaded first ─► decided ─► backend ─► hooks ─► lane
"""

from __future__ import annotations

import difflib
import itertools
import secrets
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from . import _requirements
from ._ahead import Ahead
from ._backends import BACKENDS, Backend, Opening
from ._config import HostConfig
from ._conflicts import told_with_conflicts
from ._contract import Caller, Status
from ._deadline import Deadline
from ._decided import Decided, decide
from ._discovery import reread
from ._errors import (
    DuplicatePlugin,
    HostForkedError,
    HostkitError,
    PluginClosed,
    PluginLoadError,
    PluginNotFound,
    RequirementError,
)
from ._events import BreakerChanged, Event, Events, IsolationChanged, PluginLoaded, PluginUnloaded
from ._health import Asked, Means, open_breaker, watch
from ._here import Unfit, start_here
from ._hooks import Hooks
from ._index import Index, default_file
from ._lifetimes import FORKED
from ._log import tell
from ._monitor import Monitor
from ._offered import Offered, Offers
from ._order import Earlier, dependents
from ._record import Lane, Record

if TYPE_CHECKING:
    from ._template import Template


class Loader:
    """The plugins of one host: what is installed, one record for each that was asked for, and the order of loading. Thread-safe."""

    def __init__(self, app: str, config: HostConfig, hooks: Hooks) -> None:
        self.config = config
        self.hooks = hooks
        self.monitor = Monitor()
        self.events = Events()
        self._means = Means(
            self.monitor, self.events.emit, {"open-breaker": open_breaker, "restart": self._restart, "isolate": self.move}
        )
        self.template: Template | None = None
        self.forked = False
        self.closed = False
        self._begun = False  # whether anything was ever loaded
        self._group = f"{app}.plugins"
        self._numbers = itertools.count(1)
        self._id_prefix = _new_prefix()
        self._lock = threading.RLock()  # guards everything below
        self._offers = self._offers_of(config)
        self._records: dict[str, Record] = {}
        self._order: list[str] = []
        self._leaving: dict[Lane, Record] = {}
        self._needed: dict[Record, list[str]] = {}  # what plugins that are being loaded need
        self.events.subscribe(self._happened)

    @property
    def specs(self) -> Offered:
        """What is installed now, and counts."""
        with self._lock:
            return self._offers.look(self.config)

    @property
    def loaded(self) -> list[Record]:
        """The records of loaded plugins, in the order of loading."""
        with self._lock:
            return [self._records[name] for name in self._order]

    @property
    def leaving(self) -> list[tuple[Record, Lane]]:
        """The lanes that a reload or an unload has taken away and that have not ended yet."""
        with self._lock:
            return [(record, lane) for lane, record in self._leaving.items()]

    @property
    def records(self) -> list[Record]:
        """Every record."""
        with self._lock:
            return list(self._records.values())

    def record(self, name: str, specs: Offered | None = None) -> Record:
        """Return the record of a plugin, looking for it in ``specs`` where the caller has looked already. Raises ``PluginNotFound``."""
        record = self._records.get(name)
        if record is not None:
            return record
        with self._lock:
            if name in self._records:
                return self._records[name]
            specs = self._offers.look(self.config) if specs is None else specs
            if not isinstance(name, str) or name not in specs:
                raise PluginNotFound(not_found(name, specs, self._group))
            return self._new_record(name)

    def register(self, name: str, target: object) -> Record:
        """Make a record for something that isn't installed. Raises ``DuplicatePlugin``."""
        with self._lock:
            if name in self._records or name in self._offers.look(self.config):
                raise DuplicatePlugin(f"the name {name!r} is taken; choose another one")
            record = self._new_record(name)
            record.target = target
            return record

    def unregister(self, name: str) -> None:
        """Forget a record that never got to load."""
        with self._lock:
            self._records.pop(name, None)

    def look_elsewhere(self, config: HostConfig) -> None:
        """Find plugins as another configuration says, from now on."""
        with self._lock:
            self._offers = self._offers_of(config)

    def drop_template(self) -> None:
        """Fork from another template from now on; the workers of this one live on."""
        with self._lock:
            template, self.template = self.template, None
        if template is not None:
            template.close()

    def load(self, record: Record, ahead: Ahead | None = None) -> Lane:
        """Load a plugin, and before it what it requires; one that is loaded stays as it is. Raises as ``Host.load``."""
        with record.lock:
            if record.lane is not None and not self.closed:
                return record.lane
            specs = self._offered() if ahead is None else ahead.specs
            with self._requiring(record, specs, ahead):
                return self._load_alone(record, specs, ahead)

    def ahead(self, records: Iterable[Record], isolation: str | None) -> Ahead:
        """Begin to start these plugins' workers, and those of what they require. What can't be started is told when it is loaded."""
        specs = self._offered()
        ahead = Ahead(lambda record, decided: BACKENDS[decided.isolation](self._opening(record, decided)), specs)
        wished = dict.fromkeys(records, isolation)
        try:
            for record in wished:
                try:
                    earlier = [self.record(each.name, specs) for each in specs.order.before(record.name)]
                except HostkitError:
                    continue
                for each in (*earlier, record):
                    self._begin(ahead, each, specs, wished.get(each))
        except BaseException:  # a Ctrl-C
            ahead.__exit__()
            raise
        return ahead

    def _begin(self, ahead: Ahead, record: Record, specs: Offered, isolation: str | None) -> None:
        if ahead.begun(record) or record.lane is not None:
            return
        try:
            earlier = {self.record(each.name, specs): each.needed for each in specs.order.before(record.name)}
            with record.lock:
                decided = self._decide(record, specs, isolation or record.wished)
        except HostkitError:
            return
        # In-process a plugin is imported, on the thread that the application loads it on; and so is what needs it before.
        if decided.isolation != "none" and all(ahead.begun(other) or other.lane is not None for other in earlier):
            ahead.begin(record, decided, earlier)

    def reload(self, record: Record, isolation: str | None, *, why: str, asked: bool = True) -> None:
        """Open a new lane for a plugin; the one before ends when its calls have ended. Raises as ``Host.reload``; then it stays."""
        with record.lock, record.wishing(isolation):
            before = record.lane
            specs = self._offered()
            with self._requiring(record, specs):
                if before is None:
                    self._load_alone(record, specs, None)
                    return
                lane = self._open(record, specs, check=True)
            with self._lock:
                self._leaving[before] = record
            if self.closed:  # meanwhile, and the host may not have seen the new lane
                self.unload(record, Deadline.after(0.0))
        if lane.decided.isolation != before.decided.isolation:
            self.events.emit(IsolationChanged(record.name, before.decided.isolation, lane.decided.isolation, why, asked))
        self._end_leaving(record, before, Deadline.after(DRAIN))
        if self.closed:
            self._check_open(record)

    def move(self, record: Record, why: str) -> None:
        """Move a plugin out of this process, soon and on another thread, because of ``why``. It comes back by ``reload`` alone."""
        threading.Thread(target=self._move, args=(record, why), name=f"hostkit-move-{record.name}", daemon=True).start()

    def _move(self, record: Record, why: str) -> None:
        with record.lock:
            lane = record.lane
            if lane is None or lane.decided.isolation != "none" or record.moved:
                return
            record.moved = why
        try:
            self.reload(record, None, why=why, asked=False)
        except (HostkitError, OSError) as error:
            record.moved = ""
            if not self.closed:
                tell("ERROR", f"plugin {record.name!r} can't be moved to a worker, though {why}: {error}", plugin=record.name)

    def _restart(self, record: Record, why: str) -> None:
        self.reload(record, None, why=why, asked=False)

    def check_health(self, record: Record) -> None:
        """Go by what the configuration says now of a plugin's health checks."""
        if record.lane is not None:
            watch(record, record.lane, self._means)

    def _happened(self, event: Event) -> None:
        if isinstance(event, BreakerChanged) and event.after == "open":
            record = self._records[event.plugin]
            lane = record.lane
            openings = record.breaker.openings_by_overrun
            if lane is not None and lane.decided.auto and openings >= record.config.auto.openings:
                self.move(record, f"its circuit opened {openings} times because calls overran their time")

    def unload(self, record: Record, deadline: Deadline, *, force: bool = True) -> None:
        """Take a plugin's lane away and end it. Without ``force``, raises ``RequirementError`` where loaded plugins need it."""
        with record.lock:
            if record.lane is not None and not force:
                self._check_unneeded(record)
            lane, record.lane = record.lane, None
            with self._lock:
                self._order = [other for other in self._order if other != record.name]
                if lane is not None:
                    self._leaving[lane] = record
            if lane is not None:
                self.hooks.unregister(record.name)
            if record.checks is not None:
                record.checks.end()
        if lane is not None:
            self._end_leaving(record, lane, deadline)

    def end(self, record: Record, lane: Lane, drained: Deadline, limit: float | None = None) -> None:
        """Let a lane's calls end, then close its backend, within ``limit`` seconds (the plugin's ``close_timeout``)."""
        record.shut(lane)
        lane.gate.wait_empty(drained)
        closed = record.config.close_timeout if limit is None else min(limit, record.config.close_timeout)
        if not lane.ending.acquire(blocking=False):
            lane.ended.wait(closed)  # somebody else is at it
            return
        try:
            self._close(record, lane, Deadline.after(closed))
        finally:
            lane.ended.set()

    def _end_leaving(self, record: Record, lane: Lane, drained: Deadline) -> None:
        """End a lane that its record no longer has. The host's own close knows of it by ``leaving``."""
        try:
            self.end(record, lane, Deadline.after(0.0) if self.closed else drained)
        finally:
            with self._lock:
                del self._leaving[lane]

    def forget(self) -> None:
        """Disarm everything in a fork, without a lock: the thread that held it may not be here. Where nothing was loaded before, all
        of it is as good as new."""
        self.forked = self._begun
        self._lock = threading.RLock()
        self._id_prefix = _new_prefix()
        for record in self._records.values():
            record.lane = None
            record.lock = threading.RLock()
            record.caller.id_prefix = self._id_prefix
        self.hooks.forget(loaded=self._begun)
        if self.template is not None:
            self.template.forget()
        if self._begun:
            self.monitor.forget()

    def _offers_of(self, config: HostConfig) -> Offers:
        return Offers(Index(self._group, config.discovery.paths, file=default_file(self._group)))

    def _new_record(self, name: str) -> Record:
        record = Record(name, self.config.plugin(name), Caller(name, self._id_prefix), self._numbers, self.load, self.events)
        self._records[name] = record
        return record

    @contextmanager
    def _requiring(self, record: Record, specs: Offered, ahead: Ahead | None = None) -> Iterator[None]:
        """Load what comes before a plugin; nobody unloads what it needs while the block loads the plugin itself."""
        self._check_open(record)
        earlier = specs.order.before(record.name)
        with self._lock:
            self._needed[record] = [each.name for each in earlier if each.needed]
        try:
            for sentence in specs.order.without(record.name):
                _tell_without(record, sentence)
            self._load_earlier(record, earlier, specs, ahead)
            yield
        finally:
            with self._lock:
                self._needed.pop(record, None)  # a plugin that asks for itself while it is imported was here before

    def _load_earlier(self, record: Record, earlier: Iterable[Earlier], specs: Offered, ahead: Ahead | None) -> None:
        """Load these, one after the other: their order is no circle, so neither are the locks."""
        failed: dict[str, str] = {}
        for each in earlier:
            try:
                if lost := next((name for name in each.required if name in failed), None):
                    raise RequirementError(f"it requires {lost!r}, which could not be loaded")
                other = self.record(each.name, specs)
                with other.lock:
                    if other.lane is None:
                        self._load_alone(other, specs, ahead)
            except (HostkitError, OSError) as error:
                self._check_open(record)
                if each.needed and isinstance(error, RequirementError):
                    raise RequirementError(f"plugin {record.name!r}: {specs.order.path(record.name, each.name)}: {error}") from None
                if each.needed:
                    raise
                failed[each.name] = str(error)
                _tell_without(record, f"the optional plugin {each.name!r} can't be loaded: {error}")

    def _check_unneeded(self, record: Record) -> None:
        """Raise ``RequirementError`` where plugins that are loaded, or being loaded, need this one."""
        with self._lock:
            needs = {other.name: other.manifest.requirements for other in self._records.values()}
            loading = {other.name for other, names in self._needed.items() if record.name in names}
            users = [name for name in dependents(record.name, needs) if name in self._order or name in loading]
            users += sorted(loading.difference(users))
        if users:
            shown = [*map(repr, users[:9]), *([f"{len(users) - 9} more"] if len(users) > 9 else [])]
            raise RequirementError(
                f"plugin {record.name!r} is needed by {', '.join(shown)}; unload {users[-1]!r} first, or force it (force=True)"
            )

    def _load_alone(self, record: Record, specs: Offered, ahead: Ahead | None) -> Lane:
        lane = self._open(record, specs, ahead)
        with self._lock:
            self._order.append(record.name)
            too_late = self.closed
        if too_late:  # the host was closed meanwhile, and didn't know of this one
            self.unload(record, Deadline.after(0.0))
            self._check_open(record)
        return lane

    def _offered(self) -> Offered:
        """Return what is installed and counts, and what the application registered."""
        with self._lock:
            registered = [name for name, record in self._records.items() if record.target is not None]
            return self._offers.look(self.config, registered)

    def _open(self, record: Record, specs: Offered, ahead: Ahead | None = None, *, check: bool = False) -> Lane:
        """Start a plugin's backend, after everything that can be known before is in order, or take the one that was started."""
        try:
            decided, backend = self._start(record, specs, ahead)
        except PluginLoadError as error:
            raise told_with_conflicts(error, record.spec) from error.__cause__
        lane = self._opened(record, decided, backend, check=check)
        record.breaker.reset("the plugin was loaded anew")
        self.events.emit(PluginLoaded(record.name, decided.isolation))
        if decided.unheld:
            tell("WARNING", f"plugin {record.name!r}: {_UNHELD.format(', '.join(decided.unheld))}", plugin=record.name)
        return lane

    def _start(self, record: Record, specs: Offered, ahead: Ahead | None) -> tuple[Decided, Backend]:
        started = None if ahead is None else ahead.take(record)
        if started is not None:
            return started
        decided = self._decide(record, specs, record.wished)
        try:
            return decided, self._backend(record, decided)
        except Unfit as error:
            return self._start_moved(record, specs, error)

    def _start_moved(self, record: Record, specs: Offered, why: Unfit) -> tuple[Decided, Backend]:
        record.moved = str(why)
        try:
            decided = self._decide(record, specs, record.wished)
            backend = self._backend(record, decided)
        except BaseException:
            record.moved = ""
            raise
        self.events.emit(IsolationChanged(record.name, "none", decided.isolation, str(why)))
        return decided, backend

    def _backend(self, record: Record, decided: Decided) -> Backend:
        opening = self._opening(record, decided)
        if decided.isolation == "none":
            return start_here(opening, record.spec, may_leave=decided.auto, events=self.events)
        return BACKENDS[decided.isolation](opening)

    def _decide(self, record: Record, specs: Offered, isolation: str | None) -> Decided:
        self._check_open(record)
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
        return decided

    def _opening(self, record: Record, decided: Decided) -> Opening:
        spec = record.spec
        return Opening(
            name=record.name,
            entry_point="" if spec is None else spec.entry_point,
            config=record.config.config,
            settings=decided.settings,
            caller=record.caller,
            monitor=self.monitor,
            directory=None if spec is None else spec.directory,
            target=record.target,
            template=self._template_for(decided),
        )

    def _template_for(self, decided: Decided) -> Template | None:
        if decided.isolation == "none" or decided.settings.start != "template":
            return None
        from ._template import Template  # multiprocess, which an in-process host doesn't need

        with self._lock:
            if self.template is None:
                self.template = Template(self.config.template.preload, self.monitor)
            return self.template

    def _opened(self, record: Record, decided: Decided, backend: Backend, *, check: bool) -> Lane:
        lane = Lane(backend, decided)
        try:
            if check:
                _check_health(record, backend)
            self.hooks.check(record.name, backend.hooks, isolated=decided.isolation != "none")
            self.hooks.admit(record, lane)
        except BaseException:
            self._close(record, lane, Deadline.after(record.config.close_timeout))
            raise
        watch(record, lane, self._means)
        return lane

    def _check_open(self, record: Record) -> None:
        if self.forked:
            raise HostForkedError(FORKED)
        if self.closed:
            raise PluginClosed(f"plugin {record.name!r}: the host is closed", plugin=record.name, phase="queue")
        if not record.config.enabled:
            raise PluginNotFound(f"plugin {record.name!r} is disabled in the configuration (enabled = false)")

    def _close(self, record: Record, lane: Lane, deadline: Deadline) -> None:
        try:
            lane.backend.close(deadline)
        except HostkitError as error:
            self.events.emit(PluginUnloaded(record.name, str(error)))
        else:
            self.events.emit(PluginUnloaded(record.name))


# Seconds that running calls may go on before their plugin is closed, unless somebody says otherwise.
DRAIN = 10.0

_UNHELD = "nothing can hold its limits ({}) in-process; isolate it to enforce them"


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


def _new_prefix() -> str:
    return secrets.token_hex(4) + "-"


def where_it_runs(decided: Decided) -> dict[str, Any]:
    """Say where a plugin runs, what holds its limits there, and which of them nothing holds."""
    found: dict[str, Any] = {
        "isolation": decided.isolation,
        "limits": dict(decided.settings.limits or {}),
        "held_by": dict(decided.held),
    }
    if decided.moved:
        found["moved"] = decided.moved
    if decided.unheld:
        found["warning"] = _UNHELD.format(", ".join(decided.unheld))
    return found


def _tell_without(record: Record, sentence: str) -> None:
    tell("WARNING", f"plugin {record.name!r} goes without: {sentence}", plugin=record.name)


def kept_out(name: str, why: str) -> str:
    """Return the words for a plugin that the operator keeps out."""
    return f"plugin {name!r} is installed, and the configuration keeps it out: {why}"


def not_found(name: object, specs: Offered, group: str) -> str:
    """Return the words for a name that is no plugin's, with the nearest name that is."""
    if isinstance(name, str) and name in specs.kept_out:
        return kept_out(name, specs.kept_out[name])
    near = difflib.get_close_matches(str(name), specs, 1)
    shown = str(name).encode("unicode_escape", "backslashreplace").decode()[:200]
    if near:
        return f"no plugin {shown!r} in {group}; did you mean {near[0]!r}?"
    there = f"there is {', '.join(list(specs)[:10])}" if specs else "none is installed"
    return f"no plugin {shown!r} in {group}; {there}"
