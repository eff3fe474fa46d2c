"""Health checks: what counts as ill and as well again, when who is asked, what is done about it, and who is not held up by it."""

from __future__ import annotations

import gc
import heapq
import itertools
import os
import random
import re
import threading
import time
import types
import weakref
from concurrent.futures import Future

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hostkit
from hostkit import HealthChanged, HealthStatus, HostHealth, PluginLoaded, Status, testing
from hostkit._breaker import Breaker
from hostkit._condition import WELL, Condition, noted
from hostkit._config import HealthConfig, HostConfig
from hostkit._errors import PluginFailed
from hostkit._gate import Gate
from hostkit._health import Means, watch
from hostkit._manifest import Manifest

HEALTHY, DEGRADED, UNKNOWN, UNHEALTHY, OFFLINE = (
    Status.HEALTHY,
    Status.DEGRADED,
    Status.UNKNOWN,
    Status.UNHEALTHY,
    Status.OFFLINE,
)


# What is known after some answers.


def after(*answers, config=HealthConfig()):
    condition = Condition()
    for at, answer in enumerate(answers):
        condition = noted(condition, HealthStatus(answer, f"answer {at}"), config, float(at))
    return condition


def test_nothing_is_known_of_a_plugin_before_its_first_answer_and_good_news_are_believed_at_once():
    assert Condition().status is UNKNOWN
    assert after(HEALTHY).status is HEALTHY
    assert after(DEGRADED).status is DEGRADED
    assert after(UNHEALTHY).status is UNKNOWN


@pytest.mark.parametrize("bad", [UNHEALTHY, OFFLINE, UNKNOWN])
def test_a_plugin_is_unhealthy_after_enough_bad_answers_in_a_row(bad):
    assert after(HEALTHY, bad, bad).status is HEALTHY
    ill = after(HEALTHY, bad, bad, bad, bad)
    assert (ill.status, ill.since, ill.last_check, ill.failures, ill.message) == (UNHEALTHY, 3.0, 4.0, 4, "answer 4")
    assert after(bad, bad, bad).status is UNHEALTHY


def test_a_plugin_is_healthy_again_after_enough_good_answers_in_a_row():
    ill = [UNHEALTHY] * 3
    assert after(*ill, HEALTHY).status is UNHEALTHY
    assert after(*ill, HEALTHY, HEALTHY).status is HEALTHY
    assert after(*ill, HEALTHY, UNHEALTHY, HEALTHY).status is UNHEALTHY
    assert after(*ill, DEGRADED, DEGRADED).status is DEGRADED
    assert after(*ill, DEGRADED, HEALTHY).status is HEALTHY


def test_what_a_plugin_says_of_itself_is_kept_in_part_where_it_is_long():
    said = noted(Condition(), HealthStatus(HEALTHY, "y" * 5_000_000), HealthConfig(), 0.0).message
    assert len(said) < 1100
    assert said.endswith("... (5000000 characters)")


def test_what_an_event_quotes_is_escaped_in_its_sentence_and_plain_in_its_fields():
    event = HealthChanged("p", "healthy", "unhealthy", "\x1b[2Jgone\nINFO forged")
    assert str(event) == "plugin 'p' is unhealthy, was healthy: \\x1b[2Jgone\\x0aINFO forged"
    assert event.why == "\x1b[2Jgone\nINFO forged"


def test_a_plugin_that_flaps_stays_what_it_was():
    assert after(HEALTHY, *[UNHEALTHY, HEALTHY] * 50).status is HEALTHY
    assert after(*[UNHEALTHY] * 3, *[HEALTHY, UNHEALTHY] * 50).status is UNHEALTHY
    assert after(HEALTHY, *[DEGRADED, HEALTHY] * 50).status is DEGRADED
    assert after(HEALTHY, *[DEGRADED, HEALTHY] * 50, HEALTHY).status is HEALTHY


@given(
    st.lists(st.sampled_from(list(Status)), max_size=40),
    st.builds(HealthConfig, failures=st.integers(1, 4), recoveries=st.integers(1, 4)),
)
def test_whatever_is_answered_the_condition_is_that_of_a_plain_reading_of_all_answers(answers, config):
    """The model looks at the whole story each time and counts nothing."""
    status = UNKNOWN
    changed = -1
    for end in range(1, len(answers) + 1):
        story, last = answers[changed + 1 : end], answers[end - 1]
        bad_run = list(itertools.takewhile(lambda answer: answer not in WELL, reversed(answers[:end])))
        good_run = list(itertools.takewhile(lambda answer: answer in WELL, reversed(story)))
        best_run = list(itertools.takewhile(lambda answer: answer is HEALTHY, reversed(story)))
        before = status
        if len(bad_run) >= config.failures:
            status = UNHEALTHY
        elif bad_run:
            pass
        elif status is UNHEALTHY:
            status = last if len(good_run) >= config.recoveries else status
        elif status is DEGRADED:
            status = HEALTHY if len(best_run) >= config.recoveries else status
        else:
            status = last
        if status is not before:
            changed = end - 1
        found = after(*answers[:end], config=config)
        assert found.status is status, answers[:end]
        assert found.failures == len(bad_run)


