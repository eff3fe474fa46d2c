"""Forks of a host's process: a host that has loaded nothing is the fork's, too; one that has says so and stays the parent's alone."""

from __future__ import annotations

import os
import signal

import pytest

QUIET = ["-W", "ignore::DeprecationWarning"]  # of forks in a process with threads, since 3.12
UNLOADED = "host = hostkit.Host()\n"
# The end of a fork that can't end in an exit status of its own accord: what went wrong is on stderr.
CHILD = """
def child(what, fork=os.fork):
    pid = fork()
    pid = pid[0] if isinstance(pid, tuple) else pid
    if pid:
        return pid
    status = 1
    try:
        what()
        status = 0
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)
def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def finished(process, lines=1):
    """The words of each line of a program that ended in order and said nothing else."""
    stdout, stderr = process.communicate(timeout=20)
    assert stderr == ""
    assert process.returncode == 0
    found = [line.split() for line in stdout.splitlines()]
    assert len(found) == lines
    return found


def test_a_host_made_before_a_fork_and_used_after_it_serves_every_fork_and_the_parent(script):
    process = script(
        CHILD
        + """
host.specs
bad = host.plugin("bad")
def serve():
    import asyncio
    host.load("bad", isolation="process")
    assert bad.execute({"op": "fine"}) == "fine"
    assert host.submit("bad", {"op": "fine"}).result(20) == "fine"
    assert asyncio.run(host.aexecute("bad", {"op": "fine"})) == "fine"
    assert list(host.stream("bad", {"op": "fine"})) == ["fine"]
    try:
        bad.execute({"op": "raise_", "what": "value"})
    except hostkit.PluginFailed as error:
        told(os.getpid(), error.request_id, *pids())
    host.close()
    assert not pids()
children = [child(serve) for _ in range(2)]
assert [ended(pid) for pid in children] == [0, 0]
serve()
""",
        python=QUIET,
        load=UNLOADED,
    )
    found = finished(process, lines=3)
    for words in zip(*found, strict=True):
        assert len(set(words)) == 3  # processes, requests and workers are each one's own


FORKS = {
    "os.fork": "pid = child(refused)\nassert ended(pid) == 0",
    "os.forkpty": "pid = child(refused, os.forkpty)\nassert ended(pid) == 0",
    "subprocess": (
        "import subprocess\n"
        "def before_exec():\n    refused()\n    os.write(1, b'refused\\n')\n"
        "assert subprocess.run(['true'], preexec_fn=before_exec, stdout=subprocess.PIPE).stdout == b'refused\\n'"
    ),
    "multiprocessing pool": (
        "import multiprocessing\nwith multiprocessing.get_context('fork').Pool(2) as pool:\n    pool.apply(refused)"
    ),
    "process pool executor": (
        "import multiprocessing\nfrom concurrent.futures import ProcessPoolExecutor\n"
        "with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context('fork')) as pool:\n    pool.submit(refused).result(20)"
    ),
}


@pytest.mark.parametrize("fork", FORKS)
def test_every_verb_of_a_host_that_was_used_before_the_fork_says_what_to_do(script, fork):
    process = script(
        CHILD
        + f"""
import asyncio
bad = host.plugin("bad")
host.submit("bad", {{"op": "fine"}}).result(20)  # so that there is a thread that the fork won't have
before = host.execute("bad", {{"op": "pid"}})
async def astream():
    return [item async for item in host.astream("bad", {{"op": "fine"}})]
def refused():
    verbs = [
        lambda: host.execute("bad", {{"op": "fine"}}),
        lambda: bad.execute({{"op": "fine"}}),
        lambda: host.submit("bad", {{"op": "fine"}}).result(5),
        lambda: asyncio.run(host.aexecute("bad", {{"op": "fine"}})),
        lambda: list(host.stream("bad", {{"op": "fine"}})),
        lambda: asyncio.run(astream()),
        lambda: host.load("bad"),
        lambda: host.reload("bad"),
        lambda: host.register(int, name="other"),
        lambda: host.info("bad"),
    ]
    for number, verb in enumerate(verbs):
        try:
            verb()
        except hostkit.HostForkedError as error:
            assert "before the fork" in str(error)
        else:
            raise AssertionError(number)
    assert host.health("bad").status.value == "offline"
    assert "before the fork" in host.health("bad").message
    assert "bad" in host.specs
    host.unload("bad")
    assert host.drain("bad", 1.0)
    assert not pids()
    host.close()
{FORKS[fork]}
told(before, host.execute("bad", {{"op": "pid"}}))
host.close()
""",
        python=QUIET,
    )
    ((before, after),) = finished(process)
    assert before == after


def test_a_forks_end_harms_no_call_of_the_parent(script):
    process = script(
        CHILD
        + """
