"""Hosts that die, exit without closing, or fork: no worker is left behind, and exit is neither held up nor noisy."""

from __future__ import annotations

import os
import signal
import textwrap
import time
from pathlib import Path

import pytest

PLUGIN = (Path(__file__).parent / "bad_plugin.py").read_text()


def said(process):
    return [int(word) for word in process.stdout.readline().split()]


IN_WHAT_STATE = {
    "idle": "",
    "in a call": "begin('sleep', seconds=60)",
    "spinning": "begin('spin')",
    "stopped": "os.kill(pids()[0], signal.SIGSTOP)",
    "holding the interpreter in C": "begin('hold_the_gil', seconds=60)",
    "ignoring signals": "host.execute('bad', {'op': 'answer', 'what': '[signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)] and 1'})",
}


@pytest.mark.parametrize("state", IN_WHAT_STATE)
def test_a_host_that_is_killed_leaves_no_worker(script, state, assert_gone):
    process = script(f"{IN_WHAT_STATE[state]}\ntold(*pids())\ntime.sleep(60)\n")
    pids = said(process)
    assert pids
    process.kill()
    assert_gone(pids)


@pytest.mark.parametrize("how", ["child", "grandchild", "stubborn"])
def test_a_host_that_is_killed_leaves_nothing_of_what_its_workers_started_either(script, how, assert_gone):
    process = script(
        f"told(*pids(), host.execute('bad', {{'op': 'leave-children', 'how': {how!r}, 'seconds': 20}}))\ntime.sleep(60)\n"
    )
    pids = said(process)
    assert len(pids) == 2
    process.kill()
    assert_gone(pids)


@pytest.mark.parametrize(
    "how", ["os._exit(3)", "os.abort()", "__import__('ctypes').string_at(0)", "os.kill(os.getpid(), signal.SIGTERM)"]
)
def test_a_host_that_dies_by_itself_leaves_no_worker(script, how, assert_gone):
    process = script(f"told(*pids())\n{how}\n")
    pids = said(process)
    process.wait(10)
    assert_gone(pids)


def test_a_worker_started_by_a_thread_that_has_ended_dies_with_the_host_and_not_before(script, gone, assert_gone):
    load = "host = hostkit.Host()\nt = threading.Thread(target=host.load, args=('bad',), kwargs={'isolation': 'process'})\nt.start()\nt.join()\n"
    process = script("time.sleep(0.3)\ntold(host.execute('bad', {'op': 'pid'}))\ntime.sleep(60)\n", load=load)
    pids = said(process)
    assert not gone(pids[0])
    process.kill()
    assert_gone(pids)


FORGETTING = {
    "idle": "",
    "ignoring SIGTERM": "host.execute('bad', {'op': 'answer', 'what': 'signal.signal(15, signal.SIG_IGN) and 1'})",
    "ignoring SIGTERM in a call": "begin('sleep_ignoring_sigterm', seconds=60)",
    "stopped": "os.kill(pids()[0], signal.SIGSTOP)",
    "in a submitted call": "begin('sleep', seconds=60)",
    "with a non-daemon thread": "host.execute('bad', {'op': 'answer', 'what': 'threading.Thread(target=time.sleep, args=(60,)).start()'})",
    "with daemon callers": "threading.Thread(target=host.execute, args=('bad', {'op': 'sleep', 'seconds': 60}), daemon=True).start(); time.sleep(0.2)",
    "with a log": "from loguru import logger; logger.remove(); logger.add(lambda m: None); logger.enable('hostkit')",
}


@pytest.mark.parametrize("state", FORGETTING)
def test_a_host_that_nobody_closes_ends_with_the_program_quietly_and_soon(script, state, assert_gone):
    process = script(f"{FORGETTING[state]}\ntold(*pids())\nsys.exit(5)\n", python=["-W", "error::DeprecationWarning"])
    pids = said(process)
    started = time.monotonic()
    _, stderr = process.communicate(timeout=20)
    assert time.monotonic() - started < 3.5
    assert process.returncode == 5
    assert_gone(pids)
    quiet = [line for line in stderr.splitlines() if "daemon" not in state and line]
    assert quiet == []
    assert "can't start new thread" not in stderr
    assert "can't create new thread" not in stderr


def test_an_uncaught_exception_ends_the_program_with_its_own_traceback_alone(script, assert_gone):
    process = script("told(*pids())\nraise ValueError('mine')\n")
    pids = said(process)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 1
    assert stderr.strip().splitlines()[-1] == "ValueError: mine"
    assert stderr.count("Traceback") == 1
    assert_gone(pids)


def test_two_stuck_plugins_hold_up_the_exit_no_longer_than_one(script, install, assert_gone):
    install("worse", PLUGIN)
    process = script(
        """
        host.load("worse", isolation="process")
        for name in ("bad", "worse"):
            begin("sleep_ignoring_sigterm", plugin=name, seconds=60)
        other = hostkit.Host()
        other.load("bad", isolation="process")
        begin("sleep_ignoring_sigterm", other=other, seconds=60)
        told(*pids())
        """
    )
    pids = said(process)
    assert len(pids) == 3
    started = time.monotonic()
    process.communicate(timeout=20)
    assert time.monotonic() - started < 3.5
    assert_gone(pids)


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_an_async_plugin_that_nobody_closes_ends_with_the_program_too(script, install, isolation):
    install(
        "sleeper", "import asyncio\nclass P:\n    async def execute(self, ctx, request):\n        await asyncio.sleep(request)\n"
    )
    process = script(
        f"""
        host.load("sleeper", isolation={isolation!r})
        host.execute("sleeper", 0)
        host.submit("sleeper", 60)
        time.sleep(0.2)
        told("ready")
        """
    )
    assert process.stdout.readline() == "ready\n"
    started = time.monotonic()
    _, stderr = process.communicate(timeout=20)
    assert time.monotonic() - started < 3.5
    assert stderr == ""
    assert process.returncode == 0