# The host as a whole.


@pytest.mark.parametrize(
    ("answers", "status"),
    [
        ([], HEALTHY),
        ([HEALTHY, HEALTHY], HEALTHY),
        ([HEALTHY, DEGRADED], DEGRADED),
        ([UNKNOWN, DEGRADED], UNKNOWN),
        ([UNKNOWN, UNHEALTHY, HEALTHY], UNHEALTHY),
        ([OFFLINE, UNHEALTHY], OFFLINE),
    ],
)
def test_a_host_is_as_well_as_its_worst_plugin_and_says_which_that_is(answers, status):
    health = HostHealth({f"p{number}": HealthStatus(answer, "because") for number, answer in enumerate(answers)})
    assert health.status is status
    if status is HEALTHY:
        assert health.message == ""
    else:
        assert health.message.startswith(f"'p{answers.index(status)}' is {status.value}: because")


def test_the_health_of_a_host_is_a_mapping_like_any_other():
    answer = HealthStatus(UNHEALTHY, "why")
    health = HostHealth({f"p{number}": answer for number in range(5)})
    assert health == {f"p{number}": answer for number in range(5)}
    assert (len(health), list(health)[0], health["p1"], "p9" in health) == (5, "p0", answer, False)
    assert health.message.endswith("; and 2 more")
    assert "unhealthy" in repr(health)


# When who is asked, and what is done about it, on a clock that goes only when told.


class FakeMonitor:
    """A monitor without a thread: what is to be done later is done by ``advance``."""

    def __init__(self):
        self.clock = testing.FakeClock()
        self._steps, self._numbers = [], itertools.count()

    def run(self, step, *arguments):
        self.later(0.0, step, *arguments)

    def later(self, seconds, step, *arguments):
        entry = [self.clock.now + seconds, next(self._numbers), step, arguments]
        heapq.heappush(self._steps, entry)
        return types.SimpleNamespace(cancel=lambda: entry.__setitem__(2, lambda *_: None))

    def advance(self, seconds):
        end = self.clock.now + seconds
        while self._steps and self._steps[0][0] <= end:
            at, _, step, arguments = heapq.heappop(self._steps)
            self.clock.now = max(self.clock.now, at)
            step(*arguments)
        self.clock.now = end


class FakePlugin:
    """A record with a lane whose plugin answers what it is told to; None is no answer at all."""

    def __init__(self, monitor, answer=HEALTHY, *, isolation="process", jitter=lambda low, high: 1.0, **health):
        self.name = "fake"
        self.config = HostConfig.model_validate({"plugins": {"fake": {"health": health}}}).plugin("fake")
        self.closed, self.checks, self.lock = False, None, threading.RLock()
        self.breaker = Breaker(self.config.breaker)
        self.health_interval, self.health_timeout = self.config.health.interval, self.config.health.timeout
        self.answer, self.asked, self.events, self.acted = answer, [], [], []
        self.isolation = isolation
        self._monitor = monitor
        actions = dict.fromkeys(("open-breaker", "restart", "isolate"), self.act)
        aside = lambda name, step: monitor.run(step)  # noqa: E731
        self.means = Means(monitor, self.events.append, actions, aside=aside, clock=monitor.clock, jitter=jitter)
        self.open()

    def open(self):
        self.lane = types.SimpleNamespace(
            backend=self, gate=Gate(), streams=False, decided=types.SimpleNamespace(isolation=self.isolation)
        )
        watch(self, self.lane, self.means)

    def ask_health(self, deadline):
        self.asked.append(self._monitor.clock.now)
        future = Future()
        if isinstance(self.answer, Exception):
            future.set_exception(self.answer)
        elif self.answer is not None:
            future.set_result(HealthStatus(self.answer, "as told"))
        return future

    def act(self, record, why):
        self.acted.append((self._monitor.clock.now, why))
        if self.config.health.action != "open-breaker":
            self.open()

    @property
    def words(self):
        return [(event.before, event.after) for event in self.events]


