"""Calls that take too long: the caller is told at once; the worker is kept where the plugin gives in, and replaced where it doesn't."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
import tracemalloc
from types import SimpleNamespace

import pytest

from hostkit import Busy, CallCancelled, CallTimeout, PluginFailed
from hostkit._channel import Channel, Late
from hostkit._deadline import Deadline
from hostkit._wires import Ends


@pytest.mark.parametrize("op", ["spin", "spin-catching", "deadlock", "join-itself", "wait-on-socket"])
def test_a_call_that_never_ends_is_a_timeout_and_its_worker_is_replaced(faulty_worker, op):
    bad = faulty_worker(cancel_grace=0.1)
    started = time.monotonic()
    error = bad.fails(CallTimeout, op, timeout=0.2, stays=False)
    assert time.monotonic() - started < 3.0
    assert "0.2 s" in str(error)


def test_a_plugin_that_ignores_sigterm_is_killed(faulty_worker):
    faulty_worker(cancel_grace=0.1).fails(CallTimeout, "sleep_ignoring_sigterm", seconds=60, timeout=0.2, stays=False)


def test_the_timeout_reaches_the_caller_before_the_grace_is_over(faulty_worker):
    bad = faulty_worker(cancel_grace=5.0)
    started = time.monotonic()
    with pytest.raises(CallTimeout):
        bad.call("sleep", seconds=0.6, timeout=0.2)
    assert time.monotonic() - started < 0.5
    assert bad.call("fine") == "fine"


def test_a_plugin_that_gives_in_keeps_its_worker_and_its_channel(faulty_worker):
    faulty_worker().fails(CallTimeout, "wait_for_cancel", seconds=30, timeout=0.2, stays=True)


def test_a_late_answer_is_thrown_away_and_the_next_call_gets_its_own(faulty_worker):
    bad = faulty_worker()
    pid = bad.pid
    for _ in range(5):
        with pytest.raises(CallTimeout):
            bad.call("sleep", seconds=0.2, timeout=0.05)
        assert bad.call("answer", what="7") == 7
    assert bad.pid == pid


def test_a_late_answer_of_any_size_is_thrown_away_while_its_error_is_kept(faulty_worker):
    bad = faulty_worker(cancel_grace=5.0)
    pid = bad.pid
    with pytest.raises(CallTimeout) as kept:
        bad.call("wait_for_cancel", seconds=30, then=5_000_000, timeout=0.2)
    assert bad.call("fine") == "fine"
    assert bad.pid == pid
    assert kept.value.__context__ is None or kept.value.__suppress_context__


def test_an_in_process_call_over_its_deadline_is_a_timeout_when_it_returns(make_faulty):
    bad = make_faulty("none")
    started = time.monotonic()
    with pytest.raises(CallTimeout, match="can't be interrupted"):
        bad.call("sleep", seconds=0.3, timeout=0.1)
    assert time.monotonic() - started >= 0.3
    with pytest.raises(CallTimeout):
        bad.call("wait_for_cancel", seconds=30, timeout=0.1)
    assert bad.call("fine") == "fine"


def test_an_innocent_sibling_call_is_untouched_when_its_worker_is_replaced(faulty_worker, until):
    bad = faulty_worker(concurrency=2, cancel_grace=0.1)
    sibling = bad.begin("sleep", seconds=1.0)
    with pytest.raises(CallTimeout):
        bad.call("sleep", seconds=60, timeout=0.2)
    until(lambda: bad.pid, 5)  # answered by the new worker while the old one still has its sibling
    assert not sibling.done()
    assert sibling.result(5) == "slept"


def test_an_innocent_sibling_keeps_its_worker_when_the_late_call_gives_in(faulty_worker):
    bad = faulty_worker(concurrency=2)
    pid = bad.pid
    sibling = bad.begin("sleep", seconds=0.5)
    with pytest.raises(CallTimeout):
        bad.call("wait_for_cancel", seconds=60, timeout=0.1)
    assert sibling.result(5) == "slept"
    assert bad.pid == pid


def test_a_request_that_cannot_be_sent_to_its_end_is_a_timeout_and_replaces_the_worker(faulty_worker):
    bad = faulty_worker(cancel_grace=0.1)
    pid = bad.pid
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(CallTimeout):
        bad.call("fine", ignored="x" * 20_000_000, timeout=0.5)
    assert bad.call("fine", timeout=10) == "fine"
    assert bad.pid != pid


def test_a_task_that_cannot_send_its_request_times_out_too(faulty_worker):
    bad = faulty_worker(cancel_grace=0.1)
    pid = bad.pid
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(CallTimeout):
        asyncio.run(bad.host.aexecute("bad", {"op": "fine", "ignored": "x" * 20_000_000}, timeout=0.5))
    assert bad.call("fine", timeout=10) == "fine"
    assert bad.pid != pid


@pytest.mark.parametrize("kind", ["thread", "task"])
def test_a_request_that_is_read_slowly_has_the_one_deadline_of_the_whole(kind):
    theirs, requests = os.pipe()
    answers, other = os.pipe()
    over, hangup = os.pipe()
    channel = Channel(None, 0, Ends(requests, os.dup(theirs), answers, over), 1 << 20)
    sending = SimpleNamespace(left=b"x" * 20_000_000)
    done = threading.Event()

    def sip():
        while not done.wait(0.02):
            os.read(theirs, 50_000)

    reader = threading.Thread(target=sip)
    reader.start()
    started = time.monotonic()
    try:
        with pytest.raises(Late):
            if kind == "thread":
                channel.send(sending, Deadline.after(0.4))
            else:
                asyncio.run(channel.asend(sending, Deadline.after(0.4)))
        assert 0.4 <= time.monotonic() - started < 3.0  # to its end it would take 8 seconds
    finally:
        done.set()
        reader.join()
        channel.close()
        for fd in (theirs, other, hangup):
            os.close(fd)


def test_what_crosses_is_the_time_that_is_left_when_the_call_is_sent(faulty_worker):
    bad = faulty_worker()
    busy = bad.begin("sleep", seconds=0.5)
    left = bad.call("remaining", timeout=5.0)
    assert busy.result() == "slept"
    assert left < 4.7


def test_a_timeout_of_zero_is_already_over(faulty):
    bad = faulty()
    with pytest.raises(CallTimeout) as caught:
        bad.call("fine", timeout=0)
    assert caught.value.phase == "queue"
    assert bad.call("fine") == "fine"


def test_waiting_for_a_busy_worker_is_a_rejection_and_spares_it(faulty):
    bad = faulty(concurrency=1)
    busy = bad.begin("sleep", seconds=0.6)
    time_of_start = time.monotonic()
    with pytest.raises(Busy) as caught:
        while not busy.done():
            bad.call("fine", timeout=0.1)
    assert time.monotonic() - time_of_start < 0.6
    assert caught.value.phase == "queue"
    assert busy.result() == "slept"
    assert bad.call("fine") == "fine"


def test_a_task_that_waits_for_a_busy_plugin_is_rejected_too(faulty):
    bad = faulty(concurrency=1)

    async def both():
        busy = asyncio.create_task(bad.host.aexecute("bad", {"op": "sleep", "seconds": 0.4}))
        await asyncio.sleep(0.1)
        with pytest.raises(Busy):
            await bad.host.aexecute("bad", {"op": "fine"}, timeout=0.1)
        assert await busy == "slept"

    asyncio.run(both())


def test_workers_and_concurrency_are_used(faulty_worker):
    bad = faulty_worker(workers=2, concurrency=3)
    started = time.monotonic()
    calls = [bad.host.submit("bad", {"op": "answer", "what": "[time.sleep(0.4), os.getpid()][1]"}) for _ in range(6)]
    pids = [call.result(10) for call in calls]
    assert time.monotonic() - started < 1.2
    assert sorted(pids.count(pid) for pid in set(pids)) == [3, 3]


def test_declared_concurrency_is_held_in_process_too(make_faulty):
    bad = make_faulty("none", concurrency=2)
    count = "[P.n.append(1), time.sleep(0.1), len(P.n), P.n.pop()][2]"
    bad.call("answer", what="setattr(P, 'n', [])")
    calls = [bad.host.submit("bad", {"op": "answer", "what": count}) for _ in range(6)]
    assert max(call.result(10) for call in calls) == 2


ASYNC = """
    import asyncio, os

    class P:
        def __init__(self):
            self.log = []

        async def execute(self, ctx, request):
            if request == "log":
                return self.log
            if request == "pid":
                return os.getpid()
            if request == "raise":
                raise ValueError("async")
            if request == "cancel-itself":
                raise asyncio.CancelledError
            try:
                await asyncio.sleep(request["seconds"])
                return "slept"
            except asyncio.CancelledError:
                self.log.append("cancelled")
                if request.get("stubborn"):
                    await asyncio.sleep(60)
                raise
