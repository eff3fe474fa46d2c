"""What an exporter can do, and what it can ask of its host."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from .._events import Event
from .._observing import Call


class Source(Protocol):
    """The host, as far as exporters go. Thread-safe."""

    @property
    def app(self) -> str:
        """The application's name."""
        ...

    def snapshot(self) -> dict[str, Any]:  # Any: JSON data
        """Return everything that is known of the host now, as ``_snapshot`` draws it."""
        ...


@runtime_checkable
class Exposition(Protocol):
    """An exporter that is asked, ``asked`` times so far, and never told of calls and events."""

    asked: int

    def text(self) -> str:
        """Return every metric as it is now, in Prometheus' text format."""
        ...


@runtime_checkable
class Choosy(Protocol):
    """An exporter that may want to be told of calls only if they failed."""

    only_failed: bool


class Exporter(Protocol):
    """One who is told. ``began`` and ``ended`` run on the caller's own thread and may take a microsecond; ``call`` and ``event`` run on a
    thread of the exporter's own, behind a bounded queue, and may be slow, hang or raise: calls go on, and what is dropped is counted."""

    wants_calls: bool  # else ``call`` is never called, and nothing is queued for it

    def began(self, call: Call) -> None:
        """A call begins."""
        ...

    def ended(self, call: Call) -> None:
        """It has ended."""
        ...

    def call(self, call: Call) -> None:
        """A call has ended: tell of it."""
        ...

    def event(self, event: Event) -> None:
        """Something happened: tell of it."""
        ...

    def close(self, timeout: float) -> None:
        """Tell what is left, within ``timeout`` seconds, and let go of everything. Idempotent."""
        ...
