"""Load plugins in their order, reload and move them under traffic, and end them in the opposite order.

name ─► record ─► what comes before it, loaded first ─► a lane, opened ─► calls ─► taken away ─► its calls end ─► closed
"""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ._ahead import Ahead
from ._audit import Audit
from ._config import HostConfig
from ._contract import Caller
from ._deadline import Deadline
from ._errors import (
    DuplicatePlugin,
    HostForkedError,
    HostkitError,
    PluginClosed,
    PluginNotFound,
    RequirementError,
)
from ._events import BreakerChanged, Event, Events, IsolationChanged, PluginRefused, WorkerEnded, WorkerReplaced
from ._health import Means, open_breaker, watch
from ._hooks import Hooks
from ._index import Index, default_file
from ._lane import Lane
from ._lock_watch import LockWatch
from ._log import tell
from ._monitor import Monitor
from ._offered import Offered, Offers, not_found
from ._opener import Opener
from ._order import Earlier, dependents
from ._record import Record
from ._telemetry import Telemetry


class Loader:
    """The plugins of one host: what is installed, one record for each that was asked for, and the order of loading. Thread-safe."""

    def __init__(self, app: str, config: HostConfig, hooks: Hooks) -> None:
        self.hooks = hooks
        self.monitor = Monitor()
        self.events = Events()
        self.telemetry = Telemetry(self.events)
        self.audit = Audit(app, config.audit.file, self._enforces)
        self._opener = Opener(f"{app}.plugins", config, hooks, self.monitor, events=self.events, audit=self.audit)
        self._means = Means(
            self.monitor, self.events.emit, {"open-breaker": open_breaker, "restart": self._restart, "isolate": self.move}
        )
        self._group = f"{app}.plugins"
        self._numbers = itertools.count(1)
        self._id_prefix = _new_prefix()
        self._lock = threading.RLock()  # guards everything below
        self._offers = self._offers_of(config)
        self._records: dict[str, Record] = {}
        self._order: list[str] = []
        self._leaving: dict[Lane, Record] = {}
        self._needed: dict[Record, list[str]] = {}  # what plugins that are being loaded need
        self._lock_watch: LockWatch | None = None
        self.events.subscribe(self.audit.heard)
        self.events.subscribe(self._happened)

    @property
    def config(self) -> HostConfig:
        """What the operator says now."""
        return self._opener.config

    def _enforces(self) -> bool:
        return self.config.lock.policy == "enforce"

    @property
    def closed(self) -> bool:
        """Whether nothing may be loaded any more."""
        return self._opener.closed

    @property
    def forked(self) -> bool:
        """Whether this is a fork of the process that has the plugins."""
        return self._opener.forked

    def shut(self) -> None:
        """Load nothing any more."""
        self._opener.closed = True

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

    def reconfigure(self, config: HostConfig) -> None:
        """Find and start plugins as another configuration says, from now on. What is loaded stays as it is."""
        with self._lock:
            before, self._opener.config = self._opener.config, config
            if config.discovery != before.discovery:
                self._offers = self._offers_of(config)
        if config.template != before.template:
            self._opener.drop_template()
        if config.lock != before.lock and self._lock_watch is not None:
            self._look_at_lock()

    def load(self, record: Record, ahead: Ahead | None = None) -> Lane:
        """Load a plugin, and before it what it requires; one that is loaded stays as it is. Raises as ``Host.load``."""
        with record.lock:
            if record.lane is not None and not self.closed:
                return record.lane
            specs = self._offered() if ahead is None else ahead.specs
            with self._refusals(record), self._requiring(record, specs, ahead):
                return self._load_alone(record, specs, ahead)

    def ahead(self, records: Iterable[Record], isolation: str | None) -> Ahead:
        """Begin to start these plugins' workers, and those of what they require. What can't be started is told when it is loaded."""
        specs = self._offered()
        ahead = Ahead(self._opener.start, specs)
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
                decided = self._opener.decide(record, specs, isolation or record.wished)
        except HostkitError:
            return
        # In-process a plugin is imported, on the thread that the application loads it on; and so is what needs it before.
        if decided.isolation != "none" and all(ahead.begun(other) or other.lane is not None for other in earlier):
            ahead.begin(record, decided, earlier)

    def reload(self, record: Record, isolation: str | None, *, why: str, asked: bool = True) -> None:
        """Open a new lane for a plugin; the one before ends when its calls have ended. Raises as ``Host.reload``; then it stays."""
        with record.lock, record.wishing(isolation), self._refusals(record):
            before = record.lane
            if before is None and not asked:
                return  # it was unloaded meanwhile
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
            self._opener.check_open(record)

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
        if isinstance(event, (WorkerEnded, WorkerReplaced)):
            self._records[event.plugin].restarts += 1
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
            self._opener.close(record, lane, Deadline.after(closed))
        finally:
            record.spent += lane.backend.vitals().spent
            lane.ended.set()

    def _end_leaving(self, record: Record, lane: Lane, drained: Deadline) -> None:
        """End a lane that its record no longer has. The host's own close knows of it by ``leaving``."""
        try:
            self.end(record, lane, Deadline.after(0.0) if self.closed else drained)
        finally:
            with self._lock:
                del self._leaving[lane]

    def stop(self) -> None:
        """End what serves all plugins, after the last of them."""
        self._opener.drop_template()
        self.monitor.stop()
        with self._lock:
            watch, self._lock_watch = self._lock_watch, None
        if watch is not None:
            watch.stop()
        self._opener.drop_scratch()
        self._opener.tell_denials()
        self.audit.close()
        self.telemetry.close()

    def forget(self) -> None:
        """Disarm everything in a fork, without a lock: the thread that held it may not be here. Where nothing was loaded before, all
        of it is as good as new."""
        self._opener.forget()
        self.audit.forget()
        self.telemetry.forget()
        self._lock_watch = None
        self._lock = threading.RLock()
        self._id_prefix = _new_prefix()
        for record in self._records.values():
            record.lane = None
            record.lock = threading.RLock()
            record.caller.id_prefix = self._id_prefix

    def _offers_of(self, config: HostConfig) -> Offers:
        return Offers(Index(self._group, config.discovery.paths, file=default_file(self._group)))

    def _new_record(self, name: str) -> Record:
        record = Record(name, self.config.plugin(name), Caller(name, self._id_prefix), self._numbers, self.load, self.events)
        self._records[name] = record
        self.telemetry.watch(record)
        return record

    @contextmanager
    def _requiring(self, record: Record, specs: Offered, ahead: Ahead | None = None) -> Iterator[None]:
        """Load what comes before a plugin; nobody unloads what it needs while the block loads the plugin itself."""
        self._opener.check_open(record)
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

    @contextmanager
    def _refusals(self, record: Record) -> Iterator[None]:
        """Tell of a plugin that the block was to load and did not."""
        try:
            yield
        except (PluginClosed, HostForkedError):
            raise  # nothing of this host is loaded any more
        except (HostkitError, OSError) as error:
            self.events.emit(PluginRefused(record.name, type(error).__name__, str(error)))
            raise

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
                        with self._refusals(other):
                            self._load_alone(other, specs, ahead)
            except (HostkitError, OSError) as error:
                self._opener.check_open(record)
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

    def _open(self, record: Record, specs: Offered, ahead: Ahead | None = None, *, check: bool = False) -> Lane:
        self._look_at_lock()
        lane = self._opener.open(record, specs, ahead, check=check)
        watch(record, lane, self._means)
        return lane

    def _look_at_lock(self) -> None:
        """Tell if the lock changed, and watch it from now on; where no policy asks for it, no more."""
        lock, before = self.config.lock, self._lock_watch
        wanted = lock.policy != "off"
        if before is not None and wanted and before.path == lock.file:
            before.look()
            return
        watch = LockWatch(lock.file, self._opener.check_lock, self.events.emit) if wanted else None
        with self._lock:
            if self._lock_watch is not before or self.closed:
                return  # somebody else was here
            self._lock_watch = watch
        if before is not None:
            before.stop()
        if watch is not None:
            watch.start()

    def _load_alone(self, record: Record, specs: Offered, ahead: Ahead | None) -> Lane:
        lane = self._open(record, specs, ahead)
        with self._lock:
            self._order.append(record.name)
            too_late = self.closed
        if too_late:  # the host was closed meanwhile, and didn't know of this one
            self.unload(record, Deadline.after(0.0))
            self._opener.check_open(record)
        return lane

    def _offered(self) -> Offered:
        """Return what is installed and counts, and what the application registered."""
        with self._lock:
            registered = [name for name, record in self._records.items() if record.target is not None]
            return self._offers.look(self.config, registered)


# Seconds that running calls may go on before their plugin is closed, unless somebody says otherwise.
DRAIN = 10.0


def _new_prefix() -> str:
    return secrets.token_hex(4) + "-"


def _tell_without(record: Record, sentence: str) -> None:
    tell("WARNING", f"plugin {record.name!r} goes without: {sentence}", plugin=record.name)
