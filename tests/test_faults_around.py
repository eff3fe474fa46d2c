"""What goes wrong beside the calls: health that hangs, clocks that jump, loops that are closed, callbacks that raise, calls within calls."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import hostkit
from hostkit import CallTimeout, HostkitError, PluginFailed, WorkerHung, testing
from hostkit._sinks import flush

UNWELL = """
    import os, threading, time
    from hostkit.testing.badplugin import BadPlugin
    class P(BadPlugin):
        asked = 0
        def execute(self, ctx, request):
            if request == "asked":
                return P.asked
            if request == "pid":
                return os.getpid()
            return super().execute(ctx, request)
        def health(self):
            P.asked += 1
            return super().health()
"""


@pytest.fixture
def unwell(install, new_host, isolation):
    install("bad", UNWELL)
    host = new_host(config={"plugins": {"bad": {"health": {"timeout": 0.5, "interval": "1h"}, "concurrency": 2}}})
    host.load("bad", isolation=isolation)
    return host


def test_a_health_check_that_hangs_is_unhealthy_in_time_and_blocks_no_call(unwell):
    unwell.execute("bad", {"fault": "health-hangs", "seconds": 2.0})
    started = time.monotonic()
    assert unwell.health("bad").status.value == "unhealthy"
    assert time.monotonic() - started < 1.5
    for _ in range(20):
        assert unwell.execute("bad", None, timeout=1.0) == "fine"


def test_a_health_check_that_has_not_answered_is_not_asked_a_second_time(unwell):
    unwell.execute("bad", {"fault": "health-hangs"})
    for _ in range(3):
        assert unwell.health("bad").status.value == "unhealthy"
    assert unwell.execute("bad", "asked") == 1


@pytest.mark.parametrize(("fault", "words"), [("health-raises", "not well"), ("health-lies", "")])
def test_a_health_check_that_raises_or_lies_is_told_and_costs_no_worker(unwell, fault, words):
    pid = unwell.execute("bad", "pid")
    unwell.execute("bad", {"fault": fault})
    status = unwell.health("bad")
    assert status.status.value in ("unhealthy", "unknown")
    assert words in status.message
    assert unwell.health("bad").status.value == "healthy"
    assert unwell.execute("bad", "pid") == pid


@pytest.mark.parametrize("fault", ["hold-the-gil", "backtrack", "big-power", "stop"])
def test_whatever_stops_the_whole_interpreter_is_noticed_by_its_heartbeats_and_replaced(faulty_worker, fault):
    bad = faulty_worker(heartbeat={"interval": 0.1, "misses": 2})
    started = time.monotonic()
    error = bad.fails(WorkerHung, fault, stays=False)
    assert time.monotonic() - started < 5.0
    assert error.signal == signal.SIGKILL


def test_a_stopped_worker_that_goes_on_in_time_is_spared(faulty_worker):
    bad = faulty_worker(heartbeat={"interval": 0.2, "misses": 10})
    pid = bad.pid
    os.kill(pid, signal.SIGSTOP)
    call = bad.host.submit("bad", {"op": "pid"})
    threading.Timer(0.3, os.kill, (pid, signal.SIGCONT)).start()
    assert call.result(10) == pid


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_wall_clock_that_jumps_moves_no_deadline(faulty, monkeypatch, jump):
    bad = faulty()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    bad.call("answer", what=f"setattr(time, 'time', lambda: {real() + jump})")
    assert bad.call("fine", timeout=1.0) == "fine"
    assert 3.0 < bad.call("remaining", timeout=4.0) <= 4.0
    started = time.monotonic()
    with pytest.raises(CallTimeout):
        bad.call("wait_for_cancel", seconds=20, timeout=0.3)
    assert 0.3 <= time.monotonic() - started < 3.0
    assert bad.call("fine", timeout=5.0) == "fine"


CLOSED_LOOP = """
import asyncio, gc, os, sys, hostkit
from hostkit.testing.badplugin import BadPlugin
from hostkit.testing import no_leaks

with no_leaks(2.0):
    with hostkit.Host(config={"plugins": {"bad": {"concurrency": 2}}}) as host:
        host.register(BadPlugin, name="bad", isolation="process")
        loop = asyncio.new_event_loop()
        task = loop.create_task(host.aexecute("bad", {"fault": "wait-for-cancel", "seconds": 5}))
        loop.run_until_complete(asyncio.sleep(0.5))
        loop.close()
        assert host.execute("bad", None, timeout=5.0) == "fine"
        print("answered", flush=True)
        del task, loop
        gc.collect()
        host.close(0.5)  # the call that nobody can end any more is not waited for
