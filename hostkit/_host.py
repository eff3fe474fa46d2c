"""The application's object: finds, loads, calls and closes plugins."""

from __future__ import annotations

import difflib
import itertools
import secrets
import threading
import time
import warnings
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal, TypeVar

from . import _config, _requirements
from ._backends import BACKENDS, Opening
from ._config import HostConfig
from ._contract import Caller, HealthStatus, PluginInfo, Status
from ._deadline import Deadline
from ._decided import Decided, decide
from ._discovery import reread
from ._errors import (
    CallError,
    ConfigError,
    DuplicatePlugin,
    HostForkedError,
    HostkitError,
    PluginClosed,
    PluginNotFound,
    RequirementError,
)
from ._handle import PluginHandle, _Around
from ._hooks import Hooks
from ._index import Index, default_file
from ._lifetimes import unwatch, watch
from ._log import tell
from ._monitor import Monitor
from ._names import checked_name
from ._record import Lane, Record
from ._shape import UNTYPED, Shape
from ._spec import PluginSpec
from ._submitter import Submitter

Req = TypeVar("Req")
Resp = TypeVar("Resp")

# How long close() and unload() let running calls go on, unless they are told.
_DRAIN = 10.0


class Host(_Around):
    """Finds plugins of the group ``<app>.plugins``, runs each in-process or isolated, and talks to all of them in one way.

    ``hookspecs`` are modules or classes whose functions ``hostkit.hookspec`` marks; ``config`` is a ``HostConfig``, a mapping or the
    path of a file; ``hook_errors`` says whether a failing hook implementation is raised after the others ran, or skipped. Use it
    as a context manager, or call ``close``. Thread-safe. Raises ``ConfigError``.
    """

    def __init__(
        self,
        app: str = "hostkit",
        *,
        hookspecs: Iterable[object] = (),
        config: HostConfig | Mapping[str, Any] | str | Path | None = None,
        hook_errors: Literal["raise", "skip"] = "raise",
    ) -> None:
        self._closed = True  # until everything is there, for __del__
        try:
            checked_name(app)
        except ValueError as error:
            raise ConfigError(f"app: {error}") from None
        self.app = app
        self.config = _config.load(config)
        self._hooks = Hooks(app, hookspecs, hook_errors)
        self.hook = self._hooks.relay
        self.submitter = Submitter(f"hostkit-submit-{app}")
        self._lock = threading.RLock()  # guards _records, _order and the index
        self._index = Index(f"{app}.plugins", self.config.discovery.paths, file=default_file(f"{app}.plugins"))
        self._records: dict[str, Record] = {}
        self._handles: dict[str, PluginHandle[Any, Any]] = {}
        self._order: list[str] = []
        self._monitor = Monitor()
        self._numbers = itertools.count(1)
        self._id_prefix = secrets.token_hex(4) + "-"
        self._forked = False
        self._closed = False
        watch(self)

    @classmethod
    def development(cls, app: str = "hostkit", **arguments: Any) -> Host:
        """Make a host for working on plugins: hostkit's log is on, and time limits are ten minutes unless configured."""
        from loguru import logger

        config = _config.load(arguments.pop("config", None))
        patient = {name: 600.0 for name in ("timeout", "start_timeout")}
        own = {name: getattr(config.defaults, name) for name in config.defaults.model_fields_set}
        defaults = type(config.defaults).model_construct(**{**dict(config.defaults), **patient, **own})
        defaults.__pydantic_fields_set__.clear()
        defaults.__pydantic_fields_set__.update({*patient, *own})
        logger.enable("hostkit")
        return cls(app, config=config.model_copy(update={"defaults": defaults}), **arguments)

    @property
    def specs(self) -> dict[str, PluginSpec]:
        """What is installed now, by name, sorted; nothing is imported. A broken plugin is a row with its ``error``."""
        with self._lock:
            return dict(self._index.look())

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
        return PluginHandle(self, self._record(name), Shape(request, response))

    def load(self, name: str, *, isolation: str | None = None) -> None:
        """Load a plugin now rather than at its first call; one that is loaded stays as it is.

        ``isolation`` goes before the manifest's wish, and never below the operator's floor. Raises ``PluginNotFound``,
        ``PluginLoadError``, ``RequirementError``, ``ConfigError``, ``ManifestError``, ``SandboxUnavailable``, or the ``CallError`` of a
        worker that couldn't start.
        """
        record = self._record(name)
        with record.lock:
            if isolation is not None and record.lane is None:
                record.wished = isolation
            if record.lane is None:
                self._load(record)
            elif isolation is not None and record.lane.decided.isolation != isolation:
                raise ConfigError(
                    f"plugin {name!r} is loaded with isolation {record.lane.decided.isolation!r}; use reload to change it"
                )

    def reload(self, name: str, *, isolation: str | None = None) -> None:
        """Start the plugin anew, in the same place or another one, and swap it in under traffic: calls on the old one end there.

        Raises as ``load``; then the old one stays.
        """
        record = self._record(name)
        with record.lock:
            before = record.lane
            wished, record.wished = record.wished, isolation or record.wished
            try:
                specs = self._offered()
                self._load_required(record, specs)
                after = self._open(record, specs)
            except BaseException:
                record.wished = wished
                raise
            if before is not None:
                self._retire(record, before, after)
            else:
                self._order.append(record.name)

    def unload(self, name: str, *, timeout: float | None = None) -> None:
        """Let a plugin's calls end, within ``timeout`` seconds (10), and close it. Its next call loads it anew."""
        record = self._record(name)
        with record.lock:
            lane, record.lane = record.lane, None
            with self._lock:
                self._order = [other for other in self._order if other != name]
            if lane is not None:
                self._hooks.unregister(name)
                lane.gate.shut()
                lane.gate.wait_empty(Deadline.after(_DRAIN if timeout is None else timeout))
                self._close_lane(record, lane, Deadline.after(record.config.close_timeout))

    def register(self, plugin: object, *, name: str, isolation: str | None = None) -> None:
        """Offer a class or an object as a plugin of this host, without installing it, and load it.

        Isolated, a class of an importable module is imported by the worker; any other is sent to it by value. Raises as ``load``, and
        ``DuplicatePlugin``.
        """
        try:
            checked_name(name)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        with self._lock:
            if name in self._records or name in self._index.look():
                raise DuplicatePlugin(f"the name {name!r} is taken; unload or rename the other one")
            record = self._new_record(name)
        record.target = plugin
        try:
            self.load(name, isolation=isolation)
        except BaseException:
            with self._lock:
                del self._records[name]
            raise

    def health(self, name: str | None = None) -> Any:  # Any: one status, or name → status
        """Ask one plugin how it is doing, or all loaded ones (then name → status). Never raises for one that is doing badly."""
        if name is not None:
            return self.health_of(self._record(name))
        with self._lock:
            records = [self._records[name] for name in self._order]
        return {record.name: self.health_of(record) for record in records}

    def info(self, name: str) -> PluginInfo:
        """Ask a plugin what it is: its own words over its manifest's and its distribution's. Loads it if need be.

        ``metadata["hostkit"]`` says where it runs and which of its limits nothing holds there.
        """
        return self.info_of(self._record(name))

    def drain(self, name: str, timeout: float | None = None) -> bool:
        """Take no new calls for a plugin and wait until the running ones have ended; return whether they have.

        Calls are ``Draining`` from now on, until the plugin is reloaded.
        """
        lane = self._record(name).lane
        if lane is None:
            return True
        lane.gate.shut()
        return lane.gate.wait_empty(Deadline.after(timeout))

    def close(self, timeout: float | None = None) -> None:
        """Let running calls end within ``timeout`` seconds (10), then close every plugin, the last one loaded first. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            records = [self._records[name] for name in reversed(self._order)]
        unwatch(self)
        if self._forked:
            return
        deadline = Deadline.after(_DRAIN if timeout is None else timeout)
        lanes = [(record, record.lane) for record in records if record.lane is not None]
        for record in self._records.values():
            record.closed = True
            record.halt.set()
        for _, lane in lanes:
            lane.gate.shut()
        self.submitter.close()
        for record, lane in lanes:
            lane.gate.wait_empty(deadline)
            limit = record.config.close_timeout if timeout is None else min(record.config.close_timeout, timeout)
            self._close_lane(record, lane, Deadline.after(limit))
        self._monitor.stop()

    def forget(self) -> None:
        """Disarm this host in a fork of its process: its workers belong to the parent."""
        self._forked = True
        for record in self._records.values():
            lane, record.lane = record.lane, None
            forget = getattr(lane.backend, "forget", None) if lane is not None else None
            if forget is not None:
                forget()
        self._hooks.forget()
        self._monitor.forget()

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._closed and not self._forked:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            self.close(0.0)

    def __repr__(self) -> str:
        return f"Host({self.app!r}, loaded={self._order!r})"

    # Below: what handles and records ask of their host.

    def health_of(self, record: Record) -> HealthStatus:
        """Ask one plugin; whatever goes wrong is a status, too."""
        started = time.monotonic()
        try:
            lane = record.lane or self._load(record)
            limit = record.manifest.health_check.timeout or record.config.health_timeout
            answer = lane.backend.health(Deadline.after(limit))
        except PluginNotFound:
            raise
        except CallError as error:
            bad = Status.OFFLINE if isinstance(error, PluginClosed) else Status.UNHEALTHY
            return HealthStatus(bad, str(error), response_time=time.monotonic() - started)
        except HostkitError as error:
            return HealthStatus(Status.OFFLINE, str(error), response_time=time.monotonic() - started)
        if answer.response_time:
            return answer
        fields = {**answer._fields(), "response_time": time.monotonic() - started}
        return HealthStatus(**fields)

    def info_of(self, record: Record) -> PluginInfo:
        """Ask one plugin and fill in what it leaves out."""
        lane = record.lane or self._load(record)
        said = lane.backend.info(Deadline.after(record.config.health_timeout))
        manifest, spec = record.manifest, record.spec
        metadata = {**manifest.metadata, **said.get("metadata", {}), "hostkit": _where_it_runs(lane.decided)}
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
            handle = self._handles[name] = PluginHandle(self, self._record(name), UNTYPED)
        return handle

    def _record(self, name: str) -> Record:
        record = self._records.get(name)
        if record is not None:
            return record
        with self._lock:
            if name in self._records:
                return self._records[name]
            specs = self._index.look()
            if not isinstance(name, str) or name not in specs:
                raise PluginNotFound(_not_found(name, specs, f"{self.app}.plugins"))
            return self._new_record(name)

    def _new_record(self, name: str) -> Record:
        record = Record(name, self.config.plugin(name), Caller(name, self._id_prefix), self._numbers, self._load)
        self._records[name] = record
        return record

    def _load(self, record: Record) -> Lane:
        with record.lock:
            if record.lane is not None:
                return record.lane
            specs = self._offered()
            self._load_required(record, specs)
            return self._load_alone(record, specs)

    def _load_required(self, record: Record, specs: Mapping[str, PluginSpec]) -> None:
        """Load what a plugin requires, one after the other: the requirements are no circle, so neither are the locks."""
        self._check_open(record)
        for name in _requirements.load_order(record.name, specs):
            needed = self._record(name)
            if not needed.config.enabled:
                raise RequirementError(f"plugin {record.name!r} requires the plugin {name!r}, which is disabled in the configuration")
            with needed.lock:
                if needed.lane is None:
                    self._load_alone(needed, specs)

    def _load_alone(self, record: Record, specs: Mapping[str, PluginSpec]) -> Lane:
        lane = self._open(record, specs)
        with self._lock:
            self._order.append(record.name)
        return lane

    def _offered(self) -> dict[str, PluginSpec]:
        """Return what is installed, and what the application registered."""
        with self._lock:
            registered = [name for name, record in self._records.items() if record.target is not None]
            return {**self._index.look(), **{name: PluginSpec(name, "") for name in registered}}

    def _open(self, record: Record, specs: Mapping[str, PluginSpec]) -> Lane:
        """Start a plugin's backend, after everything that can be known before is in order."""
        self._check_open(record)
        if record.target is None:
            spec = specs.get(record.name)
            if spec is None:
                raise PluginNotFound(_not_found(record.name, specs, f"{self.app}.plugins"))
            record.spec = reread(spec, f"{self.app}.plugins", self.config.discovery.paths)
            record.manifest = record.spec.manifest
        decided = decide(record.name, record.manifest, record.config, record.wished)
        seen = _requirements.seen_by_plugin(decided.isolation, decided.settings.environment)
        _requirements.check(record.name, record.manifest, specs, seen)
        lane = self._started(record, decided)
        tell("INFO", f"plugin {record.name!r} loaded, isolation {decided.isolation}", plugin=record.name)
        if decided.unheld:
            tell("WARNING", f"plugin {record.name!r}: {_UNHELD.format(', '.join(decided.unheld))}", plugin=record.name)
        return lane

    def _started(self, record: Record, decided: Decided) -> Lane:
        spec = record.spec
        opening = Opening(
            name=record.name,
            entry_point="" if spec is None else spec.entry_point,
            config=record.config.config,
            settings=decided.settings,
            caller=record.caller,
            monitor=self._monitor,
            directory=None if spec is None else spec.directory,
            target=record.target,
        )
        backend = BACKENDS[decided.isolation](opening)
        lane = Lane(backend, decided)
        try:
            self._hooks.check(record.name, backend.hooks, isolated=decided.isolation != "none")
            self._hooks.admit(record, lane)
        except BaseException:
            self._close_lane(record, lane, Deadline.after(record.config.close_timeout))
            raise
        return lane

    def _check_open(self, record: Record) -> None:
        if self._forked:
            raise HostForkedError("this process was forked from the one that owns the host; make a Host of its own here")
        if self._closed:
            raise PluginClosed(f"plugin {record.name!r}: the host is closed", plugin=record.name, phase="queue")
        if not record.config.enabled:
            raise PluginNotFound(f"plugin {record.name!r} is disabled in the configuration (enabled = false)")

    def _retire(self, record: Record, before: Lane, after: Lane) -> None:
        before.gate.shut()
        before.gate.wait_empty(Deadline.after(_DRAIN))
        self._close_lane(record, before, Deadline.after(record.config.close_timeout))
        del after

    def _close_lane(self, record: Record, lane: Lane, deadline: Deadline) -> None:
        try:
            lane.backend.close(deadline)
        except HostkitError as error:
            tell("ERROR", f"plugin {record.name!r} did not close in order: {error}", plugin=record.name)
        else:
            tell("INFO", f"plugin {record.name!r} closed", plugin=record.name)


_UNHELD = "nothing can hold its limits ({}) in-process; isolate it to enforce them"


def _where_it_runs(decided: Decided) -> dict[str, Any]:
    found: dict[str, Any] = {"isolation": decided.isolation, "limits": dict(decided.settings.limits or {})}
    if decided.unheld:
        found["warning"] = _UNHELD.format(", ".join(decided.unheld))
    return found


def _not_found(name: object, specs: Mapping[str, PluginSpec], group: str) -> str:
    near = difflib.get_close_matches(str(name), specs, 1)
    shown = str(name).encode("unicode_escape", "backslashreplace").decode()[:200]
    if near:
        return f"no plugin {shown!r} in {group}; did you mean {near[0]!r}?"
    there = f"there is {', '.join(list(specs)[:10])}" if specs else "none is installed"
    return f"no plugin {shown!r} in {group}; {there}"


