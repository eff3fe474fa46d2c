"""Replacing workers: how often, how soon, and what is told when it ends."""

from __future__ import annotations

import os
import signal
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostkit import CircuitOpen, WorkerExited, WorkerKilled, hookspec
from hostkit._contract import Caller
from hostkit._deadline import Deadline
from hostkit._idle import NothingIdle
from hostkit._monitor import Monitor
from hostkit._opening import Opening, Settings
from hostkit._restarts import Restarts
from hostkit._supervisor import Supervisor
from hostkit.testing import FakeClock


def test_the_first_death_is_replaced_at_once_and_the_next_ones_later_and_later():
    restarts = Restarts(100, 300.0, clock=FakeClock(), jitter=lambda: 1.0)
    pauses = []
    for _ in range(9):
        restarts.died()
        pauses.append(restarts.pause())
    assert pauses == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_the_pause_is_anything_below_its_limit():
    jitter = iter([0.0, 0.5, 0.999])
    restarts = Restarts(100, 300.0, clock=FakeClock(), jitter=lambda: next(jitter))
    restarts.died()
    restarts.died()
    assert [restarts.pause() for _ in range(3)] == [0.0, 0.05, pytest.approx(0.0999)]


def test_deaths_are_forgiven_when_their_window_has_passed():
    clock = FakeClock()
    restarts = Restarts(2, 60.0, clock=clock, jitter=lambda: 1.0)
    for _ in range(2):
        restarts.died()
    clock.advance(59.0)
    assert not restarts.used_up
    restarts.died()
    assert restarts.used_up
    clock.advance(1.0)
    assert not restarts.used_up
    assert restarts.count == 1
    assert restarts.pause() == 0.0


def test_a_budget_of_nothing_forgives_nothing():
    restarts = Restarts(0, 60.0, clock=FakeClock())
    assert not restarts.used_up
    restarts.died()
    assert restarts.used_up


@given(st.integers(0, 10), st.lists(st.floats(0, 100), max_size=60))
def test_never_more_deaths_than_the_budget_are_forgiven_in_any_window(budget, gaps):
    clock = FakeClock()
    restarts = Restarts(budget, 50.0, clock=clock, jitter=lambda: 1.0)
    times = []
    for gap in gaps:
        clock.advance(gap)
        restarts.died()
        times.append(clock())
        recent = [moment for moment in times if moment > clock() - 50.0]
        assert restarts.count == len(recent)
        assert restarts.used_up == (len(recent) > budget)
        assert 0.0 <= restarts.pause() <= 5.0


# Supervisors with real workers and a fake clock.

PLUGIN = """
    import os
    class P:
        def execute(self, ctx, request): ...
"""


@pytest.fixture
def supervise(install):
    """Start a supervisor: ``supervise(Settings(...), clock=...)``."""
    made = []

    def start(settings, source=PLUGIN, **seams):
        package = install("watched", source, group="nobody.plugins")
        monitor = Monitor()
        opening = Opening("watched", f"{package}:P", {}, settings, Caller("watched", "t-"), monitor)
        supervisor = Supervisor(opening, **seams)
        made.append((supervisor, monitor))
        supervisor.start()
        return supervisor

    yield start
    for supervisor, monitor in made:
        supervisor.close(Deadline.after(2.0))
        monitor.stop()


def another_pid(supervisor, before):
    """Wait for a worker that wasn't there before."""
    end = time.monotonic() + 10.0
    while not (found := set(supervisor.pids) - {before}) or not supervisor.any_link():
        assert time.monotonic() < end
        time.sleep(0.01)
    return found.pop()


def failed(supervisor):
    end = time.monotonic() + 10.0
    while not supervisor.failed:
        assert time.monotonic() < end
        time.sleep(0.01)
    return supervisor.failed


def test_deaths_far_apart_never_use_up_the_budget(supervise):
    clock = FakeClock()
    supervisor = supervise(Settings(restarts=1, restart_window=60.0), clock=clock, jitter=lambda: 0.0)
    (pid,) = supervisor.pids
    for _ in range(4):
        os.kill(pid, signal.SIGKILL)
        pid = another_pid(supervisor, pid)
        clock.advance(61.0)
    assert supervisor.failed == ""


