"""A call in the worker of which the host wants to know more: when it ran, and which trace it is part of.

Imported with the first such call. OpenTelemetry isn't: where the plugin has it, the call becomes what is going on there, so that the
plugin's own spans are its children.
"""

from __future__ import annotations

import sys
from time import perf_counter_ns, time_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any


class Traced:
    """From the call's begin to ``end``, on the thread or in the task where it runs."""

    __slots__ = ("_at", "_began", "_detach", "_timed")

    def __init__(self, headers: Mapping[str, str], *, timed: bool) -> None:
        self._at = time_ns()
        self._began = perf_counter_ns()
        self._timed = timed
        self._detach = _attached(headers) if headers else None

    def times(self) -> dict[str, Any]:
        """Return what to tell the host, where it wants to know: when the call began, in nanoseconds since the epoch, and how many it
        has taken until now."""
        return {"timed": [self._at, perf_counter_ns() - self._began]} if self._timed else {}

    def meta(self) -> bytes:
        """Return the same as the meta of a frame that has nothing else to tell."""
        return b'{"timed": [%d, %d]}' % (self._at, perf_counter_ns() - self._began) if self._timed else b""

    def end(self) -> None:
        """The call has ended."""
        if self._detach is not None:
            self._detach()


def _attached(headers: Mapping[str, str]) -> Callable[[], object] | None:
    """Make a trace the current one; return what undoes that, or None where nothing in this process knows of traces."""
    # Any: whatever the plugin has imported under that name
    context: Any = sys.modules.get("opentelemetry.context")
    trace: Any = sys.modules.get("opentelemetry.trace")
    if context is None or trace is None:
        return None
    try:
        _, trace_id, span_id, flags = headers["traceparent"].split("-")
        state = trace.TraceState.from_header([headers["tracestate"]]) if "tracestate" in headers else None
        caller = trace.SpanContext(
            int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=trace.TraceFlags(int(flags, 16)), trace_state=state
        )
        token = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(caller)))
    except Exception:  # half imported, or the plugin's own idea of it: the call itself needs none of this
        return None
    return lambda: _detached(context, token)


def _detached(context: Any, token: object) -> None:
    try:
        context.detach(token)
    except Exception:  # the same
        return
