"""The call policies, one by one: deadline, gate, rate, retry, submitter."""

from __future__ import annotations

import asyncio
import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostkit import (
    Busy,
    CallError,
    CallTimeout,
    Draining,
    InvalidRequest,
    PluginClosed,
    PluginFailed,
    RateLimited,
    WorkerCrashed,
    WorkerLost,
)
from hostkit._asking import Asking, NoAnswer
from hostkit._config import RateConfig, RetryConfig
from hostkit._deadline import Deadline
from hostkit._gate import Gate, GateShut
from hostkit._rate import Rate
from hostkit._retry import may_repeat, pause
from hostkit._submitter import Submitter
from hostkit.testing import FakeClock


def test_a_deadline_counts_down_and_never_below_zero():
    clock = FakeClock()
    deadline = Deadline.after(5.0, clock)
    assert (deadline.remaining(), deadline.passed) == (5.0, False)
    clock.advance(7.0)
    assert (deadline.remaining(), deadline.passed) == (0.0, True)


def test_a_deadline_of_zero_has_passed_and_none_never_does():
    assert Deadline.after(0.0, FakeClock()).passed
    never = Deadline.after(None, FakeClock())
    assert (never.passed, never.remaining(), never.wait()) == (False, math.inf, None)


def test_the_sooner_of_two_deadlines_counts():
    clock = FakeClock()
    deadline = Deadline.after(5.0, clock)
    assert deadline.sooner(2.0).remaining() == 2.0
    assert deadline.sooner(9.0).remaining() == 5.0
    assert Deadline.after(None, clock).sooner(3.0).remaining() == 3.0
    clock.advance(4.0)
    assert deadline.sooner(2.0).remaining() == 1.0


@pytest.mark.parametrize("seconds", [1e10, 1e12, 1e300])
def test_a_deadline_of_any_length_can_be_waited_with(seconds):
    wait = Deadline.after(seconds).wait()
    for waits in (threading.Event, threading.Condition):
        waiting = waits()
        release = waiting.set if waits is threading.Event else waiting.notify
        waiting.acquire() if waits is threading.Condition else None
        timer = threading.Timer(
            0.01, release if waits is threading.Event else lambda w=waiting: w.acquire() and (w.notify(), w.release())
        )
        timer.start()
        assert waiting.wait(wait)
        timer.join()


def test_an_empty_gate_is_waited_for_without_waiting():
    assert Gate().wait_empty(Deadline.after(0.0))


def test_a_shut_gate_lets_nobody_in_and_waits_for_whoever_is_inside():
    gate = Gate()
    inside, leave = threading.Event(), threading.Event()

    def call():
        with gate.entered("first"):
            inside.set()
            leave.wait(10)

    caller = threading.Thread(target=call)
    caller.start()
    assert inside.wait(10)
    gate.shut()
    with pytest.raises(GateShut), gate.entered("second"):
        pass
    assert (gate.inside, gate.wait_empty(Deadline.after(0.01))) == (1, False)
    leave.set()
    assert gate.wait_empty(Deadline.after(10.0))
    caller.join()


def test_a_call_that_raises_leaves_the_gate():
    gate = Gate()
    with pytest.raises(ValueError), gate.entered("one"):
        raise ValueError
    assert gate.inside == 0


def test_leaving_a_gate_twice_or_without_having_entered_does_no_harm():
    gate = Gate()
    gate.enter("one")
    gate.leave("another")
    assert gate.inside == 1
    gate.leave("one")
    gate.leave("one")
    assert gate.inside == 0


def test_closing_the_gate_in_the_middle_of_traffic_counts_everyone():
    gate, done = Gate(), []

    def caller():
        while True:
            try:
                with gate.entered(object()):
                    done.append(1)
            except GateShut:
                return

    callers = [threading.Thread(target=caller) for _ in range(6)]
    for thread in callers:
        thread.start()
    while len(done) < 100:
        threading.Event().wait(0.001)
    gate.shut()
    gate.shut()
    assert gate.wait_empty(Deadline.after(10.0))
    assert gate.inside == 0
    counted = len(done)
    for thread in callers:
        thread.join(10)
    assert len(done) == counted


@given(st.floats(0.001, 1e6), st.integers(1, 100), st.lists(st.floats(0.0, 10.0), max_size=30))
def test_whoever_waits_as_long_as_he_was_told_gets_his_turn(per_second, burst, pauses):
    clock = FakeClock()
    rate = Rate(RateConfig(per_second=per_second, burst=burst), clock)
    for pause_ in pauses:
        wait = rate.take()
        if wait:
            assert 0.0 < wait <= 1.0 / per_second + 1e-9
            clock.advance(wait)
            assert rate.take() == 0.0
        clock.advance(pause_ / per_second)


