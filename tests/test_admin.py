"""The admin socket: what a program of the same user can ask of a running host."""

import json
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import hostkit
from hostkit import _admin_socket
from hostkit._attach import Attached, NotRunning, Refused, found

FLAKY = """
class P:
    def execute(self, ctx, request):
        ctx.logger.info("asked for %s", request)
        if request == "fail":
            raise ValueError("no\\x1b[31m red \\n<b>bold</b>")
        return request
"""


@pytest.fixture(autouse=True)
def _runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.fixture
def watched(install: Callable[..., str], new_host: Callable[..., hostkit.Host]) -> hostkit.Host:
    """A host that can be asked, with a plugin that fails on demand."""
    install("flaky", FLAKY)
    return new_host(admin=True)


@pytest.fixture
def ask(watched: hostkit.Host) -> Any:
    (running,) = found()
    with Attached(running.path) as attached:
        yield attached.ask


def plugin(ask: Any, name: str = "flaky") -> dict[str, Any]:
    (row,) = [row for row in ask("snapshot")["plugins"] if row["name"] == name]
    return row


def test_a_host_is_found_by_its_process_and_application(watched: hostkit.Host) -> None:
    (running,) = found()
    assert (running.pid, running.app) == (os.getpid(), "hostkit")
    assert running.path == watched.admin
    assert stat.S_IMODE(running.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(running.path.parent.stat().st_mode) == 0o700
    watched.close()
    assert found() == []
    assert list(running.path.parent.iterdir()) == []


def test_two_hosts_of_one_process_are_told_apart(watched: hostkit.Host, new_host: Callable[..., hostkit.Host]) -> None:
    other = new_host("hostkit.two", admin=True)
    same = new_host(admin=True)
    hosts = found()
    assert sorted(host.app for host in hosts) == ["hostkit", "hostkit", "hostkit.two"]
    for host in hosts:
        with Attached(host.path) as attached:
            assert attached.ask("snapshot")["app"] == host.app
    same.close()
    other.close()
    assert len(found()) == 1


def test_the_snapshot_has_what_calls_did(watched: hostkit.Host, ask: Any, isolation: str) -> None:
    watched.load("flaky", isolation=isolation)
    for request in ("a", "b", "fail"):
        try:
            watched.execute("flaky", request)
        except hostkit.PluginFailed:
            pass
    row = plugin(ask)
    assert row["isolation"] == isolation
    assert row["state"] == "loaded"
    assert row["calls"]["outcomes"] == {"ok": 2, "PluginFailed": 1}
    assert sum(row["calls"]["buckets"]) == 3
    assert 0.0 < row["calls"]["seconds"] < 60.0
    assert len(row["workers"]) == (isolation == "process")
    assert (row["memory"] is not None) is (isolation == "process")


def test_errors_log_and_events_can_be_looked_back_at(watched: hostkit.Host, ask: Any, isolation: str, until: Any) -> None:
    watched.load("flaky", isolation=isolation)
    with pytest.raises(hostkit.PluginFailed):
        watched.execute("flaky", "fail", request_id="r1")
    (error,) = ask("plugin", name="flaky")["errors"]
    assert error["type"] == "PluginFailed"
    assert error["request_id"] == "r1"
    assert "ValueError: no\\x1b[31m red" in error["remote_traceback"]
    assert "\x1b" not in json.dumps(error)
    line = until(lambda: [line for line in ask("log", name="flaky")["entries"] if "asked for fail" in line["text"]])[0]
    assert (line["level"], line["request_id"]) == ("INFO", "r1")
    assert [event["type"] for event in ask("events")["entries"]] == ["PluginLoaded"]


def test_refusals_do_not_push_out_what_the_plugin_raised(watched: hostkit.Host, ask: Any) -> None:
    """An open circuit refuses thousands a second."""
    for _ in range(200):
        with pytest.raises((hostkit.PluginFailed, hostkit.CircuitOpen)):
            watched.execute("flaky", "fail")
    errors = ask("plugin", name="flaky")["errors"]
    assert [(error["type"], error["times"]) for error in errors] == [("PluginFailed", 1)] * 5 + [("CircuitOpen", 195)]


def test_a_limit_has_the_name_by_which_it_says_what_holds_it(
    new_host: Callable[..., hostkit.Host], install: Callable[..., str]
) -> None:
    install("bounded", FLAKY)
    config = {"plugins": {"bounded": {"resources": {"max_memory_mb": 256, "max_open_files": 64}}}}
    host = new_host(admin=True, config=config)
    host.load("bounded", isolation="process")
    with Attached(found()[0].path) as attached:
        runs = attached.ask("plugin", name="bounded")["runs"]
    assert runs["limits"] == {"max_memory_mb": 256, "max_open_files": 64}
    assert runs["held_by"].keys() == runs["limits"].keys()


def test_only_what_is_new_is_told_again(watched: hostkit.Host, ask: Any) -> None:
    watched.load("flaky")
    first = ask("events")
    assert ask("events", after=first["next"])["entries"] == []
    watched.unload("flaky")
    again = ask("events", after=first["next"])
    assert ([event["type"] for event in again["entries"]], again["dropped"]) == (["PluginUnloaded"], 0)


def test_an_operator_moves_drains_and_restarts_a_plugin(watched: hostkit.Host, ask: Any) -> None:
    watched.load("flaky")
    assert ask("isolate", name="flaky", place="process", within=30.0) == "flaky runs with isolation process now"
    assert watched.execute("flaky", 1) == 1
    assert plugin(ask)["isolation"] == "process"
    with pytest.raises(Refused, match="expected timeout as int or float"):
        ask("drain", name="flaky", timeout="soon")
    ask("drain", name="flaky", timeout=1)
    assert plugin(ask)["state"] == "draining"
    with pytest.raises(hostkit.Draining):
        watched.execute("flaky", 1)
    ask("resume", name="flaky")
    assert watched.execute("flaky", 1) == 1
    pids = {worker["pid"] for worker in plugin(ask)["workers"]}
    ask("restart", name="flaky")
    assert pids.isdisjoint({worker["pid"] for worker in plugin(ask)["workers"]})


def test_what_is_not_loaded_cannot_be_drained(watched: hostkit.Host, ask: Any) -> None:
    with pytest.raises(Refused, match="is not loaded"):
        ask("drain", name="flaky")


def test_restarts_are_counted_and_their_cpu_seconds_stay(watched: hostkit.Host, ask: Any, until: Any) -> None:
    watched.load("flaky", isolation="process")
    (worker,) = plugin(ask)["workers"]
    os.kill(worker["pid"], 9)
    until(lambda: [each for each in plugin(ask)["workers"] if each["pid"] != worker["pid"] and each["state"] == "serving"])
    row = plugin(ask)
    assert row["restarts"] == 1
    assert row["cpu"] >= worker["cpu"]
    types = [event["type"] for event in ask("events")["entries"]]
    assert types == ["PluginLoaded", "WorkerEnded", "WorkerStarted"]
    text = ask("events")["entries"][1]["text"]
    assert text == "plugin 'flaky' lost a worker: its worker was killed from outside by SIGKILL"


@pytest.mark.parametrize(
    ("verb", "arguments", "kind"),
    [
        ("nothing", {}, "BadRequest"),
        ("plugin", {}, "BadRequest"),
        ("plugin", {"name": 1}, "BadRequest"),
        ("plugin", {"name": "x", "more": 1}, "BadRequest"),
        ("plugin", {"name": "missing"}, "PluginNotFound"),
        ("isolate", {"name": "flaky", "place": "moon"}, "BadRequest"),
    ],
)
def test_a_wrong_question_gets_an_answer(ask: Any, verb: str, arguments: dict[str, Any], kind: str) -> None:
    with pytest.raises(Refused) as refused:
        ask(verb, **arguments)
    assert refused.value.kind == kind
    assert ask("snapshot")["app"] == "hostkit"


def raw(path: Path, *lines: bytes) -> list[Any]:
    """Send these lines and return what comes back, until the other side hangs up or has answered each."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10.0)
        client.connect(str(path))
        answers = []
        with client.makefile("rb") as answered:
            for line in lines:
                try:
                    with suppress(BrokenPipeError):  # it may have said why before it hung up
                        client.sendall(line)
                    answer = answered.readline()
                except ConnectionResetError:
                    break
                if not answer:
                    break
                answers.append(json.loads(answer))
        return answers


def hello(path: Path) -> bytes:
    return json.dumps({"key": _admin_socket.key_of(path).read_text()}).encode() + b"\n"


def test_who_does_not_know_the_key_is_refused(watched: hostkit.Host) -> None:
    """Being of the same user is not enough, because a confined plugin is that, too."""
    (running,) = found()
    for line in (b"{}\n", b'{"key": "x"}\n', b'{"key": 1}\n', b"snapshot\n", b'{"key": "\\ud800"}\n'):
        (answer,) = raw(running.path, line, b'{"verb": "snapshot"}\n')
        assert answer["error"]["type"] == "Refused"


def test_malformed_and_oversize_requests_cost_nobody_anything(watched: hostkit.Host, ask: Any) -> None:
    (running,) = found()
    deep = b"[" * 60_000 + b"\n"
    _, *answers = raw(running.path, hello(running.path), b"nonsense\n", b"[]\n", deep, b'{"verb": 7}\n', b"\xff\xfe\n")
    assert [answer["error"]["type"] for answer in answers] == ["BadRequest"] * 5
    _, last = raw(running.path, hello(running.path), b"x" * 200_000, b"x")
    assert "at most 65536 bytes" in last["error"]["message"]
    assert ask("snapshot")["app"] == "hostkit"


def test_another_user_is_refused(watched: hostkit.Host, monkeypatch: pytest.MonkeyPatch, log: list[dict[str, Any]]) -> None:
    monkeypatch.setattr(_admin_socket, "_peer", lambda client: (4711, os.geteuid() + 1))
    (running,) = found()
    with pytest.raises(Refused, match=f"you are uid {os.geteuid() + 1}"):
        Attached(running.path).ask("snapshot")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_another_user_is_refused_where_the_file_lets_it_through() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as place:  # noqa: S108 - others can't enter the test's own
        path = Path(place, "s")
        with hostkit.Host(admin=path):
            for open_to_all, mode in ((Path(place), 0o755), (path, 0o666), (_admin_socket.key_of(path), 0o644)):
                open_to_all.chmod(mode)
            ours, theirs = os.pipe()
            child = os.fork()
            if child == 0:
                try:
                    os.setresuid(65534, 65534, 65534)
                    os.write(theirs, json.dumps(raw(path, hello(path), b'{"verb": "snapshot"}\n')).encode())
                finally:
                    os._exit(0)
            os.close(theirs)
            os.waitpid(child, 0)
            with open(ours) as told:
                (answer,) = json.load(told)
    assert answer["error"] == {"type": "Refused", "message": "only uid 0 may ask this host, and you are uid 65534"}


def test_clients_that_never_read_or_write_take_no_more_than_their_places(watched: hostkit.Host, ask: Any) -> None:
    (running,) = found()
    silent = []
    try:
        for _ in range(40):
            client = socket.socket(socket.AF_UNIX)
            client.connect(str(running.path))
            silent.append(client)
        assert sum(thread.name == "hostkit-admin-client" for thread in threading.enumerate()) <= 32
        assert watched.execute("flaky", 1) == 1
    finally:
        for client in silent:
            client.close()
    watched.close()


INTRUDER = """
import socket
def tried(act):
    try:
        return act()
    except OSError as error:
        return type(error).__name__
class P:
    def execute(self, ctx, path):
        return [tried(lambda: open(path + ".key").read()), tried(lambda: socket.socket(socket.AF_UNIX).connect(path))]
"""


def test_a_confined_plugin_with_the_network_does_not_get_in(
    install: Callable[..., str], new_host: Callable[..., hostkit.Host]
) -> None:
    """It has neither Unix sockets nor the key."""
    install("intruder", INTRUDER, manifest="[permissions]\nnetwork = true\n")
    settings = {"isolation": "process", "sandbox": "standard", "permissions": {"network": True}}
    host = new_host(admin=True, config={"plugins": {"intruder": settings}})
    (running,) = found()
    assert host.execute("intruder", str(running.path)) == ["PermissionError", "PermissionError"]


def test_a_host_that_has_ended_is_told(watched: hostkit.Host) -> None:
    (running,) = found()
    with Attached(running.path) as attached:
        attached.ask("snapshot")
        watched.close()
        with pytest.raises(NotRunning):
            attached.ask("snapshot")


def test_a_path_that_is_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(hostkit.ConfigError, match="is no socket"):
        hostkit.Host(admin=file)
    with pytest.raises(hostkit.ConfigError, match="at most 107 bytes"):
        hostkit.Host(admin=tmp_path / ("x" * 120))
    with hostkit.Host(admin=tmp_path / "s"), pytest.raises(hostkit.ConfigError, match="in use"):
        hostkit.Host(admin=tmp_path / "s")
    open_to_all = tmp_path / "hostkit"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    with pytest.raises(hostkit.ConfigError, match="mode 0700"):
        hostkit.Host(admin=True)


def test_what_a_killed_host_left_behind_is_no_obstacle(tmp_path: Path) -> None:
    place = tmp_path / "hostkit"
    place.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place / "4194305-hostkit.sock"))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "mine"))
    with hostkit.Host(admin=True), hostkit.Host(admin=tmp_path / "mine"):
        assert [host.pid for host in found()] == [os.getpid()]
    assert list(place.iterdir()) == []
