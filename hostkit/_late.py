"""Calls that their callers gave up: cancel them, and wait a little for their end, so that the worker can go on.

caller gives up ─► CANCEL ─► ends within the grace ─► the channel is idle again
                            └► goes on              ─► the worker is replaced
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from ._channel import Channel, Ended
from ._ending import Reason
from ._errors import ProtocolError
from ._link import Link, broken
from ._monitor import Monitor
from ._worker._frames import FrameError


class LateCalls:
    """The channels of calls that nobody waits for. Everything runs on the monitor's thread.

    ``ended`` gets a channel whose call ended in time, ``stuck`` one whose call did not, or whose request was half sent, and why.
    """

    def __init__(
        self, monitor: Monitor, grace: float, *, ended: Callable[[Channel], None], stuck: Callable[[Channel, str], None]
    ) -> None:
        self._monitor = monitor
        self._grace = grace
        self._ended = ended
        self._stuck = stuck
        self._waiting: dict[Channel, asyncio.TimerHandle | None] = {}

    def take(self, channel: Channel, owed: deque[int], *, half_sent: bool) -> None:
        """Take over a channel from callers that gave up: ``owed`` are their calls, in the order in which they were sent."""
        if channel.link.ended.is_set():
            channel.close()
        elif half_sent:
            # Nothing that follows half a frame can be understood.
            self._stuck(channel, "a request could not be sent to its end in time")
        else:
            for call_id in owed:
                channel.link.cancel(call_id)
            self._waiting[channel] = self._monitor.later(self._grace, self._too_late, channel)
            self._monitor.watch(channel.fileno(), lambda: self._on_answer(channel, owed))
            self._on_answer(channel, owed)  # what has come already wakes nobody

    def drop(self, link: Link) -> None:
        """Close the channels of a worker that has ended."""
        for channel in [channel for channel in self._waiting if channel.link is link]:
            self._leave(channel)
            channel.close()

    def _on_answer(self, channel: Channel, owed: deque[int]) -> None:
        try:
            if channel.read_late(owed):
                self._leave(channel)
                self._ended(channel)
        except FrameError as error:
            self._leave(channel)
            channel.close()
            channel.link.end(broken(error))
        except Ended:
            self._leave(channel)
            channel.close()
            self._monitor.later(0.5, self._on_silence, channel.link)

    def _on_silence(self, link: Link) -> None:
        if not link.ended.is_set():
            link.end(Reason(ProtocolError, "its worker closed a channel and lived on"))

    def _too_late(self, channel: Channel) -> None:
        if channel in self._waiting:
            self._leave(channel)
            self._stuck(channel, f"a call went on for {self._grace:g} s after it was given up")

    def _leave(self, channel: Channel) -> None:
        self._monitor.unwatch(channel.fileno())
        timer = self._waiting.pop(channel)
        if timer is not None:
            timer.cancel()
