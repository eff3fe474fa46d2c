from __future__ import annotations

import pytest
from calculator_plugin import Calculator, CalculatorConfig, CalculatorRequest, CalculatorResponse

import hostkit
from hostkit.testing import isolations


@pytest.fixture
def config():
    return {}


@pytest.fixture
def host(config):
    with hostkit.Host(config=config) as host:
        yield host


@pytest.fixture(params=isolations())
def isolated(request, host):
    host.load("calculator", isolation=request.param)
    return request.param


@pytest.mark.parametrize(("operation", "result"), [("add", 8.0), ("subtract", 2.0), ("multiply", 15.0), ("divide", 5 / 3)])
def test_each_operation_gives_its_result(host, isolated, operation, result):
    assert host.execute("calculator", {"operation": operation, "a": 5, "b": 3}) == {"result": result}


def test_a_typed_caller_gets_a_typed_answer(host, isolated):
    calculator = host.plugin("calculator", CalculatorRequest, CalculatorResponse)
    answer = calculator.execute(CalculatorRequest(operation="add", a=2, b=3))
    assert isinstance(answer, CalculatorResponse)
    assert answer.result == 5.0


def test_division_by_zero_is_the_plugins_own_error(host, isolated):
    with pytest.raises(hostkit.PluginFailed, match="cannot divide by zero") as caught:
        host.execute("calculator", {"operation": "divide", "a": 5, "b": 0})
    assert caught.value.remote_type == "ZeroDivisionError"
    assert 'raise ZeroDivisionError("cannot divide by zero")' in caught.value.remote_traceback


def test_an_unknown_operation_never_reaches_the_plugin(host, isolated):
    with pytest.raises(hostkit.InvalidRequest, match="'add', 'subtract', 'multiply' or 'divide'"):
        host.execute("calculator", {"operation": "power", "a": 5, "b": 0})


def test_a_result_too_large_for_a_float_is_an_invalid_response(host, isolated):
    with pytest.raises((hostkit.InvalidResponse, hostkit.PluginFailed)):
        host.execute("calculator", {"operation": "multiply", "a": 1e308, "b": 10})


def test_health_says_how_many_requests_were_served(host, isolated):
    host.execute("calculator", {"operation": "add", "a": 2, "b": 3})
    status = host.health("calculator")
    assert status.status is hostkit.Status.HEALTHY
    assert status.message == "Calculator plugin is operational"
    assert status.metadata == {"operations": 4, "requests_served": 1}


def test_info_comes_from_the_manifest(host, isolated):
    info = host.info("calculator")
    assert (info.name, info.version, info.author) == ("calculator", "1.0.0", "your-team@company.com")
    assert "arithmetic" in info.capabilities
    assert info.metadata["precision"] == "float64"


@pytest.mark.parametrize("config", [{"plugins": {"calculator": {"config": {"precision": 2}}}}])
def test_the_operator_sets_the_precision(host, isolated):
    assert host.execute("calculator", {"operation": "divide", "a": 1, "b": 3}) == {"result": 0.33}


@pytest.mark.parametrize("config", [{"plugins": {"calculator": {"config": {"precison": 2}}}}])
def test_a_mistyped_setting_refuses_the_load_and_says_what_was_meant(host):
    with pytest.raises(hostkit.PluginLoadError, match="did you mean 'precision'") as caught:
        host.load("calculator")
    assert caught.value.kind == "config"


def test_its_manifest_asks_for_a_worker_with_limits(host):
    host.load("calculator")
    assert host.info("calculator").metadata["hostkit"] == {
        "isolation": "process",
        "limits": {"memory_bytes": 256 << 20, "cpu_cores": 1},
        "held_by": {"max_memory_mb": "RLIMIT_DATA, watchdog", "max_cpu_cores": "affinity, watchdog"},
        "sandbox": "standard",
        "granted": {},
        "not_granted": [],
    }


def test_in_process_info_says_that_nothing_holds_its_limits(host):
    host.load("calculator", isolation="none")
    assert "isolate it" in host.info("calculator").metadata["hostkit"]["warning"]


def test_the_plugin_works_without_a_host():
    calculator = Calculator(CalculatorConfig())
    context = hostkit.ExecutionContext(request_id="test", timeout=30)
    assert calculator.execute(context, CalculatorRequest(operation="add", a=5, b=3)).result == 8.0
