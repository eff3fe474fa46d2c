"""Limits that the host holds by looking: what the kernel doesn't count, what code in the worker takes back, and what it starts."""

from __future__ import annotations

import mmap
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hostkit import CpuExceeded, MemoryExceeded, PluginFailed, ProcessesExceeded, _footprint, testing
from hostkit._family import Family
from hostkit._watchdog import Watchdog

with open("/proc/self/status") if sys.platform == "linux" else open(os.devnull) as _status:
    # Bit 24: CAP_SYS_RESOURCE.
    MAY_RAISE = any(line.startswith("CapEff:") and int(line.split()[1], 16) >> 24 & 1 for line in _status)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the host looks into /proc")

PLUGIN = """
    import ctypes, mmap, os, resource, subprocess, sys, threading, time

    KEPT = []

    class P:
        def execute(self, ctx, request):
            return getattr(self, request.pop("do"))(**request)

        def pid(self):
            return os.getpid()

        def big(self, mb):
            KEPT.append(bytearray(mb << 20))
            return mb

        def small(self, mb):
            KEPT.append([str(i) * 8 for i in range(mb << 14)])

        def shared(self, mb):
            self.fill(mmap.mmap(-1, mb << 20), mb)

        def fill(self, block, mb):
            KEPT.append(block)
            for at in range(0, mb << 20, mmap.PAGESIZE):
                block[at] = 1
            time.sleep(60)

        def private(self, mb):
            KEPT.append(mmap.mmap(-1, mb << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))

        def memfd(self, mb):
            fd = os.memfd_create("hidden")
            os.ftruncate(fd, mb << 20)
            self.fill(mmap.mmap(fd, mb << 20), mb)

        def in_thread(self, mb):
            found = []
            def work():
                try:
                    KEPT.append(bytearray(mb << 20))
                except MemoryError as error:
                    found.append(type(error).__name__)
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
            return found

        def raised(self, mb):
            resource.setrlimit(resource.RLIMIT_DATA, (-1, -1))
            KEPT.append(bytearray(b"x") * (mb << 20))
            time.sleep(60)

        def children(self, count, mb):
            code = f"import time; kept = bytearray(b'x') * ({mb} << 20); time.sleep(60)"
            for _ in range(count):
                KEPT.append(subprocess.Popen([sys.executable, "-S", "-c", code]))
            time.sleep(60)

        def spin(self, seconds=60.0, unlimited=False, threads=0):
            if unlimited:
                import signal
                signal.signal(signal.SIGXCPU, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_CPU, (-1, -1))
            end = time.process_time() + seconds
            while time.process_time() < end:
                pass
            return "spun"

        def sleep(self, seconds):
            time.sleep(seconds)
            return "slept"

        def spin_behind(self):
            def spin():
                while True:
                    pass
            threading.Thread(target=spin, daemon=True).start()
            return "spinning"

        def widen(self):
            os.sched_setaffinity(0, range(os.cpu_count()))

        def widened(self):
            end = time.monotonic() + 10
            while len(os.sched_getaffinity(0)) > 1 and time.monotonic() < end:
                time.sleep(0.01)
            return len(os.sched_getaffinity(0))

        def fork(self, count, pids, session=False):
            for number in range(count):
                while len(open(pids).read().split()) < number:
                    time.sleep(0.005)
                pid = os.fork()
                if pid == 0:
                    if session:
                        os.setsid()
                        if os.fork():
                            time.sleep(0.3)  # seen by a look, and then no longer anybody's parent
                            os._exit(0)
                    with open(pids, "a") as file:
                        file.write(f"{os.getpid()} ")
                    time.sleep(60)
                    os._exit(0)
            time.sleep(60)

        def bomb(self):
            while True:
                os.fork()

        def run(self, count):
            return [subprocess.run(["true"]).returncode for _ in range(count)]

        def files(self, count):
            fds = []
            try:
                for _ in range(count):
                    fds.append(os.dup(0))
            finally:
                for fd in fds:
                    os.close(fd)

        def threads(self, count):
            event = threading.Event()
            started = 0
            try:
                for _ in range(count):
                    threading.Thread(target=event.wait, daemon=True).start()
                    started += 1
            except RuntimeError as error:
                raise RuntimeError(f"{started} started, then: {error}") from None
            finally:
                event.set()
            return started
"""


