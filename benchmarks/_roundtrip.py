"""One caller, one worker: how long a small call into another process takes."""

from __future__ import annotations

import json
import timeit
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from pydantic_core import to_json

from hostkit import Host, PluginHandle

from . import _models, _peers, _plugin
from ._cpu import Meter, both
from ._models import CalculatorRequest, CalculatorResponse
from ._report import Section, ratios
from ._timing import Peer, interleave

_PING, _CODEC, _PIPE, _POOL = "raw 64-byte ping-pong", "codec alone", "multiprocessing.Pipe", "ProcessPoolExecutor"


def measure(*, rounds: int, turn: float) -> list[Section]:
    """Measure a small dict and a small pydantic model."""
    return [_dict(rounds, turn), _model(rounds, turn)]


def _dict(rounds: int, turn: float) -> Section:
    with Host("benchmarks") as host:
        host.register(_plugin.Plain, name="plain", isolation="process")
        handle: PluginHandle[Any, Any] = host.plugin("plain")
        ours = {
            "hostkit host.execute": lambda: host.execute("plain", _plugin.REQUEST),
            "hostkit handle.execute": lambda: handle.execute(_plugin.REQUEST),
        }
        return _section("dict", ours, _dict_codec, _plugin.calculate, _plugin.REQUEST, rounds, turn)


def _model(rounds: int, turn: float) -> Section:
    with Host("benchmarks") as host:
        host.register(_models.Calculator, name="calculator", isolation="process")
        handle = host.plugin("calculator", CalculatorRequest, CalculatorResponse)
        data = _models.REQUEST.model_dump()
        ours = {
            "hostkit handle.execute, typed": lambda: handle.execute(_models.REQUEST),
            "hostkit host.execute, untyped": lambda: host.execute("calculator", data),
        }
        return _section("pydantic model", ours, _model_codec, _models.calculate, _models.REQUEST, rounds, turn)


def _dict_codec() -> None:
    """Request and answer, encoded and decoded once each."""
    for value in (_plugin.REQUEST, {"result": 5.0}):
        json.loads(json.dumps(value).encode())


def _model_codec() -> None:
    CalculatorRequest.model_validate_json(to_json(_models.REQUEST))
    CalculatorResponse.model_validate_json(to_json(_ANSWER))


_ANSWER = CalculatorResponse(result=5)


def _section(
    what: str,
    ours: dict[str, Callable[[], object]],
    codec: Callable[[], object],
    work: Callable[[Any], Any],
    request: object,
    rounds: int,
    turn: float,
) -> Section:
    section = Section(f"Isolated round trip, one caller, a small {what}", base=next(iter(ours)))
    with ExitStack() as stack:
        calls = {**ours, _PING: stack.enter_context(_peers.ping_pong()), _CODEC: codec}
        for name, opening in _peers.POOLS.items():
            try:
                call = stack.enter_context(opening(work))
            except ImportError as error:
                section.missing(name, f"not installed: {error.name}")
                continue
            calls[name] = _bound(call, request)
        _check(calls, request, work)
        meter = Meter()
        peers = [Peer(name, timeit.Timer(call).timeit) for name, call in calls.items()]
        found = interleave(peers, rounds=rounds, turn=turn, meter=meter)
    section.measured(found, beside=meter.found)
    _promise(section, what, found)
    spent = {name: both(meter.found[name]) for name in (section.base, _PIPE, _POOL)}
    section.promise(f"isolated {what} ÷ multiprocessing.Pipe, CPU", ratios(spent[section.base], spent[_PIPE]), most=0.7)
    section.promise(f"ProcessPoolExecutor ÷ isolated {what}, CPU", ratios(spent[_POOL], spent[section.base]), least=8.0)
    return section


def _bound(call: Callable[[Any], Any], request: object) -> Callable[[], object]:
    return lambda: call(request)


def _check(calls: dict[str, Callable[[], object]], request: object, work: Callable[[Any], Any]) -> None:
    """Fail rather than measure a peer that answers something else."""
    expected = dict(work(request))
    for name, call in calls.items():
        if name not in (_PING, _CODEC):
            assert dict(call()) == expected, name  # type: ignore[call-overload]


def _promise(section: Section, what: str, found: dict[str, list[float]]) -> None:
    mine = found[section.base]
    floor = [ping + codec for ping, codec in zip(found[_PING], found[_CODEC], strict=True)]
    section.promise(f"isolated {what} ÷ multiprocessing.Pipe", ratios(mine, found[_PIPE]), most=0.7)
    section.promise(f"ProcessPoolExecutor ÷ isolated {what}", ratios(found[_POOL], mine), least=8.0)
    section.promise(f"isolated {what} ÷ (ping-pong + codec)", ratios(mine, floor), most=2.5)
