"""``hostkit list``: what is installed, one row a plugin; imports none of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from .._errors import HostkitError
from . import _status
from ._output import Output
from ._session import Session
from ._text import escaped
from ._verb import Verb

if TYPE_CHECKING:
    from .._config import HostConfig
    from .._spec import PluginSpec


@click.command("list", cls=Verb)
@click.pass_obj
def verb(session: Session) -> int:
    """Show the plugins that are installed; imports none of them.

    A table on a terminal. Elsewhere a line a plugin, with tabs between name, version, distribution, where it would run (none,
    process, disabled or broken), and its description or what is wrong with it. Broken plugins are rows too, and no failure of this
    verb: hostkit doctor is the one that fails for them.
    """
    rows = [row(spec, session.config) for spec in session.specs.values()]
    output = session.output
    if session.json:
        output.json(rows)
    elif output.terminal:
        _table(output, rows, session.group)
    else:
        for each in rows:
            output.line("\t".join(_cells(each)))
    return _status.ANSWERED


def row(spec: PluginSpec, config: HostConfig | None) -> dict[str, Any]:  # Any: JSON data
    """Return what is known of a plugin without importing it, as JSON data."""
    runs, error = _runs(spec, config)
    return {
        "name": spec.name,
        "version": spec.version or None,
        "distribution": spec.distribution or None,
        "directory": None if spec.directory is None else str(spec.directory),
        "isolation": runs,
        "description": str(spec.manifest_data.get("description", "")),
        "error": None if error is None else {"type": type(error).__name__, "message": str(error)},
    }


def _runs(spec: PluginSpec, config: HostConfig | None) -> tuple[str, HostkitError | None]:
    if spec.error is not None:
        return "broken", spec.error
    if config is None:
        return _wish(spec.manifest_data), None
    own = config.plugin(spec.name)
    if not own.enabled:
        return "disabled", None
    from .._decided import decide  # asyncio and more, which a machine without configuration doesn't need

    try:
        return decide(spec.name, spec.manifest, own, None).isolation, None
    except HostkitError as error:
        return "broken", error


def _wish(manifest: Mapping[str, Any]) -> str:
    """Return ``Manifest.wished_isolation`` of a manifest that the scan has checked, without pydantic."""
    word = manifest.get("isolation")
    if word is None:
        word = manifest.get("transport") == "subprocess"
    return {True: "process", False: "none"}.get(word, word) if isinstance(word, bool) else str(word)


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