@pytest.fixture
def limited(install, new_host):
    """Load a plugin that is held to limits, and one beside it; call it by ``call(op, ...)``."""

    def make(workers=1, concurrency=None, **resources):
        install("plugin", PLUGIN)
        install("neighbour", "class P:\n    def execute(self, ctx, request):\n        return request\n")
        settings = {"isolation": "process", "resources": resources, "workers": workers, "restarts": {"budget": 100}}
        if concurrency is not None:
            settings["concurrency"] = concurrency
        host = new_host(config={"plugins": {"plugin": settings}})
        host.load("neighbour", isolation="process")

        def call(do, *, timeout=20.0, **arguments):
            return host.execute("plugin", {"do": do, **arguments}, timeout=timeout)

        call.host = host
        call("pid")
        return call

    return make


def fails(call, error, do, **arguments):
    """Call it; check that it fails so, that the neighbour doesn't notice, and that another worker answers the next call."""
    before = call("pid")
    with pytest.raises(error) as caught:
        call(do, **arguments)
    assert type(caught.value) is error
    assert call.host.execute("neighbour", "hello", timeout=1.0) == "hello"
    assert call("pid") != before
    return caught.value


def gone(pid):
    """Wait until a process has ended."""
    end = time.monotonic() + 10.0
    while time.monotonic() < end:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(") ")[2][0] == "Z":  # nobody has waited for it, which is not ours to do
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("bomb", ["big", "small", "private"])
def test_memory_of_its_own_ends_at_the_kernels_limit(limited, bomb):
    error = fails(limited(max_memory_mb=64), MemoryExceeded, bomb, mb=200)
    assert error.evidence == "MemoryError"


@pytest.mark.parametrize("bomb", ["shared", "memfd"])
def test_shared_memory_which_the_kernels_limit_does_not_count_is_held_too(limited, bomb):
    error = fails(limited(max_memory_mb=64), MemoryExceeded, bomb, mb=200)
    assert error.evidence == "watchdog"
    assert "64 are allowed (max_memory_mb)" in str(error)


def test_a_bomb_in_a_thread_of_the_plugin_gets_no_memory_either(limited):
    assert limited(max_memory_mb=64)("in_thread", mb=200) == ["MemoryError"]


@pytest.mark.skipif(not MAY_RAISE, reason="CAP_SYS_RESOURCE is needed to raise a hard limit")
def test_a_worker_that_raises_its_own_limit_is_held_all_the_same(limited):
    error = fails(limited(max_memory_mb=64), MemoryExceeded, "raised", mb=200)
    assert error.evidence == "watchdog"


def test_what_a_worker_starts_counts_with_it(limited):
    error = fails(limited(max_memory_mb=64), MemoryExceeded, "children", count=4, mb=30)
    assert error.evidence == "watchdog"


def test_below_the_limit_nobody_is_ended(limited):
    call = limited(max_memory_mb=128, max_processes=2, max_cpu_seconds=30)
    pid = call("pid")
    assert call("big", mb=40) == 40
    assert call("run", count=3) == [0, 0, 0]
    assert call("pid") == pid


def test_a_loop_is_ended_after_its_cpu_seconds_and_the_next_call_is_answered(limited):
    started = time.monotonic()
    error = fails(limited(max_cpu_seconds=0.3), CpuExceeded, "spin")
    assert time.monotonic() - started < 10.0
    assert "max_cpu_seconds" in str(error)


def test_a_loop_that_takes_back_the_kernels_limit_is_ended_too(limited):
    fails(limited(max_cpu_seconds=0.3), CpuExceeded, "spin", unlimited=True)


def test_waiting_costs_no_cpu_seconds_and_each_call_has_its_own(limited):
    call = limited(max_cpu_seconds=0.5)
    pid = call("pid")
    assert call("sleep", seconds=1.0) == "slept"
    for _ in range(4):
        assert call("spin", seconds=0.25) == "spun"
    assert call("pid") == pid


def test_calls_side_by_side_are_not_ended_for_what_they_use_together(limited):
    call = limited(max_cpu_seconds=1.0, concurrency=4)
    pid = call("pid")
    calls = [call.host.submit("plugin", {"do": "spin", "seconds": 1.2}, timeout=20.0) for _ in range(4)]
    # process_time counts for all of them, so together they use 1.2 seconds.
    assert [each.result() for each in calls] == ["spun"] * 4
    assert call("pid") == pid


def test_cpu_used_between_calls_ends_nobody(limited):
    call = limited(max_cpu_seconds=0.3)
    pid = call("pid")
    call("spin_behind")
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        time.sleep(0.05)
    assert call("pid") == pid


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one CPU is all there is")
def test_a_worker_that_widens_its_affinity_gets_it_back(limited, log):
    call = limited(max_cpu_cores=1)
    for _ in range(2):
        call("widen")
        assert call("widened") == 1
    told = [record["text"] for record in log if "were set back" in record["text"]]
    assert told == ["plugin 'plugin': its worker had changed the CPUs that it may use; they were set back"]


