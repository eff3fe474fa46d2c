"""What is asked before something is done to a plugin, and the help."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from . import _words
from ._columns import ALL
from ._rows import Row

# Seconds for which the host waits for calls in flight before it answers: the admin verb's default.
_DRAIN = 10.0


@dataclass(frozen=True, slots=True)
class Act:
    """Something to do to a plugin: the admin's verb, the question before it, and what will happen."""

    verb: str
    arguments: dict[str, Any]  # as the verb takes them
    question: str
    consequence: str
    doing: str


_INSIDE = "It will run inside the host's own process: if it crashes, leaks or hangs, the host does. No limit and no sandbox holds it there."
_OUTSIDE = "It gets worker processes of its own, with its limits, its permissions and its sandbox."
_MEANWHILE = (
    "Callers go on meanwhile: calls in flight end where they are, new ones go to the new place. No configuration file is changed."
)


def toggle(row: Row) -> Act:
    """Move a plugin to the other place."""
    place = "none" if row.mode == "process" else "process"
    question = f"Move {row.name!r} from {row.mode} to {place}?" if row.mode else f"Load {row.name!r} with isolation {place}?"
    consequence = f"{_INSIDE if place == 'none' else _OUTSIDE} {_MEANWHILE}"
    return Act("isolate", {"name": row.name, "place": place}, question, consequence, f"moving {row.name} to {place}")


def drain(row: Row) -> Act:
    """Take no more calls."""
    inside = {0: "none is in flight now", 1: "the one in flight goes on to its end"}
    now = inside.get(row.in_flight, f"the {row.in_flight} in flight go on to their end")
    waits = f"The answer comes when they have ended, or after {_DRAIN:g} s"
    consequence = f"New calls are refused (Draining); {now}. {waits}. It stays so until d is pressed again."
    return Act("drain", {"name": row.name}, f"Drain {row.name!r}?", consequence, f"draining {row.name}")


def resume(row: Row) -> Act:
    """Take calls again."""
    consequence = "It is loaded anew and takes calls again."
    return Act("resume", {"name": row.name}, f"Resume {row.name!r}?", consequence, f"resuming {row.name}")


def restart(row: Row) -> Act:
    """Load it anew."""
    if not row.mode:
        return Act(
            "restart",
            {"name": row.name},
            f"Load {row.name!r}?",
            "It is started where it is configured to run.",
            f"loading {row.name}",
        )
    ended = (
        "new workers take over"
        if row.mode == "process"
        else "a new instance of it takes over in the host's process; its code is not read again"
    )
    consequence = f"It is loaded anew: {ended}. Calls in flight end where they are, and none is lost."
    return Act("restart", {"name": row.name}, f"Restart {row.name!r}?", consequence, f"restarting {row.name}")


class Confirm(ModalScreen[bool]):
    """Asks whether something shall be done. No key that is pressed by accident says yes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("y", "dismiss(True)", "Yes"),
        ("n,escape,q", "dismiss(False)", "No"),
    ]

    def __init__(self, act: Act) -> None:
        super().__init__()
        self._act = act

    def compose(self) -> ComposeResult:
        text = Text.assemble(
            (_words.short(self._act.question, 300), "bold"), "\n\n", _words.short(self._act.consequence, 1000), "\n\n"
        )
        text.append_text(Text.assemble((" y ", "reverse"), " yes, do it     ", (" n ", "reverse"), " no"))
        with VerticalScroll(classes="dialog", can_focus=True):
            yield Static(text)


_KEYS = (
    ("up, down", "choose a plugin; page up, page down, home and end, too"),
    ("enter", "details: errors with tracebacks, limits, grants, configuration, workers"),
    ("l", "the plugin's log as it is written; scroll up to stop following, End to follow"),
    ("i", "isolate: move it between the host's process (none) and workers (process)"),
    ("d", "drain: take no more calls; again to resume"),
    ("r", "restart: load it anew where it runs"),
    ("s, S", "sort by the next column; the other way round"),
    ("/", "show only plugins whose name, mode or state has this in it; Esc shows all"),
    ("?, q", "this help; back, or quit. Ctrl-C quits from everywhere"),
)


class Help(ModalScreen[None]):
    """Says what the keys do and what the columns mean."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,q,question_mark,enter", "dismiss", "Back")]

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog help", can_focus=True):
            yield Static(_explained(_KEYS))
            yield Static(
                "\nColumns; where the terminal is too narrow for all, the least important ones are left out:\n", markup=False
            )
            yield Static(_explained((column.heading, column.describes) for column in ALL))
            yield Static(_NUMBERS, markup=False)


_NUMBERS = """
Rates and times are of the last interval; a time is what the caller waited, known to a quarter of itself."""


def _explained(rows: Iterable[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for words, meaning in rows:
        table.add_row(Text(words, "bold", justify="right", no_wrap=True), Text(meaning))
    return table
