"""A thousand asyncio tasks that call at once, on one, two and four workers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

from . import _models, _peers, _plugin
from ._callers import Callers, calculators, in_words, measured, promise_fairness
from ._models import CalculatorRequest, CalculatorResponse
from ._report import Section, ratios

_TASKS = 1000
_POOL = "run_in_executor(ProcessPoolExecutor)"
_OURS = {"dict": "hostkit host.aexecute, dict", "model": "hostkit handle.aexecute, model"}


def measure(*, rounds: int, turn: float) -> list[Section]:
    """Measure calls a second. Turns are longer than elsewhere: the tasks are started in each."""
    rounds, turn = max(3, rounds // 2), turn * 5
    return [_tasks(workers, rounds, turn) for workers in (1, 2, 4)]


def _tasks(workers: int, rounds: int, turn: float) -> Section:
    with ExitStack() as stack:
        host = stack.enter_context(calculators(workers))
        calculator = host.plugin("calculator", CalculatorRequest, CalculatorResponse)
        pool = stack.enter_context(_peers.process_pool(workers))

        def in_pool(work: Callable[[Any], Any], request: object) -> Callable[[], Awaitable[object]]:
            return lambda: asyncio.get_running_loop().run_in_executor(pool, work, request)

        calls: dict[str, Callable[[], Awaitable[object]]] = {
            _OURS["dict"]: lambda: host.aexecute("plain", _plugin.REQUEST),
            _OURS["model"]: lambda: calculator.aexecute(_models.REQUEST),
            f"{_POOL}, dict": in_pool(_plugin.calculate, _plugin.REQUEST),
            f"{_POOL}, model": in_pool(_models.calculate, _models.REQUEST),
        }
        turns = {name: (callers := Callers(_TASKS), callers.from_tasks(call)) for name, call in calls.items()}
        for _, run in turns.values():
            run(_TASKS)
        section = measured(f"{_TASKS:,} asyncio tasks, {in_words(workers)}", f"{_POOL}, dict", turns, rounds, turn)
    found = {row.name: row.samples for row in section.rows}
    for payload, ours in _OURS.items():
        what = f"{_TASKS:,} tasks, {in_words(workers)}, {payload}"
        if workers == 1:
            section.promise(what, found[ours], "calls/s", least=40_000.0)
        section.promise(f"{what} ÷ ProcessPoolExecutor", ratios(found[ours], found[f"{_POOL}, {payload}"]), least=10.0)
        promise_fairness(section, what, turns[ours][0])
    return section
