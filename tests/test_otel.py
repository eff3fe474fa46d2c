"""What OpenTelemetry is told, by the SDK's own readers: every test reads what has arrived there after its host is closed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

import hostkit

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode


class Stuckable(InMemorySpanExporter):
    """Keeps spans, and hangs for as long as ``stuck`` is set."""

    def __init__(self):
        super().__init__()
        self.free = threading.Event()
        self.free.set()
        self.reached = threading.Event()

    def export(self, spans):
        self.reached.set()
        self.free.wait()
        return super().export(spans)


class Told:
    """The application's providers: global, as OpenTelemetry has them, so there is one set for all tests of a process."""

    def __init__(self):
        resource = Resource({"service.name": "tests"})
        self.exporter, self.records, self.reader = Stuckable(), InMemoryLogRecordExporter(), InMemoryMetricReader()
        tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        trace.set_tracer_provider(tracers)
        metrics.set_meter_provider(MeterProvider([self.reader], resource=resource, shutdown_on_exit=False))
        loggers = LoggerProvider(resource=resource, shutdown_on_exit=False)
        loggers.add_log_record_processor(SimpleLogRecordProcessor(self.records))
        _logs.set_logger_provider(loggers)

    def spans(self, name=None, kind=None):
        """The finished spans, the earliest first."""
        found = [span for span in self.exporter.get_finished_spans() if name in (None, span.name) and kind in (None, span.kind)]
        return sorted(found, key=lambda span: span.start_time)

    def metric(self, name):
        """What is measured under a name now: its points by plugin."""
        points = {}
        data = self.reader.get_metrics_data()
        for scope in data.resource_metrics[0].scope_metrics if data else ():
            for metric in scope.metrics:
                if metric.name == name:
                    points |= {point.attributes["hostkit.plugin"]: point for point in metric.data.data_points}
        return points


@pytest.fixture(scope="session")
def _providers():
    return Told()


@pytest.fixture
def told(_providers):
    _providers.exporter.clear()
    _providers.records.clear()
    _providers.reader.get_metrics_data()
    yield _providers
    _providers.exporter.free.set()


@pytest.fixture
def traced_host(new_host, told):
    """Make a host whose calls are traced."""

    def make(isolation="none", *, plugins=None, **options):
        return new_host(
            config={"exporters": {"otel": {}}, "defaults": {"isolation": isolation}, "plugins": plugins or {}}, **options
        )

    return make


ECHO = """
class P:
    def execute(self, ctx, request):
        return {"headers": dict(ctx.headers), **request}
"""

STREAM = """
class P:
    def execute(self, ctx, request):
        yield from range(3)
"""


@contextlib.contextmanager
def application_span(name="checkout"):
    with trace.get_tracer("the application").start_as_current_span(name) as span:
        yield span.get_span_context()


def in_isolation(isolation):
    return isolation != "none"


def by_execute(host, name):
    return host.execute(name, {"a": 1})


def by_submit(host, name):
    return host.submit(name, {"a": 1}).result()


def by_aexecute(host, name):
    return asyncio.run(host.aexecute(name, {"a": 1}))


def by_stream(host, name):
    return list(host.stream(name, {"a": 1}))


def by_astream(host, name):
    async def collect():
        return [item async for item in host.astream(name, {"a": 1})]

    return asyncio.run(collect())


WAYS = [
    (by_execute, ECHO, "execute"),
    (by_submit, ECHO, "execute"),
    (by_aexecute, ECHO, "execute"),
    (by_stream, STREAM, "stream"),
    (by_astream, STREAM, "stream"),
]


