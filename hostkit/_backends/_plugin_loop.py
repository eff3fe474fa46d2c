"""Where an async plugin lives in-process, and its streams as a sync caller sees them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from typing import Any

from .._contract import ExecutionContext


class PluginLoop:
    """An event loop on a thread of its own, where an async plugin lives from its first call to its close."""

    def __init__(self, plugin: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()  # guards _stopping: nothing is begun on a loop that nobody would run
        self._stopping = False
        self._calls: set[asyncio.Task[Any]] = set()  # the loop's own thread only
        self._thread = threading.Thread(target=self._run, name=f"hostkit-loop-{plugin}", daemon=True)
        self._thread.start()

    def begin(self, awaitable: Any) -> Future[Any]:
        """Start an awaitable on the loop. Raises ``concurrent.futures.CancelledError`` after ``stop``."""
        with self._lock:
            if not self._stopping:
                return asyncio.run_coroutine_threadsafe(self._call(awaitable), self._loop)
        close = getattr(awaitable, "close", None)
        if close is not None:
            close()
        raise CancelledError

    async def _call(self, awaitable: Any) -> Any:
        task = asyncio.current_task()
        assert task is not None
        self._calls.add(task)
        try:
            return await awaitable
        finally:
            self._calls.discard(task)

    def cancel_calls(self, patience: float) -> None:
        """Cancel what was begun and has not ended, and give it ``patience`` seconds to end."""
        with suppress(FutureTimeout, CancelledError):
            self.begin(self._cancel_calls(patience)).result(patience + 0.1)

    async def _cancel_calls(self, patience: float) -> None:
        others = self._calls - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=patience)

    def stop(self) -> None:
        """End the loop; what still runs on it is cancelled. A loop that a plugin blocks is left behind. Idempotent."""
        with self._lock:
            first, self._stopping = not self._stopping, True
            if first:
                self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(1.0)

    def _run(self) -> None:
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(_cancel_the_rest())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()


async def _cancel_the_rest() -> None:
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


class Items:
    """A sync view of a generator of either kind."""

    def __init__(self, following: Callable[[], Any], close: Callable[[], Any]) -> None:
        self._following = following
        self.close = close

    def __next__(self) -> Any:
        return self._following()


async def in_threads(items: Iterator[Any], context: ExecutionContext) -> AsyncGenerator[Any, None]:
    """Iterate over a generator that may block, each step on a thread."""
    end = object()
    turn = threading.Lock()  # one step at a time: a cancelled task leaves a step behind that can't be interrupted

    def step() -> Any:
        with turn:
            return next(items, end)

    def close() -> None:
        with turn:
            items.close()  # type: ignore[attr-defined]  # a generator

    cancelled = False
    try:
        while (item := await asyncio.to_thread(step)) is not end:
            yield item
    except asyncio.CancelledError:
        cancelled = True
        raise
    finally:
        context._cancelled = True
        closing = asyncio.get_running_loop().run_in_executor(None, close)
        if not cancelled:
            await closing
