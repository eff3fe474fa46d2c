"""What each policy adds to a call in the same process, of a plugin that does nothing."""

from __future__ import annotations

import timeit
from typing import Any

from hostkit import ExecutionContext, Host

from . import _models
from ._inprocess import _relay
from ._models import CalculatorRequest, CalculatorResponse
from ._report import Section, ratios
from ._timing import Peer, interleave

_NONE, _DEFAULTS, _ALL = "no policy", "the defaults: a breaker that counts", "all of them"
_PLUGGY = "pluggy hook, one implementation"
# So much that nothing is ever refused.
_RATE = {"per_second": 1e9, "burst": 1_000_000_000}
_BULKHEAD = {"calls": 4, "queue": 100}
_WINDOW = {"failure_rate": 0.5}
_RETRY = {"attempts": 3}
_TABLES: dict[str, dict[str, Any]] = {
    _NONE: {"breaker": False},
    _DEFAULTS: {},
    "a breaker with a window": {"breaker": _WINDOW},
    "a rate": {"breaker": False, "rate": _RATE},
    "a bulkhead": {"breaker": False, "bulkhead": _BULKHEAD},
    "repeats, none needed": {"breaker": False, "retry": _RETRY},
    "rate, bulkhead, breaker, repeats": {"rate": _RATE, "bulkhead": _BULKHEAD, "retry": _RETRY},
    _ALL: {"rate": _RATE, "bulkhead": _BULKHEAD, "breaker": _WINDOW, "retry": _RETRY},
}


def measure(*, rounds: int, turn: float) -> list[Section]:
    """Measure a call with each policy by itself, and with all of them."""
    section = Section("In-process, what each policy adds", base=_PLUGGY)
    plugins = {f"p{number}": table for number, table in enumerate(_TABLES.values())}
    with Host("benchmarks", config={"plugins": plugins}) as host:
        names: dict[str, Any] = {
            "request": _models.REQUEST,
            "ctx": ExecutionContext("1"),
            "hook": _relay(_models.Idler()).hook.execute,
        }
        statements = {_PLUGGY: "hook(ctx=ctx, request=request)"}
        for title, name in zip(_TABLES, plugins, strict=True):
            host.register(_models.Idler, name=name, isolation="none")
            names[name] = host.plugin(name, CalculatorRequest, CalculatorResponse).execute
            statements[title] = f"{name}(request)"
        peers = [Peer(name, timeit.Timer(statement, globals=names).timeit) for name, statement in statements.items()]
        found = interleave(peers, rounds=rounds, turn=turn)
    plain = found[_NONE]
    adds = {name: {"adds": [one - other for one, other in zip(found[name], plain, strict=True)]} for name in _TABLES}
    section.measured(found, beside=adds)
    section.promise(
        "in-process handle.execute ÷ pluggy hook, policies at their defaults", ratios(found[_DEFAULTS], found[_PLUGGY]), most=1.5
    )
    section.promise("the same, every policy on", ratios(found[_ALL], found[_PLUGGY]), most=1.5)
    return [section]
