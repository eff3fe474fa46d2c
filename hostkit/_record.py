"""Everything that belongs to one plugin of a host, and the walk of one call through it.

call ─► context ─► lane (loaded on first use) ─► gate ─► rate ─► bulkhead ─► breaker ─► backend.call ─► answer
                     ▲                                                          │
                     └── a repeat, where it is safe, until the deadline ◄── CallError

The gate comes first, so that a plugin that is drained takes no turn of a rate; who waits in the bulkhead's line has left it, so
that a reload waits for nobody there and a call goes to the lane that is there when its turn comes. The breaker comes last, so that
a refusal by another policy says nothing of the plugin. Each repeat begins at the gate.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ._backends import Backend
from ._breaker import Breaker, State
from ._bulkhead import Bulkhead
from ._config import HealthConfig, PluginConfig
from ._contract import Caller, ExecutionContext
from ._deadline import Deadline
from ._decided import Decided
from ._errors import CallError, CallTimeout, Draining, InvalidRequest, PluginClosed, RateLimited, Rejected
from ._events import BreakerChanged, Events
from ._gate import Gate, GateShut
from ._idle import LoopWaiter, ThreadWaiter, Waiter
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
    from ._health import Checks
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
        events: Events,
    ) -> None:
        self.name = name
        self.caller = caller
        self.lock = threading.RLock()  # guards lane's replacement, spec, manifest, target
        self.lane: Lane | None = None
        self.checks: Checks | None = None
        self.spec: PluginSpec | None = None
        self.manifest = Manifest()
        self.target: object | None = None
        self.wished: str | None = None
        self.moved = ""  # why it may not be in this process any more, whatever was wished
        self.closed = False
        self.breaker = Breaker(config.breaker, on_change=self._breaker_changed)
        self._events = events
        self._load = load
        self._numbers = numbers
        self._halted = threading.Event()
        self._pausing: set[LoopWaiter[None]] = set()  # tasks between two attempts
        self._configuring = threading.Lock()  # guards the replacement of what follows
        self._rate: Rate | None = None
        self._bulkhead: Bulkhead | None = None  # once there is one it stays, because calls are in it
        self._configure(config)

    def configure(self, config: PluginConfig) -> None:
        """Go by another configuration from now on, under traffic. A policy whose own table is the same keeps what it has counted, and
        calls in flight keep the time that they were given. What a backend is opened with needs a reload."""
        with self._configuring:
            self._configure(config, self.config)
        self.breaker.configure(config.breaker)

    def _configure(self, config: PluginConfig, before: PluginConfig | None = None) -> None:
        if before is None or config.rate != before.rate:
            self._rate = None if config.rate is None else Rate(config.rate)
        if self._bulkhead is not None:
            self._bulkhead.configure(config.bulkhead)
        elif config.bulkhead is not None:
            self._bulkhead = Bulkhead(config.bulkhead)
        self.config = config
        # Read with each call: plain values, not a model's fields.
        self._bounded = self._rate is not None or self._bulkhead is not None
        self._timeout = None if config.timeout == math.inf else config.timeout
        self._retries = config.retry.attempts - 1

    @property
    def health_timeout(self) -> float:
        """Seconds for one question: the operator's word, else the manifest's."""
        said = self.config.health or HealthConfig()
        return said.timeout if "timeout" in said.model_fields_set else self.manifest.health_check.timeout or said.timeout

    @property
    def health_interval(self) -> float:
        """Seconds from one check of its health to the next: the operator's word, else the manifest's."""
        said = self.config.health or HealthConfig()
        return said.interval if "interval" in said.model_fields_set else self.manifest.health_check.interval or said.interval

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

    def call(  # noqa: C901, PLR0912 - one straight piece, because a call in-process takes two microseconds
        self, context: ExecutionContext, request: object, shape: Shape
    ) -> Any:  # Any: as the shape says
        """Answer one call."""
        reached: CallError | None = None
        try:
            while True:
                lane = self.lane
                if lane is None:
                    lane = self._load(self)
                try:
                    # As _Attempt does it, written out.
                    gate, breaker = lane.gate, self.breaker
                    permit = breaker.permit
                    try:
                        gate.enter(context)
                        if gate.is_shut:
                            raise GateShut
                        if self._bounded or lane.special or context._timeout == 0:
                            self._admit(lane, context, ThreadWaiter)
                        if permit is None:
                            permit = breaker.admit(context)
                        context._backend = lane.backend
                        answer = lane.call(context, request, shape)
                        if breaker.uneasy:
                            breaker.succeeded(context, permit)
                        return answer
                    except InLine as line:
                        gate.leave(context)
                        line.bulkhead.wait(context, self._is_shut)
                    except BaseException as error:
                        breaker.ended(context, permit, error)
                        raise
                    finally:
                        gate.leave(context)
                except GateShut:
                    self._raise_if_shut(lane, context, reached)
                except CallError as error:
                    if self._halted.wait(self._again(error, context, lane, reached)) or context._cancelled:
                        raise _told(error, reached) from None
                    reached = _latest(error, reached)
        finally:
            if self._bulkhead is not None:
                self._bulkhead.leave(context)

    def cancel(self, context: ExecutionContext) -> None:
        """Tell a call that nobody waits for its answer any more: one that has not begun never does, one that runs is told."""
        context._cancelled = True
        if context._backend is not None:
            context._backend.cancel(context)

    async def acall(self, context: ExecutionContext, request: object, shape: Shape) -> Any:
        """Answer one call without blocking the running event loop."""
        reached: CallError | None = None
        try:
            while True:
                lane = self.lane
                if lane is None:
                    lane = await asyncio.to_thread(self._load, self)
                try:
                    try:
                        with _Attempt(self, lane, context, LoopWaiter):
                            return await lane.backend.acall(context, request, shape)
                    except InLine as line:
                        await line.bulkhead.await_turn(context, self._is_shut)
                except GateShut:
                    self._raise_if_shut(lane, context, reached)
                except CallError as error:
                    if await self._halted_within(self._again(error, context, lane, reached)):
                        raise _told(error, reached) from None
                    reached = _latest(error, reached)
        finally:
            if self._bulkhead is not None:
                self._bulkhead.leave(context)

    def stream(self, context: ExecutionContext, request: object, shape: Shape) -> Generator[Any, None, None]:
        """Answer one call item by item. Never repeated: the caller has seen some of it."""
        try:
            while True:
                lane = self.lane or self._load(self)
                try:
                    with _Attempt(self, lane, context, ThreadWaiter, streaming=True):
                        yield from lane.backend.stream(context, request, shape)
                        return
                except InLine as line:
                    line.bulkhead.wait(context, self._is_shut)
                except GateShut:
                    self._raise_if_shut(lane, context)
        except CallError as error:
            self._tell(error)
            raise
        finally:
            if self._bulkhead is not None:
                self._bulkhead.leave(context)

    async def astream(self, context: ExecutionContext, request: object, shape: Shape) -> AsyncIterator[Any]:
        """Answer one call item by item, without blocking the running event loop."""
        try:
            while True:
                lane = self.lane
                if lane is None:
                    lane = await asyncio.to_thread(self._load, self)
                try:
                    with _Attempt(self, lane, context, LoopWaiter, streaming=True):
                        async with aclosing(lane.backend.astream(context, request, shape)) as items:
                            async for item in items:
                                yield item
                        return
                except InLine as line:
                    await line.bulkhead.await_turn(context, self._is_shut)
                except GateShut:
                    self._raise_if_shut(lane, context)
        except CallError as error:
            self._tell(error)
            raise
        finally:
            if self._bulkhead is not None:
                self._bulkhead.leave(context)

    def call_hook(self, name: str, arguments: Mapping[str, object], crossing: Crossing) -> Any:
        """Call one hook implementation. Never repeated. None where the plugin has none of that name now."""
        context = self.context(None, None, None, None, None)
        try:
            while True:
                lane = self.lane
                if lane is None or name not in lane.backend.hooks:
                    return None
                try:
                    with _Attempt(self, lane, context, ThreadWaiter, hook=True):
                        return lane.backend.call_hook(context, name, arguments, crossing)
                except InLine as line:
                    line.bulkhead.wait(context, self._is_shut)
                except GateShut:
                    self._raise_if_shut(lane, context)
        finally:
            if self._bulkhead is not None:
                self._bulkhead.leave(context)

    def enter_for_hook(self, context: ExecutionContext, name: str) -> Lane | None:
        """Enter the gate of the lane that has this hook wrapper, and return it. None where the plugin was just unloaded, or reloaded
        with other code. A wrapper goes past the other policies: it runs around calls of other plugins, and of its own."""
        while True:
            lane = self.lane
            if lane is None or name not in lane.backend.hooks:
                return None
            lane.gate.enter(context)
            if not lane.gate.is_shut:
                return lane
            lane.gate.leave(context)
            self._raise_if_shut(lane, context)

    def shut(self, lane: Lane) -> None:
        """Let a lane take no more calls; who waits in line is sent away, unless a reload has put another lane in this one's place."""
        lane.gate.shut()
        if self._bulkhead is not None and self.lane in (lane, None):
            self._bulkhead.turn_away()

    def halt(self) -> None:
        """Let nobody wait for a repeat any more."""
        self._halted.set()
        for waiter in list(self._pausing):
            waiter.wake()

    def _is_shut(self) -> bool:
        lane = self.lane
        return lane is not None and lane.gate.is_shut

    def _breaker_changed(self, before: State, after: State, why: str) -> None:
        self._events.emit(BreakerChanged(self.name, before.value, after.value, why))

    def _admit(
        self,
        lane: Lane,
        context: ExecutionContext,
        waiter: Callable[[], Waiter[None]],
        *,
        streaming: bool = False,
        hook: bool = False,
    ) -> None:
        """Refuse what can't be called; take a turn of the rate, and a place of the bulkhead. Raises ``InLine``."""
        if (lane.special or context._timeout == 0) and not hook:
            self._check(lane, context, streaming=streaming)
        bulkhead = self._bulkhead
        if bulkhead is not None and context in bulkhead.inside:
            return  # it was in line
        rate = self._rate
        if rate is not None and not hook:
            wait = rate.take()
            if wait:
                raise self._rate_limited(wait, context)
        if bulkhead is not None and not bulkhead.enter(context, waiter):
            context._backend = bulkhead  # for whoever cancels the call
            raise InLine(bulkhead)

    def _check(self, lane: Lane, context: ExecutionContext, *, streaming: bool) -> None:
        if lane.hooks_only:
            text = f"plugin {self.name!r} has no execute: it implements hooks only; call them by host.hook"
            raise InvalidRequest(text, plugin=self.name, request_id=context.request_id)
        if lane.streams and not streaming:
            text = f"plugin {self.name!r} streams its answer: call stream() or astream() instead"
            raise InvalidRequest(text, plugin=self.name, request_id=context.request_id)
        if context._timeout == 0:
            text = f"plugin {self.name!r} was not called: the timeout of 0 s had passed"
            raise CallTimeout(text, plugin=self.name, request_id=context.request_id, phase="queue")

    def _rate_limited(self, wait: float, context: ExecutionContext) -> CallError:
        rate = self.config.rate
        takes = "too" if rate is None else f"{rate.per_second:g} calls a second (burst {rate.burst})"
        return RateLimited(
            f"plugin {self.name!r} takes {takes}; try again in {wait:.3f} s",
            retry_after=wait,
            plugin=self.name,
            request_id=context.request_id,
            phase="queue",
        )

    def _raise_if_shut(self, lane: Lane, context: ExecutionContext, reached: CallError | None = None) -> None:
        """Raise unless a reload has put another lane in this one's place."""
        if self.lane is not lane and not self.closed:
            return
        where: dict[str, Any] = {"plugin": self.name, "request_id": context.request_id, "phase": "queue"}
        if self.closed:
            raise _told(PluginClosed(f"plugin {self.name!r} is closed", **where), reached) from None
        raise _told(Draining(f"plugin {self.name!r} takes no new calls: it is being drained", **where), reached) from None

    def _again(self, error: CallError, context: ExecutionContext, lane: Lane, reached: CallError | None) -> float:
        """Make the context that of a repeat and return the seconds to wait before it, or raise what happened."""
        if isinstance(error, PluginClosed) and self.lane is not lane and not self.closed and not context._cancelled:
            return 0.0  # it waited for its turn while a reload put another lane in this one's place
        may = context.attempt <= context.max_retries and may_repeat(error, idempotent=self.manifest.idempotent)
        left = context.remaining()
        wait = pause(self.config.retry, context.attempt, error) if may else 0.0
        if not may or context._cancelled or (left is not None and left <= wait):
            self._tell(error)
            raise _told(error, reached)
        if self._bulkhead is not None:
            self._bulkhead.leave(context)
        context._attempt += 1
        return wait

    async def _halted_within(self, seconds: float) -> bool:
        """Wait, and return whether that was ended by ``halt``."""
        waiter: LoopWaiter[None] = LoopWaiter()
        self._pausing.add(waiter)
        try:
            if not self._halted.is_set():
                await waiter.wait(Deadline.after(seconds))
        finally:
            self._pausing.discard(waiter)
        return self._halted.is_set()

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