@pytest.mark.parametrize(("call", "source", "verb"), WAYS, ids=[call.__name__ for call, *_ in WAYS])
def test_each_call_is_a_span_below_the_applications_own(install, traced_host, told, isolation, call, source, verb):
    install("shop", source)
    host = traced_host(isolation)
    host.load("shop")
    with application_span() as application:
        call(host, "shop")
    host.close()
    span = told.spans(f"shop/{verb}")[0]
    assert span.parent.span_id == application.span_id
    assert span.kind is (SpanKind.CLIENT if in_isolation(isolation) else SpanKind.INTERNAL)
    assert span.status.status_code is StatusCode.UNSET
    assert {name: span.attributes[name] for name in ("rpc.system.name", "rpc.method", "hostkit.plugin", "hostkit.isolation")} == {
        "rpc.system.name": "hostkit",
        "rpc.method": f"shop/{verb}",
        "hostkit.plugin": "shop",
        "hostkit.isolation": isolation,
    }
    assert span.attributes["hostkit.attempt"] == 1
    assert span.attributes["hostkit.request_id"]
    inside = told.spans(kind=SpanKind.SERVER)
    assert len(inside) == in_isolation(isolation)
    for worker in inside:
        assert worker.name == span.name
        assert worker.parent.span_id == span.context.span_id
        assert worker.attributes["process.pid"] != os.getpid()
        assert span.start_time <= worker.start_time <= worker.end_time <= span.end_time


def test_tasks_that_call_at_the_same_time_keep_their_traces_apart(install, traced_host, told, isolation):
    install("echo", ECHO)
    host = traced_host(isolation)

    async def one():
        with application_span() as application:
            answer = await host.aexecute("echo", {})
            return application.span_id, answer["headers"]["traceparent"].split("-")[2]

    async def many():
        return await asyncio.gather(*(one() for _ in range(40)))

    seen = asyncio.run(many())
    host.close()
    calls = [span for span in told.spans("echo/execute") if span.kind is not SpanKind.SERVER]
    assert sorted(seen) == sorted((span.parent.span_id, f"{span.context.span_id:016x}") for span in calls)
    inside = told.spans(kind=SpanKind.SERVER)
    assert len(inside) == 40 * in_isolation(isolation)
    assert all(before.end_time <= after.start_time for before, after in itertools.pairwise(inside)), (
        "a worker has one call at a time"
    )


class Specs:
    @hostkit.hookspec
    def priced(self, amount: int) -> int:
        """Called for each price."""


def test_a_hook_call_is_a_span_with_its_name(install, traced_host, told, isolation):
    install(
        "tax", "from hostkit import hookimpl\nclass P:\n    @hookimpl\n    def priced(self, amount):\n        return amount + 1\n"
    )
    host = traced_host(isolation, hookspecs=[Specs])
    host.load("tax")
    with application_span() as application:
        assert host.hook.priced(amount=1) == [2]
    host.close()
    spans = told.spans("tax/priced")
    assert [span.parent.span_id for span in spans if span.kind is not SpanKind.SERVER] == [application.span_id]
    assert [span.attributes.get("hostkit.verb") for span in spans] == ["hook", None][: 1 + in_isolation(isolation)]


def test_the_time_before_the_plugin_shows_between_the_two_spans(install, traced_host, told):
    install(
        "slow", "import time\nclass P:\n    def execute(self, ctx, request):\n        time.sleep(0.1)\n        return request\n"
    )
    host = traced_host("process")
    host.load("slow")
    futures = [host.submit("slow", {}) for _ in range(2)]  # one worker: the second one waits for the first
    for future in futures:
        future.result()
    host.close()
    second = told.spans("slow/execute", SpanKind.CLIENT)
    inside = {span.parent.span_id: span for span in told.spans(kind=SpanKind.SERVER)}
    waited = sorted(inside[span.context.span_id].start_time - span.start_time for span in second)
    assert waited[0] < 0.09e9 < waited[1]
    assert all(0.09e9 < span.end_time - span.start_time for span in inside.values())


