"""What a call passes before it is its plugin's: whether it may go there, and when.

gate ─► rate ─► bulkhead ─► breaker ─► the backend

The gate comes first, so that a plugin that is drained takes no turn of a rate; who waits in the bulkhead's line has left it, so
that a reload waits for nobody there and a call goes to the lane that is there when its turn comes. The breaker comes last, so that
a refusal by another policy says nothing of the plugin. Each repeat begins at the gate.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ._breaker import Breaker, State
from ._bulkhead import Bulkhead
from ._config import PluginConfig
from ._contract import ExecutionContext
from ._errors import CallError, CallTimeout, InvalidRequest, RateLimited
from ._gate import GateShut
from ._idle import Waiter
from ._lane import Lane
from ._rate import Rate


class Policies:
    """The breaker, the rate and the bulkhead of one plugin. Thread-safe."""

    __slots__ = ("_configuring", "bounded", "breaker", "bulkhead", "rate")

    def __init__(self, config: PluginConfig, *, on_change: Callable[[State, State, str], object]) -> None:
        self.breaker = Breaker(config.breaker, on_change=on_change)
        self._configuring = threading.Lock()  # guards the replacement of what follows
        self.rate: Rate | None = None
        self.bulkhead: Bulkhead | None = None  # once there is one it stays, because calls are in it
        self.bounded = False  # there is one of the two
        self._bound(config)

    def configure(self, config: PluginConfig) -> None:
        """Go by another configuration from now on, under traffic. A policy whose own table is the same keeps what it has counted."""
        with self._configuring:
            self._bound(config)
        self.breaker.configure(config.breaker)  # without the lock, because it tells subscribers

    def _bound(self, config: PluginConfig) -> None:
        if config.rate != (None if self.rate is None else self.rate.config):
            self.rate = None if config.rate is None else Rate(config.rate)
        if self.bulkhead is not None:
            self.bulkhead.configure(config.bulkhead)
        elif config.bulkhead is not None:
            self.bulkhead = Bulkhead(config.bulkhead)
        self.bounded = self.rate is not None or self.bulkhead is not None

    def admit(
        self,
        lane: Lane,
        context: ExecutionContext,
        waiter: Callable[[], Waiter[None]],
        *,
        streaming: bool = False,
        hook: bool = False,
    ) -> None:
        """Refuse what can't be called; take a turn of the rate, and a place of the bulkhead. Raises ``InLine``.

        Has nothing to do for a call with time left to a lane that isn't special, where nothing is bounded.
        """
        if (lane.special or context._timeout == 0) and not hook:
            _check(lane, context, streaming=streaming)
        bulkhead = self.bulkhead
        if bulkhead is not None and context in bulkhead.inside:
            return  # it was in line
        rate = self.rate
        if rate is not None and not hook:
            wait = rate.take()
            if wait:
                raise _rate_limited(rate, wait, context)
        if bulkhead is not None and not bulkhead.enter(context, waiter):
            context._backend = bulkhead  # for whoever cancels the call
            raise InLine(bulkhead)

    def leave(self, context: ExecutionContext) -> None:
        """Give a call's place back. Idempotent."""
        if self.bulkhead is not None:
            self.bulkhead.leave(context)

    @property
    def waiting(self) -> int:
        """How many calls are in the bulkhead's line."""
        return 0 if self.bulkhead is None else self.bulkhead.waiting

    def turn_away(self) -> None:
        """Send everybody out of the line: the plugin takes no more calls."""
        if self.bulkhead is not None:
            self.bulkhead.turn_away()


class Attempt:
    """One attempt of a call, around what the backend does: gate, rate, bulkhead, breaker. However it ends, the gate is left and the
    breaker knows; the bulkhead's place is the walk's. Raises ``GateShut``, ``InLine`` and what a policy refuses with."""

    __slots__ = ("_breaker", "_context", "_how", "_lane", "_permit", "_policies", "_waiter")

    def __init__(
        self, policies: Policies, lane: Lane, context: ExecutionContext, waiter: Callable[[], Waiter[None]], **how: bool
    ) -> None:
        self._policies = policies
        self._lane = lane
        self._context = context
        self._waiter = waiter
        self._how = how
        self._breaker = policies.breaker
        self._permit = self._breaker.permit

    def __enter__(self) -> None:
        lane, context = self._lane, self._context
        try:
            lane.gate.enter(context)
            if lane.gate.is_shut:
                raise GateShut
            if self._policies.bounded or lane.special or context._timeout == 0:
                self._policies.admit(lane, context, self._waiter, **self._how)
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


class InLine(Exception):
    """A call waits for a place in the bulkhead."""

    def __init__(self, bulkhead: Bulkhead) -> None:
        super().__init__()
        self.bulkhead = bulkhead


def _check(lane: Lane, context: ExecutionContext, *, streaming: bool) -> None:
    plugin = context._caller.plugin
    if lane.hooks_only:
        text = f"plugin {plugin!r} has no execute: it implements hooks only; call them by host.hook"
        raise InvalidRequest(text, plugin=plugin, request_id=context.request_id)
    if lane.streams and not streaming:
        text = f"plugin {plugin!r} streams its answer: call stream() or astream() instead"
        raise InvalidRequest(text, plugin=plugin, request_id=context.request_id)
    if context._timeout == 0:
        text = f"plugin {plugin!r} was not called: the timeout of 0 s had passed"
        raise CallTimeout(text, plugin=plugin, request_id=context.request_id, phase="queue")


def _rate_limited(rate: Rate, wait: float, context: ExecutionContext) -> CallError:
    plugin, config = context._caller.plugin, rate.config
    return RateLimited(
        f"plugin {plugin!r} takes {config.per_second:g} calls a second (burst {config.burst}); try again in {wait:.3f} s",
        retry_after=wait,
        plugin=plugin,
        request_id=context.request_id,
        phase="queue",
    )
