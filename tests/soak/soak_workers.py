"""Long runs, too slow for every day: ``pytest tests/soak``. ``SOAK_ROUNDS`` (1000) says how long."""

from __future__ import annotations

import gc
import os
import random
import signal
import threading
import time

import multiprocess
import pytest

import hostkit
from hostkit import testing

ROUNDS = int(os.environ.get("SOAK_ROUNDS", "1000"))

PLUGIN = """
    import os, sys, time
    class P:
        def execute(self, ctx, request):
            what, seconds = request
            end = time.monotonic() + seconds
            while time.monotonic() < end and not (ctx.cancelled and what == "polite"):
                time.sleep(0.001)
            if what == "exit":
                os._exit(3)
            if what == "raise":
                raise ValueError(what)
            if what == "flood":
                for _ in range(int(seconds * 1000)):
                    os.write(1, b"x" * 65536)
            return what
"""


@pytest.fixture
def soaked(tmp_path, monkeypatch):
    place = tmp_path / "site"
    place.mkdir()
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    testing.install(place, "soaked", PLUGIN)
    with testing.no_leaks():
        yield


def zombies():
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[1]) == os.getpid() and fields[0] == "Z":
                found.append(int(name))
    return found


@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("soaked")
def test_close_at_any_moment_of_any_call_gives_each_caller_one_outcome():
    seen = set()
    for round_ in range(ROUNDS):
        random.seed(round_)
        settings = {
            "concurrency": random.choice([1, 3]),
            "workers": random.choice([1, 2]),
            "cancel_grace": 0.05,
            "close_timeout": 0.5,
        }
        host = hostkit.Host(config={"defaults": {"sandbox": "off"}, "plugins": {"soaked": settings}})
        host.load("soaked", isolation="process")
        outcomes = []

        def call(request, timeout, host=host, outcomes=outcomes):
            try:
                outcomes.append(host.execute("soaked", request, timeout=timeout))
            except hostkit.HostkitError as error:
                outcomes.append(type(error).__name__)

        threads = []
        for _ in range(6):
            request = [random.choice(["polite", "polite", "stubborn", "raise", "exit"]), random.random() * 0.05]
            threads.append(threading.Thread(target=call, args=(request, random.choice([None, 0.02]))))
            threads[-1].start()
        # One who comes while it is being closed.
        closing = threading.Event()
        late = ["polite", 0.0]
        threads.append(threading.Thread(target=lambda: (closing.wait(20), time.sleep(0.005), call(late, None))))
        threads[-1].start()
        time.sleep(random.random() * 0.06)
        closing.set()
        host.close(random.choice([0.0, 0.02, 0.2]))
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive(), f"round {round_}"
        assert len(outcomes) == len(threads), f"round {round_}"
        seen.update(outcomes)
        assert seen <= {
            "polite", "stubborn", "PluginFailed", "WorkerExited", "CallTimeout", "CallCancelled", "PluginClosed", "Draining", "Busy",
            "CircuitOpen",
        }, f"round {round_}: {seen}"  # fmt: skip
    assert {"Draining", "CallCancelled", "polite"} <= seen


@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("soaked")
def test_a_thousand_deaths_leave_neither_zombies_nor_descriptors():
    with hostkit.Host(
        config={
            "defaults": {"sandbox": "off"},
            "plugins": {"soaked": {"restarts": {"budget": 1_000_000, "window": "1s"}, "breaker": False}},
        }
    ) as host:
        host.load("soaked", isolation="process")
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        for number in range(ROUNDS):
            (worker,) = [child for child in multiprocess.active_children() if child.exitcode is None][:1] or [None]
            if worker is not None and number % 2:
                worker.kill()
            else:
                with pytest.raises(hostkit.WorkerLost):
                    host.execute("soaked", ["exit", 0.0], timeout=60)
            assert host.execute("soaked", ["polite", 0.0], timeout=60) == "polite"
        assert zombies() == []
        gc.collect()
        assert abs(len(os.listdir("/proc/self/fd")) - before) <= 3


@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("soaked")
def test_thousands_of_given_up_calls_leave_the_same_worker_answering():
    with hostkit.Host(
        config={"defaults": {"sandbox": "off"}, "plugins": {"soaked": {"concurrency": 4, "cancel_grace": 5.0, "breaker": False}}}
    ) as host:
        host.load("soaked", isolation="process")
        pids = {child.pid for child in multiprocess.active_children()}

        def call(seed):
            mine = random.Random(seed)
            for _ in range(ROUNDS):
                try:
                    assert host.execute("soaked", ["polite", mine.random() * 0.004], timeout=mine.choice([0.002, 5.0])) == "polite"
                except (hostkit.CallTimeout, hostkit.Busy):
                    pass

        threads = [threading.Thread(target=call, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {child.pid for child in multiprocess.active_children()} == pids


@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("soaked")
def test_two_hundred_megabytes_of_output_cost_no_memory():
    with hostkit.Host(config={"defaults": {"sandbox": "off"}}) as host:
        host.load("soaked", isolation="process")
        with open("/proc/self/statm") as file:
            before = int(file.read().split()[1])
        assert host.execute("soaked", ["flood", 3.2], timeout=300) == "flood"
        with open("/proc/self/statm") as file:
            assert (int(file.read().split()[1]) - before) * os.sysconf("SC_PAGESIZE") < 20 << 20


@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("soaked")
def test_hosts_that_are_killed_at_any_moment_leave_no_worker():
    program = (
        "import hostkit, os, sys\nhost = hostkit.Host(config={'defaults': {'sandbox': 'off'}, 'plugins': {'soaked': {'workers': 2}}})\n"
        "print('go', flush=True)\nhost.load('soaked', isolation='process')\n"
        "while True:\n    host.execute('soaked', ['polite', 0.01])\n"
    )
    import subprocess
    import sys

    for round_ in range(max(20, ROUNDS // 10)):
        random.seed(round_)
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        host = subprocess.Popen([sys.executable, "-c", program], env=env, stdout=subprocess.PIPE, text=True)
        host.stdout.readline()
        time.sleep(random.random() * 0.3)
        children = _children_of(host.pid)
        host.send_signal(signal.SIGKILL)
        host.communicate()
        end = time.monotonic() + 1.0
        while left := [pid for pid in children if _lives(pid)]:
            assert time.monotonic() < end, (round_, left)
            time.sleep(0.01)


def _children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def _lives(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
