"""Everything that belongs to one plugin of a host, and the walk of one call through it.

call ─► context ─► lane (loaded on first use) ─► rate ─► gate ─► backend.call ─► answer
                     ▲                                              │
                     └── a repeat, where it is safe ◄── CallError ◄─┘
"""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ._backends import Backend
from ._config import HealthConfig, PluginConfig
from ._contract import Caller, ExecutionContext
from ._decided import Decided
from ._errors import CallError, CallTimeout, Draining, InvalidRequest, PluginClosed, RateLimited, Rejected
from ._gate import Gate, GateShut
from ._log import tell
from ._manifest import Manifest
from ._raised import invalid_request
from ._rate import Rate
from ._retry import may_repeat, pause
from ._shape import Shape
from ._spec import PluginSpec
from ._worker._data import DataError, found
from ._worker._json import dump_json
from ._worker._loaded import HOOKS_ONLY

if TYPE_CHECKING:
    from ._hookspecs import Crossing


@dataclass(slots=True, eq=False)
class Lane:
    """One backend with the gate before it; a reload makes a new one."""

    backend: Backend
    decided: Decided
    gate: Gate = field(default_factory=Gate)
    streams: bool = field(init=False)
    hooks_only: bool = field(init=False)
    special: bool = field(init=False)  # one of the two: there is no plain answer
    call: Callable[[ExecutionContext, object, Shape], Any] = field(init=False)
    ending: threading.Lock = field(default_factory=threading.Lock, init=False)  # taken for good by whoever closes the backend
    ended: threading.Event = field(default_factory=threading.Event, init=False)

    def __post_init__(self) -> None:
        self.streams = "generator" in self.backend.kind
        self.hooks_only = self.backend.kind == HOOKS_ONLY
        self.special = self.streams or self.hooks_only
        self.call = self.backend.call


