"""The bulkhead: never more calls than the operator allows, in order of arrival, and nobody waits in vain."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

import hostkit
from hostkit import Busy, CallCancelled, Draining, ExecutionContext, PluginClosed
from hostkit._bulkhead import Bulkhead
from hostkit._config import BulkheadConfig, HostConfig
from hostkit._contract import Caller
from hostkit._idle import LoopWaiter, ThreadWaiter


def new_call(timeout=30.0):
    return ExecutionContext("id", timeout, _caller=Caller("p", "x-"))


def never():
    return False


def entered(bulkhead, call):
    """Enter as a record does it, on this thread."""
    if not bulkhead.enter(call, ThreadWaiter):
        bulkhead.wait(call, never)


# By itself.


def test_a_full_bulkhead_without_a_queue_is_busy_at_once_and_says_why():
    bulkhead = Bulkhead(BulkheadConfig(calls=2))
    for _ in range(2):
        entered(bulkhead, new_call())
    began = time.monotonic()
    with pytest.raises(Busy) as caught:
        entered(bulkhead, new_call())
    assert time.monotonic() - began < 1.0
    assert str(caught.value) == (
        "plugin 'p' takes 2 calls at a time (bulkhead.calls) and lets 0 more wait (bulkhead.queue): all these places are taken; "
        "make fewer calls at once, or raise the limit"
    )
    assert (caught.value.plugin, caught.value.request_id, caught.value.phase) == ("p", "id", "queue")


def test_whoever_waits_too_long_is_told_which_limit_it_was():
    bulkhead = Bulkhead(BulkheadConfig(calls=1, queue=1, queue_timeout=0.02))
    entered(bulkhead, new_call())
    with pytest.raises(Busy, match=r"no place became free within 0\.02 s \(bulkhead\.queue_timeout\)"):
        entered(bulkhead, new_call())
    bulkhead.configure(BulkheadConfig(calls=1, queue=1, queue_timeout=20.0))
    with pytest.raises(Busy, match=r"no place became free within the 0\.03 s of this call"):
        entered(bulkhead, new_call(0.03))
    assert bulkhead.waiting == 0


def test_a_call_that_has_a_place_keeps_it_and_leaving_twice_gives_it_back_once():
    bulkhead, call = Bulkhead(BulkheadConfig(calls=1)), new_call()
    entered(bulkhead, call)
    assert call in bulkhead.inside
    bulkhead.leave(new_call())
    with pytest.raises(Busy):
        entered(bulkhead, new_call())
    bulkhead.leave(call)
    bulkhead.leave(call)
    entered(bulkhead, new_call())
    with pytest.raises(Busy):
        entered(bulkhead, new_call())


def test_threads_and_tasks_get_their_turns_in_one_order(until):
    bulkhead, turns = Bulkhead(BulkheadConfig(calls=1, queue=100)), []
    first = new_call()
    entered(bulkhead, first)

    def by_thread(number):
        call = new_call()
        entered(bulkhead, call)
        turns.append(number)
        bulkhead.leave(call)

    async def by_task(number):
        call = new_call()
        if not bulkhead.enter(call, LoopWaiter):
            await bulkhead.await_turn(call, never)
        turns.append(number)
        bulkhead.leave(call)

    threads = [
        threading.Thread(
            target=by_thread if number % 2 else lambda number=number: asyncio.run(by_task(number)), args=(number,) * (number % 2)
        )
        for number in range(10)
    ]
    for waiting, thread in enumerate(threads, 1):
        thread.start()
        until(lambda waiting=waiting: bulkhead.waiting == waiting)
    bulkhead.leave(first)
    for thread in threads:
        thread.join(10)
    assert turns == list(range(10))


def test_a_place_that_is_handed_to_a_closed_loop_goes_to_the_next_in_line(until):
    bulkhead = Bulkhead(BulkheadConfig(calls=1, queue=5))
    first, lost, last = new_call(), new_call(), new_call()
    entered(bulkhead, first)

    async def line_up():
        assert not bulkhead.enter(lost, LoopWaiter)

    asyncio.run(line_up())
    thread = threading.Thread(target=entered, args=(bulkhead, last))
    thread.start()
    until(lambda: bulkhead.waiting == 2)
    bulkhead.leave(first)
    thread.join(10)
    assert (last in bulkhead.inside, lost in bulkhead.inside) == (True, False)


def test_a_call_cancelled_in_line_leaves_it_and_one_cancelled_just_before_does_not_wait(until):
    bulkhead = Bulkhead(BulkheadConfig(calls=1, queue=1))
    entered(bulkhead, new_call())
    call, errors = new_call(), []

    def wait():
        try:
            entered(bulkhead, call)
        except CallCancelled as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: bulkhead.waiting == 1)
    call._cancelled = True
    bulkhead.cancel(call)
    thread.join(10)
    assert (len(errors), bulkhead.waiting) == (1, 0)
    other = new_call()
    assert not bulkhead.enter(other, ThreadWaiter)
    other._cancelled = True  # and whoever cancelled it didn't know yet where it waits
    with pytest.raises(CallCancelled):
        bulkhead.wait(other, never)
    assert bulkhead.waiting == 0


def test_a_call_that_lines_up_just_when_its_plugin_is_shut_is_told_so():
    bulkhead = Bulkhead(BulkheadConfig(calls=1, queue=1))
    entered(bulkhead, new_call())
    late, began = new_call(), time.monotonic()
    assert not bulkhead.enter(late, ThreadWaiter)
    with pytest.raises(Draining):
        bulkhead.wait(late, lambda: True)
    assert time.monotonic() - began < 5.0
    assert bulkhead.waiting == 0


def test_a_place_that_becomes_free_while_a_call_lines_up_is_its_own():
    bulkhead, first, second = Bulkhead(BulkheadConfig(calls=1, queue=5)), new_call(), new_call()
    entered(bulkhead, first)

    def meanwhile():
        bulkhead.leave(first)
        return ThreadWaiter()

    assert bulkhead.enter(second, meanwhile)
    assert bulkhead.inside == {second}


def test_nobody_overtakes_those_in_line_while_a_place_is_handed_on():
    bulkhead, first, second, third = Bulkhead(BulkheadConfig(calls=1, queue=5)), new_call(), new_call(), new_call()
    entered(bulkhead, first)
    assert not bulkhead.enter(second, ThreadWaiter)
    bulkhead.inside.discard(first)  # it is just leaving
    assert not bulkhead.enter(third, ThreadWaiter)
    bulkhead.leave(first)
    assert (bulkhead.inside, bulkhead.waiting) == ({second}, 1)


def test_another_limit_holds_at_once_for_those_in_line_too(until):
    bulkhead = Bulkhead(BulkheadConfig(calls=1, queue=5))
    calls = [new_call() for _ in range(4)]
    entered(bulkhead, calls[0])
    threads = [threading.Thread(target=entered, args=(bulkhead, call)) for call in calls[1:]]
    for waiting, thread in enumerate(threads, 1):
        thread.start()
        until(lambda waiting=waiting: bulkhead.waiting == waiting)
    bulkhead.configure(BulkheadConfig(calls=3, queue=5))
    for thread in threads[:2]:
        thread.join(10)
    assert [call in bulkhead.inside for call in calls] == [True, True, True, False]
    bulkhead.configure(BulkheadConfig(calls=2, queue=5))
    bulkhead.leave(calls[0])
    assert [call in bulkhead.inside for call in calls] == [False, True, True, False]  # fewer than before, so nobody comes in
    bulkhead.configure(None)
    threads[2].join(10)
    assert calls[3] in bulkhead.inside
    for _ in range(10):
        entered(bulkhead, new_call())


def test_many_threads_and_tasks_are_never_more_than_allowed_and_none_is_lost():
    bulkhead, inside, most, ended = Bulkhead(BulkheadConfig(calls=3, queue=1000)), [], [], []

    def check(number):
        inside.append(number)
        most.append(len(inside))

    def over(call, number):
        inside.remove(number)
        bulkhead.leave(call)
        ended.append(number)

    def by_thread(seed):
        dice = random.Random(seed)
        for turn in range(40):
            call = new_call(0.0 if dice.random() < 0.1 else 30.0)
            try:
                entered(bulkhead, call)
            except Busy:
                bulkhead.leave(call)
                ended.append((seed, turn))
                continue
            check((seed, turn))
            threading.Event().wait(dice.random() * 0.002)
            over(call, (seed, turn))

    async def task(seed, turn, dice):
        call = new_call()
        try:
            if not bulkhead.enter(call, LoopWaiter):
                await bulkhead.await_turn(call, never)
        except asyncio.CancelledError:
            bulkhead.leave(call)
            ended.append((seed, turn))
            raise
        check((seed, turn))
        try:
            await asyncio.sleep(dice.random() * 0.002)
        finally:
            over(call, (seed, turn))

    async def tasks(seed):
        dice = random.Random(seed)
        made = [asyncio.create_task(task(seed, turn, dice)) for turn in range(40)]
        for one in made:
            await asyncio.sleep(dice.random() * 0.002)
            if dice.random() < 0.3:
                one.cancel()
        await asyncio.wait(made, timeout=20)
        # One that is cancelled before it ran has done nothing at all.
        ended.extend((seed, turn) for turn, one in enumerate(made) if one.cancelled() and (seed, turn) not in ended)

    threads = [threading.Thread(target=by_thread, args=(seed,)) for seed in range(4)]
    threads += [threading.Thread(target=lambda seed=seed: asyncio.run(tasks(seed))) for seed in range(4, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert max(most) <= 3
    assert sorted(ended) == [(seed, turn) for seed in range(6) for turn in range(40)]
    assert (bulkhead.waiting, len(bulkhead.inside)) == (0, 0)


class Machine(RuleBasedStateMachine):
    """One thread: who is inside and who waits follows from who came and left, in order."""

    def __init__(self):
        super().__init__()
        self.config = BulkheadConfig(calls=2, queue=3)
        self.bulkhead = Bulkhead(self.config)
        self.inside, self.line = [], []

    def _come_in(self):
        while self.line and len(self.inside) < self.config.calls:
            self.inside.append(self.line.pop(0))

    @rule()
    def enter(self):
        call = new_call()
        try:
            inside = self.bulkhead.enter(call, ThreadWaiter)
        except Busy:
            assert len(self.inside) >= self.config.calls
            assert len(self.line) >= self.config.queue
            return
        (self.inside if len(self.inside) < self.config.calls and not self.line else self.line).append(call)
        assert inside is (call in self.inside)

    @rule(data=st.data())
    def leave(self, data):
        everybody = self.inside + self.line
        if everybody:
            call = data.draw(st.sampled_from(everybody))
            self.bulkhead.leave(call)
            (self.inside if call in self.inside else self.line).remove(call)
            self._come_in()

    @rule(data=st.data())
    def cancel(self, data):
        if self.line:
            call = data.draw(st.sampled_from(self.line))
            call._cancelled = True
            self.bulkhead.cancel(call)
            self.line.remove(call)

    @rule()
    def turn_away(self):
        self.bulkhead.turn_away()
        self.line.clear()

    @rule(calls=st.integers(1, 5), queue=st.integers(0, 5))
    def configure(self, calls, queue):
        self.config = BulkheadConfig(calls=calls, queue=queue)
        self.bulkhead.configure(self.config)
        self._come_in()

    @invariant()
    def agree(self):
        assert self.bulkhead.inside == set(self.inside)
        assert list(self.bulkhead._line) == self.line


def test_who_is_inside_follows_from_who_came_and_left():
    run_state_machine_as_test(Machine, settings=settings(max_examples=60, stateful_step_count=50, deadline=None))


# Around plugins, in every place.

WAITING = """
    import os, time
    import hostkit
    class P:
        def execute(self, ctx, request):
            begun, go = request
            if begun:
                open(begun, "w").close()
            while not ctx.cancelled and go and not os.path.exists(go):
                time.sleep(0.002)
            return "done"
