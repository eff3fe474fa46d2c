"""Plugins that can't be loaded: one typed error, nothing left behind, and the host goes on."""

from __future__ import annotations

import os
import textwrap
import time

import pytest

from hostkit import CallTimeout, PluginLoadError, ProtocolError, WorkerExited, WorkerLost

FINE = """
    class P:
        def execute(self, ctx, request):
            return request
"""


def refused(host, name, isolation, error, **attributes):
    with pytest.raises(error) as caught:
        host.load(name, isolation=isolation)
    raised = caught.value
    assert type(raised) is error
    assert name in str(raised)
    for attribute, value in attributes.items():
        assert getattr(raised, attribute) == value
    return raised


@pytest.fixture
def neighbour(install, host, isolation):
    install("neighbour", FINE)
    host.load("neighbour", isolation=isolation)
    yield
    assert host.execute("neighbour", "hello", timeout=1.0) == "hello"


@pytest.mark.usefixtures("neighbour")
@pytest.mark.parametrize(
    ("line", "remote"),
    [
        ("raise ValueError('broken on purpose')", "ValueError"),
        ("import no_such_module_anywhere", "ModuleNotFoundError"),
        ("raise SystemExit(0)", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("class Odd(BaseException): pass\nraise Odd('odd')", "bad.Odd"),
    ],
)
def test_whatever_an_import_raises_is_a_load_error_with_its_traceback(install, host, isolation, line, remote):
    install("bad", line)
    error = refused(host, "bad", isolation, PluginLoadError, kind="import", remote_type=remote)
    assert remote.rpartition(".")[2] in error.remote_traceback
    assert "site/bad/__init__.py" in error.remote_traceback


@pytest.mark.usefixtures("neighbour")
def test_a_module_that_is_no_python_is_a_load_error(install, host, isolation):
    install("bad", "def (:")
    refused(host, "bad", isolation, PluginLoadError, kind="import", remote_type="SyntaxError")


def test_a_failed_load_is_tried_again_when_it_is_asked_for_again(install, host, isolation, site):
    install("bad", "raise ValueError('not yet')")
    refused(host, "bad", isolation, PluginLoadError)
    install("bad", FINE)
    for cached in (site / "bad").glob("__pycache__/*"):
        cached.unlink()
    host.load("bad", isolation=isolation)
    assert host.execute("bad", [1]) == [1]


def test_a_real_ctrl_c_while_a_plugin_is_imported_reaches_the_application(install, host):
    install(
        "bad",
        """
        import os, signal, time
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
        """,
    )
    with pytest.raises(KeyboardInterrupt):
        host.load("bad", isolation="none")


@pytest.mark.parametrize("where", ["import", "init"])
def test_a_start_that_takes_too_long_is_a_timeout_and_the_worker_is_gone(install, new_host, site, where):
    source = {
        "import": "import time\ntime.sleep(60)\n",
        "init": "import time\nclass P:\n    def __init__(self):\n        time.sleep(60)\n    def execute(self, ctx, request):\n        ...\n",
    }
    pid = site / "pid"
    install("bad", f"import os\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\n" + source[where])
    host = new_host(config={"plugins": {"bad": {"start_timeout": 0.4}}})
    started = time.monotonic()
    refused(host, "bad", "process", CallTimeout, phase="start", plugin="bad")
    assert time.monotonic() - started < 3.0
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_a_start_that_waits_on_a_socket_for_ever_is_a_timeout(install, new_host):
    install("bad", "import socket\na, b = socket.socketpair()\na.recv(1)\n")
    host = new_host(config={"plugins": {"bad": {"start_timeout": 0.4}}})
    refused(host, "bad", "process", CallTimeout, phase="start")


@pytest.mark.parametrize(("code", "seen"), [(0, 0), (3, 3), (300, 44)])
def test_a_worker_that_exits_while_it_imports_is_an_exit_with_its_status(install, host, code, seen):
    install("bad", f"import os, sys\nsys.stderr.write('last words\\n')\nsys.stderr.flush()\nos._exit({code})\n")
    error = refused(host, "bad", "process", WorkerExited, phase="start", exit_code=seen, plugin="bad")
    assert "last words" in error.stderr_tail
    assert "last words" in str(error)


@pytest.mark.usefixtures("neighbour")
@pytest.mark.parametrize(
    ("source", "kind", "said"),
    [
        ("class Q: pass", "attribute", "has no P"),
        ("P = None", "type", "NoneType"),
        ("P = 3", "type", "int"),
        ("P = 'text'", "type", "str"),
        ("class P: pass", "contract", "no execute"),
        ("class P:\n    execute = 3", "contract", "int"),
        ("class P:\n    def execute(self): ...", "contract", "(ctx, request)"),
        ("class P:\n    def execute(self, ctx, request, more): ...", "contract", "(ctx, request, more)"),
        ("class P:\n    def __init__(self, a, b): ...\n    def execute(self, ctx, request): ...", "contract", "(a, b)"),
        ("class P:\n    def execute(self, ctx, request): ...\n    health = 1", "contract", "health"),
        ("class P:\n    def execute(self, ctx, request): ...\n    def close(self, hard): ...", "contract", "close"),
        ("class P:\n    def __init__(self): raise OSError('no disk')\n    def execute(self, ctx, request): ...", "init", "no disk"),
        ("class P:\n    def __init__(self): raise SystemExit(2)\n    def execute(self, ctx, request): ...", "init", "SystemExit"),
        ("from hostkit import Plugin\nclass P(Plugin): pass", "contract", "execute"),
        ("class P:\n    def execute(self, ctx, request: 'NoSuchName'): ...", "contract", "NoSuchName"),
        ("class P:\n    def execute(self, ctx, request: object()): ...", "contract", "execute"),
    ],
)
def test_what_is_no_plugin_is_refused_when_it_is_loaded(install, host, isolation, source, kind, said):
    install("bad", source)
    error = refused(host, "bad", isolation, PluginLoadError, kind=kind)
    assert said in str(error)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"cookie": "wrong"}, "cookie"),
        ({"protocol": 99}, "protocol"),
        ({"plugin": "another"}, "plugin"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_wrong_handshake_is_a_protocol_error(install, host, said, words):
    install(
        "bad",
        f"""
        import json, os, sys, time
        sys.stderr.write("a banner\\n")
        sys.stderr.flush()
        from hostkit._worker._frames import READY, packed
        control = next(f.frame.f_locals["control_fd"] for f in __import__("inspect").stack(0) if "control_fd" in f.frame.f_locals)
        ready = {{"cookie": "", "protocol": 1, "plugin": "bad", "python": "3", "kind": "call", "hooks": {{}}, **{said!r}}}
        os.write(control, packed(READY, meta=json.dumps(ready).encode()))
        time.sleep(60)
        """,
    )
    error = refused(host, "bad", "process", ProtocolError, phase="start", plugin="bad")
    assert "handshake" in str(error)
    if words != "plugin":
        assert words in str(error) or "cookie" in str(error)
    assert "a banner" in error.stderr_tail


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\n\r\n" * 8, b"\0" * 64, b"hk\x63\x02" + b"\0" * 60, b"hk\x01\xff" + b"\0" * 60],
    ids=["text", "zeros", "version", "kind"],
)
def test_garbage_instead_of_a_handshake_is_a_protocol_error(install, host, data):
    install(
        "bad",
        f"""
        import os, time
        control = next(f.frame.f_locals["control_fd"] for f in __import__("inspect").stack(0) if "control_fd" in f.frame.f_locals)
        os.write(control, {data!r})
        time.sleep(60)
        """,
    )
    refused(host, "bad", "process", ProtocolError, phase="start")


