"""``hostkit list``: what is installed, one row a plugin; imports none of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from . import _status
from ._output import Output
from ._session import Session
from ._text import escaped
from ._verb import Verb

if TYPE_CHECKING:
    from .._offered import Glance
    from .._spec import PluginSpec


@click.command("list", cls=Verb)
@click.option("--all", "everything", is_flag=True, help="Show plugins that [discovery] keeps out, too, and why.")
@click.pass_obj
def verb(session: Session, everything: bool) -> int:
    """Show the plugins that are installed; imports none of them.

    A table on a terminal. Elsewhere a line a plugin, with tabs between name, version, distribution, where it would run (none,
    auto, process, disabled, broken or filtered), and its description or what is wrong with it. Broken plugins are rows too, and no
    failure of this verb: hostkit doctor is the one that fails for them.
    """
    found = session.specs
    shown = found.installed if everything else found
    rows = [_row(spec, session.glance, found.kept_out.get(name)) for name, spec in shown.items()]
    output = session.output
    if session.json:
        output.json(rows)
    elif output.terminal:
        _table(output, rows, session.nothing)
    elif rows:
        output.line("\n".join("\t".join(_cells(each)) for each in rows))
    return _status.ANSWERED


def _row(spec: PluginSpec, configured: Glance, kept_out: str | None) -> dict[str, Any]:  # Any: JSON data
    return {
        "name": spec.name,
        "version": spec.version or None,
        "distribution": spec.distribution or None,
        "directory": None if spec.directory is None else str(spec.directory),
        "isolation": "filtered" if kept_out else _runs(spec, configured),
        "description": str(spec.manifest_data.get("description", "")),
        "kept_out": kept_out,
        "error": None if spec.error is None else {"type": type(spec.error).__name__, "message": str(spec.error)},
    }


def _runs(spec: PluginSpec, configured: Glance) -> str:
    if spec.error is not None:
        return "broken"
    if configured.disables(spec.name):
        return "disabled"
    return configured.place(spec)


def _cells(row: Mapping[str, Any]) -> list[str]:
    place = row["distribution"] or row["directory"] or ""
    error = row["error"]
    said = row["kept_out"] or (row["description"] if error is None else f"{error['type']}: {error['message']}")
    return [escaped(cell) for cell in (row["name"], row["version"] or "", place, row["isolation"], said)]


def _table(output: Output, rows: list[dict[str, Any]], nothing: str) -> None:
    if not rows:
        output.line(nothing)
        return
    from rich.console import Console  # 60 ms, for people only
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "version", "distribution", "isolation", "description"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("version", "isolation"))
    for each in rows:
        # Text, not str: a plugin's words are no markup.
        table.add_row(*(Text(cell) for cell in _cells(each)), style="dim" if each["kept_out"] else "red" if each["error"] else None)
    console = Console(highlight=False)
    with console.capture() as captured:
        console.print(table)
    output.line(captured.get().rstrip("\n"))
