"""What a host writes into its audit log, and what it does when it can't."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
from contextlib import contextmanager

import pytest

import hostkit
from hostkit._audit import Audit
from hostkit._audit_chain import Verification
from hostkit._audit_file import AuditFile
from hostkit._denials import Denials
from hostkit._events import Events
from hostkit._sieve import Sieve
from hostkit._worker._failure import describe
from hostkit.testing import FakeClock

ECHO = "class P:\n    def execute(self, ctx, request):\n        return request\n"
MARKS = "import os\nopen(os.environ['MARK'], 'w').close()\n" + ECHO


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


@pytest.fixture
def audited(new_host, path):
    return new_host(config={"audit": {"file": str(path)}})


def entries(path, *kinds):
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [entry for entry in found if not kinds or entry["kind"] in kinds]


def kinds(path, plugin=None):
    return [entry["kind"] for entry in entries(path) if plugin is None or entry["plugin"] == plugin]


def is_whole(path):
    with open(path, "rb") as lines:
        return not [found for found in Verification().findings(lines) if not found.note]


@contextmanager
def small_files(size):
    """No file of this process grows beyond so many bytes: what a full disk does, with EFBIG in place of ENOSPC."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# What is written.


def test_a_life_of_a_plugin_is_written_down(install, audited, path, isolation):
    install("p", ECHO, version="1.2")
    audited.load("p", isolation=isolation)
    audited.execute("p", 1)
    audited.unload("p")
    assert kinds(path) == ["begun", "loading", "loaded", "unloaded"]
    for entry in entries(path, "loading", "loaded"):
        facts = {key: entry[key] for key in ("plugin", "isolation", "entry_point", "distribution", "version", "app", "pid")}
        assert facts == {
            "plugin": "p",
            "isolation": isolation,
            "entry_point": "p:P",
            "distribution": "p",
            "version": "1.2",
            "app": "hostkit",
            "pid": os.getpid(),
        }
    assert is_whole(path)
    assert audited.audit.head == f"{entries(path)[-1]['seq']}:{entries(path)[-1]['hash']}"


def test_a_call_writes_nothing(install, audited, path):
    install("p", ECHO)
    audited.load("p")
    before = path.read_bytes()
    for _ in range(10):
        audited.execute("p", 1)
    assert path.read_bytes() == before


def test_a_plugin_that_is_refused_is_written_down_with_the_reason(install, audited, path):
    install("bad", "raise RuntimeError('no way')\n")
    install("needy", ECHO, manifest='requirements = { required_plugins = ["bad"] }')
    with pytest.raises(hostkit.PluginLoadError):
        audited.load("bad")
    with pytest.raises(hostkit.PluginLoadError):
        audited.load("needy")
    told = [(entry["plugin"], entry["error"]) for entry in entries(path, "refused")]
    assert told == [("bad", "PluginLoadError"), ("bad", "PluginLoadError"), ("needy", "PluginLoadError")]
    assert "no way" in entries(path, "refused")[0]["why"]


def test_a_plugin_that_is_switched_off_is_refused(install, new_host, path):
    install("p", ECHO)
    host = new_host(config={"audit": {"file": str(path)}, "plugins": {"p": {"enabled": False}}})
    with pytest.raises(hostkit.PluginNotFound):
        host.load("p")
    assert [(entry["error"], "disabled" in entry["why"]) for entry in entries(path, "refused")] == [("PluginNotFound", True)]


def test_a_reload_that_fails_is_refused_and_the_one_before_stays(install, audited, path, tmp_path):
    install("p", "import os\nif os.path.exists(%r): raise RuntimeError('now')\n%s" % (str(tmp_path / "now"), ECHO))
    audited.load("p")
    (tmp_path / "now").touch()
    with pytest.raises(hostkit.PluginLoadError):
        audited.reload("p", isolation="process")
    assert audited.execute("p", 1) == 1
    assert kinds(path, "p") == ["loading", "loaded", "loading", "refused"]


def test_a_plugin_loaded_with_others_is_written_before_its_worker_starts(install, audited, path):
    for name in ("a", "b"):
        install(name, ECHO)
    assert audited.load_all("a", "b", isolation="process") == {}
    for name in ("a", "b"):
        assert kinds(path, name) == ["loading", "loaded"]


