"""What callers see when the worker that runs a call is killed: of hostkit and of other pools, in the same run.

measure ─► for each pool a process of its own: python -m benchmarks._faults POOL ─► what its callers saw, as JSON
           (one that hangs is killed with its children)

Each pool is killed a worker twice: its only one, which shows how soon there is an error and the next answer; and one of two, while the
other works and four calls are queued, which shows what happens to those that had no part in it.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from . import _victim
from ._report import Row, Section

Call = Callable[[dict[str, Any]], object]

# Seconds after which somebody who still waits is said to hang.
_LIMIT = 5.0
# Seconds for a pool to start, see both deaths, and end.
_WHOLE = 45.0
_QUEUED = 4
_OURS, _STANDBY = "hostkit", "hostkit, standby = 1"


def measure(*, rounds: int, turn: float) -> list[Section]:
    """Let each pool lose its workers several times; one that hangs, once."""
    del turn  # a death is one death
    seen: dict[str, list[dict[str, Any]]] = {name: [] for name in _POOLS}
    for _ in range(max(3, rounds // 3)):
        for name, found in seen.items():
            if not (found and found[-1].get("hangs")):
                found.append(_watched(name))
    section = Section(
        "SIGKILL to the worker that runs a call: until its caller knows; the calls that had no part in it; the next call"
    )
    section.rows += [_row(name, found) for name, found in seen.items()]
    for name, next_in in ((_OURS, 0.060), (_STANDBY, 0.005)):
        found = seen[name]
        section.promise(f"{name}: typed error after a death", [each["error_after"] for each in found], "s", most=0.005)
        section.promise(f"{name}: next call answered after a death", [each["next_after"] for each in found], "s", most=next_in)
        section.promise(f"{name}: innocent calls lost", [each["lost"] for each in found], "calls", most=0.0)
    return [section]


def _row(name: str, found: list[dict[str, Any]]) -> Row:
    why = found[0].get("missing")
    if why:
        return Row(name, note=why)
    last = found[-1]
    after = [each["error_after"] for each in found if each["error_after"] is not None]
    answers = [each["next_after"] for each in found if each["next_after"] is not None]
    beside: dict[str, Any] = {
        "its error": last["error"],
        "call on the other worker": last["neighbour"],
        f"{_QUEUED} queued": last["queued"],
        "next call": answers or last["next"],
    }
    return Row(name, after, "s", note="hangs", beside=beside)


def _watched(name: str) -> dict[str, Any]:
    """Run one pool in a process of its own and return what it tells."""
    command = [sys.executable, "-m", "benchmarks._faults", name]
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as words:
        child = subprocess.Popen(command, stdout=said, stderr=words, start_new_session=True)
        try:
            child.wait(_WHOLE)
        except subprocess.TimeoutExpired:
            pass
        finally:
            for pid in (*_descendants(child.pid), child.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            child.wait()
        said.seek(0)
        words.seek(0)
        told: dict[str, Any] = json.loads(said.read() or b"null") or {"missing": words.read().decode().strip().rpartition("\n")[2]}
        return told


def _descendants(pid: int) -> list[int]:
    """Return the processes of a session that are not its leader."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            if int(fields[3]) == pid and int(stat.parent.name) != pid:
                found.append(int(stat.parent.name))
    return found


# From here on in the process of one pool.


def main() -> None:
    """Tell on stdout what the callers of one pool saw."""
    opening = _POOLS[sys.argv[1]]
    with tempfile.TemporaryDirectory(prefix="hostkit-benchmarks-") as place:
        try:
            told = {**_alone(opening, place), **_with_others(opening, place)}
        except ImportError as error:
            told = {"missing": f"not installed: {error.name}"}
        told["hangs"] = "hangs" in told.values()
        print(json.dumps(told), flush=True)
    os._exit(0)  # some pools can't be closed any more


