from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest
from flaky_plugin import FlakyConfig
from leaky_plugin import LeakyConfig
from opshost import CONFIG, Load, Stream, Tally, configured

import hostkit
from hostkit.testing import isolations


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No test reads the index of whoever runs it, or listens where hosts listen."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.fixture
def config():
    return {}


@pytest.fixture
def host(config):
    with hostkit.Host("opshost", config={"plugins": config}) as host:
        yield host


KEY = "a-key-of-the-tests"


@pytest.mark.parametrize("config", [{"flaky": {"config": {"good_seconds": 0, "failure_rate": 1, "failing_seconds": 0}}}])
@pytest.mark.parametrize("isolation", isolations())
def test_flaky_fails_in_its_bad_phase_until_its_circuit_opens(host, isolation):
    host.load("flaky", isolation=isolation)
    for _ in range(5):
        with pytest.raises(hostkit.PluginFailed, match="gave no rate of EUR"):
            host.execute("flaky", {"currency": "EUR"})
    with pytest.raises(hostkit.CircuitOpen):
        host.execute("flaky", {"currency": "EUR"})
    assert host.health("flaky").status is hostkit.Status.DEGRADED


def test_flaky_is_good_for_a_while_and_then_bad_and_then_good_again():
    phases = FlakyConfig(good_seconds=20, bad_seconds=10)
    assert [phases.is_bad(age) for age in (0, 19, 20, 29, 30, 49, 50)] == [False, False, True, True, False, False, True]
    assert not FlakyConfig(good_seconds=0, bad_seconds=0).is_bad(1)


@pytest.mark.parametrize("config", [{"flaky": {"config": {"bad_seconds": 0}}}])
def test_flaky_knows_its_rates_in_its_good_phase(host):
    assert host.execute("flaky", {"currency": "EUR"}) == {"rate": 1.0}


@pytest.mark.parametrize("config", [{"slow": {"config": {"median_seconds": 0, "hang_rate": 1, "hang_seconds": 30}}}])
def test_slow_is_ended_by_its_time_limit(host):
    with pytest.raises(hostkit.CallTimeout):
        host.execute("slow", {"subject": "stock"}, timeout=0.2)


@pytest.mark.parametrize("config", [{"slow": {"config": {"median_seconds": 0.001, "hang_rate": 0}}}])
def test_slow_says_how_long_it_took(host):
    assert host.execute("slow", {"subject": "stock"})["seconds"] < 0.1


@pytest.mark.parametrize("config", [{"leaky": {"config": {"leak_kib": 16 << 10}}}])
def test_leaky_grows_until_its_limit_and_gets_a_new_worker(host):
    with pytest.raises(hostkit.MemoryExceeded):
        for _ in range(10):
            assert host.execute("leaky", {"text": "three little words"}) == {"words": 3}
    assert host.execute("leaky", {"text": "again"}) == {"words": 1}


def test_a_leak_is_never_negative():
    with pytest.raises(ValueError, match="leak_kib"):
        LeakyConfig(leak_kib=-1)


@pytest.mark.parametrize("config", [{"signer": {"config": {"api_key": KEY}}}])
@pytest.mark.parametrize("isolation", isolations())
def test_signer_signs_alike_everywhere_and_its_key_is_nowhere_to_be_seen(host, isolation):
    host.load("signer", isolation=isolation)
    assert host.execute("signer", {"text": "a"})["signature"].startswith("v1=4241bb1820eb89e2")
    assert KEY not in repr(host.info("signer")) + repr(host.health("signer"))


@pytest.mark.parametrize("config", [{"signer": {"config": {"api_key": "short"}}}])
@pytest.mark.parametrize("isolation", isolations())
def test_a_key_that_is_refused_is_not_quoted(host, isolation):
    with pytest.raises(hostkit.PluginLoadError, match="api_key") as caught:
        host.load("signer", isolation=isolation)
    assert "short" not in str(caught.value).replace("too short", "")


def test_every_call_of_the_load_is_counted_by_its_outcome(host):
    host.load("calculator", isolation="none")
    good = Stream("calculator", 2000, lambda _: {"operation": "add", "a": 1, "b": 2})
    bad = Stream("calculator", 2000, lambda _: {"operation": "divide", "a": 1, "b": 0}, tasks=True)
    with Load(host, (good, bad)) as load:
        for _ in range(1000):
            if load.tally.begun >= 50:
                break
            threading.Event().wait(0.01)
    outcomes = load.tally.outcomes()["calculator"]
    assert outcomes["ok"] > 0
    assert outcomes["PluginFailed"] + outcomes.get("CircuitOpen", 0) > 0
    assert sum(outcomes.values()) == load.tally.begun
    assert load.tally.lost == 0


def test_only_exporters_that_are_installed_are_asked_for(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", {"prometheus_client": object()}.get)
    assert configured(CONFIG, metrics="127.0.0.1:1234")["exporters"].keys() == {"loguru", "prometheus"}


def test_a_call_that_has_not_ended_is_lost():
    tally = Tally()
    tally.begin("calculator")
    tally.begin("calculator")
    tally.end("calculator", "ok")
    assert (tally.begun, tally.lost) == (2, 1)


def test_it_runs_until_it_is_told_to_end_and_says_how_every_call_ended(tmp_path):
    command = [sys.executable, "-m", "opshost", "--metrics", "127.0.0.1:0", "--log", str(tmp_path / "log.jsonl")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert f"opshost runs as process {process.pid}" in process.stdout.readline()
        threading.Event().wait(0.5)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert "none lost" in said
    for name in ("calculator", "flaky", "leaky", "signer", "slow"):
        assert f"  {name} " in said
    assert "not-a-real-key" not in (tmp_path / "log.jsonl").read_text()