def test_another_isolation_is_written_down(install, audited, path):
    install("p", ECHO)
    audited.load("p")
    audited.reload("p", isolation="process")
    (entry,) = entries(path, "isolation")
    assert (entry["before"], entry["after"], entry["asked"]) == ("none", "process", True)


def test_what_the_application_registers_is_written_down(audited, path):
    class P:
        def execute(self, ctx, request):
            return request

    audited.register(P(), name="mine")
    assert [entry["registered"] for entry in entries(path, "loading")] == [True]


def test_refusals_without_end_are_counted_and_not_all_written(path):
    clock = FakeClock()
    events = Events()
    audit = Audit("demo", path, sieve=Sieve(20, 0.1, clock=clock))
    events.subscribe(audit.heard)
    for _ in range(1000):
        events.emit(hostkit.PluginRefused("p", "PluginLoadError", "no"))
    assert len(entries(path, "refused")) == 20
    clock.advance(10.0)
    events.emit(hostkit.PluginRefused("p", "PluginLoadError", "no"))
    assert entries(path, "refused")[-1]["left_out"] == 980
    for _ in range(5):
        events.emit(hostkit.PluginRefused("p", "PluginLoadError", "no"))
    audit.close()
    assert entries(path, "refused")[-1]["left_out"] == 5
    assert is_whole(path)


# The configuration.


def test_a_changed_configuration_is_written_down_and_a_wrong_one_too(install, new_host, path, tmp_path):
    install("p", ECHO.replace("def", "def __init__(self, config: dict):\n        pass\n    def"))
    file = tmp_path / "hostkit.json"
    file.write_text(json.dumps({"audit": {"file": "audit.jsonl"}}))
    host = new_host(config=file)
    assert host.audit.file == path  # beside the configuration
    host.load("p")
    changed = {"audit": {"file": "audit.jsonl"}, "plugins": {"p": {"isolation": "process", "config": {"key": "secret"}}}}
    file.write_text(json.dumps(changed))
    host.reload_config()
    (entry,) = entries(path, "config")
    assert entry["changes"] == ["p: isolation none → process, config"]
    assert "secret" not in path.read_text()
    file.write_text("{")
    with pytest.raises(hostkit.ConfigError):
        host.reload_config()
    host._file.changed()
    assert kinds(path)[-2:] == ["config-refused"] * 2


def test_another_file_is_an_entry_in_both(new_host, tmp_path, path):
    file, other = tmp_path / "hostkit.json", tmp_path / "other.jsonl"
    file.write_text(json.dumps({"audit": {"file": str(path)}}))
    host = new_host(config=file)
    host._loader.events.emit(hostkit.PluginUnloaded("p"))
    head = host.audit.head
    file.write_text(json.dumps({"audit": {"file": str(other)}}))
    assert host.reload_config() == (f"audit.file {path} → {other}",)
    assert (entries(path)[-1]["kind"], entries(path)[-1]["to"]) == ("audit", str(other))
    (came,) = entries(other, "audit")
    assert (came["change"], came["from"], came["head"]) == ("continued", str(path), head)
    assert kinds(other)[-1] == "config"
    file.write_text("{}")
    host.reload_config()
    assert host.audit.file is None
    assert kinds(other)[-1] == "audit"


def test_a_file_that_can_not_be_written_is_not_changed_to(new_host, tmp_path, path):
    file = tmp_path / "hostkit.json"
    file.write_text(json.dumps({"audit": {"file": str(path)}}))
    host = new_host(config=file)
    file.write_text(json.dumps({"audit": {"file": str(tmp_path)}}))
    with pytest.raises(hostkit.ConfigError, match="is a directory"):
        host.reload_config()
    assert host.audit.file == path


@pytest.mark.parametrize(("value", "there"), [("audit.jsonl", True), ("false", False)])
def test_the_environment_says_where_it_is(new_host, tmp_path, monkeypatch, value, there):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOSTKIT_AUDIT__FILE", value)
    file = tmp_path / "sub" / "hostkit.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"audit": {"file": "other.jsonl"}}))
    assert new_host(config=file).audit.file == (tmp_path / value if there else None)


