"""What a worker left behind: found by the worker's mark and ended, wherever it went."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from hostkit import WorkerExited, WorkerHung, WorkerKilled
from hostkit._strays import VARIABLE, end_marked, new_mark

if sys.platform != "linux":
    pytest.skip("marks are read from /proc", allow_module_level=True)

HOW = ["child", "grandchild", "session", "double", "stubborn"]


@pytest.fixture
def gone_soon():
    """Check that processes end within a second: ``gone_soon(pid, ...)``. They are children of nobody here, so a pidfd tells."""
    watched = []

    def check(*pids):
        import select

        for pid in pids:
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            watched.append((pid, pidfd))
            poller = select.poll()
            poller.register(pidfd, select.POLLIN)
            assert poller.poll(1000), f"{pid} is still there"

    yield check
    for pid, pidfd in watched:
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.close(pidfd)


@pytest.mark.parametrize("how", HOW)
def test_whatever_a_worker_started_is_gone_when_its_plugin_is_closed(faulty_worker, gone_soon, how):
    bad = faulty_worker()
    left = bad.call("leave-children", how=how)
    os.kill(left, 0)
    bad.host.close()
    gone_soon(left)


@pytest.mark.parametrize("how", HOW)
def test_whatever_a_worker_started_is_gone_after_a_crash(faulty_worker, gone_soon, how):
    bad = faulty_worker()
    left = bad.call("leave-children", how=how)
    bad.fails(WorkerExited, "exit", code=1, stays=False)
    gone_soon(left)


def test_whatever_a_stopped_worker_started_is_gone_when_it_is_replaced(faulty_worker, gone_soon):
    bad = faulty_worker(heartbeat={"interval": 0.1, "misses": 2})
    left = [bad.call("leave-children", how=how) for how in HOW]
    bad.fails(WorkerHung, "stop", stays=False)
    gone_soon(*left)


def test_whatever_a_worker_started_is_gone_when_somebody_kills_the_worker(faulty_worker, gone_soon):
    bad = faulty_worker()
    left = [bad.call("leave-children", how=how) for how in HOW]
    bad.fails(WorkerKilled, "killed", stays=False)
    gone_soon(*left)


@pytest.mark.skipif(os.environ.get("HOSTKIT_TEST_START") == "template", reason="its fork shows the template's environment")
def test_a_fork_of_the_worker_in_a_session_of_its_own_is_gone_too(faulty_worker, gone_soon):
    bad = faulty_worker()
    fork = "next((pid for pid in [os.fork()] if pid), None) or [os.setsid(), os.close(1), os.close(2), time.sleep(60), os._exit(0)]"
    left = bad.call("answer", what=fork)
    bad.fails(WorkerExited, "exit", code=1, stays=False)
    gone_soon(left)


def test_what_runs_for_another_worker_is_left_alone(faulty_worker, gone_soon):
    bad = faulty_worker(workers=2)
    busy = bad.begin("sleep", seconds=1.0)
    left = bad.call("leave-children", how="session")  # by the worker that isn't busy
    assert busy.result() == "slept"
    pids = {bad.call("pid") for _ in range(4)}
    assert pids
    os.kill(left, 0)
    bad.host.close()
    gone_soon(left)


def sleeper(mark):
    command = [sys.executable, "-ISc", "import time; print(flush=True); time.sleep(60)"]
    process = subprocess.Popen(
        command, env={"PATH": os.environ["PATH"], VARIABLE: mark}, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout.readline() == b"\n"
    return process


def test_only_what_carries_the_mark_is_ended(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    mine, other = new_mark(), new_mark()
    ended, stays = sleeper(mine), sleeper(other)
    try:
        end_marked([mine])
        assert ended.wait(5) == -signal.SIGKILL
        assert stays.poll() is None
        end_marked([])
        assert stays.poll() is None
    finally:
        for process in (ended, stays):
            process.kill()
            process.wait()
            process.stdout.close()


def test_a_host_within_a_worker_hands_on_the_mark_of_that_worker(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    outer = new_mark()
    monkeypatch.setenv(VARIABLE, outer)
    inner, sibling = new_mark(), new_mark()
    first, second = sleeper(inner), sleeper(sibling)
    try:
        end_marked([inner])
        assert first.wait(5) == -signal.SIGKILL
        assert second.poll() is None
        end_marked([outer])
        assert second.wait(5) == -signal.SIGKILL
    finally:
        for process in (first, second):
            process.kill()
            process.wait()
            process.stdout.close()


def test_what_takes_the_mark_off_is_not_found(faulty_worker):
    """The gap that only a cgroup or a process namespace closes."""
    bad = faulty_worker()
    what = "__import__('subprocess').Popen(['sleep', '60'], env={}, start_new_session=True).pid"
    left = bad.call("answer", what=what)
    bad.host.close()
    os.kill(left, signal.SIGKILL)  # raises if it were gone
