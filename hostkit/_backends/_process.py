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

from .._channel import Channel, Ended, Late
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
from .._opening import Opening
from .._raised import call_error, invalid_request, invalid_response, show_remote
from .._shape import Shape
from .._supervisor import Supervisor
from .._worker._frames import CALL, END, ERROR, HEALTH, HOOK, INFO, ITEM, RESULT, ROUND_TRIP, Frame, FrameError, Truncated, parts
from .._worker._structure import DataError
from ._base import OfferedHook

if TYPE_CHECKING:
    from .._hooks import Crossing

# Above the host's own numbers, so that no two calls of a worker share one.
_ids = itertools.count(1 << 62)


class Process:
    """One plugin in its workers."""

    def __init__(self, opening: Opening) -> None:
        self._name = opening.name
        self._cap = opening.settings.max_message
        self._timeout = opening.settings.timeout
        self._limited = "memory_bytes" in (opening.settings.limits or {})
        self.supervisor = Supervisor(opening)
        introduction = self.supervisor.start()
        self.kind = introduction.kind
        self.hooks = {
            name: OfferedHook(name, tuple(hook.arguments), hook.options, hook.function)
            for name, hook in introduction.hooks.items()
        }

    def call(self, context: ExecutionContext, request: object, shape: Shape) -> Any:
        call_id, pieces = self._framed(context, request, shape)
        return shape_answer(self, context, self._exchange(context, call_id, pieces), shape)

    def _exchange(self, context: ExecutionContext, call_id: int, pieces: list[bytes]) -> Frame:
        deadline = _deadline(context)
        channel = self._take(context, deadline)
        try:
            channel.send(pieces, deadline)
            frame = channel.receive(call_id, deadline)
        except BaseException as error:  # a Ctrl-C must not leave a channel with half a call in it
            raise self._broken(channel, context, call_id, error) from None
        self._finish(channel, frame)
        return frame

    async def acall(self, context: ExecutionContext, request: object, shape: Shape) -> Any:
        call_id, pieces = self._framed(context, request, shape)
        deadline = _deadline(context)
        channel = await self._atake(context, deadline)
        try:
            await channel.asend(pieces, deadline)
            frame = await channel.areceive(call_id, deadline)
        except BaseException as error:  # a cancelled task must not leave a channel with half a call in it
            raise await self._abroken(channel, context, call_id, error) from None
        self._finish(channel, frame)
        return shape_answer(self, context, frame, shape)

    def stream(self, context: ExecutionContext, request: object, shape: Shape) -> Iterator[Any]:
        call_id, pieces = self._framed(context, request, shape)
        deadline = _deadline(context)
        channel = self._take(context, deadline)
        try:
            channel.send(pieces, deadline)
            while (frame := channel.receive(call_id, deadline)).kind == ITEM:
                yield shape_answer(self, context, frame, shape)
        except BaseException as error:  # GeneratorExit too: the caller had enough
            raise self._broken(channel, context, call_id, error) from None
        self._finish(channel, frame)
        if frame.kind != END:
            yield shape_answer(self, context, frame, shape)

    async def astream(self, context: ExecutionContext, request: object, shape: Shape) -> AsyncIterator[Any]:
        call_id, pieces = self._framed(context, request, shape)
        deadline = _deadline(context)
        channel = await self._atake(context, deadline)
        try:
            await channel.asend(pieces, deadline)
            while (frame := await channel.areceive(call_id, deadline)).kind == ITEM:
                yield shape_answer(self, context, frame, shape)
        except BaseException as error:  # GeneratorExit too: the caller had enough
            raise await self._abroken(channel, context, call_id, error) from None
        self._finish(channel, frame)
        if frame.kind != END:
            yield shape_answer(self, context, frame, shape)

    def call_hook(self, context: ExecutionContext, name: str, arguments: Mapping[str, object], crossing: Crossing) -> Any:
        wanted = {argument: arguments[argument] for argument in self.hooks[name].arguments}
        try:
            payload = self._checked(crossing.encode(wanted))
        except DataError as error:
            raise invalid_request(error.rows, plugin=self._name, request_id=context.request_id) from None
        call_id = next(_ids)
        meta = json.dumps({**self._asked(context), "hook": name}).encode()
        pieces = parts(CALL, call_id, payload, meta=meta, flags=HOOK, timeout=context.remaining() or 0.0)
        return shape_answer(self, context, self._exchange(context, call_id, pieces), crossing.shape)

    def health(self, deadline: Deadline) -> HealthStatus:
        if self.supervisor.failed:
            return HealthStatus(Status.OFFLINE, self.supervisor.failed)
        try:
            said = json.loads(self._ask("health", HEALTH, deadline))
            return HealthStatus(**{**said, "status": Status(said["status"])})
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidResponse(f"plugin {self._name!r}: health: {error}", plugin=self._name, phase="health") from None

    def info(self, deadline: Deadline) -> Mapping[str, Any]:
        said = json.loads(self._ask("info", INFO, deadline))
        return said if isinstance(said, dict) else {}

    def close(self, deadline: Deadline) -> None:
        complaints = self.supervisor.close(deadline)
        if complaints:
            raise PluginFailed(f"plugin {self._name!r}: {'; '.join(complaints)}", plugin=self._name, phase="close")

    def forget(self) -> None:
        """Let go of everything in a fork of the host."""
        self.supervisor.forget()

    def _framed(self, context: ExecutionContext, request: object, shape: Shape) -> tuple[int, list[bytes]]:
        try:
            payload = self._checked(shape.encode(request))
        except DataError as error:
            raise invalid_request(error.rows, plugin=self._name, request_id=context.request_id) from None
        own = context._request_id
        call_id = own if isinstance(own, int) and context._attempt == 1 else next(_ids)
        said = self._asked(context)
        return call_id, parts(
            CALL,
            call_id,
            payload,
            meta=json.dumps(said).encode() if said else b"",
            flags=ROUND_TRIP if shape.typed else 0,
            timeout=context.remaining() or 0.0,
        )

    def _asked(self, context: ExecutionContext) -> dict[str, Any]:
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
            return self.supervisor.idle.take(deadline)
        except NothingIdle:
            raise self._busy(context) from None
        except CallError as error:
            error.request_id = context.request_id
            raise

    async def _atake(self, context: ExecutionContext, deadline: Deadline) -> Channel:
        try:
            return await self.supervisor.idle.atake(deadline)
        except NothingIdle:
            raise self._busy(context) from None
        except CallError as error:
            error.request_id = context.request_id
            raise

    def _busy(self, context: ExecutionContext) -> Busy:
        return Busy(
            f"plugin {self._name!r}: no worker became free within the {context.timeout:g} s of this call; it has more "
            "callers than workers and concurrency",
            plugin=self._name,
            request_id=context.request_id,
            phase="queue",
        )

    def _finish(self, channel: Channel, frame: Frame) -> None:
        if frame.kind in (RESULT, ERROR, END):
            self.supervisor.give(channel)
            return
        ending = channel.link.violation(FrameError(f"a frame of kind {frame.kind} as an answer"))
        channel.close()
        raise ending.error(plugin=self._name)

    def _broken(self, channel: Channel, context: ExecutionContext, call_id: int, error: BaseException) -> BaseException:
        """Settle a channel whose call broke off, and return the error to raise."""
        where: dict[str, str] = {"plugin": self._name, "request_id": context.request_id}
        if isinstance(error, FrameError) and not isinstance(error, Truncated):
            ending = channel.link.violation(error)
        elif isinstance(error, (Ended, Truncated)):
            ending = channel.link.death()
        else:
            half_sent = isinstance(error, Late) and error.half_sent
            self.supervisor.abandon(channel, call_id, half_sent=half_sent)
            if isinstance(error, Late):
                return CallTimeout(f"plugin {self._name!r} did not answer within {context.timeout:g} s", **where)
            return error
        channel.close()
        lost: CallError = ending.error(**where)
        return lost

    async def _abroken(
        self, channel: Channel, context: ExecutionContext, call_id: int, error: BaseException
    ) -> BaseException:
        if isinstance(error, (Ended, FrameError)):
            # It may wait for the death to be seen.
            return await asyncio.to_thread(self._broken, channel, context, call_id, error)
        return self._broken(channel, context, call_id, error)

    def _ask(self, what: str, kind: int, deadline: Deadline) -> bytes:
        link = self.supervisor.any_link()
        where = {"plugin": self._name, "phase": what}
        if link is None:
            raise WorkerLost(f"plugin {self._name!r} has no worker just now; one is being started", **where)
        try:
            frame = link.ask(kind).result(deadline.wait())
        except FutureTimeout:
            raise CallTimeout(f"plugin {self._name!r}: no answer to {what} in time", **where) from None
        except CancelledError:
            raise link.death().error(**where) from None
        if frame.kind == ERROR:
            raise call_error(json.loads(frame.meta), plugin=self._name, request_id="")
        return frame.payload

    def failed(self, context: ExecutionContext, frame: Frame) -> HostkitError:
        """Return the error of an ERROR frame."""
        try:
            said = json.loads(frame.meta)
        except ValueError:
            said = {}
        if not isinstance(said, dict):
            said = {}
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


def shape_answer(backend: Process, context: ExecutionContext, frame: Frame, shape: Shape) -> Any:
    """Return an answer's frame as the caller's type, or raise its error."""
    if frame.kind == ERROR:
        raise backend.failed(context, frame)
    try:
        return shape.decode(frame.payload)
    except DataError as error:
        raise invalid_response(error.rows, plugin=backend._name, request_id=context.request_id) from None


def _deadline(context: ExecutionContext) -> Deadline:
    return Deadline(math.inf if context._ends_at is None else context._ends_at)


