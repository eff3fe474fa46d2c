"""Every call of a soak, from its number to its one outcome."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter
from concurrent.futures import CancelledError
from pathlib import Path

from hostkit import CallError, PluginFailed, Rejected

# What may become of a call while workers are killed; anything else is a broken promise.
EXPECTED = (
    "answered",
    "PluginFailed",
    "CallTimeout",
    "Busy",
    "WorkerKilled",
    "WorkerExited",
    "CallCancelled",
    "cancelled",
)


class Ledger:
    """Counts calls and their outcomes. Thread-safe."""

    def __init__(self, place: Path) -> None:
        self.begun = place / "begun"  # the plugins write it
        self.begun.touch()
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.wrong: Counter[str] = Counter()
        self._rejected = place / "rejected"
        self._notes = self._rejected.open("w", encoding="ascii")
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()  # guards everything but the numbers
        self._open: dict[int, tuple[str, float]] = {}

    def begin(self, shape: str, limit: float) -> int:
        """Note a call that must have ended in ``limit`` seconds; return its number."""
        number = next(self._numbers)
        with self._lock:
            self._open[number] = shape, time.monotonic() + limit
        return number

    def end(self, number: int, outcome: object, load: str, *, given_up: bool = False) -> None:
        """Note how a call ended: with its answers, or with what was raised."""
        word = named(number, outcome, load, given_up=given_up)
        with self._lock:
            shape, limit = self._open.pop(number, ("", 0.0))
            if not shape:
                self.wrong["answered twice"] += 1
                return
            if time.monotonic() > limit:
                self.wrong["answered late"] += 1
            if isinstance(outcome, Rejected):
                self._notes.write(f"{number}\n")
            self.outcomes[shape, word] += 1
            if word not in EXPECTED:
                self.wrong[word] += 1

    @property
    def waiting(self) -> int:
        """How many calls have not ended."""
        return len(self._open)

    @property
    def hung(self) -> list[str]:
        """The shapes of calls that should have ended by now."""
        now = time.monotonic()
        with self._lock:
            return [shape for shape, limit in self._open.values() if now > limit]

    def close(self) -> None:
        """Compare what the callers were told with what the plugins began."""
        self._notes.close()
        begun = bytearray(next(self._numbers))
        with self.begun.open(encoding="ascii") as lines:
            for line in lines:
                begun[int(line)] += 1
        self.wrong["begun twice"] = sum(times > 1 for times in begun)
        with self._rejected.open(encoding="ascii") as lines:
            self.wrong["rejected, and begun"] = sum(begun[int(line)] > 0 for line in lines)


def named(number: int, outcome: object, load: str, *, given_up: bool) -> str:
    """Return an outcome's name; one that no call may have says so."""
    if isinstance(outcome, (CancelledError, asyncio.CancelledError)):
        return "cancelled" if given_up else "cancelled by nobody"
    if isinstance(outcome, PluginFailed) and outcome.remote_message != str(number):
        return f"failed with another's error: {outcome.remote_type} {outcome.remote_message}".rstrip()
    if isinstance(outcome, CallError):
        word = type(outcome).__name__
        return word if word in EXPECTED else f"{word}: {outcome}"
    if isinstance(outcome, BaseException):
        return f"untyped: {outcome!r}"
    if not isinstance(outcome, list) or not all(each["number"] == number and each["load"] == load for each in outcome):
        return "another's answer"
    return "answered"
