"""Replace a worker that has served long enough by a new one, without losing a call.

old    serves ── due ─────────────────┐ its last calls end ─► close() ─► gone
new               └ starts ─► ready ──┴─► serves …

The new one is started first. Only a worker that has had all of its ``max_calls`` meanwhile takes no more, and calls wait.
"""

from __future__ import annotations

import itertools
import random
import threading
from asyncio import TimerHandle
from collections.abc import Callable
from concurrent.futures import Future

from . import _footprint
from ._channel import Channel
from ._errors import HostkitError
from ._farewell import dismiss
from ._greeting import Introduction
from ._idle import Idle
from ._link import CLOSED, Link
from ._log import tell
from ._monitor import Monitor
from ._opening import Recycle

# The part of its time that a worker may end sooner, so that those which were started together don't end together.
_SPREAD = 0.2
# Seconds between two looks at a worker's memory, and until it is tried again to start one that couldn't be started.
_WEIGHING, _AGAIN = 0.5, 10.0


class Term:
    """One worker's time of service."""

    def __init__(self, recycle: Recycle, jitter: float) -> None:
        self.served = itertools.count(1)
        self.most = recycle.calls
        # Before the last call, so that the next worker is ready when this one has had it.
        self.enough = None if self.most is None else max(1, self.most - 1 - int(_SPREAD * self.most * jitter))
        self.age = None if recycle.age is None else recycle.age * (1.0 - _SPREAD * jitter)
        self.heavy = False  # its memory was above the limit, maybe only for the call that ran
        self.timers: dict[str, TimerHandle | None] = {}
        self.following = False  # another one is being started in its place
        self.parked: set[Channel] = set()