# When it can't be written.


def unwritable(path, tmp_path, how):
    if how == "directory":
        path.mkdir()
    elif how == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif how == "full":
        path.write_bytes(b"")
        path.chmod(0o600)


@pytest.mark.parametrize("how", ["directory", "link"])
def test_under_enforce_nothing_is_imported_whose_entry_can_not_be_written(
    install, audited, path, tmp_path, monkeypatch, isolation, how
):
    install("p", MARKS)
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    unwritable(path, tmp_path, how)
    audited._loader.audit.enforced = lambda: True
    with pytest.raises(hostkit.IntegrityError, match="'p' is not loaded, because its entry in the audit log can't be written"):
        audited.load("p", isolation=isolation)
    assert not (tmp_path / "mark").exists()
    assert not (tmp_path / "elsewhere").exists()
    assert list(audited.load_all("p", isolation=isolation)) == ["p"]
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("enforced", [False, True])
def test_a_full_disk_denies_the_load_or_is_counted(install, audited, path, tmp_path, monkeypatch, enforced, log):
    install("p", MARKS)
    install("q", ECHO)
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    audited.load("q")
    audited._loader.audit.enforced = lambda: enforced
    before = path.read_bytes()
    with small_files(len(before) + 100):
        if enforced:
            with pytest.raises(hostkit.IntegrityError, match="File too large"):
                audited.load("p")
        else:
            audited.load("p")
            assert audited.execute("p", 1) == 1
        assert audited.execute("q", 2) == 2
        assert audited.audit.dropped == 2
        assert audited.audit.error == "File too large"
    assert (tmp_path / "mark").exists() is not enforced
    assert path.read_bytes() == before
    told = [record for record in log if "audit log" in record["text"] and record["level"] == "WARNING"]
    assert len(told) == 1
    audited.load("p") if enforced else audited.unload("p")
    (dropped,) = entries(path, "dropped")
    assert (dropped["count"], dropped["why"]) == (2, "File too large")
    assert audited.audit.error == ""
    assert is_whole(path)
    assert "2 entries were dropped" in log[-2 if enforced else -1]["text"] or any(
        "2 entries were dropped" in r["text"] for r in log
    )


def test_a_folder_that_may_not_be_written_to_denies_the_load(install, new_host, tmp_path, monkeypatch):
    install("p", ECHO)
    if os.geteuid() == 0:  # who may write anywhere, so somebody else writes
        monkeypatch.setattr(AuditFile, "append", as_somebody_else(AuditFile.append))
    place = tmp_path / "closed"
    place.mkdir(mode=0o500)
    host = new_host(config={"audit": {"file": str(place / "audit.jsonl")}})
    host._loader.audit.enforced = lambda: True
    with pytest.raises(hostkit.IntegrityError, match="Permission denied"):
        host.load("p")


def as_somebody_else(append):
    def appended(*arguments, **options):
        os.seteuid(65534)
        try:
            return append(*arguments, **options)
        finally:
            os.seteuid(0)

    return appended


def test_a_host_says_so_when_what_it_wrote_is_gone(audited, path, log):
    audited._loader.events.emit(hostkit.PluginUnloaded("p"))
    audited._loader.events.emit(hostkit.PluginUnloaded("q"))
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    audited._loader.events.emit(hostkit.PluginUnloaded("p"))
    assert [entry["why"] for entry in entries(path, "damaged")] == ["the entry that this host wrote last is gone or another one"]
    assert [record["level"] for record in log if "the entry that this host wrote last is gone" in record["text"]] == ["ERROR"]
    assert is_whole(path)  # as far as the file tells


def test_a_path_that_can_not_be_one_drops_entries_and_no_load(install, new_host):
    install("p", ECHO)
    host = new_host(config={"audit": {"file": "/tmp/x\0y"}})
    assert host.execute("p", 1) == 1
    assert "null" in host.audit.error


def test_without_an_audit_log_enforce_denies_nothing(install, host):
    install("p", ECHO)
    host._loader.audit.enforced = lambda: True
    assert host.execute("p", 1) == 1
    assert host.audit == hostkit.AuditState(None)