@given(st.floats(0.01, 100), st.integers(1, 20), st.lists(st.floats(0.0, 5.0), min_size=1, max_size=60))
def test_no_more_are_admitted_than_the_burst_and_the_rate(per_second, burst, pauses):
    clock = FakeClock()
    rate = Rate(RateConfig(per_second=per_second, burst=burst), clock)
    began, admitted = clock(), 0
    for pause_ in pauses:
        admitted += not rate.take()
        assert admitted <= burst + (clock() - began) * per_second + 1e-6
        clock.advance(pause_)


def test_a_rate_admits_the_burst_and_then_as_many_as_time_brings():
    clock = FakeClock()
    rate = Rate(RateConfig(per_second=2.0, burst=3), clock)
    assert [rate.take() for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    clock.advance(0.5)
    assert [rate.take(), rate.take()] == [0.0, 0.5]
    clock.advance(3600.0)
    assert [rate.take() for _ in range(4)][-1] > 0.0


def test_many_threads_get_no_more_turns_than_the_burst():
    rate = Rate(RateConfig(per_second=1e-6, burst=50), FakeClock())
    waits = []
    threads = [threading.Thread(target=lambda: waits.extend(rate.take() for _ in range(50))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert waits.count(0.0) == 50


@pytest.mark.parametrize(
    ("error", "always", "idempotent"),
    [
        (Busy("x"), True, True),
        (RateLimited("x"), True, True),
        (PluginFailed("x", retryable=True), True, True),
        (PluginFailed("x"), False, False),
        (WorkerCrashed("x"), False, True),
        (CallTimeout("x"), False, True),
        (InvalidRequest("x"), False, False),
        (Draining("x"), False, False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_what_is_safe_is_repeated(error, always, idempotent):
    assert may_repeat(error, idempotent=False) is always
    assert may_repeat(error, idempotent=True) is idempotent


def test_every_error_is_repeated_or_not_by_the_same_rule():
    def kinds(kind):
        return {kind}.union(*map(kinds, kind.__subclasses__()))

    for kind in kinds(CallError):
        error = kind("x")
        assert may_repeat(error, idempotent=False) is (kind in (Busy, RateLimited))
        assert may_repeat(error, idempotent=True) is (kind in (Busy, RateLimited, CallTimeout) or issubclass(kind, WorkerLost))


@given(st.integers(1, 10_000), st.floats(0.001, 1e7), st.floats(0.001, 1e7))
def test_a_pause_is_never_longer_than_it_may_be(attempt, wait, most):
    found = pause(RetryConfig(attempts=2, wait=wait, max_wait=most), attempt, Busy("x"))
    assert 0.0 <= found <= most


def test_the_pause_before_a_repeat_is_anything_below_a_limit_that_doubles():
    config = RetryConfig(attempts=9, wait=0.1, max_wait=1.0)
    for attempt, most in enumerate((0.1, 0.2, 0.4, 0.8, 1.0, 1.0), 1):
        pauses = [pause(config, attempt, Busy("x")) for _ in range(500)]
        assert max(pauses) <= most
        assert max(pauses) > 0.9 * most
        assert min(pauses) < 0.1 * most


def test_a_repeat_waits_no_less_than_the_rate_says():
    config = RetryConfig(attempts=2, wait=0.001, max_wait=0.002)
    assert pause(config, 1, RateLimited("x", retry_after=7.0)) == 7.0
    assert pause(config, 1, RateLimited("x")) <= 0.002


def test_a_submitted_call_runs_and_its_error_is_carried():
    submitter = Submitter("test")
    assert submitter.submit(lambda _: 42).result(10) == 42
    assert isinstance(submitter.submit(lambda _: 1 / 0).exception(10), ZeroDivisionError)
    submitter.close()


def test_a_call_that_is_cancelled_before_its_turn_never_runs():
    submitter = Submitter("test")
    go, ran = threading.Event(), []
    blockers = [submitter.submit(lambda _: go.wait(10)) for _ in range(32)]
    waiting = submitter.submit(lambda _: ran.append(1))
    assert waiting.cancel()
    go.set()
    assert all(blocker.result(10) for blocker in blockers)
    submitter.close()
    assert ran == []


def test_a_closed_submitter_finishes_what_is_queued_and_runs_what_comes_later_at_once():
    submitter = Submitter("test")
    futures = [submitter.submit(lambda _, number=number: number) for number in range(100)]
    submitter.close()
    submitter.close()
    late = submitter.submit(lambda _: threading.current_thread())
    assert late.done()
    assert late.result() is threading.current_thread()
    assert [future.result(10) for future in futures] == list(range(100))


def test_a_call_that_is_submitted_to_a_closed_host_says_so(install, host, isolation):
    install("echo", "class P:\n    def execute(self, ctx, request):\n        return request\n")
    host.load("echo", isolation=isolation)
    host.close()
    assert isinstance(host.submit("echo", 1).exception(10), PluginClosed)
    assert isinstance(host.plugin("echo").submit(1).exception(10), PluginClosed)


def test_a_submitter_starts_no_more_threads_than_it_needs():
    submitter = Submitter("few")
    for _ in range(20):
        submitter.submit(lambda _: None).result(10)
    few = [thread for thread in threading.enumerate() if thread.name.startswith("few-")]
    assert 1 <= len(few) <= 3
    submitter.close()


def test_submitted_calls_run_beside_each_other_up_to_a_number():
    submitter, together = Submitter("many"), threading.Barrier(33)
    futures = [submitter.submit(lambda _: together.wait(20)) for _ in range(32)]
    together.wait(20)
    assert all(future.exception(10) is None for future in futures)
    assert len([thread for thread in threading.enumerate() if thread.name.startswith("many-")]) == 32
    submitter.close()


def test_where_no_thread_can_be_had_calls_run_all_the_same(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    submitter, start = Submitter("none"), threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert submitter.submit(lambda _: threading.current_thread()).result(0) is threading.current_thread()
    monkeypatch.setattr(threading.Thread, "start", start)
    go, began = threading.Event(), threading.Event()
    submitter.submit(lambda _: began.set() or go.wait(10))
    assert began.wait(10)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    queued = submitter.submit(lambda _: "after the other")
    monkeypatch.setattr(threading.Thread, "start", start)
    go.set()
    assert queued.result(10) == "after the other"
    submitter.close()


def test_a_submitted_call_that_raises_whatever_ends_no_thread():
    submitter = Submitter("test")
    for error in (SystemExit(1), KeyboardInterrupt(), GeneratorExit(), BaseException("x")):
        assert submitter.submit(lambda _, error=error: (_ for _ in ()).throw(error)).exception(10) is error
    assert submitter.submit(lambda _: 1).result(10) == 1
    submitter.close()


# Questions.


def test_a_question_is_answered_and_its_error_is_raised():
    asking = Asking("p")
    assert asking.ask("health", lambda: 5, Deadline.after(10.0)) == 5
    for error in (ValueError("x"), SystemExit(1), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            asking.ask("health", lambda error=error: (_ for _ in ()).throw(error), Deadline.after(10.0))


def test_a_question_without_an_answer_is_not_asked_twice_and_others_are():
    asking, go, asked = Asking("p"), threading.Event(), []

    def hang():
        asked.append(1)
        go.wait(20)

    with pytest.raises(NoAnswer, match="no answer to health in time"):
        asking.ask("health", hang, Deadline.after(0.05))
    for _ in range(3):
        with pytest.raises(NoAnswer, match="before has not answered yet"):
            asking.ask("health", hang, Deadline.after(10.0))
    assert asking.ask("info", lambda: "other", Deadline.after(10.0)) == "other"
    assert asked == [1]
    go.set()
    until = threading.Event()
    for _ in range(1000):
        try:
            assert asking.ask("health", lambda: "again", Deadline.after(10.0)) == "again"
            break
        except NoAnswer:
            until.wait(0.01)
    else:
        pytest.fail("the question stays open for ever")


def test_a_question_that_can_not_be_asked_is_said_and_stays_open_for_none(monkeypatch):
    asking, start = Asking("p"), threading.Thread.start

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(NoAnswer, match="health can't be asked now: can't start new thread"):
        asking.ask("health", lambda: 1, Deadline.after(10.0))
    monkeypatch.setattr(threading.Thread, "start", start)
    assert asking.ask("health", lambda: 1, Deadline.after(None)) == 1


@pytest.mark.parametrize("timeout", [math.inf, 1e12, 1e300])
@pytest.mark.parametrize("form", ["def", "async def"])
def test_a_call_may_have_all_the_time_in_the_world(install, host, isolation, form, timeout):
    install(
        "patient", f"class P:\n    {form} execute(self, ctx, request):\n        return [request, ctx.remaining() is not None]\n"
    )
    host.load("patient", isolation=isolation)
    assert host.execute("patient", 1, timeout=timeout) == [1, timeout != math.inf]
    assert asyncio.run(host.aexecute("patient", 2, timeout=timeout)) == [2, timeout != math.inf]
