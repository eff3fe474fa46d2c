"""A plugin in the caller's hands: the calling verbs, with the caller's own types."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Future
from contextvars import copy_context
from typing import Any, Generic, TypeVar

from ._contract import HealthStatus, PluginInfo
from ._lifetimes import end_at_exit
from ._options import NAMES
from ._record import Record
from ._shape import Shape
from ._submitter import CallFuture, Submitter

Req = TypeVar("Req")
Resp = TypeVar("Resp")


class PluginHandle(Generic[Req, Resp]):
    """One plugin, called with ``Req`` and answering ``Resp``. Thread-safe; valid as long as its host is open.

    Every verb takes ``timeout`` (seconds for the whole call, repeats included; None is the configured default, ``math.inf`` no
    limit), ``headers`` (text to text), ``metadata`` (JSON data), ``request_id`` and ``max_retries``; the plugin sees them in its
    context. All raise ``CallError`` and what loading raises: ``PluginNotFound``, ``PluginLoadError`` and their siblings.
    """

    __slots__ = ("_host", "_record", "_shape")

    def __init__(self, host: _Around, record: Record, shape: Shape) -> None:
        self._host = host
        self._record = record
        self._shape = shape

    @property
    def name(self) -> str:
        """The plugin's name."""
        return self._record.name

    def execute(
        self,
        request: Req,
        *,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        request_id: str | None = None,
        max_retries: int | None = None,
    ) -> Resp:
        """Call the plugin and return its answer. Loads the plugin on first use."""
        record = self._record
        context = record.context(timeout, headers, metadata, request_id, max_retries)
        answer: Resp = record.front.call(context, request, self._shape)
        return answer

    def submit(self, request: Req, **options: Any) -> Future[Resp]:
        """Call the plugin on another thread. Options as ``execute``.

        The future can be cancelled at any time: a call that has not begun is dropped; one that runs sees it by ``ctx.cancelled``, and
        an isolated one that goes on longer than ``cancel_grace`` costs its worker.
        """

        around = copy_context()  # a trace goes on there, and what else the caller has

        def call(future: CallFuture) -> Resp:
            context = self._context(options)
            future.on_cancel(lambda: self._record.cancel(context))
            answer: Resp = around.run(self._record.front.call, context, request, self._shape)
            return answer

        return self._host.submitter.submit(call)

    async def aexecute(
        self,
        request: Req,
        *,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        request_id: str | None = None,
        max_retries: int | None = None,
    ) -> Resp:
        """Call the plugin without blocking the running event loop; cancelling the task cancels the call."""
        record = self._record
        context = record.context(timeout, headers, metadata, request_id, max_retries)
        answer: Resp = await record.front.acall(context, request, self._shape)
        return answer

    def stream(self, request: Req, **options: Any) -> Iterator[Resp]:
        """Call the plugin and iterate over its answer's items; closing the iterator gives the call up. Options as ``execute``.

        A plugin that doesn't stream gives one item.
        """
        return end_at_exit(self._record.front.stream(self._context(options), request, self._shape))

    def astream(self, request: Req, **options: Any) -> AsyncIterator[Resp]:
        """``stream`` without blocking the running event loop."""
        return self._record.front.astream(self._context(options), request, self._shape)

    def health(self) -> HealthStatus:
        """Ask the plugin how it is doing; never raises for a plugin that is doing badly."""
        return self._host.health_of(self._record)

    def info(self) -> PluginInfo:
        """Ask the plugin what it is."""
        return self._host.info_of(self._record)

    def _context(self, options: dict[str, Any]) -> Any:
        unknown = options.keys() - set(NAMES)
        if unknown:
            raise TypeError(f"unexpected argument {min(unknown)!r}; expected some of {', '.join(NAMES)}")
        return self._record.context(*(options.get(name) for name in NAMES))

    def __repr__(self) -> str:
        return f"PluginHandle({self.name!r})"


class _Around:
    """What a handle needs of its host."""

    submitter: Submitter
    health_of: Callable[[Record], HealthStatus]
    info_of: Callable[[Record], PluginInfo]