@pytest.mark.parametrize("session", [False, True])
def test_more_processes_than_allowed_end_with_the_worker(limited, tmp_path, session):
    call = limited(max_processes=3)
    pids = tmp_path / "pids"
    pids.touch()
    error = fails(call, ProcessesExceeded, "fork", count=4, pids=str(pids), session=session)
    assert "3 are allowed (max_processes)" in str(error)
    # The last ones may not have come to write their numbers.
    found = pids.read_text().split()
    assert found
    assert all(gone(int(pid)) for pid in found)


def test_a_fork_bomb_hurts_nobody_else(limited):
    fails(limited(max_processes=4), ProcessesExceeded, "bomb")


def test_files_run_out_in_the_plugin_only(limited):
    call = limited(max_open_files=64)
    pid, before = call("pid"), len(os.listdir("/proc/self/fd"))
    with pytest.raises(PluginFailed) as caught:
        call("files", count=200)
    assert caught.value.remote_type == "OSError"
    assert "Errno 24" in caught.value.remote_message
    assert call("pid") == pid
    assert len(os.listdir("/proc/self/fd")) <= before


def test_threads_run_out_in_the_plugin_only(limited):
    call = limited(max_memory_mb=64)
    pid = call("pid")
    with pytest.raises(PluginFailed, match="can't start new thread") as caught:
        call("threads", count=5000)
    assert caught.value.remote_type == "RuntimeError"
    assert call("pid") == pid


def test_limits_hold_while_the_plugin_is_imported(install, new_host):
    install("early", """
        import mmap, time
        block = mmap.mmap(-1, 200 << 20)
        for at in range(0, 200 << 20, mmap.PAGESIZE):
            block[at] = 1
        time.sleep(60)
    """)  # fmt: skip
    host = new_host(config={"plugins": {"early": {"isolation": "process", "resources": {"max_memory_mb": 64}}}})
    with pytest.raises(MemoryExceeded) as caught:
        host.load("early")
    assert (caught.value.phase, caught.value.evidence) == ("start", "watchdog")


def test_a_plugin_without_limits_has_nobody_who_looks(limited, install):
    call = limited()
    (link,) = call.host._loader.record("plugin").lane.backend.supervisor._links
    assert link._fence._watchdog is None


# The watchdog's steps, and the family, without its thread.


@pytest.fixture
def child():
    """A process in a session of its own that does what it is told: ``child("code")``."""
    started = []

    def start(code):
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", f"import os, sys, time\n{code}\ntime.sleep(60)"],
            stdout=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        Family(process.pid).kill()
        process.kill()
        process.wait()
        process.stdout.close()


def watchdog(process, running=(), **limits):
    ended = []
    return Watchdog("plugin", process.pid, limits, running=lambda: list(running), end=ended.append)


def test_a_quiet_worker_is_looked_at_less_and_less(child):
    process = child("print('ready', flush=True)")
    process.stdout.readline()
    watching = watchdog(process, memory_bytes=1 << 30)
    pauses = [watching.look()[1] for _ in range(6)]
    assert pauses[-1] == 0.5
    assert pauses == sorted(pauses)
    watching.stop()


def test_one_that_comes_near_to_its_cpu_seconds_is_looked_at_in_time(child):
    process = child("print('ready', flush=True)\nwhile True: pass")
    process.stdout.readline()
    watching = watchdog(process, running=[7], cpu_seconds=0.2)
    assert watching.look()[0] is None
    reason = None
    end = time.monotonic() + 10.0
    while reason is None:
        assert time.monotonic() < end
        reason, pause = watching.look()
        assert pause <= 0.1
        time.sleep(pause)
    assert reason.error is CpuExceeded
    watching.stop()


def test_a_call_that_ends_just_then_is_not_held_against_the_next_one(child):
    process = child("print('ready', flush=True)\nwhile True: pass")
    process.stdout.readline()
    asked = []

    def running():
        asked.append(1)
        return [7] if len(asked) % 2 else [8]  # by the second question of a look, the call has ended

    watching = Watchdog("plugin", process.pid, {"cpu_seconds": 0.05}, running=running, end=print)
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        reason, pause = watching.look()
        assert reason is None
        if len(asked) % 2:
            asked.append(1)
        time.sleep(pause)
    watching.stop()


