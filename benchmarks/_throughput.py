"""Sixteen threads that call at once, on one, two and four workers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from . import _models, _peers, _plugin
from ._callers import Callers, calculators, in_words, measured, promise_fairness, threads_here
from ._models import CalculatorRequest, CalculatorResponse
from ._report import Row, Section, ratios

_THREADS = 16
_POOL = "ProcessPoolExecutor"
_OURS = {"dict": "hostkit host.execute, dict", "model": "hostkit handle.execute, model"}


def measure(*, rounds: int, turn: float) -> list[Section]:
    """Measure calls a second. Turns are longer than elsewhere: the threads are started in each."""
    rounds, turn = max(3, rounds // 2), turn * 5
    return [*(_threads(workers, rounds, turn) for workers in (1, 2, 4)), _added()]


def _added() -> Section:
    """Count the threads of this process while its callers call, without the callers."""
    section = Section(f"Threads that are added, {_THREADS} caller threads, {in_words(2)}")
    before = threads_here()
    with calculators(2) as host:
        section.rows.append(_counted("hostkit", lambda: host.execute("plain", _plugin.REQUEST), before))
    for name, opening in _peers.MANY.items():
        before = threads_here()
        try:
            with opening(_plugin.calculate, 2) as call:
                section.rows.append(_counted(name, _bound(call, _plugin.REQUEST), before))
        except ImportError as error:
            section.missing(name, f"not installed: {error.name}")
    section.promise("threads that hostkit adds", section.rows[0].samples, "threads", most=_THREADS / 4)
    return section


def _counted(name: str, call: Callable[[], object], before: int) -> Row:
    call()
    callers = Callers(_THREADS)
    run = callers.from_threads(call)
    for _ in range(5):
        run(_THREADS * 20)
    return Row(name, [callers.threads - before], "threads")


def _threads(workers: int, rounds: int, turn: float) -> Section:
    missing = {}
    with ExitStack() as stack:
        host = stack.enter_context(calculators(workers))
        calculator = host.plugin("calculator", CalculatorRequest, CalculatorResponse)
        calls: dict[str, Callable[[], object]] = {
            _OURS["dict"]: lambda: host.execute("plain", _plugin.REQUEST),
            _OURS["model"]: lambda: calculator.execute(_models.REQUEST),
        }
        for name, opening in _peers.MANY.items():
            try:
                for payload, work, request in _PAYLOADS:
                    calls[f"{name}, {payload}"] = _bound(stack.enter_context(opening(work, workers)), request)
            except ImportError as error:
                missing[name] = f"not installed: {error.name}"
        for call in calls.values():
            call()
        turns = {name: (callers := Callers(_THREADS), callers.from_threads(call)) for name, call in calls.items()}
        section = measured(f"{_THREADS} caller threads, {in_words(workers)}", f"{_POOL}, dict", turns, rounds, turn)
    for name, why in missing.items():
        section.missing(name, why)
    found = {row.name: row.samples for row in section.rows}
    for payload, ours in _OURS.items():
        what = f"{_THREADS} threads, {in_words(workers)}, {payload}"
        section.promise(f"{what} ÷ {_POOL}", ratios(found[ours], found[f"{_POOL}, {payload}"]), least=6.0)
        promise_fairness(section, what, turns[ours][0])
    return section


_PAYLOADS: tuple[tuple[str, Callable[[Any], Any], object], ...] = (
    ("dict", _plugin.calculate, _plugin.REQUEST),
    ("model", _models.calculate, _models.REQUEST),
)


def _bound(call: Callable[[Any], Any], request: object) -> Callable[[], object]:
    return lambda: call(request)
