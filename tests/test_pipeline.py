"""The calls of many tasks in few channels: sent ahead, answered in order, and each of them exactly once."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time

import pytest

from hostkit import Busy, CallCancelled, CallTimeout, WorkerLost
from hostkit._backends import _asked

PLUGIN = """
    import os, time

    class P:
        def execute(self, ctx, request):
            with open(request["begun"], "a") as file:
                file.write(f"{request['number']}\\n")
            if request.get("kill"):
                os.kill(os.getpid(), 9)
            end = time.monotonic() + request.get("seconds", 0)
            while time.monotonic() < end:
                if request.get("gives_in", True):
                    ctx.raise_if_cancelled()
                time.sleep(0.001)
            return {"number": request["number"], "pid": os.getpid()}
"""


class Numbered:
    """A plugin that notes which calls it began."""

    def __init__(self, host, begun):
        self.host = host
        self._file = begun
        begun.touch()

    def request(self, number, **more):
        return {"number": number, "begun": str(self._file), **more}

    async def call(self, number, *, timeout=None, **more):
        answer = await self.host.aexecute("numbered", self.request(number, **more), timeout=timeout)
        assert answer["number"] == number
        return answer

    @property
    def begun(self):
        return [int(line) for line in self._file.read_text().split()]


@pytest.fixture
def numbered(install, new_host, tmp_path):
    def make(**settings):
        install("numbered", PLUGIN)
        settings = {"isolation": "process", "restarts": {"budget": 1000}, **settings}
        return Numbered(new_host(config={"plugins": {"numbered": settings}}), tmp_path / "begun")

    return make


async def outcomes(*calls):
    return await asyncio.gather(*calls, return_exceptions=True)


@pytest.mark.parametrize("settings", [{}, {"workers": 2}, {"concurrency": 4}], ids=str)
def test_a_thousand_tasks_get_each_its_own_answer_without_a_thread_each(numbered, settings):
    plugin = numbered(**settings)

    async def main():
        await plugin.call(-1)
        threads = threading.active_count()
        answers = await asyncio.gather(*(plugin.call(number) for number in range(1000)))
        assert threading.active_count() <= threads + 1
        return answers

    assert len(asyncio.run(main())) == 1000
    assert sorted(plugin.begun) == list(range(-1, 1000))


def test_calls_that_were_sent_ahead_of_a_dying_worker_are_answered_by_the_next_one(numbered):
    plugin = numbered()

    async def main():
        await asyncio.gather(*(plugin.call(number) for number in range(200)))  # learns that they are quick
        return await outcomes(*(plugin.call(number, kill=number == 250) for number in range(200, 400)))

    found = asyncio.run(main())
    lost = [number for number, outcome in enumerate(found, 200) if isinstance(outcome, WorkerLost)]
    assert lost == [250]
    assert [outcome for outcome in found if isinstance(outcome, Exception)] == [found[50]]
    assert sorted(plugin.begun) == list(range(400))


def test_a_worker_that_is_killed_again_and_again_costs_each_call_no_more_than_itself(numbered):
    plugin = numbered(workers=2)

    async def main():
        plugin.host.load("numbered")
        calls = [asyncio.ensure_future(plugin.call(number, seconds=0.001)) for number in range(500)]
        for _ in range(5):
            await asyncio.sleep(0.05)
            for pid in plugin.host._loader.record("numbered").lane.backend.supervisor.pids:
                os.kill(pid, signal.SIGKILL)
        return await outcomes(*calls)

    found = asyncio.run(main())
    assert all(isinstance(outcome, (dict, WorkerLost)) for outcome in found)
    begun = plugin.begun
    assert len(begun) == len(set(begun)), "a call was begun twice"
    assert {number for number, outcome in enumerate(found) if isinstance(outcome, dict)} <= set(begun)


def test_a_cancelled_task_that_waits_its_turn_never_reaches_the_plugin(numbered):
    plugin = numbered()

    async def main():
        await asyncio.gather(*(plugin.call(number) for number in range(100)))
        first = asyncio.ensure_future(plugin.call(100, seconds=0.3))
        behind = [asyncio.ensure_future(plugin.call(number)) for number in range(101, 121)]
        await asyncio.sleep(0.1)
        for task in behind[:10]:
            task.cancel()
        found = await outcomes(first, *behind)
        assert [type(outcome) for outcome in found[1:11]] == [asyncio.CancelledError] * 10
        assert [outcome["number"] for outcome in (found[0], *found[11:])] == [100, *range(111, 121)]

    asyncio.run(main())
    assert not set(range(101, 111)) & set(plugin.begun)


def test_calls_behind_one_that_does_not_stop_are_answered_by_the_next_worker(numbered):
    plugin = numbered(cancel_grace=0.1)

    async def main():
        before = await asyncio.gather(*(plugin.call(number) for number in range(100)))
        stuck = plugin.call(100, seconds=30, gives_in=False, timeout=0.3)
        found = await outcomes(stuck, *(plugin.call(number) for number in range(101, 121)))
        assert isinstance(found[0], CallTimeout)
        assert {outcome["pid"] for outcome in found[1:]} != {before[0]["pid"]}

    asyncio.run(main())
    assert sorted(plugin.begun) == list(range(121))


def test_a_call_that_could_not_be_sent_in_time_is_busy_and_the_one_that_runs_is_spared(numbered):
    plugin = numbered()
    plugin.host.load("numbered")

    async def main():
        long = asyncio.ensure_future(plugin.call(0, seconds=0.5))
        await asyncio.sleep(0.05)
        found = await outcomes(*(plugin.call(number, timeout=0.1) for number in range(1, 20)))
        assert {type(outcome) for outcome in found} == {Busy}
        assert (await long)["number"] == 0

    asyncio.run(main())
    assert plugin.begun == [0]


def test_threads_and_tasks_share_a_worker_and_neither_starves(numbered):
    plugin = numbered()
    done = {"threads": 0, "tasks": 0}
    stop = threading.Event()

    def caller():
        while not stop.is_set():
            plugin.host.execute("numbered", plugin.request(0))
            done["threads"] += 1

    async def main():
        async def caller():
            while not stop.is_set():
                await plugin.call(0)
                done["tasks"] += 1

        tasks = [asyncio.ensure_future(caller()) for _ in range(50)]
        until = time.monotonic() + 30
        while min(done.values()) < 100 and time.monotonic() < until:
            await asyncio.sleep(0.01)
        stop.set()
        await asyncio.gather(*tasks)

    threads = [threading.Thread(target=caller) for _ in range(4)]
    for thread in threads:
        thread.start()
    asyncio.run(main())
    for thread in threads:
        thread.join()
    assert min(done.values()) >= 100


def test_a_loop_that_ends_under_its_calls_leaves_the_worker_to_others(numbered):
    plugin = numbered()
    plugin.host.load("numbered")
    loop = asyncio.new_event_loop()
    calls = [loop.create_task(plugin.call(number, seconds=0.2)) for number in range(20)]
    loop.run_until_complete(asyncio.sleep(0.1))
    for call in calls:
        call.cancel()
    loop.run_until_complete(asyncio.gather(*calls, return_exceptions=True))
    loop.close()
    del calls
    gc.collect()
    assert plugin.host.execute("numbered", plugin.request(99), timeout=10)["number"] == 99


def test_requests_and_answers_larger_than_a_pipe_cross_from_many_tasks(install, host):
    install("echo", "class P:\n    def execute(self, ctx, request): return request\n")
    host.load("echo", isolation="process")

    async def main():
        texts = [chr(97 + number % 26) * (300_000 if number % 3 else 10) for number in range(30)]
        return texts, await asyncio.gather(*(host.aexecute("echo", {"text": text}) for text in texts))

    texts, answers = asyncio.run(main())
    assert [answer["text"] for answer in answers] == texts


@pytest.fixture
def heavy(monkeypatch):
    """No memory is left for a request that has the word "heavy" in it."""
    packed = _asked.packed

    def short_of_memory(kind, call_id, payload, **beside):
        if b"heavy" in payload:
            raise MemoryError("heavy")
        return packed(kind, call_id, payload, **beside)

    monkeypatch.setattr(_asked, "packed", short_of_memory)


def test_a_call_that_can_not_be_sent_fails_alone_among_those_of_its_turn(numbered, heavy):
    plugin = numbered()

    async def main():
        await asyncio.gather(*(plugin.call(number) for number in range(100)))  # learns that they are quick
        requests = ({"heavy": True} if number % 7 == 0 else {} for number in range(100, 150))
        return await outcomes(*(plugin.call(number, timeout=20, **request) for number, request in enumerate(requests, 100)))

    failed = [number for number, outcome in enumerate(asyncio.run(main()), 100) if isinstance(outcome, MemoryError)]
    assert failed == [105, 112, 119, 126, 133, 140, 147]
    assert sorted(plugin.begun) == [number for number in range(150) if number not in failed]


def test_a_call_that_can_not_be_sent_leaves_its_worker_to_the_next(numbered, heavy):
    plugin = numbered(cancel_grace=0.1)
    before = plugin.host.execute("numbered", plugin.request(0))["pid"]
    with pytest.raises(MemoryError):
        plugin.host.execute("numbered", plugin.request(1, heavy=True))
    with pytest.raises(MemoryError):
        asyncio.run(plugin.call(2, heavy=True))
    assert plugin.host.execute("numbered", plugin.request(3))["pid"] == before


def test_closing_under_many_tasks_ends_each_of_them_once(numbered):
    plugin = numbered(cancel_grace=0.2)

    async def main():
        await plugin.call(0)
        calls = [asyncio.ensure_future(plugin.call(number, seconds=0.05)) for number in range(1, 50)]
        await asyncio.sleep(0.2)
        await asyncio.to_thread(plugin.host.close, 0.1)
        return await outcomes(*calls)

    found = asyncio.run(main())
    assert {type(outcome).__name__ for outcome in found} <= {"dict", "PluginClosed", CallCancelled.__name__}
    begun = plugin.begun
    assert len(begun) == len(set(begun))
    rejected = {number for number, outcome in enumerate(found, 1) if type(outcome).__name__ == "PluginClosed"}
    assert not rejected & set(begun)


def test_a_stream_cancelled_while_its_workers_death_is_looked_into_leaves_no_descriptors(install, host):
    install(
        "dies", "import os, time\nclass P:\n    def execute(self, ctx, request):\n        yield os.getpid()\n        os._exit(3)\n"
    )
    host.load("dies", isolation="process")

    async def main():
        loop, free = asyncio.get_running_loop(), threading.Event()
        busy = [loop.run_in_executor(None, free.wait) for _ in range(64)]  # nobody is free to look into it
        first = loop.create_future()

        async def read():
            async for pid in host.astream("dies", None):
                first.set_result(pid)

        reading = loop.create_task(read())
        pid = await first
        until = time.monotonic() + 20
        while os.path.exists(f"/proc/{pid}") and time.monotonic() < until:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        free.set()
        await asyncio.gather(*busy)

    asyncio.run(main())
