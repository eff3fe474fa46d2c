"""What a host's plugins are confined to: decided by the operator, told by ``info``, felt by the plugin, and never less than was asked."""

from __future__ import annotations

import json
import os
import sys

import pytest

import hostkit
from hostkit._worker import _sandbox_landlock

SANDBOX = "standard"
PLUGIN = """
import os, subprocess, threading

def read(path):
    with open(path) as file:
        return file.read()

def write(path):
    with open(path, "w") as file:
        file.write("written")
    return "written"

def environment(path):
    return dict(os.environ)

def run(path):
    return subprocess.run([path], capture_output=True, text=True, check=True).stdout

def fork(path):
    child = os.fork()
    if not child:
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def foreign_call(path):
    import ctypes
    return ctypes.CDLL(None).syscall(0x40000000 + 39)

def fill(path):
    path = os.path.join(os.environ["TMPDIR"], "deep")
    os.mkdir(path)
    for number in range(64):
        with open(os.path.join(path, str(number)), "wb") as file:
            file.write(bytes(1 << 20))
    threading.Event().wait(20)

def threads(path):
    for _ in range(200):
        threading.Thread(target=threading.Event().wait, args=(20,), daemon=True).start()
    threading.Event().wait(20)

def there(path):
    return os.path.exists(path)

class P:
    def execute(self, ctx, request):
        act, path = request
        return globals()[act](path)
"""


@pytest.fixture(params=["standard", "strict"])
def level(request):
    return request.param


@pytest.fixture
def load(install, new_host, level):
    """Load the plugin: ``load(asked, allowed)``; returns a call of one of its functions."""

    def loaded(asked=None, allowed=None, *, isolation="process", **table):
        install("p", PLUGIN, manifest=json.dumps({"permissions": asked or {}}), manifest_name="plugin.json")
        table = {"sandbox": level, "permissions": allowed or {}, "breaker": False, **table}
        host = new_host(config={"plugins": {"p": table}})
        try:
            host.load("p", isolation=isolation)
        except hostkit.SandboxUnavailable as missing:
            if level == "strict":
                pytest.skip(f"this machine doesn't reach the level: {missing}")
            raise
        return host, lambda act, path="": host.execute("p", [act, str(path)])

    return loaded


def refused(call, *arguments):
    with pytest.raises(hostkit.PluginFailed) as caught:
        call(*arguments)
    return caught.value.remote_type


def test_an_isolated_plugin_is_confined_unless_the_operator_says_otherwise(install, new_host, tmp_path):
    install("p", PLUGIN)
    (tmp_path / "secret").write_text("secret")
    host = new_host()
    host.load("p", isolation="process")
    assert host.info("p").metadata["hostkit"]["sandbox"] == "standard"
    assert refused(lambda: host.execute("p", ["read", str(tmp_path / "secret")])) == "PermissionError"
    open_host = new_host(config={"defaults": {"sandbox": "off"}})
    open_host.load("p", isolation="process")
    assert open_host.info("p").metadata["hostkit"]["sandbox"] == "off"
    assert open_host.execute("p", ["read", str(tmp_path / "secret")]) == "secret"


def test_an_error_that_comes_of_the_sandbox_says_what_changes_it(load):
    _, call = load()
    with pytest.raises(hostkit.PluginFailed, match="its sandbox may have denied that: hostkit info p --static shows"):
        call("fork")


def test_a_file_that_was_granted_is_read_and_the_one_beside_it_is_not(load, tmp_path):
    place = tmp_path / "data"
    place.mkdir()
    place.chmod(0o755)
    for name in ("mine", "other"):
        (place / name).write_text(name)
    _, call = load({"read": [str(place / "mine")]}, {"read": [str(place)]})
    assert call("read", place / "mine") == "mine"
    assert refused(call, "read", place / "other") in ("PermissionError", "FileNotFoundError")
    assert refused(call, "write", place / "mine") in ("PermissionError", "OSError")


