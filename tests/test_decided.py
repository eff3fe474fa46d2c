from __future__ import annotations

import itertools
import sys

import pytest

from hostkit import ConfigError, Manifest, PluginConfig, SandboxUnavailable
from hostkit._decided import decide

RANKS = ["none", "auto", "process"]
WORDS = [None, *RANKS]


@pytest.mark.parametrize(("floor", "wish", "asked"), list(itertools.product(WORDS, WORDS, WORDS)))
def test_nobody_gets_less_isolation_than_the_operator_demands(floor, wish, asked):
    manifest, config = Manifest(isolation=wish), PluginConfig(isolation=floor)
    if asked is not None and floor is not None and RANKS.index(asked) < RANKS.index(floor):
        with pytest.raises(ConfigError, match=f"isolation '{asked}' is below what the operator demands, which is '{floor}'"):
            decide("calc", manifest, config, asked)
        return
    decided = decide("calc", manifest, config, asked)
    # The application's word replaces the manifest's wish; the larger of it and the floor holds.
    word = max(floor or "none", asked or wish or "none", key=RANKS.index)
    assert decided.isolation == ("none" if word == "auto" else word)
    assert decided.auto == (word == "auto")


def test_who_may_be_moved_goes_where_the_limits_are_held_if_the_operator_demands_that():
    limited = Manifest.model_validate({"isolation": "auto", "resources": {"max_open_files": 64}})
    assert decide("calc", limited, PluginConfig(), None).isolation == "none"
    assert decide("calc", limited, PluginConfig(require_enforcement=True), None).isolation == "process"


def test_a_plugin_that_was_moved_runs_in_a_worker_whatever_was_wished():
    for word in RANKS:
        decided = decide("calc", Manifest(isolation=word), PluginConfig(), None, moved="it was slow")
        assert (decided.isolation, decided.auto) == ("process", False)


@pytest.mark.parametrize("transport", ["inprocess", "subprocess"])
def test_the_other_spelling_of_a_wish_counts_as_much(transport):
    expected = {"inprocess": "none", "subprocess": "process"}[transport]
    assert decide("calc", Manifest(transport=transport), PluginConfig(), None).isolation == expected


@pytest.mark.parametrize("asked", ["", "thread", "PROCESS", "venv", True, 1, ["process"], b"process"])
def test_an_unknown_word_is_an_error_and_never_off(asked):
    with pytest.raises(ConfigError, match=r"plugin 'calc': isolation .* is unknown; expected one of none, auto, process"):
        decide("calc", Manifest(), PluginConfig(), asked)


LIMITS = {
    "max_memory_mb": ("memory_bytes", 64, 128, 1 << 20),
    "max_cpu_cores": ("cpu_cores", 1, 2, 1),
    "max_cpu_seconds": ("cpu_seconds", 1.5, 3.0, 1),
    "max_open_files": ("open_files", 64, 128, 1),
    "max_processes": ("processes", 1, 2, 1),
    "max_threads": ("threads", 40, 80, 1),
    "max_temporary_mb": ("temporary_bytes", 4, 8, 1 << 20),
}


@pytest.mark.parametrize("name", LIMITS)
def test_the_smaller_of_two_limits_holds(name):
    kept, small, large, unit = LIMITS[name]
    for wish, cap in itertools.product([None, small, large], repeat=2):
        manifest = Manifest.model_validate({"resources": {} if wish is None else {name: wish}})
        config = PluginConfig.model_validate({"resources": {} if cap is None else {name: cap}})
        limits = decide("calc", manifest, config, "process").settings.limits
        expected = min((value for value in (wish, cap) if value is not None), default=None)
        assert limits == ({} if expected is None else {kept: expected * unit})


def test_a_limit_of_one_side_holds_beside_another_of_the_other():
    manifest = Manifest.model_validate({"resources": {"max_memory_mb": 64}})
    config = PluginConfig.model_validate({"resources": {"max_open_files": 100}})
    assert decide("calc", manifest, config, "process").settings.limits == {"memory_bytes": 64 << 20, "open_files": 100}