def _alone(opening: Callable[[int], AbstractContextManager[Call]], place: str) -> dict[str, Any]:
    stack = ExitStack()
    call = stack.enter_context(opening(1))
    call({"number": 0})
    victim = _Caller(call, {"number": 1, "seconds": 60.0, "place": f"{place}/alone"})
    killed = _kill(f"{place}/alone")
    victim.wait()
    following = _Caller(call, {"number": 2})
    following.wait()
    _close(stack)
    return {
        "error": victim.outcome,
        "error_after": None if victim.at is None else victim.at - killed,
        "next": following.outcome,
        "next_after": following.at - killed if following.at is not None and following.answered else None,
    }


def _with_others(opening: Callable[[int], AbstractContextManager[Call]], place: str) -> dict[str, Any]:
    stack = ExitStack()
    call = stack.enter_context(opening(2))
    # Both at once, so that both workers are there.
    for caller in [_Caller(call, {"number": 0, "seconds": 0.3}) for _ in range(2)]:
        caller.wait()
    _Caller(call, {"number": 1, "seconds": 60.0, "place": f"{place}/victim"})
    neighbour = _Caller(call, {"number": 2, "seconds": 0.5, "place": f"{place}/neighbour"})
    _pid(f"{place}/neighbour")
    queued = [_Caller(call, {"number": 3 + number}) for number in range(_QUEUED)]
    time.sleep(0.05)  # until they wait
    _kill(f"{place}/victim")
    for caller in (neighbour, *queued):
        caller.wait()
    _close(stack)
    answered = sum(caller.answered for caller in queued)
    others = sorted({caller.outcome for caller in queued if not caller.answered})
    return {
        "neighbour": neighbour.outcome,
        "queued": "answered" if answered == _QUEUED else f"{_QUEUED - answered}: {', '.join(others)}",
        "lost": _QUEUED + 1 - answered - neighbour.answered,
    }


class _Caller:
    """A thread that makes one call, and what came of it."""

    def __init__(self, call: Call, request: dict[str, Any]) -> None:
        self.answered = False
        self.outcome = "hangs"
        self.at: float | None = None
        self._over = threading.Event()
        threading.Thread(target=self._run, args=(call, request), daemon=True).start()

    def _run(self, call: Call, request: dict[str, Any]) -> None:
        try:
            assert call(request) == {"number": request["number"]}
        except BaseException as error:
            self.at, self.outcome = time.perf_counter(), type(error).__name__
        else:
            self.at, self.outcome, self.answered = time.perf_counter(), "answered", True
        self._over.set()

    def wait(self) -> None:
        self._over.wait(_LIMIT)


def _kill(place: str) -> float:
    """Kill the process that has told its id there, and return when."""
    pid = _pid(place)
    time.sleep(0.1)  # nothing else is going on by then
    at = time.perf_counter()
    os.kill(pid, signal.SIGKILL)
    return at


def _pid(place: str) -> int:
    until = time.monotonic() + _LIMIT
    while time.monotonic() < until:
        with suppress(FileNotFoundError):
            return int(Path(place).read_text(encoding="ascii"))
        time.sleep(0.001)
    raise TimeoutError(f"nobody works at {place}")


def _close(stack: ExitStack) -> None:
    """Close a pool, if it can be closed."""
    closing = threading.Thread(target=stack.close, daemon=True)
    closing.start()
    closing.join(1.0)


@contextmanager
def _hostkit(workers: int, standby: int = 0) -> Iterator[Call]:
    from hostkit import Host

    with Host("benchmarks", config={"plugins": {"victim": {"sandbox": "off", "workers": workers, "standby": standby}}}) as host:
        host.register(_victim.Victim, name="victim", isolation="process")
        host.load("victim")
        backend: Any = host._loader.record("victim").lane.backend  # type: ignore[union-attr]  # it is loaded
        until = time.monotonic() + _LIMIT
        while sum(link.ready for link in list(backend.supervisor._links)) < workers + standby and time.monotonic() < until:
            time.sleep(0.001)
        yield lambda request: host.execute("victim", request)


@contextmanager
def _multiprocessing_pool(workers: int) -> Iterator[Call]:
    import multiprocessing

    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield lambda request: pool.apply(_victim.work, (request,))


@contextmanager
def _multiprocess_pool(workers: int) -> Iterator[Call]:
    import multiprocess

    with multiprocess.get_context("spawn").Pool(workers) as pool:
        yield lambda request: pool.apply(_victim.work, (request,))


