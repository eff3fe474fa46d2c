"""Serve an async plugin: every channel on one event loop, in the worker's main thread."""

from __future__ import annotations

import asyncio
import socket

from .._errors import CallCancelled
from ._frames import END, HOOK, ITEM, RESULT, Assembler, FrameError, parts
from ._loaded import COROUTINE
from ._loop import REQUEST_CAP, decoded

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from .._contract import ExecutionContext
    from ._frames import Frame
    from ._loop import Server


def serve(server: Server, channels: list[_socket.socket]) -> None:
    """Answer calls until the host closes the first channel."""
    asyncio.run(_serve_all(server, [socket.socket(fileno=channel.detach()) for channel in channels]))


async def _serve_all(server: Server, channels: list[socket.socket]) -> None:
    server._event_loop = asyncio.get_running_loop()
    others = [asyncio.ensure_future(_serve(server, channel)) for channel in channels[1:]]
    await _serve(server, channels[0])
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _serve(server: Server, channel: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    channel.setblocking(False)
    assembler = Assembler(REQUEST_CAP)
    try:
        while True:
            frame = assembler.pop()
            if frame is None:
                with assembler.room() as room:
                    count = await loop.sock_recv_into(channel, room)
                if count == 0:
                    return
                assembler.arrived(count)
            else:
                # A task of its own, so that a cancelled call doesn't end its channel.
                await asyncio.ensure_future(_answer(server, channel, frame))
    except (OSError, FrameError):
        return  # the host closed the channel; it knows why


async def _answer(server: Server, channel: socket.socket, frame: Frame) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None

    def stop() -> None:
        # Not once it sends its answer: the host couldn't make anything of half a frame.
        if server.runs(frame.call_id):
            task.cancel()

    # A hook's thread can't be stopped: one that goes on after its deadline gets the worker replaced.
    context = server.begin(frame, None if frame.flags & HOOK else lambda: loop.call_soon_threadsafe(stop))
    try:
        last = await _run(server, channel, frame, context)
    except BaseException as error:  # the plugin's code ran: whatever it raised is data for the host
        given_up = context.cancelled and isinstance(error, asyncio.CancelledError)
        last = server.failed(frame.call_id, CallCancelled("it was cancelled") if given_up else error)
    finally:
        server.end(frame.call_id)
    await loop.sock_sendall(channel, b"".join(last))


async def _run(server: Server, channel: socket.socket, frame: Frame, context: ExecutionContext) -> list[bytes]:
    loaded = server.loaded
    if frame.flags & HOOK:
        # On a thread: a sync hook may block, and an async one is finished on this very loop.
        return parts(RESULT, frame.call_id, await asyncio.to_thread(server.call_hook, frame))
    request = decoded(loaded.request_codec.decode, frame.payload)
    assert loaded.execute is not None
    if loaded.kind == COROUTINE:
        return parts(RESULT, frame.call_id, server.encode(frame, await loaded.execute(context, request)))
    stream = loaded.execute(context, request)
    try:
        async for item in stream:
            context.raise_if_cancelled()
            await _send_whole(channel, parts(ITEM, frame.call_id, server.encode(frame, item)))
    finally:
        await stream.aclose()
    return parts(END, frame.call_id)


async def _send_whole(channel: socket.socket, frame: list[bytes]) -> None:
    """Send a frame to its end, also where the call is cancelled meanwhile: the host couldn't make anything of half a frame."""
    sending = asyncio.ensure_future(asyncio.get_running_loop().sock_sendall(channel, b"".join(frame)))
    cancelled = False
    while not sending.done():
        try:
            await asyncio.shield(sending)
        except asyncio.CancelledError:
            cancelled = True
    sending.result()
    if cancelled:
        raise asyncio.CancelledError