def test_deaths_within_the_window_use_it_up_and_callers_are_told_why(supervise, log):
    clock = FakeClock()
    supervisor = supervise(Settings(restarts=1, restart_window=60.0), clock=clock, jitter=lambda: 0.0)
    (pid,) = supervisor.pids
    os.kill(pid, signal.SIGKILL)
    pid = another_pid(supervisor, pid)
    clock.advance(59.0)
    os.kill(pid, signal.SIGTERM)
    said = failed(supervisor)
    assert "2 times within 60 s, 1 are forgiven" in said
    assert "SIGTERM" in said
    with pytest.raises(CircuitOpen) as caught:
        supervisor.idle.take(Deadline.after(5.0))
    assert str(caught.value) == said
    assert [record["level"] for record in log if record["text"] == said] == ["ERROR"]


def test_the_pause_before_a_restart_is_kept(supervise):
    supervisor = supervise(Settings(restarts=10), jitter=lambda: 1.0)
    (pid,) = supervisor.pids
    os.kill(pid, signal.SIGKILL)
    pid = another_pid(supervisor, pid)
    for least in (0.1, 0.2):
        started = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        pid = another_pid(supervisor, pid)
        assert time.monotonic() - started >= least


def test_a_second_worker_goes_on_when_the_budget_is_used_up(supervise, log):
    supervisor = supervise(Settings(restarts=0, workers=2), jitter=lambda: 0.0)
    first, second = supervisor.pids
    os.kill(first, signal.SIGKILL)
    end = time.monotonic() + 10.0
    while not [record for record in log if "goes on with" in record["text"]]:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert supervisor.failed == ""
    assert supervisor.pids == [second]
    supervisor.idle.give(supervisor.idle.take(Deadline.after(5.0)))
    os.kill(second, signal.SIGKILL)
    failed(supervisor)


def test_all_workers_of_a_failing_start_are_ended(supervise, site):
    source = f"""
        import os, pathlib
        count = pathlib.Path({str(site)!r}) / "count"
        with count.open("a") as file:
            file.write("x")
        if len(count.read_text()) == 2:
            os._exit(8)
        class P:
            def execute(self, ctx, request): ...
    """
    with pytest.raises(WorkerExited) as caught:
        supervise(Settings(workers=3), source)
    assert caught.value.exit_code == 8
    assert caught.value.phase == "start"


def test_closing_twice_and_with_no_time_at_all_is_harmless(supervise):
    supervisor = supervise(Settings(workers=2))
    supervisor.close(Deadline.after(0.0))
    assert supervisor.close(Deadline.after(0.0)) == []
    assert supervisor.pids == []


def test_a_death_is_told_once_with_the_plugins_name(supervise, log):
    supervisor = supervise(Settings())
    (pid,) = supervisor.pids
    os.kill(pid, signal.SIGKILL)
    another_pid(supervisor, pid)
    told = [record for record in log if "lost a worker" in record["text"]]
    assert [(record["plugin"], record["level"]) for record in told] == [("watched", "WARNING")]
    assert WorkerKilled.__name__ not in told[0]["text"]
    assert "SIGKILL" in told[0]["text"]


# Standby workers.


def ready_links(supervisor, count):
    """Wait until so many workers are ready, and return those that serve and those that stand by."""
    end = time.monotonic() + 10.0
    while len(ready := [link for link in list(supervisor._links) if link.ready and not link.over]) < count:
        assert time.monotonic() < end
        time.sleep(0.005)
    return [link for link in ready if link.offered], [link for link in ready if not link.offered]


def next_to_answer(supervisor):
    """Take a channel as a caller does, and give it back; return its worker."""
    while (channel := supervisor.idle.take(Deadline.after(5.0))).link.over:
        supervisor.drop(channel)
    supervisor.give(channel)
    return channel.link


