"""Whatever happens to a plugin, its workers and its host: each call has exactly one outcome, its own, in bounded time."""

from __future__ import annotations

import asyncio
import collections
import gc
import itertools
import os
import threading
import time
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import multiprocess
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

import hostkit
from hostkit import CallError, CallTimeout, HostkitError, PluginFailed, PluginLoadError, Rejected, testing

NUMBERED = Path(__file__).parent / "numbered_plugin.py"
PLUGINS = {"plain": "Plain", "async": "Async", "stream": "Stream"}
SYNC_VERBS = ("execute", "submit")
# Of a call beyond its own time limit: its worker's last grace, a restart, a machine with other things to do.
PATIENCE = 20.0


@dataclass
class Call:
    """One call and what became of it. ``outcomes`` has an entry for each time that its caller was told something final."""

    number: int
    plugin: str
    verb: str
    how: str
    timeout: float
    size: int
    outcomes: list[object] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    future: Future | None = None
    given_up: bool = False

    def end(self, outcome):
        self.outcomes.append(outcome)
        self.ended.set()

    @property
    def request(self):
        return {"number": self.number, "how": self.how, "size": self.size, "seconds": 0.0}


class Traffic(RuleBasedStateMachine):
    """Calls of every kind from many threads, while workers die and plugins are reloaded, drained, unloaded and closed."""

    site: Path
    journal: Path
    calls = Bundle("calls")

    @initialize(
        isolation=st.sampled_from(["process", "process", "none"]),
        workers=st.integers(1, 2),
        concurrency=st.integers(1, 3),
        grace=st.sampled_from([0.02, 0.5]),
    )
    def open(self, isolation, workers, concurrency, grace):
        self.journal.write_text("")
        settings = {
            "concurrency": concurrency,
            "cancel_grace": grace,
            "close_timeout": 1.0,
            "timeout": 5.0,
            "restarts": {"budget": 1_000_000, "window": 0.1},
            "config": {"journal": str(self.journal), "host": os.getpid()},
        }
        self.resize(workers)
        self.host = hostkit.Host(config={"defaults": {"sandbox": "off"}, "plugins": dict.fromkeys(PLUGINS, settings)})
        self.closed = False
        for plugin in PLUGINS:
            self.host.load(plugin, isolation=isolation)

    def __init__(self):
        super().__init__()
        self.host = None
        self.closed = True
        self.made = []
        self.numbers = itertools.count(1)
        self.threads = []
        self.wrong = []
        self.stack = ExitStack()
        self.stack.enter_context(testing.no_leaks())
        self.loop = asyncio.new_event_loop()
        self.loop_thread = threading.Thread(target=self.loop.run_forever, name="tasks")
        self.loop_thread.start()

    # What callers do.

    @rule(
        target=calls,
        kinds=st.lists(
            st.tuples(
                st.sampled_from(["plain", "plain", "async", "stream"]),
                st.booleans(),
                st.booleans(),
                st.sampled_from(["answer", "answer", "answer", "stubborn", "fail", "exit"]),
                st.sampled_from([0.0, 0.0, 0.02, 0.2]),
                st.sampled_from([0.0, 0.03, 1.0, 2.0, 2.0, 2.0]),
                st.sampled_from([0, 10, 200_000]),
            ),
            min_size=1,
            max_size=6,
        ),
    )
    def call(self, kinds):
        return multiple(*(self.begin(*kind) for kind in kinds))

    def begin(self, plugin, as_task, other_verb, how, seconds, timeout, size):
        if plugin == "stream":
            verb = "astream" if as_task else "stream"
        else:
            verb = "aexecute" if as_task else SYNC_VERBS[other_verb]
        call = Call(next(self.numbers), plugin, verb, how, timeout, size)
        self.made.append(call)
        request = {**call.request, "seconds": seconds}
        if as_task:
            call.future = asyncio.run_coroutine_threadsafe(self.task(call, request), self.loop)
            call.future.add_done_callback(lambda future: call.end(outcome_of(future)))
        elif verb == "submit":
            call.future = self.host.submit(plugin, request, timeout=timeout)
            call.future.add_done_callback(lambda future: call.end(outcome_of(future)))
        else:
            self.beside(self.caller, call, request)
        return call

    def caller(self, call, request):
        try:
            if call.verb == "execute":
                outcome = self.host.execute(call.plugin, request, timeout=call.timeout)
            else:
                outcome = list(self.host.stream(call.plugin, request, timeout=call.timeout))
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the outcome
            outcome = error
        call.end(outcome)

    async def task(self, call, request):
        if call.verb == "aexecute":
            return await self.host.aexecute(call.plugin, request, timeout=call.timeout)
        return [item async for item in self.host.astream(call.plugin, request, timeout=call.timeout)]

    @rule(call=consumes(calls))
    def give_up(self, call):
        if call.future is not None:
            call.given_up = True
            call.future.cancel()

    # What happens to them.

    @precondition(lambda self: not self.closed)
    @rule(which=st.integers(0, 10))
    def kill_a_worker(self, which):
        workers = [child for child in multiprocess.active_children() if child.pid]
        if workers:
            with_pid = workers[which % len(workers)]
            with_pid.kill()

    @precondition(lambda self: not self.closed)
    @rule(
        plugin=st.sampled_from([*PLUGINS]),
        isolation=st.sampled_from(["process", "process", "none", None]),
        workers=st.integers(1, 3),
    )
    def reload(self, plugin, isolation, workers):
        self.resize(workers)
        self.beside(self.allowed, self.host.reload, plugin, isolation=isolation)

    @precondition(lambda self: not self.closed)
    @rule(plugin=st.sampled_from([*PLUGINS]), timeout=st.sampled_from([0.0, 0.05, 1.0]))
    def drain(self, plugin, timeout):
        self.beside(self.allowed, self.host.drain, plugin, timeout)
        self.beside(self.allowed, self.host.reload, plugin)

    @precondition(lambda self: not self.closed)
    @rule(plugin=st.sampled_from([*PLUGINS]), timeout=st.sampled_from([0.0, 0.05, 1.0]))
    def unload(self, plugin, timeout):
        self.beside(self.allowed, self.host.unload, plugin, timeout=timeout)

    @precondition(lambda self: len(self.made) > 20)
    @rule(timeout=st.sampled_from([0.0, 0.05, 1.0]))
    def close(self, timeout):
        self.closed = True
        self.beside(self.allowed, self.host.close, timeout)

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.05]))
    def go_on_for(self, seconds):
        time.sleep(seconds)  # so that what was begun gets to other places

    @rule()
    def settle(self):
        self.wait_for(self.made)

    def resize(self, workers):
        """How many workers the next load starts."""
        for plugin in PLUGINS:
            (self.site / plugin / "plugin.toml").write_text(f"workers = {workers}\n")

    def beside(self, what, *arguments, **options):
        thread = threading.Thread(target=what, args=arguments, kwargs=options)
        self.threads.append(thread)
        thread.start()

    def allowed(self, what, *arguments, **options):
        """An operator's step may fail, in a typed way: its worker may be killed while it starts."""
        try:
            what(*arguments, **options)
        except HostkitError as error:
            if isinstance(error, PluginLoadError):
                self.wrong.append(error)
        except BaseException as error:  # noqa: BLE001 - it is told by the main thread
            self.wrong.append(error)

    # What must hold.

    def wait_for(self, calls):
        end = time.monotonic() + PATIENCE
        for call in calls:
            assert call.ended.wait(max(0.0, end - time.monotonic())), f"{call} has no outcome"

    def teardown(self):
        try:
            self.wait_for(self.made)
            if self.host is not None:
                started = time.monotonic()
                self.host.close(1.0)
                assert time.monotonic() - started < PATIENCE
            for thread in self.threads:
                thread.join(PATIENCE)
                assert not thread.is_alive(), thread
            assert self.wrong == []
            begun = collections.Counter(map(int, self.journal.read_text().split()))
            for call in self.made:
                check(call, begun[call.number])
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.loop_thread.join()
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            self.made.clear()
            self.threads.clear()
            self.host = None
            gc.collect()
        self.stack.close()