@pytest.mark.parametrize("meta", [b"", b"[]", b"null", b"\xff", b'{"text": 3, "kind": [], "type": {}}', b"[" * 100_000])
def test_a_load_error_that_says_nonsense_is_still_one_typed_error(install, host, meta):
    install(
        "bad",
        f"""
        import os, time
        from hostkit._worker._frames import ERROR, packed
        control = next(f.frame.f_locals["control_fd"] for f in __import__("inspect").stack(0) if "control_fd" in f.frame.f_locals)
        os.write(control, packed(ERROR, meta={meta[:1000]!r} * {max(1, len(meta) // 1000)}))
        time.sleep(60)
        """,
    )
    with pytest.raises((PluginLoadError, ProtocolError)):
        host.load("bad", isolation="process")


def test_what_a_plugin_prints_while_it_starts_is_no_handshake_and_does_no_harm(install, host, log):
    install(
        "loud", "import os\nprint('a banner')\nos.write(1, b'raw banner\\n')\n" + "\n".join(line[4:] for line in FINE.splitlines())
    )
    host.load("loud", isolation="process")
    assert host.execute("loud", 1) == 1
    host.close()
    said = {record["text"] for record in log if record.get("plugin") == "loud"}
    assert {"a banner", "raw banner"} <= said


def test_a_closed_control_socket_at_start_is_a_protocol_error(install, host):
    install(
        "bad",
        """
        import os, time
        os.close(next(f.frame.f_locals["control_fd"] for f in __import__("inspect").stack(0) if "control_fd" in f.frame.f_locals))
        time.sleep(60)
        """,
    )
    refused(host, "bad", "process", ProtocolError, phase="start")