def test_a_plugin_is_asked_soon_after_its_load_and_then_at_intervals():
    monitor = FakeMonitor()
    plugin = FakePlugin(monitor, jitter=random.Random(1).uniform)
    start = monitor.clock.now
    monitor.advance(330.0)
    assert 30.0 * 0.05 <= plugin.asked[0] - start <= 30.0 * 0.15
    pauses = [later - sooner for sooner, later in itertools.pairwise(plugin.asked)]
    assert len(pauses) >= 10
    assert all(27.0 <= pause <= 33.0 for pause in pauses)
    assert len(set(pauses)) == len(pauses)
    assert plugin.words == [("unknown", "healthy")]


def test_a_hundred_plugins_are_not_asked_at_one_moment():
    monitor, jitter = FakeMonitor(), random.Random(1).uniform
    plugins = [FakePlugin(monitor, jitter=jitter) for _ in range(100)]
    monitor.advance(4.6)
    asked = sorted(plugin.asked[0] for plugin in plugins)
    assert max(sum(at <= other < at + 0.1 for other in asked) for at in asked) < 15


def test_a_plugin_without_an_answer_is_unhealthy_after_some_of_them_and_is_asked_no_more_often():
    monitor = FakeMonitor()
    plugin = FakePlugin(monitor, None, interval=10.0, timeout=2.0, failures=3)
    monitor.advance(10.0 + 20.0 + 1.9)
    assert plugin.words == []
    monitor.advance(0.2)
    assert plugin.words == [("unknown", "unhealthy")]
    assert plugin.events[0].why == "no answer to health in time (2 s)"
    assert len(plugin.asked) == 3


def test_an_answer_that_takes_longer_than_the_interval_is_waited_for_and_not_asked_for_twice():
    monitor = FakeMonitor()
    plugin = FakePlugin(monitor, None, interval=1.0, timeout=4.0)
    monitor.advance(20.0)
    assert [later - sooner for sooner, later in itertools.pairwise(plugin.asked)] == pytest.approx([4.0] * 4, abs=0.02)


def test_an_answer_that_comes_too_late_counts_no_more():
    monitor = FakeMonitor()
    plugin = FakePlugin(monitor, None, interval=10.0, timeout=2.0, failures=1)
    late, plugin.ask_health = [], lambda deadline: late.append(Future()) or late[-1]
    monitor.advance(12.5)
    assert plugin.checks.condition.status is UNHEALTHY
    late[0].set_result(HealthStatus())
    monitor.advance(1.0)
    assert (plugin.checks.condition.status, plugin.checks.condition.recoveries) == (UNHEALTHY, 0)


def test_what_health_raises_is_a_bad_answer_that_says_so():
    monitor = FakeMonitor()
    plugin = FakePlugin(monitor, PluginFailed("database gone", plugin="fake"), failures=2)
    monitor.advance(61.0)
    assert [(event.after, event.why) for event in plugin.events] == [("unhealthy", "database gone")]


def test_degraded_is_told_and_is_no_reason_to_act():
    monitor = FakeMonitor()
    plugin = FakePlugin(monitor, action="restart")
    monitor.advance(31.0)
    plugin.answer = DEGRADED
    monitor.advance(3000.0)
    assert plugin.words == [("unknown", "healthy"), ("healthy", "degraded")]
    assert plugin.acted == []


def test_a_plugin_that_flaps_is_neither_told_of_nor_restarted():
    monitor = FakeMonitor()
    plugin = FakePlugin(monitor, interval=10.0, failures=2, action="restart")
    for answer in [HEALTHY, UNHEALTHY] * 50:
        plugin.answer = answer
        monitor.advance(10.0)
    assert plugin.words == [("unknown", "healthy")]
    assert plugin.acted == []


def test_reported_is_an_event_and_nothing_more_however_long_it_lasts():
    monitor = FakeMonitor()
    plugin = FakePlugin(monitor, UNHEALTHY)
    monitor.advance(3000.0)
    assert plugin.words == [("unknown", "unhealthy")]
    assert plugin.acted == []


@pytest.mark.parametrize("action", ["restart", "open-breaker"])
def test_an_action_that_does_not_help_comes_again_only_after_as_many_bad_answers_and_their_time(action):
    monitor = FakeMonitor()
    plugin = FakePlugin(monitor, UNHEALTHY, interval=10.0, failures=3, action=action, jitter=lambda low, high: low)
    monitor.advance(1000.0)
    times = [at for at, _ in plugin.acted]
    pauses = [later - sooner for sooner, later in itertools.pairwise(times)]
    assert 20 < len(times) <= 33
    assert all(30.0 <= pause <= 45.0 for pause in pauses)


