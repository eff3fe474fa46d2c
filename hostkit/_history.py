"""What an operator looks back at: the last log lines and errors of each plugin, and the last events of the host. Bounded."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from ._events import Event
from ._log import Line, listen, on_one_line
from ._observing import Call

# How much is kept: of a plugin lines and errors, of the host events; and of how many plugins, the last ones heard of.
_LINES, _ERRORS, _EVENTS, _PLUGINS = 200, 20, 200, 1000
_MOST = 1000  # characters of one text


class Ring:
    """The last ``most`` entries, numbered from 1. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._entries: deque[tuple[int, dict[str, Any]]] = deque(maxlen=most)
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()  # guards both

    def add(self, entry: dict[str, Any], *, in_place_of: str = "") -> None:
        """Add one entry, as JSON data; in place of the one that has the same under that key, if any, and counting its ``times``."""
        with self._lock:
            if in_place_of:
                for other in self._entries:
                    if other[1][in_place_of] == entry[in_place_of]:
                        entry["times"] += other[1]["times"]
                        self._entries.remove(other)
                        break
            self._entries.append((next(self._numbers), entry))

    def after(self, number: int) -> dict[str, Any]:
        """Return the ``entries`` after that number, the number to ask for ``next``, and how many were ``dropped`` in between."""
        with self._lock:
            entries = list(self._entries)
        newest = entries[-1][0] if entries else number
        found = [entry for at, entry in entries if at > number]
        return {"entries": found, "next": newest, "dropped": max(0, newest - number - len(found))}


class History:
    """The rings of one host. It is told of calls that failed. Thread-safe."""

    def __init__(self) -> None:
        self.events = Ring(_EVENTS)
        self._lock = threading.Lock()  # guards the two dicts
        self._lines: dict[str, Ring] = {}
        self._errors: dict[str, Ring] = {}
        self._unlisten: Callable[[], None] = listen(self._line)

    def lines(self, plugin: str) -> Ring:
        """Return the log lines of a plugin; the host's own under an empty name."""
        return self._ring(self._lines, plugin, _LINES)

    def errors(self, plugin: str) -> Ring:
        """Return the errors that calls of a plugin ended with."""
        return self._ring(self._errors, plugin, _ERRORS)

    def _ring(self, rings: dict[str, Ring], plugin: str, most: int) -> Ring:
        with self._lock:
            ring = rings.get(plugin)
            if ring is None:
                if len(rings) >= _PLUGINS:
                    del rings[next(iter(rings))]
                ring = rings[plugin] = Ring(most)
            return ring

    def failed(self, call: Call) -> None:
        """Note what went wrong. Of refusals there may be thousands a second, one like the other: the last one of each kind is kept, with
        their number, so that they don't push out what the plugin raised."""
        failure = call.failure
        assert failure is not None
        self.errors(call.plugin).add(
            {
                "at": time.time(),
                "type": on_one_line(failure.kind)[:_MOST],
                "message": on_one_line(failure.message)[:_MOST],
                "phase": failure.phase,
                "request_id": on_one_line(call.context.request_id),
                "remote_type": on_one_line(failure.remote_type)[:_MOST],
                "remote_traceback": _lines(failure.remote_traceback),
                "stderr_tail": _lines(failure.stderr),
                "times": 1,
            },
            in_place_of="type" if failure.refused else "",
        )

    def event(self, event: Event) -> None:
        """Note an event."""
        said = {"at": event.at, "type": type(event).__name__, "plugin": on_one_line(event.plugin)[:_MOST], "level": event.level}
        self.events.add({**said, "text": str(event)[:_MOST]})

    def _line(self, line: Line) -> None:
        if line.level == "DEBUG" and not line.source:
            return  # one for each refused call
        text = on_one_line(line.text[:_MOST])
        said = {"at": line.at, "level": line.level, "text": text, "request_id": line.request_id, "source": line.source}
        self.lines(line.plugin).add(said)

    def close(self) -> None:
        """Hear nothing any more."""
        self._unlisten()


def _lines(text: str) -> str:
    """Return a text of several lines with each of them escaped."""
    return "\n".join(map(on_one_line, text.split("\n")))
