"""Faults of a plugin that writes to the worker's own descriptors, or closes them."""

from __future__ import annotations

import fcntl
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from hostkit._contract import ExecutionContext
from hostkit._worker._frames import PONG, RESULT, packed

from ._table import fault


def _boot() -> dict[str, Any]:
    """Return what the worker's main function knows, whatever kind of launch brought it up."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None and frame.f_globals.get("__name__") != "hostkit._worker._boot":
        frame = frame.f_back
    while frame is not None and "said" not in frame.f_locals:
        frame = frame.f_back
    if frame is None:
        raise RuntimeError("this is no worker")
    return frame.f_locals


def control() -> int:
    """Return the descriptor of the worker's control socket."""
    found = _boot()["control"]
    number: int = found if isinstance(found, int) else found.fileno()
    return number


def channels() -> list[int]:
    """Return the descriptors on which the worker answers calls."""
    return [fd for fd in _numbers(_boot()["said"]["channels"]) if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY]


def _call_id() -> int:
    """Return the number by which the host knows the call that runs on this thread."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_globals.get("__name__", "").startswith("hostkit._worker."):
            for found in frame.f_locals.values():
                number = getattr(found, "call_id", None)
                if isinstance(number, int):
                    return number
    raise RuntimeError("no call runs on this thread")


def _numbers(found: object) -> Iterator[int]:
    if isinstance(found, int):
        yield found
    elif isinstance(found, (list, tuple)):
        for part in found:
            yield from _numbers(part)


def _after(then: str) -> None:
    if then == "exit":
        os._exit(0)
    elif then == "close":
        os.close(channels()[0])
    elif then == "return":
        return
    time.sleep(60)


@fault("ProtocolError", alone=True)
def write_channel(ctx: ExecutionContext, data: str = "00" * 64, then: str = "sleep") -> None:
    """Write bytes that are no frame to the channel on which the answer is awaited."""
    os.write(channels()[0], bytes.fromhex(data))
    _after(then)


@fault("ProtocolError", alone=True)
def write_control(ctx: ExecutionContext, data: str = "00" * 64, then: str = "sleep") -> None:
    """Write bytes that are no frame to the worker's control socket."""
    os.write(control(), bytes.fromhex(data))
    _after(then)


@fault("ProtocolError", alone=True)
def write_everywhere(ctx: ExecutionContext) -> None:
    """Write rubbish to every descriptor that the worker has."""
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            os.write(fd, b"rubbish " * 16)
        except OSError:
            continue
    time.sleep(60)


@fault("WorkerExited", alone=True)
def half_answer(ctx: ExecutionContext) -> None:
    """Exit in the middle of an answer."""
    os.write(channels()[0], packed(RESULT, _call_id(), b'"half of it"')[:-4])
    os._exit(0)


@fault("CallTimeout", alone=True, timeout=0.5, settings={"cancel_grace": 0.2})
def slow_answer(ctx: ExecutionContext, pause: float = 0.1) -> None:
    """Send an answer byte by byte."""
    trickle(ctx, packed(RESULT, _call_id(), b"1" * 1000).hex(), pause)


@fault("CallTimeout", "ProtocolError", alone=True, timeout=0.5, settings={"cancel_grace": 0.2})
def trickle(ctx: ExecutionContext, data: str = "68", pause: float = 0.1) -> None:
    """Send the beginning of a frame byte by byte, and then nothing."""
    for byte in bytes.fromhex(data):
        os.write(channels()[0], bytes([byte]))
        time.sleep(pause)
    time.sleep(60)


@fault("ProtocolError", alone=True)
def answer_another_call(ctx: ExecutionContext) -> None:
    """Answer a call that nobody made."""
    os.write(channels()[0], packed(RESULT, 1 << 50, b'"not yours"'))
    time.sleep(60)


@fault("answer", alone=True)
def answer_twice(ctx: ExecutionContext) -> str:
    """Answer one call three times; the next call must not get any of them."""
    answers = [packed(RESULT, _call_id(), word) for word in (b'"first"', b'"second"')]
    os.write(channels()[0], b"".join(answers))
    return "third"


@fault("ProtocolError", alone=True)
def answer_with(ctx: ExecutionContext, kind: int = 200, meta: str = "", then: str = "sleep") -> None:
    """Answer with a frame of another kind."""
    os.write(channels()[0], packed(kind, _call_id(), b"", meta=bytes.fromhex(meta)))
    _after(then)


@fault("ProtocolError", alone=True)
def close_channel(ctx: ExecutionContext) -> None:
    """Close the channel on which the answer is awaited, and live on."""
    os.close(channels()[0])
    time.sleep(60)


@fault("ProtocolError", "WorkerExited", alone=True, settings={"heartbeat": {"interval": 0.2}})
def close_control(ctx: ExecutionContext, seconds: float = 20.0) -> str:
    """Close the worker's control socket, and live on."""
    os.close(control())
    time.sleep(seconds)
    return "still here"


@fault("ProtocolError", "WorkerExited", alone=True)
def close_descriptors(ctx: ExecutionContext) -> None:
    """Close every descriptor but the standard ones."""
    os.closerange(3, 1000)
    time.sleep(60)


@fault("ProtocolError", alone=True)
def flood_heartbeats(ctx: ExecutionContext) -> None:
    """Send answers to heartbeats without end, which nobody asked for."""
    flood = packed(PONG) * 1000
    while True:
        os.write(control(), flood)
