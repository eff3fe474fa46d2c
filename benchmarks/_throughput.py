"""Many callers: threads on one and two workers, and asyncio tasks on one."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

from hostkit import Host

from . import _models, _peers, _plugin
from ._models import CalculatorRequest, CalculatorResponse
from ._report import Row, Section, ratios
from ._timing import Peer, interleave

_THREADS, _TASKS = 16, 1000

Call = Callable[[], object]


def measure(*, rounds: int, turn: float) -> list[Section]:
    """Measure calls a second. Turns are longer than elsewhere: threads and tasks are started in each."""
    rounds, turn = max(3, rounds // 2), turn * 5
    return [*(_threads(workers, rounds, turn) for workers in (1, 2)), _tasks(rounds, turn)]


def _threads(workers: int, rounds: int, turn: float) -> Section:
    section = Section(f"{_THREADS} caller threads, {_words(workers)}", base="ProcessPoolExecutor, dict")
    with ExitStack() as stack:
        host = stack.enter_context(_host(workers))
        calculator = host.plugin("calculator", CalculatorRequest, CalculatorResponse)
        pool = stack.enter_context(_peers.process_pool(workers))
        calls: dict[str, Call] = {
            "hostkit host.execute, dict": lambda: host.execute("plain", _plugin.REQUEST),
            "hostkit handle.execute, model": lambda: calculator.execute(_models.REQUEST),
            "ProcessPoolExecutor, dict": lambda: pool.submit(_plugin.calculate, _plugin.REQUEST).result(),
            "ProcessPoolExecutor, model": lambda: pool.submit(_models.calculate, _models.REQUEST).result(),
        }
        found = _rates([Peer(name, _from_threads(call)) for name, call in calls.items()], rounds, turn)
    section.rows += [Row(name, samples, "calls/s") for name, samples in found.items()]
    for payload, ours in (("dict", "hostkit host.execute, dict"), ("model", "hostkit handle.execute, model")):
        gained = ratios(found[ours], found[f"ProcessPoolExecutor, {payload}"])
        section.promise(f"{_THREADS} threads, {_words(workers)}, {payload} ÷ ProcessPoolExecutor", gained, least=6.0)
    return section


def _tasks(rounds: int, turn: float) -> Section:
    section = Section(f"{_TASKS:,} asyncio tasks, {_words(1)}", base="run_in_executor(ProcessPoolExecutor), dict")
    with ExitStack() as stack:
        host = stack.enter_context(_host(1))
        calculator = host.plugin("calculator", CalculatorRequest, CalculatorResponse)
        pool = stack.enter_context(_peers.process_pool(1))

        def in_pool() -> Awaitable[Any]:
            return asyncio.get_running_loop().run_in_executor(pool, _plugin.calculate, _plugin.REQUEST)

        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "hostkit host.aexecute, dict": lambda: host.aexecute("plain", _plugin.REQUEST),
            "hostkit handle.aexecute, model": lambda: calculator.aexecute(_models.REQUEST),
            section.base: in_pool,
        }
        found = _rates([Peer(name, _from_tasks(call)) for name, call in calls.items()], rounds, turn)
    section.rows += [Row(name, samples, "calls/s") for name, samples in found.items()]
    for name in list(calls)[:2]:
        section.promise(f"{_TASKS:,} tasks, {name}", found[name], "calls/s", least=40_000.0)
        section.promise(f"{_TASKS:,} tasks, {name} ÷ ProcessPoolExecutor", ratios(found[name], found[section.base]), least=10.0)
    return section


def _host(workers: int) -> Host:
    host = Host("benchmarks", config={"plugins": {"plain": {"workers": workers}, "calculator": {"workers": workers}}})
    try:
        host.register(_plugin.Plain, name="plain", isolation="process")
        host.register(_models.Calculator, name="calculator", isolation="process")
    except BaseException:
        host.close()
        raise
    return host


def _rates(peers: list[Peer], rounds: int, turn: float) -> dict[str, list[float]]:
    found = interleave(peers, rounds=rounds, turn=turn)
    return {name: [1.0 / seconds for seconds in samples] for name, samples in found.items()}


def _from_threads(call: Call) -> Callable[[int], float]:
    """Return how to make n calls from all threads together; fewer than one a thread are as many as there are threads."""

    def run(number: int) -> float:
        share = -(-number // _THREADS)
        together = threading.Barrier(_THREADS + 1)

        def caller() -> None:
            together.wait()
            for _ in range(share):
                call()

        threads = [threading.Thread(target=caller) for _ in range(_THREADS)]
        for thread in threads:
            thread.start()
        together.wait()
        started = time.perf_counter()
        for thread in threads:
            thread.join()
        return (time.perf_counter() - started) * number / (share * _THREADS)

    return run


def _from_tasks(call: Callable[[], Awaitable[Any]]) -> Callable[[int], float]:
    """Return how to make n calls from all tasks together; fewer than one a task are as many as there are tasks."""

    async def caller(share: int) -> None:
        for _ in range(share):
            await call()

    async def all_callers(number: int) -> float:
        share = -(-number // _TASKS)
        started = time.perf_counter()
        await asyncio.gather(*(caller(share) for _ in range(_TASKS)))
        return (time.perf_counter() - started) * number / (share * _TASKS)

    return lambda number: asyncio.run(all_callers(number))


def _words(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"
