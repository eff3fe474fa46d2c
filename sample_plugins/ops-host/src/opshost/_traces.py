"""Where spans go here: into a file, a line of JSON each. Another application has an exporter to its collector in this place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# The share of calls that is traced, as an application with traffic does it.
_SHARE = 0.1


@contextmanager
def traced_to(file: Path | None) -> Iterator[None]:
    """Give OpenTelemetry a place for its spans; without a file there is none, and nothing is imported."""
    if file is None:
        yield
        return
    from opentelemetry import trace
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    provider = TracerProvider(resource=Resource({"service.name": "opshost"}), sampler=ParentBased(TraceIdRatioBased(_SHARE)))
    with file.open("w", encoding="utf-8") as out:
        exporter = ConsoleSpanExporter(out=out, formatter=lambda span: span.to_json(indent=None) + "\n")
        provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=500))
        trace.set_tracer_provider(provider)
        try:
            yield
        finally:
            provider.shutdown()
