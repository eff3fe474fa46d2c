"""The declared number of calls that an in-process plugin takes at a time."""

from __future__ import annotations

from .._contract import ExecutionContext
from .._deadline import Deadline
from .._errors import Busy
from .._idle import Idle, NothingIdle


def turns(concurrency: int | None) -> Idle[None] | None:
    """Return that many turns; None where the plugin declares no number."""
    if concurrency is None:
        return None
    made: Idle[None] = Idle()
    for _ in range(concurrency):
        made.give(None)
    return made


class Turn:
    """One of the plugin's declared turns, or none to wait for."""

    def __init__(self, turns: Idle[None] | None, context: ExecutionContext) -> None:
        self._turns = turns
        self._context = context

    def __enter__(self) -> None:
        if self._turns is not None:
            try:
                self._turns.take(Deadline.after(self._context.remaining()))
            except NothingIdle:
                raise self._busy() from None

    async def __aenter__(self) -> None:
        if self._turns is not None:
            try:
                await self._turns.atake(Deadline.after(self._context.remaining()))
            except NothingIdle:
                raise self._busy() from None

    def __exit__(self, *_: object) -> None:
        if self._turns is not None:
            self._turns.give(None)

    async def __aexit__(self, *_: object) -> None:
        self.__exit__()

    def _busy(self) -> Busy:
        plugin = self._context._caller.plugin
        return Busy(
            f"plugin {plugin!r} was busy for the whole {self._context.timeout:g} s of this call",
            plugin=plugin,
            request_id=self._context.request_id,
            phase="queue",
        )
