"""The asyncio calls of one event loop to one plugin: sent ahead into the channels that are free, and answered in order.

acall ─► queue ─► flow: a channel and the calls in it ═══ worker
await ◄─ future ◄─┘  one reader a channel; no task, no thread and no timer a call

A worker with one channel gets quick calls ahead of their turn, so that neither side waits for the other; where calls take long, or a
plugin takes several at a time, a channel has one. What was sent ahead and not begun is sent again when a worker is lost.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Protocol

from .._channel import Channel
from .._contract import ExecutionContext
from .._ending import Ending, Reason
from .._errors import CallTimeout
from .._supervisor import Supervisor
from .._worker._frames import ERROR, RESULT, Frame, FrameError, Truncated
from ._asked import Asked
from ._flow import Flow, WaitingCall

# A worker that died before it began a call costs the call nothing: another one gets it. Not for ever, because the request may be what
# kills them.
_TRIES = 3
# Calls in one channel, and the seconds of work that may lie there: enough to keep a worker busy while the loop does other things.
_MOST, _AHEAD = 64, 0.002


class Owner(Protocol):
    """What the calls ask of their backend."""

    supervisor: Supervisor

    def up_to_date(self, channel: Channel) -> bool:
        """Whether a worker has heard of everything that it must have heard of before its next call."""
        ...

    async def channel(self, context: ExecutionContext) -> Channel:
        """Wait for a channel whose worker is up to date. Raises ``CallError``."""
        ...

    def late(self, context: ExecutionContext, *, sent: bool) -> Exception:
        """Return the error for a call that ran out of time."""
        ...

    def lost(self, context: ExecutionContext, ending: Ending) -> Exception:
        """Return the error for a call whose worker has ended."""
        ...

    def exhausted(self, frame: Frame) -> bool:
        """Whether an answer says that its worker must be replaced."""
        ...


class Pipelines:
    """One plugin's pipelines, one an event loop. Thread-safe."""

    def __init__(self) -> None:
        self._pipelines: dict[asyncio.AbstractEventLoop, Pipeline] = {}  # a dict's own operations are atomic

    def here(self, make: Callable[[], Pipeline]) -> Pipeline:
        """Return that of the running loop."""
        loop = asyncio.get_running_loop()
        pipeline = self._pipelines.get(loop)
        if pipeline is None:
            pipeline = self._pipelines[loop] = make()
            self._forget_closed_loops()
        return pipeline

    def _forget_closed_loops(self) -> None:
        for loop in [loop for loop in list(self._pipelines) if loop.is_closed()]:
            left = self._pipelines.pop(loop, None)
            if left is not None:
                left.reclaim()

    def reclaim(self) -> None:
        """Leave what loops that don't run have left to the supervisor. From any thread."""
        for pipeline in list(self._pipelines.values()):
            pipeline.reclaim()


