"""Everything that the host makes of a worker's words. The first byte of the input says which words they are, the rest are the words."""

from __future__ import annotations

import os
import re
import socket
from collections import deque
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from loguru import logger
from pydantic import BaseModel, Field

from hostkit._arena import Arena
from hostkit._backends._account import health_said, info_said
from hostkit._backends._outcome import Outcome, said_of
from hostkit._channel import Channel, Ended, Late
from hostkit._contract import Caller, ExecutionContext, HealthStatus, Status
from hostkit._deadline import Deadline
from hostkit._errors import HostkitError
from hostkit._greeting import Greeting, Introduction
from hostkit._importable import Target
from hostkit._log import TAIL, OutputPipe
from hostkit._monitor import Monitor
from hostkit._opening import Opening, Settings
from hostkit._questions import Questions, spoken
from hostkit._raised import load_error
from hostkit._shape import UNTYPED, Shape
from hostkit._sinks import flush
from hostkit._wires import Ends
from hostkit._worker._data import DataError
from hostkit._worker._frames import ERROR, HEALTH, READY, RESULT, Frame, FrameError
from hostkit._worker._json import dump_json

# Nothing that a worker says makes an error longer than its own traceback and message may be, twice each.
MOST_TEXT = 256 * 1024
CALLER = Caller("fuzzed", "")
COOKIE = "cookie"


def check(data: bytes) -> None:
    if data:
        WORDS[data[0] % len(WORDS)](data[1:])


def error_frames(meta: bytes) -> None:
    context = ExecutionContext(timeout=3.0)
    for limited in (False, True):
        outcome = Outcome("fuzzed", limited=limited)
        is_typed(outcome.failed(context, said_of(meta)))
        frame = Frame(ERROR, 1, 0, 0.0, meta, b"", b"")
        outcome.out_of_memory(frame)


def load_failures(meta: bytes) -> None:
    try:
        said = spoken(meta)
    except FrameError as error:
        is_text(str(error))
    else:
        is_typed(load_error(said, plugin="fuzzed"))


def handshakes(meta: bytes) -> None:
    try:
        introduction = GREETING.answered(Frame(READY, 0, 0, 0.0, meta, b"", b""))
    except FrameError as error:
        is_text(str(error))
        return
    assert type(introduction) is Introduction
    for hook in introduction.hooks.values():
        names = [*hook.arguments, *hook.optional]
        assert len(set(names)) == len(names)
        compile(f"lambda {', '.join(names)}: None", "", "eval")  # what the relay makes of them


def health_answers(payload: bytes) -> None:
    try:
        status = health_said(payload)
    except DataError as error:
        is_text(str(error))
        return
    assert type(status) is HealthStatus
    assert type(status.status) is Status
    assert type(status.message) is str
    assert status.response_time - status.response_time == 0.0 == status.last_check - status.last_check
    is_text(status.message)
    dump_json(dict(status.metadata))


def info_answers(payload: bytes) -> None:
    try:
        info = info_said(payload)
    except DataError as error:
        is_text(str(error))
        return
    for name in ("name", "version", "description", "author"):
        is_text(info[name])
    for word in info["capabilities"]:
        is_text(word)
    dump_json(info["metadata"])


def log_records(data: bytes) -> None:
    outputs("log", data)


def printed_lines(data: bytes) -> None:
    outputs("stderr", data)
    outputs("stdout", data)