import gc
host.load("bad")
items = host.stream("bad", {"op": "fine"})
call = host.submit("bad", {"op": "sleep", "seconds": 1.0})
begun = host.plugin("bad")
def leave():
    global host, items, call
    items.close()
    del host, items, call
    gc.collect()
assert ended(child(leave)) == 0
pid = os.fork()
if pid == 0:
    sys.exit(3)
assert ended(pid) == 3
pid = os.fork()
if pid == 0:
    os.kill(os.getpid(), signal.SIGKILL)
assert ended(pid) == -signal.SIGKILL
told(call.result(20), *items)
host.close()
""",
        python=QUIET,
    )
    assert finished(process) == [["slept", "fine"]]


def test_a_stream_that_a_fork_inherits_goes_on_in_the_parent(script, install):
    install("count", "class P:\n    def execute(self, ctx, request):\n        yield from range(request)\n")
    process = script(
        CHILD
        + """
host.load("count", isolation="process")
items = host.stream("count", 1000)
assert next(items) == 0
def leave():
    global items
    try:
        list(items)
    except Exception:
        pass
    else:
        raise AssertionError
    items = None
assert ended(child(leave)) == 0
told(sum(items))
host.close()
""",
        python=QUIET,
    )
    assert finished(process) == [["499500"]]


def test_a_signals_handler_may_fork_while_a_worker_is_started(script):
    process = script(
        CHILD
        + """
from hostkit._launch import WorkerProcess
forks = []
signal.signal(signal.SIGUSR1, lambda *_: forks.append(child(lambda: None)))
start = WorkerProcess.start
def interrupted(process):
    signal.raise_signal(signal.SIGUSR1)
    start(process)
WorkerProcess.start = interrupted
host.load("bad", isolation="process")
assert host.execute("bad", {"op": "fine"}) == "fine"
host.close()
told(*(ended(pid) for pid in forks))
""",
        python=QUIET,
        load=UNLOADED,
    )
    assert finished(process) == [["0"]]


# A server as gunicorn is one: the master makes the application, forks its workers, and ends them by SIGTERM.
PREFORK = (
    CHILD
    + """
def serve():
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    with (host if shared else hostkit.Host()) as mine:
        mine.load("bad", isolation="process")
        told("worker", os.getpid(), mine.execute("bad", {"op": "pid"}))
        while not stopped:
            assert mine.execute("bad", {"op": "fine"}) == "fine"
workers = [child(serve) for _ in range(3)]
def stop(*_):
    for pid in workers:
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            pass
signal.signal(signal.SIGTERM, stop)
told("ends", *sorted(ended(pid) for pid in workers))
"""
)


def serving(process):
    """The server's forks, and the worker of each."""
    lines = [process.stdout.readline().split() for _ in range(3)]
    assert [(line[0], len(line)) for line in lines] == [("worker", 3)] * 3, lines
    return {fork: worker for _, fork, worker in lines}


@pytest.mark.parametrize("shared", [True, False], ids=["the master's host", "a host each"])
def test_a_server_that_forks_its_workers_serves_and_stops_in_order(script, shared, until, gone):
    process = script(f"shared = {shared}\n" + PREFORK, python=QUIET, load=UNLOADED if shared else "host = None\n")
    served = serving(process)
    assert len(served) == len(set(served.values())) == 3
    killed, *others = served
    os.kill(int(killed), signal.SIGKILL)
    until(lambda: gone(served[killed]))
    assert not any(gone(served[other]) for other in others)
    process.send_signal(signal.SIGTERM)
    assert finished(process) == [["ends", "-9", "0", "0"]]
    assert all(gone(pid) for pid in served.values())


def test_a_server_whose_master_dies_leaves_no_worker_of_its_forks_once_they_end(script, until, gone):
    process = script("shared = True\n" + PREFORK, python=QUIET, load=UNLOADED)
    served = serving(process)
    process.kill()
    for pid in served:
        os.kill(int(pid), signal.SIGTERM)
    until(lambda: all(gone(pid) for pid in (*served, *served.values())))
    assert process.stderr.read() == ""