@pytest.mark.parametrize("side", ["manifest", "operator"])
def test_limits_that_nothing_holds_in_process_are_named(side):
    data = {"resources": {"max_memory_mb": 64, "max_cpu_seconds": 2.0}}
    manifest = Manifest.model_validate(data if side == "manifest" else {})
    config = PluginConfig.model_validate(data if side == "operator" else {})
    assert decide("calc", manifest, config, "none").unheld == ("max_memory_mb", "max_cpu_seconds")
    assert decide("calc", manifest, config, "process").unheld == ()
    assert decide("calc", Manifest(), PluginConfig(), "none").unheld == ()


@pytest.mark.parametrize(
    ("limited", "isolation", "demanded"), list(itertools.product([False, True], ["none", "process"], [False, True]))
)
def test_require_enforcement_refuses_limits_that_nothing_holds_and_nothing_else(limited, isolation, demanded):
    manifest = Manifest.model_validate({"resources": {"max_memory_mb": 64}} if limited else {})
    config = PluginConfig(require_enforcement=demanded)
    if limited and demanded and isolation == "none":
        with pytest.raises(
            SandboxUnavailable,
            match=r"plugin 'calc' asks for what nothing can hold in-process \(max_memory_mb\).*require_enforcement",
        ):
            decide("calc", manifest, config, isolation)
    else:
        assert decide("calc", manifest, config, isolation).isolation == isolation


@pytest.mark.parametrize(
    ("missing", "limit", "words"),
    [
        (("sys.platform", "darwin"), {"max_memory_mb": 64}, "RLIMIT_DATA holds on Linux only"),
        (("sys.platform", "darwin"), {"max_processes": 2}, "processes are counted on Linux only"),
        (("os.access", lambda path, mode: False), {"max_processes": 2}, "/proc is not mounted"),
        (("os.sched_setaffinity", None), {"max_cpu_cores": 1}, "no CPU affinity on this system"),
        (("importlib.util.find_spec", lambda name: None), {"max_open_files": 64}, "no setrlimit on this system"),
    ],
)
def test_a_limit_that_this_system_cannot_enforce_refuses_the_load(monkeypatch, missing, limit, words):
    what, value = missing
    if value is None:
        monkeypatch.delattr(what)
    else:
        monkeypatch.setattr(what, value)
    manifest = Manifest.model_validate({"resources": limit})
    with pytest.raises(SandboxUnavailable, match=words):
        decide("calc", manifest, PluginConfig(), "process")
    assert decide("calc", manifest, PluginConfig(), "none").unheld == tuple(limit)


@pytest.mark.parametrize(("wish", "word", "workers"), [(None, None, 1), (3, None, 3), (None, 2, 2), (3, 2, 2), (2, 3, 3)])
def test_the_operator_s_number_of_workers_goes_before_the_manifest_s(wish, word, workers):
    settings = decide(
        "calc", Manifest(workers=wish, concurrency=wish), PluginConfig(workers=word, concurrency=word), "process"
    ).settings
    assert settings.workers == workers
    assert settings.concurrency == (word or wish)


def test_every_time_and_size_of_the_configuration_arrives():
    config = PluginConfig.model_validate(
        {
            "timeout": 8, "start_timeout": "1s", "close_timeout": "2s", "cancel_grace": "3s", "heartbeat": {"interval": "4s", "misses": 5},
            "restarts": {"budget": 6, "window": "7s"}, "max_message_mb": 8, "env": ["A", "B"],
        }
    )  # fmt: skip
    settings = decide("calc", Manifest(), config, "process").settings
    assert (settings.start_timeout, settings.close_timeout, settings.cancel_grace) == (1, 2, 3)
    assert (settings.heartbeat, settings.heartbeat_misses, settings.restarts, settings.restart_window) == (4, 5, 6, 7)
    assert (settings.max_message, settings.environment) == (8 << 20, ("A", "B"))


SOURCE = "import os\nclass P:\n    def execute(self, ctx, request):\n        return os.getpid()\n"


