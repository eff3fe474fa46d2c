"""What a plugin is: the contract class, and the records that cross it.

Standard library only and cheap to import, because every plugin author's module and every worker imports it. The records
are written by hand: ``dataclasses`` and ``typing`` together cost more than this module's whole import budget
(docs/decisions/0001-records-by-hand.md).
"""

from __future__ import annotations

import enum
from time import monotonic, time
from types import GenericAlias, MappingProxyType

from ._errors import CallCancelled, CallTimeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, Generic, TypeVar, overload

    _F = TypeVar("_F")  # a function, or a staticmethod or classmethod of one
    Req = TypeVar("Req", contravariant=True)
    Resp = TypeVar("Resp", covariant=True)

    class _GenericPlugin(Generic[Req, Resp]):
        pass

else:
    Req, Resp = "Req", "Resp"

    class _GenericPlugin:
        __slots__ = ()

        # What typing.Generic would do, without importing typing: keeps the types in __orig_bases__.
        def __class_getitem__(cls, types: object) -> GenericAlias:
            return GenericAlias(cls, types)


_EMPTY: Mapping[str, Any] = MappingProxyType({})


class Status(enum.Enum):
    """How a plugin says it is doing, from best known to worst."""

    UNKNOWN = "unknown"  # nobody could tell: no check yet, or the check itself failed
    HEALTHY = "healthy"  # does its work
    DEGRADED = "degraded"  # does its work, with something missing
    UNHEALTHY = "unhealthy"  # can't do its work
    OFFLINE = "offline"  # closed, failed or never started


class _Record:
    """An immutable object of named fields: equality, repr, pickling and ``copy.replace`` by field."""

    __slots__: tuple[str, ...] = ()

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: make another one instead of setting {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: {name!r} can't be deleted")

    def _fields(self) -> dict[str, Any]:
        """Return the fields as a dict of their own, mappings as plain ones."""
        names = [name for kind in type(self).__mro__ for name in getattr(kind, "__slots__", ())]
        values = {name: getattr(self, name) for name in names}
        return {name: dict(value) if isinstance(value, MappingProxyType) else value for name, value in values.items()}

    def _fill(self, **fields: object) -> None:
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._fields() == other._fields()

    def __hash__(self) -> int:
        # Mappings stay out: equal ones may differ in order, and what they hold needn't be hashable.
        return hash((type(self), *(value for value in self._fields().values() if not isinstance(value, dict))))

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in self._fields().items())
        return f"{type(self).__name__}({inside})"

    def __replace__(self, **changes: object) -> Any:  # Any: the type of self, which needs typing.Self
        return type(self)(**{**self._fields(), **changes})

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self._fields())


def _rebuild(record: type[_Record], fields: dict[str, object]) -> _Record:
    return record(**fields)


class PluginInfo(_Record):
    """What a plugin says of itself. Immutable.

    ``capabilities`` are free words that hosts may ask for; ``metadata`` is JSON data.
    """

    __slots__ = ("author", "capabilities", "description", "metadata", "name", "version")
    if TYPE_CHECKING:
        name: str
        version: str
        description: str
        author: str
        capabilities: tuple[str, ...]
        metadata: Mapping[str, Any]

    def __init__(
        self,
        name: str,
        version: str = "",
        description: str = "",
        author: str = "",
        capabilities: Iterable[str] = (),
        metadata: Mapping[str, Any] = _EMPTY,
    ) -> None:
        if isinstance(capabilities, str):
            raise TypeError(f"capabilities must be a list of words, found {capabilities!r}")
        self._fill(
            name=name,
            version=version,
            description=description,
            author=author,
            capabilities=tuple(capabilities),
            metadata=MappingProxyType(dict(metadata)),
        )