def test_an_action_that_does_not_help_waits_for_as_many_answers_where_these_take_longer_than_the_interval():
    monitor = FakeMonitor()
    plugin = FakePlugin(monitor, None, interval=1.0, timeout=4.0, failures=3, action="open-breaker")
    monitor.advance(200.0)
    pauses = [later - sooner for sooner, later in itertools.pairwise(at for at, _ in plugin.acted)]
    assert len(pauses) > 10
    assert min(pauses) >= 3 * 4.0


def test_a_plugin_that_is_restarted_is_as_unknown_as_a_new_one():
    monitor = FakeMonitor()
    plugin = FakePlugin(monitor, UNHEALTHY, interval=10.0, failures=3, action="restart")
    monitor.advance(30.0)
    plugin.answer = HEALTHY
    assert len(plugin.acted) == 1
    assert plugin.checks.condition.status is UNKNOWN
    assert "3 times in a row: as told" in plugin.acted[0][1]
    monitor.advance(11.0)
    assert plugin.words == [("unknown", "unhealthy"), ("unknown", "healthy")]


def test_a_plugin_that_is_isolated_already_is_not_moved():
    monitor = FakeMonitor()
    plugin = FakePlugin(monitor, UNHEALTHY, action="isolate")
    monitor.advance(1000.0)
    assert plugin.acted == []
    plugin = FakePlugin(monitor, UNHEALTHY, action="isolate", isolation="none")
    plugin.isolation = "process"
    monitor.advance(1000.0)
    assert len(plugin.acted) == 1


def test_a_plugin_that_is_drained_stays_drained():
    monitor = FakeMonitor()
    plugin = FakePlugin(monitor, UNHEALTHY, action="restart")
    plugin.lane.gate.shut()
    monitor.advance(1000.0)
    assert plugin.words == [("unknown", "unhealthy")]
    assert plugin.acted == []


def test_nothing_is_asked_while_an_action_goes_on():
    monitor = FakeMonitor()
    plugin = FakePlugin(monitor, UNHEALTHY, interval=10.0, failures=1, action="restart")
    steps = []
    object.__setattr__(plugin.means, "aside", lambda name, step: steps.append(step))
    monitor.advance(1000.0)
    assert (len(plugin.asked), len(steps)) == (1, 1)

    def take_long(record, why):
        plugin.act(record, why)
        monitor.advance(1000.0)
        assert len(plugin.asked) == 1

    plugin.means.actions["restart"] = take_long
    steps.pop()()
    monitor.advance(10.0)
    assert (len(plugin.acted), len(plugin.asked)) == (1, 2)


def test_news_that_no_thread_can_tell_are_told_with_the_next_answer():
    monitor = FakeMonitor()
    plugin = FakePlugin(monitor, UNHEALTHY, interval=10.0, failures=2, action="restart")
    aside = plugin.means.aside

    def refuse(name, step):
        raise RuntimeError("can't start new thread")

    object.__setattr__(plugin.means, "aside", refuse)
    monitor.advance(25.0)
    assert plugin.words == []
    object.__setattr__(plugin.means, "aside", aside)
    monitor.advance(10.0)
    assert plugin.words == [("unknown", "unhealthy")]
    assert len(plugin.acted) == 1


@pytest.mark.parametrize("end", ["closed", "unloaded", "unwanted"])
def test_a_plugin_that_is_gone_is_asked_no_more(end):
    monitor = FakeMonitor()
    plugin = FakePlugin(monitor)
    monitor.advance(31.0)
    if end == "closed":
        plugin.closed = True
    elif end == "unloaded":
        plugin.lane = None
    else:
        plugin.config = HostConfig.model_validate({"defaults": {"health": False}}).plugin("fake")
    monitor.advance(1000.0)
    assert len(plugin.asked) == 1


def test_checks_keep_nothing_alive_that_nobody_else_needs():
    monitor = FakeMonitor()
    plugin = FakePlugin(monitor, None)
    monitor.advance(31.0)
    checks = weakref.ref(plugin.checks)
    del plugin
    gc.collect()
    assert checks() is None
    monitor.advance(100.0)


def test_the_operators_word_goes_before_the_manifests_and_that_before_the_default(install, new_host):
    install("asks", PLUGIN, manifest='[health_check]\ninterval = "7s"\ntimeout = "2s"\n')
    install("plain", PLUGIN)
    assert Manifest.model_validate({"health_check": {"interval": "7s"}}).health_check.interval == 7.0
    found = []
    for health in ({}, {"interval": 3.0}, {"timeout": 1.0, "failures": 9}):
        host = new_host(config={"defaults": {"health": health}})
        for name in ("asks", "plain"):
            host.load(name, isolation="none")
            record = host._loader.record(name)
            found.append((record.health_interval, record.health_timeout))
    assert found == [(7.0, 2.0), (30.0, 5.0), (3.0, 2.0), (3.0, 5.0), (7.0, 1.0), (30.0, 1.0)]


