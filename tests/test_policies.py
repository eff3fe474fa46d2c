"""The call policies, one by one: deadline, gate, rate, retry, submitter."""

from __future__ import annotations

import math
import threading

import pytest

from hostkit import Busy, CallTimeout, Draining, InvalidRequest, PluginFailed, RateLimited, WorkerCrashed
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


def test_an_empty_gate_is_waited_for_without_waiting():
    assert Gate().wait_empty(Deadline.after(0.0))


def test_a_shut_gate_lets_nobody_in_and_waits_for_whoever_is_inside():
    gate = Gate()
    inside, leave = threading.Event(), threading.Event()

    def call():
        with gate:
            inside.set()
            leave.wait(10)

    caller = threading.Thread(target=call)
    caller.start()
    assert inside.wait(10)
    gate.shut()
    with pytest.raises(GateShut), gate:
        pass
    assert (gate.inside, gate.wait_empty(Deadline.after(0.01))) == (1, False)
    leave.set()
    assert gate.wait_empty(Deadline.after(10.0))
    caller.join()


def test_a_call_that_raises_leaves_the_gate():
    gate = Gate()
    with pytest.raises(ValueError), gate:
        raise ValueError
    assert gate.inside == 0


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


def test_the_pause_before_a_repeat_is_anything_below_a_limit_that_doubles():
    config = RetryConfig(attempts=9, wait=0.1, max_wait=1.0)
    assert [pause(config, attempt, lambda: 1.0) for attempt in (1, 2, 3, 4, 5, 50)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert pause(config, 3, lambda: 0.0) == 0.0


def test_a_submitted_call_runs_and_its_error_is_carried():
    submitter = Submitter("test")
    assert submitter.submit(lambda: 42).result(10) == 42
    assert isinstance(submitter.submit(lambda: 1 / 0).exception(10), ZeroDivisionError)
    submitter.close()


def test_a_call_that_is_cancelled_before_its_turn_never_runs():
    submitter = Submitter("test")
    go, ran = threading.Event(), []
    blockers = [submitter.submit(lambda: go.wait(10)) for _ in range(32)]
    waiting = submitter.submit(lambda: ran.append(1))
    assert waiting.cancel()
    go.set()
    assert all(blocker.result(10) for blocker in blockers)
    submitter.close()
    assert ran == []


def test_a_closed_submitter_finishes_what_is_queued_and_takes_no_more():
    submitter = Submitter("test")
    futures = [submitter.submit(lambda number=number: number) for number in range(100)]
    submitter.close()
    submitter.close()
    with pytest.raises(RuntimeError):
        submitter.submit(lambda: None)
    assert [future.result(10) for future in futures] == list(range(100))