class HealthStatus(_Record):
    """The answer to one health check. Immutable.

    ``last_check`` is seconds since the epoch and ``response_time`` seconds; the host fills in ``response_time`` with what it
    measured where the plugin left 0. ``metadata`` is JSON data.
    """

    __slots__ = ("last_check", "message", "metadata", "response_time", "status")
    if TYPE_CHECKING:
        status: Status
        message: str
        last_check: float
        response_time: float
        metadata: Mapping[str, Any]

    def __init__(
        self,
        status: Status = Status.HEALTHY,
        message: str = "",
        last_check: float | None = None,
        response_time: float = 0.0,
        metadata: Mapping[str, Any] = _EMPTY,
    ) -> None:
        self._fill(
            status=Status(status),
            message=message,
            last_check=time() if last_check is None else float(last_check),
            response_time=float(response_time),
            metadata=MappingProxyType(dict(metadata)),
        )


class Caller:
    """Whose calls a context belongs to: what all calls of one loaded plugin share."""

    __slots__ = ("_logger", "id_prefix", "plugin")

    def __init__(self, plugin: str, id_prefix: str) -> None:
        self.plugin = plugin
        self.id_prefix = id_prefix
        self._logger: logging.Logger | None = None

    def logger(self, request_id: str) -> logging.LoggerAdapter[logging.Logger]:
        import logging  # a third of a worker's start; most plugins never ask

        if self._logger is None:
            self._logger = logging.getLogger(f"hostkit.plugin.{self.plugin}")
            self._logger.setLevel(logging.DEBUG)
        return logging.LoggerAdapter(self._logger, {"plugin": self.plugin, "request_id": request_id})


_NOBODY = Caller("", "")


class Trace:
    """The trace that a call is part of: ``headers`` go with it, as W3C Trace Context has them. ``times``, where somebody wants them, gets
    what each worker that answered says: the attempt, when it began, in nanoseconds since the epoch, how many it took, and its pid.
    ``attached`` returns a context manager in which the call is what is going on."""

    __slots__ = ("attached", "headers", "times")

    def __init__(
        self,
        headers: Mapping[str, str],
        times: list[tuple[int, int, int, int]] | None = None,
        attached: Callable[[], Any] | None = None,
    ) -> None:
        self.headers = headers
        self.times = times
        self.attached = attached

    def beside(self, given: Mapping[str, str] | None) -> Mapping[str, str]:
        """Return a caller's headers with these; a caller's own trace isn't mixed with this one."""
        if not given:
            return self.headers
        own = any(name.lower() in _TRACE_CONTEXT for name in given)
        return given if own else {**given, **self.headers}


_TRACE_CONTEXT = ("traceparent", "tracestate")


class ExecutionContext:
    """What a call knows of itself; the first argument of ``execute``. Read-only for plugins, safe to read from any thread.

    ``timeout`` is the seconds that the caller gave this call (None: without limit), ``max_retries`` how often a repeat is
    allowed, ``headers`` (str to str) and ``metadata`` (JSON data) what the caller passed along.
    """

    # Plain slots behind read-only properties: a frozen dataclass pays object.__setattr__ for each field on the hot path.
    __slots__ = (
        "_attempt",
        "_backend",
        "_call_id",
        "_caller",
        "_cancelled",
        "_ends_at",
        "_headers",
        "_max_retries",
        "_metadata",
        "_request_id",
        "_timeout",
        "_trace",
    )

    def __init__(
        self,
        request_id: str | int = "",
        timeout: float | None = None,
        max_retries: int = 0,
        headers: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        _caller: Caller = _NOBODY,
        _attempt: int = 1,
    ) -> None:
        self._request_id = request_id
        self._timeout = timeout
        self._max_retries = max_retries
        self._headers = headers
        self._metadata = metadata
        self._ends_at = None if timeout is None else monotonic() + timeout
        self._cancelled = False
        # Where the call is and what it is called there, for whoever cancels it.
        self._backend: Any = None
        self._call_id = 0
        self._caller = _caller
        self._attempt = _attempt
        self._trace: Trace | None = None

    @property
    def request_id(self) -> str:
        """The caller's id of this call, or one that hostkit made."""
        found = self._request_id
        return found if isinstance(found, str) else f"{self._caller.id_prefix}{found:x}"

    @property
    def timeout(self) -> float | None:
        """Seconds that the whole call may take; None is without limit."""
        return self._timeout

    @property
    def max_retries(self) -> int:
        """How often the host repeats a call that may be repeated."""
        return self._max_retries

    @property
    def attempt(self) -> int:
        """1 for the first try, 2 for the first repeat."""
        return self._attempt

    @property
    def headers(self) -> Mapping[str, str]:
        """What the caller passed along, text to text; and, while the host traces calls, ``traceparent``."""
        found = self._headers if self._trace is None else self._trace.beside(self._headers)
        return MappingProxyType(dict(found)) if found else _EMPTY

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the caller passed along, JSON data."""
        return MappingProxyType(dict(self._metadata)) if self._metadata else _EMPTY

    def remaining(self) -> float | None:
        """Return the seconds left until the deadline, never below 0; None is without limit."""
        return None if self._ends_at is None else max(0.0, self._ends_at - monotonic())

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the answer any more: the caller cancelled, or the deadline has passed."""
        return self._cancelled or (self._ends_at is not None and monotonic() >= self._ends_at)

    def raise_if_cancelled(self) -> None:
        """Raise ``CallCancelled`` or ``CallTimeout`` where nobody waits for the answer any more."""
        if self._cancelled:
            raise CallCancelled("the caller cancelled this call", plugin=self._caller.plugin, request_id=self.request_id)
        if self.cancelled:
            raise CallTimeout(f"the call's {self._timeout} s are over", plugin=self._caller.plugin, request_id=self.request_id)

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose records carry the plugin's name and this call's id into the host's log."""
        return self._caller.logger(self.request_id)

    def __repr__(self) -> str:
        return f"ExecutionContext(request_id={self.request_id!r}, timeout={self._timeout!r}, attempt={self._attempt})"