"""


@pytest.fixture
def sleeper(install, new_host, isolation):
    install("sleeper", ASYNC)

    def make(**settings):
        host = new_host(config={"plugins": {"sleeper": settings}})
        host.load("sleeper", isolation=isolation)
        return host

    return make


def test_an_async_plugin_is_cancelled_at_its_deadline_and_stays(sleeper, until):
    host = sleeper()
    pid = host.execute("sleeper", "pid")
    with pytest.raises(CallTimeout):
        host.execute("sleeper", {"seconds": 30}, timeout=0.1)
    until(lambda: host.execute("sleeper", "log") == ["cancelled"])
    assert host.execute("sleeper", "pid") == pid


def test_a_cancelled_task_cancels_its_call(sleeper, until):
    host = sleeper()
    pid = host.execute("sleeper", "pid")

    async def give_up():
        task = asyncio.create_task(host.aexecute("sleeper", {"seconds": 30}))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(give_up())
    until(lambda: host.execute("sleeper", "log") == ["cancelled"])
    assert host.execute("sleeper", "pid") == pid


def test_a_task_over_its_deadline_is_a_timeout(sleeper, until):
    host = sleeper()
    started = time.monotonic()
    with pytest.raises(CallTimeout):
        asyncio.run(host.aexecute("sleeper", {"seconds": 30}, timeout=0.1))
    assert time.monotonic() - started < 2.0
    until(lambda: host.execute("sleeper", "log") == ["cancelled"])


def test_an_async_plugin_that_will_not_be_cancelled_is_replaced(sleeper, isolation, until):
    host = sleeper(cancel_grace=0.1)
    pid = host.execute("sleeper", "pid")
    with pytest.raises(CallTimeout):
        host.execute("sleeper", {"seconds": 30, "stubborn": True}, timeout=0.1)
    if isolation == "process":
        until(lambda: host.execute("sleeper", "pid") != pid)
    assert host.execute("sleeper", {"seconds": 0}) == "slept"


def test_an_async_plugin_is_really_concurrent(sleeper):
    host = sleeper(concurrency=8)
    started = time.monotonic()
    calls = [host.submit("sleeper", {"seconds": 0.3}) for _ in range(8)]
    assert [call.result(10) for call in calls] == ["slept"] * 8
    assert time.monotonic() - started < 1.2


def test_tasks_of_an_async_plugin_are_really_concurrent(sleeper):
    host = sleeper(concurrency=8)

    async def all_of_them():
        return await asyncio.gather(*(host.aexecute("sleeper", {"seconds": 0.3}) for _ in range(8)))

    started = time.monotonic()
    assert asyncio.run(all_of_them()) == ["slept"] * 8
    assert time.monotonic() - started < 1.2


@pytest.mark.parametrize(("request_", "remote"), [("raise", "ValueError"), ("cancel-itself", "CancelledError")])
def test_what_an_async_plugin_raises_is_a_failed_call(sleeper, request_, remote):
    host = sleeper()
    with pytest.raises(PluginFailed) as caught:
        host.execute("sleeper", request_)
    assert caught.value.remote_type.rpartition(".")[2] == remote

    async def call():
        with pytest.raises(PluginFailed):
            await host.aexecute("sleeper", request_)

    asyncio.run(call())
    assert host.execute("sleeper", {"seconds": 0}) == "slept"


def test_a_cancelled_task_leaves_a_worker_that_gives_in(faulty_worker):
    bad = faulty_worker()
    pid = bad.pid

    async def give_up():
        task = asyncio.create_task(bad.host.aexecute("bad", {"op": "wait_for_cancel", "seconds": 30}))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(give_up())
    assert bad.pid == pid


def test_many_tasks_given_up_at_random_leave_the_others_their_answers(faulty_worker):
    bad = faulty_worker(concurrency=4, cancel_grace=2.0)
    pid = bad.pid

    async def one(number):
        if number % 3 == 0:
            with pytest.raises((CallTimeout, Busy)):
                await bad.host.aexecute("bad", {"op": "wait_for_cancel", "seconds": 30}, timeout=0.05)
        else:
            assert await bad.host.aexecute("bad", {"op": "answer", "what": str(number)}) == number

    async def all_of_them():
        await asyncio.gather(*(one(number) for number in range(40)))

    asyncio.run(all_of_them())
    assert bad.pid == pid


def test_a_sync_caller_interrupted_by_ctrl_c_leaves_a_channel_that_can_be_used(faulty_worker):
    bad = faulty_worker()
    pid = bad.pid
    threading.Timer(0.2, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        bad.call("wait_for_cancel", seconds=30)
    assert bad.call("fine") == "fine"
    assert bad.pid == pid


def test_refused_and_late_calls_hold_no_memory(faulty_worker):
    bad = faulty_worker(breaker=False)
    bad.call("fine")
    tracemalloc.start()
    try:
        for _ in range(20):
            with pytest.raises((CallTimeout, Busy)):
                bad.call("wait_for_cancel", seconds=30, then=200_000, timeout=0.01)
        assert bad.call("fine") == "fine"
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_call_given_up_by_the_plugin_itself_is_cancelled(faulty):
    bad = faulty()
    with pytest.raises((CallCancelled, PluginFailed)):
        bad.call("answer", what="(_ for _ in ()).throw(__import__('hostkit').CallCancelled('enough'))")
    assert bad.call("fine") == "fine"


def test_calls_beside_one_that_costs_the_worker_end_in_order(faulty_worker, until):
    bad = faulty_worker(concurrency=3, cancel_grace=0.1)
    pid = bad.pid
    steady = bad.begin("sleep", seconds=1.0)
    with pytest.raises(CallTimeout):
        bad.call("sleep", seconds=30, timeout=0.1)
    until(lambda: bad.pid != pid)
    assert steady.result(5) == "slept"


def test_async_calls_beside_one_that_costs_the_worker_end_in_order(sleeper, isolation, until):
    host = sleeper(concurrency=3, cancel_grace=0.1)
    pid = host.execute("sleeper", "pid")
    steady = host.submit("sleeper", {"seconds": 1.0})
    with pytest.raises(CallTimeout):
        host.execute("sleeper", {"seconds": 30, "stubborn": True}, timeout=0.1)
    if isolation == "process":
        until(lambda: host.execute("sleeper", "pid") != pid)
    assert steady.result(5) == "slept"
