"""The screens of one plugin: all that is known of it, and its log as it is written."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Footer, RichLog

from .._errors import HostkitError
from .._printable import escaped
from . import _words
from ._columns import STATUS
from ._messages import Opened
from ._rows import Look, Row, Snapshot
from ._said import Said

# Lines of a log that are kept here, and the characters that are shown of one value and of all errors together.
_KEPT, _SHOWN, _ERRORS = 5_000, 2_000, 64 * 1024
Ask = Callable[..., Any]  # Feed.question
_LEVELS = {"DEBUG": "dim", "TRACE": "dim", "WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red", "SUCCESS": "green"}


class Told(Message):
    """What the host answered to the question of a screen, or why it didn't."""

    def __init__(self, answer: Any, error: str = "") -> None:  # Any: JSON data
        super().__init__()
        self.answer = answer
        self.error = error


class PluginScreen(Screen[None]):
    """What both screens have: a plugin, a heading that says how it is doing, and a question beside each look at the host."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("i", "app.isolate", "Isolate"),
        ("d", "app.drain", "Drain"),
        ("r", "app.restart", "Restart"),
        ("l", "app.log", "Log"),
        ("enter", "app.details", "Details"),
        ("question_mark", "app.help", "Help"),
        Binding("escape,q", "app.back", "Back"),
    ]
    heading = ""

    def on_screen_resume(self) -> None:
        self.post_message(Opened())

    def __init__(self, name: str, ask: Ask) -> None:
        super().__init__()
        self.plugin = name
        self.ask = ask
        self.row: Row | None = None

    def compose(self) -> ComposeResult:
        yield Said(id="heading")
        yield from self.body()
        yield Said(id="bar")
        yield Footer(show_command_palette=False, compact=True)

    def body(self) -> ComposeResult:
        """Yield what is between heading and footer."""
        raise NotImplementedError

    def beside(self, snapshot: Snapshot) -> None:
        """Ask what the screen shows. Called on the feed's thread."""
        try:
            told = Told(self.question(snapshot))
        except HostkitError as error:
            told = Told(None, str(error))
        self.post_message(told)

    def question(self, snapshot: Snapshot) -> Any:  # what the screen shows of it
        """Ask it. Raises ``HostkitError``."""
        raise NotImplementedError

    def show(self, look: Look) -> None:
        """Say how the plugin is doing."""
        self.row = next((row for row in look.rows if row.name == self.plugin), None)
        text = Text.assemble((f" {_words.short(self.plugin, 40)} ", "reverse bold"), (f" {self.heading}  ", "bold"))
        row = self.row
        if row is None:
            text.append("the host doesn't have it any more", "bold red")
        else:
            words = f"{row.mode or 'nowhere'}, {row.state}, breaker {row.breaker}, {_words.rate(row.calls)} calls/s"
            text.append(row.status, STATUS.style(row)).append(f" {words}, p99 {_words.time(row.p99)}")
        self.query_one("#heading", Said).say(text)


class Details(PluginScreen):
    """Everything that is known of one plugin."""

    heading = "details"

    def body(self) -> ComposeResult:
        with VerticalScroll(can_focus=True):
            yield Said("asking the host ...", id="details")

    def question(self, snapshot: Snapshot) -> Any:
        mine = next((plugin for plugin in snapshot["plugins"] if plugin["name"] == self.plugin), None)
        told = self.ask("plugin", name=self.plugin)
        happened = [event for event in self.ask("events")["entries"] if event.get("plugin") == self.plugin]
        return details({"events": happened, **told, "now": mine})  # on this thread: it may take a while

    def on_told(self, message: Told) -> None:
        text = Text(message.error, "red") if message.error else message.answer
        self.query_one("#details", Said).say(text)


