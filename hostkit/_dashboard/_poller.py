"""Asks the host for a snapshot every second, for all browsers at once, and keeps ten minutes of what it says.

live ── no answer in time ──► silent ── an answer ──► live
 └───── refused, ended ─────► gone ──── there again ─► live
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from .._attach import NotRunning
from .._errors import HostkitError
from .._log import tell
from .._worker._buffers import as_json
from ._line import Host, is_silence
from ._points import Points
from ._rows import Traffic, Window, rounded

# A snapshot takes milliseconds: who needs longer than this is said to be silent, long before the question's own limit.
_PATIENCE = 2.0


class Poller:
    """Knows the newest state of the host. Thread-safe; ``publish`` is called on the poller's thread with each new event."""

    def __init__(
        self,
        host: Host,
        publish: Callable[[bytes], None],
        *,
        interval: float = 1.0,
        patience: float = _PATIENCE,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host = host
        self._publish = publish
        self._interval = interval
        self._patience = patience
        self._clock = clock
        self._monotonic = monotonic
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hostkit-dashboard", daemon=True)
        self._window = Window()  # the thread's own
        # Guards everything below.
        self._lock = threading.Lock()
        self._points = Points()
        self._seen: dict[str, Any] = {}
        self._number = 0
        self._state, self._why, self._since = "gone", "the host has not been asked yet", clock()
        self._answered: float | None = None
        self._asked: float | None = None  # by the monotonic clock; None while no question is open

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def close(self) -> None:
        """Ask no more. A question that a stopped host holds up is left to its own limit."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(0.5)

    def event(self) -> bytes:
        """Return all that is known, for a browser that has just come."""
        with self._lock:
            return _event("state", {**self._seen, "number": self._number, "link": self._link()})

    def link_event(self) -> bytes:
        """Return how the host can be reached, without the rest."""
        with self._lock:
            return _event("link", {"link": self._link()})

    def points(self, name: str = "") -> dict[str, Any]:
        """Return the last ten minutes of one plugin, or of all of them together."""
        with self._lock:
            return {**self._points.series(name), "number": self._number, **({} if name else {"recent": self._points.recent()})}

    def step(self) -> None:
        """Ask once, and publish what comes of it."""
        with self._lock:
            self._asked = self._monotonic()
        try:
            self._arrived(self._host.ask("snapshot"))
        except NotRunning as error:
            self._missed("silent" if is_silence(error) else "gone", str(error))
        except HostkitError as error:
            self._missed("gone", str(error))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            self._missed("odd", f"its answer can't be read ({type(error).__name__}: {error}); is it another version of hostkit?")
        self._publish(self.event() if self._state == "live" else self.link_event())

    def _run(self) -> None:
        while not self._ending.is_set():
            began = self._monotonic()
            self.step()
            self._ending.wait(max(self._interval - (self._monotonic() - began), self._interval / 10))

    def _arrived(self, snapshot: Mapping[str, Any]) -> None:
        self._window.push(snapshot)
        step = self._window.last_step()
        seen = {
            **{key: snapshot[key] for key in ("app", "pid", "version", "python", "at", "started", "status", "message")},
            "totals": self._window.totals(),
            "plugins": self._window.rows(),
            "exporters": snapshot["exporters"],
            "point": _point(step),
        }
        with self._lock:
            self._asked = None
            self._answered = self._clock()
            if self._state != "live":
                self._state, self._why, self._since = "live", "", self._answered
            if self._seen and self._seen["pid"] != seen["pid"]:
                self._points = Points()
            self._points.push(snapshot["at"], step)
            self._number += 1
            self._seen = seen

    def _missed(self, state: str, why: str) -> None:
        with self._lock:
            self._asked = None
            if self._state == state and self._why == why:
                return
            news = self._state != state
            self._state, self._why, self._since = state, why, self._clock()
        if news:
            tell("WARNING", f"the host is {state}: {why}")

    def _link(self) -> dict[str, Any]:
        state, why, since = self._state, self._why, self._since
        if state == "live" and self._asked is not None and self._monotonic() - self._asked > self._patience:
            state, why, since = (
                "silent",
                "it has a question and doesn't answer: it is stopped, or very busy",
                self._answered or since,
            )
        return {"state": state, "why": why, "since": since, "answered": self._answered, "now": self._clock()}


def _point(step: Mapping[str, Traffic]) -> dict[str, list[float | None]]:
    return {name: [rounded(number) for number in (one.calls, one.errors, one.p50, one.p99)] for name, one in step.items()}


def _event(kind: str, data: object) -> bytes:
    return f"event: {kind}\ndata: {text_of(data)}\n\n".encode()


def text_of(data: object) -> str:
    """Return JSON on one line, in ASCII: a lone surrogate in a plugin's text can't be encoded otherwise."""
    return json.dumps(data, separators=(",", ":"), default=as_json)
