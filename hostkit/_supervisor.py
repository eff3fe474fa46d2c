"""Keep an isolated plugin's workers alive: start them, replace dead ones within a budget, and say why when it is used up.

    starting ─► ready ─► (dies) ─► restart after a back-off ─► ready …
                              └─► more deaths than the budget ─► failed: every call is CircuitOpen until a reload
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from ._channel import Channel, Ended
from ._deadline import Deadline
from ._ending import Reason
from ._errors import CallTimeout, CircuitOpen, HostkitError, PluginClosed
from ._idle import Idle
from ._importable import target_of
from ._link import Introduction, Link
from ._log import tell
from ._opening import Opening
from ._worker._frames import CLOSE, ITEM, FrameError

# The first replacement comes at once; the next ones wait, with full jitter (AWS Architecture Blog, "Exponential Backoff And
# Jitter"), so that a crash loop doesn't burn a CPU.
_BACKOFF, _MOST_BACKOFF = 0.1, 5.0


class Supervisor:
    """The workers of one plugin, and the idle channels to them. Thread-safe."""

    def __init__(
        self,
        opening: Opening,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.idle: Idle[Channel] = Idle()
        self._opening = opening
        self._target = target_of(opening.name, opening.entry_point, opening.target)
        self._monitor = opening.monitor
        self._clock = clock
        self._jitter = jitter
        self._lock = threading.Lock()  # guards _links, _started and _closing
        # Held while a worker is being replaced: close() passes it once, so that no worker is born behind its back. Reentrant, because
        # a forgotten host is closed by whichever thread collects it.
        self._replacing = threading.RLock()
        self._started = False
        self._links: set[Link] = set()
        self._closing = False
        self._deaths: deque[float] = deque()  # monitor's thread only
        self._failed = ""

    def start(self) -> Introduction:
        """Start all workers at once and wait for them. Raises what keeps one from starting; then none is left."""
        try:
            links = [self._launch() for _ in range(self._opening.settings.workers)]
            introductions = [self._introduced(link.introduced) for link in links]
        except BaseException:
            self.close(Deadline.after(0.0))
            raise
        with self._lock:
            self._started = True
        for link in links:
            self._offer(link)
        return introductions[0]

    def _introduced(self, introduced: Future[Introduction]) -> Introduction:
        # The monitor ends a start that takes too long; this second limit only says that nothing here waits for ever.
        return introduced.result(self._opening.settings.start_timeout + 10.0)

    def abandon(self, channel: Channel, call_id: int, *, half_sent: bool) -> None:
        """Take over a channel whose caller gave up: cancel the call, and replace the worker if it doesn't end in time."""
        self._monitor.run(self._await_late, channel, call_id, half_sent)

    def any_link(self) -> Link | None:
        """Return a worker to ask for health, or None while there is none."""
        with self._lock:
            return next((link for link in self._links if link.introduced.done() and not link.retired), None)

    @property
    def failed(self) -> str:
        """Why the plugin is no longer restarted; empty while it is."""
        return self._failed

    @property
    def pids(self) -> list[int]:
        """The workers' process ids."""
        with self._lock:
            return [link.process.pid for link in self._links if link.process.pid is not None]

    def give(self, channel: Channel) -> None:
        """Take a channel back whose call has ended in order."""
        if channel.link.retired or channel.link.ended.is_set():
            self._monitor.run(self._rest, channel)
        else:
            self.idle.give(channel)

    def close(self, deadline: Deadline) -> list[str]:
        """End all workers: ask them, then SIGTERM, then SIGKILL, each with a limit. Returns what went wrong, one text a worker.
        Idempotent."""
        with self._lock:
            self._closing = True
        with self._replacing, self._lock:
            links = list(self._links)
        self.idle.fail(lambda: self._closed())
        complaints = _close_all(links, deadline)
        for link in links:
            self.idle.discard(set(link.channels))
            link.hang_up()
        return complaints

    def forget(self) -> None:
        """Let go of everything in a fork of the host, without touching the workers."""
        for link in self._links:
            link.abandon_in_child()

    def _closed(self) -> Exception:
        return PluginClosed(f"plugin {self._opening.name!r} is closed", plugin=self._opening.name, phase="queue")

    def _launch(self) -> Link:
        link = Link(self._opening, self._target, self._ended)
        with self._lock:
            self._links.add(link)
            closing = self._closing
        if closing:
            link.end(Reason(PluginClosed, "its worker was closed while it started"))
        return link

    def _offer(self, link: Link) -> None:
        for channel in link.channels:
            self.give(channel)

    # The rest runs on the monitor's thread.

    def _ended(self, link: Link) -> None:
        with self._lock:
            self._links.discard(link)
            closing = self._closing or not self._started
        for channel in self.idle.discard(set(link.channels)):
            channel.close()
        if link.introduced.exception() is not None:
            link.hang_up()  # it never got to offer its channels
        ending = link.ending
        if closing or ending is None or link.retired:
            return
        tell(
            "WARNING",
            f"plugin {self._opening.name!r} lost a worker: {ending.error(plugin=self._opening.name)}",
            plugin=self._opening.name,
        )
        self._replace(count=ending.own_doing)

    def _replace(self, *, count: bool) -> None:
        now = self._clock()
        settings = self._opening.settings
        if count:
            self._deaths.append(now)
        while self._deaths and self._deaths[0] <= now - settings.restart_window:
            self._deaths.popleft()
        if len(self._deaths) > settings.restarts:
            self._give_up()
            return
        self._monitor.later(self._backoff(len(self._deaths) if count else 0), self._restart)

    def _backoff(self, deaths: int) -> float:
        if deaths <= 1:
            return 0.0
        longest: float = min(_MOST_BACKOFF, _BACKOFF * 2.0 ** (deaths - 2))
        return longest * self._jitter()

    def _restart(self) -> None:
        try:
            with self._replacing:
                with self._lock:
                    if self._closing:
                        return
                link = self._launch()
        except (OSError, HostkitError) as error:
            tell("ERROR", f"plugin {self._opening.name!r}: a worker can't be started: {error}", plugin=self._opening.name)
            self._replace(count=True)
            return
        link.introduced.add_done_callback(lambda introduced: self._restarted(link, introduced))

    def _restarted(self, link: Link, introduced: Future[Introduction]) -> None:
        error = introduced.exception()
        if error is None:
            tell("INFO", f"plugin {self._opening.name!r} has a new worker", plugin=self._opening.name, pid=link.process.pid)
            self._offer(link)
        elif not link.ended.is_set():
            link.end(Reason(CallTimeout, f"its worker couldn't start: {error}"))
            self._deaths.append(self._clock())

    def _give_up(self) -> None:
        settings = self._opening.settings
        self._failed = (
            f"plugin {self._opening.name!r} is not started again: its workers died {len(self._deaths)} times within "
            f"{settings.restart_window:g} s, {settings.restarts} are allowed; mend it, then reload it"
        )
        tell("ERROR", self._failed, plugin=self._opening.name)
        if not self._links:
            self.idle.fail(lambda: CircuitOpen(self._failed, plugin=self._opening.name, phase="queue"))

    def _await_late(self, channel: Channel, call_id: int, half_sent: bool) -> None:
        link = channel.link
        if link.ended.is_set():
            channel.close()
            return
        if half_sent:
            # Nothing that follows half a frame can be understood.
            self._retire(link, channel)
            return
        link.cancel(call_id)
        timer = self._monitor.later(self._opening.settings.cancel_grace, self._too_late, link, channel)
        self._monitor.watch(channel.fileno(), lambda: self._on_late(channel, call_id, timer))
        self._on_late(channel, call_id, timer)

    def _on_late(self, channel: Channel, call_id: int, timer: object) -> None:
        try:
            count = channel.read_some()
            while (frame := channel.pop(call_id)) is not None:
                if frame.kind != ITEM:
                    self._monitor.unwatch(channel.fileno())
                    timer.cancel()  # type: ignore[attr-defined]  # a TimerHandle; None only where nothing runs any more
                    self.give(channel)
                    return
            if count == 0:
                raise Ended
        except FrameError as error:
            self._monitor.unwatch(channel.fileno())
            channel.link.end(_broken(error))
            channel.close()
        except (Ended, OSError):
            self._monitor.unwatch(channel.fileno())
            channel.close()

    def _too_late(self, link: Link, channel: Channel) -> None:
        if link.ended.is_set():
            return
        grace = self._opening.settings.cancel_grace
        tell(
            "WARNING",
            f"plugin {self._opening.name!r}: a call went on for {grace:g} s after it was given up; its worker is replaced",
            plugin=self._opening.name,
        )
        self._monitor.unwatch(channel.fileno())
        self._retire(link, channel)

    def _retire(self, link: Link, stuck: Channel) -> None:
        """Replace a worker at once, but let the calls on its other channels end before it is killed."""
        if not link.retired:
            link.retired = True
            self._at_rest(link, self.idle.discard(set(link.channels)))
            self._replace(count=False)
        self._at_rest(link, {stuck})

    def _rest(self, channel: Channel) -> None:
        self._at_rest(channel.link, {channel})

    def _at_rest(self, link: Link, channels: set[Channel]) -> None:
        for channel in channels:
            channel.close()
        if all(channel.closed for channel in link.channels) and not link.ended.is_set():
            link.end(Reason(CallTimeout, "its worker was replaced after a call that didn't end"))


