"""Plugins that use up what there is, or spoil their own process: theirs alone suffers, and what the host has stays as it is."""

from __future__ import annotations

import builtins
import os
import signal
import sys
import threading
import time

import multiprocess
import pytest

from hostkit import CallTimeout, InvalidRequest, InvalidResponse, MemoryExceeded, PluginFailed, WorkerExited

MB = 1 << 20


def fds():
    return len(os.listdir("/proc/self/fd"))


def zombies():
    found = []
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/children") as file:
                found += [int(pid) for pid in file.read().split()]
        except FileNotFoundError:
            continue
    return [pid for pid in found if state(pid) == "Z"]


def state(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def test_descriptors_that_a_plugin_leaks_are_its_own_and_calls_go_on(faulty_worker):
    bad = faulty_worker(resources={"max_open_files": 64})
    bad.call("fine")
    before = fds()
    for _ in range(3):
        error = bad.fails(PluginFailed, "leak-descriptors", stays=True)
        assert error.remote_type == "OSError"
        assert "Too many open files" in str(error)
    assert fds() == before


def test_threads_that_the_system_refuses_fail_the_call_and_not_the_worker(faulty_worker):
    bad = faulty_worker()
    before = threading.active_count()
    error = bad.fails(PluginFailed, "thread-bomb", stays=True)
    assert error.remote_type in ("RuntimeError", "MemoryError")
    assert threading.active_count() <= before + 1


def test_a_library_that_gives_up_without_memory_is_an_exit_with_its_words(faulty_worker):
    error = faulty_worker().fails(WorkerExited, "library-gives-up", stays=False)
    assert error.exit_code == 1
    assert "OpenBLAS error: Memory allocation still failed" in error.stderr_tail
    assert "OpenBLAS error: Memory allocation still failed" in str(error)
    assert "max_memory_mb" not in str(error)


def test_a_memory_bomb_in_small_pieces_exceeds_its_limit(faulty_worker):
    faulty_worker(resources={"max_memory_mb": 128}).fails(MemoryExceeded, "memory-bomb", stays=False)


def test_a_file_that_may_grow_no_further_fails_the_call_and_not_the_worker(faulty_worker):
    error = faulty_worker().fails(PluginFailed, "fill-disk", stays=True)
    assert error.remote_type == "OSError"
    assert "File too large" in str(error)


def test_many_deaths_leave_no_zombies_and_no_descriptors(faulty_worker):
    bad = faulty_worker()
    bad.host.reload("bad")
    before = fds()
    for _ in range(20):
        os.kill(bad.pid, signal.SIGKILL)
        bad.host.reload("bad")  # which forgives
    assert bad.call("fine") == "fine"
    end = time.monotonic() + 2.0
    while left := zombies():  # one that has just died is one for a moment
        assert time.monotonic() < end, left
        time.sleep(0.01)
    assert fds() <= before
    assert len(multiprocess.active_children()) == 2  # the bad one's and the neighbour's


def test_what_a_plugin_spoils_in_its_worker_is_not_seen_in_the_host(faulty_worker):
    def seen():
        return (
            *(builtins.print, builtins.open, sys.modules["json"], os.getcwd(), dict(os.environ)),
            *(list(sys.path), list(sys.meta_path), signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGCHLD)),
        )

    bad = faulty_worker()
    before = seen()
    assert bad.call("poison-interpreter") == "poisoned"
    assert seen() == before
    bad.neighbour_answers()
    assert bad.call("fine") == "fine"
    bad.host.unload("bad")
    assert bad.call("fine") == "fine"


@pytest.mark.parametrize(
    ("what", "answer"),
    [
        ("subprocess", "__import__('subprocess').run(['echo', 'hi'], capture_output=True, text=True).stdout"),
        ("threads", "[*__import__('concurrent.futures').futures.ThreadPoolExecutor(2).map(lambda n: n * 2, [1, 2])]"),
        ("asyncio", "__import__('asyncio').run(__import__('asyncio').sleep(0.01, 'slept'))"),
    ],
    ids=lambda word: word if word.isalpha() else "",
)
def test_a_plugin_may_start_threads_processes_and_loops_of_its_own(faulty, what, answer):
    bad = faulty()
    expected = {"subprocess": "hi\n", "threads": [2, 4], "asyncio": "slept"}[what]
    assert bad.call("answer", what=answer) == expected
    assert bad.call("fine") == "fine"


@pytest.mark.parametrize("module", ["multiprocessing", "multiprocess"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_plugin_may_have_a_process_pool_of_its_own(install, host, module, method):
    install(
        "pooled",
        f"""
        import {module} as m
        def double(n):
            return n * 2
        class P:
            def execute(self, ctx, request):
                with m.get_context({method!r}).Pool(2) as pool:
                    return pool.map(double, request)
        """,
    )
    host.load("pooled", isolation="process")
    assert host.execute("pooled", [1, 2, 3]) == [2, 4, 6]
    assert host.execute("pooled", [4]) == [8]


def test_a_request_and_an_answer_of_a_hundred_megabytes_cross_where_the_operator_allows_it(faulty_worker):
    bad = faulty_worker(max_message_mb=128)
    pid = bad.pid
    assert bad.call("answer", what="len(%r)" % ("x" * 100 * MB)) == 100 * MB
    assert len(bad.call("answer", what=f"'y' * {100 * MB}")) == 100 * MB
    assert bad.pid == pid


def test_more_than_the_operator_allows_is_refused_in_both_directions_and_costs_no_worker(faulty_worker):
    bad = faulty_worker()
    bad.fails(InvalidRequest, "fine", stays=True, ignored="x" * 70 * MB)
    bad.fails(InvalidResponse, "answer", what=f"'y' * {70 * MB}", stays=True)


def test_a_large_answer_that_is_given_up_in_the_middle_leaves_the_next_call_its_own(faulty_worker):
    bad = faulty_worker(cancel_grace=5.0)
    late = 0
    for round_ in range(6):
        try:
            bad.call("answer", what=f"'{round_}' * {40 * MB}", timeout=0.01 + 0.02 * round_)
        except CallTimeout:
            late += 1
        assert bad.call("answer", what=f"'next after {round_}'", timeout=20) == f"next after {round_}"
    assert late