def test_a_standby_is_ready_and_serves_nobody(supervise):
    supervisor = supervise(Settings(workers=1, standby=2, concurrency=2))
    serving, standby = ready_links(supervisor, 3)
    assert (len(serving), len(standby)) == (1, 2)
    taken = [supervisor.idle.take(Deadline.after(5.0)) for _ in range(2)]
    assert {channel.link for channel in taken} == set(serving)
    with pytest.raises(NothingIdle):
        supervisor.idle.take(Deadline.after(0.0))
    for channel in taken:
        supervisor.idle.give(channel)
    assert set(supervisor.pids) == {link.process.pid for link in serving + standby}
    assert supervisor.any_link() in serving


def test_a_standby_takes_over_at_once_and_another_is_started_behind(supervise):
    supervisor = supervise(Settings(standby=1, restarts=5), jitter=lambda: 0.0)
    for _ in range(3):
        (serving,), (standby,) = ready_links(supervisor, 2)
        os.kill(serving.process.pid, signal.SIGKILL)
        assert serving.ended.wait(5.0)
        assert next_to_answer(supervisor) is standby


def test_a_standby_serves_where_the_budget_is_used_up(supervise, log):
    supervisor = supervise(Settings(standby=1, restarts=0))
    (serving,), (standby,) = ready_links(supervisor, 2)
    os.kill(serving.process.pid, signal.SIGKILL)
    assert serving.ended.wait(5.0)
    assert next_to_answer(supervisor) is standby
    end = time.monotonic() + 5.0
    while not [record for record in log if "goes on with the 1 left" in record["text"]]:
        assert time.monotonic() < end
        time.sleep(0.005)
    assert supervisor.failed == ""
    os.kill(standby.process.pid, signal.SIGKILL)
    assert "its workers died 2 times" in failed(supervisor)


def test_a_standby_that_dies_counts_and_is_replaced(supervise, log):
    supervisor = supervise(Settings(standby=1, restarts=1), jitter=lambda: 0.0)
    (serving,), (standby,) = ready_links(supervisor, 2)
    os.kill(standby.process.pid, signal.SIGKILL)
    assert standby.ended.wait(5.0)
    _, (other,) = ready_links(supervisor, 2)
    assert other is not standby
    assert supervisor._restarts.count == 1
    assert next_to_answer(supervisor) is serving


def test_closing_ends_standbys_too_and_waits_for_none_of_their_channels(supervise):
    supervisor = supervise(Settings(standby=2, cancel_grace=30.0))
    ready_links(supervisor, 3)
    started = time.monotonic()
    assert supervisor.close(Deadline.after(5.0)) == []
    assert time.monotonic() - started < 4.0
    assert supervisor.pids == []


def test_a_standby_hears_historic_hooks_and_answers_for_the_plugin_when_it_takes_over(install, new_host):
    source = """
        import os
        from hostkit import hookimpl
        class P:
            heard = ()
            def execute(self, ctx, request):
                return [os.getpid(), *self.heard]
            @hookimpl
            def ready(self, word):
                self.heard = (*self.heard, word)
            def info(self):
                return {"metadata": {"pid": os.getpid()}}
    """

    class Specs:
        @hookspec(historic=True)
        def ready(self, word: str) -> None: ...

    install("told", source)
    host = new_host(hookspecs=[Specs], config={"plugins": {"told": {"standby": 1}}})
    host.load("told", isolation="process")
    host.hook.ready.call_historic(kwargs={"word": "one"})
    supervisor = host._loader.record("told").lane.backend.supervisor
    before, *heard = host.execute("told", {})
    assert heard == ["one"]
    assert host.info("told").metadata["pid"] == before
    ready_links(supervisor, 2)
    os.kill(before, signal.SIGKILL)
    end = time.monotonic() + 5.0
    while before in supervisor.pids:
        assert time.monotonic() < end
        time.sleep(0.001)
    after, *heard = host.execute("told", {})
    assert after != before
    assert heard == ["one"]
    assert host.info("told").metadata["pid"] == after
