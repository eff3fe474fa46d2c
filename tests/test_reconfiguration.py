"""A changed configuration is applied to a host that runs: as a difference, under traffic, and only if it is valid."""

from __future__ import annotations

import json
import os
import queue
import threading

import pytest

import hostkit

WHERE = """
    import os

    class P:
        def __init__(self, config: dict):
            self.config = config

        def execute(self, ctx, request):
            return {"pid": os.getpid(), "config": self.config, "timeout": ctx.timeout}
"""


@pytest.fixture
def file(tmp_path):
    """A configuration file, written in one step: ``file({...})``."""
    path = tmp_path / "hostkit.json"

    def write(data):
        partial = tmp_path / "partial"
        partial.write_text(data if isinstance(data, str) else json.dumps(data))
        os.replace(partial, path)
        return path

    write({})
    return write


@pytest.fixture
def configured(install, new_host, file):
    """A host whose configuration is ``file``, with the plugins p and q."""
    install("p", WHERE)
    install("q", WHERE)
    return new_host(config=file({}))


def place(host, name="p"):
    return "none" if host.execute(name, None)["pid"] == os.getpid() else "process"


def test_another_place_is_a_move(configured, file):
    assert place(configured) == "none"
    file({"plugins": {"p": {"isolation": "process"}}})
    assert configured.reload_config() == ("p: isolation none → process",)
    assert place(configured) == "process"
    assert place(configured, "q") == "none"
    file({})
    assert configured.reload_config() == ("p: isolation process → none",)
    assert place(configured) == "none"
    assert configured.reload_config() == ()


def test_another_time_limit_holds_at_once_and_nothing_is_started_for_it(configured, file, isolation):
    configured.load("p", isolation=isolation)
    before = configured.execute("p", None)
    file({"defaults": {"timeout": "7s"}})
    configured.reload_config()
    assert configured.execute("p", None) == {**before, "timeout": 7.0}


@pytest.mark.parametrize("key", ["rate", "bulkhead", "breaker", "retry", "health", "auto"])
def test_another_policy_starts_nothing_anew(configured, file, key):
    configured.load("p", isolation="process")
    pid = configured.execute("p", None)["pid"]
    table = {"rate": {"per_second": 1, "burst": 1}, "bulkhead": {"calls": 1}, "auto": {"openings": 2}}
    file({"plugins": {"p": {key: table.get(key, {"attempts": 3} if key == "retry" else {"failures": 9})}}})
    (said,) = configured.reload_config()
    assert said.startswith(f"p: {key} ")
    assert configured.execute("p", None)["pid"] == pid


def test_a_rate_that_is_set_while_it_runs_holds(configured, file):
    configured.execute("p", None)
    file({"plugins": {"p": {"rate": {"per_second": 0.001, "burst": 1}}}})
    configured.reload_config()
    configured.execute("p", None)
    with pytest.raises(hostkit.RateLimited):
        configured.execute("p", None)
    file({"plugins": {"p": {"rate": False}}})
    configured.reload_config()
    for _ in range(3):
        configured.execute("p", None)


@pytest.mark.parametrize(("key", "value"), [("workers", 2), ("config", {"precision": 4}), ("resources", {"max_open_files": 64})])
def test_what_a_plugin_is_started_with_starts_it_anew(configured, file, key, value):
    configured.load("p", isolation="process")
    before = configured.execute("p", None)
    file({"plugins": {"p": {key: value}}})
    configured.reload_config()
    after = configured.execute("p", None)
    assert after["pid"] != before["pid"]
    assert after["config"] == (value if key == "config" else {})


def test_the_secrets_of_a_plugins_own_table_are_not_told(configured, file, log):
    configured.load("p")
    file({"plugins": {"p": {"config": {"password": "hunter2"}}}})
    assert configured.reload_config() == ("p: config",)
    assert not any("hunter2" in record["text"] for record in log)


def test_a_disabled_plugin_is_unloaded_and_an_enabled_one_loaded_again(configured, file):
    events = []
    configured.subscribe(events.append)
    configured.load("p")
    file({"plugins": {"p": {"enabled": False}, "q": {"enabled": False}}})
    configured.reload_config()
    assert [type(event) for event in events[:2]] == [hostkit.PluginLoaded, hostkit.PluginUnloaded]
    with pytest.raises(hostkit.PluginNotFound, match="disabled"):
        configured.execute("p", None)
    del events[:]
    file({})
    configured.reload_config()
    assert [(type(event), event.plugin) for event in events[:1]] == [(hostkit.PluginLoaded, "p")]
    assert place(configured) == "none"
    assert place(configured, "q") == "none"