def test_an_in_process_plugin_that_will_not_close_does_not_hold_up_the_exit(script, install):
    install(
        "stuck", "import time\nclass P:\n    def execute(self, ctx, request): ...\n    def close(self):\n        time.sleep(60)\n"
    )
    process = script('host.load("stuck", isolation="none")\ntold("ready")\n')
    assert process.stdout.readline() == "ready\n"
    started = time.monotonic()
    _, stderr = process.communicate(timeout=20)
    assert time.monotonic() - started < 3.5
    assert stderr == ""


def test_a_plugins_close_is_called_at_exit(script, install, tmp_path):
    place = tmp_path / "closed"
    install(
        "tidy",
        f"class P:\n    def execute(self, ctx, request): ...\n    def close(self):\n        open({str(place)!r}, 'w').close()\n",
    )
    process = script('host.load("tidy", isolation="process")\ntold("ready")\n')
    process.communicate(timeout=20)
    assert place.exists()


FORKS = """
    def in_child():
        try:
            try:
                host.execute("bad", {"op": "fine"})
            except hostkit.HostForkedError:
                pass
            else:
                os._exit(21)
            try:
                host.load("bad")
            except hostkit.HostForkedError:
                pass
            else:
                os._exit(22)
            host.close()
            other = hostkit.Host()
            other.load("bad", isolation="process")
            if other.execute("bad", {"op": "fine"}) != "fine":
                os._exit(23)
            other.close()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(24)
"""


@pytest.mark.parametrize(
    "fork",
    [
        "pid = os.fork()\nif pid == 0:\n    in_child()\n    sys.exit(0)\nstatus = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n",
        "pid = os.fork()\nif pid == 0:\n    in_child()\n    os._exit(0)\nstatus = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n",
        "p = multiprocess.get_context('fork').Process(target=in_child)\np.start()\np.join()\nstatus = p.exitcode\n",
        "import multiprocessing\np = multiprocessing.get_context('fork').Process(target=in_child)\np.start()\np.join()\nstatus = p.exitcode\n",
        "with multiprocess.get_context('fork').Pool(2) as pool:\n    pool.apply(in_child)\nstatus = 0\n",
    ],
    ids=["fork and exit", "fork and _exit", "multiprocess", "multiprocessing", "pool"],
)
def test_a_fork_of_the_host_is_told_so_and_leaves_the_parents_workers_alone(script, fork):
    process = script(
        textwrap.dedent(FORKS)
        + "before = host.execute('bad', {'op': 'pid'})\n"
        + fork
        + "told(status, before, host.execute('bad', {'op': 'pid'}))\nhost.close()\ntold(len(pids()))\n",
        python=["-W", "ignore::DeprecationWarning"],
    )
    stdout, stderr = process.communicate(timeout=30)
    assert stderr == ""
    status, before, after = map(int, stdout.splitlines()[0].split())
    assert status == 0
    assert before == after
    assert stdout.splitlines()[1] == "0"
    assert process.returncode == 0


def test_a_fork_does_not_keep_the_workers_of_a_dead_host_alive(script, gone, assert_gone):
    process = script(
        """
        child = os.fork()
        if child == 0:
            time.sleep(30)
            os._exit(0)
        told(child, *pids())
        time.sleep(60)
        """,
        python=["-W", "ignore::DeprecationWarning"],
    )
    child, *pids = said(process)
    try:
        process.kill()
        assert_gone(pids)
        assert not gone(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_fork_made_while_calls_run_disturbs_none_of_them(script):
    process = script(
        """
        calls = [host.submit("bad", {"op": "answer", "what": "[time.sleep(0.05), 7][1]"}) for _ in range(20)]
        children = []
        for _ in range(5):
            child = os.fork()
            if child == 0:
                os._exit(0)
            children.append(child)
            time.sleep(0.05)
        told(*(call.result(20) for call in calls))
        for child in children:
            os.waitpid(child, 0)
        """,
        python=["-W", "ignore::DeprecationWarning"],
    )
    stdout, stderr = process.communicate(timeout=30)
    assert stdout.split() == ["7"] * 20
    assert stderr == ""


def test_a_fork_made_while_another_thread_starts_a_worker_keeps_none_of_its_descriptors(script, assert_gone):
    process = script(
        """
        other = hostkit.Host()
        children = []
        thread = threading.Thread(target=other.load, args=("bad",), kwargs={"isolation": "process"})
        thread.start()
        while thread.is_alive():
            child = os.fork()
            if child == 0:
                time.sleep(20)
                os._exit(0)
            children.append(child)
            time.sleep(0.01)
        told(*children)
        told(*pids())
        time.sleep(60)
        """,
        python=["-W", "ignore::DeprecationWarning"],
    )
    children, pids = said(process), said(process)
    try:
        process.kill()
        assert_gone(pids)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
