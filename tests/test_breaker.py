"""The circuit breaker: when it opens, when it tries again, and that nothing leaves it stuck half-open."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule, run_state_machine_as_test

import hostkit
from hostkit import (
    Busy,
    CallCancelled,
    CallError,
    CallTimeout,
    CircuitOpen,
    Draining,
    ExecutionContext,
    InvalidRequest,
    InvalidResponse,
    PluginClosed,
    PluginFailed,
    RateLimited,
    WorkerHung,
    WorkerLost,
)
from hostkit._breaker import Breaker, State
from hostkit._config import BreakerConfig, HostConfig
from hostkit._contract import Caller
from hostkit._gate import GateShut
from hostkit.testing import FakeClock


def new_call():
    return ExecutionContext("id", _caller=Caller("p", "x-"))


class Tried:
    """A breaker on a clock that goes when told, and calls through it as a record makes them."""

    def __init__(self, clock=None, *, jitter=0.0, **config):
        self.clock = clock or FakeClock()
        self.changes = []
        self.breaker = Breaker(BreakerConfig(**config), on_change=self._changed, clock=self.clock, jitter=lambda: jitter)

    def _changed(self, before, after, why):
        self.changes.append(f"{before.value} to {after.value}")

    def begin(self):
        call, permit = new_call(), self.breaker.permit
        return call, self.breaker.admit(call) if permit is None else permit

    def end(self, begun, error=None):
        if error is not None:
            self.breaker.ended(*begun, error)
        elif self.breaker.uneasy:
            self.breaker.succeeded(*begun)

    def call(self, error=None):
        self.end(self.begin(), error)

    def opened(self):
        for _ in range(5):
            self.call(PluginFailed("x"))
        assert self.breaker.state is State.OPEN
        return self

    def half_opened(self):
        """Let the recovery pass; it is half-open as soon as a call comes."""
        self.opened()
        self.clock.advance(30.0)
        return self


# What opens it.


def test_five_failures_in_a_row_open_it_and_the_sixth_call_is_refused():
    tried = Tried()
    for _ in range(4):
        tried.call(PluginFailed("no disk"))
    assert tried.breaker.state is State.CLOSED
    tried.call(PluginFailed("no disk"))
    assert (tried.breaker.state, tried.changes) == (State.OPEN, ["closed to open"])
    with pytest.raises(CircuitOpen) as caught:
        tried.begin()
    assert str(caught.value) == (
        "plugin 'p' is not called for now, its circuit opened because 5 calls in a row failed, the last one with: PluginFailed: no disk; "
        "it is tried again in 30.0 s. Mend what fails; a reload closes the circuit"
    )
    assert (caught.value.retry_after, caught.value.plugin, caught.value.request_id, caught.value.phase) == (
        30.0,
        "p",
        "id",
        "queue",
    )


def test_a_success_between_failures_begins_the_row_anew():
    tried = Tried()
    for _ in range(20):
        for _ in range(4):
            tried.call(PluginFailed("x"))
        tried.call()
    assert tried.changes == []


FAILURES = [PluginFailed("x"), PluginFailed("x", retryable=True), CallTimeout("x"), InvalidResponse("x")]
LOST = [WorkerLost, *WorkerLost.__subclasses__()]
NEITHER = [
    InvalidRequest("x"),
    Busy("x"),
    RateLimited("x"),
    Draining("x"),
    PluginClosed("x"),
    CircuitOpen("x"),
    CallCancelled("x"),
    CallTimeout("the timeout of 0 s had passed", phase="queue"),
    GateShut(),
    KeyboardInterrupt(),
    SystemExit(),
    GeneratorExit(),
    asyncio.CancelledError(),
]


def kind(error):
    return f"{type(error).__name__}{'-retryable' if getattr(error, 'retryable', False) else ''}"


@pytest.mark.parametrize("error", [*FAILURES, *(lost("x") for lost in LOST)], ids=kind)
def test_what_goes_wrong_in_the_plugin_is_a_failure(error):
    tried = Tried(failures=1)
    tried.call(error)
    assert tried.breaker.state is State.OPEN


@pytest.mark.parametrize("error", NEITHER, ids=kind)
def test_what_says_nothing_of_the_plugin_is_neither_failure_nor_success(error):
    tried = Tried(failures=2)
    tried.call(PluginFailed("x"))
    for _ in range(10):
        tried.call(error)
    assert tried.changes == []
    tried.call(PluginFailed("x"))
    assert tried.breaker.state is State.OPEN


def test_every_error_of_a_call_is_a_failure_or_is_not():
    def kinds(of):
        return {of}.union(*map(kinds, of.__subclasses__()))

    for of in kinds(CallError):
        tried = Tried(failures=1)
        tried.call(of("x"))
        opened = tried.breaker.state is State.OPEN
        assert opened is issubclass(of, (PluginFailed, CallTimeout, InvalidResponse, WorkerLost)), of


def test_a_plugins_own_errors_count_only_where_the_operator_says_so():
    tried = Tried(failures=1, plugin_errors=False)
    for _ in range(10):
        tried.call(PluginFailed("x"))
    assert tried.changes == []
    tried.call(CallTimeout("x"))
    assert tried.breaker.state is State.OPEN


def test_a_share_of_failures_within_the_window_opens_it_not_before_the_minimum():
    tried = Tried(failures=1000, failure_rate=0.5, window=10.0, minimum=10)
    for _ in range(4):
        tried.call()
        tried.call(CallTimeout("x"))
    tried.call()
    assert tried.changes == []  # 4 of 9
    tried.call(CallTimeout("x"))
    assert tried.changes == ["closed to open"]
    with pytest.raises(CircuitOpen, match="5 of 10 calls within 10 s failed, the last one with: CallTimeout: x"):
        tried.begin()


def test_what_lies_before_the_window_no_longer_counts():
    tried = Tried(failures=1000, failure_rate=0.5, window=10.0, minimum=4)
    for _ in range(3):
        tried.call(PluginFailed("x"))
    tried.clock.advance(10.0)
    for _ in range(4):
        tried.call()
    tried.call(PluginFailed("x"))
    assert tried.changes == []
    tried.clock.advance(1e9)
    for _ in range(3):
        tried.call(PluginFailed("x"))
    assert tried.changes == []
    tried.call(PluginFailed("x"))
    assert tried.changes == ["closed to open"]


def test_without_a_configuration_nothing_opens_it():
    breaker = Breaker(None)
    for _ in range(100):
        call, permit = new_call(), breaker.permit
        breaker.ended(call, permit, PluginFailed("x"))
    breaker.trip("unwell")
    assert (breaker.state, breaker.permit is None, breaker.uneasy) == (State.CLOSED, False, False)


def test_a_breaker_without_failures_asks_nothing_of_a_call():
    tried = Tried()
    assert (tried.breaker.permit is None, tried.breaker.uneasy) == (False, False)
    tried.call(PluginFailed("x"))
    assert tried.breaker.uneasy
    tried.call()
    assert not tried.breaker.uneasy


# Trying again.


def test_after_the_recovery_it_lets_one_call_through_and_closes_after_two_successes():
    tried = Tried().opened()
    tried.clock.advance(29.9)
    with pytest.raises(CircuitOpen, match=r"tried again in 0\.1 s"):
        tried.begin()
    tried.clock.advance(0.2)
    first = tried.begin()
    with pytest.raises(CircuitOpen, match="a call is just trying it again") as caught:
        tried.begin()
    assert caught.value.retry_after == 0.0
    tried.end(first)
    assert tried.breaker.state is State.HALF_OPEN
    tried.call()
    assert tried.changes == ["closed to open", "open to half-open", "half-open to closed"]
    for _ in range(4):
        tried.call(PluginFailed("x"))
    assert tried.breaker.state is State.CLOSED


def test_the_recovery_is_up_to_a_fifth_longer_than_said():
    tried = Tried(jitter=1.0, recovery=10.0).opened()
    tried.clock.advance(11.9)
    with pytest.raises(CircuitOpen):
        tried.begin()
    tried.clock.advance(0.2)
    tried.begin()


def test_one_failure_on_trial_opens_it_again_for_a_whole_recovery():
    tried = Tried(successes=3).half_opened()
    tried.call()
    tried.call(CallTimeout("x"))
    assert tried.breaker.state is State.OPEN
    tried.clock.advance(29.0)
    with pytest.raises(CircuitOpen, match="a call on trial failed: CallTimeout: x"):
        tried.begin()
    tried.clock.advance(1.0)
    for _ in range(3):  # what succeeded before the failure no longer counts
        assert tried.breaker.state is not State.CLOSED
        tried.call()
    assert tried.breaker.state is State.CLOSED


@pytest.mark.parametrize("error", NEITHER, ids=kind)
def test_whatever_ends_a_call_on_trial_leaves_its_place_free(error):
    tried = Tried().half_opened()
    for _ in range(5):
        tried.call(error)
        assert tried.breaker.state is State.HALF_OPEN
    tried.call()
    tried.call()
    assert tried.breaker.state is State.CLOSED


def test_a_call_on_trial_that_is_interrupted_before_it_has_its_permit_leaves_its_place_free():
    tried = Tried().half_opened()
    call = new_call()
    tried.breaker.admit(call)  # the Ctrl-C strikes before the permit is kept
    tried.breaker.ended(call, None, KeyboardInterrupt())
    tried.call()
    tried.call()
    assert tried.breaker.state is State.CLOSED


@pytest.mark.parametrize("late", [None, PluginFailed("x")], ids=["success", "failure"])
def test_what_becomes_of_a_call_from_an_earlier_period_does_not_count(late):
    tried = Tried()
    from_before = [tried.begin() for _ in range(3)]
    tried.half_opened()
    tried.end(from_before[0], late)  # open
    on_trial = tried.begin()
    for _ in range(2):
        tried.end(from_before[1], late)  # half-open
        assert tried.breaker.state is State.HALF_OPEN
    with pytest.raises(CircuitOpen):
        tried.begin()  # the place is still taken
    tried.end(on_trial)
    tried.call()
    tried.call(PluginFailed("x"))
    tried.end(from_before[2], late)  # closed again
    for _ in range(3):
        tried.call(PluginFailed("x"))
        assert tried.breaker.state is State.CLOSED
    tried.call(PluginFailed("x"))
    assert tried.breaker.state is State.OPEN


def test_exactly_as_many_of_sixteen_threads_pass_a_half_open_breaker_as_it_has_probes():
    for probes in (1, 3, 7):
        tried = Tried(probes=probes, successes=100).half_opened()
        together, outcomes = threading.Barrier(16), []

        def try_it(tried=tried, together=together, outcomes=outcomes):
            together.wait(20)
            try:
                outcomes.append(tried.begin())
            except CircuitOpen:
                outcomes.append(None)

        for _ in range(20):
            threads = [threading.Thread(target=try_it) for _ in range(16)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
            passed = [begun for begun in outcomes if begun is not None]
            assert (len(passed), len(outcomes)) == (probes, 16)
            for begun in passed:
                tried.end(begun, CallCancelled("x"))
            outcomes.clear()


# From outside.


def test_it_is_opened_and_closed_from_outside():
    tried = Tried()
    tried.breaker.trip("the plugin is unhealthy")
    tried.breaker.trip("again, which changes nothing")
    with pytest.raises(CircuitOpen, match="its circuit opened because the plugin is unhealthy; it is tried again in 30.0 s"):
        tried.begin()
    tried.breaker.reset()
    tried.breaker.reset()
    tried.call()
    assert tried.changes == ["closed to open", "open to closed"]


def test_a_reset_forgets_failures():
    tried = Tried()
    for _ in range(4):
        tried.call(PluginFailed("x"))
    tried.breaker.reset()
    for _ in range(4):
        tried.call(PluginFailed("x"))
    assert tried.breaker.state is State.CLOSED


def test_openings_because_a_call_took_too_long_are_counted():
    tried = Tried(failures=2)
    for first, second in [
        (CallTimeout, PluginFailed),
        (PluginFailed, CallTimeout),
        (CallTimeout, WorkerHung),
        (WorkerHung, WorkerLost),
    ]:
        tried.call(first("x"))
        tried.call(second("x"))
        tried.breaker.reset()
    assert tried.breaker.openings_by_overrun == 2
    tried.breaker.trip("unhealthy")
    assert tried.breaker.openings_by_overrun == 2


def test_a_call_that_never_returns_counts_once_and_its_end_no_more():
    tried = Tried(failures=3)
    begun = tried.begin()
    for _ in range(5):
        tried.breaker.overdue(begun[0], CallTimeout("x"))
    tried.end(begun, CallTimeout("x"))
    assert tried.breaker.state is State.CLOSED
    tried.call(CallTimeout("x"))
    tried.breaker.failed(WorkerHung("x"))
    assert (tried.breaker.state, tried.breaker.openings_by_overrun) == (State.OPEN, 1)


def test_a_late_success_of_an_overdue_call_takes_no_failure_back():
    tried = Tried(failures=2)
    begun = tried.begin()
    tried.breaker.overdue(begun[0], CallTimeout("x"))
    tried.end(begun)
    tried.call(CallTimeout("x"))
    assert tried.breaker.state is State.OPEN


def test_an_overdue_call_on_trial_opens_it_again():
    tried = Tried().half_opened()
    begun = tried.begin()
    tried.breaker.overdue(begun[0], CallTimeout("x"))
    assert tried.breaker.state is State.OPEN
    tried.clock.advance(30.0)
    tried.call()
    tried.end(begun)
    assert tried.breaker.state is State.HALF_OPEN


def test_another_configuration_closes_it_and_the_same_one_changes_nothing():
    tried = Tried().opened()
    tried.breaker.configure(BreakerConfig(failures=5, recovery=30.0))
    assert tried.breaker.state is State.OPEN
    tried.breaker.configure(BreakerConfig(failures=1))
    assert tried.breaker.state is State.CLOSED
    tried.call(PluginFailed("x"))
    assert tried.breaker.state is State.OPEN
    tried.breaker.configure(None)
    assert tried.changes[-2:] == ["closed to open", "open to closed"]
    for _ in range(10):
        tried.call(PluginFailed("x"))
    assert tried.breaker.state is State.CLOSED


def test_changes_are_told_in_order_and_whoever_is_told_may_change_it_again():
    told = []

    def react(before, after, why):
        told.append(after)
        if after is State.OPEN and len(told) < 6:
            breaker.reset()
        elif after is State.CLOSED and len(told) < 6:
            breaker.trip("again")

    breaker = Breaker(BreakerConfig(), on_change=react)
    breaker.trip("first")
    assert told == [State.OPEN, State.CLOSED] * 3


def test_changes_of_many_threads_follow_from_each_other():
    told = []
    breaker = Breaker(BreakerConfig(failures=1), on_change=lambda before, after, why: told.append((before, after)))

    def change():
        for _ in range(200):
            random.choice([breaker.reset, lambda: breaker.trip("x")])()

    threads = [threading.Thread(target=change) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert told[0][0] is State.CLOSED
    assert all(one[1] is other[0] for one, other in zip(told, told[1:]))
    assert told[-1][1] is breaker.state


# Against a model that keeps everything in lists.


class Model:
    """The rules, written down as simply as can be."""

    def __init__(self, config, clock):
        self.config, self.clock = config, clock
        self.state, self.period, self.try_at = "closed", 0, 0.0
        self.openings = 0
        self.begin_period()

    def begin_period(self, state=None):
        self.state = state or self.state
        self.period += 1
        self.row, self.good = 0, 0
        self.outcomes, self.trials = [], []

    def admits(self):
        if self.state == "open" and self.clock() >= self.try_at:
            self.begin_period("half-open")
        return self.state == "closed" or (self.state == "half-open" and len(self.trials) < self.config.probes)

    def end(self, call, period, outcome):
        if call in self.trials:
            self.trials.remove(call)
        if period != self.period or outcome == "neither":
            return
        width = self.config.window / 10
        self.outcomes.append((int(self.clock() / width), outcome))
        recent = [each for at, each in self.outcomes if at > int(self.clock() / width) - 10]
        if outcome == "success":
            self.row, self.good = 0, self.good + 1
            if self.state == "half-open" and self.good >= self.config.successes:
                self.begin_period("closed")
            return
        self.row += 1
        rate = self.config.failure_rate
        many = rate is not None and len(recent) >= self.config.minimum and recent.count("failure") >= rate * len(recent)
        if self.state == "half-open" or self.row >= self.config.failures or many:
            self.open()

    def open(self):
        self.try_at = self.clock() + self.config.recovery
        self.begin_period("open")


class Machine(RuleBasedStateMachine):
    begun = Bundle("begun")
    config = BreakerConfig()

    def __init__(self):
        super().__init__()
        self.tried = Tried(FakeClock(), **self.config.model_dump())
        self.model = Model(self.config, self.tried.clock)

    @rule(target=begun)
    def begin(self):
        admits = self.model.admits()
        try:
            call, permit = self.tried.begin()
        except CircuitOpen as error:
            assert not admits
            expected = max(0.0, self.model.try_at - self.tried.clock()) if self.model.state == "open" else 0.0
            assert error.retry_after == expected
            return None
        assert admits
        if self.model.state == "half-open":
            self.model.trials.append(call)
        return call, permit, self.model.period

    @rule(begun=consumes(begun))
    def succeed(self, begun):
        self._end(begun, None, "success")

    @rule(begun=consumes(begun), error=st.sampled_from(FAILURES))
    def fail(self, begun, error):
        self._end(begun, error, "failure")

    @rule(begun=consumes(begun), error=st.sampled_from(NEITHER))
    def end_otherwise(self, begun, error):
        self._end(begun, error, "neither")

    def _end(self, begun, error, outcome):
        if begun is not None:
            call, permit, period = begun
            self.tried.end((call, permit), error)
            self.model.end(call, period, outcome)

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 12.0]))
    def pass_time(self, seconds):
        self.tried.clock.advance(seconds)

    @rule()
    def trip(self):
        self.tried.breaker.trip("unhealthy")
        if self.model.state != "open":
            self.model.open()

    @rule()
    def reset(self):
        self.tried.breaker.reset()
        self.model.begin_period("closed")

    @precondition(lambda self: self.model.state != "open")
    @rule()
    def fail_without_a_call(self):
        self.tried.breaker.failed(CallTimeout("x"))
        self.model.end(None, self.model.period, "failure")

    @invariant()
    def agree(self):
        assert self.tried.breaker.state.value == self.model.state

    @invariant()
    def a_row_of_changes(self):
        changes = [change.split(" to ") for change in self.tried.changes]
        assert all(one[1] == other[0] for one, other in zip(changes, changes[1:]))

    @invariant()
    def nobody_is_asked_without_need(self):
        breaker = self.tried.breaker
        assert (breaker.permit is None) == (self.model.state != "closed")
        if not breaker.uneasy:
            assert (self.model.state, self.model.row, self.config.failure_rate) == ("closed", 0, None)


@pytest.mark.parametrize(
    "config",
    [
        {"failures": 3, "recovery": 5.0},
        {"failures": 2, "recovery": 5.0, "probes": 3, "successes": 4},
        {"failures": 50, "failure_rate": 0.5, "minimum": 4, "window": 10.0, "recovery": 5.0},
    ],
    ids=["in-a-row", "probes", "rate"],
)
def test_it_does_what_a_simple_model_does(config):
    class Configured(Machine):
        pass

    Configured.config = BreakerConfig(**config)
    run_state_machine_as_test(Configured, settings=settings(max_examples=60, stateful_step_count=50, deadline=None))


# Around plugins, in every place.

WAYWARD = """
    import os, time
    from pydantic import BaseModel
    class Request(BaseModel):
        op: str
        begun: str = ""
        go: str = ""
    class P:
        def execute(self, ctx, request: Request):
            if request.begun:
                open(request.begun, "w").close()
            if request.op == "fail":
                raise ValueError("no disk")
            if request.op == "wait":
                while not ctx.cancelled and not os.path.exists(request.go):
                    time.sleep(0.002)
            return request.op
