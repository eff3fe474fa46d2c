"""Other ways to call code in another process: each is a context manager that yields a function from request to answer.

    parent: call(request) ─► … ─► child: work(request) ─► … ─► answer

``work`` is a function of an importable module. Optional packages are imported in their own function: ``ImportError`` says that one
isn't there. Every child ends with its context manager.
"""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import queue
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

Work = Callable[[Any], Any]
Opening = Callable[[Work], AbstractContextManager[Work]]
ManyOpening = Callable[[Work, int], AbstractContextManager[Work]]

# How long a child may take to end by itself.
_PATIENCE = 5.0
_PING = b"." * 64


@contextmanager
def ping_pong() -> Iterator[Callable[[], object]]:
    """64 bytes there and back over a socketpair: what the system alone costs."""
    mine, theirs = socket.socketpair()
    code = "import socket, sys; s = socket.socket(fileno=int(sys.argv[1]))\nwhile b := s.recv(64): s.send(b)"
    with mine:
        with theirs:
            command = [sys.executable, "-I", "-S", "-c", code, str(theirs.fileno())]
            child = subprocess.Popen(command, pass_fds=[theirs.fileno()])

        def once() -> bytes:
            mine.send(_PING)
            return mine.recv(64)

        yield once
    child.wait(_PATIENCE)


@contextmanager
def multiprocessing_pipe(work: Work) -> Iterator[Work]:
    """``multiprocessing.Pipe``: pickles."""
    with _pipe(multiprocessing.get_context("spawn"), work) as call:
        yield call


@contextmanager
def multiprocess_pipe(work: Work) -> Iterator[Work]:
    """``multiprocess.Pipe``: dill's pickles."""
    import multiprocess

    with _pipe(multiprocess.get_context("spawn"), work) as call:
        yield call


@contextmanager
def _pipe(context: Any, work: Work) -> Iterator[Work]:  # Any: multiprocess has no types
    mine, theirs = context.Pipe()
    child = context.Process(target=_serve_pipe, args=(theirs, work.__module__), daemon=True)
    child.start()
    theirs.close()

    def call(request: object) -> object:
        mine.send(request)
        return mine.recv()

    with mine:
        yield call
    child.join(_PATIENCE)
    child.close()


@contextmanager
def multiprocessing_pipes(work: Work, workers: int = 1) -> Iterator[Work]:
    """A ``multiprocessing.Pipe`` for each worker, which callers take turns with."""
    idle: queue.SimpleQueue[Work] = queue.SimpleQueue()

    def call(request: object) -> object:
        pipe = idle.get()
        try:
            return pipe(request)
        finally:
            idle.put(pipe)

    with ExitStack() as stack:
        for _ in range(workers):
            idle.put(stack.enter_context(multiprocessing_pipe(work)))
        yield call


def _serve_pipe(connection: Any, module: str) -> None:
    work = importlib.import_module(module).calculate
    try:
        while True:
            connection.send(work(connection.recv()))
    except EOFError:
        return


@contextmanager
def executor(work: Work, workers: int = 1) -> Iterator[Work]:
    """``concurrent.futures.ProcessPoolExecutor``."""
    with process_pool(workers) as pool:
        yield lambda request: pool.submit(work, request).result()


def process_pool(workers: int) -> ProcessPoolExecutor:
    """Make the pool; spawned, because a fork of this process would inherit every other peer."""
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


@contextmanager
def multiprocess_pool(work: Work, workers: int = 1) -> Iterator[Work]:
    """``multiprocess.Pool.apply``."""
    import multiprocess

    pool = multiprocess.get_context("spawn").Pool(workers)
    try:
        yield lambda request: pool.apply(work, (request,))
    finally:
        pool.close()
        pool.join()


@contextmanager
def pebble_pool(work: Work, workers: int = 1) -> Iterator[Work]:
    """``pebble.ProcessPool``."""
    from pebble import ProcessPool

    with ProcessPool(max_workers=workers, context=multiprocessing.get_context("spawn")) as pool:
        yield lambda request: pool.schedule(work, args=(request,)).result()