def test_a_place_that_was_granted_is_written_and_the_one_beside_it_is_not(load, tmp_path):
    for name in ("out", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o777)
    _, call = load({"write": [str(tmp_path / "out")]}, {"write": [str(tmp_path / "out")]})
    call("write", tmp_path / "out" / "file")
    assert (tmp_path / "out" / "file").read_text() == "written"
    assert refused(call, "write", tmp_path / "other" / "file") in ("PermissionError", "FileNotFoundError")


def test_a_wish_is_no_grant(load, tmp_path):
    (tmp_path / "file").write_text("secret")
    host, call = load({"read": ["/"], "write": ["/"], "subprocess": True, "network": True, "env": ["SECRET"]})
    assert refused(call, "read", tmp_path / "file") in ("PermissionError", "FileNotFoundError")
    assert refused(call, "run", "/bin/true") in ("PermissionError", "BlockingIOError")
    told = host.info("p").metadata["hostkit"]
    assert told["granted"] == {}
    assert told["not_granted"] == ["network everything", "read /", "write /", "subprocess", "env SECRET"]


def test_programs_are_started_only_where_that_was_granted_and_are_confined_as_well(load, tmp_path):
    (tmp_path / "secret").write_text("secret")
    _, call = load({"subprocess": True}, {"subprocess": True})
    assert call("fork") == 0
    assert call("run", "/bin/pwd")
    _, call = load()
    assert refused(call, "fork") == "PermissionError"


def test_a_variable_is_seen_only_where_it_was_granted(load, monkeypatch):
    monkeypatch.setenv("GRANTED", "1")
    monkeypatch.setenv("SECRET", "1")
    _, call = load({"env": ["GRANTED", "SECRET"]}, {"env": ["GRANTED"]})
    seen = call("environment")
    assert seen["GRANTED"] == "1"
    assert "SECRET" not in seen
    assert seen["HOME"] == seen["TMPDIR"] != os.environ["HOME"]


def test_a_call_of_a_foreign_kind_is_fatal_and_says_where(load):
    _, call = load()
    if os.uname().machine != "x86_64":
        pytest.skip("there is one kind of calls only")
    with pytest.raises(hostkit.SandboxViolation, match="SIGSYS") as caught:
        call("foreign_call")
    assert "in foreign_call" in caught.value.fault_dump
    assert call("environment")


def test_the_temporary_directory_has_its_limit(load, level):
    _, call = load(resources={"max_temporary_mb": 16})
    with pytest.raises(hostkit.CallError) as caught:
        call("fill")
    if level == "strict":
        assert (caught.value.remote_type, "No space left" in str(caught.value)) == ("OSError", True)
    else:
        assert type(caught.value) is hostkit.SandboxViolation
        assert "more than the 16 MB that are allowed (max_temporary_mb)" in str(caught.value)
    assert call("environment")


def test_threads_have_their_limit(load, level):
    _, call = load(resources={"max_threads": 60})
    with pytest.raises(hostkit.CallError) as caught:
        call("threads")
    if level == "strict":
        assert (caught.value.remote_type, "new thread" in str(caught.value)) == ("RuntimeError", True)
    else:
        assert type(caught.value) is hostkit.ProcessesExceeded
        assert "60 are allowed (max_threads)" in str(caught.value)
    assert call("environment")


def test_a_directory_of_its_own_is_needed_to_bound_it(install, new_host):
    install("p", PLUGIN)
    host = new_host(config={"defaults": {"sandbox": "off", "resources": {"max_temporary_mb": 16}}})
    with pytest.raises(hostkit.SandboxUnavailable, match="no temporary directory of its own"):
        host.load("p", isolation="process")


