"""Streams as the other kind of caller sees them: async ones in threads, and those that may block in tasks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

from .._contract import ExecutionContext


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
