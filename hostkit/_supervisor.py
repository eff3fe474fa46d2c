"""Keep an isolated plugin's workers alive: start them, replace dead ones within a budget, and say why when it is used up.

starting ─► ready ─► offered to callers ─► (dies) ─► restart after a back-off ─► ready …
             │             ▲                    └─► more deaths than the budget ─► failed: every call is CircuitOpen until a reload
             └─► standby ──┘ at once, when one that was offered dies or is replaced
"""

from __future__ import annotations

import functools
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from ._channel import Channel
from ._deadline import Deadline
from ._ending import Reason
from ._errors import CallTimeout, CircuitOpen, HostkitError, PluginClosed
from ._events import Event, PluginGivenUp, SandboxViolated, WorkerEnded, WorkerReplaced, WorkerStarted
from ._farewell import end_all
from ._greeting import Introduction
from ._idle import Idle
from ._importable import target_of
from ._late import LateCalls
from ._link import CLOSED, Link, broken
from ._log import tell
from ._opening import Opening, Recycle
from ._recycling import Recycling
from ._restarts import Restarts
from ._vitals import Vitals
from ._worker._frames import FrameError

# Seconds before a standby is started: the callers that wait for the one that has taken over go first.
_BEHIND = 0.03


class Supervisor:
    """The workers of one plugin, and the idle channels to them. Thread-safe."""

    def __init__(
        self,
        opening: Opening,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        settings = opening.settings
        self.idle: Idle[Channel] = Idle(returned=self._settle)
        self._name = opening.name
        self._opening = opening
        self._target = target_of(opening.name, opening.entry_point, opening.target)
        self._monitor = opening.monitor
        self._lock = threading.Lock()  # guards _links, _spent and _closing
        self._back = threading.Condition(self._lock)  # a channel came back or a worker ended, while everything is closed
        self._links: set[Link] = set()
        self._spent = 0.0  # CPU seconds of workers that have ended
        self._closing = False
        self._counting = settings.recycle is not None or bool(settings.limits)
        self._recycling = None if settings.recycle is None else self._recycled(settings.recycle, jitter)
        # The monitor's alone:
        self._late = LateCalls(opening.monitor, settings.cancel_grace, ended=self.give, stuck=self._stuck)
        self._restarts = Restarts(settings.restarts, settings.restart_window, clock=clock, jitter=jitter)
        self._serving = False
        self._failed = ""

    def start(self) -> Introduction:
        """Start all workers at once and wait for them. Raises what keeps one from starting; then none is left."""
        try:
            links = [self._launch() for _ in range(self._opening.settings.workers)]
            introductions = [self._introduced(link) for link in links]
        except BaseException:
            self.close(Deadline.after(0.0))
            raise
        self._serving = True
        for link in links:
            self._offer(link)
        for _ in range(self._opening.settings.standby):
            self._monitor.run(self._begin_restart)
        return introductions[0]

    def _recycled(self, recycle: Recycle, jitter: Callable[[], float]) -> Recycling:
        return Recycling(
            self._name,
            recycle,
            self._monitor,
            self.idle,
            close_timeout=self._opening.settings.close_timeout,
            launch=self._launch,
            fill=self._fill,
            replace=self._begin_restart,
            jitter=jitter,
        )

    def _introduced(self, link: Link) -> Introduction:
        # The monitor ends a start that takes too long; this second limit only says that nothing here waits for ever.
        return link.introduced.result(self._opening.settings.start_timeout + 10.0)

    def give(self, channel: Channel) -> None:
        """Take a channel back whose call has ended in order."""
        link = channel.link
        if not channel.clean:
            link.over = True  # what else lies in its channels is no business of the next call
            link.end(broken(FrameError("more than the answer to a call")))
        if self._counting:
            channel.call_id = 0
            if self._recycling is not None:
                self._recycling.served(link)
        if link.over:
            self._lay_down(channel)
            return
        self.idle.give(channel)
        # Between the look and the gift the worker may have ended, or everything been closed.
        if link.over or self._closing:
            self._settle(channel)

    def served(self, channel: Channel) -> None:
        """Count a call that has ended on a channel that has more of them."""
        if self._recycling is not None:
            self._recycling.served(channel.link)

    def _settle(self, channel: Channel) -> None:
        if channel.link.over and self.idle.discard({channel}):
            self._lay_down(channel)
        if self._closing:
            self._came_back()

    def _lay_down(self, channel: Channel) -> None:
        if self._recycling is None or not channel.link.retired:
            self.drop(channel)
        elif self._closing:
            self.idle.give(channel)
            self._came_back()
        else:
            self._monitor.run(self._recycling.park, channel)

    def drop(self, channel: Channel) -> None:
        """Take a channel back that can't be used again."""
        channel.close()
        if not channel.link.ended.is_set():
            self._monitor.run(self._rest, channel.link)
        if self._closing:
            self._came_back()

    def abandon(self, channel: Channel, *owed: int, half_sent: bool) -> None:
        """Take over a channel whose callers gave up: cancel their calls, and replace the worker if those don't end in time."""
        self._monitor.run(functools.partial(self._late.take, channel, deque(owed), half_sent=half_sent))

    def call_off(self, call_id: int) -> None:
        """Cancel a call whose caller still has its channel, and replace the worker if it doesn't end in time."""
        with self._lock:
            channels = [channel for link in self._links for channel in link.channels if channel.call_id == call_id]
        for channel in channels:
            if not channel.closed:
                channel.link.cancel(call_id)
                self._monitor.run(self._monitor.later, self._opening.settings.cancel_grace, self._not_over, channel, call_id)

    def recycle(self, channel: Channel, why: str) -> None:
        """Take a channel back and replace its worker, which is in no state to go on."""
        self._monitor.run(self._stuck, channel, why)

    def any_link(self) -> Link | None:
        """Return a worker to ask for health, one that serves if there is one, or None while there is none."""
        with self._lock:
            ready = [link for link in self._links if link.ready and not link.dismissed and (link.retired or not link.over)]
        return max(ready, key=lambda link: (not link.over, link.offered), default=None)

    @property
    def failed(self) -> str:
        """Why the plugin is no longer restarted; empty while it is."""
        return self._failed

    @property
    def pids(self) -> list[int]:
        """The workers' process ids."""
        with self._lock:
            return [link.process.pid for link in self._links if link.process.pid is not None and not link.ended.is_set()]

    def vitals(self) -> Vitals:
        """Return how the workers are doing."""
        with self._lock:
            links, spent = list(self._links), self._spent
        return Vitals(tuple(link.vitals() for link in links if not link.ended.is_set()), self.idle.waiting, spent, self._failed)

    def close(self, deadline: Deadline) -> list[str]:
        """End all workers: ask them, then SIGTERM, then SIGKILL, each with a limit. Returns what went wrong, one text a worker.
        Idempotent."""
        with self._lock:
            self._closing = True
            links = list(self._links)
        if self._recycling is not None:
            self._recycling.stop()
        self.idle.fail(self._closed)
        if self._monitor.on_it:
            # A forgotten host may be collected there, and nobody else would see the deaths that are waited for below.
            for link in links:
                link.end(CLOSED)
            return []
        self._call_back(links, deadline)
        complaints = end_all(links, deadline)
        for channel in self.idle.discard({channel for link in links for channel in link.channels}):
            channel.close()
        return complaints

    def _call_back(self, links: list[Link], deadline: Deadline) -> None:
        """Cancel the calls that still run, and give them a moment to end."""
        out = {channel for link in links for channel in link.channels if link.offered and not link.dismissed}
        for link in links:
            if link.term is not None:
                out -= link.term.parked  # at home already, but not among the idle ones
        home = self.idle.discard(out)
        out -= home
        for channel in out:
            channel.link.cancel(channel.call_id)

        def all_back() -> bool:
            home.update(self.idle.discard(out - home))
            return all(channel in home or channel.closed for channel in out)

        with self._back:
            self._back.wait_for(all_back, min(self._opening.settings.cancel_grace, deadline.remaining()))
        for channel in home:
            self.idle.give(channel)

    def _came_back(self) -> None:
        with self._back:
            self._back.notify_all()

    def _closed(self) -> Exception:
        return PluginClosed(f"plugin {self._name!r} is closed", plugin=self._name, phase="queue")

    def _launch(self) -> Link:
        link = Link(self._opening, self._target, self._ended)
        with self._lock:
            self._links.add(link)
            if link.ended.is_set():  # so soon that _ended has been here already
                self._links.discard(link)
            closing = self._closing
        if closing:
            link.end(CLOSED)
        return link

    def _offer(self, link: Link) -> None:
        link.offered = True
        if self._recycling is not None:
            self._recycling.begin(link)
        for channel in link.channels:
            self.idle.give(channel)
            self._settle(channel)

    def _happened(self, event: Event) -> None:
        if self._opening.happened is None:
            tell(event.level, str(event), plugin=self._name)
        else:
            self._opening.happened(event)

    # The rest runs on the monitor's thread.

    def _ended(self, link: Link) -> None:
        if link.ending is not None and link.ending.violated:
            self._happened(SandboxViolated(self._name, link.ending.innermost))
        with self._lock:
            self._links.discard(link)
            self._spent += link.spent
            closing = self._closing
            self._back.notify_all()
        channels = set(link.channels)
        for channel in self.idle.discard(channels) if link.offered else channels:
            channel.close()
        self._late.drop(link)
        followed = self._recycling is not None and self._recycling.ended(link)
        if closing or link.replaced or not (link.ready or self._serving):
            return
        self._fill()
        assert link.ending is not None
        why = link.ending.error(plugin=self._name, phase="") if link.ready else link.introduced.exception()
        if self._recycling is not None and self._recycling.kept(link):
            return
        own_doing = link.ending.own_doing or not link.ready
        if not link.dismissed:
            said = str(why).removeprefix(f"plugin {self._name!r}: ")
            self._happened(WorkerEnded(self._name, link.pid, type(why).__name__, said))
        if not followed:
            self._replace(count=own_doing, why=str(why))
        elif own_doing and not link.dismissed:
            self._restarts.died()

    def _replace(self, *, count: bool, why: str) -> None:
        if count:
            self._restarts.died()
            if self._restarts.used_up:
                self._give_up(why)
                return
        pause = self._restarts.pause() if count else 0.0
        self._monitor.later(max(pause, _BEHIND if self._complete else 0.0), self._begin_restart)

    @property
    def _complete(self) -> bool:
        with self._lock:
            return sum(link.offered and not link.over for link in self._links) >= self._opening.settings.workers

    def _fill(self) -> None:
        """Offer ready workers to callers until there are as many as the operator asked for; the rest stand by."""
        with self._lock:
            if self._closing:
                return
            there = [link for link in self._links if link.ready and not link.over]
        gaps = self._opening.settings.workers - sum(link.offered for link in there)
        for link in [link for link in there if not link.offered][: max(0, gaps)]:
            self._offer(link)
            self._happened(WorkerStarted(self._name, link.pid))

    def _begin_restart(self) -> None:
        if self._closing:
            return
        try:
            # A start waits, for the system or for a template, and the monitor may not.
            threading.Thread(target=self._restart, name="hostkit-start", daemon=True).start()
        except RuntimeError as error:  # no thread left
            self._not_started(error)

    def _restart(self) -> None:
        try:
            link = self._launch()
        except PluginClosed:
            return  # the host was closed meanwhile
        except (OSError, HostkitError) as error:
            self._monitor.run(self._not_started, error)
            return
        link.introduced.add_done_callback(lambda introduced: self._monitor.run(self._restarted, link, introduced))

    def _not_started(self, error: Exception) -> None:
        tell("ERROR", f"plugin {self._name!r}: a worker can't be started: {error}", plugin=self._name)
        self._replace(count=True, why=f"a worker can't be started: {error}")

    def _restarted(self, link: Link, introduced: Future[Introduction]) -> None:
        if introduced.exception() is None:
            self._fill()
        else:
            link.end(CLOSED)  # it couldn't load the plugin, and ends by itself if it is honest

    def _give_up(self, why: str) -> None:
        settings = self._opening.settings
        with self._lock:
            left = len([link for link in self._links if not link.over])
        said = (
            f"plugin {self._name!r}: its workers died {self._restarts.count} times within {settings.restart_window:g} s, "
            f"{settings.restarts} are forgiven; the last time: {why}"
        )
        if left:
            self._happened(PluginGivenUp(self._name, f"{said}; it goes on with the {left} left", left))
            return
        self._failed = f"{said}; it is not started again: mend it, then reload it"
        self._happened(PluginGivenUp(self._name, self._failed))
        self.idle.fail(lambda: CircuitOpen(self._failed, plugin=self._name, phase="queue"))

    def _stuck(self, channel: Channel, why: str) -> None:
        """Replace a worker at once, but let the calls on its other channels end before it is killed."""
        self._replace_link(channel.link, why)
        channel.close()
        self._rest(channel.link)

    def _replace_link(self, link: Link, why: str) -> None:
        if not link.over:
            self._happened(WorkerReplaced(self._name, link.pid, why))
            link.replaced = link.over = True
            for other in self.idle.discard(set(link.channels)):
                other.close()
            self._fill()
            self._replace(count=False, why=why)

    def _not_over(self, channel: Channel, call_id: int) -> None:
        if channel.call_id != call_id or channel.closed or channel in self.idle:
            return
        why = f"a call went on for {self._opening.settings.cancel_grace:g} s after it was cancelled"
        channel.given_up = True
        self._replace_link(channel.link, why)
        self._rest(channel.link)

    def _rest(self, link: Link) -> None:
        if self._recycling is not None and link.retired:
            self._recycling.rest(link)
            return
        over = all(channel.closed or channel.given_up for channel in link.channels)
        if link.replaced and over and not link.ended.is_set():
            link.end(Reason(CallTimeout, "its worker was replaced after a call that didn't end"))