def details(told: Mapping[str, Any]) -> Text:
    """Return what the host answered of one plugin, as text."""
    text = Text()
    now, runs = told.get("now") or {}, told.get("runs") or {}
    for title, lines in (
        ("Now", _now(now)),
        ("Workers", _workers(now.get("workers") or ())),
        ("Calls since the start", _counts(now.get("calls"))),
        ("Limits", _limits(runs)),
        ("Granted", _flat(runs.get("granted"))),
        ("Asked for and not granted", _flat(runs.get("not_granted"))),
        ("Configuration", _flat(told.get("config"))),
    ):
        text.append(f"{title}\n", "bold").append("\n".join(f"  {line}" for line in list(lines) or ["-"])).append("\n\n")
    errors = list(reversed(told.get("errors") or ()))
    text.append(f"Errors, the newest first ({len(errors)})\n", "bold")
    most = len(text) + _ERRORS
    for error in errors:
        _add_error(text, error, traceback=len(text) < most)
    happened = list(reversed(told.get("events") or ()))
    text.append(f"\nEvents, the newest first ({len(happened)})\n", "bold")
    for event in happened:
        text.append(f"  {clock(event.get('at'))} ").append(_value(event.get("text", "")) + "\n")
    return text


def _now(now: Mapping[str, Any]) -> Iterator[str]:
    health = now.get("health") or {}
    yield f"version     {_value(now.get('version') or '-')}  {_value(now.get('description') or '')}"
    yield f"state       {_value(now.get('state'))}{_because(now.get('failed'))}"
    yield f"runs        {_value(now.get('isolation') or 'nowhere')} {_value(now.get('sandbox') or '')}{_because(now.get('moved'))}"
    yield f"health      {_value(health.get('status'))}{_because(health.get('message'))}, last asked {clock(health.get('last_check'))}"
    yield f"breaker     {_value(now.get('breaker'))}"
    yield f"calls       {_value(now.get('in_flight'))} in flight, {_value(now.get('waiting'))} waiting"
    yield f"restarts    {_value(now.get('restarts'))}"


def _limits(runs: Mapping[str, Any]) -> Iterator[str]:
    holds = runs.get("held_by") or {}
    for name, limit in (runs.get("limits") or {}).items():
        yield f"{_value(name)} = {_value(limit)}, held by {_value(holds.get(name, 'nothing'))}"
    if runs.get("warning"):
        yield _value(runs["warning"])


def _because(text: object) -> str:
    return f": {_value(text)}" if text else ""


def _workers(workers: Any) -> Iterator[str]:  # JSON data
    for worker in workers:
        age, memory, cpu = (worker.get(key) for key in ("age", "memory", "cpu"))
        yield (
            f"pid {worker.get('pid')}  {_value(worker.get('state'))}  {_words.duration(age or 0)} old  {_words.memory(memory)}  "
            f"{_words.UNKNOWN if cpu is None else f'{cpu:.1f}'} s of CPU  {worker.get('threads')} threads"
        )


def _counts(calls: Mapping[str, Any] | None) -> Iterator[str]:
    if not calls:
        return
    from .._meter import quantile

    shares = ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"))
    yield "  ".join(f"{word} {_words.time(quantile(calls['buckets'], share))}" for share, word in shares)
    for outcome, count in sorted(calls["outcomes"].items(), key=lambda each: -each[1]):
        yield f"{count:>10,} {_value(outcome)}"


def _flat(value: Any, name: str = "") -> Iterator[str]:  # JSON data
    """Yield nested values a line each: ``retry.attempts = 3``."""
    if isinstance(value, Mapping) and value:
        for key, part in value.items():
            yield from _flat(part, f"{name}.{key}" if name else str(key))
    elif value not in (None, {}, [], ""):
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        yield f"{_value(name)} = {_value(shown)}" if name else _value(shown)


def _value(value: object) -> str:
    text = str(value)
    return escaped(text) if len(text) <= _SHOWN else escaped(text[:_SHOWN]) + "…"


def _add_error(text: Text, error: Mapping[str, Any], *, traceback: bool) -> None:
    text.append(f"  {clock(error.get('at'))} ").append(_value(error.get("type", "")), "bold red")
    if (times := error.get("times", 1)) != 1:
        text.append(f" {_value(times)} times, the last one", "bold red")
    text.append(f" in {_value(error.get('phase') or '-')}, request {_value(error.get('request_id') or '-')}\n", "dim")
    text.append(f"    {_value(error.get('message', ''))}\n")
    for heading, key in (("in the plugin", "remote_traceback"), ("last words on stderr", "stderr_tail")):
        if traceback and error.get(key):
            text.append(f"    --- {heading} ---\n", "dim")
            for line in str(error[key])[: 16 * 1024].rstrip("\n").split("\n"):
                text.append(f"    {_value(line)}\n")


