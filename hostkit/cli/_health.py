"""``hostkit health``: load plugins and ask each how it is doing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from .._condition import WELL, HostHealth
from .._contract import HealthStatus
from .._errors import PluginNotFound
from .._health import as_status
from .._host import Host
from . import _status
from ._output import Output
from ._session import Session
from ._text import escaped
from ._told import tell
from ._verb import PluginName, Verb, verbose_option


@click.command("health", cls=Verb)
@click.argument("names", type=PluginName(), nargs=-1, metavar="[NAME ...]")
@verbose_option
@click.pass_obj
def verb(session: Session, names: tuple[str, ...]) -> int:
    """Load the plugins NAME, or all that are installed and enabled, and ask each how it is doing, all at the same time.

    A table on a terminal, with the worst of it in the last line. Elsewhere a line a plugin, with tabs between name, status, where it
    runs, milliseconds until it answered, and message. Exit status 0 if all are healthy or degraded, 1 otherwise; a plugin that can't be
    loaded is offline.
    """
    with session.host() as (host, output):
        health = _asked(host, names)
        rows = {name: _row(host, name, answer) for name, answer in health.items()}
        if session.json:
            output.json({"status": health.status.value, "message": health.message, "plugins": rows})
        elif not rows and not host.specs:
            tell(f"hostkit: {session.nothing}")
        elif output.terminal:
            _table(output, rows)
            output.line(escaped(f"{session.app}: {health.status.value}{health.message and ', because ' + health.message}"))
        elif rows:
            output.line("\n".join("\t".join(_cells(name, row)) for name, row in rows.items()))
    return _status.ANSWERED if health.status in WELL or not rows else _status.FAILED


def _asked(host: Host, names: Sequence[str]) -> HostHealth:
    wanted = list(dict.fromkeys(names)) or [name for name in host.specs if host.config.plugin(name).enabled]
    for name in wanted:
        host.plugin(name)  # all names are known before any is loaded
    failed = host.load_all(*wanted) if wanted else {}
    for error in failed.values():
        if isinstance(error, PluginNotFound):
            raise error
    answers = {**host.health(), **{name: as_status(error) for name, error in failed.items()}}
    return HostHealth({name: answers[name] for name in wanted})


def _row(host: Host, name: str, answer: HealthStatus) -> dict[str, Any]:
    lane = host._loader.record(name).lane
    place = None if lane is None else lane.decided.isolation
    return {**answer._fields(), "status": answer.status.value, "isolation": place}


def _cells(name: str, row: Mapping[str, Any]) -> list[str]:
    took = f"{row['response_time'] * 1000:.1f}"
    return [escaped(cell) for cell in (name, row["status"], row["isolation"] or "not loaded", took, row["message"])]


_STYLES = {"healthy": None, "degraded": "yellow"}


def _table(output: Output, rows: Mapping[str, Mapping[str, Any]]) -> None:
    from rich.console import Console  # 60 ms, for people only
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "status", "isolation", "ms", "message"):
        table.add_column(heading, overflow="fold", no_wrap=heading != "message", justify="right" if heading == "ms" else "left")
    for name, row in rows.items():
        # Text, not str: a plugin's words are no markup.
        table.add_row(*(Text(cell) for cell in _cells(name, row)), style=_STYLES.get(row["status"], "red"))
    console = Console(highlight=False)
    with console.capture() as captured:
        console.print(table)
    output.line(captured.get().rstrip("\n"))
