"""Everything that belongs to one plugin of a host, and the walk of one call through it.

call ─► context ─► lane (loaded on first use) ─► policies ─► backend.call ─► answer
                     ▲                                           │
                     └──── a repeat, where it is safe, ◄──── CallError
                           until the deadline
"""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any

from ._breaker import State
from ._config import HealthConfig, PluginConfig
from ._contract import Caller, ExecutionContext
from ._deadline import Deadline
from ._errors import CallError, Draining, PluginClosed, Rejected
from ._events import BreakerChanged, Events
from ._gate import GateShut
from ._idle import LoopWaiter, ThreadWaiter
from ._lane import Lane
from ._log import tell
from ._manifest import Manifest
from ._observing import Walks
from ._options import check, wrong
from ._policies import Attempt, InLine, Policies
from ._retry import may_repeat, pause
from ._shape import Shape
from ._spec import PluginSpec

if TYPE_CHECKING:
    from ._health import Checks
    from ._hookspecs import Crossing


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
        self.restarts = 0  # workers that died, or had to be replaced
        self.spent = 0.0  # CPU seconds of workers of lanes that have ended
        self.front: Walks = self  # where calls begin: here, or at who watches them
        self.tells = True  # of calls that fail, in the log; else who watches does, who knows more of them
        self._policies = Policies(config, on_change=self._breaker_changed)
        self.breaker = self._policies.breaker
        self._events = events
        self._load = load
        self._numbers = numbers
        self._halted = threading.Event()
        self._pausing: set[LoopWaiter[None]] = set()  # tasks between two attempts
        self._configure(config)

    def configure(self, config: PluginConfig) -> None:
        """Go by another configuration from now on, under traffic. A policy whose own table is the same keeps what it has counted, and
        calls in flight keep the time that they were given. What a backend is opened with needs a reload."""
        self._configure(config)
        self._policies.configure(config)

    def _configure(self, config: PluginConfig) -> None:
        self.config = config
        # Read with each call: plain values, not a model's fields.
        self._timeout = None if config.timeout == math.inf else config.timeout
        self._retries = config.retry.attempts - 1

    @property
    def isolation(self) -> str:
        """Where it runs now; empty where it isn't loaded."""
        lane = self.lane
        return "" if lane is None else lane.decided.isolation

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
            raise wrong(self.name, "timeout", "seconds, 0 or more", timeout)
        if headers or metadata or request_id is not None or max_retries is not None:
            check(self.name, headers, metadata, request_id, max_retries)
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
        policies = self._policies
        try:
            while True:
                lane = self.lane
                if lane is None:
                    lane = self._load(self)
                try:
                    # As Attempt does it, written out.
                    gate, breaker = lane.gate, policies.breaker
                    permit = breaker.permit
                    try:
                        gate.enter(context)
                        if gate.is_shut:
                            raise GateShut
                        if policies.bounded or lane.special or context._timeout == 0.0:  # a float, which is compared sooner
                            policies.admit(lane, context, ThreadWaiter)
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
            if policies.bulkhead is not None:
                policies.bulkhead.leave(context)

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
                        with Attempt(self._policies, lane, context, LoopWaiter):
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
            self._policies.leave(context)

    def stream(self, context: ExecutionContext, request: object, shape: Shape) -> Generator[Any, None, None]:
        """Answer one call item by item. Never repeated: the caller has seen some of it."""
        try:
            while True:
                lane = self.lane or self._load(self)
                try:
                    with Attempt(self._policies, lane, context, ThreadWaiter, streaming=True):
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
            self._policies.leave(context)

    async def astream(self, context: ExecutionContext, request: object, shape: Shape) -> AsyncIterator[Any]:
        """Answer one call item by item, without blocking the running event loop."""
        try:
            while True:
                lane = self.lane
                if lane is None:
                    lane = await asyncio.to_thread(self._load, self)
                try:
                    with Attempt(self._policies, lane, context, LoopWaiter, streaming=True):
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
            self._policies.leave(context)

    def call_hook(self, context: ExecutionContext, name: str, arguments: Mapping[str, object], crossing: Crossing) -> Any:
        """Call one hook implementation. Never repeated. None where the plugin has none of that name now."""
        try:
            while True:
                lane = self.lane
                if lane is None or name not in lane.backend.hooks:
                    return None
                try:
                    with Attempt(self._policies, lane, context, ThreadWaiter, hook=True):
                        return lane.backend.call_hook(context, name, arguments, crossing)
                except InLine as line:
                    line.bulkhead.wait(context, self._is_shut)
                except GateShut:
                    self._raise_if_shut(lane, context)
        finally:
            self._policies.leave(context)

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

    @property
    def waiting(self) -> int:
        """How many calls are in the bulkhead's line."""
        return self._policies.waiting

    def shut(self, lane: Lane) -> None:
        """Let a lane take no more calls; who waits in line is sent away, unless a reload has put another lane in this one's place."""
        lane.gate.shut()
        if self.lane in (lane, None):
            self._policies.turn_away()

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
        self._policies.leave(context)
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
        if not self.tells:
            return
        level = "DEBUG" if isinstance(error, Rejected) else "WARNING"
        tell(level, f"{type(error).__name__}: {error}", plugin=self.name, request_id=error.request_id, phase=error.phase)


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
