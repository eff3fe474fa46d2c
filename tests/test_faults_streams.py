"""Streams: read whole, closed early, broken in the middle, and too slow, wherever the plugin runs."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, closing

import pytest

from hostkit import CallTimeout, InvalidRequest, InvalidResponse, PluginFailed, WorkerExited

SYNC = """
    import os, time

    class P:
        seen = []

        def execute(self, ctx, request):
            if request == "seen":
                yield P.seen
                return
            P.seen = []
            try:
                for number in range(request["count"]):
                    if number == request.get("raise_at"):
                        raise ValueError(f"at {number}")
                    if number == request.get("exit_at"):
                        os._exit(4)
                    if number == request.get("bad_at"):
                        yield object()
                    if number == request.get("sleep_at"):
                        end = time.monotonic() + request["sleep"]
                        while time.monotonic() < end and not ctx.cancelled:
                            time.sleep(0.01)
                    P.seen.append(number)
                    yield number if "size" not in request else "x" * request["size"]
                P.seen.append("whole")
            finally:
                P.seen.append("closed")
"""

ASYNC = (
    SYNC.replace("def execute", "async def execute")
    .replace("time.sleep(0.01)", "await asyncio.sleep(0.01)")
    .replace("import os, time", "import asyncio, os, time")
)


@pytest.fixture(params=["sync", "async"])
def source(request):
    return {"sync": SYNC, "async": ASYNC}[request.param]


@pytest.fixture(params=["sync caller", "async caller"])
def read(request):
    """Read a stream with either kind of caller: ``read(host, request, most=..., timeout=...)``."""

    def plainly(host, wanted, most=None, **options):
        found = []
        with closing(host.stream("counting", wanted, **options)) as items:
            for item in items:
                found.append(item)
                if len(found) == most:
                    break
        return found

    def in_a_task(host, wanted, most=None, **options):
        async def run():
            found = []
            async with aclosing(host.astream("counting", wanted, **options)) as items:
                async for item in items:
                    found.append(item)
                    if len(found) == most:
                        break
            return found

        return asyncio.run(run())

    return plainly if request.param == "sync caller" else in_a_task


@pytest.fixture
def host_of(install, new_host, isolation, source):
    install("counting", source)

    def make(**settings):
        host = new_host(config={"plugins": {"counting": settings}})
        host.load("counting", isolation=isolation)
        return host

    return make


def seen(host, wanted):
    """Wait until the plugin has seen the end of its last stream."""
    end = time.monotonic() + 5.0
    while (found := next(iter(host.stream("counting", "seen"))))[-1:] != wanted:
        assert time.monotonic() < end, found
        time.sleep(0.01)
    return found


def test_a_stream_is_read_whole(host_of, read):
    host = host_of()
    assert read(host, {"count": 100}) == list(range(100))
    assert seen(host, ["closed"])[-2:] == ["whole", "closed"]
    assert read(host, {"count": 0}) == []


def test_a_stream_closed_early_is_closed_in_the_plugin_too(host_of, read):
    host = host_of()
    assert read(host, {"count": 1_000_000}, most=3) == [0, 1, 2]
    assert "whole" not in seen(host, ["closed"])
    assert read(host, {"count": 2}) == [0, 1]


def test_an_error_in_the_middle_comes_after_the_items_before_it(host_of, read):
    host = host_of()
    found = []
    with pytest.raises(PluginFailed) as caught:
        for item in host.stream("counting", {"count": 10, "raise_at": 3}):
            found.append(item)
    assert found == [0, 1, 2]
    assert caught.value.remote_type == "ValueError"
    with pytest.raises(PluginFailed):
        read(host, {"count": 10, "raise_at": 0})
    assert read(host, {"count": 2}) == [0, 1]


def test_an_item_that_is_no_data_ends_the_stream_with_an_invalid_response(host_of, read):
    host = host_of()
    with pytest.raises(InvalidResponse):
        read(host, {"count": 10, "bad_at": 3})
    assert read(host, {"count": 2}) == [0, 1]


def test_a_stream_over_its_deadline_is_a_timeout_and_the_next_one_works(host_of, read):
    host = host_of()
    with pytest.raises(CallTimeout):
        read(host, {"count": 10, "sleep_at": 3, "sleep": 30}, timeout=0.3)
    assert read(host, {"count": 2}) == [0, 1]


def test_a_worker_that_dies_in_the_middle_of_a_stream_is_an_exit(install, host, source, read):
    install("counting", source)
    host.load("counting", isolation="process")
    with pytest.raises(WorkerExited) as caught:
        read(host, {"count": 10, "exit_at": 3})
    assert caught.value.exit_code == 4
    assert read(host, {"count": 2}) == [0, 1]


def test_a_slow_reader_holds_the_plugin_back(install, new_host, source):
    install("counting", source)
    host = new_host(config={"defaults": {"cancel_grace": 20}})
    host.load("counting", isolation="process")
    items = host.stream("counting", {"count": 10_000, "size": 10_000})
    next(items)
    time.sleep(0.3)  # the plugin would make 100 MB meanwhile
    items.close()
    assert len(seen(host, ["closed"])) < 200


def test_a_stream_closed_in_the_middle_of_a_large_item_keeps_its_worker(install, host, source):
    install("counting", source)
    host.load("counting", isolation="process")
    for _ in range(3):
        items = host.stream("counting", {"count": 100, "size": 1_000_000})
        next(items)
        items.close()
        assert "whole" not in seen(host, ["closed"])  # which a new worker wouldn't know


def test_a_slow_reader_in_process_gets_each_item_when_it_asks(install, host, source):
    install("counting", source)
    host.load("counting", isolation="none")
    items = host.stream("counting", {"count": 10_000})
    next(items)
    items.close()
    assert seen(host, ["closed"]) == [0, "closed"]


def test_a_stream_that_is_forgotten_is_closed(host_of):
    host = host_of()
    items = host.stream("counting", {"count": 1_000_000})
    assert next(items) == 0
    del items
    assert "whole" not in seen(host, ["closed"])


def test_a_task_cancelled_while_it_reads_a_stream_closes_it(host_of):
    host = host_of()

    async def run():
        reading = asyncio.Event()

        async def read():
            async with aclosing(host.astream("counting", {"count": 10, "sleep_at": 1, "sleep": 30})) as items:
                async for _ in items:
                    reading.set()

        task = asyncio.create_task(read())
        await asyncio.wait_for(reading.wait(), 10)
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert "whole" not in seen(host, ["closed"])


def test_execute_refuses_a_plugin_that_streams(host_of):
    host = host_of()
    with pytest.raises(InvalidRequest, match="stream"):
        host.execute("counting", {"count": 1})


def test_a_plugin_that_does_not_stream_gives_one_item(install, host, isolation):
    install("counting", "class P:\n    def execute(self, ctx, request):\n        return request\n")
    host.load("counting", isolation=isolation)
    assert list(host.stream("counting", 5)) == [5]

    async def run():
        return [item async for item in host.astream("counting", 6)]

    assert asyncio.run(run()) == [6]


def test_several_streams_at_once_do_not_mix(install, new_host, isolation, source):
    install("counting", source)
    host = new_host(config={"plugins": {"counting": {"concurrency": 3}}})
    host.load("counting", isolation=isolation)
    streams = [host.stream("counting", {"count": 50}) for _ in range(3)]
    rows = [[next(stream) for stream in streams] for _ in range(50)]
    assert rows == [[number] * 3 for number in range(50)]
    for stream in streams:
        assert list(stream) == []


def test_a_stream_that_raises_when_it_is_closed_is_told_in_the_log_and_nobody_else(install, host, isolation, log):
    install(
        "counting",
        """
        class P:
            def execute(self, ctx, request):
                try:
                    yield 1
                    yield 2
                finally:
                    raise RuntimeError("at the close")
        """,
    )
    host.load("counting", isolation=isolation)
    with closing(host.stream("counting", None)) as items:
        assert next(items) == 1
    assert next(iter(host.stream("counting", None))) == 1
