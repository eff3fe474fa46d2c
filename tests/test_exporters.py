"""What the log has of calls and events: records with everything bound to them, for sinks that serialize."""

import asyncio
import json
import threading
import time

import pytest
from loguru import logger

from hostkit import BreakerChanged, CallTimeout, ConfigError, ExecutionContext, HostTampered, PluginFailed
from hostkit._config import LoguruConfig
from hostkit._contract import Trace
from hostkit._events import Events, PluginLoaded
from hostkit._exporters._loguru import Loguru
from hostkit._observing import Call

SOURCE = """
class P:
    def execute(self, ctx, request):
        if "raises" in request:
            raise ValueError(request["raises"])
        if "waits" in request:
            while not ctx.cancelled:
                pass
        if "dies" in request:
            import os
            os._exit(3)
        return request

class Streaming:
    def execute(self, ctx, request):
        yield from request["items"]
"""


@pytest.fixture
def telling(install, new_host, log):
    """Make a host whose calls are in the log, and have those records once they are written."""
    install("calc", SOURCE)

    def make(settings=None, **table):
        return new_host(config={"exporters": {"loguru": table}, **(settings or {})})

    return make


def written(host, log):
    for delivery in host._loader.telemetry.deliveries:
        assert delivery._outlet.flush(10.0)
    return [record for record in log if "outcome" in record]


def test_each_call_is_one_record_with_what_is_known_of_it(telling, isolation, log):
    host = telling()
    host.load("calc", isolation=isolation)
    host.execute("calc", {"a": 1}, request_id="r-1")
    (record,) = written(host, log)
    assert record["text"].startswith("execute of plugin 'calc' answered in ")
    assert record["level"] == "DEBUG"
    assert 0.0 < record.pop("seconds") < 10.0
    assert record.pop("at") > 1_700_000_000
    assert {key: record[key] for key in record if key not in ("text", "level")} == {
        "plugin": "calc",
        "request_id": "r-1",
        "app": "hostkit",
        "verb": "execute",
        "outcome": "ok",
        "isolation": isolation,
        "attempt": 1,
    }


def test_a_call_that_fails_says_with_what(telling, isolation, log):
    host = telling()
    host.load("calc", isolation=isolation)
    with pytest.raises(PluginFailed):
        host.execute("calc", {"raises": "no \x1b[31m\nINFO | forged"}, request_id="r-2")
    (record,) = written(host, log)
    assert (record["level"], record["outcome"], record["error"]) == ("WARNING", "PluginFailed", "PluginFailed")
    assert (record["remote_type"], record["phase"], record["request_id"]) == ("ValueError", "execute", "r-2")
    assert "no \\x1b[31m\\x0aINFO | forged" in record["why"]
    assert "\x1b" not in record["text"]


def test_a_failure_is_one_line_of_the_log_and_not_two(telling, log):
    host = telling()
    with pytest.raises(PluginFailed):
        host.execute("calc", {"raises": "no"}, request_id="r-3")
    written(host, log)
    (record,) = [record for record in log if record["request_id"] == "r-3"]
    assert (record["text"], record["outcome"]) == ("PluginFailed: plugin 'calc' raised ValueError: no", "PluginFailed")


def test_the_level_says_who_is_to_blame(telling, log):
    host = telling(
        {"plugins": {"calc": {"rate": {"per_second": 0.001, "burst": 2}}}},
        levels={"ok": "INFO", "refused": "TRACE", "failed": "SUCCESS", "lost": "CRITICAL"},
    )
    host.load("calc", isolation="process")
    for request in ({}, {"dies": True}, {}):
        try:
            host.execute("calc", request)
        except Exception:
            pass
    assert [(record["outcome"], record["level"]) for record in written(host, log)] == [
        ("ok", "INFO"),
        ("WorkerExited", "CRITICAL"),
        ("RateLimited", "TRACE"),
    ]


def test_only_failed_calls_are_told_where_that_is_asked_for(telling, log):
    host = telling(calls="failed")
    host.execute("calc", {})
    with pytest.raises(CallTimeout):
        host.execute("calc", {}, timeout=0)
    assert [record["outcome"] for record in written(host, log)] == ["CallTimeout"]
    (delivery,) = host._loader.telemetry.deliveries
    assert delivery.state()["sent"] == 2  # with the event that it was loaded: the call that was answered was never queued


