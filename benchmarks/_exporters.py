"""What watching costs: of each call, by who is told of it, and of each scrape."""

from __future__ import annotations

import timeit
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

from loguru import logger

from hostkit import Host
from hostkit._config import ExportersConfig

from . import _models, _plugin
from ._cpu import Meter
from ._models import CalculatorRequest, CalculatorResponse
from ._report import Section
from ._timing import Peer, interleave

_OFF = "nobody watches"
_LOGURU, _PROMETHEUS, _OTEL = ({"loguru": {}}, {"prometheus": {}}, {"otel": {}})
# name → the exporters' tables, whether operators are let in, whether hostkit's log is enabled
_WATCHED: dict[str, tuple[dict[str, Any], bool, bool]] = {
    _OFF: ({}, False, False),
    "operators let in: meter and history": ({}, True, False),
    "prometheus": (_PROMETHEUS, False, False),
    "loguru, hostkit's log disabled": (_LOGURU, False, False),
    "loguru, failed calls only, enabled": ({"loguru": {"calls": "failed"}}, False, True),
    "loguru, to a sink that does nothing": (_LOGURU, False, True),
    "otel, to an SDK that exports to nobody": (_OTEL, False, False),
    "all of them": ({**_PROMETHEUS, **_LOGURU, **_OTEL}, True, True),
}
# Calls before what they left in the queues is written, outside of the time that counts: fewer than a queue holds.
_AT_ONCE = 2000


def measure(*, rounds: int, turn: float) -> list[Section]:
    """Measure a call in the same process and in a worker, with each exporter by itself and with all; then scrapes."""
    return [_calls("none", rounds, turn), _calls("process", rounds, turn), _scrapes(rounds, turn)]


def _calls(isolation: str, rounds: int, turn: float) -> Section:
    what = "in-process, of a plugin that does nothing" if isolation == "none" else "isolated, a small dict"
    section = Section(f"What watching adds to a call {what}", base=_OFF)
    meter = Meter()
    with ExitStack() as hosts:
        hosts.enter_context(_sink())
        traced = _traced()
        peers = []
        for number, (name, (tables, admin, enabled)) in enumerate(_WATCHED.items()):
            there = tables if traced is not None else {key: table for key, table in tables.items() if key != "otel"}
            if tables and not there:
                section.missing(name, "no such exporter, or OpenTelemetry's SDK isn't installed")
                continue
            host = hosts.enter_context(Host(f"benchmarks{number}", config={"exporters": there}, admin=admin))
            peers.append(Peer(name, _turns(host, _call(host, isolation), traced if "otel" in there else None, enabled=enabled)))
        found = interleave(peers, rounds=rounds, turn=turn, meter=meter)
    plain, columns = found[_OFF], {name: dict(columns) for name, columns in meter.found.items()}
    for name, figures in found.items():
        columns[name] = {"adds": [one - other for one, other in zip(figures, plain, strict=True)], **columns[name]}
    section.measured(found, beside=columns)
    return section


@cache
def _traced() -> Callable[[], object] | None:
    """Have OpenTelemetry's SDK keep every span and metric, and pass them on to nobody; return what ends with nothing waiting."""
    if "otel" not in ExportersConfig.model_fields:
        return None
    try:
        from opentelemetry import metrics, trace
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    except ImportError:
        return None

    class Nowhere(SpanExporter):
        def export(self, spans: object) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere(), max_queue_size=2 * _AT_ONCE))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider([InMemoryMetricReader()]))
    return provider.force_flush


@contextmanager
def _sink() -> Iterator[None]:
    """Let loguru have one sink, which does nothing with what it gets."""
    logger.remove()
    sink = logger.add(lambda _: None, level="DEBUG", format="{message}")
    try:
        yield
    finally:
        logger.remove(sink)
        logger.disable("hostkit")


def _call(host: Host, isolation: str) -> timeit.Timer:
    if isolation == "none":
        host.register(_models.Idler, name="plugin", isolation="none")
        handle: Any = host.plugin("plugin", CalculatorRequest, CalculatorResponse)
        request: Any = _models.REQUEST
    else:
        host.register(_plugin.Plain, name="plugin", isolation="process")
        handle, request = host.plugin("plugin"), _plugin.REQUEST
    return timeit.Timer("execute(request)", globals={"execute": handle.execute, "request": request})


def _turns(host: Host, call: timeit.Timer, flush: Callable[[], object] | None, *, enabled: bool) -> Callable[[int], float]:
    """Return what makes so many calls, and what they left for exporters' threads is done by its end: other peers don't pay for it."""

    def run(number: int) -> float:
        (logger.enable if enabled else logger.disable)("hostkit")
        seconds = 0.0
        while number > 0:
            seconds += call.timeit(min(number, _AT_ONCE))
            number -= _AT_ONCE
            for delivery in host._loader.telemetry.deliveries:
                delivery._outlet.flush(10.0)
            if flush is not None:
                flush()
        return seconds

    return run


def _scrapes(rounds: int, turn: float) -> Section:
    section = Section("What Prometheus' scrapes cost")
    with ExitStack() as hosts:
        peers = []
        for number, isolation in ((5, "none"), (5, "process"), (100, "none")):
            host = hosts.enter_context(Host("benchmarks", config={"exporters": _PROMETHEUS}))
            for each in range(number):
                host.register(_plugin.Plain, name=f"p{each}", isolation=isolation)
                host.execute(f"p{each}", _plugin.REQUEST)
            source = host._loader.telemetry._source
            assert source is not None
            where = "in-process" if isolation == "none" else "isolated"
            peers.append(Peer(f"{number} plugins, {where}", timeit.Timer(host.metrics).timeit))
            peers.append(Peer(f"    of which the snapshot of {number} {where}", timeit.Timer(source.snapshot).timeit))
        meter = Meter()
        section.measured(interleave(peers, rounds=rounds, turn=turn, meter=meter), beside=meter.found)
    return section
