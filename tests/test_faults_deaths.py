"""Workers that die: the caller gets one typed error that says how, and the next call is answered by another worker."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import multiprocess
import pytest

from hostkit import (
    CircuitOpen,
    CpuExceeded,
    MemoryExceeded,
    PluginFailed,
    SandboxViolation,
    WorkerCrashed,
    WorkerExited,
    WorkerHung,
    WorkerKilled,
)


@pytest.mark.parametrize(("code", "seen"), [(0, 0), (3, 3), (300, 44)])
def test_a_worker_that_exits_in_a_call_is_an_exit_with_its_status(faulty_worker, code, seen):
    error = faulty_worker().fails(WorkerExited, "exit", code=code, stays=False)
    assert (error.exit_code, error.signal, error.phase) == (seen, None, "execute")


def test_an_exit_from_another_thread_ends_the_call_that_runs(faulty_worker):
    error = faulty_worker().fails(WorkerExited, "exit_in_thread", code=5, stays=False)
    assert error.exit_code == 5


def test_an_exit_with_half_an_answer_written_is_an_exit(faulty_worker):
    # A header that promises more than comes.
    header = "686b0104000000000000000000000001" + "00" * 12 + "0000ffff" + "00000000"
    error = faulty_worker().fails(WorkerExited, "write_channel", data=header, then="exit", stays=False)
    assert error.exit_code == 0


def test_a_segmentation_fault_is_a_crash_with_the_python_stack(faulty_worker):
    error = faulty_worker().fails(WorkerCrashed, "segfault", stays=False)
    assert (error.signal, error.exit_code) == (signal.SIGSEGV, None)
    assert "Segmentation fault" in error.fault_dump
    assert "in segfault" in error.fault_dump
    assert "in segfault" in "".join(error.__notes__)


@pytest.mark.parametrize("name", ["SIGABRT", "SIGBUS", "SIGFPE", "SIGILL"])
def test_every_fatal_signal_is_a_crash_that_names_it(faulty_worker, name):
    error = faulty_worker().fails(WorkerCrashed, "signal", number=getattr(signal, name), stays=False)
    assert error.signal == getattr(signal, name)
    assert name in str(error)
    assert "in signal" in error.fault_dump


def test_an_abort_is_a_crash(faulty_worker):
    assert faulty_worker().fails(WorkerCrashed, "abort", stays=False).signal == signal.SIGABRT


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="from 3.12 on the interpreter guards its C stack in C calls too")
def test_an_overflow_of_the_c_stack_is_a_crash(faulty_worker):
    assert faulty_worker().fails(WorkerCrashed, "overflow_c_stack", stays=False).signal == signal.SIGSEGV


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_from_outside_is_a_kill_that_names_it(faulty_worker, name):
    bad = faulty_worker()
    pid = bad.pid
    call = bad.begin("sleep", seconds=30, request_id="killed")
    os.kill(pid, getattr(signal, name))
    error = call.exception(5)
    assert type(error) is WorkerKilled
    assert (error.signal, error.request_id, error.plugin) == (getattr(signal, name), "killed", "bad")
    assert name in str(error)
    bad.neighbour_answers()
    assert bad.call("fine") == "fine"


def test_a_worker_killed_from_outside_is_replaced_once(faulty_worker, log, until):
    bad = faulty_worker()
    os.kill(bad.pid, signal.SIGTERM)
    until(lambda: any("has a new worker" in record["text"] for record in log))
    assert bad.call("fine") == "fine"
    assert len([record for record in log if "has a new worker" in record["text"]]) == 1
    assert len([record for record in log if "lost a worker" in record["text"]]) == 1


def test_a_worker_that_died_while_it_was_idle_costs_no_call(faulty_worker):
    bad = faulty_worker()
    for _ in range(3):
        os.kill(bad.pid, signal.SIGKILL)
        assert bad.call("fine") == "fine"


def test_a_large_request_that_a_dying_worker_had_read_in_part_goes_whole_to_the_next_one(faulty_worker):
    bad = faulty_worker()
    pid = bad.pid
    os.kill(pid, signal.SIGSTOP)
    threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
    assert bad.call("answer", what=f"7  # {'x' * 1_000_000}", timeout=20) == 7
    assert bad.call("fine") == "fine"
    assert bad.pid != pid


def test_a_stopped_worker_misses_its_heartbeats_and_is_replaced(faulty_worker):
    bad = faulty_worker(heartbeat={"interval": 0.1, "misses": 2})
    started = time.monotonic()
    error = bad.fails(WorkerHung, "signal", number=signal.SIGSTOP, stays=False)
    assert time.monotonic() - started < 5.0
    assert "heartbeat" in str(error)


def test_a_busy_plugin_still_answers_heartbeats(faulty_worker):
    bad = faulty_worker(heartbeat={"interval": 0.1, "misses": 3})
    pid = bad.pid
    assert bad.call("sleep", seconds=0.8) == "slept"
    assert bad.pid == pid


@pytest.mark.filterwarnings("ignore")
def test_the_cpu_budget_of_a_call_ends_an_endless_loop(faulty_worker):
    error = faulty_worker(resources={"max_cpu_seconds": 0.1}).fails(CpuExceeded, "spin", timeout=20, stays=False)
    # Whoever comes first: the host's watchdog, or the kernel, which counts whole seconds.
    assert error.signal in (signal.SIGKILL, signal.SIGXCPU)
    assert "max_cpu_seconds" in str(error)


def test_a_forbidden_system_call_is_a_sandbox_violation(faulty_worker):
    error = faulty_worker().fails(SandboxViolation, "signal", number=signal.SIGSYS, stays=False)
    assert error.signal == signal.SIGSYS


@pytest.mark.parametrize("bomb", ["bytearray(1 << 30)", "['x' * 1000 + str(i) for i in range(1 << 21)]"], ids=["big", "small"])
def test_a_memory_bomb_exceeds_its_limit_and_recycles_the_worker(faulty_worker, bomb):
    bad = faulty_worker(resources={"max_memory_mb": 100})
    error = bad.fails(MemoryExceeded, "answer", what=f"len({bomb})", stays=False)
    assert "max_memory_mb" in str(error)


def test_a_memory_error_without_a_limit_is_the_plugins_own(faulty):
    error = faulty().fails(PluginFailed, "answer", what="(_ for _ in ()).throw(MemoryError('mine'))", stays=True)
    assert error.remote_type == "MemoryError"


def test_limits_hold_in_the_worker(faulty_worker):
    bad = faulty_worker(resources={"max_open_files": 64, "max_cpu_cores": 1, "max_memory_mb": 256})
    assert bad.call("answer", what="__import__('resource').getrlimit(__import__('resource').RLIMIT_NOFILE)") == [64, 64]
    assert bad.call("answer", what="len(os.sched_getaffinity(0))") == 1
    assert bad.call("answer", what="__import__('resource').getrlimit(__import__('resource').RLIMIT_CORE)") == [0, 0]
    assert bad.call("answer", what="os.environ['OMP_NUM_THREADS']") == "1"
    error = bad.fails(PluginFailed, "answer", what="[os.dup(0) for _ in range(100)]", stays=True)
    assert error.remote_type == "OSError"


def test_a_process_that_the_plugin_leaves_behind_does_not_hide_the_workers_death(faulty_worker):
    bad = faulty_worker()
    started = time.monotonic()
    error = bad.fails(WorkerExited, "fork_and_exit", code=6, timeout=20, stays=False)
    assert error.exit_code == 6
    assert time.monotonic() - started < 5.0


def test_children_that_stay_in_the_workers_group_die_with_it(faulty_worker, until):
    bad = faulty_worker()
    child = bad.call("answer", what="__import__('subprocess').Popen(['sleep', '60']).pid")
    bad.host.unload("bad")
    until(lambda: not os.path.exists(f"/proc/{child}") or _state(child) == "Z")


def _state(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "X"


def test_deaths_leave_no_zombies(faulty_worker):
    before = set(_children())
    bad = faulty_worker(restarts={"budget": 100})
    for _ in range(4):
        os.kill(bad.pid, signal.SIGKILL)
    assert bad.call("fine") == "fine"
    bad.host.close()
    assert not [pid for pid in set(_children()) - before if _state(pid) == "Z"]
    assert not multiprocess.active_children()


def _children():
    with open(f"/proc/self/task/{threading.main_thread().native_id}/children") as file:
        return [int(pid) for pid in file.read().split()]


def test_a_crash_loop_opens_the_circuit_which_says_why_until_a_reload(faulty_worker, log):
    bad = faulty_worker(restarts={"budget": 2, "window": 60})
    for _ in range(3):
        with pytest.raises(WorkerExited):
            bad.call("exit", code=9)
    with pytest.raises(CircuitOpen) as caught:
        for _ in range(100):
            bad.call("fine", timeout=5)
    assert "status 9" in str(caught.value)
    assert "reload" in str(caught.value)
    assert caught.value.phase == "queue"
    assert bad.host.health("bad").status.value == "offline"
    bad.neighbour_answers()
    bad.host.reload("bad")
    assert bad.call("fine") == "fine"
    assert len([record for record in log if "not started again" in record["text"] and record["level"] == "ERROR"]) == 1


def test_a_caller_in_the_queue_is_told_when_the_circuit_opens(faulty_worker):
    bad = faulty_worker(restarts={"budget": 0})
    pid = bad.pid
    running = bad.begin("sleep", seconds=30)
    waiting = [bad.host.submit("bad", {"op": "fine"}) for _ in range(3)]
    os.kill(pid, signal.SIGKILL)
    assert type(running.exception(10)) is WorkerKilled
    assert [type(call.exception(10)) for call in waiting] == [CircuitOpen] * 3


def test_a_plugin_that_cannot_be_loaded_any_more_opens_the_circuit_with_that_reason(install, new_host, site):
    gone = site / "gone"
    install(
        "fickle",
        f"""
        import os
        if os.path.exists({str(gone)!r}):
            raise ImportError("a wheel has come off")
        class P:
            def execute(self, ctx, request):
                os._exit(1)
        """,
    )
    host = new_host(config={"plugins": {"fickle": {"restarts": {"budget": 2}}}})
    host.load("fickle", isolation="process")
    gone.touch()
    with pytest.raises(WorkerExited):
        host.execute("fickle", None)
    with pytest.raises(CircuitOpen, match="a wheel has come off"):
        host.execute("fickle", None, timeout=10)


def test_one_workers_death_leaves_the_calls_of_the_others_alone(faulty_worker):
    bad = faulty_worker(workers=2)
    steady = bad.begin("sleep", seconds=0.5)
    with pytest.raises(WorkerExited):
        bad.call("exit", code=1)
    assert steady.result(5) == "slept"
    assert bad.call("fine") == "fine"
