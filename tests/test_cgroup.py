"""Control groups, on a directory that looks like one: where none is delegated nothing is lost, two other layers hold."""

from __future__ import annotations

import functools
import os
import shutil
import signal

import pytest

from hostkit import MemoryExceeded, WorkerKilled
from hostkit._cgroup import Leaf, delegated
from hostkit._contract import Caller
from hostkit._deadline import Deadline
from hostkit._ending import Ending, Reason
from hostkit._monitor import Monitor
from hostkit._opening import Opening, Settings
from hostkit._supervisor import Supervisor


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A unified hierarchy with the host's group ``unit/host``: ``tree(handed_over=True, controllers="memory pids")``."""

    def make(*, handed_over=True, controllers="cpu memory pids", own="0::/unit/host\n", refuses=False):
        root = tmp_path / "cgroup"
        unit = root / "unit"
        (unit / "host").mkdir(parents=True)
        (root / "cgroup.controllers").write_text("cpu memory pids\n")
        for group in (unit, unit / "host"):
            (group / "cgroup.procs").write_text("")
            (group / "cgroup.subtree_control").write_text("")
        if refuses:
            (unit / "cgroup.subtree_control").unlink()
            (unit / "cgroup.subtree_control").mkdir()
        else:
            (unit / "cgroup.subtree_control").write_text(controllers)
        # A group with processes in it, the host's own, can't hand on controllers: the kernel says EBUSY.
        (unit / "host" / "cgroup.subtree_control").unlink()
        (unit / "host" / "cgroup.subtree_control").mkdir()
        file = tmp_path / "own"
        file.write_text(own)
        marked = {unit} if handed_over else set()
        monkeypatch.setattr("hostkit._cgroup._marked", lambda place: place in marked)
        monkeypatch.setattr("hostkit._cgroup.os.geteuid", lambda: 0)
        return lambda: delegated(root=root, own=file), unit

    return make


def test_the_group_above_the_hosts_own_is_used_where_systemd_handed_it_over(tree):
    look, unit = tree()
    assert look() == unit


def test_controllers_that_are_not_handed_on_yet_are(tree):
    look, unit = tree(controllers="")
    assert look() == unit
    assert set((unit / "cgroup.subtree_control").read_text().split()) == {"+memory", "+pids"}


@pytest.mark.parametrize(
    "how",
    [
        {"handed_over": False},
        {"controllers": "", "refuses": True},
        {"own": "4:memory:/somewhere\n1:cpu:/\n"},
        {"own": ""},
        {"own": "0::/../../etc\n"},
        {"own": "0::/missing/host\n"},
    ],
    ids=["not handed over", "no controllers", "v1 only", "none at all", "outside", "not mounted here"],
)
def test_what_was_not_handed_over_is_left_alone(tree, how):
    look, unit = tree(**how)
    before = sorted(unit.rglob("*"))
    assert look() is None
    assert sorted(unit.rglob("*")) == before


def test_this_machine_is_looked_at_without_harm():
    found = delegated()
    assert found is None or found.is_dir()


@pytest.fixture
def group(tmp_path):
    place = tmp_path / "group"
    place.mkdir()
    return place


def test_a_leaf_has_the_limits_before_anybody_is_in_it(group):
    leaf = Leaf(group, {"memory_bytes": 64 << 20, "processes": 3}, rmdir=shutil.rmtree)
    found = {path.name: path.read_text() for path in leaf.path.iterdir()}
    assert found == {"memory.max": str(64 << 20), "memory.oom.group": "1", "pids.max": "1536"}
    leaf.join(4711)
    assert (leaf.path / "cgroup.procs").read_text() == "4711"
    assert leaf.remove()
    assert leaf.remove()
    assert list(group.iterdir()) == []


def test_swap_does_not_make_the_limit_larger(group, monkeypatch):
    mkdir = type(group).mkdir

    def mkdir_like_the_kernel(path):
        mkdir(path)
        (path / "memory.swap.max").write_text("max")

    monkeypatch.setattr(type(group), "mkdir", mkdir_like_the_kernel)
    leaf = Leaf(group, {"memory_bytes": 64 << 20}, rmdir=shutil.rmtree)
    assert (leaf.path / "memory.swap.max").read_text() == "0"


def test_a_leaf_that_takes_no_limits_leaves_nothing_behind(group, monkeypatch):
    def fail(self, name, value):
        raise PermissionError(name)

    monkeypatch.setattr(Leaf, "_write", fail)
    with pytest.raises(PermissionError):
        Leaf(group, {"memory_bytes": 64 << 20})
    assert list(group.iterdir()) == []


def test_what_killed_hosts_left_behind_is_removed(group):
    (group / "hostkit-999999999-1").mkdir()
    (group / f"hostkit-{os.getpid()}-99999").mkdir()
    (group / "hostkit-other").mkdir()
    Leaf(group, {}, rmdir=os.rmdir).remove()
    assert sorted(path.name for path in group.iterdir()) == sorted([f"hostkit-{os.getpid()}-99999", "hostkit-other"])


def test_kills_for_memory_are_counted(group):
    leaf = Leaf(group, {}, rmdir=shutil.rmtree)
    assert leaf.oom_kills == 0
    (leaf.path / "memory.events").write_text("low 0\nhigh 0\nmax 12\noom 1\noom_kill 3\noom_group_kill 1\n")
    assert leaf.oom_kills == 3
    leaf.remove()
    assert leaf.oom_kills == 0


