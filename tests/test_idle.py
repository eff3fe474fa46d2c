"""What only one caller can have at a time is handed over in order, and never lost."""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from hostkit._deadline import Deadline
from hostkit._idle import Idle, NothingIdle

NOW, SOON, LATER = Deadline.after(0.0), 0.02, 10.0


def idle(*things):
    made = Idle()
    for thing in things:
        made.give(thing)
    return made


def waiting(made, count):
    """Let so many callers stand in the queue, whoever they are."""
    end = time.monotonic() + 10
    while len(made._waiting) < count:
        assert time.monotonic() < end, "nobody came to wait"
        threading.Event().wait(0.001)


def taker(made, taken, name, deadline=LATER):
    """Take a thing on a thread of its own and note who got what."""

    def run():
        try:
            taken.append((name, made.take(Deadline.after(deadline))))
        except Exception as error:  # what it raised is the result
            taken.append((name, type(error)))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_the_last_thing_given_back_is_the_first_one_taken():
    made = idle(1, 2, 3)
    assert [made.take(NOW) for _ in range(3)] == [3, 2, 1]


def test_nothing_idle_is_said_at_the_deadline_and_not_before():
    made = idle()
    with pytest.raises(NothingIdle):
        made.take(NOW)
    began = time.monotonic()
    with pytest.raises(NothingIdle):
        made.take(Deadline.after(0.05))
    assert time.monotonic() - began >= 0.05
    made.give(1)
    assert made.take(NOW) == 1


@pytest.mark.parametrize("seconds", [None, math.inf, 1e12, 1e300])
def test_a_deadline_of_any_length_can_be_waited_for(seconds):
    made, taken = idle(), []
    thread = threading.Thread(target=lambda: taken.append(made.take(Deadline.after(seconds))))
    thread.start()
    waiting(made, 1)
    made.give("x")
    thread.join(10)
    assert taken == ["x"]


def test_callers_are_served_in_the_order_in_which_they_came():
    made, taken, threads = idle(), [], []
    for name in range(8):
        threads.append(taker(made, taken, name))
        waiting(made, name + 1)
    for thing in "abcdefgh":
        made.give(thing)
        until = time.monotonic() + 10
        while len(taken) <= "abcdefgh".index(thing) and time.monotonic() < until:
            threading.Event().wait(0.001)
    assert taken == list(enumerate("abcdefgh"))
    for thread in threads:
        thread.join()


def test_nobody_who_comes_later_overtakes_one_who_waits():
    made, taken = idle(), []
    thread = taker(made, taken, "first")
    waiting(made, 1)
    made.give(1)
    with pytest.raises(NothingIdle):
        made.take(NOW)
    thread.join(10)
    assert taken == [("first", 1)]


def test_no_caller_starves_before_one_thing():
    made, turns, stop = idle(), [0] * 8, threading.Event()

    def work(number):
        while not stop.is_set():
            thing = made.take(Deadline.after(LATER))
            turns[number] += 1
            if turns[number] == 100:
                stop.set()
            made.give(thing)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    waiting(made, 8)
    made.give("only")
    for thread in threads:
        thread.join(20)
    assert min(turns) >= 99


def test_one_who_gave_up_is_passed_over():
    made, taken = idle(), []
    with pytest.raises(NothingIdle):
        made.take(Deadline.after(SOON))
    thread = taker(made, taken, "second")
    waiting(made, 1)
    made.give(1)
    thread.join(10)
    assert taken == [("second", 1)]


def test_what_is_handed_over_in_the_very_moment_of_giving_up_is_not_lost():
    made = idle()

    class Handing(Deadline):
        def wait(self):
            made.give("just in time")
            return 0.0

    assert made.take(Handing(0.0)) == "just in time"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_a_ctrl_c_while_waiting_loses_nothing(error):
    made = idle()

    class Interrupted(Deadline):
        def wait(self):
            raise error

    class TooLate(Deadline):
        def wait(self):
            made.give("handed over")
            raise error

    with pytest.raises(error):
        made.take(Interrupted(0.0))
    assert not made._waiting
    with pytest.raises(error):
        made.take(TooLate(0.0))
    assert made.take(NOW) == "handed over"


def test_a_discarded_thing_is_not_given_out():
    made = idle(1, 2, 3)
    assert made.discard({2, 5}) == {2}
    assert [made.take(NOW), made.take(NOW)] == [3, 1]
    assert made.discard({1}) == set()


