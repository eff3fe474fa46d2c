"""An event loop on a thread of its own, for what a plugin awaits where its callers don't; imported only where something is awaited."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from concurrent.futures import Future
    from typing import Any


class PluginLoop:
    """Where the coroutines of one plugin live, from its first one to its close. Thread-safe."""

    def __init__(self, plugin: str) -> None:
        self._plugin = plugin
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
        _close(awaitable)
        raise CancelledError

    def begin_awaited(self, awaitable: Any) -> Future[Any]:
        """``begin`` for a thread that waits for the end. Raises ``RuntimeError`` as ``check_thread`` does."""
        try:
            self.check_thread()
        except RuntimeError:
            _close(awaitable)
            raise
        return self.begin(awaitable)

    def check_thread(self) -> None:
        """Raise ``RuntimeError`` on the loop's own thread: what waits there, waits for itself."""
        if threading.current_thread() is self._thread:
            raise RuntimeError(f"plugin {self._plugin!r} waits, on its own event loop, for a call to itself; it must await it")

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


def _close(awaitable: Any) -> None:
    close = getattr(awaitable, "close", None)
    if close is not None:
        close()
