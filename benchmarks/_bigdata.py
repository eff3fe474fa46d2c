"""An array to another process and back, and a large answer that is there already."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np

from hostkit import Host

from . import _bigplugin
from ._bigplugin import NUMBER, Echo, Length, Numbers, Table
from ._report import Section, ratios
from ._timing import Peer, interleave

Call = Callable[[Any], Any]  # Any: numpy arrays

_MB = 1 << 20
_OURS, _FLOOR, _PIPE = "hostkit Array", "two memcpys", "multiprocessing.Pipe"
_MOST_ROUNDS = 7
_PATIENCE = 5.0


def measure(*, rounds: int, turn: float) -> list[Section]:
    """Measure 1 and 16 MB, and 256 MB where there is time for more than a glance."""
    sizes = (1, 16, 256) if rounds > _MOST_ROUNDS else (1, 16)
    rounds = min(rounds, _MOST_ROUNDS)
    sections = [_echo(size, rounds, turn) for size in sizes]
    return [*sections, _mapped(rounds)]


def _echo(size: int, rounds: int, turn: float) -> Section:
    section = Section(f"An array of {size} MB echoed, one caller", base=_OURS)
    values = np.arange(size * _MB // NUMBER.itemsize, dtype=NUMBER)
    with ExitStack() as stack:
        calls: dict[str, Call] = {}
        for name, opening in _PEERS.items():
            try:
                calls[name] = stack.enter_context(opening())
            except ImportError as error:
                section.missing(name, f"not installed: {error.name}")
        for name, call in calls.items():
            assert np.array_equal(call(values), values), name
            call(values)  # memory that is used again has been used before
        number = max(1, round(16 / size))
        peers = [Peer(name, _timed(call, values), number) for name, call in calls.items()]
        found = interleave(peers, rounds=rounds, turn=turn)
    section.measured(found)
    if size == 16:
        section.promise("16 MB echoed ÷ two memcpys", ratios(found[_OURS], found[_FLOOR]), most=2.0)
        section.promise("multiprocessing.Pipe ÷ 16 MB echoed", ratios(found[_PIPE], found[_OURS]), least=8.0)
    return section


def _timed(call: Call, values: Any) -> Callable[[int], float]:
    def run(number: int) -> float:
        answer = None
        began = time.perf_counter()
        for _ in range(number):
            answer = call(values)
        took = time.perf_counter() - began
        assert answer is not None
        return took

    return run


def _mapped(rounds: int) -> Section:
    """Measure an answer that lies where the host sees it."""
    section = Section("An answer that the plugin has ready in shared memory, one caller", base="hostkit empty_array, 16 MB")
    with Host("benchmarks") as host:
        host.register(Table, name="table", isolation="process")
        table = host.plugin("table", Length, Numbers)
        peers = []
        for size in (16, 256):
            asked = Length(length=size * _MB // NUMBER.itemsize)
            assert table.execute(asked).values.sum() == asked.length
            peers.append(Peer(f"hostkit empty_array, {size} MB", _timed(table.execute, asked), 50))
        found = interleave(peers, rounds=rounds, turn=0.0)
    section.measured(found)
    small, large = found.values()
    section.promise("a mapped answer, 256 MB ÷ 16 MB", ratios(large, small), most=1.5)
    return section


@contextmanager
def _hostkit() -> Iterator[Call]:
    with Host("benchmarks") as host:
        host.register(Echo, name="echo", isolation="process")
        echo = host.plugin("echo", Numbers, Numbers)
        yield lambda values: echo.execute(Numbers(values=values)).values


@contextmanager
def _memcpy() -> Iterator[Call]:
    places: dict[int, tuple[Any, Any]] = {}

    def call(values: Any) -> Any:
        there, back = places.setdefault(len(values), (np.empty_like(values), np.empty_like(values)))
        there[:] = values
        back[:] = there
        return back

    yield call


@contextmanager
def _pickles() -> Iterator[Call]:
    with _child(_bigplugin.serve_pickles) as connection:

        def call(values: Any) -> Any:
            connection.send(values)
            return connection.recv()

        yield call


@contextmanager
def _out_of_band() -> Iterator[Call]:
    with _child(_bigplugin.serve_out_of_band) as connection:

        def call(values: Any) -> Any:
            _bigplugin.send_out_of_band(connection, values)
            return _bigplugin.receive_out_of_band(connection)

        yield call


@contextmanager
def _shared() -> Iterator[Call]:
    with _child(_bigplugin.serve_shared) as connection:

        def call(values: Any) -> Any:
            asked = SharedMemory(create=True, size=values.nbytes)
            np.frombuffer(asked.buf, NUMBER, len(values))[:] = values
            connection.send((asked.name, len(values)))
            answer = SharedMemory(connection.recv())
            copy = np.frombuffer(answer.buf, NUMBER, len(values)).copy()
            for memory in (asked, answer):
                memory.close()
                memory.unlink()
            return copy

        yield call


@contextmanager
def _rpyc() -> Iterator[Call]:
    from rpyc.core.stream import SocketStream
    from rpyc.utils.factory import connect_stream

    with _child(_bigplugin.serve_rpyc) as told:
        stream = SocketStream.connect("127.0.0.1", told.recv(), nodelay=True)
        connection = connect_stream(stream, config={"sync_request_timeout": None})
        echo = connection.root.echo
        try:
            yield lambda values: np.frombuffer(echo(values.tobytes()), NUMBER)
        finally:
            connection.close()


@contextmanager
def _child(serve: Callable[[Any], None]) -> Iterator[Any]:  # Any: a Connection
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    child = context.Process(target=serve, args=(theirs,), daemon=True)
    child.start()
    theirs.close()
    with mine:
        yield mine
    child.join(_PATIENCE)
    child.close()


_PEERS = {
    _OURS: _hostkit,
    _FLOOR: _memcpy,
    _PIPE: _pickles,
    "pickle 5 out of band, Pipe": _out_of_band,
    "shared_memory, fresh": _shared,
    "rpyc (bytes by value)": _rpyc,
}
