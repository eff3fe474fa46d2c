"""The worker's side of the memory that it shares with the host, which alone creates segments (``_segments``).

A MEMORY frame says any of these (a fd comes with "segment"; "number" is the question's):

    host ──► worker   segment [number, size, is it the worker's to write], freed, dropped
    worker ──► host   need: bytes that no free segment has (new: whether a new one will do), freed, dropped
"""

from __future__ import annotations

import threading
import time

from ._segments import INLINE, Reader, Segment, Writer, mapped, segment_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Items of streams whose segments the host has not let go of. What comes beyond goes through the channel, where a slow reader is waited for:
# the few bytes that tell of a segment would fit into a pipe many hundred times.
_MOST_AHEAD = 4
# Seconds that a worker waits for the host to make room; then the bytes go through the channel.
_PATIENCE = 1.0


class Arena:
    """A worker's shared memory. ``ask`` sends the host a MEMORY frame, its number and what it says, once there is a host to ask."""

    ask: Callable[[int, dict[str, Any]], object]

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.reader = Reader(limit)
        self.writer = Writer(2 * segment_size(limit))
        self._news = threading.Condition(threading.Lock())  # guards _questions and _failed
        self._questions = 0
        self._answers: dict[int, Segment | None] = {}
        self._failed: set[int] = set()

    def hear(self, question: int, said: dict[str, Any], fd: int | None) -> None:
        """Take what the host says, with the descriptor that came with it."""
        self.writer.released(said.get("freed", []))
        self.reader.drop(said.get("dropped", []))
        if "segment" in said:
            number, size, ours = said["segment"]
            self._have(question, number, size, fd, ours=ours)
        elif question:
            self._answered(question, None)

    def _have(self, question: int, number: int, size: int, fd: int | None, *, ours: bool) -> None:
        try:
            if fd is None:
                raise OSError("the descriptor is missing")
            segment = Segment(number, size, mapped(fd, size, writable=ours))
        except (OSError, ValueError):  # no descriptor or no memory left
            with self._news:
                self._failed.add(number)
                self._news.notify_all()
            self._answered(question, None)
            return
        if not ours:
            self.reader.add(segment)
            with self._news:
                self._news.notify_all()
            return
        self.writer.add(segment, out=True)
        self._answered(question, segment)

    def _answered(self, question: int, segment: Segment | None) -> None:
        with self._news:
            waiting = question in self._answers
            if waiting:
                self._answers[question] = segment or _NOTHING
                self._news.notify_all()
        if not waiting and segment is not None:
            self.writer.released([segment.number])

    def room(self, size: int) -> Segment | None:
        """Ask the host for a segment; None where it has none, or doesn't answer in time."""
        size = segment_size(size)
        fits, dropped = self.writer.room_for(size)
        return self._asked(size, {"need": size, "dropped": dropped} if fits else {"dropped": dropped})

    def _used_room(self, size: int) -> Segment | None:
        """Ask the host for a segment that it has let go of."""
        return self._asked(size, {"need": size, "new": False})

    def _asked(self, size: int, said: dict[str, Any]) -> Segment | None:
        with self._news:
            self._questions += 1
            question = self._questions
            self._answers[question] = None
        self.ask(question, said)
        with self._news:
            if "need" in said:
                self._news.wait_for(lambda: self._answers[question] is not None, _PATIENCE)
            segment = self._answers.pop(question)
        return segment if segment is not _NOTHING else self.writer.take(size)

    def pack(self, parts: list[Any], *, streaming: bool = False) -> tuple[list[list[int]], bytes]:
        """Put an answer's buffers where the host finds them, and let go of them here."""
        ahead = streaming and self.writer.out >= _MOST_AHEAD
        places = self.writer.pack(parts, self._used_room if ahead else self.room)
        parts.clear()
        return places

    def views(self, said: Any, inline: bytes) -> list[memoryview]:
        """Return a request's buffers. Raises ``OSError`` where a segment couldn't be mapped here."""
        for number in {place[0] for place in said} - {0}:
            if not self.reader.knows(number):
                self._wait_for(number)
                if not self.reader.knows(number):
                    raise OSError("shared memory of this request can't be mapped: no descriptor or no memory is left")
        return self.reader.views(said, inline)

    def _wait_for(self, number: int) -> None:
        # The host has sent the segment before the request, and the control thread may not have had its turn.
        with self._news:
            self._news.wait_for(lambda: self.reader.knows(number) or number in self._failed, 5 * _PATIENCE)

    def tidy(self) -> None:
        """Give back what is not used any more, and tell the host of it."""
        freed, dropped = self.reader.freed(), self.writer.trim(time.monotonic())
        if freed or dropped:
            self.ask(0, {"freed": freed, "dropped": dropped})


# An answer that is no segment.
_NOTHING: Any = object()

_arena: Arena | None = None


def have(arena: Arena) -> None:
    """Let this process's plugin allocate in the worker's shared memory, from now on: the host doesn't listen to one that loads."""
    global _arena  # noqa: PLW0603 - one process, one worker
    _arena = arena


def memory(size: int) -> memoryview | None:
    """Return new memory that the host sees, None where there is none or it isn't worth it."""
    if _arena is None or not INLINE < size <= _arena.limit:
        return None
    return _arena.writer.allocate(size, _arena.room)