print("nothing left", flush=True)
"""


@pytest.fixture(scope="module")
def closed_loop():
    return subprocess.run([sys.executable, "-c", CLOSED_LOOP], capture_output=True, text=True, timeout=60).stdout.splitlines()


def test_a_loop_that_is_closed_while_a_call_is_pending_takes_nothing_from_others(closed_loop):
    assert closed_loop[:1] == ["answered"]


def test_a_loop_that_is_closed_while_a_call_is_pending_leaves_no_descriptors(closed_loop):
    assert closed_loop == ["answered", "nothing left"]


def test_a_loop_that_ends_by_cancelling_its_calls_leaves_the_worker_in_order(faulty_worker, tmp_path):
    bad = faulty_worker()
    pid = bad.pid
    begun = tmp_path / "begun"

    async def main():
        asyncio.get_running_loop().call_later(
            0.0, asyncio.ensure_future, bad.host.aexecute("bad", {"op": "wait_for_cancel", "seconds": 20, "begun": str(begun)})
        )
        while not begun.exists():
            await asyncio.sleep(0.005)

    asyncio.run(main())
    assert bad.call("fine", timeout=5.0) == "fine"
    assert bad.pid == pid


def test_nothing_of_the_hosts_environment_is_in_the_workers_own_memory_of_it(make_faulty, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("AND_LD_PRELOADS", "/tmp/evil.so")
    bad = make_faulty("process")
    environ = bad.call("answer", what="open('/proc/self/environ', 'rb').read().decode('latin-1')")
    assert "hunter2" not in environ
    assert "evil" not in environ
    cmdline = bad.call("answer", what="open('/proc/self/cmdline', 'rb').read().decode('latin-1')")
    assert "hunter2" not in cmdline


def test_a_worker_has_the_hosts_own_limits(make_faulty):
    import resource

    bad = make_faulty("process")
    for name in ("RLIMIT_NOFILE", "RLIMIT_STACK", "RLIMIT_FSIZE"):
        there = bad.call("answer", what=f"__import__('resource').getrlimit(__import__('resource').{name})")
        assert tuple(there) == resource.getrlimit(getattr(resource, name))


@pytest.mark.parametrize("error", ["ValueError('mine')", "SystemExit(3)", "GeneratorExit()"])
def test_a_callback_of_a_future_that_raises_harms_no_call(faulty, error, caplog):
    bad = faulty()
    called = threading.Event()

    def callback(_):
        called.set()
        raise eval(error)

    answered = bad.host.submit("bad", {"op": "answer", "what": "7"})
    try:
        answered.add_done_callback(callback)
    except BaseException as raised:  # answered already: then it is called here, as concurrent.futures has it
        assert not isinstance(raised, Exception)
    assert answered.result(10) == 7
    assert called.wait(10)
    assert bad.host.submit("bad", {"op": "fine"}).result(10) == "fine"


@pytest.mark.parametrize("error", ["ValueError('mine')", "SystemExit(3)"])
def test_a_log_sink_that_raises_harms_no_call(faulty, error, capsys):
    from loguru import logger

    bad = faulty()

    def sink(_):
        raise eval(error)

    handler = logger.add(sink, level=0, catch=False)
    try:
        for _ in range(3):
            with pytest.raises(PluginFailed):
                bad.call("raise_", what="value")
            assert bad.call("fine") == "fine"
        bad.neighbour_answers()
        assert flush(5)
    finally:
        logger.remove(handler)
    assert "its log can't be written" in capsys.readouterr().err


NESTED = """
    import hostkit
    class P:
        def execute(self, ctx, depth):
            if depth == 0:
                return 0
            with hostkit.Host(config={"defaults": {"sandbox": "off"}}) as host:
                host.load("nested", isolation="process")
                return 1 + host.execute("nested", depth - 1)
