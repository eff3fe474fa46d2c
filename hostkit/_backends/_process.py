"""Run a plugin in worker processes.

call ─► JSON ─► idle channel ═══ socketpair ═══ worker ─► plugin.execute
answer ◄─ JSON ◄─ the same channel, read by the caller itself
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, Any

from .._channel import Channel, Ended, Late, Unread
from .._contract import ExecutionContext, HealthStatus, Status
from .._deadline import Deadline
from .._errors import (
    Busy,
    CallError,
    CallTimeout,
    HostkitError,
    InvalidResponse,
    MemoryExceeded,
    PluginFailed,
    WorkerLost,
)
from .._idle import NothingIdle
from .._log import tell
from .._opening import Opening
from .._questions import spoken
from .._raised import call_error, invalid_request, invalid_response, show_remote
from .._shape import Shape
from .._supervisor import Supervisor
from .._worker._data import DataError
from .._worker._frames import CALL, END, ERROR, HEALTH, HOOK, INFO, ITEM, RESULT, ROUND_TRIP, Frame, FrameError, Truncated, parts
from ._base import OfferedHook
from ._historic import Historic, TurnPassed

if TYPE_CHECKING:
    from .._hookspecs import Crossing

# Above the host's own numbers, so that no two calls of a worker share one.
_ids = itertools.count(1 << 62)
# A worker that died before it read a call costs the call nothing: another one gets it. Not for ever, because the request may be what
# kills them. Each says whether it is the last try.
_TRIES = (False, False, True)


class Process:
    """One plugin in its workers."""

    def __init__(self, opening: Opening) -> None:
        self._name = opening.name
        self._cap = opening.settings.max_message
        self._timeout = opening.settings.timeout
        self._limited = "memory_bytes" in (opening.settings.limits or {})
        self._historic: Historic[_Asked] = Historic()
        self.supervisor = Supervisor(opening)
        introduction = self.supervisor.start()
        self.kind = introduction.kind
        self.hooks = {name: OfferedHook(**dict(hook)) for name, hook in introduction.hooks.items()}

    def call(self, context: ExecutionContext, request: object, shape: Shape) -> Any:
        return self._answer(context, self._exchange(context, self._asked(context, request, shape)), shape)

    def _exchange(self, context: ExecutionContext, asked: _Asked) -> Frame:
        channel, frame = self._begin(context, asked, _deadline(context))
        self._finish(channel, context, frame)
        return frame

    def _begin(self, context: ExecutionContext, asked: _Asked, deadline: Deadline) -> tuple[Channel, Frame]:
        """Send a call to a worker; return the channel, and the first frame of the answer."""
        for last in _TRIES:
            channel = self._take(context, deadline)
            channel.call_id = asked.call_id
            sent = False
            try:
                channel.send(asked.frame(context), deadline)
                sent = True
                return channel, channel.receive(asked.call_id, deadline)
            except BaseException as error:  # a Ctrl-C must not leave a channel with half a call in it
                broken = self._broken(channel, context, asked, error, sent=sent)
                if last or not isinstance(error, Unread):
                    raise broken from None
        raise AssertionError

    async def acall(self, context: ExecutionContext, request: object, shape: Shape) -> Any:
        asked = self._asked(context, request, shape)
        channel, frame = await self._abegin(context, asked, _deadline(context))
        self._finish(channel, context, frame)
        return self._answer(context, frame, shape)

    async def _abegin(self, context: ExecutionContext, asked: _Asked, deadline: Deadline) -> tuple[Channel, Frame]:
        for last in _TRIES:
            channel = await self._atake(context, deadline)
            channel.call_id = asked.call_id
            sent = False
            try:
                await channel.asend(asked.frame(context), deadline)
                sent = True
                return channel, await channel.areceive(asked.call_id, deadline)
            except BaseException as error:  # a cancelled task must not leave a channel with half a call in it
                broken = await self._abroken(channel, context, asked, error, sent=sent)
                if last or not isinstance(error, Unread):
                    raise broken from None
        raise AssertionError

    def stream(self, context: ExecutionContext, request: object, shape: Shape) -> Iterator[Any]:
        asked = self._asked(context, request, shape)
        deadline = _deadline(context)
        channel, frame = self._begin(context, asked, deadline)
        try:
            while frame.kind == ITEM:
                yield self._answer(context, frame, shape)
                frame = channel.receive(asked.call_id, deadline)
        except BaseException as error:  # GeneratorExit too: the caller had enough
            raise self._broken(channel, context, asked, error) from None
        self._finish(channel, context, frame, streaming=True)
        if frame.kind != END:
            yield self._answer(context, frame, shape)

    async def astream(self, context: ExecutionContext, request: object, shape: Shape) -> AsyncIterator[Any]:
        asked = self._asked(context, request, shape)
        deadline = _deadline(context)
        channel, frame = await self._abegin(context, asked, deadline)
        try:
            while frame.kind == ITEM:
                yield self._answer(context, frame, shape)
                frame = await channel.areceive(asked.call_id, deadline)
        except BaseException as error:  # GeneratorExit too: the caller had enough
            raise await self._abroken(channel, context, asked, error) from None
        self._finish(channel, context, frame, streaming=True)
        if frame.kind != END:
            yield self._answer(context, frame, shape)

    def call_hook(self, context: ExecutionContext, name: str, arguments: Mapping[str, object], crossing: Crossing) -> Any:
        try:
            payload = self._checked(crossing.encode(arguments))
        except DataError as error:
            raise invalid_request(error.rows, plugin=self._name, request_id=context.request_id) from None
        said = {**self._beside(context), "hook": name, "arguments": list(arguments)}
        asked = _Asked(next(_ids), payload, json.dumps(said).encode(), HOOK)
        frame = self._exchange_historic(context, asked) if crossing.historic else self._exchange(context, asked)
        return self._answer(context, frame, crossing.shape)

    def _exchange_historic(self, context: ExecutionContext, asked: _Asked) -> Frame:
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
        except Unread:
            raise channel.link.death().error(plugin=self._name, request_id=context.request_id) from None
        self._finish(channel, context, frame)
        return frame

    def _up_to_date(self, channel: Channel, context: ExecutionContext, deadline: Deadline) -> bool:
        """Tell a worker the historic hook calls that it has missed; False for one that had died. Settles a channel that breaks."""
        try:
            self._historic.catch_up(channel.link, deadline, lambda missed: self._tell_again(channel, context, missed, deadline))
        except TurnPassed:
            self.supervisor.give(channel)
            raise self._busy(context) from None
        except Unread:
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

    def _tell_again(self, channel: Channel, context: ExecutionContext, missed: _Asked, deadline: Deadline) -> None:
        frame = self._on(channel, context, missed.again(), deadline)
        if frame.kind == ERROR:
            error = self._failed(context, _spoken(frame.meta))
            tell("ERROR", f"a historic hook, told to a new worker: {error}", plugin=self._name, request_id=context.request_id)

    def _on(self, channel: Channel, context: ExecutionContext, asked: _Asked, deadline: Deadline) -> Frame:
        """Exchange a call for its answer on a channel that stays the caller's."""
        channel.call_id = asked.call_id
        sent = False
        try:
            channel.send(asked.frame(context), deadline)
            sent = True
            return channel.receive(asked.call_id, deadline)
        except BaseException as error:  # a Ctrl-C must not leave a channel with half a call in it
            broken = self._broken(channel, context, asked, error, sent=sent)
            if isinstance(error, Unread):
                raise
            raise broken from None

    def health(self, deadline: Deadline) -> HealthStatus:
        if self.supervisor.failed:
            return HealthStatus(Status.OFFLINE, self.supervisor.failed)
        try:
            said = json.loads(self._ask("health", HEALTH, deadline))
            return HealthStatus(**{**said, "status": Status(said["status"])})
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise InvalidResponse(f"plugin {self._name!r}: health: {error}", plugin=self._name, phase="health") from None

    def info(self, deadline: Deadline) -> Mapping[str, Any]:
        return _spoken(self._ask("info", INFO, deadline))

    def close(self, deadline: Deadline) -> None:
        complaints = self.supervisor.close(deadline)
        if complaints:
            raise PluginFailed(f"plugin {self._name!r}: {'; '.join(complaints)}", plugin=self._name, phase="close")

    def _asked(self, context: ExecutionContext, request: object, shape: Shape) -> _Asked:
        try:
            payload = self._checked(shape.encode(request))
        except DataError as error:
            raise invalid_request(error.rows, plugin=self._name, request_id=context.request_id) from None
        own = context._request_id
        call_id = own if isinstance(own, int) and context._attempt == 1 else next(_ids)
        said = self._beside(context)
        return _Asked(call_id, payload, json.dumps(said).encode() if said else b"", ROUND_TRIP if shape.typed else 0)

    def _beside(self, context: ExecutionContext) -> dict[str, Any]:
        """Return what a call carries beside its request; nothing, for most."""
        said: dict[str, Any] = {}
        if isinstance(context._request_id, str):
            said["request_id"] = context._request_id
        if context._timeout is not None and context._timeout != self._timeout:
            said["timeout"] = context._timeout
        if context._headers:
            said["headers"] = dict(context._headers)
        if context._metadata:
            said["metadata"] = dict(context._metadata)
        if context._max_retries:
            said["max_retries"] = context._max_retries
        if context._attempt > 1:
            said["attempt"] = context._attempt
        return said

    def _checked(self, payload: bytes) -> bytes:
        if len(payload) > self._cap:
            raise DataError("", f"at most {self._cap} bytes of JSON", f"{len(payload)} bytes")
        return payload

    def _take(self, context: ExecutionContext, deadline: Deadline) -> Channel:
        try:
            while True:
                channel = self.supervisor.idle.take(deadline)
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
        if self.supervisor.any_link() is None:
            why = "it has no worker just now, another one is being started"
        else:
            why = "it has more callers than workers and concurrency"
        return Busy(
            f"plugin {self._name!r}: no worker became free within the {context.timeout:g} s of this call; {why}",
            plugin=self._name,
            request_id=context.request_id,
            phase="queue",
        )

    def _finish(self, channel: Channel, context: ExecutionContext, frame: Frame, *, streaming: bool = False) -> None:
        """Give a channel back whose call has its last frame."""
        if frame.kind == ERROR and self._limited and b'"memory": true' in frame.meta:
            # It answered with its last ballast: what else failed in there nobody knows.
            self.supervisor.recycle(channel, "it reached its memory limit")
        elif frame.kind in (RESULT, ERROR) or (frame.kind == END and streaming):
            self.supervisor.give(channel)
        else:
            asked = _Asked(frame.call_id, b"", b"", 0)
            raise self._broken(channel, context, asked, FrameError(f"a frame of kind {frame.kind} as an answer"))

    def _broken(
        self, channel: Channel, context: ExecutionContext, asked: _Asked, error: BaseException, *, sent: bool = True
    ) -> BaseException:
        """Settle a channel whose call broke off, and return the error to raise."""
        where: dict[str, str] = {"plugin": self._name, "request_id": context.request_id}
        if isinstance(error, FrameError) and not isinstance(error, Truncated):
            ending = channel.link.violation(error)
        elif isinstance(error, (Ended, Truncated)):
            ending = channel.link.death()
        else:
            self.supervisor.abandon(channel, asked.call_id, half_sent=not sent)
            return self._late(context) if isinstance(error, Late) else error
        self.supervisor.drop(channel)
        lost: CallError = ending.error(**where)
        return lost

    def _late(self, context: ExecutionContext) -> CallTimeout:
        text = f"plugin {self._name!r} did not answer within {context.timeout:g} s"
        return CallTimeout(text, plugin=self._name, request_id=context.request_id)

    async def _abroken(
        self, channel: Channel, context: ExecutionContext, asked: _Asked, error: BaseException, *, sent: bool = True
    ) -> BaseException:
        if isinstance(error, (Ended, FrameError)):
            # It may wait for the death to be seen.
            return await asyncio.to_thread(self._broken, channel, context, asked, error)
        return self._broken(channel, context, asked, error, sent=sent)

    def _ask(self, what: str, kind: int, deadline: Deadline) -> bytes:
        link = self.supervisor.any_link()
        where: dict[str, Any] = {"plugin": self._name, "phase": what}
        if link is None:
            raise WorkerLost(f"plugin {self._name!r} has no worker just now; one is being started", **where)
        try:
            frame = link.ask(kind).result(deadline.wait())
        except FutureTimeout:
            raise CallTimeout(f"plugin {self._name!r}: no answer to {what} in time", **where) from None
        except CancelledError:
            raise link.death().error(**where) from None
        if frame.kind == ERROR:
            raise call_error(_spoken(frame.meta), plugin=self._name, request_id="")
        return frame.payload

    def _answer(self, context: ExecutionContext, frame: Frame, shape: Shape) -> Any:
        """Return an answer's frame as the caller's type, or raise its error."""
        if frame.kind == ERROR:
            raise self._failed(context, _spoken(frame.meta))
        try:
            return shape.decode(frame.payload)
        except DataError as error:
            raise invalid_response(error.rows, plugin=self._name, request_id=context.request_id) from None

    def _failed(self, context: ExecutionContext, said: Mapping[str, Any]) -> HostkitError:
        if said.get("cancelled") is True and context.cancelled:
            return self._late(context)
        if said.get("memory") is True and self._limited:
            return MemoryExceeded(
                f"plugin {self._name!r} reached its memory limit (max_memory_mb): {said.get('message') or 'MemoryError'}",
                plugin=self._name,
                request_id=context.request_id,
                evidence="MemoryError",
            )
        error = call_error(said, plugin=self._name, request_id=context.request_id)
        show_remote(error)
        return error


class _Asked:
    """A call as it crosses. It is put into a frame when there is a channel: what crosses is the time that is left by then."""

    __slots__ = ("_flags", "_meta", "_payload", "call_id")

    def __init__(self, call_id: int, payload: bytes, meta: bytes, flags: int) -> None:
        self.call_id = call_id
        self._payload = payload
        self._meta = meta
        self._flags = flags

    def again(self) -> _Asked:
        """Return the same call for another worker."""
        return _Asked(next(_ids), self._payload, self._meta, self._flags)

    def frame(self, context: ExecutionContext) -> list[bytes]:
        left = context.remaining()
        # 0 in a frame means no limit, so a call that is late already has a microsecond.
        timeout = 0.0 if left is None else max(left, 1e-6)
        return parts(CALL, self.call_id, self._payload, meta=self._meta, flags=self._flags, timeout=timeout)


def _spoken(meta: bytes) -> Mapping[str, Any]:
    """Return what a worker says of an error; nothing where it says nonsense."""
    try:
        return spoken(meta)
    except FrameError:
        return {}


def _deadline(context: ExecutionContext) -> Deadline:
    return Deadline(math.inf if context._ends_at is None else context._ends_at)
