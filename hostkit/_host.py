"""The application's object: finds, loads, calls and closes plugins."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from . import _reading
from ._ahead import Ahead
from ._audit import AuditState
from ._condition import Condition, HostHealth
from ._config import HostConfig
from ._config_file import ConfigFile
from ._contract import HealthStatus, PluginInfo, Status
from ._deadline import Deadline
from ._errors import ConfigError, HostkitError, PluginNotFound
from ._events import Event
from ._handle import PluginHandle, _Around
from ._health import Asked, as_status
from ._hooks import Hooks
from ._lane import Lane
from ._lifetimes import unwatch, watch
from ._loader import DRAIN, Loader
from ._names import checked_name
from ._opener import where_it_runs
from ._reconfiguration import Reconfiguration
from ._record import Record
from ._shape import UNTYPED, Shape
from ._sinks import flush
from ._snapshot import Snapshots
from ._spec import PluginSpec
from ._submitter import Submitter

if TYPE_CHECKING:
    from ._admin_socket import AdminSocket

# Seconds that closing a host waits for what was told to be in the log.
_LAST_LINES = 0.5

Req = TypeVar("Req")
Resp = TypeVar("Resp")


class Host(_Around):
    """Finds plugins of the group ``<app>.plugins``, runs each in-process or isolated, and talks to all of them in one way.

    ``hookspecs`` are modules or classes whose functions ``hostkit.hookspec`` marks; ``config`` is a ``HostConfig``, a mapping or the
    path of a file; ``hook_errors`` says whether a failing hook implementation is raised after the others ran, or skipped. ``admin``
    lets ``hostkit top`` and ``hostkit dashboard`` of the same user in, by a Unix socket at that path or at one that they find by
    themselves. Use it as a context manager, or call ``close``. Thread-safe. Raises ``ConfigError``.
    """

    def __init__(
        self,
        app: str = "hostkit",
        *,
        hookspecs: Iterable[object] = (),
        config: HostConfig | Mapping[str, Any] | str | Path | None = None,
        hook_errors: Literal["raise", "skip"] = "raise",
        admin: bool | str | Path = False,
    ) -> None:
        self._closed = True  # until everything is there, for __del__
        try:
            checked_name(app)
        except ValueError as error:
            raise ConfigError(f"app: {error}") from None
        self.app = app
        hooks = Hooks(app, hookspecs, hook_errors)
        self.hook = hooks.relay
        self.submitter = Submitter(f"hostkit-submit-{app}")
        self._loader = Loader(app, _reading.load(config), hooks)
        self._reconfiguration = Reconfiguration(self._loader)
        self._file = ConfigFile(config, self._loader.events, self._reconfiguration.apply)
        self._handles: dict[str, PluginHandle[Any, Any]] = {}
        self._lock = threading.Lock()  # guards _closed
        self._admin = self._watched(None if admin is False else admin)
        self._closed = False
        watch(self)

    def _watched(self, admin: str | Path | Literal[True] | None) -> AdminSocket | None:
        """Start the exporters that the configuration names, and let operators in where the application says so."""
        source = Snapshots(self.app, self._loader)
        if admin is None:
            self._loader.telemetry.start(source, self.config.exporters, history=None)
            return None
        from ._admin import opened

        return opened(self, self._loader, source, None if admin is True else Path(admin))

    @classmethod
    def development(cls, app: str = "hostkit", **arguments: Any) -> Host:
        """Make a host for working on plugins: hostkit's log is on, time limits are ten minutes unless configured, and what differs from
        the lock is told and not refused."""
        from loguru import logger

        logger.enable("hostkit")
        source = arguments.pop("config", None)
        host = cls(app, config=_patient(_reading.load(source)), **arguments)
        host._file = ConfigFile(source, host._loader.events, host._reconfiguration.apply, adapted=_patient)
        return host

    @property
    def config(self) -> HostConfig:
        """The configuration that holds now."""
        return self._loader.config

    @property
    def audit(self) -> AuditState:
        """How the audit log is doing: where it is, the last entry that this host wrote, how many it could not write and why."""
        return self._loader.audit.state

    def metrics(self) -> str:
        """Return everything that is counted, in Prometheus' text format. Raises ``ConfigError`` unless the configuration has
        ``[exporters.prometheus]``, which needs ``hostkit[prometheus]``."""
        return self._loader.telemetry.metrics()

    @property
    def admin(self) -> Path | None:
        """Where programs of the same user can ask this host; None where they can't."""
        return None if self._admin is None else self._admin.path

    @property
    def specs(self) -> dict[str, PluginSpec]:
        """What is installed now and counts by ``[discovery]``, by name, sorted; nothing is imported. A broken plugin is a row with its
        ``error``."""
        return dict(self._loader.specs)

    def execute(
        self,
        name: str,
        request: object,
        *,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        request_id: str | None = None,
        max_retries: int | None = None,
    ) -> Any:  # Any: JSON data
        """Call a plugin and return its answer as JSON data. Arguments and errors as ``PluginHandle.execute``."""
        return self._untyped(name).execute(
            request, timeout=timeout, headers=headers, metadata=metadata, request_id=request_id, max_retries=max_retries
        )

    def submit(self, name: str, request: object, **options: Any) -> Future[Any]:
        """``execute`` on another thread."""
        return self._untyped(name).submit(request, **options)

    async def aexecute(self, name: str, request: object, **options: Any) -> Any:
        """``execute`` without blocking the running event loop."""
        return await self._untyped(name).aexecute(request, **options)

    def stream(self, name: str, request: object, **options: Any) -> Iterator[Any]:
        """Call a plugin and iterate over its answer's items as JSON data."""
        return self._untyped(name).stream(request, **options)

    def astream(self, name: str, request: object, **options: Any) -> AsyncIterator[Any]:
        """``stream`` without blocking the running event loop."""
        return self._untyped(name).astream(request, **options)

    def plugin(self, name: str, request: type[Req] | None = None, response: type[Resp] | None = None) -> PluginHandle[Req, Resp]:
        """Return a handle: the same verbs without the name, with the caller's own types. The fast path. Loads nothing."""
        return PluginHandle(self, self._loader.record(name), Shape(request, response))

    def load(self, name: str, *, isolation: str | None = None) -> None:
        """Load a plugin now rather than at its first call; one that is loaded stays as it is.

        ``isolation`` goes before the manifest's wish, and never below the operator's floor. Raises ``PluginNotFound``,
        ``PluginLoadError``, ``RequirementError``, ``ConfigError``, ``ManifestError``, ``SandboxUnavailable``, or the ``CallError`` of a
        worker that couldn't start.
        """
        self._load(self._loader.record(name), isolation, None)

    def load_all(self, *names: str, isolation: str | None = None) -> dict[str, HostkitError | OSError]:
        """Load these plugins now, or every one that is installed and enabled; return those that can't be loaded, with their errors.

        Workers start at the same time, a few on each CPU; everything else happens in the order of the names, so that hooks run as
        if each had been loaded by itself. ``isolation`` and the errors are those of ``load``.
        """
        failed: dict[str, HostkitError | OSError] = {}
        records = {}
        specs = self._loader.specs
        for name in dict.fromkeys(names or (name for name in specs if self.config.plugin(name).enabled)):
            try:
                records[name] = self._loader.record(name, specs)
            except HostkitError as error:
                failed[name] = error
        with self._loader.ahead(records.values(), isolation) as ahead:
            for name, record in records.items():
                try:
                    self._load(record, isolation, ahead)
                except (HostkitError, OSError) as error:
                    failed[name] = error
        return failed

    def _load(self, record: Record, isolation: str | None, ahead: Ahead | None) -> None:
        with record.lock:
            if record.lane is None or self._closed:
                with record.wishing(isolation):
                    self._loader.load(record, ahead)
                return
            decided = record.lane.decided
            if isolation not in (None, decided.isolation, decided.word):
                raise ConfigError(f"plugin {record.name!r} is loaded with isolation {decided.isolation!r}; use reload to change it")
            record.wished = isolation or record.wished

    def reload(self, name: str, *, isolation: str | None = None) -> None:
        """Start the plugin anew, in the same place or another one, and swap it in under traffic: calls on the old one end there.

        The new one is asked for its ``health`` before it takes over; where it is unhealthy or offline that is a ``PluginLoadError`` of
        kind ``health``. Raises as ``load``, too; the old one stays where anything is raised.
        """
        self._loader.reload(self._loader.record(name), isolation, why="the application asked for it")

    def unload(self, name: str, *, timeout: float | None = None, force: bool = False) -> None:
        """Let a plugin's calls end, within ``timeout`` seconds (10), and close it. Its next call loads it anew.

        Raises ``RequirementError`` where plugins that are loaded require it, directly or not. ``force`` unloads it all the same; those
        others stay as they are.
        """
        self._loader.unload(self._loader.record(name), Deadline.after(DRAIN if timeout is None else timeout), force=force)

    def register(self, plugin: object, *, name: str, isolation: str | None = None) -> None:
        """Offer a class or an object as a plugin of this host, without installing it, and load it.

        Isolated, a class of an importable module is imported by the worker; any other is sent to it by value. Raises as ``load``, and
        ``DuplicatePlugin``.
        """
        try:
            checked_name(name)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        self._loader.register(name, plugin)
        try:
            self.load(name, isolation=isolation)
        except BaseException:
            self._loader.unregister(name)
            raise

    @overload
    def health(self, name: str) -> HealthStatus: ...

    @overload
    def health(self, name: None = None) -> HostHealth: ...

    def health(self, name: str | None = None) -> HealthStatus | HostHealth:
        """Ask one plugin how it is doing, or all loaded ones, at the same time: name → status, with a ``status`` and ``message`` for the
        host as a whole. Never raises for one that is doing badly."""
        if name is not None:
            return self.health_of(self._loader.record(name))
        asked = [(record, _ask_health(record, lane)) for record in self._loader.loaded if (lane := record.lane) is not None]
        return HostHealth({record.name: _with_circuit(record, question.status()) for record, question in asked})

    def condition(self, name: str) -> Condition:
        """Return what the health checks have found of a plugin so far, without asking or loading it. Raises ``PluginNotFound``."""
        record = self._loader.record(name)
        if record.lane is None:
            return Condition(message="it is not loaded")
        if record.config.health is None or record.checks is None:
            return Condition(message="its health is not checked (health = false)")
        return record.checks.condition

    def info(self, name: str) -> PluginInfo:
        """Ask a plugin what it is: its own words over its manifest's and its distribution's. Loads it if need be.

        ``metadata["hostkit"]`` says where it runs and which of its limits nothing holds there.
        """
        return self.info_of(self._loader.record(name))

    def reload_config(self) -> tuple[str, ...]:
        """Read the configuration file anew and apply what has changed, under traffic; return the changes as text.

        Policies and time limits change at once; a plugin that is to run otherwise (isolation, workers, limits, its own ``config``) is
        reloaded, a disabled one unloaded. An invalid file changes nothing, and a plugin for which a change can't be applied keeps what
        it had: both are ``ConfigError``, the second one after the rest was applied. Thread-safe.
        """
        return self._file.reload()

    def watch_config(self) -> None:
        """Call ``reload_config`` whenever the configuration file has changed, until the host is closed. Needs ``hostkit[watch]``.

        A file that is invalid, half written or gone changes nothing and is told once, as a ``ConfigRefused`` event. Replace the file in
        one step (``hostkit isolate`` and its siblings do): a writer that pauses is taken to be done. Idempotent. Raises ``ConfigError``.
        """
        self._file.watch()

    def subscribe(self, subscriber: Callable[[Event], object]) -> Callable[[], None]:
        """Call ``subscriber`` with every ``Event`` from now on; return what ends that.

        It is called on whatever thread the event happens on, sometimes with a lock of that plugin held: let it note the event and
        return. What it raises is logged.
        """
        return self._loader.events.subscribe(subscriber)

    def drain(self, name: str, timeout: float | None = None) -> bool:
        """Take no new calls for a plugin and wait until the running ones have ended; return whether they have.

        Calls are ``Draining`` from now on, until the plugin is reloaded.
        """
        record = self._loader.record(name)
        lane = record.lane
        if lane is None:
            return True
        record.shut(lane)
        return lane.gate.wait_empty(Deadline.after(timeout))

    def close(self, timeout: float | None = None) -> None:
        """Let running calls end within ``timeout`` seconds (10), then close every plugin, the last one loaded first. Idempotent.

        Where ``timeout`` is given the plugins together have as long again for their own ``close``, else each has its ``close_timeout``.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._loader.shut()
        unwatch(self)
        if self._admin is not None:
            self._admin.close()
        if not self._loader.forked:
            self._file.stop()
            try:
                self._end_all(timeout)
            finally:
                flush(_LAST_LINES)

    def _end_all(self, timeout: float | None) -> None:
        deadline = Deadline.after(DRAIN if timeout is None else timeout)
        lanes = [(record, record.lane) for record in reversed(self._loader.loaded) if record.lane is not None]
        lanes += self._loader.leaving
        for record in self._loader.records:
            record.closed = record.lane is None
            record.halt()
        for record, lane in lanes:
            record.shut(lane)
        self.submitter.close()
        closed = Deadline.after(None if timeout is None else 2.0 * timeout)
        try:
            for record, lane in lanes:
                self._loader.end(record, lane, deadline, closed.wait())
                record.closed = True
        except BaseException:  # a second Ctrl-C: whoever sends it waits no longer
            for _, lane in lanes:
                with suppress(HostkitError):
                    lane.backend.close(Deadline.after(0.0))
            raise
        finally:
            for record in self._loader.records:
                record.closed = True
            self._loader.stop()

    def forget(self) -> None:
        """Make this host what it can be in a fork of its process: a new one if it has loaded nothing, else a disarmed one, because its
        plugins are the parent's."""
        self._lock = threading.Lock()
        if self._admin is not None:
            self._admin.forget()
        self._file.forget()
        self.submitter.forget()
        self._loader.forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._closed and not self._loader.forked:
            try:
                warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            finally:  # a filter may turn the warning into an error
                self.close(0.0)

    def __repr__(self) -> str:
        return f"Host({self.app!r}, loaded={[record.name for record in self._loader.loaded]!r})"

    # Below: what handles and records ask of their host.

    def health_of(self, record: Record) -> HealthStatus:
        """Ask one plugin; whatever goes wrong is a status, too."""
        started = time.monotonic()
        try:
            lane = record.lane or self._loader.load(record)
        except PluginNotFound:
            raise
        except HostkitError as error:
            return as_status(error, response_time=time.monotonic() - started)
        return _with_circuit(record, _ask_health(record, lane).status())

    def info_of(self, record: Record) -> PluginInfo:
        """Ask one plugin and fill in what it leaves out."""
        lane = record.lane or self._loader.load(record)
        said = lane.backend.info(Deadline.after(record.health_timeout))
        manifest, spec = record.manifest, record.spec
        metadata = {**manifest.metadata, **said.get("metadata", {}), "hostkit": where_it_runs(lane.decided)}
        return PluginInfo(
            name=said.get("name") or record.name,
            version=said.get("version") or manifest.version or (spec.version if spec is not None else ""),
            description=said.get("description") or manifest.description,
            author=said.get("author") or manifest.author,
            capabilities=tuple(said.get("capabilities") or manifest.capabilities),
            metadata=metadata,
        )

    def _untyped(self, name: str) -> PluginHandle[Any, Any]:
        handle = self._handles.get(name)
        if handle is None:
            handle = self._handles[name] = PluginHandle(self, self._loader.record(name), UNTYPED)
        return handle


