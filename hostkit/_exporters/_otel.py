"""Tell OpenTelemetry: a span for each call and one for its time in a worker, some metrics, and each event as a log record.

began ─► a span; its W3C trace context goes with the call ─► worker ─► when it ran
ended ─► queue ─► the exporter's thread: a span of what the worker said, the outcome, the end

Whoever processes and exports all that is the application's: its global providers, which OTEL_* variables configure. A span ends on the
exporter's thread because what it meets there is theirs, and may hang.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import Token

# The logs API has no public name yet: hostkit asks it for a logger and for nothing else.
from opentelemetry import _logs, context, metrics, trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .. import __version__
from .._config import OtelConfig
from .._contract import Trace
from .._events import Event
from .._log import on_one_line
from .._observing import Call, Failure
from ._base import Source

# The names of attributes and metrics are those of these conventions (RPC, exceptions, errors), others begin with "hostkit.".
_SCHEMA = "https://opentelemetry.io/schemas/1.44.0"
_SCOPE = ("hostkit", __version__)

# Seconds. From 5 ms on the conventions' own for rpc.client.call.duration; below, where most calls of plugins are, twice a decade.
_BOUNDS = [1e-6, 2.5e-6, 1e-5, 2.5e-5, 1e-4, 2.5e-4, 0.001, 0.0025]
_BOUNDS += [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]

# Characters of a name, of a sentence and of a traceback, from its end.
_MOST_NAME, _MOST_TEXT, _MOST_TRACEBACK = 200, 1000, 16 * 1024

_SEVERITIES = {"INFO": SeverityNumber.INFO, "WARNING": SeverityNumber.WARN, "ERROR": SeverityNumber.ERROR}

# Its message quotes what is wrong with the caller's or the plugin's data, which is none of a trace's business.
_QUOTING = {
    "InvalidRequest": "the request isn't what the plugin takes",
    "InvalidResponse": "the answer isn't what the caller takes",
}


class Otel:
    """Speaks to the application's global providers; without any, to nobody."""

    def __init__(self, config: OtelConfig, source: Source) -> None:
        self.wants_calls = config.traces or config.metrics
        self._tracer = trace.get_tracer(*_SCOPE, schema_url=_SCHEMA) if config.traces else None
        self._duration = _instruments() if config.metrics else None
        self._logger = _logs.get_logger(*_SCOPE, schema_url=_SCHEMA) if config.logs else None
        self._propagator = TraceContextTextMapPropagator()
        self._methods: dict[tuple[str, str], dict[str, str]] = {}  # by plugin and what of it is called
        if config.metrics:
            _watched[id(self)] = weakref.ref(source)

    def began(self, call: Call) -> None:
        if self._tracer is None:
            return
        about = self._method(call)
        kind = SpanKind.INTERNAL if call.isolation == "none" else SpanKind.CLIENT
        span = self._tracer.start_span(about["rpc.method"], kind=kind, attributes=about, start_time=_began(call))
        if not span.get_span_context().is_valid:
            return  # nobody traces
        within = trace.set_span_in_context(span)
        headers: dict[str, str] = {}
        self._propagator.inject(headers, within)
        times: list[tuple[int, int, int, int]] | None = [] if span.is_recording() and call.isolation != "none" else None
        noted = _Spanned(span, within, times)
        if call.isolation in ("none", "") and call.verb != "stream":
            noted.token = context.attach(within)
        call.context._trace = Trace(headers, times, noted.attached if call.verb == "stream" else None)
        call.notes = {**(call.notes or {}), "otel": noted}

    def ended(self, call: Call) -> None:
        noted = _noted(call)
        if noted is not None and noted.token is not None:
            context.detach(noted.token)
            noted.token = None

    def call(self, call: Call) -> None:
        noted = _noted(call)
        if self._duration is not None:
            labels = {**self._method(call), "hostkit.plugin": _cut(call.plugin), "hostkit.isolation": call.isolation}
            if call.failure is not None:
                labels["error.type"] = call.outcome
            self._duration.record(call.seconds, labels, None if noted is None else noted.within)
        if noted is not None and noted.span.is_recording():
            self._tell_workers(call, noted)
            _finish(call, noted.span)

    def _tell_workers(self, call: Call, noted: _Spanned) -> None:
        """Make the spans inside of workers: one for each attempt that one of them answered."""
        assert self._tracer is not None
        method = self._method(call)
        for attempt, at, took, pid in noted.times or ():
            # A worker is not believed, and its clock isn't ours: it had the call no longer than the host.
            begin, end = max(at, _began(call)), min(at + took, _end(call))
            if begin > end:
                continue
            facts: dict[str, str | int] = {
                **method,
                "hostkit.plugin": _cut(call.plugin),
                "hostkit.attempt": attempt,
                "process.pid": pid,
            }
            span = self._tracer.start_span(method["rpc.method"], noted.within, SpanKind.SERVER, facts, start_time=begin)
            if call.failure is not None or attempt < call.context.attempt:
                span.set_status(Status(StatusCode.ERROR))
            span.end(end)

    def _method(self, call: Call) -> dict[str, str]:
        """Return what a span has from its beginning on, where its sampler looks at it."""
        key = call.plugin, call.hook or call.verb
        method = self._methods.get(key)
        if method is None:
            method = self._methods[key] = {"rpc.system.name": "hostkit", "rpc.method": "/".join(map(_cut, key))}
        return method

    def event(self, event: Event) -> None:
        if self._logger is not None:
            self._logger.emit(
                timestamp=int(event.at * 1e9),
                severity_number=_SEVERITIES.get(event.level, SeverityNumber.INFO),
                severity_text=event.level,
                body=str(event)[:_MOST_TRACEBACK],
                attributes={"hostkit.plugin": _cut(event.plugin)} if event.plugin else {},
                event_name=_event_name(event),
            )

    def close(self, timeout: float) -> None:
        del timeout  # what was told is the application's providers' to export
        _watched.pop(id(self), None)


