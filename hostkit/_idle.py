"""Hand over what only one caller can have at a time, in order of arrival."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from ._deadline import Deadline

T = TypeVar("T")


class NothingIdle(Exception):
    """Nothing became idle before the deadline."""


class Idle(Generic[T]):
    """Idle things: the last one given back is the first one taken (its caches are warm), and callers are served in the order in
    which they came, which a plain lock doesn't do (one caller of eight got 242 turns, another none). Thread-safe.

    ``returned`` hears of each thing that comes back from a waiter who was gone already: nobody else knows of it.
    """

    def __init__(self, returned: Callable[[T], object] = lambda _: None) -> None:
        self._returned = returned
        self._lock = threading.Lock()  # guards everything below
        self._things: list[T] = []
        self._waiting: deque[Waiter[T]] = deque()
        self._failure: Callable[[], Exception] | None = None

    @property
    def wanted(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiting)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def take_now(self) -> T | None:
        """Return an idle thing, or None where there is none."""
        with self._lock:
            return self._things.pop() if self._things else None

    def take(self, deadline: Deadline) -> T:
        """Return an idle thing, waiting for one if need be. Raises ``NothingIdle``, or what ``fail`` was given."""
        with self._lock:
            if self._things:
                return self._things.pop()
            waiter: ThreadWaiter[T] = self._enqueue(ThreadWaiter())
        try:
            waiter.wait(deadline)
        except BaseException:  # a Ctrl-C
            self._abandon(waiter)
            raise
        return self._taken(waiter)

    async def atake(self, deadline: Deadline) -> T:
        """Return an idle thing, waiting on the running event loop. Raises as ``take`` does."""
        with self._lock:
            if self._things:
                return self._things.pop()
            waiter: LoopWaiter[T] = self._enqueue(LoopWaiter())
        try:
            await waiter.wait(deadline)
        except BaseException:  # a cancelled task, or a coroutine that is closed
            self._abandon(waiter)
            raise
        return self._taken(waiter)

    def give(self, thing: T) -> None:
        """Give a thing to whoever waits longest, or keep it."""
        with self._lock:
            while self._waiting:
                if self._waiting.popleft().hand(thing):
                    return
            self._things.append(thing)

    def __contains__(self, thing: object) -> bool:
        return thing in self._things

    def discard(self, things: set[T]) -> set[T]:
        """Forget these, where they are idle; return those that were."""
        with self._lock:
            found = things.intersection(self._things)
            self._things = [thing for thing in self._things if thing not in found]
            return found

    def fail(self, error: Callable[[], Exception]) -> None:
        """Let every caller that would wait, now and later, have a new one of this error."""
        with self._lock:
            self._failure = error
            waiting, self._waiting = self._waiting, deque()
            for waiter in waiting:
                waiter.failure = error
                waiter.wake()

    def _enqueue(self, waiter: _W) -> _W:
        if self._failure is not None:
            raise self._failure()
        self._waiting.append(waiter)
        return waiter

    def _taken(self, waiter: Waiter[T]) -> T:
        with self._lock:
            if waiter.things:
                return waiter.things.pop()
            waiter.gone = True
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            raise NothingIdle if waiter.failure is None else waiter.failure()

    def _abandon(self, waiter: Waiter[T]) -> None:
        """Let a waiter go that nobody waits on any more; what was handed to it meanwhile goes to the next one."""
        with suppress(Exception):  # nothing was handed over, or everything has failed
            thing = self._taken(waiter)
            self.give(thing)
            self._returned(thing)


class Waiter(Generic[T]):
    def __init__(self) -> None:
        self.things: list[T] = []
        self.gone = False
        self.failure: Callable[[], Exception] | None = None

    def hand(self, thing: T) -> bool:
        if self.gone:
            return False
        self.things.append(thing)
        self.wake()
        return True

    def wake(self) -> None:
        raise NotImplementedError


_W = TypeVar("_W", bound=Waiter[Any])


class ThreadWaiter(Waiter[T]):
    def __init__(self) -> None:
        super().__init__()
        self._turn = threading.Lock()
        self._turn.acquire()

    def wake(self) -> None:
        if self._turn.locked():
            self._turn.release()

    def wait(self, deadline: Deadline) -> None:
        seconds = deadline.wait()
        self._turn.acquire(timeout=-1 if seconds is None else seconds)


class LoopWaiter(Waiter[T]):
    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._turn: asyncio.Future[None] = self._loop.create_future()

    def wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._resolve)
        except RuntimeError:  # the loop was closed under the waiting task
            self.gone = True

    def hand(self, thing: T) -> bool:
        super().hand(thing)
        if self.gone:
            self.things.clear()
            return False
        return True

    def _resolve(self) -> None:
        if not self._turn.done():
            self._turn.set_result(None)

    async def wait(self, deadline: Deadline) -> None:
        await asyncio.wait([self._turn], timeout=deadline.wait())
