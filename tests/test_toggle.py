"""The isolation toggle: a plugin changes its place under traffic, and nobody's call is lost or made twice."""

from __future__ import annotations

import asyncio
import collections
import os
import threading

import pytest

import hostkit

COUNTED = """
    import os

    class P:
        def __init__(self, config: dict):
            self.file = os.open(config["journal"], os.O_WRONLY | os.O_APPEND)

        def execute(self, ctx, request):
            os.write(self.file, b"%d\\n" % request)
            return [request, os.getpid()]

        def close(self):
            if self.file >= 0:
                os.close(self.file)
            self.file = -1
"""

HEALTHY_WHERE = """
    import os
    from hostkit import HealthStatus, Status

    class P:
        def execute(self, ctx, request):
            return os.getpid()

        def health(self):
            {health}
"""


def test_toggles_under_traffic_lose_no_call_and_make_none_twice(install, new_host, tmp_path):
    journal = tmp_path / "journal"
    journal.touch()
    install("p", COUNTED)
    host = new_host(config={"plugins": {"p": {"config": {"journal": str(journal)}}}})
    host.load("p")
    over = threading.Event()
    answered: list[list[list[int]]] = [[] for _ in range(8)]

    def call(caller: int) -> None:
        number = caller
        while not over.is_set():
            answered[caller].append(host.execute("p", number))
            number += 8
            over.wait(0.001)

    async def acall(caller: int) -> None:
        number = caller
        while not over.is_set():
            answered[caller].append(await host.aexecute("p", number))
            number += 8
            await asyncio.sleep(0.001)

    async def acalls() -> None:
        await asyncio.gather(*(acall(caller) for caller in range(4, 8)))

    failed: list[BaseException] = []

    def run(target, *arguments) -> None:
        try:
            target(*arguments)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(call, caller)) for caller in range(4)]
    threads.append(threading.Thread(target=run, args=(lambda: asyncio.run(acalls()),)))
    for thread in threads:
        thread.start()
    try:
        for turn in range(20):
            host.reload("p", isolation=("process", "none")[turn % 2])
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert failed == []
    numbers = [number for calls in answered for number, _ in calls]
    for caller, calls in enumerate(answered):
        assert [number for number, _ in calls] == list(range(caller, caller + 8 * len(calls), 8))
    begun = collections.Counter(map(int, journal.read_text().split()))
    assert begun == collections.Counter(numbers)
    assert len({pid for calls in answered for _, pid in calls}) > 5


def test_a_move_is_an_event_that_says_who_wanted_it(install, host):
    install("p", HEALTHY_WHERE.format(health="return HealthStatus(Status.HEALTHY)"))
    events = []
    host.subscribe(events.append)
    host.load("p")
    host.reload("p", isolation="process")
    host.reload("p")
    moves = [event for event in events if isinstance(event, hostkit.IsolationChanged)]
    assert [(move.before, move.after, move.why, move.asked) for move in moves] == [
        ("none", "process", "the application asked for it", True)
    ]


@pytest.mark.parametrize(
    ("health", "words"),
    [
        ("return HealthStatus(Status.UNHEALTHY, 'no database')", "unhealthy: no database"),
        ("return HealthStatus(Status.OFFLINE, 'no database')", "offline: no database"),
        ("raise ValueError('no database')", "no database"),
        ("import time; time.sleep(1.5)", "no answer to health in time"),
    ],
)
def test_what_is_not_well_does_not_take_over(install, new_host, isolation, health, words):
    only_later = f"if hasattr(os, 'second'): {health}\n            return HealthStatus(Status.HEALTHY)"
    if isolation == "process":
        only_later = f"if os.getpid() != {os.getpid()}: {health}\n            return HealthStatus(Status.HEALTHY)"
    install("p", HEALTHY_WHERE.format(health=only_later))
    host = new_host(config={"defaults": {"health": {"timeout": 0.5, "interval": "1h"}}})
    host.load("p")
    os.second = True
    try:
        with pytest.raises(hostkit.PluginLoadError, match=words) as caught:
            host.reload("p", isolation=isolation)
    finally:
        del os.second
    assert caught.value.kind == "health"
    assert "the one before goes on" in str(caught.value)
    assert host.execute("p", None) == os.getpid()
    assert host.info("p").metadata["hostkit"]["isolation"] == "none"


@pytest.mark.parametrize("status", ["DEGRADED", "UNKNOWN"])
def test_what_is_only_degraded_takes_over(install, host, status):
    install("p", HEALTHY_WHERE.format(health=f"return HealthStatus(Status.{status})"))
    host.load("p")
    host.reload("p", isolation="process")
    assert host.execute("p", None) != os.getpid()


def test_a_reload_that_fails_leaves_the_wish_as_it_was(install, host, site):
    package = install("p", HEALTHY_WHERE.format(health="return HealthStatus(Status.HEALTHY)"))
    host.load("p")
    (site / package / "__init__.py").write_text("raise ImportError('mended badly')")
    with pytest.raises(hostkit.PluginLoadError, match="mended badly"):
        host.reload("p", isolation="process")
    assert host.execute("p", None) == os.getpid()
    (site / package / "__init__.py").write_text(
        "import os\nclass P:\n    def execute(self, ctx, request):\n        return os.getpid()\n"
    )
    host.unload("p")
    assert host.execute("p", None) == os.getpid()
