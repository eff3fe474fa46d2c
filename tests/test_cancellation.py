"""Cancelled futures: a queued call is dropped, a running one is told, one that goes on costs a worker and nobody else."""

from __future__ import annotations

import concurrent.futures
import os
import threading
import time

import pytest

from hostkit import CallError
from hostkit._worker._plugin_loop import PluginLoop

PLUGIN = """
    import os, time

    class P:
        def execute(self, ctx, request):
            with open(request["begun"], "a") as file:
                file.write(f"{request['number']}\\n")
            end = time.monotonic() + request.get("seconds", 0)
            while time.monotonic() < end:
                if ctx.cancelled and request.get("gives_in", True):
                    with open(request["begun"], "a") as file:
                        file.write("-1\\n")
                    ctx.raise_if_cancelled()
                time.sleep(0.001)
            return os.getpid()
"""
ASYNC = """
    import asyncio, os

    class P:
        async def execute(self, ctx, request):
            with open(request["begun"], "a") as file:
                file.write(f"{request['number']}\\n")
            try:
                await asyncio.sleep(request.get("seconds", 0))
            except asyncio.CancelledError:
                with open(request["begun"], "a") as file:
                    file.write("-1\\n")
                raise
            return os.getpid()
"""


class Noted:
    def __init__(self, host, file):
        self.host = host
        self._file = file
        file.touch()

    def submit(self, number, **more):
        return self.host.submit("noted", {"number": number, "begun": str(self._file), **more})

    @property
    def lines(self):
        return [int(line) for line in self._file.read_text().split()]

    def wait_for(self, number):
        end = time.monotonic() + 10
        while number not in self.lines:
            assert time.monotonic() < end, f"{number} never came"
            threading.Event().wait(0.005)


@pytest.fixture
def noted(install, new_host, tmp_path):
    def make(isolation, source=PLUGIN, **settings):
        install("noted", source)
        return Noted(new_host(config={"plugins": {"noted": {"isolation": isolation, **settings}}}), tmp_path / "begun")

    return make


def test_a_call_that_is_cancelled_just_when_an_async_plugin_has_begun_is_told(install, new_host, tmp_path, monkeypatch):
    install("noted", ASYNC)
    host = new_host()
    host.load("noted", isolation="none")
    plugin, made, begin = Noted(host, tmp_path / "begun"), [], PluginLoop.begin

    def begin_and_cancel(loop, awaitable):
        begun = begin(loop, awaitable)
        plugin.wait_for(1)
        until_made.wait(10)
        made[0].cancel()
        return begun

    until_made = threading.Event()
    monkeypatch.setattr(PluginLoop, "begin", begin_and_cancel)
    made.append(plugin.submit(1, seconds=30))
    until_made.set()
    plugin.wait_for(-1)


@pytest.mark.parametrize("source", [PLUGIN, ASYNC], ids=["sync", "async"])
def test_a_running_call_is_told_and_its_future_is_cancelled_at_once(noted, isolation, source):
    plugin = noted(isolation, source)
    before = plugin.submit(0).result(10)
    future = plugin.submit(1, seconds=30)
    plugin.wait_for(1)
    assert future.running()
    assert future.cancel()
    assert future.cancelled()
    assert future.cancel()
    assert not future.running()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(1)
    assert concurrent.futures.wait([future], timeout=1).done == {future}
    plugin.wait_for(-1)
    assert plugin.submit(2).result(10) == before


def test_a_queued_call_is_dropped(noted):
    plugin = noted("process")
    first = plugin.submit(0, seconds=0.5)
    plugin.wait_for(0)
    queued = [plugin.submit(number) for number in range(1, 6)]
    assert all(future.cancel() for future in queued[:4])
    assert first.result(10) == queued[4].result(10)
    assert plugin.lines == [0, 5]


def test_a_call_that_has_ended_cannot_be_cancelled(noted, isolation):
    plugin = noted(isolation)
    future = plugin.submit(0)
    assert future.result(10)
    assert not future.cancel()
    assert not future.cancelled()


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_call_that_goes_on_costs_its_worker_and_no_other_call(noted, concurrency):
    plugin = noted("process", cancel_grace=0.1, concurrency=concurrency)
    before = plugin.submit(0).result(10)
    stubborn = plugin.submit(1, seconds=60, gives_in=False)
    plugin.wait_for(1)
    innocent = plugin.submit(2, seconds=0.5)
    assert stubborn.cancel()
    assert innocent.result(20) == before if concurrency == 2 else innocent.result(20) != before
    assert plugin.submit(3).result(20) != before
    with pytest.raises(ProcessLookupError):
        for _ in range(2000):
            os.kill(before, 0)
            threading.Event().wait(0.005)


def test_futures_cancelled_at_random_end_each_of_them_once_and_leave_the_others(noted):
    plugin = noted("process", workers=2)
    futures = [plugin.submit(number, seconds=0.003) for number in range(300)]
    cancelled = {number for number in range(0, 300, 3) if futures[number].cancel()}
    for number, future in enumerate(futures):
        if number in cancelled:
            assert future.cancelled()
        else:
            assert isinstance(future.result(30), int)
    begun = [line for line in plugin.lines if line >= 0]
    assert len(begun) == len(set(begun))
    assert set(begun) >= set(range(300)) - cancelled


def test_callbacks_of_a_cancelled_call_run_once_and_its_answer_goes_nowhere(noted, isolation):
    plugin = noted(isolation)
    called = []
    future = plugin.submit(0, seconds=0.2, gives_in=False)
    future.add_done_callback(called.append)
    plugin.wait_for(0)
    assert future.cancel()
    assert isinstance(plugin.submit(1).result(10), int)
    assert called == [future]
    assert not isinstance(future, CallError)