# The whole.

PLUGIN = """
    import os, threading, time
    from hostkit import HealthStatus
    class P:
        says, asked, go = "healthy", 0, threading.Event()
        def __init__(self, config: dict):
            P.says = config.get("says", "healthy")
        def execute(self, ctx, request):
            if isinstance(request, dict) and "waits_for" in request:
                while not os.path.exists(request["waits_for"]):
                    time.sleep(0.01)
                return "waited"
            if request in ("pid", "asked"):
                return {"pid": os.getpid(), "asked": P.asked}[request]
            P.says = request
        def health(self):
            P.asked += 1
            if P.says == "hangs":
                P.go.wait(30)
            if P.says == "raises":
                raise ValueError("database gone")
            if P.says == "exits":
                raise SystemExit(3)
            if P.says == "lies":
                return 42
            if P.says == "slow":
                time.sleep(0.15)
                return HealthStatus("degraded", "slow")
            return HealthStatus(P.says, "so it says")
        def close(self):
            P.go.set()
"""
OFTEN = {"interval": 0.02, "timeout": 0.1, "failures": 2}


class Heard:
    """A host's events, which a test can wait for."""

    def __init__(self, host):
        self.events = []
        self._changed = threading.Condition()
        host.subscribe(self._hear)

    def _hear(self, event):
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def wait(self, kind, limit=20.0, **fields):
        """Wait for an event of this kind with these fields, and forget what came before."""

        def found():
            for at, event in enumerate(self.events):
                if isinstance(event, kind) and all(getattr(event, name) == value for name, value in fields.items()):
                    del self.events[: at + 1]
                    return event
            return None

        with self._changed:
            event = self._changed.wait_for(found, limit)
        assert event is not None, (kind, fields, self.events)
        return event

    def never(self, kind):
        with self._changed:
            return not any(isinstance(event, kind) for event in self.events)


def until(true, limit=20.0):
    """Wait for something that tells nobody of itself."""
    end = time.monotonic() + limit
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture
def checked(install, new_host, isolation):
    """Install a plugin that says of its health what it is told to, load it, and wait for its first answer."""

    def make(*, says="healthy", manifest=None, first="healthy", **settings):
        install("plugin", PLUGIN, manifest=manifest)
        settings = {"concurrency": 2, "config": {"says": says}, **settings}
        settings["health"] = {**OFTEN, **settings.get("health", {})}
        host = new_host(config={"plugins": {"plugin": settings}})
        heard = Heard(host)
        host.load("plugin", isolation=isolation)
        if first is not None:
            heard.wait(HealthChanged, before="unknown", after=first)
        return host, heard

    return make


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ("unhealthy", "so it says"),
        ("offline", "so it says"),
        ("raises", "database gone"),
        ("exits", "SystemExit"),
        ("lies", "42"),
        ("hangs", "no answer|not answered"),
    ],
)
def test_a_plugin_that_is_not_well_is_told_once_and_again_when_it_is_well(checked, log, says, why):
    host, heard = checked()
    host.execute("plugin", says)
    event = heard.wait(HealthChanged, plugin="plugin", before="healthy", after="unhealthy")
    assert any(word in event.why for word in why.split("|"))
    condition = host.condition("plugin")
    assert condition.status is UNHEALTHY
    assert condition.failures >= 2
    assert condition.last_check >= condition.since
    assert host.execute("plugin", "pid", timeout=5.0)
    if says == "hangs":
        return
    host.execute("plugin", "healthy")
    heard.wait(HealthChanged, before="unhealthy", after="healthy")
    lines = [record for record in log if "is unhealthy, was healthy" in record["text"]]
    assert [(line["level"], line["plugin"]) for line in lines] == [("WARNING", "plugin")]


def test_a_health_check_that_hangs_is_asked_once_and_costs_no_more_than_one_thread(checked):
    host, heard = checked()
    host.execute("plugin", "hangs")
    heard.wait(HealthChanged, after="unhealthy")
    asked = host.execute("plugin", "asked")
    until(lambda: host.condition("plugin").failures > 10)
    assert host.execute("plugin", "asked") == asked
    assert len([thread for thread in threading.enumerate() if "health" in thread.name]) <= 1


def test_a_check_never_waits_for_a_call_that_runs(checked, tmp_path):
    host, heard = checked(concurrency=1, workers=1, health={"timeout": 2.0})
    call = host.submit("plugin", {"waits_for": str(tmp_path / "go")}, timeout=60.0)
    until(lambda: host._loader.record("plugin").lane.gate.inside == 1)
    last = host.condition("plugin").last_check
    until(lambda: host.condition("plugin").last_check > last + 0.1)
    assert host.condition("plugin").status is HEALTHY
    assert host.health("plugin").status is HEALTHY
    assert not call.done()
    assert heard.never(HealthChanged)
    (tmp_path / "go").touch()
    assert call.result(20.0) == "waited"


