"""Workers that the system refuses: the nth call of whatever a start needs fails, with every errno that it may have."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import multiprocess
import pytest

import hostkit
from hostkit import PluginLoadError, testing
from hostkit._worker._frames import BOOT, packed

ECHO = """
    class P:
        def execute(self, ctx, request):
            return request
"""
NEEDED = {
    "os.pipe": (os, "pipe"),
    "socketpair": (socket, "socketpair"),
    "dup": (os, "dup"),
    "memfd": (os, "memfd_create"),
    "fork and exec": (subprocess, "_fork_exec"),
    "pidfd": (os, "pidfd_open"),
    "thread": (threading.Thread, "start"),
}
REFUSALS = {
    "EAGAIN": OSError(errno.EAGAIN, "Resource temporarily unavailable"),
    "ENOMEM": OSError(errno.ENOMEM, "Cannot allocate memory"),
    "EMFILE": OSError(errno.EMFILE, "Too many open files"),
    "MemoryError": MemoryError(),
}


class Injector:
    """Let the nth use of something fail from now on, and count."""

    def __init__(self, monkeypatch, what, error):
        self.nth = 0
        self._left = 0
        self.struck = False
        place, name = NEEDED[what]
        real = getattr(place, name)

        def maybe(*arguments, **options):
            self._left -= 1
            if self._left == 0:
                self.struck = True
                raise error
            return real(*arguments, **options)

        monkeypatch.setattr(place, name, maybe)

    def arm(self, nth):
        self._left, self.struck = nth, False


@pytest.mark.parametrize(
    ("what", "refusal"),
    [*((what, refusal) for what in NEEDED if what != "thread" for refusal in REFUSALS), ("thread", "RuntimeError")],
)
def test_whatever_the_system_refuses_to_a_start_is_one_typed_error_and_nothing_is_left(
    install, new_host, monkeypatch, what, refusal
):
    install("echo", ECHO)
    install("neighbour", ECHO)
    keeper = new_host()
    keeper.load("neighbour", isolation="process")
    error = REFUSALS.get(refusal) or RuntimeError("can't start new thread")
    injector = Injector(monkeypatch, what, error)
    for nth in range(1, 30):
        with testing.no_leaks():
            host = hostkit.Host()
            injector.arm(nth)
            try:
                host.load("echo", isolation="process")
            except PluginLoadError as raised:
                assert (raised.kind, raised.plugin) == ("start", "echo")  # noqa: PT017
                assert "can't be started" in str(raised)
                assert raised.__cause__ is error
            assert host.execute("echo", nth) == nth  # the next one works, in the same host
            host.close()
        if not injector.struck:
            break
    assert not injector.struck
    assert nth > 1
    assert keeper.execute("neighbour", 1, timeout=1.0) == 1


@pytest.fixture
def interpreter(tmp_path, monkeypatch):
    """A path that ``sys.executable`` has for a while: ``interpreter()`` makes it a copy of something that runs."""
    place = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(place))
    return place


def test_an_interpreter_that_is_gone_is_a_typed_error(install, host, interpreter):
    install("echo", ECHO)
    with pytest.raises(PluginLoadError, match="No such file"):
        host.load("echo", isolation="process")
    assert not multiprocess.active_children()


@pytest.mark.parametrize("mode", [0o644])
def test_an_interpreter_that_may_not_be_run_is_a_typed_error(install, host, interpreter, mode):
    install("echo", ECHO)
    interpreter.write_text("#!/bin/sh\n")
    interpreter.chmod(mode)
    with pytest.raises(PluginLoadError, match="Permission denied"):
        host.load("echo", isolation="process")


def test_an_interpreter_that_is_just_being_written_is_a_typed_error(install, host, interpreter):
    install("echo", ECHO)
    shutil.copy(shutil.which("true"), interpreter)
    with open(interpreter, "r+b"), pytest.raises(PluginLoadError, match="Text file busy"):
        host.load("echo", isolation="process")


def test_an_interpreter_that_is_none_is_an_exit_at_once(install, host, interpreter):
    install("echo", ECHO)
    interpreter.symlink_to(shutil.which("true"))
    with pytest.raises(hostkit.WorkerExited) as caught:
        host.load("echo", isolation="process")
    assert (caught.value.exit_code, caught.value.phase) == (0, "start")


def test_a_restart_that_the_system_refuses_once_is_made_good_by_the_next(faulty_worker, monkeypatch, log):
    bad = faulty_worker()
    pid = bad.pid
    injector = Injector(monkeypatch, "fork and exec", REFUSALS["EAGAIN"])
    injector.arm(1)
    os.kill(pid, signal.SIGKILL)
    assert bad.call("fine", timeout=10) == "fine"
    assert injector.struck
    bad.neighbour_answers()
    told = [record for record in log if "can't be started" in record["text"]]
    assert [(record["level"], record["plugin"]) for record in told] == [("ERROR", "bad")]


def test_restarts_that_the_system_always_refuses_open_the_circuit(faulty_worker, monkeypatch):
    bad = faulty_worker(restarts={"budget": 1})
    pid = bad.pid

    def refuse(*arguments, **options):
        raise REFUSALS["ENOMEM"]

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "_fork_exec", refuse)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(hostkit.CircuitOpen, match="Cannot allocate memory"):
            bad.call("fine", timeout=20)
        bad.neighbour_answers()
    bad.host.reload("bad")
    assert bad.call("fine") == "fine"


@pytest.mark.parametrize("changed", ["version", "magic", "kind", "end"])
def test_a_worker_refuses_a_host_that_speaks_another_protocol_and_runs_nothing(tmp_path, changed):
    """The worker's half of the negotiation: host and worker are always of one installation, so another version is a mistake."""
    mine, theirs = socket.socketpair()
    worker = Path(hostkit.__file__).parent / "_worker" / "__main__.py"
    canary = tmp_path / "canary"
    (tmp_path / "sly.py").write_text(f"open({str(canary)!r}, 'w').close()\n")
    frame = bytearray(packed(BOOT, meta=json.dumps({"entry_point": "sly:P", "path": [str(tmp_path)]}).encode()))
    if changed == "version":
        frame[2] += 1
    elif changed == "magic":
        frame[:2] = b"zz"
    elif changed == "kind":
        frame[3] = 3
    else:
        frame = frame[:20]
    with mine:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(worker), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        theirs.close()
        mine.sendall(frame)
        mine.shutdown(socket.SHUT_WR)
        process.communicate(timeout=20)
    assert process.returncode > 0
    assert not canary.exists()


def test_a_worker_that_speaks_another_protocol_is_refused_with_both_versions(install, host):
    install(
        "newer",
        """
        import os, struct, time
        from hostkit._worker._frames import READY, packed
        from hostkit.testing.badplugin._speaking import control
        frame = bytearray(packed(READY, meta=b"{}"))
        frame[2] += 1
        os.write(control(), bytes(frame))
        time.sleep(60)
        """,
    )
    with pytest.raises(hostkit.ProtocolError, match="version") as caught:
        host.load("newer", isolation="process")
    assert caught.value.phase == "start"
