"""Callers that note of each call when it began, how long it took and how it ended."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import hostkit


@dataclass(frozen=True, slots=True)
class Call:
    """One call: ``at`` and ``seconds`` by ``time.monotonic``; ``outcome`` is ``ok`` or the name of the error, ``answer`` what came back."""

    at: float
    seconds: float
    outcome: str
    answer: Any  # Any: JSON data


def calls_of(call: Callable[[], Any], *, threads: int, per_second: float, while_: Callable[[], None]) -> list[Call]:
    """Call from ``threads`` threads, each ``per_second`` times on average, for as long as ``while_`` runs; return all calls in order."""
    stop, noted = threading.Event(), [list[Call]() for _ in range(threads)]
    callers = [threading.Thread(target=_keep_calling, args=(call, per_second, stop, notes)) for notes in noted]
    for caller in callers:
        caller.start()
    try:
        while_()
    finally:
        stop.set()
        for caller in callers:
            caller.join()
    return sorted((one for notes in noted for one in notes), key=lambda one: one.at)


def _keep_calling(call: Callable[[], Any], per_second: float, stop: threading.Event, notes: list[Call]) -> None:
    dice, due = random.Random(), time.monotonic()
    while True:
        due = max(due + dice.expovariate(per_second), time.monotonic() - 0.1)
        if stop.wait(max(0.0, due - time.monotonic())):
            return
        answer, outcome, at = None, "ok", time.monotonic()
        try:
            answer = call()
        except hostkit.HostkitError as error:
            outcome = type(error).__name__
        notes.append(Call(at, time.monotonic() - at, outcome, answer))
