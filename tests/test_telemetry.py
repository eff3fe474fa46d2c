"""Calls seen from outside, and who is told of them."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

import hostkit
from hostkit import _exporters
from hostkit._config import HostConfig, LoguruConfig
from hostkit._errors import Busy, WorkerCrashed
from hostkit._events import Event
from hostkit._meter import Meter
from hostkit._observing import Call, Observed, outcome_of

PLUGIN = """
import time
class P:
    def execute(self, ctx, request):
        if request == "fail":
            raise ValueError("no")
        return request
"""
STREAM = """
class P:
    def execute(self, ctx, request):
        for number in range(request):
            yield number
        if request == 3:
            raise ValueError("no")
"""


class Spy:
    """An exporter that keeps what it is told, or does what it is told instead."""

    wants_calls = True

    def __init__(self) -> None:
        self.began_with: list[Call] = []
        self.calls: list[Call] = []
        self.events: list[Event] = []
        self.do: Callable[[], object] = lambda: None
        self.at_once: Callable[[], object] = lambda: None
        self.closed = 0

    def began(self, call: Call) -> None:
        self.began_with.append(call)
        self.at_once()

    def ended(self, call: Call) -> None:
        self.at_once()

    def call(self, call: Call) -> None:
        self.do()
        self.calls.append(call)

    def event(self, event: Event) -> None:
        self.do()
        self.events.append(event)

    def close(self, timeout: float) -> None:
        self.closed += 1


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spy]:
    """Stands in for the exporter to loguru."""
    made = Spy()
    monkeypatch.setitem(_exporters.EXPORTERS, "loguru", lambda config, source: made)
    yield made


@pytest.fixture
def told(install: Callable[..., str], new_host: Callable[..., hostkit.Host], spy: Spy, isolation: str) -> hostkit.Host:
    install("plugin", PLUGIN)
    install("stream", STREAM)
    defaults = {"isolation": isolation, "breaker": False}
    return new_host(config={"exporters": {"loguru": {}}, "defaults": defaults})


def test_every_shape_of_call_is_told_once(told: hostkit.Host, spy: Spy, until: Any) -> None:
    async def calls() -> None:
        await told.aexecute("plugin", 1)
        with pytest.raises(hostkit.PluginFailed):
            await told.aexecute("plugin", "fail")
        assert [item async for item in told.astream("stream", 2)] == [0, 1]

    told.execute("plugin", 1, request_id="mine")
    with pytest.raises(hostkit.PluginFailed):
        told.execute("plugin", "fail")
    told.submit("plugin", 1).result(10.0)
    assert list(told.stream("stream", 2)) == [0, 1]
    with pytest.raises(hostkit.PluginFailed):
        list(told.stream("stream", 3))
    left = told.stream("stream", 2)
    next(left)
    left.close()  # the caller had enough
    asyncio.run(calls())
    until(lambda: len(spy.calls) == 9)
    expected = [
        ("execute", "ok"),
        ("execute", "PluginFailed"),
        ("execute", "ok"),
        ("stream", "ok"),
        ("stream", "PluginFailed"),
        ("stream", "ok"),
        ("execute", "ok"),
        ("execute", "PluginFailed"),
        ("stream", "ok"),
    ]
    assert [(call.verb, call.outcome) for call in spy.calls] == expected
    assert spy.began_with == spy.calls
    assert spy.calls[0].context.request_id == "mine"
    failure = spy.calls[1].failure
    assert failure is not None
    assert (failure.remote_type, "ValueError: no" in failure.remote_traceback) == ("ValueError", True)
    assert all(call.seconds > 0.0 for call in spy.calls)


def test_events_are_told(told: hostkit.Host, spy: Spy, until: Any) -> None:
    told.load("plugin")
    told.unload("plugin")
    until(lambda: [type(event).__name__ for event in spy.events] == ["PluginLoaded", "PluginUnloaded"])


@pytest.mark.parametrize("fault", ["raises", "hangs", "raises at once"])
def test_an_exporter_that_fails_costs_calls_nothing(
    told: hostkit.Host, spy: Spy, fault: str, until: Any, log: list[dict[str, Any]]
) -> None:
    go_on = threading.Event()

    def fail() -> None:
        raise OSError(28, "No space left on device")

    spy.do = {"raises": fail, "hangs": lambda: go_on.wait(60.0)}.get(fault, lambda: None)
    spy.at_once = fail if fault == "raises at once" else lambda: None
    try:
        for number in range(50):
            assert told.execute("plugin", number, timeout=10.0) == number
        (delivery,) = told._loader.telemetry.deliveries
        if fault == "raises":
            until(lambda: delivery.state()["dropped"] == 51)
            assert "No space left" in delivery.state()["trouble"]
        if fault == "raises at once":
            until(lambda: [line for line in log if "the exporter 'loguru' raised OSError" in line["text"]])
        told.close(5.0)
    finally:
        go_on.set()
    assert spy.closed == 1


def test_a_host_that_nobody_watches_calls_its_records_themselves(host: hostkit.Host, install: Callable[..., str]) -> None:
    install("plugin", PLUGIN)
    host.load("plugin")
    record = host._loader.record("plugin")
    assert record.front is record
    assert not host._loader.telemetry.on


def test_exporters_come_and_go_with_the_configuration(
    install: Callable[..., str], new_host: Callable[..., hostkit.Host], spy: Spy, until: Any
) -> None:
    install("plugin", PLUGIN)
    host = new_host(config={})
    host.execute("plugin", 1)
    telemetry, record = host._loader.telemetry, host._loader.record("plugin")
    on = HostConfig.model_validate({"exporters": {"loguru": {}}}).exporters
    telemetry.configure(on)
    host.execute("plugin", 2)
    until(lambda: len(spy.calls) == 1)
    telemetry.configure(on)
    assert spy.closed == 0
    telemetry.configure(HostConfig().exporters)
    assert spy.closed == 1
    host.execute("plugin", 3)
    assert record.front is record
    assert len(spy.calls) == 1


def test_an_exporter_that_cannot_be_had_leaves_the_others_as_they_were(
    new_host: Callable[..., hostkit.Host], spy: Spy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(config: LoguruConfig, source: object) -> Any:
        raise hostkit.ConfigError("exporters.loguru: it is not installed")

    monkeypatch.setitem(_exporters.EXPORTERS, "loguru", refuse)
    with pytest.raises(hostkit.ConfigError, match="not installed"):
        new_host(config={"exporters": {"loguru": {}}})
    host = new_host(config={})
    with pytest.raises(hostkit.ConfigError):
        host._loader.telemetry.configure(HostConfig.model_validate({"exporters": {"loguru": {}}}).exporters)
    assert not host._loader.telemetry.on


def test_outcomes_are_few_whatever_is_raised() -> None:
    class Mine(hostkit.PluginFailed):
        pass

    words = {
        outcome_of(error)
        for error in (
            Busy(""),
            WorkerCrashed(""),
            Mine(""),
            KeyboardInterrupt(),
            asyncio.CancelledError(),
            ValueError(),
            SystemExit(),
        )
    }
    assert words == {"Busy", "WorkerCrashed", "PluginFailed", "Interrupted", "Other"}


def test_hooks_are_told(install: Callable[..., str], new_host: Callable[..., hostkit.Host], spy: Spy, until: Any) -> None:
    class Specs:
        @hostkit.hookspec
        def greet(self, name: str) -> str: ...

    install(
        "greeter", "import hostkit\nclass P:\n    @hostkit.hookimpl\n    def greet(self, name: str) -> str:\n        return name\n"
    )
    host = new_host(hookspecs=[Specs], config={"exporters": {"loguru": {}}})
    host.load("greeter")
    assert host.hook.greet(name="you") == ["you"]
    until(lambda: [(call.verb, call.outcome) for call in spy.calls] == [("hook", "ok")])


class Answering:
    """A record whose calls fail if they are asked to."""

    name, isolation = "calc", "none"

    def call(self, context: Any, request: object, shape: Any) -> Any:
        if request == "fail":
            raise ValueError("no")
        return request


def test_some_are_told_of_calls_that_failed_only_and_the_meter_of_all() -> None:
    told: list[Call] = []
    record: Any = Answering()
    front, nothing = Observed(record, Meter(), [], [told.append]), cast("Any", None)
    before = time.time()
    assert front.call(nothing, "fine", nothing) == "fine"
    with pytest.raises(ValueError, match="no"):
        front.call(nothing, "fail", nothing)
    (call,) = told
    assert (call.outcome, call.verb, call.isolation) == ("Other", "execute", "none")
    assert before <= call.at <= time.time()
    assert 0.0 < call.seconds < 10.0
    assert front.meter.reading().outcomes == {"ok": 1, "Other": 1}