def test_a_failure_reaches_everyone_who_waits_and_who_would_wait():
    made, taken = idle(), []
    threads = [taker(made, taken, name) for name in range(3)]
    waiting(made, 3)
    errors = iter(ValueError(str(number)) for number in range(10))
    made.fail(lambda: next(errors))
    for thread in threads:
        thread.join(10)
    assert sorted(taken) == [(0, ValueError), (1, ValueError), (2, ValueError)]
    with pytest.raises(ValueError):
        made.take(Deadline.after(LATER))


def test_a_thing_that_is_idle_is_taken_in_spite_of_a_failure():
    made = idle(1)
    made.fail(ValueError)
    assert made.take(NOW) == 1
    made.give(2)
    assert made.take(NOW) == 2


# The same for tasks.


def test_a_task_takes_what_is_idle_and_waits_for_what_is_not():
    made = idle(1)

    async def main():
        assert await made.atake(NOW) == 1
        with pytest.raises(NothingIdle):
            await made.atake(NOW)
        with pytest.raises(NothingIdle):
            await made.atake(Deadline.after(SOON))
        task = asyncio.ensure_future(made.atake(Deadline.after(None)))
        await asyncio.sleep(0)
        made.give(2)
        assert await task == 2

    asyncio.run(main())
    assert not made._waiting


def test_tasks_and_threads_stand_in_one_queue():
    made, taken = idle(), []

    async def take(name):
        taken.append((name, await made.atake(Deadline.after(LATER))))

    async def main():
        tasks, threads = [], []
        for name in range(6):
            if name % 2:
                tasks.append(asyncio.ensure_future(take(name)))
                await asyncio.sleep(0)
            else:
                threads.append(taker(made, taken, name))
            await asyncio.to_thread(waiting, made, name + 1)
        for thing in "abcdef":
            made.give(thing)
            while len(taken) <= "abcdef".index(thing):
                await asyncio.sleep(0.001)  # noqa: ASYNC110 - the other one is a thread
        await asyncio.gather(*tasks)
        for thread in threads:
            thread.join()

    asyncio.run(asyncio.wait_for(main(), 20))
    assert taken == list(enumerate("abcdef"))


def test_a_cancelled_task_gives_back_what_was_just_handed_to_it():
    made = idle()

    async def main():
        task = asyncio.ensure_future(made.atake(Deadline.after(LATER)))
        await asyncio.sleep(0)
        made.give("x")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert made.take(NOW) == "x"


def test_a_cancelled_task_is_passed_over():
    made = idle()

    async def main():
        first = asyncio.ensure_future(made.atake(Deadline.after(LATER)))
        second = asyncio.ensure_future(made.atake(Deadline.after(LATER)))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        made.give("x")
        assert await second == "x"

    asyncio.run(main())


def test_a_coroutine_that_is_closed_while_it_waits_loses_nothing():
    made, kept = idle(), []

    async def main():
        coroutine = made.atake(Deadline.after(LATER))
        kept.append(coroutine)
        coroutine.send(None)
        made.give("x")
        coroutine.close()

    asyncio.run(main())
    assert made.take(NOW) == "x"
    assert not made._waiting


def test_a_loop_that_is_closed_under_a_waiting_task_loses_nothing():
    made = idle()
    loop = asyncio.new_event_loop()
    task = loop.create_task(made.atake(Deadline.after(LATER)))
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.run_until_complete(asyncio.sleep(0))
    assert len(made._waiting) == 1
    task._log_destroy_pending = False
    loop.close()
    made.give("x")
    assert made.take(NOW) == "x"
    made.fail(ValueError)
    del task


def test_a_failure_reaches_waiting_tasks():
    made = idle()

    async def main():
        task = asyncio.ensure_future(made.atake(Deadline.after(LATER)))
        await asyncio.sleep(0)
        made.fail(ValueError)
        with pytest.raises(ValueError):
            await task

    asyncio.run(main())