def test_a_slow_check_of_one_plugin_delays_no_others(install, new_host, isolation):
    health = {"interval": 0.02, "timeout": 5.0}
    host = new_host(config={"defaults": {"health": health}, "plugins": {"slow": {"config": {"says": "hangs"}}}})
    heard = Heard(host)
    for name in ("slow", "quick"):
        install(name, PLUGIN)
        host.load(name, isolation=isolation)
    heard.wait(HealthChanged, plugin="quick", after="healthy")
    last = host.condition("quick").last_check
    until(lambda: host.condition("quick").last_check > last + 0.1)
    assert host.condition("slow").last_check is None


def test_who_asks_while_a_check_is_open_gets_its_answer_and_not_a_refusal(checked):
    host, heard = checked(says="slow", first="degraded", health={"timeout": 5.0, "interval": 0.01})
    answers = [host.health("plugin") for _ in range(5)]
    assert [answer.status for answer in answers] == [DEGRADED] * 5
    assert heard.never(HealthChanged)


def test_a_host_asks_all_its_plugins_at_the_same_time_and_is_as_well_as_the_worst(install, new_host, isolation):
    names = [f"p{number}" for number in range(4)]
    host = new_host(config={"defaults": {"health": {"timeout": 0.5}}, "plugins": {"p1": {"config": {"says": "raises"}}}})
    for name in names:
        install(name, PLUGIN)
        host.load(name, isolation=isolation)
    health = host.health()
    assert list(health) == names
    assert health.status is UNHEALTHY
    assert health.message.startswith("'p1' is unhealthy: plugin 'p1' raised ValueError in health: database gone")
    for name in names:
        host.execute(name, "hangs")
    started = time.monotonic()
    assert {answer.status for answer in host.health().values()} == {UNHEALTHY}
    assert time.monotonic() - started < 4 * 0.5


def test_what_is_known_of_a_plugin_asks_and_loads_nothing(install, new_host):
    install("plugin", PLUGIN)
    host = new_host()
    assert (host.condition("plugin").status, host.condition("plugin").message) == (UNKNOWN, "it is not loaded")
    assert host.health() == {}
    assert host.health().status is HEALTHY
    with pytest.raises(hostkit.PluginNotFound):
        host.condition("nothere")


def test_where_health_is_switched_off_nothing_is_asked_and_no_thread_is_started(install, new_host):
    install("plugin", PLUGIN)
    threads = set(threading.enumerate())
    host = new_host(config={"defaults": {"health": False}})
    host.load("plugin", isolation="none")
    assert host.condition("plugin").message == "its health is not checked (health = false)"
    # From 3.12 on each in-process plugin with a close() has a thread to be closed on at exit.
    assert [thread.name for thread in set(threading.enumerate()) - threads if "standby" not in thread.name] == []
    assert host.health("plugin").status is HEALTHY


def test_a_host_without_a_loaded_plugin_has_no_thread(install, new_host):
    install("plugin", PLUGIN)
    threads = set(threading.enumerate())
    host = new_host()
    assert host.specs
    host.health()
    assert set(threading.enumerate()) == threads


def test_a_plugin_whose_health_can_not_be_checked_for_want_of_threads_runs_all_the_same(install, new_host, monkeypatch, log):
    install("plugin", PLUGIN)
    host = new_host()

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        host.load("plugin", isolation="none")
    assert host.execute("plugin", "pid") == os.getpid()
    assert [record["level"] for record in log if "health can't be checked: can't start new thread" in record["text"]] == ["ERROR"]


def test_a_hundred_plugins_are_checked_by_a_few_threads(new_host):
    names = [f"p{number}" for number in range(100)]
    before = threading.active_count()
    host = new_host(config={"defaults": {"health": {"interval": 1.0}}})
    most, well = 0, set()

    def hear(event):
        nonlocal most
        most = max(most, threading.active_count())
        if isinstance(event, HealthChanged):
            well.add(event.plugin)

    host.subscribe(hear)
    for name in names:
        host.register(type("P", (), {"execute": lambda self, ctx, request: request}), name=name, isolation="none")
    until(lambda: well == set(names))
    assert most - before < 12


# What is done about it.