"""

STREAMING = """
    class P:
        def execute(self, ctx, request):
            for number in range(3):
                if request == "fail" and number == 2:
                    raise ValueError("no disk")
                yield number
"""


class Around:
    """A host with a plugin of whose breaker the clock goes when told."""

    def __init__(self, host, name, isolation, place, until):
        self.host, self.name, self.place = host, name, place
        self.until = until
        self.events = []
        host.subscribe(self.events.append)
        host.load(name, isolation=isolation)
        self.breaker = host._loader.record(name).breaker
        self.clock = self.breaker._clock = FakeClock()
        self.breaker._jitter = lambda: 0.0

    def call(self, op, **options):
        return self.host.execute(self.name, {"op": op}, **options)

    def fails(self, times=5):
        for _ in range(times):
            with pytest.raises(PluginFailed):
                self.call("fail")

    def begin(self):
        """Submit a call and return when the plugin has begun with it; it ends when the file is there that is returned, too."""
        begun, go = (self.place / f"{word}-{time.monotonic_ns()}" for word in ("begun", "go"))
        future = self.host.submit(self.name, {"op": "wait", "begun": str(begun), "go": str(go)})
        self.until(begun.exists)
        return future, go

    def half_opened(self):
        self.fails()
        self.clock.advance(30.0)
        return self

    def closes_after_two(self):
        """It is half-open, or about to be, with its place free: two successes close it."""
        assert self.breaker.state is not State.CLOSED
        assert self.call("fine") == self.call("fine") == "fine"
        assert self.breaker.state is State.CLOSED


@pytest.fixture
def around(install, new_host, isolation, tmp_path, until):
    def make(source=WAYWARD, **table):
        install("wayward", source)
        return Around(new_host(config={"plugins": {"wayward": table}}), "wayward", isolation, tmp_path, until)

    return make


def test_a_plugin_that_keeps_failing_is_left_alone_and_tried_again(around):
    there = around()
    there.fails()
    with pytest.raises(CircuitOpen, match="5 calls in a row failed, the last one with: PluginFailed: .*no disk") as caught:
        there.call("fine")
    assert (caught.value.retry_after, caught.value.plugin) == (30.0, "wayward")
    assert caught.value.request_id
    there.clock.advance(30.0)
    there.closes_after_two()
    changes = [(event.before, event.after) for event in there.events if isinstance(event, hostkit.BreakerChanged)]
    assert changes == [("closed", "open"), ("open", "half-open"), ("half-open", "closed")]


def test_requests_that_a_plugin_can_not_take_never_open_its_circuit(around):
    there = around()
    for _ in range(10):
        with pytest.raises(InvalidRequest):
            there.host.execute("wayward", {"op": [1]})
        with pytest.raises(CallTimeout):
            there.call("fine", timeout=0)
    assert there.call("fine") == "fine"


def test_a_plugin_whose_breaker_is_off_may_fail_for_ever(around):
    there = around(breaker=False)
    there.fails(20)
    assert there.call("fine") == "fine"


def test_a_reload_closes_the_circuit(around):
    there = around()
    there.fails()
    there.host.reload("wayward")
    assert there.call("fine") == "fine"
    assert there.breaker.state is State.CLOSED


def test_a_refusal_below_a_half_open_breaker_leaves_the_place_free_and_a_late_success_closes_nothing(around):
    there = around(concurrency=1)
    running, go = there.begin()
    there.breaker.trip("unhealthy")
    there.clock.advance(30.0)
    with pytest.raises(Busy):
        there.call("fine", timeout=0.05)
    go.touch()
    assert running.result(10) == "wait"
    there.closes_after_two()


def test_a_cancelled_task_leaves_the_place_of_a_half_open_breaker_free(around):
    there = around().half_opened()

    async def give_up():
        begun = there.place / "begun-by-task"
        request = {"op": "wait", "begun": str(begun), "go": str(there.place / "never")}
        task = asyncio.create_task(there.host.aexecute("wayward", request))
        while not begun.exists():
            await asyncio.sleep(0.002)
        with pytest.raises(CircuitOpen):
            await there.host.aexecute("wayward", {"op": "fine"})
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(give_up())
    there.closes_after_two()


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals reach the main thread alone")
def test_a_ctrl_c_leaves_the_place_of_a_half_open_breaker_free(around, until):
    there = around().half_opened()
    begun = there.place / "begun-by-main"

    def interrupt():
        until(begun.exists)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        there.host.execute("wayward", {"op": "wait", "begun": str(begun), "go": str(there.place / "never")})
    thread.join(10)
    there.closes_after_two()


def test_a_future_that_is_cancelled_leaves_the_place_of_a_half_open_breaker_free(around, until):
    there = around().half_opened()
    running, _ = there.begin()
    assert running.cancel()
    until(lambda: not there.breaker._trials)
    there.closes_after_two()


def test_streams_count_at_their_end_and_one_that_is_closed_early_leaves_its_place_free(around, until):
    there = around(STREAMING)
    stream = there.host.stream
    for _ in range(5):
        with pytest.raises(PluginFailed):
            list(stream("wayward", "fail"))
    with pytest.raises(CircuitOpen):
        list(stream("wayward", "fine"))
    there.clock.advance(30.0)
    for _ in range(3):
        items = stream("wayward", "fine")
        assert next(items) == 0
        items.close()

    async def some():
        async for item in there.host.astream("wayward", "fine"):
            return item

    assert asyncio.run(some()) == 0
    until(lambda: not there.breaker._trials)
    assert there.breaker.state is State.HALF_OPEN
    assert list(stream("wayward", "fine")) == [0, 1, 2]

    async def everything():
        return [item async for item in there.host.astream("wayward", "fine")]

    assert asyncio.run(everything()) == [0, 1, 2]
    assert there.breaker.state is State.CLOSED


def test_calls_of_tasks_open_the_circuit_and_close_it(around):
    there = around()

    async def calls():
        for _ in range(5):
            with pytest.raises(PluginFailed):
                await there.host.aexecute("wayward", {"op": "fail"})
        with pytest.raises(CircuitOpen):
            await there.host.aexecute("wayward", {"op": "fine"})
        there.clock.advance(30.0)
        assert await there.host.aexecute("wayward", {"op": "fine"}) == "fine"
        assert await there.host.aexecute("wayward", {"op": "fine"}) == "fine"

    asyncio.run(calls())
    assert there.breaker.state is State.CLOSED


class Specs:
    @hostkit.hookspec
    def ask(self, word: str) -> str: ...


HOOKED = """
    import hostkit
    class P:
        @hostkit.hookimpl
        def ask(self, word: str) -> str:
            if word == "fail":
                raise ValueError("no disk")
            return word
