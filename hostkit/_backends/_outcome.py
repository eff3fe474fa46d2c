"""What an isolated call ends in: the answer as the caller's type, or the one error that says why there is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .._contract import ExecutionContext
from .._errors import Busy, CallCancelled, CallError, CallTimeout, HostkitError, MemoryExceeded
from .._questions import spoken
from .._raised import call_error, denied_by_sandbox, invalid_response, show_remote, text_of
from .._shape import Shape
from .._worker._data import DataError
from .._worker._frames import ERROR, Frame, FrameError


class Outcome:
    """Makes them for one plugin. ``limited`` says whether its memory is; ``denied`` is told of errors where its workers are confined."""

    def __init__(self, plugin: str, *, limited: bool, denied: Callable[[str, Mapping[str, Any]], object] | None = None) -> None:
        self._name = plugin
        self._limited = limited
        self._denied = denied

    def answer(self, context: ExecutionContext, frame: Frame, shape: Shape) -> Any:
        """Return an answer's frame as the caller's type, or raise its error."""
        if context._trace is not None:
            note_times(context, frame)
        if frame.kind == ERROR:
            raise self.failed(context, said_of(frame.meta))
        try:
            return shape.decode(frame.payload, frame.views) if frame.views else shape.decode(frame.payload)
        except DataError as error:
            raise invalid_response(error.rows, plugin=self._name, request_id=context.request_id) from None
        except FrameError as error:
            lost: CallError = frame.violated(error).error(plugin=self._name, request_id=context.request_id)
            raise lost from None

    def failed(self, context: ExecutionContext, said: Mapping[str, Any]) -> HostkitError:
        self.heard(said)
        if said.get("cancelled") is True and context.cancelled:
            return self.cancelled(context) if context._cancelled else self.late(context)
        if said.get("memory") is True and self._limited:
            return MemoryExceeded(
                f"plugin {self._name!r} reached its memory limit (max_memory_mb): {text_of(said.get('message')) or 'MemoryError'}",
                plugin=self._name,
                request_id=context.request_id,
                evidence="MemoryError",
            )
        error = call_error(said, plugin=self._name, request_id=context.request_id)
        if self._denied is not None and "denied" in said:
            denied_by_sandbox(error, plugin=self._name)
        show_remote(error)
        return error

    def heard(self, said: Mapping[str, Any]) -> None:
        """Pass on what a confined worker says that it was denied."""
        if self._denied is not None and "denied" in said:
            self._denied(self._name, said)

    def out_of_memory(self, frame: Frame) -> bool:
        """Whether a plugin with a memory limit answered with its last ballast."""
        return self._limited and frame.kind == ERROR and b'"memory": true' in frame.meta

    def cancelled(self, context: ExecutionContext, *, phase: str = "execute") -> CallCancelled:
        text = f"plugin {self._name!r}: the call was given up"
        return CallCancelled(text, plugin=self._name, request_id=context.request_id, phase=phase)

    def late(self, context: ExecutionContext) -> CallTimeout:
        text = f"plugin {self._name!r} did not answer within {context.timeout:g} s"
        return CallTimeout(text, plugin=self._name, request_id=context.request_id)

    def busy(self, context: ExecutionContext, *, worker: bool) -> Busy:
        if not worker:
            why = "it has no worker just now, another one is being started"
        else:
            why = "it has more callers than workers and concurrency"
        return Busy(
            f"plugin {self._name!r}: no worker became free within the {context.timeout:g} s of this call; {why}",
            plugin=self._name,
            request_id=context.request_id,
            phase="queue",
        )


def note_times(context: ExecutionContext, frame: Frame) -> None:
    """Keep what a worker says of the times of a traced call, if these are times: they may be any, and nobody must believe them."""
    times = None if context._trace is None else context._trace.times
    if times is None or not frame.meta or not hasattr(frame, "timed"):
        return
    said, pid = frame.timed
    if type(said) is list and len(said) == 2 and all(type(number) is int and 0 <= number < _MOST_TIME for number in said):
        times.append((context._attempt, said[0], said[1], pid))


# Nanoseconds since the epoch fit into 63 bits until the year 2262.
_MOST_TIME = 1 << 63


def said_of(meta: bytes) -> Mapping[str, Any]:
    """Return what a worker says of an error; nothing where it says nonsense."""
    try:
        return spoken(meta)
    except FrameError:
        return {}