def test_an_unhealthy_plugin_is_restarted_in_the_same_place_and_its_calls_go_on(checked, isolation, log):
    host, heard = checked(health={"action": "restart"})
    pid = host.execute("plugin", "pid")
    host.execute("plugin", "unhealthy")
    heard.wait(HealthChanged, after="unhealthy")
    assert heard.wait(PluginLoaded).isolation == isolation
    heard.wait(HealthChanged, before="unknown", after="healthy")
    assert (host.execute("plugin", "pid") == pid) is (isolation == "none")
    assert [record["level"] for record in log if "restart, because it was unhealthy 2 times" in record["text"]] == ["WARNING"]


def test_a_restart_that_fails_is_told_and_the_plugin_stays_as_it_is(checked, site, log):
    host, heard = checked(health={"action": "restart"})
    host.execute("plugin", "unhealthy")
    (site / "plugin" / "plugin.toml").write_text("nonsense\n")
    until(lambda: any("restart failed, it stays as it is: " in record["text"] for record in log))
    assert host.execute("plugin", "pid")
    assert heard.never(PluginLoaded)


def test_an_unhealthy_plugin_is_moved_to_a_worker(install, new_host):
    install("plugin", PLUGIN)
    host = new_host(config={"plugins": {"plugin": {"health": {**OFTEN, "action": "isolate"}}}})
    heard = Heard(host)
    host.load("plugin", isolation="none")
    host.execute("plugin", "unhealthy")
    moved = heard.wait(hostkit.IsolationChanged)
    assert (moved.before, moved.after) == ("none", "process")
    assert "so it says" in moved.why
    heard.wait(HealthChanged, before="unknown", after="healthy")
    assert host.execute("plugin", "pid") != os.getpid()


def test_the_circuit_of_an_unhealthy_plugin_is_opened_and_its_health_says_so(checked):
    host, heard = checked(health={"action": "open-breaker"}, breaker={"recovery": "1h"})
    host.execute("plugin", "unhealthy")
    heard.wait(HealthChanged, after="unhealthy")
    assert "unhealthy 2 times in a row: so it says" in heard.wait(hostkit.BreakerChanged, after="open").why
    with pytest.raises(hostkit.CircuitOpen, match="so it says"):
        host.execute("plugin", "healthy")
    answer = host.health("plugin")
    assert (answer.status, answer.message) == (UNHEALTHY, "so it says; its circuit is open")
    assert answer.metadata["hostkit"] == {"circuit": "open"}


def test_a_circuit_that_is_open_is_not_opened_again(checked, log):
    host, heard = checked(health={"action": "open-breaker", "interval": 0.02}, breaker={"recovery": "1h"})
    host.execute("plugin", "unhealthy")
    heard.wait(hostkit.BreakerChanged, after="open")
    until(lambda: host.condition("plugin").failures > 9)
    assert sum("open-breaker, because" in record["text"] for record in log) == 1


def test_a_plugin_that_is_well_behind_an_open_circuit_is_degraded(checked):
    host, _ = checked(breaker={"recovery": "1h"})
    host._loader.record("plugin").breaker.trip("somebody said so")
    assert (host.health("plugin").status, host.health().status) == (DEGRADED, DEGRADED)
    assert "its circuit is open" in host.health().message


def test_to_open_a_breaker_that_is_switched_off_is_told_as_what_it_is(checked, log):
    host, _ = checked(health={"action": "open-breaker"}, breaker=False)
    host.execute("plugin", "unhealthy")
    until(lambda: any("open-breaker failed, it stays as it is: its breaker is switched off" in record["text"] for record in log))
    assert host.execute("plugin", "pid")


def test_a_changed_configuration_of_health_holds_at_once(install, new_host, tmp_path):
    install("plugin", PLUGIN)
    file = tmp_path / "hostkit.toml"

    def configure(health):
        file.write_text(f"[plugins.plugin]\nhealth = {health}\n")

    configure("false")
    host = new_host(config=file)
    heard = Heard(host)
    host.load("plugin", isolation="none")
    for health in ('{ interval = "20ms" }', "false", '{ interval = "1h" }', '{ interval = "20ms" }'):
        configure(health)
        host.reload_config()
        if "20ms" in health:
            last = host.condition("plugin").last_check or 0.0
            until(lambda last=last: (host.condition("plugin").last_check or 0.0) > last)
    assert [event.after for event in heard.events if isinstance(event, HealthChanged)].count("unhealthy") == 0
    configure("false")
    host.reload_config()
    assert "not checked" in host.condition("plugin").message


def test_a_restart_that_goes_on_while_the_host_is_closed_leaves_nothing_behind(checked, tmp_path):
    host, heard = checked(health={"action": "restart"})
    call = host.submit("plugin", {"waits_for": str(tmp_path / "go")})
    host.execute("plugin", "unhealthy")
    heard.wait(HealthChanged, after="unhealthy")
    threading.Timer(0.2, (tmp_path / "go").touch).start()
    host.close(5.0)
    assert call.exception(10.0) is None or isinstance(call.exception(), hostkit.CallError)


