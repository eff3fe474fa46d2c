"""What a place where a plugin runs can do; the Host knows backends by this contract alone."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from .._contract import ExecutionContext, HealthStatus
from .._deadline import Deadline
from .._shape import Shape
from .._vitals import Vitals

if TYPE_CHECKING:
    from .._hookspecs import Crossing


@dataclass(frozen=True, slots=True)
class OfferedHook:
    """One function of a plugin that implements the hook ``name``, with pluggy's switches.

    ``arguments`` are those that it must have, ``optional`` those that it can have, ``untyped`` those whose type an isolated one
    doesn't say; ``trouble`` says why it can't be called.
    """

    name: str
    function: str
    options: Mapping[str, bool]
    arguments: tuple[str, ...]
    optional: tuple[str, ...]
    untyped: tuple[str, ...]
    trouble: str


class Backend(Protocol):
    """A place where one plugin runs. Thread-safe. Each method raises the errors of ``_errors``, and nothing else but what a
    real Ctrl-C or a cancelled task raises."""

    @property
    def kind(self) -> str:
        """Return what ``execute`` is: call, coroutine, generator, async generator or hooks only."""
        ...

    @property
    def hooks(self) -> Mapping[str, OfferedHook]:
        """Return the plugin's implementations of hooks, by the name of the function."""
        ...

    @property
    def settings_shown(self) -> Collection[tuple[str, ...]]:
        """Return the paths of those of the plugin's settings that it lets be shown (``_shown.py``)."""
        ...

    def call(self, context: ExecutionContext, request: object, shape: Shape) -> Any:  # Any: as the shape says
        """Answer one call."""
        ...

    async def acall(self, context: ExecutionContext, request: object, shape: Shape) -> Any:
        """Answer one call without blocking the running event loop."""
        ...

    def cancel(self, context: ExecutionContext) -> None:
        """Tell a call of another thread that nobody waits for it any more; one that has ended is none of our business."""
        ...

    def stream(self, context: ExecutionContext, request: object, shape: Shape) -> Iterator[Any]:
        """Answer one call item by item; closing the iterator gives the call up."""
        ...

    def astream(self, context: ExecutionContext, request: object, shape: Shape) -> AsyncGenerator[Any, None]:
        """Answer one call item by item without blocking the running event loop; closing it gives the call up."""
        ...

    def call_hook(self, context: ExecutionContext, name: str, arguments: Mapping[str, object], crossing: Crossing) -> Any:
        """Call the hook implementation of that function's name; a wrapper's is returned unstarted."""
        ...

    def ask_health(self, deadline: Deadline) -> Future[HealthStatus]:
        """Ask the plugin how it is doing, beside the calls that run, and wait for nothing: the future has the answer, or a ``CallError``.

        A question that is open within its ``deadline`` is shared by who asks meanwhile; one that is open beyond it is not asked again.
        """
        ...

    def info(self, deadline: Deadline) -> Mapping[str, Any]:
        """Ask the plugin what it says of itself; empty where it says nothing."""
        ...

    def vitals(self) -> Vitals:
        """Return how its workers are doing, without asking them."""
        ...

    def close(self, deadline: Deadline) -> None:
        """Let the plugin go and release everything, whatever happens. Idempotent."""
        ...
