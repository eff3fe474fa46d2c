"""The end of a host's program: with calls in flight, by signals, and in its order against everybody else's exit handlers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# What hostkit may hold up an exit, and a second; and what a busy machine takes for the rest. The calls take 60 s.
SOON = 1.0 + 1.0 + 4.0


@pytest.fixture
def ends_soon(assert_gone):
    """Whether a program that has said "ready", and its workers' ids, ends in time and without a word; what it said after that."""

    def check(process, *, status=0):
        word, *pids = process.stdout.readline().split()
        assert word == "ready"
        started = time.monotonic()
        # Not communicate: what came with the first line is in the stream's buffer.
        stdout, stderr = process.stdout.read(), process.stderr.read()
        process.wait(10)
        took = time.monotonic() - started
        assert stderr == ""
        assert process.returncode == status
        assert took < SOON
        assert pids
        assert_gone(pids, within=3.0)
        return stdout.split()

    return check


IN_FLIGHT = {
    "submitted": "host.submit('bad', {'op': 'sleep', 'seconds': 60})",
    "many submitted": "for _ in range(50):\n    host.submit('bad', {'op': 'sleep', 'seconds': 60})",
    "a stream": "host.load('count', isolation='process'); items = host.stream('count', 1000000); next(items)",
    "a daemon thread": "threading.Thread(target=calls_for_ever, daemon=True).start()",
    "a daemon thread's event loop": "threading.Thread(target=lambda: asyncio.run(awaits()), daemon=True).start()",
    "a loop that is closed": "loop = asyncio.new_event_loop(); loop.run_until_complete(leaves_a_task(tasks)); loop.close()",
    "a callback on a future": "host.submit('bad', {'op': 'sleep', 'seconds': 60}).add_done_callback(lambda _: host.close())",
}
CALLERS = """
import asyncio
tasks = []
def calls_for_ever():
    try:
        while True:
            host.execute("bad", {"op": "sleep", "seconds": 0.01})
    except hostkit.HostkitError:
        pass
async def awaits():
    try:
        await host.aexecute("bad", {"op": "sleep", "seconds": 60})
    except hostkit.HostkitError:
        pass
async def leaves_a_task(kept=None):
    task = asyncio.ensure_future(host.aexecute("bad", {"op": "sleep", "seconds": 60}))
    if kept is not None:
        task._log_destroy_pending = False  # asyncio's own word on a task that is destroyed
        kept.append(task)
    await asyncio.sleep(0.2)
"""
COUNT = "class P:\n    def execute(self, ctx, request):\n        yield from range(request)\n"
# What is done to the worker before and after the calls have begun.
WORKERS = {
    "ignoring SIGTERM": ("host.execute('bad', {'op': 'answer', 'what': 'signal.signal(15, signal.SIG_IGN) and 1'})\n", ""),
    "stopped": ("", "os.kill(pids()[0], signal.SIGSTOP)\n"),
}


@pytest.mark.parametrize("calls", IN_FLIGHT)
def test_a_program_ends_quietly_and_soon_whatever_calls_are_in_flight(script, install, calls, ends_soon):
    install("count", COUNT)
    process = script(f"{CALLERS}\n{IN_FLIGHT[calls]}\ntime.sleep(0.2)\ntold('ready', *pids())\n")
    ends_soon(process)


@pytest.mark.parametrize("worker", WORKERS)
@pytest.mark.parametrize("calls", ["many submitted", "a loop that is closed"])
def test_a_program_ends_quietly_and_soon_with_calls_in_a_worker_that_will_not(script, calls, worker, ends_soon):
    before, after = WORKERS[worker]
    process = script(f"{CALLERS}\n{before}{IN_FLIGHT[calls]}\ntime.sleep(0.2)\n{after}told('ready', *pids())\n")
    ends_soon(process)


def test_a_thread_that_the_program_waits_for_gets_its_answer_before_the_host_is_closed(script, ends_soon):
    process = script(
        """
        threading.Thread(target=lambda: told(host.execute("bad", {"op": "sleep", "seconds": 0.5}))).start()
        told("ready", *pids())
        """
    )
    assert ends_soon(process) == ["slept"]