# What the sandbox denies.


def test_a_denied_system_call_is_found_wherever_it_stands_in_an_error():
    def raised(make):
        try:
            make()
        except BaseException as error:
            return describe(error).get("denied")
        raise AssertionError

    def cause():
        try:
            raise PermissionError(13, "no", "/secret")
        except OSError as error:
            raise ValueError("x") from error

    def context():
        try:
            raise OSError(1, "no", b"/by\xfftes")
        except OSError:
            raise ValueError("x") from None

    def group():
        raise ExceptionGroup("g", [ValueError(), ExceptionGroup("h", [PermissionError(1, "no", "/deep")])])

    def other():
        raise FileNotFoundError(2, "no", "/x")

    def plain():
        raise PermissionError("made up")

    assert raised(cause) == [{"errno": "EACCES", "path": "/secret"}]
    assert raised(context) == [{"errno": "EPERM", "path": "/by\\xfftes"}]
    assert raised(group) == [{"errno": "EPERM", "path": "/deep"}]
    assert raised(other) is None
    assert raised(plain) is None


def test_a_hostile_error_has_no_more_than_a_few_denials():
    class Liar(PermissionError):
        errno = property(lambda self: 1 / 0)
        filename = property(lambda self: 1 / 0)

        @property
        def exceptions(self):
            raise SystemExit

    error = Liar(13, "no", "x" * 100_000)
    error.__cause__ = error
    at = error
    for number in range(500):
        at.__context__ = Liar(13, "no", str(number))
        at = at.__context__
    denied = describe(error)["denied"]
    assert len(denied) == 4
    assert max(len(each["path"]) for each in denied) <= 500


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"denied": None},
        {"denied": "x"},
        {"denied": [None, 3, {}, {"errno": 5}, {"errno": "EVIL", "path": "/"}]},
        {"denied": {}},
    ],
)
def test_a_worker_that_says_nonsense_of_denials_tells_none(said):
    told = []
    Denials(told.append).heard("p", said)
    assert told == []


def test_denials_without_end_are_counted_and_not_all_told(path):
    clock = FakeClock()
    audit = Audit("demo", path)
    denials = Denials(audit.heard, sieve=Sieve(20, 0.1, clock=clock))
    for _ in range(100_000):
        denials.heard("p", {"denied": [{"errno": "EACCES", "path": "/etc/shadow\n\x1b[31m"}]})
    clock.advance(10.0)
    denials.heard("p", {"denied": [{"errno": "EPERM", "path": 3}]})
    denials.heard("p", {"denied": [{"errno": "EPERM"}]})
    denials.told()
    audit.close()
    told = entries(path, "denied")
    assert len(told) == 22
    assert [(entry["what"], entry["path"], entry["left_out"]) for entry in told[-2:]] == [("EPERM", "", 99_980), ("", "", 1)]
    assert is_whole(path)


def test_more_entries_than_may_wait_are_dropped_and_counted(path, monkeypatch):
    audit = Audit("demo", path)
    held, let = threading.Event(), threading.Event()
    real = audit._file.append

    def slow(*arguments, **options):
        held.set()
        let.wait(10)
        return real(*arguments, **options)

    monkeypatch.setattr(audit._file, "append", slow)
    audit.heard(hostkit.SandboxDenied("p", "EACCES"))
    held.wait(10)
    for _ in range(1500):  # a disk that doesn't answer holds nobody up
        if not audit._behind.put(hostkit._audit.News(0.0, "denied", "p", {})):
            break
    assert audit._behind._waiting.qsize() == 1000
    let.set()
    audit.close()
    assert len(entries(path, "denied")) == 1001


DENIED = """
    class P:
        def execute(self, ctx, request):
            raise PermissionError(13, "no", "/secret")

        def health(self):
            raise PermissionError(1, "no", "/health")
"""


@pytest.fixture
def confined(monkeypatch):
    """Every worker counts as confined: what it says of denials is told."""
    monkeypatch.setattr("hostkit._opener._confined", lambda decided: decided.isolation != "none")