def outputs(source: str, data: bytes) -> None:
    read, write = os.pipe()
    pipe = OutputPipe(read, source, plugin="fuzzed")
    TOLD.clear()
    try:
        for start in range(0, len(data), 1 + len(data) // 3):
            os.write(write, data[start : start + 1 + len(data) // 3])
            assert pipe.read()
    finally:
        os.close(write)
        pipe.close()
    assert len(pipe.tail) <= TAIL
    assert flush(5)
    for record in TOLD:
        text = record["message"]
        is_text(text)
        assert not CONTROL.search(text), text
        assert all(not line.strip() or line.startswith("  | ") for line in text.split("\n")[1:]), text
        assert not CONTROL.search(record["extra"]["request_id"] + record["extra"]["source"])
    assert len(TOLD) <= 2 * data.count(b"\n") + 2


@dataclass
class Point:
    x: int
    y: float = 0.0
    names: list[str] | None = None
    next: Point | None = None


class Box(BaseModel):
    label: str
    size: float = Field(ge=0)
    inside: dict[str, Box] = {}


SHAPES = [UNTYPED, Shape(None, Point), Shape(None, Box), Shape(None, dict[str, int]), Shape(None, Any)]


def results(payload: bytes) -> None:
    for shape in SHAPES:
        try:
            value = shape.decode(payload)
        except DataError as error:
            assert error.rows
            for row in error.rows:
                assert set(row) == {"path", "expected", "found"}
                for words in row.values():
                    is_text(words)
        else:
            if not OVERFLOWN.search(payload):
                dump_json(value)  # what came is data, so it can go on


def channels(stream: bytes) -> None:
    """A channel whose worker says this and ends."""
    for late in (False, True):
        calls, requests = os.pipe()
        answers, theirs = os.pipe()
        over, hangup = os.pipe()
        channel = Channel(LINK, 0, Ends(requests, os.dup(calls), answers, over), 4096)
        try:
            os.write(theirs, stream)
            os.close(theirs)
            listen(channel, late=late)
        finally:
            channel.close()
            os.close(calls)
            os.close(hangup)


def listen(channel: Channel, *, late: bool) -> None:
    deadline = Deadline.after(5.0)
    try:
        if late:
            while not channel.read_late(deque([7, 7])):
                pass
        while True:
            frame = channel.receive(7, deadline)
            assert frame.call_id == 7
            assert len(frame.meta) + len(frame.payload) + len(frame.buffers) <= 8192
    except (Ended, FrameError) as error:
        is_text(str(error))
    except Late:
        raise AssertionError("the end was not seen") from None


def controls(stream: bytes) -> None:
    """A control socket on which one question is open."""
    mine, theirs = socket.socketpair()
    questions = Questions(mine)
    asked = questions.ask(HEALTH)
    try:
        theirs.sendall(stream)
        theirs.close()
        try:
            while questions.receive():
                for frame in questions.frames():
                    questions.take(frame)
        except FrameError as error:
            is_text(str(error))
    finally:
        questions.close()
        questions.end()
    assert asked.done()  # answered, or cancelled with the worker's end; whoever waits for it is woken
    if not asked.cancelled():
        assert asked.result().kind in (RESULT, ERROR)


def memory(meta: bytes) -> None:
    """What it says of the memory that it shares: nothing is given beyond the limit, whatever is asked for."""
    arena = Arena(4096, lambda frame, fd: None)
    for _ in range(3):
        try:
            said = spoken(meta)
            arena.hear(1, said)
            for view in arena.take(said, meta):
                assert len(view) <= 4096 + len(meta)
        except FrameError as error:
            is_text(str(error))
    assert arena.total <= 1 << 20


def is_typed(error: Exception) -> None:
    assert isinstance(error, HostkitError), repr(error)
    is_text(str(error))
    for words in vars(error).values():
        if isinstance(words, str):
            is_text(words)
    for row in getattr(error, "errors", ()):
        for words in row.values():
            is_text(words)


def is_text(words: str) -> None:
    assert type(words) is str, repr(words)
    assert len(words) <= MOST_TEXT, len(words)
    words.encode("utf-8")


WORDS = [
    error_frames,
    load_failures,
    handshakes,
    health_answers,
    info_answers,
    log_records,
    printed_lines,
    results,
    channels,
    controls,
    memory,
]
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
# Numbers that are JSON and that no float holds: they arrive as infinity, in data without types.
OVERFLOWN = re.compile(rb"[0-9][eE]\+?[0-9]{3}|[0-9]{309}")
LINK: Any = SimpleNamespace(arena=Arena(4096, lambda frame, fd: None), violation=None)  # what a channel asks of it
GREETING = Greeting(Opening("fuzzed", "module:Plugin", {}, Settings(), CALLER, Monitor()), Target("module:Plugin", b""))
GREETING._cookie = COOKIE
TOLD: list[dict[str, Any]] = []
logger.remove()
logger.enable("hostkit")
logger.add(lambda message: TOLD.append(message.record), level=0, format="{message}", catch=False)