HOW = {"-c": ["-c"], "stdin": ["-"], "interactive": ["-q", "-i"]}


@pytest.mark.parametrize("how", HOW)
def test_a_program_without_a_file_starts_workers_and_ends_quietly(install, site, how):
    install("bad", (Path(__file__).parent / "bad_plugin.py").read_text())
    lines = [
        "import hostkit",
        "host = hostkit.Host()",
        "host.load('bad', isolation='process')",
        "call = host.submit('bad', {'op': 'sleep', 'seconds': 60})",
        "print(host.health('bad').status.value, flush=True)",
    ]
    source = "\n".join(lines) + "\n"
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, *HOW[how], *([source] if how == "-c" else [])],
        input="" if how == "-c" else source,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout == "healthy\n"
    assert done.stderr.replace(">>> ", "").strip() == ""
    assert done.returncode == 0


def test_exit_handlers_of_the_application_can_call_its_plugins_or_see_them_closed(script, ends_soon):
    process = script(
        """
        def late():
            told(host.execute("bad", {"op": "fine"}))
        atexit.register(late)
        told("ready", *pids())
        """,
        load="""
import atexit
def early():
    try:
        host.execute("bad", {"op": "fine"})
    except hostkit.PluginClosed:
        told("closed")
sys.modules.pop("hostkit"), [sys.modules.pop(name) for name in [*sys.modules] if name.startswith("hostkit.")]
atexit.register(early)
import hostkit
host = hostkit.Host()
host.load("bad", isolation="process")
""",
    )
    assert ends_soon(process) == ["fine", "closed"]


def test_processes_of_multiprocess_and_multiprocessing_end_beside_the_host(script, ends_soon):
    process = script(
        """
        import multiprocessing
        kept = []
        for package in (multiprocess, multiprocessing):
            context = package.get_context("fork")
            with context.Pool(1) as pool:
                assert pool.apply(abs, (-1,)) == 1
            kept.append(context.Process(target=time.sleep, args=(60,), daemon=True))
            kept[-1].start()
            last = context.Process(target=time.sleep, args=(0.2,))  # which the program waits for
            last.start()
        begin("sleep_ignoring_sigterm", seconds=60)
        told("ready", *pids())
        """,
        python=["-W", "ignore::DeprecationWarning"],
    )
    ends_soon(process)


def test_the_log_of_an_application_has_the_plugins_ends_at_exit(script, tmp_path, ends_soon):
    place = tmp_path / "log"
    process = script(
        f"""
        from loguru import logger
        logger.remove()
        logger.enable("hostkit")
        logger.add({str(place)!r}, format="{{message}}", enqueue=True)
        told("ready", *pids())
        """
    )
    ends_soon(process)
    assert "plugin 'bad' closed" in place.read_text()


def test_the_standard_log_of_an_application_has_what_plugins_say_at_exit(script, tmp_path, install, ends_soon):
    install("last", "class P:\n    def execute(self, ctx, request): ...\n    def close(self):\n        print('my last words')\n")
    place = tmp_path / "log"
    process = script(
        f"""
        from loguru import logger
        import logging
        logging.basicConfig(level=0, format="%(message)s", filename={str(place)!r})
        class Through(logging.Handler):
            def emit(self, record):
                logging.getLogger("app").handle(record)
        logger.remove()
        logger.enable("hostkit")
        logger.add(Through(), format="{{message}}")
        host.load("last", isolation="process")
        told("ready", *pids())
        """
    )
    ends_soon(process)
    assert "my last words" in place.read_text()


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_a_plugins_own_close_is_called_at_exit_wherever_it_runs(script, install, tmp_path, isolation, ends_soon):
    place = tmp_path / "closed"
    install(
        "tidy",
        f"class P:\n    def execute(self, ctx, request): ...\n    def close(self):\n        open({str(place)!r}, 'w').close()\n",
    )
    process = script(f"host.load('tidy', isolation={isolation!r})\ntold('ready', *pids())\n")
    ends_soon(process)
    assert place.exists()


