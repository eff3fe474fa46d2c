"""Serve calls: a thread for each channel, or one event loop for all of them where ``execute`` is async.

channel ─► CALL ─► decode ─► execute ─► encode ─► RESULT (or ITEM … END, or ERROR) ─► channel
"""

from __future__ import annotations

import json
import mmap
import os
import threading
import time

from .._contract import ExecutionContext, Trace
from . import _failure, _limits
from ._arena import Arena
from ._buffers import check_size, read, written
from ._data import DataError
from ._frames import CALL, END, ERROR, HOOK, ITEM, NUMBER, RESULT, ROUND_TRIP, Assembler, FrameError, notes_size, packed, send_all
from ._loaded import GENERATOR
from ._output import current

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from .._contract import Caller
    from ._buffers import Writing
    from ._frames import Frame
    from ._loaded import LoadedPlugin
    from ._plugin_loop import PluginLoop
    from ._traced import Traced

# The host holds requests to the operator's limit before it sends them; a frame has its header and meta beside.
REQUEST_CAP = 1 << 31
_MOST_GIVEN_UP = 4096


class Server:
    """The plugin and the channels on which it is called: for each one the descriptors to read calls from and to write answers to."""

    loaded: LoadedPlugin

    def __init__(self, boot: dict[str, Any], caller: Caller, ballast: bytearray) -> None:
        self._channels: list[tuple[int, int]] = [(calls, answers) for calls, answers in boot["channels"]]
        self._caller = caller
        self._cap: int = boot["cap"]
        self.arena = Arena(boot["buffers"])
        self._default_timeout: float = boot["timeout"]
        seconds: float | None = boot["limits"].get("cpu_seconds")
        # The kernel counts the process: calls that run side by side have their seconds together.
        self._cpu_seconds = None if seconds is None else seconds * len(self._channels)
        self._ballast = ballast
        notes = mmap.mmap(boot["faults"], notes_size(len(self._channels)))
        self._begun = memoryview(notes).cast("Q")  # for each channel the call that it began last
        # Written by the thread that runs the call, read by the control thread; a dict's own operations are atomic.
        self._running: dict[int, tuple[ExecutionContext, Callable[[], object] | None]] = {}
        # Calls that were given up before they began, oldest first.
        self._given_up: dict[int, None] = {}
        self._traced: dict[int, Traced] = {}  # the calls that run, of which the host wants to know more
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()  # guards the making of _plugin_loop
        self._plugin_loop: PluginLoop | None = None

    def serve(self) -> None:
        """Answer calls until the host has closed every channel: that of an idle one, while others have calls, replaces this worker."""
        if self.loaded.is_async:
            from ._async_loop import serve

            serve(self, self._channels)
            return
        others = range(1, len(self._channels))
        threads = [threading.Thread(target=self._serve, args=(number,), name="hostkit-channel", daemon=True) for number in others]
        for thread in threads:
            thread.start()
        self._serve(0)
        for thread in threads:
            thread.join()
        if self._plugin_loop is not None:
            self._plugin_loop.stop()

    def settle(self, value: Any) -> Any:
        """Finish an awaitable of the plugin, all of them on one event loop."""
        if not hasattr(value, "__await__"):
            return value
        if self._event_loop is None:
            return self._beside().begin_awaited(value).result()
        import asyncio

        async def wait() -> Any:
            return await value

        return asyncio.run_coroutine_threadsafe(wait(), self._event_loop).result()

    def _beside(self) -> PluginLoop:
        from ._plugin_loop import PluginLoop  # asyncio: only a plugin that awaits pays for it

        with self._starting:
            if self._plugin_loop is None:
                self._plugin_loop = PluginLoop(self._caller.plugin)
            return self._plugin_loop

    def cancel(self, call_id: int) -> None:
        """Tell a call that nobody waits for it any more: one that runs, or one that has not begun and then never does."""
        if call_id not in self._running:
            # It may have ended, too: so there is a limit to what is kept.
            self._given_up[call_id] = None
            if len(self._given_up) > _MOST_GIVEN_UP:
                self._given_up.pop(next(iter(self._given_up)), None)
        context, stop = self._running.get(call_id, (None, None))
        if context is not None:
            context._cancelled = True
            if stop is not None:
                stop()

    def _serve(self, number: int) -> None:
        calls, answers = self._channels[number]
        assembler = Assembler(REQUEST_CAP)

        def read(size: int) -> bytes:
            return os.read(calls, size)

        def write(data: bytes | memoryview) -> int:
            return os.write(answers, data)

        streams = self.loaded.kind == GENERATOR
        try:
            while True:
                frame = assembler.receive(read)
                if frame is None:
                    return
                if streams and not frame.flags & HOOK:
                    for data in self._answers(frame, number):
                        send_all(write, data)
                else:
                    send_all(write, self._answer(frame, number))
        except (OSError, FrameError):
            return  # the host closed the channel; it knows why

    def _answer(self, frame: Frame, number: int) -> bytes:
        context = self.begin(frame, number)
        try:
            if context._cancelled:
                context.raise_if_cancelled()
            if frame.flags & HOOK:
                return self.call_hook(frame)
            execute: Any = self.loaded.execute  # the host sends hooks-only plugins none
            if frame.meta:
                # Neither request nor answer has a name here, so that their buffers go back with this very frame.
                return self.answered(RESULT, frame, execute(context, self.request(frame)))
            try:
                request = self.loaded.request_codec.decode(frame.payload)
            except DataError as error:
                raise _Phase("request") from error
            return self.answered(RESULT, frame, execute(context, request))
        except BaseException as error:  # the plugin's code ran: whatever it raised is data for the host
            return self.failed(frame.call_id, error)
        finally:
            self.end(frame.call_id)

    def _answers(self, frame: Frame, number: int) -> Iterator[bytes]:
        context = self.begin(frame, number)
        try:
            if context._cancelled:
                context.raise_if_cancelled()
            yield from self._items(frame, context)
        except BaseException as error:  # the plugin's code ran: whatever it raised is data for the host
            if _is_left(error):
                raise  # the channel is closed: nobody is there to be told
            yield self.failed(frame.call_id, error)
        finally:
            self.end(frame.call_id)

    def _items(self, frame: Frame, context: ExecutionContext) -> Iterator[bytes]:
        assert self.loaded.execute is not None
        stream = self.loaded.execute(context, self.request(frame))
        try:
            for item in stream:
                context.raise_if_cancelled()
                yield self.answered(ITEM, frame, item)
            yield self.packed(END, frame.call_id, b"", [])
        finally:
            stream.close()

    def request(self, frame: Frame) -> Any:
        """Return a call's request. Raises ``_Phase`` for one that is wrong."""
        decode = self.loaded.request_codec.decode
        return decoded(decode, frame.payload, self._buffers(frame)) if frame.meta else decoded(decode, frame.payload)

    def _buffers(self, frame: Frame) -> Sequence[memoryview]:
        if b'"buffers"' not in frame.meta:
            return ()
        said = json.loads(frame.meta)
        return self.arena.views(said["buffers"], frame.buffers) if "buffers" in said else ()

    def begin(self, frame: Frame, number: int, stop: Callable[[], object] | None = None) -> ExecutionContext:
        """Make the context of a call and note it as running on a channel. Raises ``FrameError`` for any other frame."""
        if frame.kind != CALL:
            raise FrameError(f"a frame of kind {frame.kind} on a channel")
        call_id = self._begun[number] = frame.call_id
        context = ExecutionContext(call_id & NUMBER, _caller=self._caller)
        if frame.timeout:
            context._timeout = self._default_timeout
            context._ends_at = time.monotonic() + frame.timeout  # what was left when the host sent it
        if frame.meta:
            said = json.loads(frame.meta)
            if "freed" in said:
                self.arena.writer.released(said["freed"])
            _add(context, said)
            if context._trace is not None or "timed" in said:
                self._traced[call_id] = _traced(context, said)
        self._running[call_id] = context, stop
        if self._given_up and call_id in self._given_up:
            del self._given_up[call_id]
            context._cancelled = True
        current.set(context)
        if self._cpu_seconds is not None:
            _limits.allow_cpu(self._cpu_seconds, time.process_time())
        return context

    def runs(self, call_id: int) -> bool:
        """Whether a call has not ended."""
        return call_id in self._running

    def end(self, call_id: int) -> None:
        """Forget a call that has ended."""
        self._running.pop(call_id, None)
        current.set(None)
        if self._traced and call_id in self._traced:
            self._traced.pop(call_id).end()
        if self._cpu_seconds is not None and not self._running:
            _limits.allow_cpu(None)

    def answered(self, kind: int, frame: Frame, answer: object) -> bytes:
        """Return the frame of an answer. Raises ``_Phase`` for one that is no data."""
        codec = self.loaded.response_codec
        # The promised type is looked at first: to ask a model's class for what it hasn't got takes longer than to write it.
        if type(answer) is not codec.type and hasattr(type(answer), "__await__"):
            close = getattr(answer, "close", None)
            if close is not None:
                close()
        round_trip = frame.flags & ROUND_TRIP != 0
        if codec.carries is not False or self.arena.reader.arrived or self._traced:
            payload, buffers = encoded(codec, answer, cap=self._cap, most=self.arena.limit, round_trip=round_trip)
            del answer
            return self.packed(kind, frame.call_id, payload, buffers)
        try:
            payload = codec.encode(answer, round_trip=round_trip)
            if len(payload) > self._cap:
                raise too_large(payload, self._cap)
        except DataError as error:
            raise _Phase("response") from error
        return packed(kind, frame.call_id, payload)

    def packed(self, kind: int, call_id: int, payload: bytes, buffers: list[Any]) -> bytes:
        """Return a frame, with what the host has to know of shared memory, and of a traced call."""
        traced = self._traced.get(call_id) if kind != ITEM else None
        if not buffers and not self.arena.reader.arrived:
            return packed(kind, call_id, payload, meta=b"" if traced is None else traced.meta())
        said: dict[str, Any] = {}
        inline = b""
        if buffers:
            said["buffers"], inline = self.arena.pack(buffers, streaming=kind == ITEM)
        freed = self.arena.reader.freed()
        if freed:
            said["freed"] = freed
        if traced is not None:
            said.update(traced.times())
        return packed(kind, call_id, payload, meta=json.dumps(said).encode() if said else b"", buffers=inline)

    def call_hook(self, frame: Frame) -> bytes:
        """Run one hook implementation; return the frame of its answer."""
        said = json.loads(frame.meta)
        hook = self.loaded.hooks[said["hook"]]
        arguments = decoded(lambda payload: hook.decode(said["arguments"], payload), frame.payload, self._buffers(frame))
        payload, buffers = encoded(hook, self.settle(hook(arguments)), cap=self._cap, most=self.arena.limit, round_trip=True)
        del arguments
        return self.packed(RESULT, frame.call_id, payload, buffers)

    def failed(self, call_id: int, error: BaseException) -> bytes:
        """Return the frame that tells the host of an error."""
        if isinstance(error, MemoryError):
            self._ballast.clear()
        said = failure_of(error)
        freed = self.arena.reader.freed()
        if freed:
            said["freed"] = freed
        if self._traced and call_id in self._traced:
            said.update(self._traced[call_id].times())
        return packed(ERROR, call_id, meta=json.dumps(said).encode())