"""


def test_hooks_that_fail_open_the_circuit_of_their_plugin(install, new_host, isolation, tmp_path, until):
    install("wayward", HOOKED)
    there = Around(new_host(hookspecs=[Specs]), "wayward", isolation, tmp_path, until)
    for _ in range(5):
        with pytest.raises(PluginFailed):
            there.host.hook.ask(word="fail")
    with pytest.raises(CircuitOpen):
        there.host.hook.ask(word="fine")
    there.clock.advance(30.0)
    assert there.host.hook.ask(word="fine") == there.host.hook.ask(word="fine") == ["fine"]
    assert there.breaker.state is State.CLOSED


def test_exactly_the_probes_of_many_callers_pass_a_half_open_breaker(around, until):
    there = around(breaker={"probes": 2}, concurrency=4)
    there.fails()
    there.clock.advance(30.0)
    go = there.place / "go-all"
    request = {"op": "wait", "go": str(go)}
    calls = [there.host.submit("wayward", request) for _ in range(12)]
    until(lambda: sum(call.done() for call in calls) == 10)
    go.touch()
    outcomes = Counter(type(call.exception(10)).__name__ for call in calls)
    assert outcomes == {"CircuitOpen": 10, "NoneType": 2}


def test_a_changed_configuration_holds_at_once_and_an_unchanged_table_keeps_what_was_counted(around):
    there = around()
    record = there.host._loader.record("wayward")
    there.fails(4)
    configured = HostConfig.model_validate({"plugins": {"wayward": {"timeout": "7s"}}}).plugin("wayward")
    record.configure(configured)
    there.fails(1)
    with pytest.raises(CircuitOpen):
        there.call("fine")
    record.configure(HostConfig.model_validate({"plugins": {"wayward": {"breaker": {"failures": 2}}}}).plugin("wayward"))
    there.fails(2)
    with pytest.raises(CircuitOpen):
        there.call("fine")
    record.configure(HostConfig.model_validate({"plugins": {"wayward": {"breaker": False}}}).plugin("wayward"))
    there.fails(10)
