"""The event loop where a plugin's coroutines live, whoever waits for them."""

from __future__ import annotations

import asyncio
from concurrent.futures import CancelledError

import pytest

from hostkit._worker._plugin_loop import PluginLoop


@pytest.fixture
def loop():
    made = PluginLoop("p")
    yield made
    made.stop()


async def one():
    return 1


def test_what_is_begun_ends_on_the_loop(loop):
    assert loop.begin(one()).result(10) == 1
    assert loop.begin_awaited(one()).result(10) == 1


def test_who_would_wait_on_the_loops_own_thread_is_told_and_what_he_waits_for_is_closed(loop):
    async def waits():
        return loop.begin_awaited(one()).result()

    with pytest.raises(RuntimeError, match="plugin 'p' waits, on its own event loop"):
        loop.begin(waits()).result(10)


def test_a_coroutine_may_begin_another_one_and_await_it(loop):
    async def awaits():
        return await asyncio.wrap_future(loop.begin(one()))

    assert loop.begin(awaits()).result(10) == 1


def test_nothing_begins_on_a_loop_that_was_stopped(loop):
    loop.stop()
    for begin in (loop.begin, loop.begin_awaited):
        with pytest.raises(CancelledError):
            begin(one())
    loop.stop()


def test_what_still_runs_is_cancelled_by_the_stop(loop):
    began = asyncio.Event()

    async def begins():
        began.set()
        await asyncio.sleep(60)

    call = loop.begin(begins())
    loop.begin(began.wait()).result(10)
    loop.stop()
    assert call.cancelled()


def test_what_was_begun_is_cancelled_within_the_patience(loop):
    stubborn, gentle = asyncio.Event(), asyncio.Event()

    async def ends_later():
        gentle.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            stubborn.set()
            await asyncio.sleep(0.01)
            return "late"

    call = loop.begin(ends_later())
    loop.begin(gentle.wait()).result(10)
    loop.cancel_calls(10.0)
    assert stubborn.is_set()
    assert call.result(0) == "late"