# From the worker's death.


@pytest.fixture
def supervised(install, group, monkeypatch):
    """A supervisor whose worker has a leaf of ``group``."""
    made = []

    def start(rmdir=shutil.rmtree):
        monkeypatch.setattr("hostkit._fence.Leaf", functools.partial(Leaf, rmdir=rmdir))
        package = install("fenced", "class P:\n    def execute(self, ctx, request): ...\n", group="nobody.plugins")
        monitor = Monitor()
        settings = Settings(limits={"memory_bytes": 1 << 30}, cgroup=group)
        supervisor = Supervisor(Opening("fenced", f"{package}:P", {}, settings, Caller("fenced", "t-"), monitor))
        made.append((supervisor, monitor))
        supervisor.start()
        return supervisor

    yield start
    for supervisor, monitor in made:
        supervisor.close(Deadline.after(2.0))
        monitor.stop()
        if monitor._thread is not None:
            monitor._thread.join(10.0)  # a worker that was being started in a dead one's place has a group, too
    assert list(group.iterdir()) == []


@pytest.mark.parametrize(("kills", "error", "evidence"), [(1, MemoryExceeded, "cgroup"), (0, WorkerKilled, None)])
def test_a_kill_for_memory_in_its_group_is_told_from_anybody_elses(supervised, group, kills, error, evidence):
    supervisor = supervised()
    link = supervisor.any_link()
    (leaf,) = group.iterdir()
    assert (leaf / "cgroup.procs").read_text() == str(link.pid)
    (leaf / "memory.events").write_text(f"oom_kill {kills}\n")
    os.kill(link.pid, signal.SIGKILL)
    assert link.ended.wait(5.0)
    raised = link.ending.error(plugin="fenced")
    assert type(raised) is error
    assert getattr(raised, "evidence", None) == evidence


def test_a_group_that_is_still_busy_is_removed_later(supervised, group):
    tries = []

    def rmdir(path):
        tries.append(path)
        if len(tries) < 4:
            raise OSError(16, "busy")
        shutil.rmtree(path)

    supervisor = supervised(rmdir)
    supervisor.close(Deadline.after(2.0))


def test_without_a_group_the_worker_starts_all_the_same(supervised, group, log):
    group.rmdir()
    supervisor = supervised()
    assert supervisor.any_link() is not None
    assert ["has no control group" in record["text"] for record in log if record["level"] == "WARNING"] == [True]
    group.mkdir()


LIMIT = 100 << 20


@pytest.mark.parametrize(
    ("code", "peak", "limit", "kills", "error", "words"),
    [
        (-9, 90 << 20, LIMIT, (1, 1), "MemoryExceeded(cgroup)", "the kernel killed its worker at its memory limit"),
        (-9, 10 << 20, LIMIT, (1, 1), "MemoryExceeded(cgroup)", "the kernel killed its worker at its memory limit"),
        (-9, 90 << 20, LIMIT, (0, 1), "MemoryExceeded(probable)", "killed at 90 of 100 MB"),
        (-9, 90 << 20, LIMIT, (0, None), "MemoryExceeded(probable)", "killed at 90 of 100 MB"),
        (-9, 90 << 20, LIMIT, (0, 0), "WorkerKilled()", "killed from outside by SIGKILL while"),
        (-9, 10 << 20, LIMIT, (0, 1), "WorkerKilled()", "and this machine ran out of memory meanwhile"),
        (-9, 90 << 20, None, (0, 1), "WorkerKilled()", "and this machine ran out of memory meanwhile"),
        (-15, 90 << 20, LIMIT, (0, 1), "WorkerKilled()", "by SIGTERM"),
        (-11, 90 << 20, LIMIT, (1, 1), "WorkerCrashed()", "SIGSEGV"),
        (-24, 90 << 20, LIMIT, (0, 0), "CpuExceeded()", "max_cpu_seconds"),
    ],
)
def test_a_death_is_told_by_what_is_known_of_it(code, peak, limit, kills, error, words):
    raised = Ending(code, None, "", "", peak, limit, kills).error(plugin="p")
    assert f"{type(raised).__name__}({getattr(raised, 'evidence', '')})" == error
    assert words in str(raised)


@pytest.mark.parametrize(("code", "tail"), [(1, "OpenBLAS: Memory allocation failed\n"), (-6, "terminate: std::bad_alloc\n")])
def test_a_library_that_gives_up_without_memory_is_told_with_a_hint(code, tail):
    hint = "its limit of 100 MB (max_memory_mb)"
    assert hint in str(Ending(code, None, tail, "", 0, LIMIT).error(plugin="p"))
    assert hint not in str(Ending(code, None, tail, "", 0, None).error(plugin="p"))
    assert hint not in str(Ending(code, None, "something else\n", "", 0, LIMIT).error(plugin="p"))


def test_the_hosts_own_reason_goes_before_what_the_status_says():
    reason = Reason(MemoryExceeded, "its worker took up too much", evidence="watchdog")
    ending = Ending(-9, reason, "", "", 0, None, (1, 1))
    assert ending.error(plugin="p").evidence == "watchdog"
    assert ending.own_doing
