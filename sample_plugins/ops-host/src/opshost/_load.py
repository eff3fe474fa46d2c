"""Calls from threads and from asyncio tasks, at the pace of real traffic; each one is counted by how it ended.

Every stream has a pace of its own. One that falls behind, because its plugin is slow or down, doesn't hurry afterwards.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import hostkit

# Calls of one stream of tasks that are under way at a time; the next one waits for its turn.
_TASKS = 32


@dataclass(frozen=True, slots=True)
class Stream:
    """Calls of one plugin, ``per_second`` on average; from tasks where ``tasks``, else one after the other from a thread."""

    plugin: str
    per_second: float
    request: Callable[[random.Random], dict[str, Any]]  # Any: JSON data
    tasks: bool = False


def _sum(dice: random.Random) -> dict[str, Any]:
    """A sum; one call in 200 divides by zero."""
    operation = dice.choice(("add", "subtract", "multiply", "divide"))
    b = 0 if dice.random() < 0.005 else dice.randint(1, 99)
    return {"operation": "divide" if b == 0 else operation, "a": dice.randint(1, 99), "b": b}


def _currency(dice: random.Random) -> dict[str, Any]:
    return {"currency": dice.choice(("CHF", "EUR", "JPY", "SEK", "USD"))}


def _text(dice: random.Random) -> dict[str, Any]:
    return {"text": " ".join(dice.choices(("alpha", "beta", "gamma", "delta"), k=dice.randint(3, 30)))}


def _subject(dice: random.Random) -> dict[str, Any]:
    return {"subject": dice.choice(("stock", "orders", "returns"))}


STREAMS = (
    Stream("calculator", 75, _sum),
    Stream("calculator", 75, _sum, tasks=True),
    Stream("flaky", 40, _currency),
    Stream("leaky", 30, _text),
    Stream("signer", 40, _text),
    Stream("signer", 20, _text, tasks=True),
    Stream("slow", 40, _subject, tasks=True),
)


class Tally:
    """How many calls were begun, and how those that ended did: ``ok``, or the name of the error. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards both counters
        self._begun: Counter[str] = Counter()
        self._ended: Counter[tuple[str, str]] = Counter()

    def begin(self, plugin: str) -> None:
        with self._lock:
            self._begun[plugin] += 1

    def end(self, plugin: str, outcome: str) -> None:
        with self._lock:
            self._ended[plugin, outcome] += 1

    @property
    def begun(self) -> int:
        """Calls that were begun so far."""
        with self._lock:
            return self._begun.total()

    @property
    def lost(self) -> int:
        """Calls that were begun and have not ended; once all callers have ended, calls that nobody will ever hear of."""
        with self._lock:
            return self._begun.total() - self._ended.total()

    def outcomes(self) -> dict[str, dict[str, int]]:
        """Return how calls ended: by plugin, then by outcome."""
        with self._lock:
            found: dict[str, dict[str, int]] = {plugin: {} for plugin in sorted(self._begun)}
            for (plugin, outcome), count in sorted(self._ended.items()):
                found[plugin][outcome] = count
            return found


class Load:
    """Calls a host's plugins until it is stopped; a context manager. ``tally`` has the counts, at any time."""

    def __init__(self, host: hostkit.Host, streams: tuple[Stream, ...] = STREAMS) -> None:
        self.tally = Tally()
        self._host = host
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._calls, args=(stream,), name=f"opshost-{stream.plugin}")
            for stream in streams
            if not stream.tasks
        ]
        tasks = [stream for stream in streams if stream.tasks]
        if tasks:
            self._threads.append(threading.Thread(target=lambda: asyncio.run(self._loop(tasks)), name="opshost-tasks"))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Begin no more calls, and wait for those that are under way: each has a time limit, so this has an end."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _calls(self, stream: Stream) -> None:
        pace, dice = _Pace(stream.per_second), random.Random()  # noqa: S311 - made-up requests
        while not self._stop.wait(pace.pause()):
            self.tally.begin(stream.plugin)
            outcome = "ok"
            try:
                self._host.execute(stream.plugin, stream.request(dice))
            except hostkit.HostkitError as error:
                outcome = type(error).__name__
            self.tally.end(stream.plugin, outcome)

    async def _loop(self, streams: list[Stream]) -> None:
        async with asyncio.TaskGroup() as group:
            for stream in streams:
                group.create_task(self._tasks(stream))

    async def _tasks(self, stream: Stream) -> None:
        pace, dice, places = _Pace(stream.per_second), random.Random(), asyncio.Semaphore(_TASKS)  # noqa: S311 - made-up requests
        async with asyncio.TaskGroup() as group:
            while not self._stop.is_set():
                await asyncio.sleep(pace.pause())
                await places.acquire()
                self.tally.begin(stream.plugin)
                group.create_task(self._call(stream, stream.request(dice))).add_done_callback(lambda _: places.release())

    async def _call(self, stream: Stream, request: dict[str, Any]) -> None:
        outcome = "ok"
        try:
            await self._host.aexecute(stream.plugin, request)
        except hostkit.HostkitError as error:
            outcome = type(error).__name__
        self.tally.end(stream.plugin, outcome)


class _Pace:
    """When the next call of a stream is due: on average every ``1 / per_second`` seconds, as irregularly as arrivals are."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._due = time.monotonic()
        self._dice = random.Random()  # noqa: S311 - traffic, not secrets

    def pause(self) -> float:
        """Return how long to wait for the next call."""
        self._due += self._dice.expovariate(self._per_second)
        wait = self._due - time.monotonic()
        if wait < -1:  # what was missed is not made up for
            self._due -= wait
        return max(0.0, wait)