def test_one_of_several_workers_that_cannot_start_takes_the_others_along(install, new_host, site):
    install(
        "bad",
        f"""
        import os, pathlib
        place = pathlib.Path({str(site)!r})
        (place / f"started-{{os.getpid()}}").touch()
        try:
            (place / "first").mkdir()
        except FileExistsError:
            os._exit(7)
        class P:
            def execute(self, ctx, request): ...
        """,
    )
    host = new_host(config={"plugins": {"bad": {"workers": 3}}})
    with pytest.raises(WorkerLost) as caught:
        host.load("bad", isolation="process")
    assert caught.value.exit_code == 7
    for started in site.glob("started-*"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(started.name.removeprefix("started-")), 0)


def test_a_config_that_is_no_data_is_a_load_error_and_starts_nothing(install, new_host, isolation):
    install("bad", "class P:\n    def __init__(self, config): ...\n    def execute(self, ctx, request): ...")
    host = new_host(config={"plugins": {"bad": {"config": {"x": object()}}}})
    refused(host, "bad", isolation, PluginLoadError, kind="config")


def distribution(site, name, version, *, requires=(), package=None, source=""):
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(exist_ok=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {text}" for text in requires)]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    if package:
        (site / f"{package}.py").write_text(source)


def test_two_plugins_that_need_different_versions_of_one_package_are_told_so(install, host, site, isolation):
    distribution(site, "shared-thing", "1.4", package="shared_thing", source="def old(): return 'old'\n")
    install("first", "from shared_thing import old\n" + textwrap.dedent(FINE))
    distribution(site, "first", "1.0", requires=["shared-thing<2"])
    install("second", "from shared_thing import new\n" + textwrap.dedent(FINE))
    distribution(site, "second", "1.0", requires=["shared-thing>=2", "absent; extra == 'more'", "no such !!"])
    host.load("first", isolation=isolation)
    error = refused(host, "second", isolation, PluginLoadError, kind="import", remote_type="ImportError")
    assert "cannot import name 'new'" in str(error)
    assert "second 1.0 requires shared-thing>=2, and 1.4 is installed" in str(error)
    assert "absent" not in str(error)
    assert host.execute("first", 1) == 1


def test_a_package_that_is_not_installed_is_told_as_a_requirement(install, host, site, isolation):
    install("second", "import shared_thing\n" + textwrap.dedent(FINE))
    distribution(site, "second", "1.0", requires=["shared-thing>=2"])
    error = refused(host, "second", isolation, PluginLoadError, kind="import")
    assert "requires shared-thing>=2, which is not installed" in str(error)


def test_an_import_error_with_everything_that_is_required_in_place_is_told_as_it_is(install, host, site, isolation):
    install("second", "import no_such_module_anywhere\n" + textwrap.dedent(FINE))
    distribution(site, "second", "1.0")
    error = refused(host, "second", isolation, PluginLoadError, kind="import")
    assert "requires" not in str(error)
