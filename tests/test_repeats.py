"""Repeats around plugins, in every place: what is repeated, how long it is waited, and what ends it; and what a closing host says."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from hostkit import CallTimeout, CircuitOpen, Draining, PluginClosed, PluginFailed, RateLimited

FLAKY = """
    import os, time
    import hostkit
    class P:
        seen = []
        def execute(self, ctx, request):
            if request == "seen":
                seen, self.seen = self.seen, []
                return seen
            if isinstance(request, list):
                begun, go = request
                open(begun, "w").close()
                while not os.path.exists(go):
                    time.sleep(0.002)
                return "done"
            self.seen = [*self.seen, ctx.attempt]
            if ctx.attempt <= request:
                raise hostkit.RetryableError("again")
            return ctx.attempt
"""


@pytest.fixture
def flaky(install, new_host, isolation):
    def make(**table):
        install("flaky", FLAKY)
        host = new_host(config={"plugins": {"flaky": {"breaker": False, **table}}})
        host.load("flaky", isolation=isolation)
        return host

    return make


QUICK = {"attempts": 4, "wait": "1ms", "max_wait": "2ms"}


def test_a_plugin_sees_which_attempt_it_is(flaky):
    host = flaky(retry=QUICK)
    assert host.execute("flaky", 2) == 3
    assert host.execute("flaky", "seen") == [1, 2, 3]
    assert asyncio.run(host.aexecute("flaky", 3)) == 4
    assert host.execute("flaky", "seen") == [1, 2, 3, 4]
    with pytest.raises(PluginFailed):
        host.execute("flaky", 4)
    assert host.execute("flaky", "seen") == [1, 2, 3, 4]


def test_a_call_may_say_how_often_it_is_repeated(flaky):
    host = flaky(retry={"wait": "1ms", "max_wait": "2ms"})
    with pytest.raises(PluginFailed):
        host.execute("flaky", 1)
    assert host.execute("flaky", 1, max_retries=1) == 2
    assert asyncio.run(host.aexecute("flaky", 6, max_retries=6)) == 7
    with pytest.raises(PluginFailed):
        host.execute("flaky", 3, max_retries=2)


def test_a_call_may_say_that_it_is_not_repeated(flaky):
    host = flaky(retry=QUICK)
    with pytest.raises(PluginFailed):
        host.execute("flaky", 1, max_retries=0)
    with pytest.raises(PluginFailed):
        asyncio.run(host.aexecute("flaky", 1, max_retries=0))
    assert host.execute("flaky", "seen") == [1, 1]


def test_one_deadline_holds_for_all_attempts(flaky):
    host = flaky(retry={"attempts": 100, "wait": "20ms", "max_wait": "20ms"})
    for call in (host.execute, lambda *request, **options: asyncio.run(host.aexecute(*request, **options))):
        began = time.monotonic()
        with pytest.raises((PluginFailed, CallTimeout)):  # it ends between two attempts, or in one
            call("flaky", 1000, timeout=0.3)
        assert time.monotonic() - began < 2.0
        assert 2 <= len(host.execute("flaky", "seen")) < 100


def test_an_open_circuit_ends_the_repeats_and_the_caller_hears_what_the_plugin_did(flaky):
    host = flaky(retry={**QUICK, "attempts": 20}, breaker={"failures": 3, "recovery": "50s"})
    for call in (host.execute, lambda *request: asyncio.run(host.aexecute(*request))):
        with pytest.raises(PluginFailed, match="again") as caught:
            call("flaky", 1000)
        assert "A repeat was refused: CircuitOpen" in caught.value.__notes__[-1]
        began = time.monotonic()
        with pytest.raises(CircuitOpen):
            call("flaky", 0)
        assert time.monotonic() - began < 1.0
        host.reload("flaky")


def test_a_repeat_waits_until_the_rate_has_a_turn(flaky):
    host = flaky(retry=QUICK, rate={"per_second": 20, "burst": 1})
    began = time.monotonic()
    assert [host.execute("flaky", 0) for _ in range(3)] == [1, 2, 2]
    assert time.monotonic() - began >= 0.09
    assert asyncio.run(host.aexecute("flaky", 0)) == 2


def test_a_turn_that_comes_after_the_deadline_is_not_waited_for(flaky):
    host = flaky(retry=QUICK, rate={"per_second": 0.01, "burst": 1})
    host.execute("flaky", 0)
    began = time.monotonic()
    with pytest.raises(RateLimited) as caught:
        host.execute("flaky", 0, timeout=20.0)
    assert caught.value.retry_after > 90.0
    assert time.monotonic() - began < 5.0


def test_closing_the_host_ends_the_wait_for_a_repeat(flaky, until):
    host = flaky(retry=QUICK, rate={"per_second": 0.01, "burst": 1}, timeout="500s")
    host.execute("flaky", 0)
    record = host._loader.record("flaky")
    waiting = host.submit("flaky", 0)
    until(lambda: record._halted._cond._waiters)
    errors = []

    async def call():
        try:
            await host.aexecute("flaky", 0)
        except RateLimited as error:
            errors.append(error)

    thread = threading.Thread(target=asyncio.run, args=(call(),))
    thread.start()
    until(lambda: record._pausing)
    host.close()
    assert isinstance(waiting.exception(10), RateLimited)
    thread.join(10)
    assert len(errors) == 1


def test_a_task_that_is_cancelled_between_two_attempts_ends(flaky):
    host = flaky(retry=QUICK, rate={"per_second": 0.01, "burst": 1}, timeout="500s")
    record = host._loader.record("flaky")

    async def give_up():
        await host.aexecute("flaky", 0)
        task = asyncio.create_task(host.aexecute("flaky", 0))
        while not record._pausing:
            await asyncio.sleep(0.002)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(give_up())
    assert not record._pausing


def test_a_repeat_that_a_drain_refuses_is_told_as_what_the_plugin_did(flaky):
    host = flaky(retry={"attempts": 2, "wait": "200ms", "max_wait": "200ms"})
    record = host._loader.record("flaky")

    async def call():
        task = asyncio.create_task(host.aexecute("flaky", 1000))
        while not record._pausing:
            await asyncio.sleep(0)
        assert host.drain("flaky", 5.0)
        return await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 10)

    (error,) = asyncio.run(call())
    assert isinstance(error, PluginFailed)
    assert "A repeat was refused: Draining" in error.__notes__[-1]


def test_a_closing_host_is_draining_until_its_plugin_is_closed(flaky, tmp_path, until):
    host = flaky()
    begun, go = tmp_path / "begun", tmp_path / "go"
    running = host.submit("flaky", [str(begun), str(go)])
    until(begun.exists)
    thread = threading.Thread(target=host.close, args=(20.0,))
    thread.start()
    until(lambda: host._loader.record("flaky").lane.gate.is_shut)
    with pytest.raises(Draining):
        host.execute("flaky", 0)
    with pytest.raises(Draining):
        asyncio.run(host.aexecute("flaky", 0))
    with pytest.raises(Draining):
        list(host.stream("flaky", 0))
    go.touch()
    assert running.result(10) == "done"
    thread.join(20)
    with pytest.raises(PluginClosed):
        host.execute("flaky", 0)
    with pytest.raises(PluginClosed):
        asyncio.run(host.aexecute("flaky", 0))


def test_a_plugin_that_is_drained_takes_no_turn_of_its_rate(flaky):
    host = flaky(rate={"per_second": 0.01, "burst": 1})
    assert host.drain("flaky")
    for _ in range(3):
        with pytest.raises(Draining):
            host.execute("flaky", 0)
    host.reload("flaky")
    assert host.execute("flaky", 0) == 1


def test_a_program_without_repeats_does_not_import_what_waits_for_them():
    code = "import sys, hostkit; hostkit.Host('app').close(); print('tenacity' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
