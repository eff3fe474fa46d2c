"""The terminal application: a heading, the table of plugins, keys that do something to the one under the cursor.

Feed ── Heard ──► Top.on_heard ──► Past.see ──► the screen that is open
key  ──► Confirm ──► act(...) ── Done ──► a notification, with what the host answered
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar

from rich.text import Text
from textual.app import App
from textual.binding import Binding, BindingType
from textual.css.query import NoMatches
from textual.screen import Screen

from .._errors import HostkitError
from . import _dialogs, _words
from ._feed import Answer, Asked, Feed, act
from ._messages import Done, Heard
from ._overview import Overview
from ._plugin import Details, Log, PluginScreen, clock
from ._rows import Look, Past, Row
from ._said import Said

# Without an answer for so many intervals, and no less than so many seconds, the host counts as lost.
_MISSED, _PATIENCE = 3.0, 2.0


class Top(App[None]):
    """Watches one host, by a look each ``interval`` seconds."""

    ENABLE_COMMAND_PALETTE = False
    TITLE = "hostkit top"
    CSS = """
    #heading { height: auto; max-height: 6; background: $panel; text-wrap: nowrap; text-overflow: ellipsis; }
    #bar { height: auto; max-height: 3; display: none; }
    #bar.said { display: block; color: $text-muted; }
    #bar.lost { display: block; background: $error; color: $text; text-style: bold; }
    #filter { height: 1; border: none; padding: 0; background: $boost; }
    .hidden { display: none; }
    Plugins { height: 1fr; scrollbar-size-vertical: 1; overflow-x: hidden; }
    Plugins.lost, #heading.lost, #details.lost { text-opacity: 50%; }
    RichLog, VerticalScroll { height: 1fr; padding: 0 1; scrollbar-size-vertical: 1; }
    Confirm, Help { align: center middle; }
    .dialog { width: 72; max-width: 95%; height: auto; max-height: 90%; border: round $accent; padding: 1 2; background: $surface; }
    .help { width: 110; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c,ctrl+q", "app.quit", "Quit", show=False, priority=True),
        Binding("ctrl+z", "suspend_process", "Suspend", show=False),
    ]

    def __init__(self, host: Asked, *, interval: float = 1.0, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self.seen: Look | None = None
        self._asked = host
        self._clock = clock
        self._past = Past(shortest=interval / 2)
        self._feed = Feed(host, self._hear, interval=interval)
        self._why = ""
        self._answered = clock()
        self._doing: list[str] = []

    def get_default_screen(self) -> Screen[None]:
        """Return the first screen."""
        return Overview()

    def on_mount(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with suppress(RuntimeError, ValueError):  # not on the main thread: somebody else's signals
                loop.add_signal_handler(number, partial(self.exit, return_code=128 + number))
        self.set_interval(0.5, self._say)
        self._feed.start()

    def on_unmount(self) -> None:
        self._feed.stop(0.1)

    def _hear(self, answer: Answer) -> None:
        self.post_message(Heard(answer))

    def on_heard(self, message: Heard) -> None:
        """Show what the host answered, or note that it didn't."""
        answer = message.answer
        if answer.snapshot is None:
            self._why = answer.why
        else:
            try:
                self.seen = self._past.see(answer.snapshot)
                self._why, self._answered = "", self._clock()
                self._show()
            except ValueError as error:
                self._why = str(error)
        self._say()
        self._feed.handled()

    def on_told(self) -> None:
        """Go on: a screen has shown what it asked for."""
        self._feed.handled()

    def on_done(self, message: Done) -> None:
        """Tell what came of a key."""
        wanted, error = message.wanted, message.error
        self._doing.remove(wanted.doing)
        if error is not None:
            title, words, severity = f"not done: {wanted.doing}", str(error), "error"
        else:
            title, words, severity = f"done: {wanted.doing}", _answered(message.answer), "information"
        shown = _words.short(words, 2_000) or "done"
        self.notify(shown, title=_words.short(title, 100), severity=severity, timeout=20 if error else 6, markup=False)  # type: ignore[arg-type]
        self._feed.now()
        self._say()

    def on_opened(self) -> None:
        """Fill the screen that has just been opened, or is open again."""
        screen = self._lowest
        self._feed.beside = screen.beside if isinstance(screen, PluginScreen) else None
        self._show()
        self._say()
        self._feed.handled()  # what the screen before was told, nobody shows
        self._feed.now()

    def on_changed(self) -> None:
        """Show what is known once more."""
        self._show()
        self._say()

    def _show(self) -> None:
        screen = self._lowest
        if self.seen is not None and screen is not None:
            with suppress(NoMatches):  # it is being put together, or taken down
                screen.show(self.seen)

    @property
    def _lowest(self) -> Overview | PluginScreen | None:
        """The screen that shows numbers: the open one, or the one beneath a dialog."""
        return next((screen for screen in reversed(self.screen_stack) if isinstance(screen, Overview | PluginScreen)), None)

    def _say(self) -> None:
        """Say in the last line what is the matter: a host that doesn't answer before anything else."""
        screen = self._lowest
        if screen is not None:
            with suppress(NoMatches):  # it is being put together, or taken down
                self._say_on(screen)

    def _say_on(self, screen: Overview | PluginScreen) -> None:
        lost = self._lost()
        words = lost or ", ".join([*(f"{doing} ..." for doing in self._doing), *filter(None, [self._of_screen(screen)])])
        bar = screen.query_one("#bar", Said)
        bar.set_class(bool(lost), "lost")
        bar.set_class(bool(words), "said")
        bar.say(Text(words))
        for part in screen.query("Plugins, #heading, #details"):
            part.set_class(bool(lost), "lost")

    def _of_screen(self, screen: Overview | PluginScreen) -> str:
        return screen.state() if isinstance(screen, Overview) else ""

    def _lost(self) -> str:
        silent = self._clock() - self._answered
        if not self._why and silent < max(_PATIENCE, _MISSED * self._feed.interval):
            return ""
        since = f"last answer {clock(self._answered)}, {_words.duration(silent)} ago" if self.seen else "no answer yet"
        why = self._why or "the host doesn't answer: it is stopped, or very busy"
        return f"LOST, {since}; it is tried again, and q quits. {_words.short(why, 300)}"

    @property
    def _target(self) -> Row | None:
        screen = self.screen
        return screen.row if isinstance(screen, Overview | PluginScreen) else None

    def action_isolate(self) -> None:
        """Move the plugin to the other place."""
        self._confirm(_dialogs.toggle)

    def action_drain(self) -> None:
        """Drain the plugin, or let it take calls again."""
        row = self._target
        if row is not None and not row.mode:
            self._warn(f"{row.name} is not loaded: there is nothing to drain")
        else:
            self._confirm(_dialogs.resume if row is not None and row.state == "draining" else _dialogs.drain)

    def action_restart(self) -> None:
        """Load the plugin anew."""
        self._confirm(_dialogs.restart)

    def _confirm(self, make: Callable[[Row], _dialogs.Act]) -> None:
        row = self._target
        if row is None:
            self._warn("no plugin is chosen")
            return
        wanted = make(row)
        self.push_screen(_dialogs.Confirm(wanted), lambda yes: self._do(wanted) if yes else None)

    def _warn(self, text: str) -> None:
        self.notify(_words.short(text, 300), severity="warning", markup=False)

    def _do(self, wanted: _dialogs.Act) -> None:
        self._doing.append(wanted.doing)
        self._say()
        act(self._asked, wanted.verb, wanted.arguments, lambda answer, error: self._finished(wanted, answer, error))

    def _finished(self, wanted: _dialogs.Act, answer: Any, error: HostkitError | None) -> None:  # Any: JSON data
        self.post_message(Done(wanted, answer, error))

    def action_details(self) -> None:
        """Show all that is known of the plugin."""
        self._open(Details)

    def action_log(self) -> None:
        """Show the plugin's log."""
        self._open(Log)

    def _open(self, kind: type[PluginScreen]) -> None:
        row = self._target
        if row is None:
            return
        if isinstance(self.screen, PluginScreen):
            self.pop_screen()
        self.push_screen(kind(row.name, self._feed.question))

    def action_help(self) -> None:
        """Show the help."""
        self.push_screen(_dialogs.Help())


def _answered(answer: Any) -> str:  # JSON data
    if isinstance(answer, dict):
        return ", ".join(f"{key}: {value}" for key, value in answer.items() if value not in (None, "", [], {}))
    return "" if answer is None else str(answer)