"""


class Around:
    """A host with a plugin that takes one call at a time, whatever its concurrency."""

    def __init__(self, host, isolation, place, until):
        self.host, self.isolation, self.place = host, isolation, place
        self.until = until
        host.load("waiting", isolation=isolation)
        self.record = host._loader.record("waiting")

    @property
    def in_line(self):
        return self.record._policies.bulkhead.waiting

    def begin(self):
        """Submit a call and return when the plugin has begun with it; it ends when the file is there that is returned, too."""
        begun, go = (self.place / f"{word}-{time.monotonic_ns()}" for word in ("begun", "go"))
        future = self.host.submit("waiting", [str(begun), str(go)])
        self.until(begun.exists)
        return future, go

    def line_up(self, count=1, **options):
        before = self.in_line
        calls = [self.host.submit("waiting", ["", ""], **options) for _ in range(count)]
        self.until(lambda: self.in_line == before + count)
        return calls


@pytest.fixture
def around(install, new_host, isolation, tmp_path, until):
    def make(source=WAITING, *, calls=1, queue=10, queue_timeout=None, **table):
        install("waiting", source)
        bulkhead = {"calls": calls, "queue": queue, **({} if queue_timeout is None else {"queue_timeout": queue_timeout})}
        config = {"plugins": {"waiting": {"concurrency": 4, "bulkhead": bulkhead, **table}}}
        return Around(new_host(config=config), isolation, tmp_path, until)

    return make


def test_a_plugin_gets_no_more_calls_at_a_time_than_its_bulkhead_lets_in(around):
    there = around(queue=1)
    running, go = there.begin()
    waiting = there.line_up()
    with pytest.raises(Busy, match="takes 1 calls at a time"):
        there.host.execute("waiting", ["", ""])
    go.touch()
    assert running.result(10) == waiting[0].result(10) == "done"
    assert there.host.execute("waiting", ["", ""]) == "done"


def test_a_call_in_line_is_busy_after_the_queue_timeout_or_at_its_own_deadline(around):
    there = around(queue_timeout="50ms")
    running, go = there.begin()
    with pytest.raises(Busy, match="queue_timeout"):
        there.host.execute("waiting", ["", ""])
    with pytest.raises(Busy, match="of this call"):
        there.host.execute("waiting", ["", ""], timeout=0.02)

    async def call():
        await there.host.aexecute("waiting", ["", ""])

    with pytest.raises(Busy, match="queue_timeout"):
        asyncio.run(call())
    go.touch()
    assert running.result(10) == "done"


def test_a_future_that_is_cancelled_in_line_leaves_it_and_its_call_never_begins(around, until):
    there = around(queue=1)
    running, go = there.begin()
    begun = there.place / "begun-all-the-same"
    waiting = there.host.submit("waiting", [str(begun), ""])
    until(lambda: there.in_line == 1)
    assert waiting.cancel()
    until(lambda: there.in_line == 0)
    later = there.line_up()
    go.touch()
    assert running.result(10) == later[0].result(10) == "done"
    assert not begun.exists()


def test_a_task_that_is_cancelled_in_line_leaves_it(around):
    there = around(queue=1)
    running, go = there.begin()

    async def give_up():
        task = asyncio.create_task(there.host.aexecute("waiting", ["", ""]))
        while not there.in_line:
            await asyncio.sleep(0.002)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert there.in_line == 0
        other = asyncio.create_task(there.host.aexecute("waiting", ["", ""]))
        while not there.in_line:
            await asyncio.sleep(0.002)
        go.touch()
        return await other

    assert asyncio.run(give_up()) == "done"
    assert running.result(10) == "done"


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals reach the main thread alone")
def test_a_ctrl_c_in_line_leaves_it(around, until):
    there = around()
    running, go = there.begin()

    def interrupt():
        until(lambda: there.in_line == 1)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        there.host.execute("waiting", ["", ""])
    thread.join(10)
    assert there.in_line == 0
    go.touch()
    assert running.result(10) == there.host.execute("waiting", ["", ""]) == "done"


STREAMING = """
    class P:
        def execute(self, ctx, request):
            yield from range(3)