@contextmanager
def _process_pool(workers: int) -> Iterator[Call]:
    from ._peers import process_pool

    with process_pool(workers) as pool:
        yield lambda request: pool.submit(_victim.work, request).result()


@contextmanager
def _loky(workers: int) -> Iterator[Call]:
    from loky import get_reusable_executor

    pools = [get_reusable_executor(max_workers=workers, timeout=None)]

    def call(request: dict[str, Any]) -> object:
        pool = pools[0]
        try:
            return pool.submit(_victim.work, request).result()
        except BrokenExecutor:
            # As its documentation says: asked for again, a broken executor is a new one.
            if pools[0] is pool:
                pools[0] = get_reusable_executor(max_workers=workers, timeout=None)
            raise

    yield call
    pools[0].shutdown(wait=True, kill_workers=True)


@contextmanager
def _pebble(workers: int) -> Iterator[Call]:
    import multiprocessing

    from pebble import ProcessPool

    with ProcessPool(max_workers=workers, context=multiprocessing.get_context("spawn")) as pool:
        yield lambda request: pool.schedule(_victim.work, args=(request,)).result()


@contextmanager
def _mpire(workers: int) -> Iterator[Call]:
    from mpire import WorkerPool

    with WorkerPool(n_jobs=workers, start_method="spawn", keep_alive=True) as pool:
        yield lambda request: pool.apply(_victim.work, (request,))


@contextmanager
def _pipes(workers: int) -> Iterator[Call]:
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    ends = []
    for _ in range(workers):
        mine, theirs = context.Pipe()
        context.Process(target=_serve_pipe, args=(theirs,), daemon=True).start()
        theirs.close()
        ends.append(mine)

    def exchange(end: Any, request: dict[str, Any]) -> object:
        end.send(request)
        return end.recv()

    yield _in_turns(ends, exchange)


def _serve_pipe(end: Any) -> None:
    while True:
        end.send(_victim.work(end.recv()))


@contextmanager
def _zmq(workers: int) -> Iterator[Call]:
    import multiprocessing

    import zmq

    with tempfile.TemporaryDirectory(prefix="hostkit-benchmarks-") as place:
        sockets = []
        for number in range(workers):
            address = f"ipc://{place}/{number}"
            multiprocessing.get_context("spawn").Process(target=_serve_zmq, args=(address,), daemon=True).start()
            sockets.append(zmq.Context.instance().socket(zmq.REQ))
            sockets[-1].connect(address)

        def exchange(socket: Any, request: dict[str, Any]) -> object:
            socket.send_pyobj(request)
            return socket.recv_pyobj()

        yield _in_turns(sockets, exchange)


def _serve_zmq(address: str) -> None:
    import zmq

    socket = zmq.Context().socket(zmq.REP)
    socket.bind(address)
    while True:
        socket.send_pyobj(_victim.work(socket.recv_pyobj()))


def _in_turns(ends: list[Any], exchange: Callable[[Any, dict[str, Any]], object]) -> Call:
    """Return a call that waits for its turn with one of the ends; one that failed is not used again while there are others."""
    idle: queue.LifoQueue[Any] = queue.LifoQueue()
    for end in ends:
        idle.put(end)

    def call(request: dict[str, Any]) -> object:
        end = idle.get()
        try:
            answer = exchange(end, request)
        except BaseException:
            if len(ends) == 1:
                idle.put(end)
            raise
        idle.put(end)
        return answer

    return call


_POOLS: dict[str, Callable[[int], AbstractContextManager[Call]]] = {
    _OURS: _hostkit,
    _STANDBY: lambda workers: _hostkit(workers, standby=1),
    "multiprocessing.Pool": _multiprocessing_pool,
    "multiprocess.Pool": _multiprocess_pool,
    "ProcessPoolExecutor": _process_pool,
    "loky (reusable executor)": _loky,
    "pebble ProcessPool": _pebble,
    "mpire WorkerPool": _mpire,
    "zmq REQ/REP": _zmq,
    "multiprocessing.Pipe": _pipes,
}


if __name__ == "__main__":
    main()
