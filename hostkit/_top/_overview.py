"""The screen of all plugins: a heading about the host, the table, and an entry for the filter."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Footer, Input

from . import _words
from ._columns import BARS, STYLES, Order
from ._messages import Changed, Opened
from ._plugins import Plugins
from ._rows import Look, Row, Summary
from ._said import Said

_TREND = 30


class Overview(Screen[None]):
    """All plugins of the host."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("i", "app.isolate", "Isolate"),
        ("d", "app.drain", "Drain"),
        ("r", "app.restart", "Restart"),
        ("l", "app.log", "Log"),
        ("s", "sort", "Sort"),
        Binding("S", "turn", "Turn", show=False),
        ("slash", "filter", "Filter"),
        Binding("escape", "unfilter", "All", show=False),
        ("question_mark", "app.help", "Help"),
        ("q", "app.quit", "Quit"),
    ]

    def compose(self) -> ComposeResult:
        yield Said("asking the host ...", id="heading")
        yield Plugins()
        yield Input(placeholder="part of a name, mode or state; Enter keeps it, Esc shows all", id="filter", classes="hidden")
        yield Said(id="bar")
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        self.query_one(Plugins).focus()

    def on_screen_resume(self) -> None:
        self.post_message(Opened())

    def on_resize(self) -> None:
        self.post_message(Changed())  # the heading is laid out by hand

    @property
    def row(self) -> Row | None:
        """The plugin that a key means."""
        return self.query_one(Plugins).selected

    def show(self, look: Look) -> None:
        """Show a look at the host."""
        self.query_one("#heading", Said).say(heading(look.summary, look.rows, self.size.width))
        self.query_one(Plugins).show(look.rows)

    def state(self) -> str:
        """Say what of the table is shown, and how, where that isn't as it was at the start."""
        plugins = self.query_one(Plugins)
        kept = f"{plugins.row_count} with {plugins.filter!r} in them (Esc shows all)" if plugins.filter else ""
        order = plugins.order
        by = f"sorted by {order.heading}{', turned round' if order.turned else ''}" if order != Order() else ""
        return "; ".join(filter(None, (kept, by)))

    def action_sort(self) -> None:
        """Sort by the next column."""
        plugins = self.query_one(Plugins)
        plugins.turn(plugins.next_order())

    def action_turn(self) -> None:
        """Sort the other way round."""
        plugins = self.query_one(Plugins)
        plugins.turn(Order(plugins.order.heading, turned=not plugins.order.turned))

    def action_filter(self) -> None:
        """Ask for what the rows must have in them."""
        entry = self.query_one("#filter", Input)
        entry.remove_class("hidden")
        entry.focus()

    def action_unfilter(self) -> None:
        """Show all plugins."""
        self.query_one("#filter", Input).value = ""
        self._end_filter()

    def on_input_changed(self, event: Input.Changed) -> None:
        plugins = self.query_one(Plugins)
        plugins.filter = event.value.strip()
        plugins.lay_out()
        self.post_message(Changed())

    def on_input_submitted(self) -> None:
        self._end_filter()

    def _end_filter(self) -> None:
        self.query_one("#filter", Input).add_class("hidden")
        self.query_one(Plugins).focus()


def heading(host: Summary, rows: tuple[Row, ...], cells: int) -> Text:
    """Return what is said of the host itself: who it is and how it is doing, what it takes and does, who complains."""
    who = f"  pid {host.pid}  up {_words.duration(host.uptime)}  hostkit {_words.short(host.version, 12)}"
    spent = f"host {_words.memory(host.memory)}  CPU {_words.percent(host.cpu)}%  {host.threads} threads"
    text = _between(Text.assemble((_words.short(host.app, 24), "bold"), who), Text(spent), cells)
    style = STYLES.get(host.status, "")
    said = f": {host.message}" if host.message else ""
    text.append("\n● ", style).append(_words.short(host.status + said, cells - 2), style).append("\n")
    counts = Counter(row.state for row in rows)
    trend = _words.spark(host.trend, min(_TREND, max(0, cells - 60))).strip()
    work = (
        Text(f"{_words.rate(host.calls)} calls/s ")
        .append(f"{trend}  ", BARS)
        .append(f"{_words.rate(host.errors)} errors/s", "red" if host.errors else "")
    )
    states = (
        f"{len(rows)} plugin{'s' if len(rows) > 1 else ''}: {', '.join(f'{count} {state}' for state, count in counts.items())}"
        if rows
        else "no plugins"
    )
    text.append_text(_between(Text(_words.short(states, max(10, cells - work.cell_len - 2))), work, cells))
    for trouble in host.troubles[:3]:
        text.append("\n").append(_words.short(f"exporter {trouble}", cells), "yellow")
    return text


def _between(left: Text, right: Text, cells: int) -> Text:
    """Return both on one line, as far from each other as it goes; the right one only where there is room for it."""
    room = cells - left.cell_len - right.cell_len
    return left.append(" " * room).append_text(right) if room > 1 else left