def test_what_a_plugin_in_process_traces_is_below_its_call(install, traced_host, told):
    source = "from opentelemetry import trace\ntracer = trace.get_tracer('plugin')\nclass P:\n"
    body = "        with tracer.start_as_current_span('own'):\n            pass\n"
    install("plain", f"{source}    def execute(self, ctx, request):\n{body}        return request\n")
    install("coro", f"{source}    async def execute(self, ctx, request):\n{body}        return request\n")
    install("items", f"{source}    def execute(self, ctx, request):\n{body}        yield 1\n")
    install("aitems", f"{source}    async def execute(self, ctx, request):\n{body}        yield 1\n")
    host = traced_host()
    for name, calls in {
        "plain": (by_execute, by_aexecute, by_submit),
        "coro": (by_execute, by_aexecute),
        "items": (by_stream, by_astream),
        "aitems": (by_stream, by_astream),
    }.items():
        for call in calls:
            call(host, name)
    host.close()
    calls = {span.context.span_id: span.name for span in told.spans() if span.name != "own"}
    below = Counter(calls[span.parent.span_id] for span in told.spans("own"))
    assert below == {"plain/execute": 3, "coro/execute": 2, "items/stream": 2, "aitems/stream": 2}


def test_what_the_caller_does_between_two_items_is_not_the_plugins(install, traced_host, told, isolation):
    install("items", STREAM)
    host = traced_host(isolation)
    with application_span() as application:
        for _ in host.stream("items", {}):
            with application_span("between"):
                pass
        assert trace.get_current_span().get_span_context() == application
    host.close()
    assert [span.parent.span_id for span in told.spans("between")] == [application.span_id] * 3


SEES = """
from opentelemetry import trace

def seen():
    found = trace.get_current_span().get_span_context()
    return [format(found.trace_id, "032x"), format(found.span_id, "016x")]

class P:
"""


@pytest.mark.parametrize(
    ("source", "call", "verb"),
    [
        ("    def execute(self, ctx, request):\n        return seen()\n", by_execute, "execute"),
        ("    def execute(self, ctx, request):\n        return seen()\n", by_aexecute, "execute"),
        ("    async def execute(self, ctx, request):\n        return seen()\n", by_execute, "execute"),
        ("    def execute(self, ctx, request):\n        yield seen()\n", by_stream, "stream"),
        ("    async def execute(self, ctx, request):\n        yield seen()\n", by_astream, "stream"),
    ],
)
def test_a_plugin_that_traces_in_its_worker_has_the_call_as_its_parent(install, traced_host, told, source, call, verb):
    install("tracing", SEES + source)
    host = traced_host("process")
    seen = call(host, "tracing")
    host.close()
    span = told.spans(f"tracing/{verb}", SpanKind.CLIENT)[0].context
    assert (seen if verb == "execute" else seen[0]) == [format(span.trace_id, "032x"), format(span.span_id, "016x")]


def test_nothing_of_a_call_stays_current_in_its_worker(install, traced_host, told):
    install("tracing", SEES + "    def execute(self, ctx, request):\n        return seen()\n    def health(self):\n"
            "        import hostkit\n        return hostkit.HealthStatus(message=seen()[0])\n")  # fmt: skip
    host = traced_host("process")
    first, second = (host.execute("tracing", {})[0] for _ in range(2))
    assert first != second
    assert host.health("tracing").message == "0" * 32


def test_the_plugin_sees_the_trace_in_its_headers(install, traced_host, told, isolation):
    install("echo", ECHO)
    host = traced_host(isolation)
    headers = host.plugin("echo").execute({}, headers={"tenant": "a"})["headers"]
    host.close()
    span = told.spans("echo/execute")[0].context
    traceparent = f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
    assert headers == {"tenant": "a", "traceparent": traceparent}