def raises(call):
    with pytest.raises(hostkit.PluginFailed):
        call()


def test_what_a_confined_worker_was_denied_is_an_event_and_an_entry(install, audited, path, confined, log):
    install("p", DENIED)
    heard = []
    audited.subscribe(lambda event: isinstance(event, hostkit.SandboxDenied) and heard.append(event))
    audited.load("p", isolation="process")
    raises(lambda: audited.execute("p", 1))
    raises(lambda: asyncio.run(audited.aexecute("p", 1)))
    audited.health("p")
    assert [(event.plugin, event.what, event.path) for event in heard[:2]] == [("p", "EACCES", "/secret")] * 2
    assert ("p", "EPERM", "/health") in [(event.plugin, event.what, event.path) for event in heard]
    audited.close()
    assert [entry["path"] for entry in entries(path, "denied")][:2] == ["/secret"] * 2
    assert "plugin 'p' was denied something by its sandbox: EACCES at '/secret'" in [record["text"] for record in log]
    assert is_whole(path)


def test_a_worker_that_is_denied_something_while_it_loads_is_told_too(install, audited, path, confined):
    install("p", "raise ImportError('x') from PermissionError(13, 'no', '/library')")
    with pytest.raises(hostkit.PluginLoadError):
        audited.load("p", isolation="process")
    audited.close()
    assert [entry["path"] for entry in entries(path, "denied")] == ["/library"]


def test_what_a_plugin_is_refused_outside_of_a_sandbox_is_no_denial(install, audited, path):
    install("p", DENIED)
    audited.load("p")
    raises(lambda: audited.execute("p", 1))
    audited.close()
    assert entries(path, "denied") == []


def test_a_plugin_that_is_denied_without_end_fills_no_log(install, new_host, path, confined):
    install("p", DENIED)
    host = new_host(config={"audit": {"file": str(path)}, "plugins": {"p": {"breaker": False}}})
    host.load("p", isolation="process")
    for _ in range(300):
        raises(lambda: host.execute("p", 1))
    host.close()
    told = entries(path, "denied")
    assert len(told) <= 25
    assert len([entry for entry in told if entry["what"]]) + sum(entry["left_out"] for entry in told) >= 300


VIOLATES = """
    import os, signal
    class P:
        def execute(self, ctx, request):
            signal.signal(signal.SIGSYS, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGSYS)
"""


def test_a_worker_that_the_kernel_ends_for_a_system_call_is_written_down(install, audited, path):
    install("p", VIOLATES)
    heard = []
    audited.subscribe(heard.append)
    audited.load("p", isolation="process")
    with pytest.raises(hostkit.SandboxViolation):
        audited.execute("p", 1)
    audited.close()
    assert [entry["plugin"] for entry in entries(path, "violated")] == ["p"]
    assert [event.plugin for event in heard if isinstance(event, hostkit.SandboxViolated)] == ["p"]


# Hosts that end otherwise.


FORKS = """
    import json, os, sys
    import hostkit
    from hostkit import testing
    host = hostkit.Host(config={"audit": {"file": sys.argv[1]}})
    class P:
        def execute(self, ctx, request):
            return request
    pid = os.fork()
    host.register(P(), name="child" if pid == 0 else "parent")
    if pid == 0:
        host.close()
        os._exit(0)
    os.waitpid(pid, 0)
    host.close()
"""


def test_a_fork_writes_entries_of_its_own(path):
    subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(FORKS), str(path)], check=True)
    told = {entry["plugin"]: entry["pid"] for entry in entries(path, "loaded")}
    assert set(told) == {"parent", "child"}
    assert len(set(told.values())) == 2
    assert is_whole(path)


KILLED = """
    import os, signal, sys
    import hostkit
    host = hostkit.Host(config={"audit": {"file": sys.argv[1]}})
    class P:
        def __init__(self):
            os.kill(os.getpid(), signal.SIGKILL)
        def execute(self, ctx, request):
            return request
    host.register(P, name="deadly")
"""


def test_a_plugin_that_kills_its_host_while_it_is_loaded_has_left_an_entry(path):
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert kinds(path, "deadly") == ["loading"]
    assert is_whole(path)
