"""A call as it crosses to a worker."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from random import getrandbits
from time import monotonic
from typing import TYPE_CHECKING, Any

from .._contract import ExecutionContext
from .._worker._frames import CALL, packed

if TYPE_CHECKING:
    from .._arena import Arena
    from .._channel import Channel

# Above the host's own numbers, so that no two calls of a worker share one.
_ids = itertools.count(1 << 62)


def _id(number: int) -> int:
    """Return the id by which a call crosses. What is added is no secret to keep: a worker that is asked may answer wrongly, too."""
    return number | getrandbits(22) << 40


class Asked:
    """A call as it crosses. It is put into a frame when there is a channel: what crosses is the time that is left by then."""

    __slots__ = ("_context", "_flags", "_meta", "_payload", "beside", "call_id", "left")

    def __init__(
        self,
        context: ExecutionContext,
        call_id: int,
        payload: bytes,
        meta: bytes,
        flags: int,
        beside: Sequence[Any] | None = None,
    ) -> None:
        self.call_id = call_id
        self.left: memoryview | bytes = b""  # what of the frame could not be sent at once
        self._context = context
        self._payload = payload
        self._meta = meta
        self._flags = flags
        self.beside = beside  # the buffers; None where neither they nor those of an answer are anything to think of

    def again(self, context: ExecutionContext) -> Asked:
        """Return the same call for another worker."""
        return Asked(context, _id(next(_ids)), self._payload, self._meta, self._flags, self.beside)

    def start(self, channel: Channel) -> None:
        """Send what goes without waiting."""
        frame = self.frame(channel)
        channel.call_id = self.call_id
        sent = channel.write(frame)
        self.left = memoryview(frame)[sent:] if sent < len(frame) else b""

    def frame(self, channel: Channel) -> bytes:
        """Return the frame that tells of the time that is left now."""
        meta, inline = (self._meta, b"") if self.beside is None else self._with_buffers(channel.link.arena, self.beside)
        ends_at = self._context._ends_at
        # 0 in a frame means no limit, so a call that is late already has a microsecond.
        timeout = 0.0 if ends_at is None else max(ends_at - monotonic(), 1e-6)
        return packed(CALL, self.call_id, self._payload, meta=meta, buffers=inline, flags=self._flags, timeout=timeout)

    def _with_buffers(self, arena: Arena, buffers: Sequence[Any]) -> tuple[bytes, bytes]:
        """Put the buffers where the worker finds them; return the meta that says where, and those that go with the frame."""
        said = json.loads(self._meta) if self._meta else {}
        inline = b""
        if buffers:
            said["buffers"], inline = arena.pack(buffers)
        freed = arena.freed()  # after what may fail: the worker is told of each only once
        if freed:
            said["freed"] = freed
        return json.dumps(said).encode() if said else b"", inline


def request_call(
    context: ExecutionContext, payload: bytes, flags: int, default_timeout: float, beside: Sequence[Any] | None
) -> Asked:
    """Return a request's call, with the number that the host gave it where it has one of its own."""
    own = context._request_id
    said = _beside(context, default_timeout)
    call_id = context._call_id = _id(own if isinstance(own, int) and context._attempt == 1 else next(_ids))
    return Asked(context, call_id, payload, json.dumps(said).encode() if said else b"", flags, beside)


def hook_call(
    context: ExecutionContext,
    payload: bytes,
    flags: int,
    default_timeout: float,
    beside: Sequence[Any],
    *,
    hook: str,
    arguments: list[str],
) -> Asked:
    """Return a hook's call."""
    said = {**_beside(context, default_timeout), "hook": hook, "arguments": arguments}
    return Asked(context, _id(next(_ids)), payload, json.dumps(said).encode(), flags, beside)


def _beside(context: ExecutionContext, default_timeout: float) -> dict[str, Any]:
    """Return what a call carries beside its request; nothing, for most."""
    said: dict[str, Any] = {}
    if isinstance(context._request_id, str):
        said["request_id"] = context._request_id
    if context._timeout is not None and context._timeout != default_timeout:
        said["timeout"] = context._timeout
    if context._headers:
        said["headers"] = dict(context._headers)
    if context._metadata:
        said["metadata"] = dict(context._metadata)
    if context._max_retries:
        said["max_retries"] = context._max_retries
    if context._attempt > 1:
        said["attempt"] = context._attempt
    if context._trace is not None:
        said.update(context._trace.headers)
        if context._trace.times is not None:
            said["timed"] = True
    return said
