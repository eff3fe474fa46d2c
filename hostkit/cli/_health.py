"""``hostkit health``: load plugins and ask each how it is doing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click

from .._contract import HealthStatus, Status
from .._handle import PluginHandle
from .._host import Host
from . import _status
from ._session import Session
from ._text import escaped
from ._told import tell
from ._verb import PluginName, Verb, verbose_option

_WELL = (Status.HEALTHY, Status.DEGRADED)


@click.command("health", cls=Verb)
@click.argument("names", type=PluginName(), nargs=-1, metavar="[NAME ...]")
@verbose_option
@click.pass_obj
def verb(session: Session, names: tuple[str, ...]) -> int:
    """Load the plugins NAME, or all that are installed and enabled, and ask each how it is doing.

    Exit status 0 if all are healthy or degraded, 1 otherwise; a plugin that can't be loaded is offline.
    """
    answers: dict[str, Any] = {}
    well = True
    with session.host() as (host, output):
        for name, health in _asked(host, names):
            well = well and health.status in _WELL
            if session.json:
                answers[name] = _plain(host, name, health)
            else:
                output.line(_line(host, name, health))
        if session.json:
            output.json(answers)
    if not answers and well and not session.json and not host.specs:
        tell(f"hostkit: {session.nothing}")
    return _status.ANSWERED if well else _status.FAILED


def _asked(host: Host, names: Sequence[str]) -> Iterator[tuple[str, HealthStatus]]:
    wanted = list(dict.fromkeys(names)) or [name for name in host.specs if host.config.plugin(name).enabled]
    handles: list[PluginHandle[Any, Any]] = [host.plugin(name) for name in wanted]  # all names are known before any is loaded
    for handle in handles:
        yield handle.name, handle.health()


def _plain(host: Host, name: str, health: HealthStatus) -> dict[str, Any]:
    return {**health._fields(), "status": health.status.value, "isolation": _isolation(host, name)}


def _line(host: Host, name: str, health: HealthStatus) -> str:
    place = _isolation(host, name) or "not loaded"
    took = f"{health.response_time * 1000:.1f} ms"
    return f"{escaped(name):<24} {health.status.value:<9} {place:<10} {took:>10}  {escaped(health.message)}".rstrip()


def _isolation(host: Host, name: str) -> str | None:
    lane = host._loader.record(name).lane
    return None if lane is None else lane.decided.isolation