def test_streams_tasks_and_submitted_calls_are_told_alike(telling, install, log):
    install("items", SOURCE, attribute="Streaming")
    host = telling()
    assert list(host.stream("items", {"items": [1, 2]})) == [1, 2]
    assert host.submit("calc", {}).result(10) == {}
    assert asyncio.run(host.aexecute("calc", {})) == {}
    assert [(record["plugin"], record["verb"], record["outcome"]) for record in written(host, log)] == [
        ("items", "stream", "ok"),
        ("calc", "execute", "ok"),
        ("calc", "execute", "ok"),
    ]


def test_a_call_that_is_traced_has_its_trace_in_the_log(log):
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    source = type("Source", (), {"app": "demo", "snapshot": dict})()
    for parent in (f"00-{trace}-{span}-01", "forged\n"):
        context = ExecutionContext("r-5")
        context._trace = Trace({"traceparent": parent})
        Loguru(LoguruConfig(), source).call(Call("calc", context, "hook", "none", "render"))
    traced, other = log
    assert (traced["trace_id"], traced["span_id"], traced["hook"]) == (trace, span, "render")
    assert "trace_id" not in other


def test_a_sink_that_is_stuck_costs_calls_nothing(telling, log):
    host = telling()
    host.load("calc", isolation="none")
    reached, free = threading.Event(), threading.Event()

    def stuck(message):
        reached.set()
        free.wait(20)

    handler = logger.add(stuck, filter=lambda record: "outcome" in record["extra"])
    try:
        host.execute("calc", {})
        assert reached.wait(5)
        began = time.monotonic()
        for _ in range(100):
            host.execute("calc", {})
            with pytest.raises(PluginFailed):
                host.execute("calc", {"raises": "no"})
        assert time.monotonic() - began < 2.0
    finally:
        free.set()
        logger.remove(handler)
    assert len(written(host, log)) == 201


def test_a_sink_that_serializes_gets_plain_data(telling, capsys):
    lines = []
    logger.enable("hostkit")
    sink = logger.add(lines.append, serialize=True, level=0)
    try:
        host = telling()
        with pytest.raises(PluginFailed):
            host.execute("calc", {"raises": "nö\x1b"}, request_id="r-4")
        written(host, [])
        host.close()
    finally:
        logger.remove(sink)
    records = [json.loads(line)["record"] for line in lines]
    (call,) = [record["extra"] for record in records if "outcome" in record["extra"]]
    assert call["error"] == "PluginFailed"
    assert {record["extra"]["event"] for record in records if "event" in record["extra"]} == {"PluginLoaded", "PluginUnloaded"}


def test_an_event_is_one_record_with_its_fields(log):
    events = Events()
    events.emit(BreakerChanged("calc", "closed", "open", "3 failures \x1b[31m", at=12.5))
    events.emit(HostTampered("calc", ("sys.path", "x" * 5000, "\ud800")))
    events.emit(PluginLoaded("calc", "process", {"secret": "s3cr3t"}))
    changed, tampered, loaded = log
    assert changed == {
        "text": str(BreakerChanged("calc", "closed", "open", "3 failures \x1b[31m")),
        "level": "WARNING",
        "plugin": "calc",
        "request_id": "",
        "event": "BreakerChanged",
        "before": "closed",
        "after": "open",
        "why": "3 failures \\x1b[31m",
        "at": 12.5,
    }
    assert tampered["changes"] == ["sys.path", "x" * 1000, "\\ud800"]
    assert loaded["isolation"] == "process"
    assert "s3cr3t" not in str(loaded)


@pytest.mark.parametrize("table", [{"calls": "some"}, {"levels": {"ok": "LOUD"}}, {"levels": {"good": "INFO"}}, {"file": "x"}])
def test_a_table_that_is_wrong_is_a_configuration_error(telling, table):
    with pytest.raises(ConfigError, match="exporters.loguru"):
        telling(**table)
