"""Tell of calls in the log: one structured record each, for sinks that serialize. Events are there without it."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from loguru import logger

from .. import _errors
from .._config import LoguruConfig
from .._errors import CallCancelled, Rejected, WorkerLost
from .._events import Event
from .._log import on_one_line
from .._observing import Call
from ._base import Source

if TYPE_CHECKING:
    from loguru import Record


class Loguru:
    """Writes to loguru, where the application's sinks are, on the exporter's own thread."""

    wants_calls = True

    def __init__(self, config: LoguruConfig, source: Source) -> None:
        self.only_failed = config.calls == "failed"
        self._levels = {outcome: getattr(config.levels, outcome) for outcome in type(config.levels).model_fields}
        self._app = source.app

    def began(self, call: Call) -> None:
        """Do nothing."""

    def ended(self, call: Call) -> None:
        """Do nothing."""

    def call(self, call: Call) -> None:
        """Write one record."""

        def bind(record: Record) -> None:
            record["extra"].update(_fields(call), app=self._app)

        # Both are asked only if a sink wants the record.
        logger.patch(bind).opt(lazy=True).log(self._levels[_kind(call.outcome)], "{}", lambda: _said(call))

    def event(self, event: Event) -> None:
        """Do nothing: whoever decided it has written it to the log."""

    def close(self, timeout: float) -> None:
        """Do nothing: the sinks are the application's."""


@cache
def _kind(outcome: str) -> str:
    """Return which of the configured levels an outcome has."""
    if outcome == "ok":
        return "ok"
    error = getattr(_errors, outcome, None)
    if outcome == "Interrupted" or (error is not None and issubclass(error, (Rejected, CallCancelled))):
        return "refused"
    return "lost" if error is None or issubclass(error, WorkerLost) else "failed"


def _said(call: Call) -> str:
    if call.failure is not None:
        return f"{call.outcome}: {on_one_line(call.failure.message)}"
    return f"{call.verb} of plugin {call.plugin!r} answered in {call.seconds * 1000:.3f} ms"


def _fields(call: Call) -> dict[str, Any]:  # Any: plain data
    fields = {
        "plugin": call.plugin,
        "request_id": on_one_line(call.context.request_id[:_MOST]),
        "verb": call.verb,
        "outcome": call.outcome,
        "at": call.at,
        "seconds": round(call.seconds, 9),
        "isolation": call.isolation,
        "attempt": call.context.attempt,
    }
    if call.hook:
        fields["hook"] = on_one_line(call.hook[:_MOST])
    trace = call.context._trace
    if trace is not None and (found := _PARENT.fullmatch(trace.headers.get("traceparent", ""))):
        fields["trace_id"], fields["span_id"] = found.groups()
    failure = call.failure
    if failure is not None:
        fields["error"] = on_one_line(failure.kind)
        fields["why"] = on_one_line(failure.message)
        fields["phase"] = failure.phase
        if failure.remote_type:
            fields["remote_type"] = on_one_line(failure.remote_type)
    return fields


_MOST = 200  # characters of a request's id
# As W3C Trace Context has it: version, trace, span, flags.
_PARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}", re.ASCII)