class Lines(RichLog):
    """Lines that come at the end. It shows the newest while one looks at the end, and stays where one has scrolled up to."""

    def __init__(self) -> None:
        super().__init__(wrap=True, auto_scroll=False, max_lines=_KEPT, min_width=20)
        self.following = True
        self._texts: deque[Text] = deque(maxlen=_KEPT)
        self._wrapped_at = 0

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        # Only somebody who scrolls moves it upwards; new lines move the end away from it.
        self.following = new_value >= self.max_scroll_y or (self.following and new_value >= old_value)

    def action_page_up(self) -> None:
        self._stay()
        super().action_page_up()

    def action_scroll_up(self) -> None:
        self._stay()
        super().action_scroll_up()

    def action_scroll_home(self) -> None:
        self._stay()
        super().action_scroll_home()

    def _stay(self) -> None:
        # At once: a line that comes before the first step of the scrolling must not lead back to the end.
        self.following = self.max_scroll_y == 0

    def action_scroll_end(self) -> None:
        # Without an animation, which new lines would outrun.
        self.following = True
        self.scroll_end(animate=False)

    @property
    def count(self) -> int:
        """How many lines there are."""
        return len(self._texts)

    def add(self, texts: Iterable[Text]) -> None:
        """Add lines."""
        for text in texts:
            self._texts.append(text)
            self.write(text, scroll_end=False)
        if self.following:
            self.call_after_refresh(self._go_to_end)

    def _go_to_end(self) -> None:
        if self.following:  # still
            self.scroll_end(animate=False, immediate=True)

    def on_resize(self, event: events.Resize) -> None:
        super().on_resize(event)
        if self._wrapped_at not in (0, event.size.width):  # they were wrapped when they were written
            texts = list(self._texts)
            self._texts.clear()
            self.clear()
            self.following = True
            self.add(texts)
        self._wrapped_at = event.size.width


class Log(PluginScreen):
    """The log of one plugin."""

    heading = "log"

    def __init__(self, name: str, ask: Ask) -> None:
        super().__init__(name, ask)
        self._after = 0  # the feed's thread alone has it

    def body(self) -> ComposeResult:
        yield Lines()

    def question(self, snapshot: Snapshot) -> Any:  # noqa: ARG002 - it has all it needs
        answer = self.ask("log", name=self.plugin, after=self._after)
        if answer["next"] < self._after:  # another host, which counts its lines anew
            answer = self.ask("log", name=self.plugin, after=0)
        self._after = answer["next"]
        return answer

    def show(self, look: Look) -> None:
        lines = self.query_one(Lines)
        self.heading = f"log, {lines.count} lines, {'following' if lines.following else 'not following (End does)'}"
        super().show(look)

    def on_told(self, message: Told) -> None:
        lines = self.query_one(Lines)
        if message.error:
            lines.add([Text(message.error, "red")])
            return
        dropped = message.answer["dropped"]
        if dropped:
            lines.add([Text(f"... {dropped} lines came and went between two looks", "dim")])
        lines.add(map(line, message.answer["entries"]))


def line(entry: Mapping[str, Any]) -> Text:
    """Return one line of a plugin's log."""
    level = str(entry.get("level", ""))
    request = entry.get("request_id")
    text = Text(f"{clock(entry.get('at'))} ", "dim").append(f"{_words.short(level, 8):<8} ", _LEVELS.get(level, ""))
    text.append(f"[{_words.short(entry.get('source') or '-', 20)}] ", "dim")
    text.append(_value(entry.get("text", "")), _LEVELS.get(level, ""))
    return text.append(f"  {_words.short(request, 36)}", "dim") if request else text


def clock(at: object) -> str:
    """Return a moment as the time of day, where one is."""
    return time.strftime("%H:%M:%S", time.localtime(at)) if isinstance(at, (int, float)) and at else "-"
