"""What asks the host, on threads of its own, so that the screen never waits for an answer.

hostkit-top      ── snapshot, and what the open screen wants ──►  host     every interval
hostkit-top-act  ── isolate, drain, resume, restart ───────────►  host     once
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from .._errors import HostkitError
from ._rows import Snapshot

# Seconds that the host may take: for a look, and for something that it does (it waits for calls in flight); and the screen, to show it.
_LOOK, _ACT, _SHOW = 5.0, 120.0, 10.0


class Asked(Protocol):
    """The host that is watched. Thread-safe; questions at the same time don't wait for each other."""

    def ask(self, verb: str, /, *, within: float, **arguments: Any) -> Any:
        """Return the host's answer, as JSON data. Raises ``HostkitError``."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """One look at the host: a snapshot, or why there is none."""

    snapshot: Snapshot | None
    why: str = ""


class Feed:
    """Looks at the host every ``interval`` seconds until ``stop``. ``heard`` is called with every ``Answer`` on the feed's thread."""

    def __init__(self, host: Asked, heard: Callable[[Answer], None], *, interval: float) -> None:
        self.interval = interval
        # What the open screen asks after the snapshot; called on the feed's thread.
        self.beside: Callable[[Snapshot], None] | None = None
        self._host = host
        self._heard = heard
        self._wake = threading.Event()
        self._handled = threading.Event()
        self._stopped = False
        # A daemon: a host that doesn't answer holds up nobody's exit.
        self._thread = threading.Thread(target=self._run, name="hostkit-top", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def now(self) -> None:
        """Look at once."""
        self._wake.set()

    def handled(self) -> None:
        """Say that what was told is on the screen. Nothing more is told before: a slow terminal piles up nothing."""
        self._handled.set()

    def stop(self, timeout: float) -> None:
        """Look no more; wait so long for a look that is under way."""
        self._stopped = True
        self._wake.set()
        self._handled.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def question(self, verb: str, **arguments: Any) -> Any:  # JSON data
        """Ask something beside a snapshot, on the feed's thread. Raises ``HostkitError``."""
        return self._host.ask(verb, within=_LOOK, **arguments)

    def _run(self) -> None:
        while not self._stopped:
            began = time.monotonic()
            with suppress(RuntimeError):  # the screen has just been closed
                self._look()
            self._wake.wait(max(0.0, began + self.interval - time.monotonic()))
            self._wake.clear()

    def _look(self) -> None:
        try:
            answer = Answer(self._host.ask("snapshot", within=_LOOK))
        except HostkitError as error:
            answer = Answer(None, str(error))
        self._handled.clear()
        if self._stopped:
            return
        self._heard(answer)
        self._handled.wait(_SHOW)
        beside = self.beside
        if beside is not None and answer.snapshot is not None and not self._stopped:
            self._handled.clear()
            beside(answer.snapshot)
            self._handled.wait(_SHOW)


def act(host: Asked, verb: str, arguments: dict[str, Any], done: Callable[[Any, HostkitError | None], None]) -> None:
    """Ask the host for something that may take long, on a thread of its own; ``done`` is called there with the answer, or the error."""

    def run() -> None:
        try:
            answer, error = host.ask(verb, within=_ACT, **arguments), None
        except HostkitError as failed:
            answer, error = None, failed
        with suppress(RuntimeError):  # the screen was closed meanwhile
            done(answer, error)

    threading.Thread(target=run, name="hostkit-top-act", daemon=True).start()
