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
    from .._spec import PluginSpec
    from ._glance import Glance


@click.command("list", cls=Verb)
@click.pass_obj
def verb(session: Session) -> int:
    """Show the plugins that are installed; imports none of them.

    A table on a terminal. Elsewhere a line a plugin, with tabs between name, version, distribution, where it would run (none,
    process, disabled or broken), and its description or what is wrong with it. Broken plugins are rows too, and no failure of this
    verb: hostkit doctor is the one that fails for them.
    """
    rows = [_row(spec, session.glance) for spec in session.specs.values()]
    output = session.output
    if session.json:
        output.json(rows)
    elif output.terminal:
        _table(output, rows, session.group)
    elif rows:
        output.line("\n".join("\t".join(_cells(each)) for each in rows))
    return _status.ANSWERED


def _row(spec: PluginSpec, configured: Glance) -> dict[str, Any]:  # Any: JSON data
    return {
        "name": spec.name,
        "version": spec.version or None,
        "distribution": spec.distribution or None,
        "directory": None if spec.directory is None else str(spec.directory),
        "isolation": _runs(spec, configured),
        "description": str(spec.manifest_data.get("description", "")),
        "error": None if spec.error is None else {"type": type(spec.error).__name__, "message": str(spec.error)},
    }


def _runs(spec: PluginSpec, configured: Glance) -> str:
    if spec.error is not None:
        return "broken"
    if configured.disables(spec.name):
        return "disabled"
    return configured.place(spec.name, _wish(spec.manifest_data))


def _wish(manifest: Mapping[str, Any]) -> str:
    """Return ``Manifest.wished_isolation`` of a manifest that the scan has checked, without pydantic."""
    word = manifest.get("isolation")
    if word is None:
        word = manifest.get("transport") == "subprocess"
    if isinstance(word, bool):
        return "process" if word else "none"
    return str(word)


def _cells(row: Mapping[str, Any]) -> list[str]:
    place = row["distribution"] or row["directory"] or ""
    said = row["description"] if row["error"] is None else f"{row['error']['type']}: {row['error']['message']}"
    return [escaped(cell) for cell in (row["name"], row["version"] or "", place, row["isolation"], said)]


def _table(output: Output, rows: list[dict[str, Any]], group: str) -> None:
    if not rows:
        output.line(f"no plugin is installed for {escaped(group)}")
        return
    from rich.console import Console  # 60 ms, for people only
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "version", "distribution", "isolation", "description"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("version", "isolation"))
    for each in rows:
        # Text, not str: a plugin's words are no markup.
        table.add_row(*(Text(cell) for cell in _cells(each)), style="red" if each["error"] else None)
    console = Console(highlight=False)
    with console.capture() as captured:
        console.print(table)
    output.line(captured.get().rstrip("\n"))