class Plugin(_GenericPlugin[Req, Resp]):
    """The contract: subclass it, or duck-type it with an object that has ``execute``.

    ``execute`` may be a function, a coroutine function, a generator or an async generator; the last two stream. It is called
    from one thread at a time unless the plugin's ``concurrency`` is above 1. ``__init__`` takes nothing, or one argument
    ``config`` whose annotation (a pydantic model, a dataclass, a TypedDict or ``dict``) validates the operator's table.
    """

    def execute(self, ctx: ExecutionContext, request: Req) -> Any:  # Any: Resp, or an awaitable or iterator of it
        """Answer one request. Raise what you like; ``RetryableError`` says that a repeat may help."""
        raise NotImplementedError(f"{type(self).__name__} must define execute(ctx, request)")

    def health(self) -> HealthStatus:
        """Say how the plugin is doing, within the health check's time limit. Runs beside ``execute``, on another thread."""
        return HealthStatus()

    def info(self) -> PluginInfo | None:
        """Describe the plugin; None takes the manifest's and the distribution's words."""
        return None

    def close(self) -> None:
        """Let go of what the plugin holds. Called once, after the last call ended."""


if TYPE_CHECKING:

    @overload
    def hookimpl(function: _F) -> _F: ...

    @overload
    def hookimpl(
        *,
        hookwrapper: bool = False,
        optionalhook: bool = False,
        tryfirst: bool = False,
        trylast: bool = False,
        specname: str | None = None,
        wrapper: bool = False,
    ) -> Callable[[_F], _F]: ...

    def hookimpl(function: Any = None, **options: Any) -> Any: ...

else:

    def hookimpl(function: Any = None, **options: Any) -> Any:
        """Mark a method or function as the implementation of a host's hook, with pluggy's own options.

        Writes the attribute that ``pluggy.HookimplMarker("hostkit")`` writes, so a worker needs no pluggy.
        """
        known = {
            "wrapper": False,
            "hookwrapper": False,
            "optionalhook": False,
            "tryfirst": False,
            "trylast": False,
            "specname": None,
        }
        unknown = options.keys() - known.keys()
        if unknown:
            raise TypeError(f"hookimpl has no option {min(unknown)!r}; it has {', '.join(known)}")

        def mark(target: Any) -> Any:
            target.hostkit_impl = {**known, **options}
            return target

        return mark if function is None else mark(function)
