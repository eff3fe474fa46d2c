"""``hostkit audit show``: the entries of the audit log, for people or as JSON."""

from __future__ import annotations

import json
import re
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from .._audit_chain import NOTHING, Entry, Head, entry_of
from .._names import normalized
from . import _status
from ._audit_log import file_of, lines_with_ends
from ._output import Output
from ._session import Session
from ._text import escaped
from ._told import tell
from ._verb import Verb

# What stands in the line of its own accord; the facts follow.
_OWN = ("seq", "at", "kind", "plugin", "prev", "hash")
_PLAIN = re.compile(r"[^\s\"={}\[\],]+")
_AGAIN = 0.5


@click.command("show", cls=Verb)
@click.argument("file", type=click.Path(), required=False)
@click.option("--plugin", metavar="NAME", help="Only entries of this plugin.")
@click.option("--kind", "kinds", metavar="KIND", multiple=True, help="Only entries of this kind; may be repeated.")
@click.option("--last", type=click.IntRange(1), metavar="N", help="Only the last N of them.")
@click.option("--follow", is_flag=True, help="Go on with entries as they are written, until Ctrl-C; with --json a line each.")
@click.pass_obj
def verb(session: Session, file: str | None, plugin: str | None, kinds: tuple[str, ...], last: int | None, follow: bool) -> int:
    """Show the entries of the audit log FILE, or of the one that is configured, the oldest first.

    A line each: number, time, kind, plugin, and what else the entry says. It shows what is there and checks no more than each line's own
    hash; hostkit audit verify checks all of it.
    """
    path = file_of(session, file)
    log = _Log(path, plugin, kinds)
    output = session.output
    wanted = log.news() if last is None else deque(log.news(), last)
    if session.json and not follow:
        shown = [dict(entry.data) for entry in wanted]
        output.json({"file": str(path), "entries": shown, "broken": log.broken, "head": str(log.head)})
    else:
        _show_all(output, wanted, as_json=session.json)
    while follow:
        time.sleep(_AGAIN)  # the signal's handler ends it
        _show_all(output, log.news(), as_json=session.json)
    if log.broken and not session.json:
        tell(f"hostkit: {log.broken} lines are no entries, or not as they were written; hostkit audit verify says which")
    return _status.ANSWERED


class _Log:
    """The entries that are wanted, and the head of all."""

    def __init__(self, path: Path, plugin: str | None, kinds: tuple[str, ...]) -> None:
        self.head: Head = NOTHING
        self.broken = 0
        self._path = path
        self._plugin = None if plugin is None else normalized(plugin)
        self._kinds = kinds
        self._read = 0  # bytes

    def news(self) -> Iterator[Entry]:
        """Yield the entries that were not there the last time."""
        for line, end in lines_with_ends(self._path, self._read):
            entry = entry_of(line.removesuffix(b"\n"))
            if entry is None and not line.endswith(b"\n"):
                return  # it is being written, or never will be
            self._read = end
            if entry is None:
                self.broken += 1
                continue
            self.head = entry.head
            if self._is_wanted(entry):
                yield entry

    def _is_wanted(self, entry: Entry) -> bool:
        named = self._plugin is None or normalized(entry.plugin) == self._plugin
        return named and (not self._kinds or entry.kind in self._kinds)


def _show_all(output: Output, entries: Iterable[Entry], *, as_json: bool) -> None:
    for entry in entries:
        if as_json:
            output.json(dict(entry.data), one_line=True)
        else:
            output.line(_line(entry))


def _line(entry: Entry) -> str:
    at, kind, plugin = _shown(entry.data.get("at", "?")), _shown(entry.kind), _shown(entry.plugin) if entry.plugin else "-"
    facts = " ".join(f"{_shown(key)}={_shown(value)}" for key, value in entry.data.items() if key not in _OWN)
    return escaped(f"{entry.head.seq:>6}  {at}  {kind:<9}  {plugin}  {facts}")


def _shown(value: Any) -> str:  # Any: JSON data
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}={_shown(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return json.dumps(value)
