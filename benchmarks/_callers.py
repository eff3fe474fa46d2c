"""Many callers at once, as threads or as asyncio tasks, and how long each of their calls took."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from hostkit import Host

from . import _models, _plugin
from ._cpu import Meter
from ._report import Row, Section
from ._timing import Peer, interleave

# The design's: of a hundred calls the slowest waits at most so many times as long as the one in the middle.
_FAIR = 10.0


class Callers:
    """``number`` callers of one function; after each turn it knows the latencies of that turn."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.p50: list[float] = []
        self.p99: list[float] = []
        self.threads = 0  # the most that this process had, but for the callers' own
        self._latencies: list[list[float]] = []

    def from_threads(self, call: Callable[[], object]) -> Callable[[int], float]:
        """Return how to make n calls from all threads together; fewer than one a thread are as many as there are threads."""

        def run(number: int) -> float:
            share = -(-number // self.number)
            self._latencies = [[] for _ in range(self.number)]
            together = threading.Barrier(self.number + 1)

            def caller(latencies: list[float]) -> None:
                together.wait()
                for _ in range(share):
                    started = time.perf_counter()
                    call()
                    latencies.append(time.perf_counter() - started)

            threads = [threading.Thread(target=caller, args=(latencies,)) for latencies in self._latencies]
            for thread in threads:
                thread.start()
            together.wait()
            started = time.perf_counter()
            self.threads = max(self.threads, threads_here() - self.number)
            for thread in threads:
                thread.join()
            return (time.perf_counter() - started) * number / (share * self.number)

        return run

    def from_tasks(self, call: Callable[[], Awaitable[object]]) -> Callable[[int], float]:
        """Return how to make n calls from all tasks together; fewer than one a task are as many as there are tasks."""

        async def caller(share: int, latencies: list[float]) -> None:
            for _ in range(share):
                started = time.perf_counter()
                await call()
                latencies.append(time.perf_counter() - started)

        async def all_callers(number: int) -> float:
            share = -(-number // self.number)
            self._latencies = [[] for _ in range(self.number)]
            started = time.perf_counter()
            await asyncio.gather(*(caller(share, latencies) for latencies in self._latencies))
            seconds = time.perf_counter() - started
            self.threads = max(self.threads, threads_here())
            return seconds * number / (share * self.number)

        return lambda number: asyncio.run(all_callers(number))

    def note(self) -> None:
        """Keep the percentiles of the last turn."""
        waited = sorted(each for latencies in self._latencies for each in latencies)
        self.p50.append(waited[len(waited) // 2])
        self.p99.append(waited[len(waited) * 99 // 100])


def measured(title: str, base: str, turns: dict[str, tuple[Callers, Callable[[int], float]]], rounds: int, turn: float) -> Section:
    """Measure calls a second, with CPU and percentiles beside them."""
    section, meter = Section(title, base=base), _Noting(turns)
    found = interleave([Peer(name, run) for name, (_, run) in turns.items()], rounds=rounds, turn=turn, meter=meter)
    for name, (callers, _) in turns.items():
        beside = {**meter.found[name], "p50": callers.p50, "p99": callers.p99}
        section.rows.append(Row(name, [1.0 / each for each in found[name]], "calls/s", beside=beside))
    return section


class _Noting(Meter):
    def __init__(self, turns: dict[str, tuple[Callers, Callable[[int], float]]]) -> None:
        super().__init__()
        self._turns = turns

    def end(self, name: str, calls: int) -> None:
        callers = self._turns[name][0]
        super().end(name, -(-calls // callers.number) * callers.number)
        callers.note()


def promise_fairness(section: Section, what: str, callers: Callers) -> None:
    """Add the budget of the slowest calls."""
    section.promise(f"{what}: p99 ÷ p50", [p99 / p50 for p50, p99 in zip(callers.p50, callers.p99, strict=True)], most=_FAIR)


def calculators(workers: int) -> Host:
    """Return a host with both plugins in as many workers."""
    host = Host("benchmarks", config={"plugins": {"plain": {"workers": workers}, "calculator": {"workers": workers}}})
    try:
        host.register(_plugin.Plain, name="plain", isolation="process")
        host.register(_models.Calculator, name="calculator", isolation="process")
    except BaseException:
        host.close()
        raise
    return host


def in_words(workers: int) -> str:
    """Return how many workers."""
    return "1 worker" if workers == 1 else f"{workers} workers"


def threads_here() -> int:
    """Return how many threads this process has, those of libraries too."""
    return sum(1 for _ in Path("/proc/self/task").iterdir())
