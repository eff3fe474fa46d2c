"""Serve an async plugin: every channel on one event loop, in the worker's main thread."""

from __future__ import annotations

import asyncio
import os

from .._errors import CallCancelled
from ._frames import END, HOOK, ITEM, RESULT, Assembler, FrameError
from ._loaded import COROUTINE
from ._loop import REQUEST_CAP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._contract import ExecutionContext
    from ._frames import Frame
    from ._loop import Server

# Bytes of calls that are read ahead of the one that runs; what is more waits in the pipe.
_AHEAD = 64 * 1024


def serve(server: Server, channels: list[tuple[int, int]]) -> None:
    """Answer calls until the host has closed every channel."""
    asyncio.run(_serve_all(server, channels))


async def _serve_all(server: Server, channels: list[tuple[int, int]]) -> None:
    server._event_loop = asyncio.get_running_loop()
    await asyncio.gather(*(_serve(server, _Channel(number, *ends)) for number, ends in enumerate(channels)))


class _Channel:
    """The worker's ends of one channel, on the running event loop."""

    def __init__(self, number: int, calls: int, answers: int) -> None:
        self.number = number
        os.set_blocking(calls, False)
        os.set_blocking(answers, False)
        self._calls = calls
        self._answers = answers
        self._loop = asyncio.get_running_loop()
        self._assembler = Assembler(REQUEST_CAP)
        self._arrived: asyncio.Future[None] | None = None
        self._reading = False
        self._over = False

    async def receive(self) -> Frame | None:
        """Return the next frame, or None at the end. Raises ``OSError`` and ``FrameError``."""
        while True:
            frame = self._assembler.pop()
            if frame is not None or self._over:
                return frame
            if not self._reading:
                self._reading = True
                self._loop.add_reader(self._calls, self._read)
            self._arrived = self._loop.create_future()
            await self._arrived

    def _read(self) -> None:
        try:
            data = os.read(self._calls, max(self._assembler.wants, _AHEAD))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._assembler.feed(data)
        self._over = not data
        waiting = self._arrived is not None and not self._arrived.done()
        if self._over or (not waiting and self._assembler.partial >= _AHEAD):
            self._loop.remove_reader(self._calls)
            self._reading = False
        if self._arrived is not None:
            _resolve(self._arrived)

    async def send(self, data: bytes) -> None:
        """Send a whole frame. Raises ``OSError``."""
        left = memoryview(data)
        while left := left[self._write(left) :]:
            writable = self._loop.create_future()
            self._loop.add_writer(self._answers, _resolve, writable)
            try:
                await writable
            finally:
                self._loop.remove_writer(self._answers)

    def _write(self, left: memoryview) -> int:
        try:
            return os.write(self._answers, left)
        except BlockingIOError:
            return 0


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _serve(server: Server, channel: _Channel) -> None:
    try:
        while True:
            frame = await channel.receive()
            if frame is None:
                return
            # A task of its own, so that a cancelled call doesn't end its channel.
            await asyncio.ensure_future(_answer(server, channel, frame))
    except (OSError, FrameError):
        return  # the host closed the channel; it knows why


async def _answer(server: Server, channel: _Channel, frame: Frame) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None

    def stop() -> None:
        # Not once it sends its answer: the host couldn't make anything of half a frame.
        if server.runs(frame.call_id):
            task.cancel()

    # A hook's thread can't be stopped: one that goes on after its deadline gets the worker replaced.
    context = server.begin(frame, channel.number, None if frame.flags & HOOK else lambda: loop.call_soon_threadsafe(stop))
    try:
        if context._cancelled:
            context.raise_if_cancelled()
        last = await _run(server, channel, frame, context)
    except BaseException as error:  # the plugin's code ran: whatever it raised is data for the host
        given_up = context.cancelled and isinstance(error, asyncio.CancelledError)
        last = server.failed(frame.call_id, CallCancelled("it was cancelled") if given_up else error)
    finally:
        server.end(frame.call_id)
    await channel.send(last)


async def _run(server: Server, channel: _Channel, frame: Frame, context: ExecutionContext) -> bytes:
    loaded = server.loaded
    if frame.flags & HOOK:
        # On a thread: a sync hook may block, and an async one is finished on this very loop.
        return await asyncio.to_thread(server.call_hook, frame)
    assert loaded.execute is not None
    if loaded.kind == COROUTINE:
        return server.answered(RESULT, frame, await loaded.execute(context, server.request(frame)))
    stream = loaded.execute(context, server.request(frame))
    try:
        async for item in stream:
            context.raise_if_cancelled()
            await _send_whole(channel, server.answered(ITEM, frame, item))
    finally:
        await stream.aclose()
    return server.packed(END, frame.call_id, b"", [])


async def _send_whole(channel: _Channel, frame: bytes) -> None:
    """Send a frame to its end, also where the call is cancelled meanwhile: the host couldn't make anything of half a frame."""
    sending = asyncio.ensure_future(channel.send(frame))
    cancelled = False
    while not sending.done():
        try:
            await asyncio.shield(sending)
        except asyncio.CancelledError:
            cancelled = True
    sending.result()
    if cancelled:
        raise asyncio.CancelledError
