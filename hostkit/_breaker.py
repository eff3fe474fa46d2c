"""Leave a plugin alone that keeps failing, and try it again after a while.

closed ─► failures in a row, or too many within a window ─► open ─► the recovery has passed ─► half-open ─► successes ─► closed
                                                             ▲                                    │
                                                             └──────────── one failure ◄──────────┘
"""

from __future__ import annotations

import enum
import random
import threading
import time
from collections import deque
from collections.abc import Callable

from ._config import BreakerConfig
from ._contract import ExecutionContext
from ._errors import CallError, CallTimeout, CircuitOpen, InvalidResponse, PluginFailed, WorkerHung, WorkerLost

# Up to this share of the recovery is added to it, so that many hosts don't try a plugin's backing service at one moment.
_JITTER = 0.2
# As much of the last error as a message repeats.
_SHOWN = 300


class State(enum.Enum):
    """What a breaker does with a call."""

    CLOSED = "closed"  # lets it through, and counts failures
    OPEN = "open"  # refuses it, until the recovery has passed
    HALF_OPEN = "half-open"  # lets a few through at a time: what becomes of them decides


class Breaker:
    """The circuit breaker of one plugin; with None for a configuration it never opens. Thread-safe.

    A failure is a call that reached the plugin and went wrong there: ``PluginFailed`` (retryable ones too; none of them where
    ``plugin_errors`` is off), ``InvalidResponse``, ``CallTimeout``, and ``WorkerLost`` of any kind. ``InvalidRequest``, ``Busy``,
    ``RateLimited``, ``Draining``, ``PluginClosed``, ``CircuitOpen``, ``CallCancelled``, a ``CallTimeout`` of a call that never left
    the host, a Ctrl-C and a stream that its caller closed say nothing of the plugin: neither failure nor success.

    Each call does this, and the first and the third step cost two reads of attributes as long as nothing fails::

        permit = breaker.permit
        try:
            if permit is None:
                permit = breaker.admit(call)
            ...
            if breaker.uneasy:
                breaker.succeeded(call, permit)
        except BaseException as error:
            breaker.ended(call, permit, error)
            raise

    A permit is the number of the period between two changes of state: what becomes of a call that was let through in an earlier
    period no longer counts. Calls on trial are known by identity, so that whatever ends one leaves its place free.

    ``openings_by_overrun`` is how often it opened because of a call that took too long (``CallTimeout``, ``WorkerHung``).
    ``on_change`` is told each change as states before and after and why, in order, without a lock held.
    """

    def __init__(
        self,
        config: BreakerConfig | None,
        *,
        on_change: Callable[[State, State, str], object] = lambda *_: None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.openings_by_overrun = 0
        self._on_change = on_change
        self._clock = clock
        self._jitter = jitter
        self._changes: deque[tuple[State, State, str]] = deque()
        self._telling = threading.Lock()  # held by whoever tells the changes
        self._lock = threading.Lock()  # guards everything below, and _changes' order; permit and uneasy are read without it
        self._config = config
        self._state = State.CLOSED
        self._period = 0
        self._why = ""
        self._try_at = 0.0
        self._begin()

    def _begin(self) -> None:
        """Begin a period with nothing counted."""
        config = self._config
        self._period += 1
        self._failures = 0
        self._successes = 0
        self._trials: set[object] = set()
        self._overdue: set[object] = set()
        self._window = None if config is None or config.failure_rate is None else _Window(config.window, self._clock())
        closed = self._state is State.CLOSED
        self.permit: int | None = self._period if closed else None
        self.uneasy = not closed or self._window is not None

    @property
    def state(self) -> State:
        """What it does with calls now; open until a call comes after the recovery."""
        return self._state

    def admit(self, call: ExecutionContext) -> int:
        """Return the permit of a call. Raises ``CircuitOpen``."""
        with self._lock:
            refusal = self._refusal(call)
            if refusal is None and self._state is State.HALF_OPEN:
                self._trials.add(call)
            period = self._period
        self._tell()
        if refusal is not None:
            raise refusal
        return period

    def succeeded(self, call: ExecutionContext, permit: int | None) -> None:
        """Note that a call was answered."""
        with self._lock:
            if permit == self.permit and not self._overdue:  # closed all the time, as nearly always
                self._failures = 0
                if self._window is None:
                    self.uneasy = False
                else:
                    self._window.count(self._clock(), 0)
                return
            if self._counts(call, permit):
                self._succeed()
        self._tell()

    def ended(self, call: ExecutionContext, permit: int | None, error: BaseException) -> None:
        """Note that a call ended otherwise, in whatever way."""
        if not self._is_failure(error) and not self.uneasy:
            return
        with self._lock:
            if self._counts(call, permit) and self._is_failure(error):
                self._fail(error)
        self._tell()

    def overdue(self, call: ExecutionContext, error: CallError) -> None:
        """Count a failure for a call that has not ended and perhaps never will; its end then counts no more. Once for each call."""
        with self._lock:
            trial = call in self._trials
            if call not in self._overdue and (trial or self._state is State.CLOSED):
                self._trials.discard(call)
                self._overdue.add(call)
                self._fail(error)
        self._tell()

    def failed(self, error: CallError) -> None:
        """Count a failure of no call of a caller's. In half-open it opens again, because the plugin isn't well."""
        with self._lock:
            if self._state is not State.OPEN and self._is_failure(error):
                self._fail(error)
        self._tell()

    def trip(self, why: str) -> None:
        """Open it, whatever was counted; one that is open stays as it is."""
        with self._lock:
            if self._config is not None and self._state is not State.OPEN:
                self._open(why)
        self._tell()

    def reset(self, why: str = "it was reset") -> None:
        """Close it and forget what was counted; calls in flight count no more."""
        with self._lock:
            self._change(State.CLOSED, why)
        self._tell()

    def configure(self, config: BreakerConfig | None) -> None:
        """Go by another configuration from now on, closed and with nothing counted; where it is the same, nothing changes."""
        with self._lock:
            if config == self._config:
                return
            self._config = config
            self._change(State.CLOSED, "its configuration changed")
        self._tell()

    # Below: with the lock held.

    def _refusal(self, call: ExecutionContext) -> CircuitOpen | None:
        config = self._config
        if self._state is State.CLOSED or config is None:
            return None
        wait = self._try_at - self._clock()
        if self._state is State.OPEN:
            if wait > 0.0:
                return _circuit_open(call, self._why, f"it is tried again in {wait:.1f} s", wait)
            self._change(State.HALF_OPEN, f"{config.recovery:g} s have passed, it is tried again")
        if len(self._trials) < config.probes:
            return None
        trials = "a call is" if config.probes == 1 else f"{config.probes} calls are"
        return _circuit_open(call, self._why, f"{trials} just trying it again", 0.0)

    def _counts(self, call: ExecutionContext, permit: int | None) -> bool:
        """Whether what became of a call counts; in any case its place is free again."""
        self._trials.discard(call)
        if call in self._overdue:
            self._overdue.discard(call)
            return False
        return permit == self._period

    def _is_failure(self, error: BaseException) -> bool:
        if isinstance(error, PluginFailed):
            return self._config is not None and self._config.plugin_errors
        if isinstance(error, CallTimeout):
            return error.phase != "queue"
        return isinstance(error, (InvalidResponse, WorkerLost))

    def _succeed(self) -> None:
        self._failures = 0
        if self._window is not None and self._state is State.CLOSED:
            self._window.count(self._clock(), 0)
        if self._state is State.HALF_OPEN:
            self._successes += 1
            assert self._config is not None
            if self._successes >= self._config.successes:
                self._change(State.CLOSED, f"{_calls(self._successes)} on trial succeeded")

    def _fail(self, error: BaseException) -> None:
        config = self._config
        if config is None:
            return
        self._failures += 1
        self.uneasy = True
        if self._window is not None:
            self._window.count(self._clock(), 1)
        why = self._enough(config)
        if why:
            self.openings_by_overrun += isinstance(error, (CallTimeout, WorkerHung))
            self._open(f"{why}: {type(error).__name__}: {str(error)[:_SHOWN]}")

    def _enough(self, config: BreakerConfig) -> str:
        """Say why the failures are enough to open it; empty where they aren't."""
        if self._state is State.HALF_OPEN:
            return "a call on trial failed"
        if self._failures >= config.failures:
            return f"{_calls(self._failures)} in a row failed, the last one with"
        window, share = self._window, config.failure_rate
        if window is None or share is None or window.calls < config.minimum or window.failures < share * window.calls:
            return ""
        return f"{window.failures} of {window.calls} calls within {config.window:g} s failed, the last one with"

    def _open(self, why: str) -> None:
        assert self._config is not None
        self._why = why
        self._try_at = self._clock() + self._config.recovery * (1.0 + _JITTER * self._jitter())
        self._change(State.OPEN, why)

    def _change(self, state: State, why: str) -> None:
        before, self._state = self._state, state
        self._begin()
        if before is not state:
            self._changes.append((before, state, why))

    def _tell(self) -> None:
        """Tell the changes, in order: whoever is at it tells those of others, too, and of whoever reacts to one."""
        while self._changes and self._telling.acquire(blocking=False):
            try:
                while self._changes:
                    self._on_change(*self._changes.popleft())
            finally:
                self._telling.release()


_BUCKETS = 10


class _Window:
    """How many calls were made and failed within the last seconds, to a tenth of them. Only under a lock."""

    def __init__(self, seconds: float, now: float) -> None:
        self._width = seconds / _BUCKETS
        self._buckets = [[0, 0] for _ in range(_BUCKETS)]  # calls and failures
        self.calls = 0
        self.failures = 0
        self._number = 0
        self._begin(int(now / self._width))

    def count(self, now: float, failures: int) -> None:
        if now >= self._until:
            self._go_on(int(now / self._width))
        self._bucket[0] += 1
        self._bucket[1] += failures
        self.calls += 1
        self.failures += failures

    def _go_on(self, number: int) -> None:
        for passed in range(max(self._number + 1, number - _BUCKETS + 1), number + 1):
            calls, failures = self._buckets[passed % _BUCKETS]
            self._buckets[passed % _BUCKETS] = [0, 0]
            self.calls -= calls
            self.failures -= failures
        self._begin(number)

    def _begin(self, number: int) -> None:
        self._number = number
        self._bucket = self._buckets[number % _BUCKETS]
        self._until = (number + 1) * self._width


def _circuit_open(call: ExecutionContext, why: str, when: str, retry_after: float) -> CircuitOpen:
    plugin = call._caller.plugin
    return CircuitOpen(
        f"plugin {plugin!r} is not called for now, its circuit opened because {why}; {when}. Mend what fails; a reload closes the circuit",
        retry_after=max(0.0, retry_after),
        plugin=plugin,
        request_id=call.request_id,
        phase="queue",
    )


def _calls(number: int) -> str:
    return "1 call" if number == 1 else f"{number} calls"