def test_a_family_has_children_orphans_and_those_that_left_the_session(child):
    code = """
for kind in ("child", "orphan", "leaver"):
    if os.fork() == 0:
        if kind == "leaver":
            os.setsid()
        if kind == "orphan" and os.fork():
            os._exit(0)
        print(os.getpid(), flush=True)
        time.sleep(60)
if True: print("all", flush=True)
"""
    process = child(code)
    found = {process.stdout.readline().strip() for _ in range(4)} - {"all"}
    family = Family(process.pid)
    members = set(family.look())
    assert {int(pid) for pid in found} <= members
    assert process.pid in members
    assert os.getpid() not in members
    family.kill()
    assert all(gone(int(pid)) for pid in found)
    assert process.poll() is None


def test_an_orphan_that_leaves_the_session_later_stays_in_the_family(child):
    code = """
if os.fork() == 0:
    middle = os.getpid()
    os.setsid()
    if os.fork():
        sys.stdin.read() if False else time.sleep(0.2)
        os._exit(0)
    print(os.getpid(), flush=True)
    time.sleep(60)
os.wait()
print("orphaned", flush=True)
"""
    process = child(code)
    family = Family(process.pid)
    pid = int(process.stdout.readline())
    assert pid in family.look()
    assert process.stdout.readline() == "orphaned\n"
    assert pid in family.look()
    family.kill()
    assert gone(pid)


def test_memory_that_was_taken_before_any_limit_counts(child):
    process = child("kept = bytearray(b'x') * (100 << 20)\nprint('ready', flush=True)")
    process.stdout.readline()
    reason, _ = watchdog(process, memory_bytes=64 << 20).look()
    assert (reason.error, reason.evidence) == (MemoryExceeded, "watchdog")
    assert watchdog(process, memory_bytes=200 << 20).look()[0] is None


def test_memory_that_the_host_has_mapped_too_is_the_hosts(child, tmp_path):
    shm = Path("/dev/shm") / f"hostkit-test-{os.getpid()}-{tmp_path.name}"
    try:
        with shm.open("w+b") as file:
            file.write(b"x" * (100 << 20))
            file.flush()
            code = f"import mmap\nfile = open({str(shm)!r}, 'r+b')\nview = mmap.mmap(file.fileno(), 0)\nsum(view[::4096])\nprint('ready', flush=True)"
            process = child(code)
            process.stdout.readline()
            assert watchdog(process, memory_bytes=64 << 20).look()[0].evidence == "watchdog"
            with mmap.mmap(file.fileno(), 0) as mine:
                assert mine[0] == ord("x")
                assert watchdog(process, memory_bytes=64 << 20).look()[0] is None
    finally:
        shm.unlink()


def test_limits_that_a_worker_takes_back_are_set_again(child, log):
    process = child("print('ready', flush=True)")
    process.stdout.readline()
    watching = watchdog(process, open_files=50)
    watching.look()
    assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (50, 50)
    assert not [record for record in log if "set back" in record["text"]]  # it had none yet
    if MAY_RAISE:
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (100, 200))
        watching.look()
        watching.look()
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (50, 50)
        assert len([record for record in log if "set back" in record["text"]]) == 1
    watching.stop()


def test_looking_is_cheap(child):
    process = child("print('ready', flush=True)")
    process.stdout.readline()
    watching = watchdog(process, memory_bytes=1 << 30, processes=5, cpu_seconds=1, cpu_cores=1)
    watching.look()
    began = time.process_time()
    for _ in range(50):
        watching.look()
    # 0.3 ms is what it took; this only notices a look that walks through memory, or reads of every process each time.
    assert (time.process_time() - began) / 50 < 0.01
    watching.stop()


def test_a_watchdog_leaves_nothing_behind(child):
    with testing.no_leaks():
        process = child("")
        watching = watchdog(process, memory_bytes=1 << 30)
        watching.look()
        watching.stop()
        watching.stop()
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_directory_counts_with_all_that_lies_in_it(tmp_path):
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(bytes(1 << 20))
    (tmp_path / "link").symlink_to("/")
    assert 1 << 20 <= _footprint.on_disk(str(tmp_path), 1 << 30) <= (1 << 20) + (1 << 16)
    assert _footprint.on_disk(str(tmp_path / "gone"), 1 << 30) == 0


def test_what_lies_too_deep_to_be_found_is_too_much(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(30):
        os.mkdir("x" * 200)
        os.chdir("x" * 200)
    assert _footprint.on_disk(str(tmp_path), 1 << 30) > 1 << 30
    for _ in range(30):
        os.chdir("..")
        os.rmdir("x" * 200)


def test_many_empty_files_count_and_are_not_all_looked_at(tmp_path):
    for number in range(40):
        (tmp_path / str(number)).touch()
    assert 10 * 4096 < _footprint.on_disk(str(tmp_path), 10 * 4096) <= 12 * 4096
