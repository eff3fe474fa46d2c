"""Watch calls from outside: a wrapper around a plugin's record that has the record's own verbs.

handle ─► Observed ─► began ─► record ─► … ─► ended ─► answer

It is put in front of the record's verbs while somebody watches, and taken away again; so a call that nobody watches pays nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from time import perf_counter, time
from typing import TYPE_CHECKING, Any, Protocol

from ._contract import ExecutionContext
from ._errors import HostkitError, Rejected
from ._meter import Meter
from ._shape import Shape
from ._worker._failure import message, type_name

if TYPE_CHECKING:
    from ._hookspecs import Crossing


@dataclass(frozen=True, slots=True)
class Failure:
    """What a caller got instead of an answer, as text: an exception would hold every object of the call for as long as it waits here.

    ``kind`` is the name of the error's class, ``refused`` whether the call never reached the plugin; ``remote_type`` and
    ``remote_traceback`` are what the plugin raised, ``stderr`` the last words of its worker. They are the plugin's words: escape them.
    """

    kind: str
    message: str
    phase: str = ""
    remote_type: str = ""
    remote_traceback: str = ""
    stderr: str = ""
    refused: bool = False


class Call:
    """One call that is watched. ``outcome``, ``seconds`` and ``failure`` are there once it has ended.

    ``verb`` is ``execute``, ``stream`` or ``hook``, of which ``hook`` is the function's name; ``isolation`` is where the plugin ran when
    the call began, or, if it wasn't loaded then, when it ended; ``at`` is ``time.time()``; ``notes`` is for observers, one key each.
    """

    __slots__ = ("at", "began", "context", "failure", "hook", "isolation", "notes", "outcome", "plugin", "seconds", "verb")

    def __init__(self, plugin: str, context: ExecutionContext, verb: str, isolation: str, hook: str = "") -> None:
        self.plugin = plugin
        self.hook = hook
        self.context = context
        self.verb = verb
        self.isolation = isolation
        self.outcome = "ok"
        self.failure: Failure | None = None
        self.notes: dict[str, Any] | None = None  # Any: the observer's own
        self.seconds = 0.0
        self.at = time()
        self.began = perf_counter()

    def since(self, began: float) -> None:
        """Let it have begun at that moment of ``perf_counter``."""
        self.at -= self.began - began
        self.began = began

    def failed(self, error: BaseException) -> None:
        """Note what the caller gets instead of an answer."""
        self.outcome = outcome_of(error)
        said = {name: _text(error, theirs) for name, theirs in _SAID.items()}
        kind = type_name(error)[:_MOST].removeprefix(f"{HostkitError.__module__}.")
        self.failure = Failure(kind, message(error)[:_MOST], **said, refused=isinstance(error, Rejected))


# Characters of a message that are kept, and of a traceback, from its end.
_MOST, _MOST_LINES = 1000, 16 * 1024

_SAID = {"phase": "phase", "remote_type": "remote_type", "remote_traceback": "remote_traceback", "stderr": "stderr_tail"}


def _text(error: BaseException, name: str) -> str:
    found = getattr(error, name, "") if isinstance(error, HostkitError) else ""
    return found[-_MOST_LINES:] if isinstance(found, str) else ""


def outcome_of(error: BaseException) -> str:
    """Return the word for an error: the name of hostkit's own class, ``Interrupted``, or ``Other``. So there are few words, whatever
    a plugin raises."""
    if isinstance(error, HostkitError):
        for kind in type(error).__mro__:
            if kind.__module__ == HostkitError.__module__:
                return kind.__name__
    interrupted = isinstance(error, (KeyboardInterrupt, SystemExit, asyncio.CancelledError))
    return "Interrupted" if interrupted else "Other"


class Observer(Protocol):
    """Who watches calls. Both are called on the caller's own thread, must not block, and must not raise."""

    def began(self, call: Call) -> object:
        """Note that a call begins."""
        ...

    def ended(self, call: Call) -> object:
        """Note that it has ended, whichever way."""
        ...


