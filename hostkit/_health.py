"""Ask loaded plugins how they are doing, again and again, and do what the operator wants done with one that does badly.

the monitor's thread    ask ─► answered, or too late ─► noted ─► ask …          nothing here waits
a thread of its own                                       └─► told, acted on    only where there is something to tell
"""

from __future__ import annotations

import random
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._breaker import State
from ._condition import Condition, noted
from ._config import HealthConfig
from ._contract import ExecutionContext, HealthStatus, Status
from ._deadline import Deadline
from ._errors import CallError, CallTimeout, ConfigError, HostkitError, PluginClosed
from ._events import Event, HealthChanged
from ._lane import Lane
from ._log import tell
from ._record import Record

if TYPE_CHECKING:
    from ._backends import Backend
    from ._monitor import Monitor

# The first check comes after this share of the interval, more or less: plugins that are loaded together are not asked together.
_FIRST = (0.05, 0.15)
# The others come after this share of the interval, more or less.
_NEXT = (0.9, 1.1)
# Seconds between two checks, whatever the interval is.
_LEAST = 0.01


def _aside(name: str, step: Callable[[], object]) -> None:
    """Run a step on a thread of its own. Raises ``RuntimeError`` where there is none to be had."""
    threading.Thread(target=step, name=name, daemon=True).start()


@dataclass(frozen=True, slots=True)
class Means:
    """What the checks of a host's plugins have in common: the monitor, who is told, and what is done with a plugin that does badly, by
    ``HealthConfig.action``."""

    monitor: Monitor
    emit: Callable[[Event], object]
    actions: Mapping[str, Callable[[Record, str], object]]
    aside: Callable[[str, Callable[[], object]], object] = _aside
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[float, float], float] = random.uniform


def watch(record: Record, lane: Lane, means: Means) -> None:
    """Check a plugin's health on a lane that was just opened, until the record has another one, or none. Raises nothing."""
    if record.checks is None:
        if record.config.health is None:
            return
        record.checks = Checks(record, means)
    record.checks.begin(lane)