"""


def test_a_stream_has_its_place_until_its_end(around):
    there = around(STREAMING, queue=0)
    items = there.host.stream("waiting", None)
    assert next(items) == 0
    with pytest.raises(Busy):
        list(there.host.stream("waiting", None))

    async def first():
        async for item in there.host.astream("waiting", None):
            return item

    with pytest.raises(Busy):
        asyncio.run(first())
    items.close()
    assert list(there.host.stream("waiting", None)) == [0, 1, 2]


class Specs:
    @hostkit.hookspec
    def ask(self, word: str) -> str: ...


HOOKED = """
    import os, time
    import hostkit
    class P:
        @hostkit.hookimpl
        def ask(self, word: str) -> str:
            if word:
                open(word, "w").close()
                while os.path.exists(word):
                    time.sleep(0.002)
            return "heard"
"""


def test_hooks_are_bounded_too(install, new_host, isolation, tmp_path, until):
    install("waiting", HOOKED)
    host = new_host(hookspecs=[Specs], config={"plugins": {"waiting": {"concurrency": 4, "bulkhead": {"calls": 1}}}})
    host.load("waiting", isolation=isolation)
    file, answers = tmp_path / "begun", []
    thread = threading.Thread(target=lambda: answers.append(host.hook.ask(word=str(file))))
    thread.start()
    until(file.exists)
    with pytest.raises(Busy):
        host.hook.ask(word="")
    file.unlink()
    thread.join(10)
    assert answers == [["heard"]]
    assert host.hook.ask(word="") == ["heard"]


@pytest.mark.parametrize("step", ["drain", "unload", "close"])
def test_calls_in_line_are_sent_away_at_once_when_their_plugin_takes_no_more(around, step):
    there = around()
    running, go = there.begin()
    waiting = there.line_up(3)
    taking = {
        "drain": lambda: there.host.drain("waiting", 20),
        "unload": lambda: there.host.unload("waiting", timeout=20),
        "close": lambda: there.host.close(20),
    }
    thread = threading.Thread(target=taking[step])
    thread.start()
    for call in waiting:
        assert isinstance(call.exception(10), (Draining, PluginClosed))
    assert not running.done()
    go.touch()
    assert running.result(10) == "done"
    thread.join(20)


def test_calls_in_line_go_to_the_new_place_after_a_reload_in_their_order(around, until):
    there = around(rate={"per_second": 0.001, "burst": 100})
    running, go = there.begin()
    waiting = there.line_up(3)
    elsewhere = "none" if there.isolation == "process" else "process"
    reload = threading.Thread(target=there.host.reload, args=("waiting",), kwargs={"isolation": elsewhere})
    reload.start()
    until(lambda: there.record.lane.decided.isolation == elsewhere)
    assert there.in_line == 3  # they stay where they are
    go.touch()
    assert [call.result(10) for call in waiting] == ["done"] * 3
    assert running.result(10) == "done"
    reload.join(10)
    # A turn of the rate for each call, not one for each look.
    assert there.record._policies.rate._tokens == pytest.approx(96, abs=0.5)


def test_another_limit_holds_under_traffic(around):
    there = around()
    running, go = there.begin()
    waiting = there.line_up(2)
    there.record.configure(
        HostConfig.model_validate({"plugins": {"waiting": {"bulkhead": {"calls": 2, "queue": 5}}}}).plugin("waiting")
    )
    assert [call.result(10) for call in waiting] == ["done", "done"]
    assert not running.done()
    there.record.configure(HostConfig().plugin("waiting"))
    more = [there.host.submit("waiting", ["", ""]) for _ in range(5)]
    assert [call.result(10) for call in more] == ["done"] * 5
    go.touch()
    assert running.result(10) == "done"


def test_a_bulkhead_that_is_configured_later_counts_what_comes_from_then_on(around, install, new_host, tmp_path, isolation, until):
    install("waiting", WAITING)
    there = Around(new_host(config={"plugins": {"waiting": {"concurrency": 4}}}), isolation, tmp_path, until)
    before, go_before = there.begin()
    there.record.configure(HostConfig.model_validate({"plugins": {"waiting": {"bulkhead": {"calls": 1}}}}).plugin("waiting"))
    running, go = there.begin()
    with pytest.raises(Busy):
        there.host.execute("waiting", ["", ""])
    go.touch()
    go_before.touch()
    assert before.result(10) == running.result(10) == "done"
    assert there.host.execute("waiting", ["", ""]) == "done"


UNHURRIED = """
    import asyncio, time
    class P:
        inside = 0
        {form} execute(self, ctx, request):
            self.inside += 1
            try:
                yield self.inside
                yield self.inside
            finally:
                {pause}
                self.inside -= 1
"""


@pytest.mark.parametrize("isolation", ["none"], indirect=True)  # a worker ends it by itself: who gave it up waits for nothing
@pytest.mark.parametrize("form", ["def", "async def"])
def test_a_stream_that_is_closed_early_has_its_place_until_the_plugin_has_ended_it(around, form):
    there = around(UNHURRIED.format(form=form, pause="time.sleep(0.1)" if form == "def" else "await asyncio.sleep(0.1)"), queue=0)

    async def again_and_again():
        for _ in range(3):
            items = there.host.astream("waiting", None)
            assert await anext(items) == 1
            await items.aclose()

    asyncio.run(again_and_again())
    for _ in range(3):
        items = there.host.stream("waiting", None)
        assert next(items) == 1
        items.close()