class Pipeline:
    """Only for the thread of the event loop that runs where it is made."""

    def __init__(self, owner: Owner, *, ahead: bool, grace: float) -> None:
        self.loop = asyncio.get_running_loop()
        self._owner = owner
        self._supervisor = owner.supervisor
        self._most = _MOST if ahead else 1
        self._window = 1  # calls that a channel may have
        self._grace = grace
        self._queue: deque[WaitingCall] = deque()
        self._flows: list[Flow] = []
        self._sending = False
        self._acquiring: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    async def call(self, context: ExecutionContext, asked: Asked) -> Frame:
        """Return the answer's frame. Raises ``CallError``."""
        call = WaitingCall(context, asked, self.loop.create_future())
        self._queue.append(call)
        self._send_soon()
        if context._ends_at is not None and context._ends_at < self._timer_at:
            self._wake_at(context._ends_at)
        try:
            return await call.future
        finally:
            # Otherwise it is over: a cancelled task, or a coroutine that was closed.
            if call.future.cancelled() or not call.future.done():
                self._give_up(call)

    def _send_soon(self) -> None:
        if not self._sending:
            self._sending = True
            self.loop.call_soon(self._send)

    def _send(self) -> None:
        """Send what has come together in this turn of the loop."""
        self._sending = False
        queue = self._queue
        while queue and queue[0].gone:
            queue.popleft()
        if queue and not self._supervisor.idle.wanted:  # else the channels are given back to whoever waits for them
            self._spread(queue)
            for flow in self._flows:
                flow.fill(queue, self._window)
        if queue and not self._flows and self._acquiring is None:
            self._acquiring = self.loop.create_task(self._acquire())

    def _spread(self, queue: deque[WaitingCall]) -> None:
        """Give a call to each channel that has none, ours first and then those that are idle."""
        for flow in self._flows:
            if queue and not flow.calls:
                flow.fill(queue, 1)
        while queue and (channel := self._supervisor.idle.take_now()) is not None:
            if not self._owner.up_to_date(channel):
                self._supervisor.give(channel)
                break
            self._begin_flow(channel, 1)

    async def _acquire(self) -> None:
        """Wait for a channel, as the first of the queue."""
        try:
            while self._queue and not self._flows:
                call = self._queue[0]
                try:
                    channel = await self._owner.channel(call.context)
                except Exception as error:  # Busy, or why nobody can be answered now
                    call.fail(error)
                    if self._queue and self._queue[0] is call:
                        self._queue.popleft()
                else:
                    self._begin_flow(channel, self._window)
        finally:
            self._acquiring = None
            self._send_soon()

    def _begin_flow(self, channel: Channel, most: int) -> None:
        flow = Flow(self.loop, channel, on_read=self._read)
        self._flows.append(flow)
        flow.fill(self._queue, most)
        if not flow.calls:  # those that waited have gone, or could not be sent
            self._end_flow(flow)

    def _end_flow(self, flow: Flow) -> None:
        """Give a channel back that has no call in it."""
        self._leave(flow)
        if flow.exhausted:
            self._supervisor.recycle(flow.channel, "it reached its memory limit")
        else:
            self._supervisor.give(flow.channel)

    def _leave(self, flow: Flow) -> None:
        flow.stop()
        self._flows.remove(flow)
        if self._queue and not self.loop.is_closed():
            self._send_soon()  # those in the queue must wait for another channel

    def _read(self, flow: Flow) -> None:
        if flow.stopped:
            return
        channel = flow.channel
        try:
            alive = channel.read()
            while (frame := channel.pop()) is not None:
                self._take(flow, frame)
        except FrameError as error:
            self._lose(flow, error)
            return
        if not alive:
            self._lose(flow, channel.ended())
            return
        self._learn(flow)
        if self._queue:
            self._send()
        if not flow.calls:
            self._end_flow(flow)
        elif flow.calls[0].gone:
            self._begin_grace(flow)

    def _take(self, flow: Flow, frame: Frame) -> None:
        expected = flow.calls[0].asked.call_id if flow.calls else None
        if frame.call_id != expected:
            raise FrameError(f"an answer to call {frame.call_id}, expected call {expected}")
        if frame.kind not in (RESULT, ERROR):
            raise FrameError(f"a frame of kind {frame.kind} as an answer")
        call = flow.answered()
        if flow.calls:  # else the channel is given back
            self._supervisor.served(flow.channel)
        if frame.kind == ERROR and self._owner.exhausted(frame):
            flow.exhausted = True
        if not call.future.done():
            call.future.set_result(frame)

    def _learn(self, flow: Flow) -> None:
        """Send as many calls ahead as were quick until now."""
        seconds = flow.seconds_a_call()
        if seconds is not None:
            self._window = max(1, min(int(_AHEAD / seconds), 2 * self._window, self._most))

    # What goes wrong.

    def _lose(self, flow: Flow, error: Exception) -> None:
        """The worker has ended or broke the protocol: learn how, which may take a moment, then see to the calls that were in it."""
        flow.stop()
        violation = error if isinstance(error, FrameError) and not isinstance(error, Truncated) else None

        def learn() -> None:
            ending = self._ending(flow.channel, violation)
            with suppress(RuntimeError):  # the loop has ended, and with it whoever waited
                self.loop.call_soon_threadsafe(self._sort, flow, ending, violation)

        try:
            # Not on the loop's executor, which an application may have filled.
            threading.Thread(target=learn, name="hostkit-ending", daemon=True).start()
        except RuntimeError:  # no thread to be had: the interpreter ends, and the host is closed
            self._sort(flow, self._ending(flow.channel, violation), violation)

    def _ending(self, channel: Channel, violation: FrameError | None) -> Ending:
        try:
            return channel.link.death() if violation is None else channel.link.violation(violation)
        finally:
            self._supervisor.drop(channel)

    def _sort(self, flow: Flow, ending: Ending, violation: FrameError | None) -> None:
        self._flows.remove(flow)
        for call in reversed(flow.calls):
            # Only the first can have begun: the worker answers before it begins the next.
            first = call is flow.calls[0]
            reached = first and (violation is not None or flow.channel.link.began(flow.channel, call.asked.call_id))
            call.tries += 1
            if reached or call.tries == _TRIES:
                call.fail(self._owner.lost(call.context, ending))
            elif not call.gone:
                self._queue.appendleft(call)
        self._send()

    def _give_up(self, call: WaitingCall) -> None:
        """Nobody waits for a call any more: one that was not sent is dropped, one that was is cancelled."""
        call.gone = True
        for flow in self._flows:
            if call in flow.calls:
                self._call_off(flow, call)
                return

    def _call_off(self, flow: Flow, call: WaitingCall) -> None:
        if flow.stopped:
            return  # it is being seen to
        if all(other.gone for other in flow.calls):
            self._abandon(flow)  # whoever waits for nothing may end the loop, too
            return
        flow.channel.link.cancel(call.asked.call_id)
        if flow.calls[0] is call:
            self._begin_grace(flow)

    def _abandon(self, flow: Flow) -> None:
        """Leave a channel, whose calls nobody waits for, to the supervisor."""
        self._leave(flow)
        owed = (other.asked.call_id for other in flow.calls)
        self._supervisor.abandon(flow.channel, *owed, half_sent=bool(flow.left))

    def reclaim(self) -> None:
        """Leave everything to the supervisor where the loop doesn't run, and so won't do it itself. From any thread."""
        if not self.loop.is_running():
            self._queue.clear()
            for flow in [flow for flow in self._flows if not flow.stopped]:
                self._abandon(flow)

    def _begin_grace(self, flow: Flow) -> None:
        self.loop.call_later(self._grace, self._too_late, flow, flow.calls[0])

    def _too_late(self, flow: Flow, call: WaitingCall) -> None:
        if not flow.stopped and flow.calls and flow.calls[0] is call:
            # Its worker has no other channel, so only those calls wait there that are sent again.
            text = f"its worker was replaced: a call went on for {self._grace:g} s after it was given up"
            flow.channel.link.end(Reason(CallTimeout, text))

    # One timer for the deadlines of all calls, for the earliest of them.

    def _wake_at(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self.loop.call_later(max(0.0, at - monotonic()), self._on_time)

    def _on_time(self) -> None:
        self._timer, self._timer_at = None, math.inf
        now = monotonic()
        for call in [call for call in self._queue if _ends_at(call) <= now]:
            call.fail(self._owner.late(call.context, sent=False))
        for flow in list(self._flows):
            for call in [call for call in flow.calls if not call.gone and _ends_at(call) <= now]:
                call.fail(self._owner.late(call.context, sent=True))
                self._call_off(flow, call)
        calls = (*self._queue, *(call for flow in self._flows for call in flow.calls))
        earliest = min((_ends_at(call) for call in calls if not call.gone), default=math.inf)
        if earliest < self._timer_at:
            self._wake_at(earliest)


def _ends_at(call: WaitingCall) -> float:
    return math.inf if call.context._ends_at is None else call.context._ends_at