def outcome_of(future):
    try:
        return future.result(0)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the outcome
        return error


def check(call, begun):
    """Whether one call's outcome is one that it may have; ``begun`` says how often the plugin began with it."""
    assert len(call.outcomes) == 1, call
    (outcome,) = call.outcomes
    assert begun <= 1, f"begun {begun} times: {call}"
    if not isinstance(outcome, BaseException):
        answer = {"number": call.number, "load": "x" * call.size}
        assert outcome == ([{**answer, "index": index} for index in range(5)] if call.plugin == "stream" else answer), call
        assert begun == 1, call
    elif isinstance(outcome, (CancelledError, asyncio.CancelledError)):
        assert call.given_up, call
    else:
        assert isinstance(outcome, CallError), call
        assert outcome.plugin == call.plugin, call
        if isinstance(outcome, Rejected) or outcome.phase in {"queue", "start"}:
            assert begun == 0, f"{outcome!r}, and it was begun: {call}"
        if isinstance(outcome, PluginFailed):
            assert outcome.remote_type == "ValueError", call
            assert outcome.remote_message == str(call.number), call
            assert (begun, call.how) == (1, "fail"), call
        if isinstance(outcome, CallTimeout):
            assert call.timeout < 2.0 or call.how == "stubborn" or outcome.phase != "queue", call


@pytest.fixture
def traffic(install, site, tmp_path):
    """Install the plugins; run the machine with ``traffic(examples, steps)``."""
    source = NUMBERED.read_text()
    for plugin, attribute in PLUGINS.items():
        install(plugin, source, attribute=attribute, manifest="workers = 1\n")

    class Here(Traffic):
        journal = tmp_path / "journal"

    Here.site = site

    def run(examples, steps):
        run_state_machine_as_test(
            Here,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                database=None,
                # Threads decide what happens, so a shrunk example says nothing.
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
                print_blob=False,
            ),
        )

    return run


@pytest.mark.timeout(300)
def test_every_call_has_exactly_one_outcome_whatever_happens_around_it(traffic):
    traffic(12, 30)
