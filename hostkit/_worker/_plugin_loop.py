"""An event loop on a thread of its own, for what an otherwise sync plugin awaits; imported only where something is awaited."""

from __future__ import annotations

import asyncio
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from concurrent.futures import Future
    from typing import Any


class PluginLoop:
    """Where the coroutines of one plugin live, from its first one to its close. Thread-safe."""

    def __init__(self, plugin: str) -> None:
        self._plugin = plugin
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"hostkit-loop-{plugin}", daemon=True)
        self._thread.start()

    def begin(self, awaitable: Any) -> Future[Any]:
        """Start an awaitable on the loop. Raises ``RuntimeError`` on the loop's own thread, which would wait for itself."""

        async def wait() -> Any:
            return await awaitable

        if threading.current_thread() is self._thread:
            if hasattr(awaitable, "close"):
                awaitable.close()
            raise RuntimeError(f"plugin {self._plugin!r} waits, on its own event loop, for a call to itself")
        return asyncio.run_coroutine_threadsafe(wait(), self._loop)

    def stop(self) -> None:
        """End the loop; what still runs on it is cancelled. A loop that a plugin blocks is left behind. Idempotent."""
        if self._thread.is_alive():
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