# Is told, as an observer is, of a call that has failed.
OnFailure = Callable[[Call], object]


class Walks(Protocol):
    """The verbs of a record."""

    def call(self, context: ExecutionContext, request: object, shape: Shape) -> Any: ...  # Any: as the shape says

    async def acall(self, context: ExecutionContext, request: object, shape: Shape) -> Any: ...

    def stream(self, context: ExecutionContext, request: object, shape: Shape) -> Generator[Any, None, None]: ...

    def astream(self, context: ExecutionContext, request: object, shape: Shape) -> AsyncIterator[Any]: ...

    def call_hook(self, context: ExecutionContext, name: str, arguments: Mapping[str, object], crossing: Crossing) -> Any: ...


class Watched(Walks, Protocol):
    """What can be watched."""

    name: str

    @property
    def isolation(self) -> str: ...


class Observed:
    """A record's verbs, watched: its calls are counted by ``meter`` and told to ``observers``; those that
    failed to ``on_failure``, too."""

    def __init__(self, record: Watched, meter: Meter, observers: Sequence[Observer], on_failure: Sequence[OnFailure]) -> None:
        self.meter = meter
        self.observers = tuple(observers)
        self._on_failure = tuple(on_failure)
        self._record = record

    def _begin(self, context: ExecutionContext, verb: str, hook: str = "") -> Call:
        call = Call(self._record.name, context, verb, self._record.isolation, hook)
        for observer in self.observers:
            observer.began(call)
        return call

    def _end(self, call: Call) -> None:
        call.seconds = perf_counter() - call.began
        call.isolation = call.isolation or self._record.isolation
        self.meter.add(call.outcome, call.seconds)
        for observer in self.observers:
            observer.ended(call)
        if call.failure is not None:
            for tell in self._on_failure:
                tell(call)

    def call(self, context: ExecutionContext, request: object, shape: Shape) -> Any:
        """Answer one call."""
        # Where nobody is told of calls that are answered, there is nothing but the clock to look at: this is a third of what a call costs
        # in-process.
        call = self._begin(context, "execute") if self.observers else None
        began = perf_counter()
        try:
            answer = self._record.call(context, request, shape)
        except BaseException as error:  # whatever it is, it is told and goes on
            if call is None:
                call = self._begin(context, "execute")
                call.since(began)
            call.failed(error)
            self._end(call)
            raise
        if call is None:
            self.meter.add("ok", perf_counter() - began)
        else:
            self._end(call)
        return answer

    @contextmanager
    def _observing(self, context: ExecutionContext, verb: str, hook: str = "") -> Iterator[None]:
        """Watch what the block does; what ``call`` does, written out."""
        call = self._begin(context, verb, hook)
        try:
            yield
        except GeneratorExit:  # the caller had enough of a stream
            raise
        except BaseException as error:
            call.failed(error)
            raise
        finally:
            self._end(call)

    async def acall(self, context: ExecutionContext, request: object, shape: Shape) -> Any:
        """Answer one call without blocking the running event loop."""
        with self._observing(context, "execute"):
            return await self._record.acall(context, request, shape)

    def stream(self, context: ExecutionContext, request: object, shape: Shape) -> Generator[Any, None, None]:
        """Answer one call item by item."""
        with self._observing(context, "stream"):
            yield from self._record.stream(context, request, shape)

    async def astream(self, context: ExecutionContext, request: object, shape: Shape) -> AsyncIterator[Any]:
        """Answer one call item by item, without blocking the running event loop."""
        with self._observing(context, "stream"):
            async with aclosing(self._record.astream(context, request, shape)) as items:  # type: ignore[type-var]  # it is one that can be closed
                async for item in items:
                    yield item

    def call_hook(self, context: ExecutionContext, name: str, arguments: Mapping[str, object], crossing: Crossing) -> Any:
        """Call one hook implementation."""
        with self._observing(context, "hook", name):
            return self._record.call_hook(context, name, arguments, crossing)