def test_daemon_threads_that_call_till_the_end_never_break_the_exit(script, ends_soon):
    for _ in range(2):
        process = script(
            f"{CALLERS}\nfor _ in range(16):\n    threading.Thread(target=calls_for_ever, daemon=True).start()\ntold('ready', *pids())\n"
        )
        ends_soon(process)


# Signals.

ENDING_BY_SYSTEM_EXIT = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
BLOCKED = {
    "a call": "host.execute('bad', {'op': 'sleep', 'seconds': 60})",
    "a call that will not be cancelled": "host.execute('bad', {'op': 'sleep_ignoring_sigterm', 'seconds': 60})",
    "a stream": "host.load('count', isolation='process')\nfor _ in host.stream('count', 1 << 40): pass",
    "a queue": "begin('sleep', seconds=60); host.execute('bad', {'op': 'fine'})",
    "a future": "host.submit('bad', {'op': 'sleep', 'seconds': 60}).result()",
    "an event loop": "import asyncio; asyncio.run(host.aexecute('bad', {'op': 'sleep', 'seconds': 60}))",
    "a drain": "begin('sleep', seconds=60); host.drain('bad')",
    "a reload": "begin('sleep', seconds=60); host.reload('bad')",
}


@pytest.fixture
def killed_by(assert_gone):
    """Send a program that is about to block a signal once it does, and return its exit status, its stderr, and its workers."""

    def kill(process, number):
        word, *pids = process.stdout.readline().split()
        assert word == "ready"
        wait_until_blocked(process.pid)
        started = time.monotonic()
        process.send_signal(number)
        _, stderr = process.communicate(timeout=30)
        assert time.monotonic() - started < SOON
        assert_gone(pids, within=3.0)
        return process.returncode, stderr

    return kill


def wait_until_blocked(pid):
    """Wait until a program has waited three times in a row."""
    end = time.monotonic() + 10.0
    waited = 0
    while waited < 3:
        assert time.monotonic() < end
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        waited = waited + 1 if state == "S" else 0
        time.sleep(0.1)


@pytest.mark.parametrize("where", BLOCKED)
def test_a_program_that_ends_itself_on_sigterm_does_so_from_wherever_it_waits(script, install, where, killed_by):
    install(
        "count", "import time\n" + COUNT.replace("yield from range(request)", "while True:\n            yield time.sleep(0.05)")
    )
    process = script(f"{ENDING_BY_SYSTEM_EXIT}told('ready', *pids())\n{BLOCKED[where]}\n")
    assert killed_by(process, signal.SIGTERM) == (143, "")


@pytest.mark.parametrize("where", ["a call", "a call that will not be cancelled", "a queue", "a future"])
def test_ctrl_c_ends_a_program_with_its_own_traceback_alone(script, where, killed_by):
    process = script(f"told('ready', *pids())\n{BLOCKED[where]}\n")
    status, stderr = killed_by(process, signal.SIGINT)
    assert status == -signal.SIGINT
    assert stderr.strip().splitlines()[-1] == "KeyboardInterrupt"
    assert stderr.count("Traceback") == 1
    assert "Exception ignored" not in stderr


def test_a_program_that_sigterm_kills_at_once_leaves_no_worker(script, killed_by):
    process = script("told('ready', *pids())\nhost.execute('bad', {'op': 'sleep_ignoring_sigterm', 'seconds': 60})\n")
    assert killed_by(process, signal.SIGTERM) == (-signal.SIGTERM, "")


def test_a_second_ctrl_c_ends_a_close_that_waits_for_calls(script, killed_by):
    process = script(
        """
        with hostkit.Host() as host:
            host.load("bad", isolation="process")
            begin("sleep_ignoring_sigterm", seconds=60)
            told("ready", *pids())
        """,
        load="",
    )
    status, stderr = killed_by(process, signal.SIGINT)
    assert status == -signal.SIGINT
    assert re.search(r"KeyboardInterrupt\s*$", stderr)
