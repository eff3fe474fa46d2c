"""Sixteen threads that call at once, on one, two and four workers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from . import _models, _peers, _plugin
from ._callers import Callers, calculators, in_words, measured, promise_fairness
from ._models import CalculatorRequest, CalculatorResponse
from ._report import Section, ratios

_THREADS = 16
_POOL = "ProcessPoolExecutor"
_OURS = {"dict": "hostkit host.execute, dict", "model": "hostkit handle.execute, model"}


def measure(*, rounds: int, turn: float) -> list[Section]:
    """Measure calls a second. Turns are longer than elsewhere: the threads are started in each."""
    rounds, turn = max(3, rounds // 2), turn * 5
    return [_threads(workers, rounds, turn) for workers in (1, 2, 4)]


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