def _add(context: ExecutionContext, said: dict[str, Any]) -> None:
    """Add to a context what a call carries beside its request."""
    context._request_id = said.get("request_id", context._request_id)
    if context._timeout is not None:
        context._timeout = said.get("timeout", context._timeout)
    context._max_retries = said.get("max_retries", 0)
    context._headers = said.get("headers")
    context._metadata = said.get("metadata")
    context._attempt = said.get("attempt", 1)
    if "traceparent" in said:
        context._trace = Trace({name: said[name] for name in ("traceparent", "tracestate") if name in said})


def _traced(context: ExecutionContext, said: dict[str, Any]) -> Traced:
    from ._traced import Traced  # most hosts trace nothing

    return Traced({} if context._trace is None else context._trace.headers, timed="timed" in said)


def _is_left(error: BaseException) -> bool:
    """Whether an iterator of answers is being closed, which raises where it last yielded; a plugin may raise the same by itself."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return type(error) is GeneratorExit and trace is not None and trace.tb_frame.f_globals is globals()


class _Phase(Exception):
    """Data was wrong: ``phase`` says whose, the cause is a ``DataError``."""

    def __init__(self, phase: str) -> None:
        super().__init__(phase)
        self.phase = phase


def failure_of(error: BaseException) -> dict[str, Any]:
    """Return an error of a call as data: ``_failure.describe`` with the phase, or the rows of a ``DataError``."""
    if isinstance(error, _Phase) and isinstance(error.__cause__, DataError):
        return {"phase": error.phase, "rows": error.__cause__.rows}
    return {**_failure.describe(error), "phase": "execute"}


def decoded(decode: Callable[[bytes], Any], payload: bytes, buffers: Sequence[Any] = ()) -> Any:
    """Decode a request, telling a wrong one from a plugin that raised."""
    try:
        return read(decode, payload, buffers) if buffers else decode(payload)
    except DataError as error:
        raise _Phase("request") from error


_NONE: list[Any] = []  # never written to


def too_large(payload: bytes, cap: int) -> DataError:
    """Return the error for JSON above the limit."""
    return DataError("", f"at most {cap} bytes of JSON", f"{len(payload)} bytes")


def encoded(codec: Writing, answer: object, *, cap: int, most: int, round_trip: bool = False) -> tuple[bytes, list[Any]]:
    """Encode a response and its buffers, telling a wrong one from a plugin that raised."""
    try:
        if codec.carries is False:
            payload, buffers = codec.encode(answer, round_trip=round_trip), _NONE
        else:
            payload, buffers = written(codec, answer, round_trip=round_trip)
        if len(payload) > cap:
            raise too_large(payload, cap)
        if buffers:
            check_size(buffers, most)
        return payload, buffers
    except DataError as error:
        raise _Phase("response") from error