@pytest.mark.parametrize(
    ("filters", "why"),
    [
        ({"discovery": {"exclude": ["p"]}}, "[discovery] exclude has 'p'"),
        (
            {"discovery": {"allowed_isolation": ["process"]}, "plugins": {"q": {"isolation": "process"}}},
            "it would run with isolation 'none', and [discovery] allowed_isolation has 'process'",
        ),
    ],
)
def test_a_plugin_that_is_kept_out_is_unloaded_and_one_that_is_let_in_again_is_loaded(configured, file, isolation, filters, why):
    configured.load("p", isolation=isolation)
    configured.load("q", isolation="process")
    file(filters)
    changes = configured.reload_config()
    assert changes[:2] == ("discovery", f"p: kept out: {why}")
    assert "p" not in configured.specs
    assert list(configured.health()) == ["q"]
    with pytest.raises(hostkit.PluginNotFound) as caught:
        configured.execute("p", None)
    assert str(caught.value) == f"plugin 'p' is installed, and the configuration keeps it out: {why}"
    assert configured.reload_config() == ()
    file({})
    assert "p: let in" in configured.reload_config()
    assert list(configured.health()) == ["q", "p"]
    assert (configured.execute("p", None)["pid"] == os.getpid()) is (isolation == "none")
    assert configured.reload_config() == ()


def test_what_the_application_registered_is_not_kept_out_by_a_change(configured, file):
    class P:
        def execute(self, ctx, request):
            return "registered"

    configured.register(P, name="own")
    file({"discovery": {"exclude": ["*"]}})
    assert configured.reload_config() == ("discovery",)
    assert configured.execute("own", None) == "registered"


def test_a_plugin_that_is_called_for_the_first_time_after_the_change_follows_it(configured, file):
    handle = configured.plugin("p")
    file({"plugins": {"p": {"isolation": "process", "config": {"a": 1}}}})
    configured.reload_config()
    answer = handle.execute(None)
    assert (answer["pid"] != os.getpid(), answer["config"]) == (True, {"a": 1})


def test_the_operators_new_floor_goes_before_the_applications_old_word(configured, file):
    configured.load("p", isolation="none")
    file({"defaults": {"isolation": "process"}})
    configured.reload_config()
    assert place(configured) == "process"


def test_other_search_paths_are_looked_at(configured, file, tmp_path):
    found = tmp_path / "more" / "found"
    found.mkdir(parents=True)
    (found / "plugin.json").write_text('{"name": "found", "entry_point": "found_code:P", "isolation": "process"}')
    (found / "found_code.py").write_text("class P:\n    def execute(self, ctx, request):\n        return 1\n")
    assert "found" not in configured.specs
    file({"discovery": {"paths": ["more"]}})
    assert configured.reload_config() == ("discovery",)
    assert configured.execute("found", None) == 1


def test_another_template_is_forked_from(configured, file):
    file({"plugins": {"p": {"start": "template", "isolation": "process"}}})
    configured.reload_config()
    before = configured.execute("p", None)["pid"]
    file({"plugins": {"p": {"start": "template", "isolation": "process"}}, "template": {"preload": ["json"]}})
    assert configured.reload_config() == ("template",)
    assert configured.execute("p", None)["pid"] == before
    configured.reload("p")
    assert configured.execute("p", None)["pid"] != before


INVALID = [
    ('{"plugins": {"p": {"isolation": "pro', "hostkit.json"),
    ('{"plugins": {"p": {"isolation": "proces"}, "q": {"timeout": 7}}}', "plugins.p.isolation"),
    ('{"plugins": {"q": {"timeout": 7}, "p": {"breaker": "off"}}}', "plugins.p.breaker"),
    ("", "hostkit.json"),
]


@pytest.mark.parametrize(("text", "words"), INVALID)
def test_an_invalid_file_changes_nothing(configured, file, text, words):
    before = configured.execute("p", None)
    file(text)
    with pytest.raises(hostkit.ConfigError, match=words):
        configured.reload_config()
    assert configured.execute("p", None) == before
    assert configured.execute("q", None)["timeout"] == 30.0


def test_a_plugin_whose_change_cannot_be_applied_keeps_what_it_had_and_the_rest_is_applied(configured, file, install, site):
    package = install("p", WHERE)
    configured.execute("p", None)
    (site / package / "__init__.py").write_text("raise ImportError('broken meanwhile')")
    file({"plugins": {"p": {"isolation": "process", "timeout": 5}, "q": {"timeout": 7}}})
    with pytest.raises(hostkit.ConfigError, match=r"'p' keeps what it had .*broken meanwhile"):
        configured.reload_config()
    assert place(configured) == "none"
    assert configured.execute("p", None)["timeout"] == 30.0
    assert configured.execute("q", None)["timeout"] == 7.0
    install("p", WHERE)
    assert configured.reload_config() == ("p: isolation none → process, timeout 30 → 5",)
    assert place(configured) == "process"


@pytest.mark.parametrize("config", [None, {}, hostkit.HostConfig()])
def test_a_configuration_without_a_file_cannot_be_read_again(new_host, config):
    host = new_host(config=config)
    for again in (host.reload_config, host.watch_config):
        with pytest.raises(hostkit.ConfigError, match="did not come from a file"):
            again()