"""


def test_a_host_within_a_worker_within_a_host_works_and_ends(install, host, isolation):
    install("nested", NESTED)
    host.load("nested", isolation=isolation)
    assert host.execute("nested", 3) == 3


def test_a_host_that_dies_takes_the_workers_of_its_workers_along(install, new_host, tmp_path):
    place = tmp_path / "pid"
    install(
        "nested",
        f"""
        import os, time, hostkit
        class P:
            def execute(self, ctx, depth):
                if depth == 0:
                    with open({str(place)!r}, "w") as file:
                        file.write(str(os.getpid()))
                    os.rename({str(place)!r}, {str(place) + ".whole"!r})
                    time.sleep(60)
                host = hostkit.Host(config={{"defaults": {{"sandbox": "off"}}}})
                host.load("nested", isolation="process")
                return host.execute("nested", depth - 1)
        """,
    )
    host = new_host()
    host.load("nested", isolation="process")
    call = host.submit("nested", 2)
    whole = tmp_path / "pid.whole"
    end = time.monotonic() + 20
    while not whole.exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    pidfd = os.pidfd_open(int(whole.read_text()))
    try:
        host.close(0.0)
        import select

        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        assert poller.poll(2000)
    finally:
        os.close(pidfd)
    assert isinstance(call.exception(5), HostkitError)


class Through:
    """Calls another plugin, or itself, through the host."""

    def __init__(self, host, name):
        self._host, self._name = host, name

    def execute(self, ctx, depth: int):
        return depth if depth == 0 else 1 + self._host.execute(self._name, depth - 1)


def test_plugins_that_call_each_other_through_the_host_answer(host):
    host.register(Through(host, "second"), name="first", isolation="none")
    host.register(Through(host, "first"), name="second", isolation="none")
    assert host.execute("first", 6) == 6


def test_plugins_that_call_each_other_without_end_are_a_typed_error_and_work_afterwards(new_host):
    host = new_host(config={"defaults": {"breaker": False}})  # each of them failed hundreds of times in a row
    host.register(Through(host, "second"), name="first", isolation="none")
    host.register(Through(host, "first"), name="second", isolation="none")
    told = testing.tried(lambda: host.execute("first", 1_000_000))
    assert type(told.error) is PluginFailed
    assert host.execute("first", 2) == 2


def test_a_plugin_in_process_that_calls_itself_with_a_single_turn_is_told_that_it_is_busy(host, new_host):
    host = new_host(config={"plugins": {"alone": {"concurrency": 1, "timeout": 0.3}}})
    host.register(Through(host, "alone"), name="alone", isolation="none")
    told = testing.tried(lambda: host.execute("alone", 1))
    assert type(told.error) in (PluginFailed, CallTimeout)
    assert host.execute("alone", 0) == 0


class AsyncThrough(Through):
    """The same on its own event loop, which it blocks meanwhile."""

    async def execute(self, ctx, depth: int):
        return super().execute(ctx, depth)


class AsyncStreamThrough(Through):
    """The same as a stream."""

    async def execute(self, ctx, depth: int):
        for item in list(self._host.stream(self._name, depth - 1)) if depth else ():
            yield item
        yield depth


class Awaiting(Through):
    """The same, awaited, which blocks nothing."""

    async def execute(self, ctx, depth: int):
        return depth if depth == 0 else 1 + await self._host.aexecute(self._name, depth - 1)


@pytest.mark.parametrize("concurrency", [None, 1])
@pytest.mark.parametrize("plugin", [AsyncThrough, AsyncStreamThrough])
def test_an_async_plugin_in_process_that_blocks_its_loop_with_a_call_to_itself_is_told_at_once(new_host, plugin, concurrency):
    host = new_host(
        config={"plugins": {"alone": {"timeout": 30.0} if concurrency is None else {"concurrency": 1, "timeout": 30.0}}}
    )
    host.register(plugin(host, "alone"), name="alone", isolation="none")
    begin = time.monotonic()
    told = testing.tried(lambda: list(host.stream("alone", 1)))
    assert time.monotonic() - begin < 10.0
    assert type(told.error) is PluginFailed
    assert "waits, on its own event loop, for a call to itself" in str(told.error)
    assert list(host.stream("alone", 0)) == [0]


class Hooks:
    @hostkit.hookspec
    def deepen(self, depth: int) -> int:
        """Go as deep."""


def test_an_async_hook_in_process_that_blocks_its_loop_with_itself_is_told_at_once(new_host):
    class Deep:
        @hostkit.hookimpl
        async def deepen(self, depth: int) -> int:
            return depth if depth == 0 else 1 + host.hook.deepen(depth=depth - 1)[0]

    host = new_host("deep", hookspecs=[Hooks], config={"defaults": {"timeout": 30.0}})
    host.register(Deep(), name="alone", isolation="none")
    begin = time.monotonic()
    with pytest.raises(PluginFailed, match="waits, on its own event loop, for a call to itself"):
        host.hook.deepen(depth=1)
    assert time.monotonic() - begin < 10.0
    assert host.hook.deepen(depth=0) == [0]


def test_an_async_plugin_that_awaits_a_call_to_itself_is_answered(host):
    host.register(Awaiting(host, "alone"), name="alone", isolation="none")
    assert host.execute("alone", 6) == 6


def test_a_worker_that_answers_heartbeats_which_nobody_sent_breaks_the_protocol(faulty_worker):
    bad = faulty_worker()
    error = bad.fails(hostkit.ProtocolError, "flood-heartbeats", timeout=20, stays=False)
    assert "heartbeat" in str(error)


def test_a_flood_of_log_records_takes_no_call_from_others(faulty_worker, log):
    bad = faulty_worker()
    flood = bad.begin("answer", what="[sys.stdout.write('flood\\n') for _ in range(200_000)] and 1")
    slowest = 0.0
    while not flood.done():
        slowest = max(slowest, testing.answers_soon(bad.neighbour_answers))
    assert flood.result() == 1
    bad.host.unload("bad")
    told = [record["text"] for record in log if record["text"] == "flood"]
    assert len(told) < 20_000
    assert [record for record in log if "lines of its log dropped" in record["text"]]