def test_a_plugin_given_up_for_its_deaths_is_offline_and_says_why(install, new_host):
    install("plugin", "import os\nclass P:\n    def execute(self, ctx, request):\n        os._exit(1)\n")
    host = new_host(config={"plugins": {"plugin": {"restarts": {"budget": 0}, "health": OFTEN}}})
    heard = Heard(host)
    host.load("plugin", isolation="process")
    with pytest.raises(hostkit.CallError):
        host.execute("plugin", None)
    why = heard.wait(HealthChanged, after="unhealthy").why
    assert "its workers died 1 times" in why
    answer = host.health("plugin")
    assert (answer.status, answer.metadata["hostkit"]) == (OFFLINE, {"restarts": "used up"})


# Calls that go on beyond their deadline in this process.


@pytest.mark.parametrize("isolation", ["none"])
def test_a_call_that_goes_on_beyond_its_deadline_in_process_is_told_once(checked, tmp_path, log):
    host, _ = checked(health={"interval": 0.02, "timeout": 5.0})
    call = host.submit("plugin", {"waits_for": str(tmp_path / "go")}, timeout=0.05, request_id="stuck")
    until(lambda: any("beyond its time limit" in record["text"] for record in log))
    assert host._loader.record("plugin").breaker.uneasy
    last = host.condition("plugin").last_check
    until(lambda: host.condition("plugin").last_check > last + 0.1)
    lines = [record for record in log if "beyond its time limit" in record["text"]]
    assert [(line["level"], line["plugin"], line["request_id"]) for line in lines] == [("WARNING", "plugin", "stuck")]
    assert re.search(r"call stuck is \d+\.\d s beyond its time limit of 0.05 s and goes on", lines[0]["text"])
    (tmp_path / "go").touch()
    with pytest.raises(hostkit.CallTimeout):
        call.result(20.0)


# Lifetimes.


def test_a_plugin_that_is_unloaded_is_let_go_at_once(install, new_host):
    install("plugin", PLUGIN)
    host = new_host(config={"defaults": {"health": {"interval": "1h"}}})
    host.load("plugin", isolation="none")
    plugin = weakref.ref(host._loader.record("plugin").lane.backend.plugin)
    host.unload("plugin")
    until(lambda: gc.collect() is not None and plugin() is None)
    assert host.condition("plugin").message == "it is not loaded"


def test_a_forgotten_host_that_checks_its_plugins_ends_with_all_its_threads(install):
    install("plugin", PLUGIN)
    host = hostkit.Host(config={"defaults": {"health": OFTEN}})
    heard = Heard(host)
    host.subscribe(lambda event, host=host: None)
    host.load("plugin", isolation="none")
    heard.wait(HealthChanged, after="healthy")
    forgotten = weakref.ref(host)
    with pytest.warns(ResourceWarning, match="unclosed Host"):
        del host
        gc.collect()
        until(lambda: gc.collect() is None or forgotten() is None)


def test_a_program_that_ends_in_the_middle_of_a_check_ends_in_time_and_without_noise(script):
    process = script(
        """
        told(time.time())
        """,
        load="""
import hostkit
class P:
    def execute(self, ctx, request): pass
    def health(self): time.sleep(60)
host = hostkit.Host(config={"defaults": {"health": {"interval": 0.02, "timeout": 60.0}}})
for n in range(5):
    host.register(P, name=f"p{n}", isolation="none")
while sum("hostkit-health" in thread.name for thread in threading.enumerate()) < 5:
    time.sleep(0.01)
""",
    )
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert time.time() - float(out) < 5.0


def test_a_fork_of_a_process_that_checks_its_plugins_checks_none(script):
    process = script(
        """
        pid = os.fork()
        if pid == 0:
            told(host.health("p").status.value, sum(thread.name.startswith("hostkit") for thread in threading.enumerate()))
            os._exit(0)
        os.waitpid(pid, 0)
        asked = P.asked
        while P.asked < asked + 3:
            time.sleep(0.01)
        told("still")
        host.close()
        """,
        python=("-W", "ignore::DeprecationWarning"),
        load="""
class P:
    asked = 0
    def execute(self, ctx, request): pass
    def health(self): P.asked += 1; return "healthy"
host = hostkit.Host(config={"defaults": {"health": {"interval": 0.02}}})
host.register(P, name="p", isolation="none")
while not P.asked:
    time.sleep(0.01)
""",
    )
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out.split(), err) == (0, ["offline", "0", "still"], "")
