"""A typed isolated call, step by step: the code of both sides, run here one piece at a time, and what the whole of it costs.

What no row has is the Python between the steps, and what sleeping, waking and cold caches cost on the way.
"""

from __future__ import annotations

import os
import select
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from hostkit import Host
from hostkit._contract import Caller
from hostkit._shape import Shape
from hostkit._worker._frames import CALL, RESULT, ROUND_TRIP, Assembler, notes_size, packed
from hostkit._worker._loaded import LoadedPlugin
from hostkit._worker._loop import Server

from . import _models
from ._cpu import HOST, WORKERS, Meter
from ._models import CalculatorRequest, CalculatorResponse
from ._report import Row, Section
from ._timing import Peer, interleave

_WHOLE = "the whole call"
_ANSWER = CalculatorResponse(result=5)


def measure(*, rounds: int, turn: float) -> list[Section]:
    """Measure all steps, and the whole call."""
    with Host("benchmarks") as host, _pipe() as pipe, _server() as server:
        host.register(_models.Calculator, name="calculator", isolation="process")
        handle = host.plugin("calculator", CalculatorRequest, CalculatorResponse)
        handle.execute(_models.REQUEST)
        sides = {HOST: _in_the_host(host, pipe), WORKERS: _in_the_worker(server, pipe)}
        meter = Meter()
        steps = {**sides[HOST], **sides[WORKERS], _WHOLE: lambda: handle.execute(_models.REQUEST)}
        peers = [Peer(name, timeit.Timer(step).timeit) for name, step in steps.items()]
        found = interleave(peers, rounds=rounds, turn=turn, meter=meter)
    section = Section("The steps of a typed isolated call", base=_WHOLE)
    section.measured(found, beside={_WHOLE: meter.found[_WHOLE]})
    for side, own in sides.items():
        seen = sum(median(found[name]) for name in own if not name.startswith(" "))
        section.rows.append(Row(f"{side} that no step explains", [median(meter.found[_WHOLE][side]) - seen]))
    return [section]


def _in_the_host(host: Host, pipe: tuple[int, int]) -> dict[str, Callable[[], object]]:
    record = host._loader.record("calculator")
    lane = record.lane
    assert lane is not None
    backend: Any = lane.backend
    supervisor = backend.supervisor
    shape = Shape(CalculatorRequest, CalculatorResponse)
    context = record.context(None, None, None, None, None)
    asked = backend._asked(context, _models.REQUEST, shape)
    free = supervisor.idle.take_now()
    supervisor.give(free)
    answer = packed(RESULT, 7, b'{"result":5.0}')
    assembler = Assembler()
    frame: Any = assembler.take(answer)

    def through_the_gate() -> None:
        lane.gate.enter(context)
        lane.gate.leave(context)

    def channel() -> None:
        supervisor.give(supervisor.idle.take_now())

    return {
        "host: context and deadline": lambda: record.context(None, None, None, None, None),
        "host: gate": through_the_gate,
        "host: encode the request, note the call": lambda: backend._asked(context, _models.REQUEST, shape),
        "    of which encoding": lambda: shape.encode(_models.REQUEST),
        "host: put it into a frame": lambda: asked.frame(free),
        "host: take a channel, give it back": channel,
        "host: write, poll, read, with nobody to wake": _system(*pipe, polls=True),
        "host: take the answer's frame apart": lambda: assembler.take(answer),
        "host: decode the answer": lambda: backend._outcome.answer(context, frame, shape),
    }


def _in_the_worker(server: Server, pipe: tuple[int, int]) -> dict[str, Callable[[], object]]:
    loaded = server.loaded
    assert loaded.execute is not None
    request = Shape(CalculatorRequest, CalculatorResponse).encode(_models.REQUEST)
    call = packed(CALL, 7, request, flags=ROUND_TRIP, timeout=30.0)
    assembler = Assembler()
    frame: Any = assembler.take(call)
    context = server.begin(frame, 0)

    def begin_and_end() -> None:
        server.begin(frame, 0)
        server.end(7)

    return {
        "worker: read, write, with nobody to wake": _system(*pipe, polls=False),
        "worker: take the call's frame apart": lambda: assembler.take(call),
        "worker: note it as begun, context, forget it": begin_and_end,
        "worker: decode the request": lambda: loaded.request_codec.decode(request),
        "worker: the plugin's execute": lambda: loaded.execute(context, _models.REQUEST),  # type: ignore[misc]  # it has one
        "worker: encode the answer, put it into a frame": lambda: server.answered(RESULT, frame, _ANSWER),
    }


def _system(reads: int, writes: int, *, polls: bool) -> Callable[[], object]:
    poller = select.poll()
    poller.register(reads, select.POLLIN)
    data = b"." * 100

    def once() -> None:
        os.write(writes, data)
        if polls:
            poller.poll(30_000)
        os.read(reads, 4096)

    return once


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    reads, writes = os.pipe()
    try:
        yield reads, writes
    finally:
        os.close(reads)
        os.close(writes)


@contextmanager
def _server() -> Iterator[Server]:
    """Make the worker's side, without a worker."""
    with open(os.memfd_create("notes"), "r+b") as notes:
        notes.truncate(notes_size(1))
        boot = {"channels": [(-1, -1)], "cap": 1 << 26, "timeout": 30.0, "limits": {}, "buffers": 0, "faults": notes.fileno()}
        server = Server(boot, Caller("calculator", ""), bytearray())
        server.loaded = LoadedPlugin(_models.Calculator(), settle=server.settle)
        yield server