class _Spanned:
    """What is known of a call's span from its begin to its end."""

    __slots__ = ("span", "times", "token", "within")

    def __init__(self, span: Span, within: Context, times: list[tuple[int, int, int, int]] | None) -> None:
        self.span = span
        self.within = within
        self.times = times
        self.token: Token[Context] | None = None

    @contextmanager
    def attached(self) -> Iterator[None]:
        token = context.attach(self.within)
        try:
            yield
        finally:
            context.detach(token)


def _noted(call: Call) -> _Spanned | None:
    return None if call.notes is None else call.notes.get("otel")


def _began(call: Call) -> int:
    return int(call.at * 1e9)


def _end(call: Call) -> int:
    return _began(call) + int(call.seconds * 1e9)


def _finish(call: Call, span: Span) -> None:
    facts: dict[str, str | int] = {
        "hostkit.plugin": _cut(call.plugin),
        "hostkit.verb": call.verb,
        "hostkit.isolation": call.isolation,
        "hostkit.request_id": call.context.request_id,
        "hostkit.attempt": call.context.attempt,
    }
    if call.failure is not None:
        text = _QUOTING.get(call.outcome) or on_one_line(call.failure.message[:_MOST_TEXT])[:_MOST_TEXT]
        facts["error.type"] = call.outcome
        if call.failure.phase:
            facts["hostkit.phase"] = _cut(call.failure.phase)
        span.add_event("exception", _exception(call.failure, text), _end(call))
        span.set_status(Status(StatusCode.ERROR, text))
    span.set_attributes(facts)
    span.end(_end(call))


def _exception(failure: Failure, text: str) -> dict[str, str]:
    said = {"exception.type": _cut(failure.remote_type or failure.kind), "exception.message": text}
    if failure.remote_traceback:
        lines = (on_one_line(line) for line in failure.remote_traceback[-_MOST_TRACEBACK:].split("\n"))
        said["exception.stacktrace"] = "\n".join(lines)[-_MOST_TRACEBACK:]
    return said


def _cut(text: str) -> str:
    return on_one_line(text[:_MOST_NAME])[:_MOST_NAME]


def _event_name(event: Event) -> str:
    """``hostkit.plugin_loaded`` for ``PluginLoaded``."""
    name = type(event).__name__
    return "hostkit." + "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


# By exporter, the hosts whose metrics are asked for. OpenTelemetry's instruments can't be taken away again, so what they observe is
# looked up here.
_watched: dict[int, weakref.ref[Source]] = {}


def _instruments() -> metrics.Histogram:
    """Make what there is to measure, or find it: one set a process."""
    meter = metrics.get_meter(*_SCOPE, schema_url=_SCHEMA)
    meter.create_observable_up_down_counter(
        "hostkit.active_calls", [_active_calls], "{call}", "Calls that a plugin is answering, or that wait for it."
    )
    meter.create_observable_counter(
        "hostkit.worker.restarts", [_restarts], "{restart}", "Workers that were replaced because they died or had to be ended."
    )
    return meter.create_histogram(
        "rpc.client.call.duration",
        "s",
        "Duration of calls to plugins, as the caller sees it.",
        explicit_bucket_boundaries_advisory=_BOUNDS,
    )


def _active_calls(options: CallbackOptions) -> Iterable[Observation]:
    del options
    return _observed("in_flight")


def _restarts(options: CallbackOptions) -> Iterable[Observation]:
    del options
    return _observed("restarts")


def _observed(what: str) -> list[Observation]:
    """Return a number of each loaded plugin; a process may have several hosts with one of that name."""
    totals: dict[str, int] = {}
    # While a host gets another configuration it has two exporters.
    for source in {found() for found in list(_watched.values())}:
        for plugin in [] if source is None else source.snapshot()["plugins"]:
            if plugin["isolation"]:
                totals[plugin["name"]] = totals.get(plugin["name"], 0) + plugin[what]
    return [Observation(number, {"hostkit.plugin": _cut(name)}) for name, number in totals.items()]