def _broken(error: FrameError) -> Reason:
    from ._errors import ProtocolError

    return Reason(ProtocolError, f"its worker broke the protocol: {error}")


def _close_all(links: list[Link], deadline: Deadline) -> list[str]:
    complaints = []
    asked = [(link, link.ask(CLOSE)) for link in links if link.introduced.done() and not deadline.passed]
    for link, answer in asked:
        complaint = _complaint(answer, deadline)
        if complaint:
            complaints.append(complaint)
        link.hang_up()
    for limit, harder in ((1.0, Link.terminate), (0.5, _kill), (2.0, None)):
        waiting = [link for link in links if not link.ended.wait(_share(limit, deadline, harder))]
        if not waiting or harder is None:
            break
        for link in waiting:
            harder(link)
    return complaints


def _share(limit: float, deadline: Deadline, harder: object) -> float:
    # After SIGKILL there is nothing to ask any more: its end is waited for beyond the deadline.
    return limit if harder is None else min(limit, deadline.remaining())


def _kill(link: Link) -> None:
    link.end(Reason(PluginClosed, "its worker was closed"))


def _complaint(answer: Future[object], deadline: Deadline) -> str:
    from concurrent.futures import CancelledError
    from concurrent.futures import TimeoutError as FutureTimeout

    try:
        frame = answer.result(deadline.wait())
    except FutureTimeout:
        return "close() did not return in time"
    except CancelledError:
        return "its worker died in close()"
    meta = getattr(frame, "meta", b"")
    if not meta:
        return ""
    import json

    said = json.loads(meta)
    return f"close() raised {said.get('type')}: {said.get('message')}"