def _ask_health(record: Record, lane: Lane) -> Asked:
    return Asked(lane.backend, record.health_timeout)


def _with_circuit(record: Record, status: HealthStatus) -> HealthStatus:
    """Return a status that tells of an open circuit, too: a plugin that says it is well is not called all the same."""
    state = record.breaker.state.value
    if state == "closed":
        return status
    fields = status._fields()
    said = f"its circuit is {state}"
    fields["status"] = Status.DEGRADED if status.status is Status.HEALTHY else status.status
    fields["message"] = f"{status.message}; {said}" if status.message else said
    ours = fields["metadata"].get("hostkit")
    fields["metadata"]["hostkit"] = {**(ours if isinstance(ours, dict) else {}), "circuit": state}
    return HealthStatus(**fields)


def _patient(config: HostConfig) -> HostConfig:
    """Return a configuration with time limits of ten minutes where it says nothing else, and a lock that is no obstacle."""
    patient = dict.fromkeys(("timeout", "start_timeout"), 600.0)
    own = {name: getattr(config.defaults, name) for name in config.defaults.model_fields_set}
    defaults = type(config.defaults).model_construct(**{**dict(config.defaults), **patient, **own})
    defaults.__pydantic_fields_set__.clear()
    defaults.__pydantic_fields_set__.update({*patient, *own})
    lock = config.lock.model_copy(update={"policy": "audit"}) if config.lock.policy == "enforce" else config.lock
    return config.model_copy(update={"defaults": defaults, "lock": lock})