class Checks:
    """The health checks of one plugin. All but ``begin``, ``end`` and ``condition`` is the monitor's thread's alone."""

    def __init__(self, record: Record, means: Means) -> None:
        self.condition = Condition()  # another one takes its place: it is read on any thread
        self._record = record
        self._means = means
        self._lane: Lane | None = None
        self._number = 0  # of the next step: what was meant to be another one comes to nothing
        self._asked_at = 0.0
        self._told: set[ExecutionContext] = set()  # overdue calls
        self._apart = False  # whether something is being told or done on another thread
        self._acted_at = float("-inf")
        self._acted_on = 0  # failures

    def begin(self, lane: Lane) -> None:
        """Check this lane from now on, as the configuration says now; nothing is known of a new one yet."""
        try:
            self._means.monitor.run(self._begin, lane)
        except (RuntimeError, OSError) as error:  # no thread, or no descriptor; the plugin runs all the same
            tell("ERROR", f"plugin {self._record.name!r}: its health can't be checked: {error}", plugin=self._record.name)

    def end(self) -> None:
        """Check nothing any more, and let go of the lane."""
        self._means.monitor.run(self._end)

    def _end(self) -> None:
        if self._record.lane is not self._lane:
            self._lane = None
            self._number += 1

    def _begin(self, lane: Lane) -> None:
        if lane is not self._lane:
            self._lane = lane
            self.condition = Condition()
            self._told = set()
            self._acted_on = 0
        self._number += 1
        if not self._apart:
            self._later(self._record.health_interval * self._means.jitter(*_FIRST), _ask)

    @property
    def _config(self) -> HealthConfig | None:
        """What the operator wants now; None where nothing is to be checked any more."""
        record = self._record
        return None if record.closed or self._lane is None or record.lane is not self._lane else record.config.health

    def _later(self, seconds: float, step: Callable[[weakref.ref[Checks], int], object]) -> Any:  # Any: a handle, or None
        # Weak, as everything that the monitor keeps: else a forgotten host would live as long as its thread, which ends with the host.
        return self._means.monitor.later(seconds, step, weakref.ref(self), self._number)

    def _expects(self, number: int) -> bool:
        if number != self._number:
            return False
        if self._config is None:
            self._lane = None
        return self._lane is not None

    def ask(self) -> None:
        """Ask the plugin, and go on when it has answered, or is late."""
        record, lane, monitor = self._record, self._lane, self._means.monitor
        assert lane is not None
        self._number += 1
        self._asked_at = self._means.clock()
        me, number = weakref.ref(self), self._number
        limit = self._later(record.health_timeout, _late)
        answer = lane.backend.ask_health(Deadline.after(record.health_timeout))
        answer.add_done_callback(lambda answer: monitor.run(_answered, me, number, answer, limit))

    def note(self, answer: HealthStatus) -> None:
        """Note an answer, and go on to the next check, or to what there is to tell and to do."""
        config = self._config
        if config is None:  # since a moment ago
            return
        self._number += 1
        before, kept = self.condition, (self._told, self._acted_on, self._acted_at)
        self.condition = noted(before, answer, config, time.time())
        news = [*self._overdue(), *self._changes(before), *self._remedy(config)]
        if not news:
            self.go_on()
            return
        self._apart = True
        try:
            self._means.aside(f"hostkit-health-{self._record.name}", lambda: self._tell(news))
        except RuntimeError:  # no thread left: with the next answer it is as new as now
            self._apart = False
            self.condition, (self._told, self._acted_on, self._acted_at) = before, kept
            self.go_on()

    def go_on(self) -> None:
        """Plan the next check."""
        if self._config is not None:
            next_at = self._asked_at + self._record.health_interval * self._means.jitter(*_NEXT)
            self._later(max(_LEAST, next_at - self._means.clock()), _ask)

    def _changes(self, before: Condition) -> list[Callable[[], object]]:
        now = self.condition
        if now.status is before.status:
            return []
        event = HealthChanged(self._record.name, before.status.value, now.status.value, now.message)
        return [lambda: self._means.emit(event)]

    def _remedy(self, config: HealthConfig) -> list[Callable[[], object]]:
        """Return what is to be done now, never sooner than after enough more bad answers, and after the time that those take."""
        failures = self.condition.failures
        if not failures:
            self._acted_on = 0
        if self.condition.status is not Status.UNHEALTHY or failures - self._acted_on < config.failures:
            return []
        now = self._means.clock()
        if now - self._acted_at < config.failures * self._record.health_interval or not self._has_remedy(config.action):
            return []
        self._acted_on, self._acted_at = failures, now
        why = f"it was unhealthy {failures} times in a row: {self.condition.message}"
        lane = self._lane
        return [lambda: self._act(config.action, lane, why)]

    def _has_remedy(self, action: str) -> bool:
        lane = self._lane
        assert lane is not None
        if lane.gate.is_shut:  # it is drained: whoever did that will reload it
            return False
        done = {"isolate": lane.decided.isolation != "none", "open-breaker": self._record.breaker.state is State.OPEN}
        return action != "report" and not done.get(action, False)

    def _overdue(self) -> list[Callable[[], object]]:
        """Return the telling of calls in this process that go on beyond their deadline: nothing ends them, and none has failed yet."""
        lane = self._lane
        assert lane is not None
        if lane.decided.isolation != "none":
            return []
        late = lane.gate.overdue(time.monotonic())
        new, self._told = late - self._told, late
        return [lambda call=call: _tell_overdue(self._record, lane, call) for call in new]  # type: ignore[misc]

    # On the other thread.

    def _tell(self, news: list[Callable[[], object]]) -> None:
        try:
            for each in news:
                each()
        finally:
            self._means.monitor.run(_told, weakref.ref(self))

    def _act(self, action: str, lane: Lane | None, why: str) -> None:
        record = self._record
        try:
            if record.lane is lane:
                tell("WARNING", f"plugin {record.name!r}: {action}, because {why}", plugin=record.name)
                self._means.actions[action](record, why)
        except PluginClosed:
            pass  # the host was closed meanwhile
        except (HostkitError, OSError, RuntimeError) as error:
            tell("ERROR", f"plugin {record.name!r}: {action} failed, it stays as it is: {error}", plugin=record.name)