def test_what_is_not_there_refuses_the_load_and_leaves_nothing(install, new_host, level, tmp_path):
    install("p", PLUGIN, manifest=json.dumps({"permissions": {"write": [str(tmp_path)]}}), manifest_name="plugin.json")
    gone = tmp_path / "gone"
    table = {"sandbox": level, "permissions": {"write": [str(gone)]}}
    host = new_host(config={"plugins": {"p": table}})
    with pytest.raises(hostkit.SandboxUnavailable, match=f"plugin 'p' can't be loaded: .*{gone}"):
        host.load("p", isolation="process")
    gone.mkdir()
    gone.chmod(0o777)
    host.load("p", isolation="process")


def test_on_a_system_without_a_sandbox_one_that_is_asked_for_is_refused(install, new_host, monkeypatch):
    install("p", PLUGIN)
    monkeypatch.setattr(sys, "platform", "darwin")
    host = new_host(config={"defaults": {"sandbox": "standard"}})
    with pytest.raises(hostkit.SandboxUnavailable, match="there is a sandbox on Linux only"):
        host.load("p", isolation="process")


def test_in_process_nothing_is_confined_and_it_is_said(load, log):
    host, _ = load({"read": ["/data"]}, {"read": ["/data"]}, isolation="none")
    assert "permissions, sandbox" in host.info("p").metadata["hostkit"]["warning"]
    assert any("nothing can hold its limits (permissions, sandbox)" in row["text"] for row in log)


@pytest.mark.parametrize(("isolation", "sandbox"), [("none", "standard"), ("process", "off")])
def test_an_operator_who_demands_enforcement_gets_no_plugin_that_nothing_holds(install, new_host, isolation, sandbox):
    install("p", PLUGIN, manifest='permissions = { read = ["/data"] }')
    host = new_host(config={"defaults": {"require_enforcement": True, "sandbox": sandbox}})
    with pytest.raises(hostkit.SandboxUnavailable, match="require_enforcement"):
        host.load("p", isolation=isolation)


def test_workers_from_the_template_are_confined_as_well(load, tmp_path):
    (tmp_path / "secret").write_text("secret")
    _, call = load(start="template")
    assert refused(call, "read", tmp_path / "secret") in ("PermissionError", "FileNotFoundError")


def test_the_sandbox_of_a_loaded_plugin_changes_with_the_configuration(install, new_host, tmp_path):
    install("p", PLUGIN)
    file = tmp_path / "hostkit.toml"
    file.write_text('[defaults]\nisolation = "process"\nsandbox = "off"\n')
    host = new_host(config=file)
    assert host.execute("p", ["read", str(file)])
    file.write_text('[defaults]\nisolation = "process"\nsandbox = "standard"\n')
    host.reload_config()
    assert refused(lambda: host.execute("p", ["read", str(file)])) == "PermissionError"


def test_what_a_worker_may_not_read_is_not_even_there_at_strict(load, level):
    _, call = load()
    assert refused(call, "read", "/etc/passwd") == ("PermissionError" if level == "standard" else "FileNotFoundError")
    assert call("there", "/etc/passwd") is (level == "standard")


def test_landlock_is_asked_for_every_right_that_its_version_knows():
    assert [_sandbox_landlock._rights(version).bit_count() for version in (1, 2, 3, 4, 5)] == [13, 14, 15, 15, 16]


def test_a_plugin_directory_is_its_plugins_own_and_nobody_elses(new_host, tmp_path, level):
    place = tmp_path / "plugins"
    for name in ("one", "two"):
        (place / name).mkdir(parents=True)
        (place / name / f"module_{name}.py").write_text(PLUGIN)
        (place / name / "plugin.toml").write_text(f'name = "{name}"\nentry_point = "module_{name}:P"\n')
    for each in (place, place / "one", place / "two"):
        each.chmod(0o755)
    host = new_host(config={"discovery": {"paths": [str(place)]}, "defaults": {"sandbox": level}})
    host.load("one", isolation="process")
    assert "class P" in host.execute("one", ["read", str(place / "one" / "module_one.py")])
    with pytest.raises(hostkit.PluginFailed) as caught:
        host.execute("one", ["read", str(place / "two" / "module_two.py")])
    assert caught.value.remote_type in ("PermissionError", "FileNotFoundError")
