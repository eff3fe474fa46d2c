"""Run a plugin in worker processes.

call ─► JSON ─► idle channel ═══ pipes ═══ worker ─► plugin.execute
answer ◄─ JSON ◄─ the same channel, read by the caller itself
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from .._channel import Channel, Ended, Late
from .._contract import ExecutionContext, HealthStatus, Status
from .._deadline import Deadline
from .._ending import Ending
from .._errors import Busy, CallError, CallTimeout, InvalidResponse, PluginFailed, WorkerHung, WorkerLost
from .._idle import NothingIdle
from .._log import tell
from .._opening import Opening
from .._raised import call_error, invalid_request
from .._shape import Shape
from .._supervisor import Supervisor
from .._vitals import Vitals
from .._worker._buffers import check_size
from .._worker._data import DataError
from .._worker._frames import END, ERROR, HEALTH, HOOK, INFO, ITEM, RESULT, ROUND_TRIP, Frame, FrameError, Truncated
from ._account import health_said, info_said
from ._asked import Asked, hook_call, request_call
from ._base import OfferedHook
from ._historic import Historic, TurnPassed
from ._outcome import Outcome, note_times, said_of
from ._pipeline import Pipeline, Pipelines

if TYPE_CHECKING:
    from .._hookspecs import Crossing
    from .._link import Link

_T = TypeVar("_T")

# A worker that died before it began a call costs the call nothing: another one gets it. Not for ever, because the request may be what
# kills them. Each says whether it is the last try.
_TRIES = (False, False, True)


class Process:
    """One plugin in its workers."""

    def __init__(self, opening: Opening) -> None:
        self._name = opening.name
        self._cap = opening.settings.max_message
        self._most = opening.settings.max_buffers
        self._timeout = opening.settings.timeout
        self._concurrency = opening.settings.concurrency or 1
        self._grace = opening.settings.cancel_grace
        self._pipelines = Pipelines()
        self._outcome = Outcome(opening.name, limited="memory_bytes" in (opening.settings.limits or {}), denied=opening.denied)
        self._historic: Historic[Asked] = Historic()
        self.supervisor = Supervisor(opening)
        introduction = self.supervisor.start()
        self.kind = introduction.kind
        self.settings_shown = frozenset(introduction.settings)
        self.hooks = {name: OfferedHook(**dict(hook)) for name, hook in introduction.hooks.items()}

    def call(self, context: ExecutionContext, request: object, shape: Shape) -> Any:
        return self._outcome.answer(context, self._exchange(context, self._asked(context, request, shape)), shape)

    def _exchange(self, context: ExecutionContext, asked: Asked) -> Frame:
        channel, frame = self._begin(context, asked, _deadline(context))
        self._finish(channel, context, frame)
        return frame

    def _begin(self, context: ExecutionContext, asked: Asked, deadline: Deadline) -> tuple[Channel, Frame]:
        """Send a call to a worker; return the channel, and the first frame of the answer."""
        for last in _TRIES:
            channel = self._take(context, deadline)
            try:
                return channel, self._on(channel, context, asked, deadline)
            except Unbegun as unbegun:
                if last:
                    raise unbegun.error from None
        raise AssertionError

    def _on(self, channel: Channel, context: ExecutionContext, asked: Asked, deadline: Deadline) -> Frame:
        """Exchange a call for its answer on a channel that stays the caller's."""
        try:
            asked.start(channel)
            if asked.left:
                channel.send(asked, deadline)
            return channel.receive(asked.call_id, deadline)
        except BaseException as error:  # a Ctrl-C must not leave a channel with half a call in it
            raise self._broken(channel, context, asked, error) from None

    def cancel(self, context: ExecutionContext) -> None:
        self.supervisor.call_off(context._call_id)

    async def acall(self, context: ExecutionContext, request: object, shape: Shape) -> Any:
        pipeline = self._pipelines.here(self._new_pipeline)
        frame = await pipeline.call(context, self._asked(context, request, shape))
        return self._outcome.answer(context, frame, shape)

    def _new_pipeline(self) -> Pipeline:
        return Pipeline(_Owner(self), ahead=self._concurrency == 1, grace=self._grace)

    async def _abegin(self, context: ExecutionContext, asked: Asked, deadline: Deadline) -> tuple[Channel, Frame]:
        for last in _TRIES:
            channel = await self._atake(context, deadline)
            try:
                asked.start(channel)
                if asked.left:
                    await channel.asend(asked, deadline)
                return channel, await channel.areceive(asked.call_id, deadline)
            except BaseException as error:  # a cancelled task must not leave a channel with half a call in it
                broken = await self._abroken(channel, context, asked, error)
                if last or not isinstance(broken, Unbegun):
                    raise _told(broken) from None
        raise AssertionError

    def stream(self, context: ExecutionContext, request: object, shape: Shape) -> Iterator[Any]:
        asked = self._asked(context, request, shape)
        deadline = _deadline(context)
        channel, frame = self._begin(context, asked, deadline)
        try:
            while frame.kind == ITEM:
                if deadline.passed:
                    raise Late
                yield self._outcome.answer(context, frame, shape)
                frame = channel.receive(asked.call_id, deadline)
        except BaseException as error:  # GeneratorExit too: the caller had enough
            raise _told(self._broken(channel, context, asked, error)) from None
        self._finish(channel, context, frame, streaming=True)
        if frame.kind != END:
            yield self._outcome.answer(context, frame, shape)
        elif context._trace is not None:
            note_times(context, frame)

    async def astream(self, context: ExecutionContext, request: object, shape: Shape) -> AsyncGenerator[Any, None]:
        asked = self._asked(context, request, shape)
        deadline = _deadline(context)
        channel, frame = await self._abegin(context, asked, deadline)
        try:
            while frame.kind == ITEM:
                if deadline.passed:
                    raise Late
                yield self._outcome.answer(context, frame, shape)
                frame = await channel.areceive(asked.call_id, deadline)
        except BaseException as error:  # GeneratorExit too: the caller had enough
            raise _told(await self._abroken(channel, context, asked, error)) from None
        self._finish(channel, context, frame, streaming=True)
        if frame.kind != END:
            yield self._outcome.answer(context, frame, shape)
        elif context._trace is not None:
            note_times(context, frame)

    def call_hook(self, context: ExecutionContext, name: str, arguments: Mapping[str, object], crossing: Crossing) -> Any:
        try:
            payload, buffers = self._checked(*crossing.written(arguments))
        except DataError as error:
            raise invalid_request(error.rows, plugin=self._name, request_id=context.request_id) from None
        asked = hook_call(context, payload, HOOK, self._timeout, buffers, hook=name, arguments=list(arguments))
        frame = self._exchange_historic(context, asked) if crossing.historic else self._exchange(context, asked)
        return self._outcome.answer(context, frame, crossing.shape)

    def _exchange_historic(self, context: ExecutionContext, asked: Asked) -> Frame:
        deadline = _deadline(context)
        try:
            channel = self._take(context, deadline)
        except CallError:
            self._historic.remember(asked)
            raise
        try:
            frame = self._historic.add(
                channel.link,
                deadline,
                asked,
                again=lambda missed: self._tell_again(channel, context, missed, deadline),
                answer=lambda call: self._on(channel, context, call, deadline),
            )
        except TurnPassed:
            self.supervisor.give(channel)
            raise self._busy(context) from None
        except Unbegun as unbegun:
            raise unbegun.error from None
        self._finish(channel, context, frame)
        return frame

    def _up_to_date(self, channel: Channel, context: ExecutionContext, deadline: Deadline) -> bool:
        """Tell a worker the historic hook calls that it has missed; False for one that had died. Settles a channel that breaks."""
        try:
            self._historic.catch_up(channel.link, deadline, lambda missed: self._tell_again(channel, context, missed, deadline))
        except TurnPassed:
            self.supervisor.give(channel)
            raise self._busy(context) from None
        except Unbegun:
            return False
        return True

    async def _aup_to_date(self, channel: Channel, context: ExecutionContext, deadline: Deadline) -> bool:
        told = asyncio.get_running_loop().run_in_executor(None, self._up_to_date, channel, context, deadline)

        def give_back(done: asyncio.Future[bool]) -> None:
            if done.exception() is None and done.result():
                self.supervisor.give(channel)

        try:
            return await asyncio.shield(told)
        except asyncio.CancelledError:  # the thread goes on with the channel
            told.add_done_callback(give_back)
            raise

    def _tell_again(self, channel: Channel, context: ExecutionContext, missed: Asked, deadline: Deadline) -> None:
        frame = self._on(channel, context, missed.again(context), deadline)
        if frame.kind == ERROR:
            error = self._outcome.failed(context, said_of(frame.meta))
            tell("ERROR", f"a historic hook, told to a new worker: {error}", plugin=self._name, request_id=context.request_id)

    def ask_health(self, deadline: Deadline) -> Future[HealthStatus]:
        if not self.supervisor.failed:
            return self._ask("health", HEALTH, health_said, deadline)
        given_up: Future[HealthStatus] = Future()
        given_up.set_result(HealthStatus(Status.OFFLINE, self.supervisor.failed, metadata={"hostkit": {"restarts": "used up"}}))
        return given_up

    def info(self, deadline: Deadline) -> Mapping[str, Any]:
        answer = self._ask("info", INFO, info_said, deadline)
        if not wait((answer,), deadline.wait()).done:
            raise CallTimeout(f"plugin {self._name!r}: no answer to info in time", plugin=self._name, phase="info")
        return answer.result()

    def vitals(self) -> Vitals:
        return self.supervisor.vitals()

    def close(self, deadline: Deadline) -> None:
        self._pipelines.reclaim()
        complaints = self.supervisor.close(deadline)
        if complaints:
            raise PluginFailed(f"plugin {self._name!r}: {'; '.join(complaints)}", plugin=self._name, phase="close")

    def _asked(self, context: ExecutionContext, request: object, shape: Shape) -> Asked:
        try:
            payload, buffers = shape.written(request)
            if buffers or len(payload) > self._cap:
                self._checked(payload, buffers)
        except DataError as error:
            raise invalid_request(error.rows, plugin=self._name, request_id=context.request_id) from None
        beside = buffers if buffers or shape.carries else None
        return request_call(context, payload, ROUND_TRIP if shape.typed else 0, self._timeout, beside)

    def _checked(self, payload: bytes, buffers: Sequence[Any]) -> tuple[bytes, Sequence[Any]]:
        if len(payload) > self._cap:
            raise DataError("", f"at most {self._cap} bytes of JSON", f"{len(payload)} bytes")
        if buffers:
            check_size(buffers, self._most)
        return payload, buffers

    def _take(self, context: ExecutionContext, deadline: Deadline) -> Channel:
        try:
            while True:
                channel = self.supervisor.idle.take(deadline)
                if context._cancelled:
                    self.supervisor.give(channel)
                    raise self._outcome.cancelled(context, phase="queue")
                if not self._historic.missed_by(channel.link) or self._up_to_date(channel, context, deadline):
                    return channel
        except NothingIdle:
            raise self._busy(context) from None
        except CallError as error:
            error.request_id = context.request_id
            raise

    async def _atake(self, context: ExecutionContext, deadline: Deadline) -> Channel:
        try:
            while True:
                channel = await self.supervisor.idle.atake(deadline)
                if not self._historic.missed_by(channel.link) or await self._aup_to_date(channel, context, deadline):
                    return channel
        except NothingIdle:
            raise self._busy(context) from None
        except CallError as error:
            error.request_id = context.request_id
            raise

    def _busy(self, context: ExecutionContext) -> Busy:
        return self._outcome.busy(context, worker=self.supervisor.any_link() is not None)

    def _finish(self, channel: Channel, context: ExecutionContext, frame: Frame, *, streaming: bool = False) -> None:
        """Give a channel back whose call has its last frame."""
        if frame.kind == RESULT:
            self.supervisor.give(channel)
        elif self._outcome.out_of_memory(frame):
            # What else failed in there nobody knows.
            self.supervisor.recycle(channel, "it reached its memory limit")
        elif frame.kind == ERROR or (frame.kind == END and streaming):
            self.supervisor.give(channel)
        else:
            raise self._violated(channel, context, FrameError(f"a frame of kind {frame.kind} as an answer"))

    def _broken(self, channel: Channel, context: ExecutionContext, asked: Asked, error: BaseException) -> BaseException:
        """Settle a channel whose call broke off, and return the error to raise."""
        if isinstance(error, FrameError) and not isinstance(error, Truncated):
            return self._violated(channel, context, error)
        if isinstance(error, (Ended, Truncated)):
            ending = channel.link.death()
            self.supervisor.drop(channel)
            lost: CallError = ending.error(plugin=self._name, request_id=context.request_id)
            return lost if channel.link.began(channel, asked.call_id) else Unbegun(lost)
        if channel.call_id == asked.call_id:
            self.supervisor.abandon(channel, asked.call_id, half_sent=bool(asked.left))
        else:  # there was no memory for its frame, say
            self.supervisor.give(channel)
        return self._outcome.late(context) if isinstance(error, Late) else error

    def _violated(self, channel: Channel, context: ExecutionContext, error: FrameError) -> CallError:
        """End a worker that sent something else than an answer, and return the error to raise."""
        ending = channel.link.violation(error)
        self.supervisor.drop(channel)
        lost: CallError = ending.error(plugin=self._name, request_id=context.request_id)
        return lost

    async def _abroken(self, channel: Channel, context: ExecutionContext, asked: Asked, error: BaseException) -> BaseException:
        if isinstance(error, (Ended, FrameError)):
            with suppress(RuntimeError):  # no thread to be had: the interpreter ends, and the host is closed
                # It may wait for the death to be seen; and it is done to its end where the task is cancelled meanwhile.
                loop = asyncio.get_running_loop()
                return await asyncio.shield(loop.run_in_executor(None, self._broken, channel, context, asked, error))
        return self._broken(channel, context, asked, error)

    def _ask(self, what: str, kind: int, read: Callable[[bytes], _T], deadline: Deadline) -> Future[_T]:
        """Ask a worker beside its calls, and wait for nothing. The future has a ``CallError`` where there is no answer to be had."""
        account: Future[_T] = Future()
        link = self.supervisor.any_link()
        if link is None:
            text = f"plugin {self._name!r} has no worker just now; one is being started"
            account.set_exception(WorkerLost(text, plugin=self._name, phase=what))
            return account

        def answered(answer: Future[Frame]) -> None:
            try:
                account.set_result(self._account(what, answer, read, link))
            except CallError as error:
                account.set_exception(error)

        link.ask(kind, deadline).add_done_callback(answered)
        return account

    def _account(self, what: str, answer: Future[Frame], read: Callable[[bytes], _T], link: Link) -> _T:
        where: dict[str, Any] = {"plugin": self._name, "phase": what}
        if answer.cancelled():
            if link.ending is None:  # it is being killed for that
                raise WorkerHung(f"plugin {self._name!r}: its worker stopped reading its control socket", **where)
            raise link.ending.error(**where)
        frame = answer.result()
        if frame.kind == ERROR:
            said = said_of(frame.meta)
            self._outcome.heard(said)
            raise call_error(said, plugin=self._name, request_id="")
        try:
            return read(frame.payload)
        except DataError as error:
            text = f"plugin {self._name!r}: its worker's answer to {what} is none: {error}"
            raise InvalidResponse(text, errors=error.rows, plugin=self._name, phase=what) from None


class Unbegun(Exception):
    """The worker ended before it began the call, so that its plugin knows nothing of it; ``error`` says how."""

    def __init__(self, error: CallError) -> None:
        super().__init__()
        self.error = error


def _told(broken: BaseException) -> BaseException:
    return broken.error if isinstance(broken, Unbegun) else broken


class _Owner:
    """The backend as its pipelines see it."""

    def __init__(self, process: Process) -> None:
        self.supervisor = process.supervisor
        self._process = process

    def up_to_date(self, channel: Channel) -> bool:
        return not self._process._historic.missed_by(channel.link)

    async def channel(self, context: ExecutionContext) -> Channel:
        return await self._process._atake(context, _deadline(context))

    def late(self, context: ExecutionContext, *, sent: bool) -> Exception:
        return self._process._outcome.late(context) if sent else self._process._busy(context)

    def lost(self, context: ExecutionContext, ending: Ending) -> Exception:
        lost: CallError = ending.error(plugin=self._process._name, request_id=context.request_id)
        return lost

    def exhausted(self, frame: Frame) -> bool:
        return self._process._outcome.out_of_memory(frame)


def _deadline(context: ExecutionContext) -> Deadline:
    return Deadline(math.inf if context._ends_at is None else context._ends_at)