# The steps on the monitor's thread, which find out whether there is still somebody to take them.


def _ask(me: weakref.ref[Checks], number: int) -> None:
    checks = me()
    if checks is not None and checks._expects(number):
        checks.ask()


def _late(me: weakref.ref[Checks], number: int) -> None:
    checks = me()
    if checks is not None and checks._expects(number):
        checks.note(HealthStatus(Status.UNHEALTHY, f"no answer to health in time ({checks._record.health_timeout:g} s)"))


def _answered(me: weakref.ref[Checks], number: int, answer: Future[HealthStatus], limit: Any) -> None:
    if limit is not None:
        limit.cancel()
    checks = me()
    if checks is not None and checks._expects(number):
        checks.note(outcome(answer))


def _told(me: weakref.ref[Checks]) -> None:
    checks = me()
    if checks is None:
        return
    checks._apart = False
    if checks.condition.last_check is None and checks._lane is not None:
        checks._begin(checks._lane)  # another lane was opened meanwhile
    else:
        checks.go_on()


def _tell_overdue(record: Record, lane: Lane, call: ExecutionContext) -> None:
    over = time.monotonic() - (call._ends_at or 0.0)
    text = (
        f"plugin {record.name!r}: call {call.request_id} is {over:.1f} s beyond its time limit of {call.timeout:g} s and goes on: nothing "
        "can interrupt it in-process"
    )
    tell("WARNING", text, plugin=record.name, request_id=call.request_id)
    if not lane.streams:  # who holds a stream up may be its caller
        record.breaker.overdue(call, CallTimeout(text, plugin=record.name, request_id=call.request_id))


def open_breaker(record: Record, why: str) -> None:
    """Open a plugin's circuit. Raises ``ConfigError`` where the operator has switched its breaker off."""
    if record.config.breaker is None:
        raise ConfigError("its breaker is switched off (breaker = false)")
    record.breaker.trip(why)


class Asked:
    """A plugin that was asked just now how it is doing."""

    def __init__(self, backend: Backend, timeout: float) -> None:
        self._timeout = timeout
        self._asked_at = time.monotonic()
        self._deadline = Deadline.after(timeout)
        self._answer = backend.ask_health(self._deadline)
        self._took = 0.0
        self._answer.add_done_callback(self._note_time)

    def _note_time(self, answer: Future[HealthStatus]) -> None:
        del answer
        self._took = time.monotonic() - self._asked_at

    def status(self) -> HealthStatus:
        """Wait for the answer. Raises nothing: whatever goes wrong is a status, too."""
        if wait((self._answer,), self._deadline.wait()).done:
            status = outcome(self._answer)
        else:
            status = HealthStatus(Status.UNHEALTHY, f"no answer to health in time ({self._timeout:g} s)")
        if status.response_time:
            return status
        return HealthStatus(**{**status._fields(), "response_time": self._took or time.monotonic() - self._asked_at})


def outcome(answer: Future[HealthStatus]) -> HealthStatus:
    """Return what a question has come to."""
    error = answer.exception()
    return answer.result() if error is None else as_status(error)


def as_status(error: BaseException, *, response_time: float = 0.0) -> HealthStatus:
    """Return the status of a plugin that can't be asked, or that answered with an error."""
    lives = isinstance(error, CallError) and not isinstance(error, PluginClosed)
    return HealthStatus(Status.UNHEALTHY if lives else Status.OFFLINE, str(error), response_time=response_time)
