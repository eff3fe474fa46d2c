"""Closing: with calls in flight, again and again, from everywhere, and with plugins that won't."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import threading
import time
import warnings
from contextlib import suppress

import multiprocess
import pytest

import hostkit
from hostkit import CallCancelled, CallError, Draining, PluginClosed
from hostkit._link import Link

ECHO = """
    class P:
        def execute(self, ctx, request):
            return request
"""


def test_close_lets_a_running_call_end(faulty):
    bad = faulty()
    call = bad.begin("sleep", seconds=0.4)
    bad.host.close()
    assert call.result(0) == "slept"


def test_a_call_that_outlasts_the_drain_is_cancelled_and_told_so(faulty_worker):
    bad = faulty_worker()
    call = bad.begin("wait_for_cancel", seconds=30)
    started = time.monotonic()
    bad.host.close(0.2)
    assert time.monotonic() - started < 3.0
    error = call.exception(5)
    assert type(error) is CallCancelled
    assert not isinstance(error, hostkit.Rejected)  # it had reached the plugin


def test_a_call_that_will_not_be_cancelled_is_cut_off_by_close(faulty_worker, log):
    bad = faulty_worker(cancel_grace=0.2)
    call = bad.begin("sleep_ignoring_sigterm", seconds=30, request_id="cut")
    started = time.monotonic()
    bad.host.close(0.2)
    assert time.monotonic() - started < 5.0
    error = call.exception(5)
    assert type(error) is CallCancelled
    assert error.request_id == "cut"
    assert not multiprocess.active_children()


def test_plugins_close_after_their_last_call(install, new_host, isolation, tmp_path, until):
    place = tmp_path / "order"
    install(
        "tidy",
        f"""
        import time
        def note(what):
            with open({str(place)!r}, "a") as file:
                file.write(what + " ")
        class P:
            def execute(self, ctx, request):
                open({str(tmp_path / "began")!r}, "w").close()
                try:
                    while not ctx.cancelled and request:
                        time.sleep(0.01)
                finally:
                    note("ended")
            def close(self):
                note("closed")
        """,
    )
    host = new_host()
    host.load("tidy", isolation=isolation)
    host.execute("tidy", False)
    host.close()
    assert place.read_text() == "ended closed "
    if isolation == "process":
        place.unlink()
        (tmp_path / "began").unlink()
        host = new_host()
        host.load("tidy", isolation=isolation)
        call = host.submit("tidy", True)
        until((tmp_path / "began").exists)
        host.close(0.1)
        assert call.result(5) is None  # it gave in, and what it returned is its answer
        assert place.read_text() == "ended closed "


def test_an_async_call_in_flight_is_cancelled_by_close(install, new_host, isolation, tmp_path, until):
    source = "import asyncio\nclass P:\n    async def execute(self, ctx, request):\n        open(request, 'w').close()\n        await asyncio.sleep(30)\n"
    install("sleeper", source)
    host = new_host()
    host.load("sleeper", isolation=isolation)
    call = host.submit("sleeper", str(tmp_path / "began"))
    until((tmp_path / "began").exists)
    started = time.monotonic()
    host.close(0.1)
    assert time.monotonic() - started < 3.0
    assert type(call.exception(5)) is CallCancelled


def test_a_stream_in_flight_is_cancelled_by_close(install, new_host, isolation):
    install(
        "counting",
        "import asyncio\nclass P:\n    async def execute(self, ctx, request):\n        while True:\n            yield 1\n            await asyncio.sleep(0.01)\n",
    )
    host = new_host()
    host.load("counting", isolation=isolation)
    items = host.stream("counting", None)
    assert next(items) == 1
    host.close(0.1)
    with pytest.raises(CallCancelled):
        for _ in range(10_000):
            next(items)


CLOSES = {
    "hang": "time.sleep(60)",
    "raise": "raise RuntimeError('stuck')",
    "exit": "os._exit(3)",
    "stop": "os.kill(os.getpid(), signal.SIGSTOP)",
    "sys-exit": "sys.exit(1)",
    "ignore-sigterm": "signal.signal(signal.SIGTERM, signal.SIG_IGN) or time.sleep(60)",
}


@pytest.mark.parametrize("how", ["hang", "raise", "exit", "stop", "sys-exit", "ignore-sigterm"])
def test_a_close_that_goes_wrong_is_bounded_and_told_once(install, new_host, log, how):
    body = CLOSES[how]
    if how == "ignore-sigterm":
        body = "threading.main_thread() and time.sleep(60)"
    install(
        "stuck",
        f"""
        import os, signal, sys, threading, time
        class P:
            def __init__(self):
                {"signal.signal(signal.SIGTERM, signal.SIG_IGN)" if how == "ignore-sigterm" else "pass"}
            def execute(self, ctx, request):
                return request
            def close(self):
                {body}
        """,
    )
    host = new_host(config={"plugins": {"stuck": {"close_timeout": 0.5}}})
    host.load("stuck", isolation="process")
    assert host.execute("stuck", 1) == 1
    started = time.monotonic()
    host.close()
    assert time.monotonic() - started < 4.0
    told = [record for record in log if record["level"] == "ERROR"]
    assert len(told) == 1
    assert "did not close in order" in told[0]["text"]
    assert told[0]["plugin"] == "stuck"
    host.close()
    assert len([record for record in log if record["level"] == "ERROR"]) == 1
    with pytest.raises(PluginClosed):
        host.execute("stuck", 1)


@pytest.mark.parametrize("how", ["hang", "raise", "sys-exit"])
def test_a_close_that_goes_wrong_in_process_is_bounded_and_told_once(install, new_host, log, how):
    body = {"hang": "EVENT.wait(60)"}.get(how, CLOSES[how])
    install(
        "stuck",
        f"""
        import sys, threading
        EVENT = threading.Event()
        class P:
            def execute(self, ctx, request):
                return request
            def close(self):
                {body}
        """,
    )
    host = new_host(config={"plugins": {"stuck": {"close_timeout": 0.3}}})
    host.load("stuck", isolation="none")
    event = __import__("stuck").EVENT
    started = time.monotonic()
    host.close()
    assert time.monotonic() - started < 3.0
    assert len([record for record in log if record["level"] == "ERROR"]) == 1
    event.set()


def test_close_is_idempotent_and_ends_everything(faulty):
    bad = faulty()
    for _ in range(3):
        bad.host.close()
    with pytest.raises(PluginClosed) as caught:
        bad.call("fine")
    assert caught.value.phase == "queue"
    with pytest.raises(PluginClosed):
        bad.host.load("bad")
    assert not multiprocess.active_children()


def test_a_host_that_never_loaded_anything_closes(new_host):
    host = new_host()
    host.close()
    host.close()
    with pytest.raises(hostkit.HostkitError):
        host.execute("nothing", 1)


def test_fifty_closes_at_once_are_one(faulty, until):
    bad = faulty()
    errors = []

    def close():
        try:
            bad.host.close()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is collected
            errors.append(error)

    threads = [threading.Thread(target=close) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    until(lambda: not multiprocess.active_children())


def test_a_plugin_can_close_its_host_from_within_a_call(install, new_host):
    hosts = []
    install("closer", ECHO)
    host = new_host()

    class Closer:
        def execute(self, ctx, request):
            hosts[0].close(0.1)
            return "closed it"

    host.register(Closer(), name="inner")
    host.load("closer", isolation="process")
    hosts.append(host)
    assert host.execute("inner", None) == "closed it"
    with pytest.raises(PluginClosed):
        host.execute("closer", 1)


def test_a_future_s_callback_can_close_the_host(faulty):
    bad = faulty()
    closed = threading.Event()

    def close(_):
        bad.host.close(1.0)
        closed.set()

    bad.host.submit("bad", {"op": "fine"}).add_done_callback(close)
    assert closed.wait(10)
    with pytest.raises(PluginClosed):
        bad.call("fine")


def test_a_host_closed_while_it_loads_leaves_no_worker(install, new_host, until):
    install("slow", "import time\ntime.sleep(0.5)\n" + ECHO.replace("\n    ", "\n"))
    host = new_host()
    errors = []

    def load():
        try:
            host.load("slow", isolation="process")
        except hostkit.HostkitError as error:
            errors.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    until(multiprocess.active_children)
    host.close()
    thread.join(10)
    assert [type(error) for error in errors] == [PluginClosed]
    until(lambda: not multiprocess.active_children())


@pytest.mark.parametrize("round_", range(3))
def test_close_during_calls_gives_each_caller_one_outcome(faulty_worker, round_):
    bad = faulty_worker(concurrency=3, cancel_grace=0.2)
    random.seed(round_)
    outcomes = []

    def call(number):
        try:
            time.sleep(random.random() * 0.2)
            outcomes.append(bad.call("sleep" if number % 2 else "wait_for_cancel", seconds=random.random() * 0.3))
        except CallError as error:
            outcomes.append(type(error).__name__)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    time.sleep(random.random() * 0.3)
    bad.host.close(0.05)
    for thread in threads:
        thread.join(10)
    assert len(outcomes) == 12
    assert set(outcomes) <= {"slept", "x", "CallCancelled", "PluginClosed", "Draining"}


def test_draining_refuses_new_calls_and_waits_for_the_old_ones(faulty):
    bad = faulty()
    call = bad.begin("sleep", seconds=0.4)
    assert bad.host.drain("bad", 0.05) is False
    with pytest.raises(Draining):
        bad.call("fine")
    assert bad.host.drain("bad", 5) is True
    assert call.result(0) == "slept"
    bad.host.reload("bad")
    assert bad.call("fine") == "fine"


def test_a_reload_under_traffic_loses_no_call(faulty):
    bad = faulty(concurrency=2)
    stop = threading.Event()
    errors = []
    answered = []

    def call():
        while not stop.is_set():
            try:
                assert bad.call("fine") == "fine"
                answered.append(1)
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is collected
                errors.append(error)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for isolation in ("process", "none", bad.isolation):
        bad.host.reload("bad", isolation=isolation)
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert answered


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_forgotten_host_ends_its_workers_and_warns(install, until):
    install("echo", ECHO)
    host = hostkit.Host()
    host.load("echo", isolation="process")
    assert host.execute("echo", 1) == 1
    assert multiprocess.active_children()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del host
        gc.collect()
    assert [str(warning.message) for warning in caught if "unclosed Host" in str(warning.message)]
    until(lambda: not multiprocess.active_children())


def test_a_host_forgotten_on_its_own_monitor_thread_ends_its_workers_too(install, until):
    install("echo", ECHO)
    host = hostkit.Host()
    host.load("echo", isolation="process")
    monitor, box = host._loader.monitor, [host]
    del host
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.disable()
        try:
            done = threading.Event()

            def forget():
                box.clear()
                gc.collect()
                done.set()

            monitor.run(forget)
            assert done.wait(10)
        finally:
            gc.enable()
        del monitor
    until(lambda: not multiprocess.active_children())


def test_a_worker_outlives_the_thread_that_started_it(faulty_worker, install, new_host):
    install("echo", ECHO)
    host = new_host()
    thread = threading.Thread(target=host.load, args=("echo",), kwargs={"isolation": "process"})
    thread.start()
    thread.join()
    pid = multiprocess.active_children()[0].pid
    assert host.execute("echo", 1) == 1
    time.sleep(0.1)
    os.kill(pid, 0)
    assert host.execute("echo", 2) == 2
    assert multiprocess.active_children()[0].pid == pid


def test_a_stopped_worker_does_not_hold_up_close(faulty_worker):
    bad = faulty_worker(close_timeout=0.5)
    os.kill(bad.pid, signal.SIGSTOP)
    started = time.monotonic()
    bad.host.close()
    assert time.monotonic() - started < 3.0
    assert not multiprocess.active_children()


def test_a_host_closed_during_a_reload_leaves_no_worker(install, new_host, until):
    install("slow", "import time\ntime.sleep(0.5)\n" + ECHO.replace("\n    ", "\n"))
    host = new_host()
    host.load("slow", isolation="process")
    errors = []

    def reload():
        try:
            host.reload("slow")
        except hostkit.HostkitError as error:
            errors.append(error)

    thread = threading.Thread(target=reload)
    thread.start()
    until(lambda: len(multiprocess.active_children()) == 2)
    host.close()
    thread.join(10)
    assert [type(error) for error in errors] == [PluginClosed]
    until(lambda: not multiprocess.active_children())
    with pytest.raises(PluginClosed):
        host.execute("slow", 1)


@pytest.mark.parametrize("step", ["reload", "unload"])
def test_close_ends_calls_that_a_reload_or_an_unload_still_waits_for(faulty_worker, step, until):
    bad = faulty_worker()
    call = bad.begin("wait_for_cancel", seconds=30)

    def take_away():
        with suppress(PluginClosed):  # told to a reload, whose new lane is closed, too
            getattr(bad.host, step)("bad")

    thread = threading.Thread(target=take_away)
    thread.start()
    until(lambda: bad.host._loader.leaving)
    started = time.monotonic()
    bad.host.close(0.2)
    assert time.monotonic() - started < 3.0
    assert type(call.exception(0)) is CallCancelled
    thread.join(3)
    assert not thread.is_alive()
    assert not multiprocess.active_children()


def test_a_channel_that_a_cancelled_task_was_given_is_closed_with_the_plugin(faulty_worker, until):
    bad = faulty_worker()
    pid = bad.pid

    async def give_up():
        running = bad.begin("sleep", seconds=0.2)
        task = asyncio.create_task(bad.host.aexecute("bad", {"op": "fine"}))
        await asyncio.sleep(0)
        # The loop stands still: the task gets its turn, its worker dies, and only then the task is cancelled.
        running.result(5)
        os.kill(pid, signal.SIGKILL)
        until(lambda: bad.call("pid") != pid)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(give_up())
    # That nothing is left behind is looked at after every test.
    bad.host.close()


def test_a_call_that_waits_for_a_busy_worker_goes_to_the_new_one_after_a_reload(faulty_worker, monkeypatch, until):
    monkeypatch.setattr("hostkit._loader.DRAIN", 0.3)
    bad = faulty_worker()
    running = bad.begin("wait_for_cancel", seconds=30)
    waiting = bad.host.submit("bad", {"op": "fine"})
    until(lambda: bad.host._loader.record("bad").lane.gate.inside == 2)
    bad.host.reload("bad")
    assert type(running.exception(5)) is CallCancelled
    assert waiting.result(5) == "fine"


def test_a_host_closed_just_when_it_starts_its_first_worker_leaves_none(install, new_host, monkeypatch, until):
    install("echo", ECHO)
    host = new_host()
    start = Link._start

    def start_and_close(link):
        start(link)
        host.close(0.0)

    monkeypatch.setattr(Link, "_start", start_and_close)
    started = time.monotonic()
    with pytest.raises(PluginClosed):
        host.load("echo", isolation="process")
    assert time.monotonic() - started < 5.0
    until(lambda: not multiprocess.active_children())