class Recycling:
    """Of one plugin's workers. ``begin``, ``served`` and ``stop`` may be called from any thread, everything else is the monitor's."""

    def __init__(
        self,
        plugin: str,
        recycle: Recycle,
        monitor: Monitor,
        idle: Idle[Channel],
        *,
        close_timeout: float,
        launch: Callable[[], Link],
        fill: Callable[[], None],
        replace: Callable[[], None],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._plugin = plugin
        self._recycle = recycle
        self._monitor = monitor
        self._idle = idle
        self._close_timeout = close_timeout
        self._launch = launch
        self._fill = fill
        self._replace = replace
        self._jitter = jitter
        self._stopped = False

    def stop(self) -> None:
        """Start no more workers: the plugin is being closed."""
        self._stopped = True

    def begin(self, link: Link) -> None:
        """Let a worker's time begin, before it gets its first call."""
        link.term = Term(self._recycle, self._jitter())
        self._monitor.run(self._time, link, link.term)

    def served(self, link: Link) -> None:
        """Count a call that has ended."""
        term = link.term
        if term is None:
            return
        count = next(term.served)
        if count == term.most:
            link.over = link.retired = True
            self._monitor.run(self._due, link, f"{count} calls")
        elif count == term.enough:
            self._monitor.run(self._due, link, f"{count} calls")
        elif term.heavy:
            term.heavy = False
            self._weigh(link)

    def park(self, channel: Channel) -> None:
        """Keep a channel of a worker that takes no more calls until it has closed its plugin: without channels it ends at once."""
        link = channel.link
        if link.term is None or link.ended.is_set():
            channel.close()
        else:
            link.term.parked.add(channel)
            self.rest(link)

    def rest(self, link: Link) -> None:
        """Let a worker go whose last call has ended."""
        term = link.term
        assert term is not None
        # Until the next one is ready there is nobody else to ask for health.
        if self._stopped or link.dismissed or (term.following and not link.replaced):
            return
        if all(channel.closed or channel.given_up or channel in term.parked for channel in link.channels):
            dismiss(link, self._monitor, self._close_timeout)

    def ended(self, link: Link) -> bool:
        """Forget a worker that has ended; return whether another one is on its way in its place."""
        term = link.term
        if term is None:
            return False
        for timer in term.timers.values():
            if timer is not None:
                timer.cancel()
        for channel in term.parked:
            channel.close()
        return term.following

    def kept(self, new: Link) -> bool:
        """Return whether the worker goes on in whose place ``new`` was started, which has ended before it was ready."""
        old = new.successor_of
        if old is None or old.term is None:
            return False
        old.term.following = False
        if old.over:
            if not old.ended.is_set():
                self.rest(old)
            return False
        self._try_again(old, old.term, str(new.introduced.exception()))
        return True

    def _time(self, link: Link, term: Term) -> None:
        if link.ended.is_set():
            return
        if term.age is not None:
            term.timers["age"] = self._monitor.later(term.age, self._due, link, f"{term.age:.0f} s")
        if self._recycle.memory_bytes is not None:
            self._look(link, term)

    def _look(self, link: Link, term: Term) -> None:
        if link.over or link.ended.is_set():
            return
        if self._recycle.memory_bytes is not None and _footprint.at_most((link.pid,)) > self._recycle.memory_bytes:
            if link.running:
                term.heavy = True  # looked at again when the call has ended
            else:
                self._weigh(link)
        term.timers["memory"] = self._monitor.later(_WEIGHING, self._look, link, term)

    def _weigh(self, link: Link) -> None:
        used = _footprint.exact((link.pid,))
        if self._recycle.memory_bytes is not None and used > self._recycle.memory_bytes:
            self._monitor.run(self._due, link, f"{used >> 20} MB of memory")

    def _due(self, link: Link, after: str) -> None:
        """Start another worker in this one's place."""
        term = link.term
        assert term is not None
        if not (self._stopped or term.following or link.replaced or link.ended.is_set()):
            self._follow(link, term, after)
        if link.retired and not link.ended.is_set():
            self._empty(link, term)

    def _follow(self, link: Link, term: Term, after: str) -> None:
        tell("INFO", f"plugin {self._plugin!r}: a worker is recycled after {after}", plugin=self._plugin, pid=link.pid)
        term.following = True
        try:
            # A start waits, for the system or for a template, and the monitor may not.
            threading.Thread(target=self._start, args=(link, term), name="hostkit-start", daemon=True).start()
        except RuntimeError as error:  # no thread left
            self._not_started(link, term, error)

    def _start(self, link: Link, term: Term) -> None:
        try:
            new = self._launch()
        except (OSError, HostkitError) as error:
            self._monitor.run(self._not_started, link, term, error)
            return
        new.successor_of = link
        new.introduced.add_done_callback(lambda introduced: self._monitor.run(self._ready, link, term, new, introduced))

    def _not_started(self, link: Link, term: Term, error: Exception) -> None:
        term.following = False
        if link.ended.is_set():
            self._replace()
        elif link.over:
            self.rest(link)  # its end is followed by another one
        else:
            self._try_again(link, term, str(error))

    def _ready(self, link: Link, term: Term, new: Link, introduced: Future[Introduction]) -> None:
        if introduced.exception() is not None:
            new.end(CLOSED)  # it couldn't load the plugin, and ends by itself if it is honest
            if new.ended.is_set() and term.following:  # so soon that nobody knew whose successor it was
                self.kept(new)
            return
        link.replaced = link.over = link.retired = True
        self._fill()
        if not link.ended.is_set():
            self._empty(link, term)

    def _empty(self, link: Link, term: Term) -> None:
        term.parked |= self._idle.discard(set(link.channels))
        self.rest(link)

    def _try_again(self, link: Link, term: Term, why: str) -> None:
        text = f"plugin {self._plugin!r}: a worker can't be recycled, and goes on: no other one could be started: {why}"
        tell("ERROR", text, plugin=self._plugin)
        term.timers["again"] = self._monitor.later(_AGAIN, self._due, link, "a longer time than it should have served")