@pytest.mark.parametrize(("floor", "wish", "asked"), list(itertools.product(WORDS, WORDS, WORDS)))
def test_a_plugin_runs_where_was_decided(install_demo, new_host, floor, wish, asked):
    import os

    install_demo("calc", SOURCE, manifest="" if wish is None else f'isolation = "{wish}"')
    host = new_host("demo", config={} if floor is None else {"plugins": {"calc": {"isolation": floor}}})
    if asked is not None and floor is not None and RANKS.index(asked) < RANKS.index(floor):
        with pytest.raises(ConfigError, match="below what the operator demands"):
            host.load("calc", isolation=asked)
        return
    host.load("calc", isolation=asked)
    isolated = "process" in (floor, asked if asked is not None else wish)
    assert (host.execute("calc", None) != os.getpid()) is isolated
    assert host.info("calc").metadata["hostkit"]["isolation"] == ("process" if isolated else "none")


def test_unheld_limits_are_told_in_the_log_and_by_info(install_demo, new_host, log):
    install_demo("calc", SOURCE, manifest="resources.max_memory_mb = 64")
    host = new_host("demo")
    host.load("calc")
    warnings = [record for record in log if record["level"] == "WARNING" and record["plugin"] == "calc"]
    assert ["max_memory_mb" in record["text"] for record in warnings] == [True]
    assert "max_memory_mb" in host.info("calc").metadata["hostkit"]["warning"]


def test_require_enforcement_refuses_the_load_and_a_process_loads(install_demo, new_host):
    install_demo("calc", SOURCE, manifest="resources.max_open_files = 64")
    host = new_host("demo", config={"defaults": {"require_enforcement": True}})
    with pytest.raises(SandboxUnavailable, match="max_open_files"):
        host.load("calc")
    host.load("calc", isolation="process")
    assert isinstance(host.execute("calc", None), int)


def test_every_limit_is_told_with_what_holds_it(install_demo, new_host):
    limits = {name: small for name, (_, small, _, _) in LIMITS.items()}
    lines = "".join(f"{name} = {value}\n" for name, value in limits.items())
    install_demo("calc", SOURCE, manifest=f"[resources]\n{lines}")
    host = new_host("demo", config={"defaults": {"sandbox": "standard"}})
    host.load("calc", isolation="process")
    held = host.info("calc").metadata["hostkit"]["held_by"]
    assert held.keys() == LIMITS.keys()
    assert held["max_memory_mb"].startswith("RLIMIT_DATA, watchdog")
    assert all("watchdog" in holders for holders in held.values())
    host.reload("calc", isolation="none")
    assert host.info("calc").metadata["hostkit"]["held_by"] == {}


def test_a_cgroup_is_named_only_where_one_is_delegated(monkeypatch, tmp_path):
    manifest = Manifest.model_validate({"resources": {"max_memory_mb": 64, "max_processes": 4, "max_open_files": 64}})
    assert "cgroup" not in str(decide("calc", manifest, PluginConfig(), "process").held)
    monkeypatch.setattr("hostkit._decided.delegated", lambda: tmp_path)
    decided = decide("calc", manifest, PluginConfig(), "process")
    assert decided.settings.cgroup == tmp_path
    assert [name for name, holders in decided.held.items() if "cgroup" in holders] == ["max_memory_mb", "max_processes"]
    assert decide("calc", Manifest(), PluginConfig(), "process").settings.cgroup is None


def test_recycling_arrives_and_is_told_where_nothing_recycles():
    config = PluginConfig.model_validate({"recycle": {"max_calls": 5, "max_age": "2h", "max_memory_mb": 100}})
    recycle = decide("calc", Manifest(), config, "process").settings.recycle
    assert (recycle.calls, recycle.age, recycle.memory_bytes) == (5, 7200.0, 100 << 20)
    assert decide("calc", Manifest(), PluginConfig(), "process").settings.recycle is None
    unheld = decide("calc", Manifest(), config, "none").unheld
    assert unheld == ("recycle.max_age", "recycle.max_calls", "recycle.max_memory_mb")


def test_linux_enforces_every_limit():
    if sys.platform == "linux":
        manifest = Manifest.model_validate({"resources": {name: small for name, (_, small, _, _) in LIMITS.items()}})
        assert set(decide("calc", manifest, PluginConfig(), "process").settings.limits) == {kept for kept, *_ in LIMITS.values()}