@pytest.fixture
def told(configured):
    """The next news of a configuration: ``told()``."""
    news: queue.SimpleQueue[hostkit.Event] = queue.SimpleQueue()

    def note(event):
        if isinstance(event, (hostkit.ConfigApplied, hostkit.ConfigRefused)):
            news.put(event)

    configured.subscribe(note)
    return lambda: news.get(timeout=30)


def test_a_watched_file_is_applied_under_traffic_and_a_broken_one_is_told_once(configured, file, told, log):
    configured.watch_config()
    configured.watch_config()
    over = threading.Event()
    failed = []
    counts = [0] * 4

    def call(caller):
        try:
            while not over.is_set():
                assert configured.execute("p", caller, timeout=60)["pid"]
                counts[caller] += 1
                over.wait(0.001)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=call, args=(caller,)) for caller in range(4)]
    for thread in threads:
        thread.start()
    try:
        path = file({"plugins": {"p": {"isolation": "process"}}})
        assert told().changes == ("p: isolation none → process",)
        assert place(configured) == "process"
        path.write_text('{"plugins": {"p": {"isol')  # not in one step
        refused = told()
        assert (type(refused), refused.file) == (hostkit.ConfigRefused, str(path))
        assert "what held before still holds" in str(refused)
        path.touch()
        os.utime(path, (1, 1))
        assert place(configured) == "process"
        file({"plugins": {"p": {"workers": 2}}})
        assert told().changes == ("p: isolation process → none, workers none → 2",)
        assert place(configured) == "none"
        path.unlink()
        assert "No such file" in told().why
        file({"plugins": {"p": {"timeout": 9}}})
        assert told().changes == ("p: timeout 30 → 9, workers 2 → none",)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert failed == []
    assert min(counts) > 0
    assert sum("what held before still holds" in record["text"] for record in log) == 2


@pytest.mark.parametrize("there", ["a pipe", "a directory", "a gigabyte"])
def test_what_is_no_configuration_at_all_is_told_and_holds_nobody_up(configured, file, told, there):
    configured.execute("p", None)
    path = file({})
    configured.watch_config()
    path.unlink()
    assert "No such file" in told().why
    if there == "a gigabyte":
        with path.open("wb") as out:
            out.truncate(1 << 30)
    else:
        (os.mkfifo if there == "a pipe" else os.mkdir)(path)
    assert isinstance(told(), hostkit.ConfigRefused)
    assert place(configured) == "none"
    path.rmdir() if there == "a directory" else path.unlink()
    assert "No such file" in told().why


def test_a_file_that_the_system_does_not_watch_is_looked_at(configured, file, told, monkeypatch, log):
    def refuse(*_, **__):
        raise OSError("OS file watch limit reached")
        yield

    monkeypatch.setattr("watchfiles.watch", refuse)
    configured.load("p")
    configured.watch_config()
    for seconds in (7, 8):
        file({"plugins": {"p": {"timeout": seconds}}})
        assert f"→ {seconds}" in told().changes[0]
    assert sum("OS file watch limit reached" in record["text"] for record in log) == 1


def test_what_was_changed_before_the_watch_began_is_applied_too(configured, file, told):
    configured.load("p")
    file({"plugins": {"p": {"isolation": "process"}}})
    configured.watch_config()
    assert told().changes == ("p: isolation none → process",)


def test_a_file_behind_a_link_is_watched_too(install, new_host, tmp_path):
    install("p", WHERE)
    for number in (1, 2):
        version = tmp_path / f"version{number}"
        version.mkdir()
        (version / "hostkit.toml").write_text(f"[plugins.p.config]\nversion = {number}\n")
    current = tmp_path / "current"
    current.symlink_to("version1")
    (tmp_path / "hostkit.toml").symlink_to("current/hostkit.toml")
    host = new_host(config=tmp_path / "hostkit.toml")
    applied = threading.Event()
    host.subscribe(lambda event: isinstance(event, hostkit.ConfigApplied) and applied.set())
    assert host.execute("p", None)["config"] == {"version": 1}
    host.watch_config()
    (tmp_path / "next").symlink_to("version2")
    os.replace(tmp_path / "next", current)
    assert applied.wait(30)
    assert host.execute("p", None)["config"] == {"version": 2}


def test_a_host_may_be_closed_by_whoever_hears_of_a_change(configured, file):
    closed = threading.Event()

    def close(event):
        if isinstance(event, hostkit.ConfigApplied):
            configured.close()
            closed.set()

    configured.subscribe(close)
    configured.load("p")
    configured.watch_config()
    file({"plugins": {"p": {"timeout": 9}}})
    assert closed.wait(30)


def test_development_stays_patient_when_its_file_changes(install, site, file):
    install("p", WHERE)
    with hostkit.Host.development(config=file({})) as host:
        assert host.execute("p", None)["timeout"] == 600.0
        file({"plugins": {"p": {"config": {"a": 1}}}})
        host.reload_config()
        assert host.execute("p", None) == {"pid": os.getpid(), "config": {"a": 1}, "timeout": 600.0}
