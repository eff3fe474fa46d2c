"""What stands between a caller and a plugin in the same process."""

from __future__ import annotations

import math
import timeit
from typing import Any

import pluggy

from hostkit import ExecutionContext, Host, Plugin

from . import _models
from ._models import CalculatorRequest, CalculatorResponse
from ._report import Section, ratios
from ._timing import Peer, interleave

_hookspec = pluggy.HookspecMarker("benchmarks")
_hookimpl = pluggy.HookimplMarker("benchmarks")

_PLUGGY, _HANDLE = "pluggy hook, one implementation", "hostkit handle.execute, typed"
_PLAIN = "handle.execute"


def measure(*, rounds: int, turn: float) -> list[Section]:
    """Measure a plugin that does nothing, and the calculator."""
    return [
        _section("In-process dispatch, a plugin that does nothing", _models.Idler, rounds, turn, promised="that does nothing"),
        _section("In-process dispatch, the calculator", _models.Calculator, rounds, turn, promised="calculator"),
        _asked_for(rounds, turn),
    ]


def _asked_for(rounds: int, turn: float) -> Section:
    """What each argument adds to a call of the plugin that does nothing."""
    section = Section("In-process, what a call asks for", base=_PLAIN)
    with Host("benchmarks") as host:
        host.register(_models.Idler, name="plugin", isolation="none")
        record = host.plugin("plugin", CalculatorRequest, CalculatorResponse)._record
        host.load("plugin")
        lane = record.lane
        assert lane is not None
        names: dict[str, Any] = {
            "plugin": host.plugin("plugin", CalculatorRequest, CalculatorResponse).execute,
            "request": _models.REQUEST,
            "inf": math.inf,
            "headers": {"trace": "1"},
            "context": record.context,
            "one": record.context(None, None, None, None, None),
            "gate": lane.gate,
        }
        statements = {
            _PLAIN: "plugin(request)",
            "    of which the context and its deadline": "context(None, None, None, None, None)",
            "    of which the gate": "gate.enter(one); gate.leave(one)",
            "timeout=inf": "plugin(request, timeout=inf)",
            "timeout=": "plugin(request, timeout=5.0)",
            "request_id=": "plugin(request, request_id='abc')",
            "headers=": "plugin(request, headers=headers)",
            "max_retries=": "plugin(request, max_retries=2)",
        }
        peers = [Peer(name, timeit.Timer(statement, globals=names).timeit) for name, statement in statements.items()]
        section.measured(interleave(peers, rounds=rounds, turn=turn))
    return section


class _Spec:
    @_hookspec
    def execute(self, ctx: ExecutionContext, request: CalculatorRequest) -> CalculatorResponse:  # type: ignore[empty-body]
        """Answer one request."""


def _section(
    title: str, plugin: type[Plugin[CalculatorRequest, CalculatorResponse]], rounds: int, turn: float, *, promised: str
) -> Section:
    section = Section(title, base=_PLUGGY)
    with Host("benchmarks") as host:
        host.register(plugin, name="plugin", isolation="none")
        names: dict[str, Any] = {
            "direct": plugin().execute,
            "hook": _relay(plugin()).hook.execute,
            "handle": host.plugin("plugin", CalculatorRequest, CalculatorResponse).execute,
            "host": host.execute,
            "ctx": ExecutionContext("1"),
            "request": _models.REQUEST,
            "data": _models.REQUEST.model_dump(),
        }
        statements = {
            "direct method call": "direct(ctx, request)",
            _PLUGGY: "hook(ctx=ctx, request=request)",
            _HANDLE: "handle(request)",
            "hostkit host.execute, untyped": "host('plugin', data)",
        }
        peers = [Peer(name, timeit.Timer(statement, globals=names).timeit) for name, statement in statements.items()]
        found = interleave(peers, rounds=rounds, turn=turn)
    section.measured(found)
    section.promise(f"in-process handle.execute ÷ pluggy hook ({promised})", ratios(found[_HANDLE], found[_PLUGGY]), most=1.5)
    return section


def _relay(plugin: Plugin[CalculatorRequest, CalculatorResponse]) -> pluggy.PluginManager:
    _hookimpl(type(plugin).execute)
    manager = pluggy.PluginManager("benchmarks")
    manager.add_hookspecs(_Spec)
    manager.register(plugin)
    return manager
