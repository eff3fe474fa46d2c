"""At most so many calls of a plugin at a time, and a bounded line of those that wait.

enter ─► a place is free: inside ─► leave ─► the place goes to the first of the line
      └► in line ─► its turn, or no longer: its time is over, it was given up, the plugin takes no more calls
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

from ._config import BulkheadConfig
from ._contract import ExecutionContext
from ._deadline import Deadline
from ._errors import Busy, CallCancelled, CallError, Draining
from ._idle import LoopWaiter, ThreadWaiter, Waiter


class Bulkhead:
    """The places of one plugin; without limit where its configuration is None. Thread-safe.

    Calls are known by identity, inside as well as in line, so whoever may have entered ``leave``s in any case: a Ctrl-C may come between
    any two steps. A call in line is no business of a gate: it waits for its plugin, not for one of its lanes.
    """

    def __init__(self, config: BulkheadConfig | None) -> None:
        self._lock = threading.Lock()  # guards everything below; a call is taken out of inside without it
        self._config = config
        self._most = _most(config)
        self.inside: set[ExecutionContext] = set()
        self._line: dict[ExecutionContext, Waiter[None]] = {}  # in order of arrival

    @property
    def waiting(self) -> int:
        """How many calls are in line."""
        return len(self._line)

    def configure(self, config: BulkheadConfig | None) -> None:
        """Go by another configuration from now on. Who is inside stays there, and who is in line keeps waiting as long as it did."""
        with self._lock:
            self._config = config
            self._most = _most(config)
            self._hand_on()

    def enter(self, call: ExecutionContext, waiter: Callable[[], Waiter[None]]) -> bool:
        """Have a place, or be in line: then it returns False, and ``wait`` or ``await_turn`` must follow. Raises ``Busy``."""
        with self._lock:
            if not self._line and len(self.inside) < self._most:
                self.inside.add(call)
                return True
            config = self._config
            assert config is not None
            if len(self._line) >= config.queue:
                raise _full(call, config)
            self._line[call] = waiter()
            self._hand_on()  # somebody may have left between the look at the places and the lining up
            return call in self.inside

    def wait(self, call: ExecutionContext, is_shut: Callable[[], bool]) -> None:
        """Wait until it is a call's turn. Raises ``Busy``, ``CallCancelled`` and ``Draining``; ``is_shut`` tells of the last."""
        waiter = self._line.get(call)
        if isinstance(waiter, ThreadWaiter) and not self._is_pointless(call, is_shut):
            waiter.wait(self._deadline(call))
        self._check(call, is_shut)

    async def await_turn(self, call: ExecutionContext, is_shut: Callable[[], bool]) -> None:
        """``wait`` on the running event loop."""
        waiter = self._line.get(call)
        if isinstance(waiter, LoopWaiter) and not self._is_pointless(call, is_shut):
            await waiter.wait(self._deadline(call))
        self._check(call, is_shut)

    def leave(self, call: ExecutionContext) -> None:
        """Give a place back, or leave the line. Idempotent."""
        self.inside.discard(call)
        if self._line:  # who lines up after this look sees that a place is free
            with self._lock:
                self._line.pop(call, None)
                self._hand_on()

    def cancel(self, call: ExecutionContext) -> None:
        """Send a call out of the line that nobody waits for any more."""
        with self._lock:
            waiter = self._line.pop(call, None)
            if waiter is not None:
                waiter.wake()

    def turn_away(self) -> None:
        """Send everybody out of the line: the plugin takes no more calls."""
        with self._lock:
            line, self._line = self._line, {}
            for waiter in line.values():
                waiter.wake()

    def _is_pointless(self, call: ExecutionContext, is_shut: Callable[[], bool]) -> bool:
        """Whether whoever cancelled the call, or shut its plugin, may have looked for it before it was in line."""
        return call._cancelled or is_shut()

    def _deadline(self, call: ExecutionContext) -> Deadline:
        deadline = Deadline(math.inf if call._ends_at is None else call._ends_at)
        config = self._config
        return deadline if config is None or config.queue_timeout is None else deadline.sooner(config.queue_timeout)

    def _check(self, call: ExecutionContext, is_shut: Callable[[], bool]) -> None:
        """Return if it is the call's turn, and raise why it isn't."""
        with self._lock:
            too_late = self._line.pop(call, None) is not None
            if call in self.inside and not call._cancelled:
                return
        if call._cancelled:
            raise CallCancelled(f"plugin {call._caller.plugin!r}: the call was given up", **_where(call))
        if too_late and not is_shut():
            raise self._late(call)
        raise Draining(f"plugin {call._caller.plugin!r} takes no more calls: it is being drained", **_where(call))

    def _late(self, call: ExecutionContext) -> CallError:
        config = self._config
        if config is not None and config.queue_timeout is not None and (call._ends_at is None or time.monotonic() < call._ends_at):
            within = f"{config.queue_timeout:g} s (bulkhead.queue_timeout)"
        else:
            within = f"the {call.timeout:g} s of this call"
        return Busy(
            f"plugin {call._caller.plugin!r} takes {self._most:g} calls at a time (bulkhead.calls), and no place became free within "
            f"{within}; {_REMEDY}",
            **_where(call),
        )

    def _hand_on(self) -> None:
        """Let those in whose turn it is. The caller holds the lock."""
        while self._line and len(self.inside) < self._most:
            call = next(iter(self._line))
            waiter = self._line.pop(call)
            self.inside.add(call)
            waiter.wake()
            if waiter.gone:  # its event loop was closed
                self.inside.discard(call)


_REMEDY = "make fewer calls at once, or raise the limit"


def _most(config: BulkheadConfig | None) -> float:
    return math.inf if config is None else config.calls


def _full(call: ExecutionContext, config: BulkheadConfig) -> CallError:
    return Busy(
        f"plugin {call._caller.plugin!r} takes {config.calls} calls at a time (bulkhead.calls) and lets {config.queue} more wait "
        f"(bulkhead.queue): all these places are taken; {_REMEDY}",
        **_where(call),
    )


def _where(call: ExecutionContext) -> dict[str, Any]:
    return {"plugin": call._caller.plugin, "request_id": call.request_id, "phase": "queue"}
