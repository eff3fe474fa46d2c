"""The kernel's limits, in a process of their own: once set they can't be taken back."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import hostkit

START = """
import json, os, resource, sys, time
sys.path.insert(0, {path!r})
from hostkit._worker import _limits
def told(*values):
    print(json.dumps(values), flush=True)
"""


def run(code, *, status=0):
    """Run code in an interpreter of its own and return what it told."""
    start = START.format(path=str(Path(hostkit.__file__).parents[1]))
    done = subprocess.run([sys.executable, "-I", "-S", "-c", start + code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_each_limit_that_is_asked_for_is_set_hard():
    [[files, memory, core]] = run(
        "_limits.apply({'open_files': 50, 'memory_bytes': 1 << 30})\n"
        "told(*(resource.getrlimit(what) for what in (resource.RLIMIT_NOFILE, resource.RLIMIT_DATA, resource.RLIMIT_CORE)))"
    )
    assert files == [50, 50]
    assert memory == [1 << 30, 1 << 30]
    assert core == [0, 0]


def test_what_is_not_asked_for_stays_but_for_core_files():
    [[before, after, ballast]] = run(
        "what = (resource.RLIMIT_NOFILE, resource.RLIMIT_DATA, resource.RLIMIT_CPU)\n"
        "before = [resource.getrlimit(each) for each in what]\n"
        "ballast = _limits.apply({})\n"
        "told(before, [resource.getrlimit(each) for each in what], len(ballast))"
    )
    assert before == after
    assert ballast == 1 << 20


def test_a_limit_above_the_hosts_own_is_the_hosts_own():
    [[files]] = run(
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))\n"
        "_limits.apply({'open_files': 5000})\n"
        "told(resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    assert files == [100, 100]


def test_memory_beyond_the_limit_is_a_memory_error_and_the_ballast_helps_to_tell_it():
    assert run(
        "ballast = _limits.apply({'memory_bytes': 200 << 20})\n"
        "try:\n    bytearray(400 << 20)\nexcept MemoryError:\n    ballast.clear()\n    told('no memory')\n"
        "told('told')"
    ) == [["no memory"], ["told"]]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no CPU affinity on this system")
@pytest.mark.parametrize("count", [1, 10_000])
def test_a_worker_is_pinned_to_as_many_cpus_as_it_may_use(count):
    [[allowed]] = run(f"_limits.apply({{'cpu_cores': {count}}})\ntold(len(os.sched_getaffinity(0)))")
    assert allowed == min(count, len(os.sched_getaffinity(0)))


def test_the_cpu_limit_moves_with_each_call_and_out_of_the_way():
    [[soft, hard], [free, _]] = run(
        "_limits.allow_cpu(2.5, 10.0)\ntold(*resource.getrlimit(resource.RLIMIT_CPU))\n"
        "_limits.allow_cpu(None)\ntold(*resource.getrlimit(resource.RLIMIT_CPU))"
    )
    assert (soft, hard, free) == (13, resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def test_the_cpu_limit_never_goes_beyond_the_hosts_own():
    [[one, hard], [free, _]] = run(
        "resource.setrlimit(resource.RLIMIT_CPU, (50, 50))\n"
        "_limits.allow_cpu(100.0)\ntold(*resource.getrlimit(resource.RLIMIT_CPU))\n"
        "_limits.allow_cpu(None)\ntold(*resource.getrlimit(resource.RLIMIT_CPU))"
    )
    assert (one, hard, free) == (50, 50, 50)


def test_who_uses_up_its_cpu_seconds_is_ended_by_the_kernel():
    run("_limits.allow_cpu(0.1, time.process_time())\nwhile True: pass", status=-signal.SIGXCPU)