def test_a_callers_own_trace_headers_stay_as_they_are(install, traced_host, told, isolation):
    install("echo", ECHO)
    host = traced_host(isolation)
    own = {"TraceParent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    assert host.plugin("echo").execute({}, headers=own)["headers"] == own


def test_a_call_that_nobody_traces_carries_nothing(install, new_host, told, isolation):
    install("echo", ECHO)
    host = new_host(config={"defaults": {"isolation": isolation}})
    with application_span():
        assert host.execute("echo", {}) == {"headers": {}}
    host.close()
    assert told.spans("echo/execute") == []


def test_an_application_without_a_tracer_pays_no_spans(install, site, tmp_path):
    install("echo", ECHO)
    program = tmp_path / "app.py"
    program.write_text(
        "import hostkit\n"
        "config = {'exporters': {'otel': {}}, 'defaults': {'isolation': 'process'}}\n"
        "with hostkit.Host(config=config) as host:\n    print(host.execute('echo', {}))\n"
    )
    path = os.pathsep.join([str(site), os.path.dirname(os.path.dirname(hostkit.__file__))])
    environment = {**os.environ, "PYTHONPATH": path}
    ran = subprocess.run([sys.executable, str(program)], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.stdout, ran.stderr) == ("{'headers': {}}\n", "")


def exception_of(span):
    [event] = [event for event in span.events if event.name == "exception"]
    return event.attributes


def test_an_error_is_the_spans_status_with_the_remote_traceback(install, traced_host, told, isolation):
    install("bad", "class P:\n    def execute(self, ctx, request):\n        raise ValueError('no such order')\n")
    host = traced_host(isolation)
    with pytest.raises(hostkit.PluginFailed):
        host.execute("bad", {})
    host.close()
    span = next(span for span in told.spans("bad/execute") if span.kind is not SpanKind.SERVER)
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "PluginFailed"
    assert span.attributes["hostkit.phase"] == "execute"
    said = exception_of(span)
    assert said["exception.type"] == "ValueError"
    assert "no such order" in said["exception.message"]
    assert "raise ValueError('no such order')\n" in said["exception.stacktrace"]
    assert [worker.status.status_code for worker in told.spans(kind=SpanKind.SERVER)] == [StatusCode.ERROR] * in_isolation(
        isolation
    )


def test_a_worker_that_dies_leaves_an_error_and_no_span_of_its_own(install, traced_host, told):
    install("dies", "import os\nclass P:\n    def execute(self, ctx, request):\n        os._exit(3)\n")
    host = traced_host("process")
    with pytest.raises(hostkit.WorkerExited):
        host.execute("dies", {})
    host.close()
    [span] = told.spans()
    assert span.attributes["error.type"] == "WorkerExited"
    assert "exception.stacktrace" not in exception_of(span)


def test_repeats_are_one_span_with_one_inside_for_each_attempt(install, traced_host, told):
    source = "import hostkit\nclass P:\n    def execute(self, ctx, request):\n        if ctx.attempt < 3:\n"
    install("again", f"{source}            raise hostkit.RetryableError('not yet')\n        return ctx.headers['traceparent']\n")
    host = traced_host("process", plugins={"again": {"retry": {"attempts": 3, "wait": 0.001}}})
    host.execute("again", {})
    host.close()
    [call] = told.spans(kind=SpanKind.CLIENT)
    assert call.attributes["hostkit.attempt"] == 3
    assert call.status.status_code is StatusCode.UNSET
    inside = told.spans(kind=SpanKind.SERVER)
    assert [(span.attributes["hostkit.attempt"], span.status.status_code.name) for span in inside] == [
        (1, "ERROR"),
        (2, "ERROR"),
        (3, "UNSET"),
    ]
    assert {span.parent.span_id for span in inside} == {call.context.span_id}


def test_no_data_of_a_call_is_in_its_spans(install, traced_host, told, isolation):
    source = "from pydantic import BaseModel\nclass Card(BaseModel):\n    number: int\nclass P:\n"
    install("pays", f"{source}    def execute(self, ctx, request: Card) -> Card:\n        return {{'number': 'hunter2'}}\n")
    host = traced_host(isolation)
    with pytest.raises(hostkit.InvalidRequest, match="hunter3"):
        host.execute("pays", {"number": "hunter3"})
    with pytest.raises(hostkit.InvalidResponse):
        host.execute("pays", {"number": 5432101234})
    host.close()
    everything = "\n".join(span.to_json() for span in told.spans())
    assert "InvalidRequest" in everything
    assert "InvalidResponse" in everything
    assert not any(secret in everything for secret in ("hunter", "5432101234"))


def test_hostile_text_arrives_cut_and_escaped(install, traced_host, told, isolation):
    install(
        "rude", "class P:\n    def execute(self, ctx, request):\n        raise ValueError('\\x1b[31m<b>\\n\\u202eFAKE ' * 2000)\n"
    )
    host = traced_host(isolation)
    with pytest.raises(hostkit.PluginFailed):
        host.execute("rude", {})
    host.close()
    span = next(span for span in told.spans("rude/execute") if span.kind is not SpanKind.SERVER)
    said = exception_of(span)
    assert all(len(text) <= 1000 and text.isprintable() for text in (span.status.description, said["exception.message"]))
    assert len(said["exception.stacktrace"]) <= 16 * 1024
    assert all(line.isprintable() for line in said["exception.stacktrace"].split("\n"))


def test_an_exporter_that_hangs_holds_up_neither_calls_nor_the_hosts_end(install, traced_host, told, isolation):
    install("echo", ECHO)
    host = traced_host(isolation)
    host.execute("echo", {})
    told.exporter.free.clear()
    host.execute("echo", {})
    assert told.exporter.reached.wait(10)
    begin = time.monotonic()
    for _ in range(200):
        host.execute("echo", {})
    assert time.monotonic() - begin < 5
    [delivery] = host._loader.telemetry.deliveries
    begin = time.monotonic()
    host.close(2.0)
    assert time.monotonic() - begin < 6
    assert delivery.state()["dropped"] >= 200


# What a worker could say instead of its times: a plugin can change everything in its own process.
LIES = [
    b'{"timed": [0, 0]}',
    b'{"timed": [9223372036854775807, 1]}',
    b'{"timed": [1, 99999999999999999999999]}',
    b'{"timed": [-1, 5]}',
    b'{"timed": [true, false]}',
    b'{"timed": [NaN, Infinity]}',
    b'{"timed": [1e308, 1e308]}',
    b'{"timed": "now"}',
    b'{"timed": {"$array": [0]}}',
    b'{"timed": [[[[[]]]]]}',
    b'{"timed": null, "timed": []}',
    b'{"timed": [' + b"0, " * 100_000 + b"0]}",
]


def test_a_worker_is_not_believed_about_its_times(install, traced_host, told):
    install("liar", """
import sys

class P:
    def execute(self, ctx, request):
        for name, module in list(sys.modules.items()):
            if name.endswith("_worker._traced"):
                module.Traced.meta = lambda self: request["meta"].encode()
        return "answered"
""")  # fmt: skip
    host = traced_host("process")
    for lie in LIES:
        assert host.execute("liar", {"meta": lie.decode()}) == "answered"
    host.close()
    calls = {span.context.span_id: span for span in told.spans("liar/execute", SpanKind.CLIENT)}
    assert len(calls) == len(LIES)
    for span in told.spans(kind=SpanKind.SERVER):
        call = calls[span.parent.span_id]
        assert call.start_time <= span.start_time <= span.end_time <= call.end_time


def test_a_worker_that_tells_of_times_nobody_asked_for_is_heard_by_nobody(install, new_host, told):
    install("talks", """
import sys

class P:
    def execute(self, ctx, request):
        loop = next(module for name, module in sys.modules.items() if name.endswith("_worker._loop"))
        plain = loop.packed
        loop.packed = lambda kind, call_id, payload=b"", **more: plain(kind, call_id, payload, meta=b'{"timed": [1, 2]}')
        return "answered"
""")  # fmt: skip
    host = new_host(config={"defaults": {"isolation": "process"}})
    assert [host.execute("talks", {}) for _ in range(2)] == ["answered", "answered"]


def test_durations_are_measured_by_method_and_error(install, traced_host, told, isolation):
    install("meter", "class P:\n    def execute(self, ctx, request):\n        return 1 / request\n")
    host = traced_host(isolation)
    with application_span():
        for number in (1, 2, 0):
            with contextlib.suppress(hostkit.PluginFailed):
                host.execute("meter", number)
    host.close()
    points = {}
    for scope in told.reader.get_metrics_data().resource_metrics[0].scope_metrics:
        for metric in scope.metrics:
            if metric.name == "rpc.client.call.duration":
                assert metric.unit == "s"
                points |= {
                    point.attributes.get("error.type"): point
                    for point in metric.data.data_points
                    if point.attributes["hostkit.plugin"] == "meter" and point.attributes["hostkit.isolation"] == isolation
                }
    assert {error: point.count for error, point in points.items()} == {None: 2, "PluginFailed": 1}
    assert points[None].attributes["rpc.method"] == "meter/execute"
    assert 0 < points[None].sum < 60


def test_calls_in_flight_and_restarts_are_measured(install, traced_host, told):
    install("busy", """
import os, time
class P:
    def execute(self, ctx, request):
        if request == "die":
            os._exit(1)
        while not os.path.exists(request):
            time.sleep(0.01)
""")  # fmt: skip
    host = traced_host("process")
    host.load("busy")
    gate = os.path.join(os.environ["TMPDIR"], "gate")
    future = host.submit("busy", gate)
    give_up = time.monotonic() + 10
    while told.metric("hostkit.active_calls")["busy"].value != 1:
        assert time.monotonic() < give_up
    with open(gate, "w", encoding="utf-8"):
        future.result()
    os.unlink(gate)
    with pytest.raises(hostkit.WorkerExited):
        host.execute("busy", "die")
    assert told.metric("hostkit.active_calls")["busy"].value == 0
    while told.metric("hostkit.worker.restarts")["busy"].value != 1:
        assert time.monotonic() < give_up
    host.close()
    assert told.metric("hostkit.active_calls") == {}


def test_metrics_go_on_when_the_configuration_changes(install, new_host, told, tmp_path):
    install("steady", ECHO)
    file = tmp_path / "hostkit.toml"
    file.write_text("[exporters.otel]\n")
    host = new_host(config=file)
    host.load("steady")
    file.write_text("[exporters.otel]\nlogs = false\n")
    host.reload_config()
    assert told.metric("hostkit.active_calls")["steady"].value == 0
    file.write_text("")
    host.reload_config()
    assert told.metric("hostkit.active_calls") == {}


def test_events_are_log_records_with_their_names(install, traced_host, told):
    install("echo", ECHO)
    host = traced_host()
    host.load("echo")
    host.close()
    records = {found.log_record.event_name: found.log_record for found in told.records.get_finished_logs()}
    loaded = records["hostkit.plugin_loaded"]
    assert loaded.body == "plugin 'echo' loaded, isolation none"
    assert loaded.severity_text == "INFO"
    assert loaded.attributes == {"hostkit.plugin": "echo"}
    assert abs(loaded.timestamp / 1e9 - time.time()) < 60
    assert "hostkit.plugin_unloaded" in records


def test_what_is_not_asked_for_is_not_told(install, new_host, told):
    install("silent", ECHO)
    host = new_host(config={"exporters": {"otel": {"traces": False, "metrics": False, "logs": False}}})
    with application_span():
        assert host.execute("silent", {}) == {"headers": {}}
    host.close()
    assert told.spans("silent/execute") == []
    assert "silent" not in told.metric("rpc.client.call.duration")
    assert told.records.get_finished_logs() == ()


def test_a_missing_extra_is_named(new_host, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "opentelemetry"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "hostkit._exporters._otel", raising=False)
    with pytest.raises(hostkit.ConfigError, match=r"pip install 'hostkit\[otel\]'"):
        new_host(config={"exporters": {"otel": {}}})