@contextmanager
def loky_executor(work: Work) -> Iterator[Work]:
    """``loky.get_reusable_executor``."""
    from loky import get_reusable_executor

    pool = get_reusable_executor(max_workers=1, timeout=None)
    try:
        yield lambda request: pool.submit(work, request).result()
    finally:
        pool.shutdown(wait=True, kill_workers=True)


@contextmanager
def rpyc_service(work: Work) -> Iterator[Work]:
    """rpyc over TCP on loopback. Requests and answers are tuples of pairs, which cross by value; a dict would cost one more round
    trip for each item."""
    from rpyc.core.stream import SocketStream
    from rpyc.utils.factory import connect_stream

    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    child = context.Process(target=_serve_rpyc, args=(theirs, work.__module__), daemon=True)
    child.start()
    theirs.close()
    with mine:
        stream = SocketStream.connect("127.0.0.1", mine.recv(), nodelay=True)
    connection = connect_stream(stream)
    answer_type = _types(work)[1]
    execute = connection.root.execute
    try:
        yield lambda request: answer_type(execute(tuple(_items(request))))
    finally:
        connection.close()
        child.join(_PATIENCE)
        child.close()


def _serve_rpyc(told: Any, module: str) -> None:
    import rpyc
    from rpyc.core.stream import SocketStream
    from rpyc.utils.factory import connect_stream

    work = importlib.import_module(module).calculate
    request_type = _types(work)[0]

    class Service(rpyc.Service):  # type: ignore[misc]  # rpyc has no types
        def exposed_execute(self, pairs: tuple[tuple[str, object], ...]) -> tuple[tuple[str, object], ...]:
            return tuple(_items(work(request_type(pairs))))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        told.send(listener.getsockname()[1])
        connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connect_stream(SocketStream(connection), Service).serve_all()


@contextmanager
def execnet_gateway(work: Work) -> Iterator[Work]:
    """An execnet channel through a popen gateway. It carries plain data: models cross as dicts."""
    import execnet

    group = execnet.Group()
    channel = group.makegateway(f"popen//python={sys.executable}").remote_exec(_serve_execnet, module=work.__module__)
    answer_type = _types(work)[1]

    def call(request: object) -> object:
        channel.send(dict(_items(request)))
        return answer_type(channel.receive())

    try:
        yield call
    finally:
        channel.close()
        group.terminate(timeout=_PATIENCE)


# Its source is sent to a process that doesn't have this module.
def _serve_execnet(channel, module):  # type: ignore[no-untyped-def]
    import importlib

    work = importlib.import_module(module).calculate
    make = getattr(importlib.import_module(module), "CalculatorRequest", dict)
    for request in channel:
        channel.send(dict(work(make(**request))))


def _types(work: Work) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Return what makes a request and an answer of pairs or a dict."""
    module = sys.modules[work.__module__]
    if not hasattr(module, "CalculatorRequest"):
        return dict, dict
    return lambda pairs: module.CalculatorRequest(**dict(pairs)), lambda pairs: module.CalculatorResponse(**dict(pairs))


def _items(value: Any) -> Any:
    """Return the pairs of a dict or a model."""
    return value.items() if isinstance(value, dict) else value


POOLS: dict[str, Opening] = {
    "multiprocessing.Pipe": multiprocessing_pipe,
    "multiprocess.Pipe (dill)": multiprocess_pipe,
    "ProcessPoolExecutor": executor,
    "multiprocess.Pool.apply": multiprocess_pool,
    "pebble ProcessPool": pebble_pool,
    "loky executor": loky_executor,
    "rpyc (tuples by value)": rpyc_service,
    "execnet channel": execnet_gateway,
}

# For callers on many threads, with as many workers as are asked for.
MANY: dict[str, ManyOpening] = {
    "ProcessPoolExecutor": executor,
    "pebble ProcessPool": pebble_pool,
    "multiprocess.Pool.apply": multiprocess_pool,
    "multiprocessing.Pipe": multiprocessing_pipes,
}