class Record:
    """One plugin: its spec, its configuration, and the lane on which it is called now. Thread-safe."""

    def __init__(
        self,
        name: str,
        config: PluginConfig,
        caller: Caller,
        numbers: itertools.count[int],
        load: Callable[[Record], Lane],
    ) -> None:
        self.name = name
        self.config = config
        self.caller = caller
        self.lock = threading.RLock()  # guards lane's replacement, spec, manifest, target
        self.lane: Lane | None = None
        self.spec: PluginSpec | None = None
        self.manifest = Manifest()
        self.target: object | None = None
        self.wished: str | None = None
        self.moved = ""  # why it may not be in this process any more, whatever was wished
        self.closed = False
        self.halt = threading.Event()
        self._load = load
        self._numbers = numbers
        self.breaker: Any = None
        self.configure(config)

    def configure(self, config: PluginConfig) -> None:
        """Let another configuration hold."""
        self.config = config
        self._rate = None if config.rate is None else Rate(config.rate)
        # Read with each call: plain values, not a model's fields.
        self._timeout = None if config.timeout == math.inf else config.timeout
        self._retries = config.retry.attempts - 1

    @property
    def health_timeout(self) -> float:
        """Seconds for one question: the operator's word, else the manifest's."""
        said = self.config.health or HealthConfig()
        return said.timeout if "timeout" in said.model_fields_set else self.manifest.health_check.timeout or said.timeout

    @contextmanager
    def wishing(self, isolation: str | None) -> Iterator[None]:
        """Let the application's word on isolation hold, from now on unless the block raises. The caller holds ``lock``."""
        before = self.wished, self.moved
        if isolation is not None:
            self.wished, self.moved = isolation, ""
        try:
            yield
        except BaseException:
            self.wished, self.moved = before
            raise

    def context(
        self,
        timeout: float | None,
        headers: Mapping[str, str] | None,
        metadata: Mapping[str, Any] | None,
        request_id: str | None,
        max_retries: int | None,
    ) -> ExecutionContext:
        """Make the context of one call. Raises ``InvalidRequest`` for arguments that are none."""
        if timeout is None and request_id is None and max_retries is None and not headers and not metadata:
            return ExecutionContext(next(self._numbers), self._timeout, self._retries, _caller=self.caller)
        if timeout is None:
            timeout = self.config.timeout
        elif not (isinstance(timeout, (int, float)) and timeout >= 0.0):
            raise self._wrong("timeout", "seconds, 0 or more", timeout)
        if headers or metadata or request_id is not None or max_retries is not None:
            self._check_extras(headers, metadata, request_id, max_retries)
        return ExecutionContext(
            next(self._numbers) if request_id is None else request_id,
            None if timeout == math.inf else timeout,
            self._retries if max_retries is None else max_retries,
            headers,
            metadata,
            _caller=self.caller,
        )

    def call(self, context: ExecutionContext, request: object, shape: Shape) -> Any:  # Any: as the shape says
        """Answer one call."""
        while True:
            lane = self.lane
            if lane is None:
                lane = self._load(self)
            try:
                if lane.special or self._rate is not None or context._timeout == 0:
                    self._admit(lane, context)
                gate = lane.gate
                try:
                    gate.enter(context)
                    if gate.is_shut:
                        raise GateShut
                    context._backend = lane.backend
                    return lane.call(context, request, shape)
                finally:
                    gate.leave(context)
            except GateShut:
                self._raise_if_shut(lane, context)
            except CallError as error:
                if self.halt.wait(self._again(error, context, lane)) or context._cancelled:
                    raise

    def cancel(self, context: ExecutionContext) -> None:
        """Tell a call that nobody waits for its answer any more: one that has not begun never does, one that runs is told."""
        context._cancelled = True
        if context._backend is not None:
            context._backend.cancel(context)

    async def acall(self, context: ExecutionContext, request: object, shape: Shape) -> Any:
        """Answer one call without blocking the running event loop."""
        while True:
            lane = self.lane
            if lane is None:
                lane = await asyncio.to_thread(self._load, self)
            try:
                if lane.special or self._rate is not None or context._timeout == 0:
                    self._admit(lane, context)
                gate = lane.gate
                try:
                    gate.enter(context)
                    if gate.is_shut:
                        raise GateShut
                    return await lane.backend.acall(context, request, shape)
                finally:
                    gate.leave(context)
            except GateShut:
                self._raise_if_shut(lane, context)
            except CallError as error:
                await asyncio.sleep(self._again(error, context, lane))

    def stream(self, context: ExecutionContext, request: object, shape: Shape) -> Generator[Any, None, None]:
        """Answer one call item by item. Never repeated: the caller has seen some of it."""
        while True:
            lane = self.lane or self._load(self)
            try:
                self._admit(lane, context, streaming=True)
                with lane.gate.entered(context):
                    yield from lane.backend.stream(context, request, shape)
                    return
            except GateShut:
                self._raise_if_shut(lane, context)
            except CallError as error:
                self._tell(error)
                raise

    async def astream(self, context: ExecutionContext, request: object, shape: Shape) -> AsyncIterator[Any]:
        """Answer one call item by item, without blocking the running event loop."""
        while True:
            lane = self.lane
            if lane is None:
                lane = await asyncio.to_thread(self._load, self)
            try:
                self._admit(lane, context, streaming=True)
                with lane.gate.entered(context):
                    async for item in lane.backend.astream(context, request, shape):
                        yield item
                    return
            except GateShut:
                self._raise_if_shut(lane, context)
            except CallError as error:
                self._tell(error)
                raise

    def call_hook(self, name: str, arguments: Mapping[str, object], crossing: Crossing) -> Any:
        """Call one hook implementation. Never repeated. None where the plugin has none of that name now."""
        context = self.context(None, None, None, None, None)
        lane = self.enter_for_hook(context, name)
        if lane is None:
            return None
        try:
            return lane.backend.call_hook(context, name, arguments, crossing)
        finally:
            lane.gate.leave(context)

    def enter_for_hook(self, context: ExecutionContext, name: str) -> Lane | None:
        """Enter the gate of the lane that has this hook implementation, and return it. None where the plugin was just unloaded, or
        reloaded with other code."""
        while True:
            lane = self.lane
            if lane is None or name not in lane.backend.hooks:
                return None
            lane.gate.enter(context)
            if not lane.gate.is_shut:
                return lane
            lane.gate.leave(context)
            self._raise_if_shut(lane, context)

    def _admit(self, lane: Lane, context: ExecutionContext, *, streaming: bool = False) -> None:
        where: dict[str, Any] = {"plugin": self.name, "request_id": context.request_id}
        if lane.hooks_only:
            raise InvalidRequest(f"plugin {self.name!r} has no execute: it implements hooks only; call them by host.hook", **where)
        if lane.streams and not streaming:
            raise InvalidRequest(f"plugin {self.name!r} streams its answer: call stream() or astream() instead", **where)
        if context._timeout == 0:
            raise CallTimeout(f"plugin {self.name!r} was not called: the timeout of 0 s had passed", phase="queue", **where)
        if self._rate is not None:
            wait = self._rate.take()
            if wait:
                rate = self.config.rate
                assert rate is not None
                raise RateLimited(
                    f"plugin {self.name!r} takes {rate.per_second:g} calls a second (burst {rate.burst}); try again in {wait:.3f} s",
                    retry_after=wait,
                    phase="queue",
                    **where,
                )

    def _raise_if_shut(self, lane: Lane, context: ExecutionContext) -> None:
        """Raise unless a reload has put another lane in this one's place."""
        if self.lane is not lane and not self.closed:
            return
        where: dict[str, Any] = {"plugin": self.name, "request_id": context.request_id, "phase": "queue"}
        if self.closed:
            raise PluginClosed(f"plugin {self.name!r} is closed", **where) from None
        raise Draining(f"plugin {self.name!r} takes no new calls: it is being drained", **where) from None

    def _again(self, error: CallError, context: ExecutionContext, lane: Lane) -> float:
        """Make the context that of a repeat and return the seconds to wait before it, or raise what happened."""
        if isinstance(error, PluginClosed) and self.lane is not lane and not self.closed and not context._cancelled:
            return 0.0  # it waited for its turn while a reload put another lane in this one's place
        may = context.attempt <= context.max_retries and may_repeat(error, idempotent=self.manifest.idempotent)
        left = context.remaining()
        wait = pause(self.config.retry, context.attempt) if may else 0.0
        if not may or context._cancelled or (left is not None and left <= wait):
            self._tell(error)
            raise error
        context._attempt += 1
        return wait

    def _tell(self, error: CallError) -> None:
        level = "DEBUG" if isinstance(error, Rejected) else "WARNING"
        tell(level, f"{type(error).__name__}: {error}", plugin=self.name, request_id=error.request_id, phase=error.phase)

    def _check_extras(
        self,
        headers: Mapping[str, str] | None,
        metadata: Mapping[str, Any] | None,
        request_id: str | None,
        max_retries: int | None,
    ) -> None:
        if request_id is not None and not (isinstance(request_id, str) and 0 < len(request_id) <= 200 and request_id.isprintable()):
            raise self._wrong("request_id", "1 to 200 printable characters", request_id)
        if max_retries is not None and not (isinstance(max_retries, int) and 0 <= max_retries <= 100):
            raise self._wrong("max_retries", "a number from 0 to 100", max_retries)
        if headers and not all(isinstance(part, str) for pair in headers.items() for part in pair):
            raise self._wrong("headers", "text to text", dict(headers))
        try:
            dump_json({"headers": dict(headers or {}), "metadata": dict(metadata or {})})
        except DataError as error:
            raise invalid_request(error.rows, plugin=self.name, request_id="") from None

    def _wrong(self, path: str, expected: str, value: object) -> CallError:
        return invalid_request([{"path": path, "expected": expected, "found": found(value)}], plugin=self.name, request_id="")
