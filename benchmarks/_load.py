"""Callers of every kind, who go on until they are told to stop."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any

from hostkit import Host, hookspec

from ._ledger import Ledger

PLUGINS = {"plain": "Plain", "coroutine": "Coroutine", "stream": "Stream", "astream": "AsyncStream"}
_LARGE = "x" * 1_000_000
# A call's own limit, and what its end may take beyond it.
_TIMEOUT, _PATIENCE = 5.0, 10.0
# How a call goes and how often: its load, the plugin's way, its seconds, its limit, and whether the caller gives it up.
_KINDS: dict[tuple[str, str, float, float, bool], int] = {
    ("", "answer", 0.0, _TIMEOUT, False): 620,
    (_LARGE, "answer", 0.0, _TIMEOUT, False): 20,
    ("", "answer", 0.05, _TIMEOUT, False): 100,
    ("", "fail", 0.0, _TIMEOUT, False): 80,
    ("", "answer", 0.3, 0.05, False): 80,
    ("", "stubborn", 0.5, 0.05, False): 10,
    ("", "exit", 0.0, _TIMEOUT, False): 10,
    ("", "answer", 0.2, _TIMEOUT, True): 80,
}


class Specs:
    """The application's one hook."""

    @staticmethod
    @hookspec
    def soaked(number: int, load: str) -> dict:  # type: ignore[type-arg, empty-body]  # JSON data
        """Answer with both."""


class Load:
    """The callers. ``start`` and ``stop``."""

    def __init__(self, host: Host, ledger: Ledger, seed: int) -> None:
        self._host = host
        self._ledger = ledger
        self._seed = seed
        self._over = threading.Event()
        self._threads = [
            *(threading.Thread(target=self._calls, args=(number,)) for number in range(6)),
            *(threading.Thread(target=self._streams, args=(number,)) for number in range(2)),
            *(threading.Thread(target=self._submits, args=(number,)) for number in range(2)),
            threading.Thread(target=self._hooks),
            threading.Thread(target=lambda: asyncio.run(self._tasks(30))),
        ]
        for thread in self._threads:
            thread.daemon = True  # one that hangs is told, and must not keep the program

    def start(self) -> None:
        """Begin to call."""
        for thread in self._threads:
            thread.start()

    def stop(self, patience: float = 2 * (_TIMEOUT + _PATIENCE)) -> bool:
        """Begin no more calls and wait for the last ones; return whether all callers have come back."""
        self._over.set()
        for thread in self._threads:
            thread.join(patience)
        return not any(thread.is_alive() for thread in self._threads)

    def _calls(self, number: int) -> None:
        draw = self._draws(f"calls {number}")
        while not self._over.is_set():
            self._call("execute", draw, lambda plugin, request, limit: [self._host.execute(plugin, request, timeout=limit)])

    def _streams(self, number: int) -> None:
        draw = self._draws(f"streams {number}")
        while not self._over.is_set():
            stream = "stream" if number else "astream"
            self._call("stream", draw, lambda _, request, limit: [*self._host.stream(stream, request, timeout=limit)])  # noqa: B023

    def _call(self, shape: str, draw: Callable[[], Any], call: Callable[[str, Any, float], object]) -> None:
        plugin, (load, how, seconds, limit, _) = draw()
        number = self._ledger.begin(shape, limit + _PATIENCE)
        try:
            outcome = call(plugin, _request(number, load, how, seconds), limit)
        except BaseException as error:  # whatever it is, it is the outcome
            outcome = error
        self._ledger.end(number, outcome, load)

    def _submits(self, number: int) -> None:
        draw = self._draws(f"submits {number}")
        while not self._over.is_set():
            futures = [self._submit(*draw()) for _ in range(6)]
            given_up = [future for future, giving_up in futures if giving_up]
            wait([future for future, giving_up in futures if not giving_up], _TIMEOUT + _PATIENCE)
            for future in given_up:
                future.cancel()
            wait(given_up, _TIMEOUT + _PATIENCE)

    def _submit(self, plugin: str, kind: tuple[str, str, float, float, bool]) -> tuple[Future[Any], bool]:
        load, how, seconds, limit, giving_up = kind
        # Submitted calls wait for a thread first, without a limit of their own.
        number = self._ledger.begin("submit", limit + 2 * _PATIENCE)
        future = self._host.submit(plugin, _request(number, load, how, seconds), timeout=limit)
        future.add_done_callback(lambda done: self._ledger.end(number, _outcome(done), load, given_up=giving_up))
        return future, giving_up

    def _hooks(self) -> None:
        while not self._over.is_set():
            number = self._ledger.begin("hook", _TIMEOUT + _PATIENCE)
            try:
                outcome = self._host.hook.soaked(number=number, load="hook")
            except BaseException as error:  # whatever it is, it is the outcome
                outcome = error
            self._ledger.end(number, outcome, "hook")

    async def _tasks(self, count: int) -> None:
        await asyncio.gather(*(self._task(number) for number in range(count)))

    async def _task(self, number: int) -> None:
        draw = self._draws(f"tasks {number}")
        while not self._over.is_set():
            plugin, (load, how, seconds, limit, giving_up) = draw()
            shape = "astream" if number % 5 == 0 else "aexecute"
            call = self._ledger.begin(shape, limit + _PATIENCE)
            request = _request(call, load, how, seconds)
            task = asyncio.create_task(
                self._streamed(request, limit) if shape == "astream" else self._answered(plugin, request, limit)
            )
            if giving_up:
                await asyncio.wait([task], timeout=seconds / 4)
                task.cancel()
            await asyncio.wait([task])
            self._ledger.end(call, _outcome(task), load, given_up=giving_up)

    async def _answered(self, plugin: str, request: object, limit: float) -> list[Any]:
        return [await self._host.aexecute(plugin, request, timeout=limit)]

    async def _streamed(self, request: object, limit: float) -> list[Any]:
        return [item async for item in self._host.astream("astream", request, timeout=limit)]

    def _draws(self, who: str) -> Callable[[], Any]:
        """Return what draws a plugin and a kind of call: the same ones for the same seed."""
        dice = random.Random(f"{self._seed} {who}")
        kinds, weights = [*_KINDS], [*_KINDS.values()]
        return lambda: (dice.choice(["plain", "coroutine"]), dice.choices(kinds, weights)[0])


def _request(number: int, load: str, how: str, seconds: float) -> dict[str, Any]:
    return {"number": number, "load": load, "how": how, "seconds": seconds}


def _outcome(done: Future[Any] | asyncio.Task[Any]) -> object:
    if done.cancelled():
        return asyncio.CancelledError()
    error = done.exception()
    if error is not None:
        return error
    result = done.result()
    return result if isinstance(result, list) else [result]
