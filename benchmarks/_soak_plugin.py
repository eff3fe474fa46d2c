"""The plugins of the soak: every call has a number, which it notes in a file before it does anything, and answers with."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from hostkit import ExecutionContext, hookimpl

STREAMED = 4


class _Noting:
    def __init__(self, config: dict) -> None:  # type: ignore[type-arg]  # the worker reads it, and knows no more
        self._begun = os.open(config["begun"], os.O_WRONLY | os.O_APPEND)

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._begun >= 0:
            os.close(self._begun)
            self._begun = -1

    def _begin(self, request: dict[str, Any]) -> float:
        """Note the call, in one write that nothing tears, and return when it is over."""
        os.write(self._begun, b"%d\n" % request["number"])
        return time.monotonic() + request["seconds"]

    def _end(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["how"] == "fail":
            raise ValueError(request["number"])
        if request["how"] == "exit":
            os._exit(3)
        return {"number": request["number"], "load": request["load"]}


class Plain(_Noting):
    """Calls and hooks, on threads."""

    def execute(self, ctx: ExecutionContext, request: dict) -> dict:  # type: ignore[type-arg]  # JSON data
        """Answer a request with its own number and load."""
        end = self._begin(request)
        while time.monotonic() < end and (request["how"] == "stubborn" or not ctx.cancelled):
            time.sleep(0.002)
        return self._end(request)

    @hookimpl
    def soaked(self, number: int, load: str) -> dict:  # type: ignore[type-arg]  # JSON data
        """Answer a hook."""
        request = {"number": number, "load": load, "seconds": 0.0, "how": "answer"}
        self._begin(request)
        return self._end(request)


class Coroutine(_Noting):
    """Calls on an event loop."""

    async def execute(self, ctx: ExecutionContext, request: dict) -> dict:  # type: ignore[type-arg]  # JSON data
        """Answer a request with its own number and load."""
        end = self._begin(request)
        while time.monotonic() < end:
            try:
                await asyncio.sleep(0.002)
            except asyncio.CancelledError:
                if request["how"] != "stubborn":
                    raise
        return self._end(request)


class Stream(_Noting):
    """Streams, on threads."""

    def execute(self, ctx: ExecutionContext, request: dict) -> Iterator[dict]:  # type: ignore[type-arg]  # JSON data
        """Answer a request some times over."""
        end = self._begin(request)
        while time.monotonic() < end and (request["how"] == "stubborn" or not ctx.cancelled):
            time.sleep(0.002)
        answer = self._end(request)
        for index in range(STREAMED):
            yield {**answer, "index": index}


class AsyncStream(_Noting):
    """Streams, on an event loop."""

    async def execute(self, ctx: ExecutionContext, request: dict) -> AsyncIterator[dict]:  # type: ignore[type-arg]  # JSON data
        """Answer a request some times over."""
        await asyncio.sleep(self._begin(request) - time.monotonic())
        answer = self._end(request)
        for index in range(STREAMED):
            yield {**answer, "index": index}