def test_taking_giving_and_giving_up_at_random_loses_and_doubles_nothing():
    things, held, errors = set(range(3)), [], []
    made = idle(*things)
    lock = threading.Lock()

    def work(seed):
        dice = random.Random(seed)
        for _ in range(150):
            try:
                thing = made.take(Deadline.after(dice.choice([0.0, 0.0001, 0.001, 5.0])))
            except NothingIdle:
                continue
            with lock:
                if thing in held:
                    errors.append(thing)
                held.append(thing)
            if dice.random() < 0.2:
                threading.Event().wait(0.0005)
            with lock:
                held.remove(thing)
            made.give(thing)

    async def tasks(seed):
        dice = random.Random(seed)

        async def one():
            thing = await made.atake(Deadline.after(dice.choice([0.0, 0.0001, 0.001, 5.0])))
            with lock:
                if thing in held:
                    errors.append(thing)
                held.append(thing)
            try:
                await asyncio.sleep(0.0005 * dice.random())
            finally:
                with lock:
                    held.remove(thing)
                made.give(thing)

        for _ in range(30):
            running = [asyncio.ensure_future(one()) for _ in range(5)]
            await asyncio.sleep(0.001 * dice.random())
            for task in running:
                if dice.random() < 0.5:
                    task.cancel()
            for outcome in await asyncio.gather(*running, return_exceptions=True):
                if outcome is not None and not isinstance(outcome, (NothingIdle, asyncio.CancelledError)):
                    errors.append(outcome)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    threads += [threading.Thread(target=lambda seed=seed: asyncio.run(tasks(seed))) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert {made.take(NOW) for _ in things} == things
    with pytest.raises(NothingIdle):
        made.take(NOW)


class Model(RuleBasedStateMachine):
    """One event loop's tasks take, give, give up and fail in any order; a list says what must happen."""

    @initialize(count=st.integers(0, 3))
    def begin(self, count):
        self.loop = asyncio.new_event_loop()
        self.made = idle(*range(count))
        self.idle = list(range(count))
        self.out = []
        self.queue = []
        self.failed = False

    def settle(self):
        for _ in range(3):
            self.loop.run_until_complete(asyncio.sleep(0))

    def next_in_queue_gets(self, thing):
        if self.queue:
            task = self.queue.pop(0)
            self.settle()
            assert task.result() == thing
            self.out.append(thing)
        else:
            self.idle.append(thing)

    @rule()
    def take(self):
        task = self.loop.create_task(self.made.atake(Deadline.after(None)))
        self.settle()
        if self.idle:
            assert task.result() == self.idle.pop()
            self.out.append(task.result())
        elif self.failed:
            assert isinstance(task.exception(), ValueError)
        else:
            assert not task.done()
            self.queue.append(task)

    @rule()
    def take_without_waiting(self):
        task = self.loop.create_task(self.made.atake(NOW))
        self.loop.run_until_complete(asyncio.wait([task]))
        if self.idle:
            assert task.result() == self.idle.pop()
            self.out.append(task.result())
        else:
            assert isinstance(task.exception(), ValueError if self.failed else NothingIdle)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def give(self, data):
        thing = data.draw(st.sampled_from(self.out))
        self.out.remove(thing)
        self.made.give(thing)
        self.next_in_queue_gets(thing)

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def cancel(self, data):
        task = data.draw(st.sampled_from(self.queue))
        self.queue.remove(task)
        task.cancel()
        self.settle()
        assert task.cancelled()

    @precondition(lambda self: self.out and self.queue)
    @rule(data=st.data())
    def give_and_cancel_at_once(self, data):
        thing = data.draw(st.sampled_from(self.out))
        self.out.remove(thing)
        self.made.give(thing)
        task = self.queue.pop(0)
        task.cancel()
        self.settle()
        assert task.cancelled()
        self.next_in_queue_gets(thing)

    @precondition(lambda self: self.idle)
    @rule(data=st.data())
    def discard(self, data):
        thing = data.draw(st.sampled_from(self.idle))
        self.idle.remove(thing)
        assert self.made.discard({thing, "another"}) == {thing}
        self.out.append(thing)

    @rule()
    def fail(self):
        self.made.fail(ValueError)
        self.failed = True
        self.settle()
        for task in self.queue:
            assert isinstance(task.exception(), ValueError)
        self.queue = []

    @invariant()
    def is_what_the_model_says(self):
        if hasattr(self, "made"):
            assert self.made._things == self.idle
            assert len(self.made._waiting) == len(self.queue)

    def teardown(self):
        if hasattr(self, "loop"):
            for task in self.queue:
                task.cancel()
            self.settle()
            self.loop.close()


def test_any_order_of_taking_giving_and_giving_up_is_as_the_model_says():
    run_state_machine_as_test(Model, settings=settings(max_examples=60, stateful_step_count=30, deadline=None))
