"""``hostkit config show``: every value that holds, and where it comes from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import click

from .._errors import ConfigError, PluginNotFound
from .._fields import sentence
from .._lines import Keys
from .._names import normalized
from .._offered import Glance, Offered, not_found
from .._origins import Origins, Value
from .._reading import Reading
from .._spec import PluginSpec
from . import _status
from ._session import Session
from ._text import escaped
from ._told import tell
from ._verb import PluginName, Verb

_MASK = "***"
_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


@click.command("show", cls=Verb)
@click.argument("name", type=PluginName(), required=False)
@click.option("--origin", is_flag=True, help="Say of each value where it comes from: file and line, variable, or default.")
@click.option(
    "--show-config",
    is_flag=True,
    help="Show the plugins' own values (plugins.NAME.config) as well, which may be secrets; without it they are ***.",
)
@click.pass_obj
def verb(session: Session, name: str | None, origin: bool, show_config: bool) -> int:
    """Show every value that holds: those of the plugin NAME, or of the host and all plugins that are installed or configured.

    What the environment put into a text by ${VAR} is never shown: the text with the reference is.
    """
    reading = session.reading
    if reading.config is None:
        raise ConfigError(sentence(reading.problems))
    rows = [_row(value, show_config) for value in _values(session, reading, name)]
    output = session.output
    if session.json:
        output.json(rows)
        return _status.ANSWERED
    width = min(60, max(len(_assignment(row)) for row in rows))
    for row in rows:
        output.line(f"{_assignment(row):<{width}}  # {escaped(row['from'])}" if origin else _assignment(row))
    return _status.ANSWERED


def _values(session: Session, reading: Reading, name: str | None) -> Iterator[Value]:
    origins, specs = Origins(reading), session.found
    assert reading.config is not None
    if name is not None:
        yield from origins.of_plugin(_known(name, specs, reading.config.plugins, session.group))
        return
    yield from origins.of_host()
    names = {normalized(each): each for each in (*specs, *reading.config.plugins)}
    for each in sorted(names.values()):
        yield from origins.of_plugin(each)


def _known(name: str, specs: Mapping[str, PluginSpec], tables: Mapping[str, object], group: str) -> str:
    for installed in specs:
        if normalized(installed) == normalized(name):
            return installed
    for table in tables:
        if normalized(table) == normalized(name):
            tell(f"hostkit: no plugin {table!r} is installed for {group}; this is what the configuration has for it")
            return table
    raise PluginNotFound(not_found(name, Offered(specs, Glance()), group))


def _row(value: Value, show_config: bool) -> dict[str, Any]:  # Any: JSON data
    shown, kind = value.value, "value"
    if value.own and not show_config and value.value not in ({}, [], None):
        shown, kind = _MASK, "masked"
    elif value.reference is not None:
        shown, kind = value.reference, "reference"
    origin = value.origin
    return {
        "key": _dotted(value.keys),
        kind: shown,
        "origin": origin.kind,
        "file": None if origin.file is None else str(origin.file),
        "line": origin.line,
        "variable": origin.variable or None,
        "table": origin.table or None,
        "from": str(origin),
    }


def _assignment(row: Mapping[str, Any]) -> str:
    if "masked" in row:
        return f"{row['key']} = {_MASK}"
    return f"{row['key']} = {escaped(json.dumps(row.get('value', row.get('reference')), ensure_ascii=False))}"


def _dotted(keys: Keys) -> str:
    return ".".join(part if _BARE.fullmatch(part) else json.dumps(part) for part in map(str, keys))