class InLine(Exception):
    """A call waits for a place in the bulkhead."""

    def __init__(self, bulkhead: Bulkhead) -> None:
        super().__init__()
        self.bulkhead = bulkhead


class _Attempt:
    """One attempt of a call, around what the backend does: gate, rate, bulkhead, breaker. However it ends, the gate is left and the
    breaker knows; the bulkhead's place is the walk's. Raises ``GateShut``, ``InLine`` and what a policy refuses with."""

    __slots__ = ("_breaker", "_context", "_how", "_lane", "_permit", "_record", "_waiter")

    def __init__(
        self, record: Record, lane: Lane, context: ExecutionContext, waiter: Callable[[], Waiter[None]], **how: bool
    ) -> None:
        self._record = record
        self._lane = lane
        self._context = context
        self._waiter = waiter
        self._how = how
        self._breaker = record.breaker
        self._permit = self._breaker.permit

    def __enter__(self) -> None:
        record, lane, context = self._record, self._lane, self._context
        try:
            lane.gate.enter(context)
            if lane.gate.is_shut:
                raise GateShut
            if record._bounded or lane.special or context._timeout == 0:
                record._admit(lane, context, self._waiter, **self._how)
            if self._permit is None:
                self._permit = self._breaker.admit(context)
        except BaseException as error:
            self.__exit__(None, error)
            raise

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        try:
            if error is not None:
                self._breaker.ended(self._context, self._permit, error)
            elif self._breaker.uneasy:
                self._breaker.succeeded(self._context, self._permit)
        finally:
            self._lane.gate.leave(self._context)


def _latest(error: CallError, reached: CallError | None) -> CallError | None:
    """Return the last error of a call that reached its plugin."""
    return reached if isinstance(error, Rejected) else error


def _told(error: CallError, reached: CallError | None) -> CallError:
    """Return what the caller is told when a repeat ends in ``error``: where that was refused, but an earlier try had reached the
    plugin, "it never reached the plugin" would be wrong."""
    if reached is None or not isinstance(error, Rejected):
        return error
    reached.add_note(f"A repeat was refused: {type(error).__name__}: {error}")
    return reached
