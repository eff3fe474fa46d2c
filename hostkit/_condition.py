"""What is known of a plugin's health without asking it, and the health of a host as a whole."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from ._config import HealthConfig
from ._contract import HealthStatus, Status

# With one of these a plugin does its work.
WELL = (Status.HEALTHY, Status.DEGRADED)


@dataclass(frozen=True, slots=True)
class Condition:
    """What the health checks of a plugin have found. Times are ``time.time()``.

    ``status`` is unknown until the first good answer or enough bad ones, and holds ``since`` then; ``message`` is what the last answer,
    at ``last_check``, said; ``failures`` is how many bad answers came in a row, and ``recoveries`` how many good ones of those that it
    takes to be as good as before.
    """

    status: Status = Status.UNKNOWN
    message: str = ""
    last_check: float | None = None
    since: float = field(default_factory=time.time)
    failures: int = 0
    recoveries: int = 0


def noted(before: Condition, answer: HealthStatus, config: HealthConfig, now: float) -> Condition:
    """Return the condition after one more answer.

    One bad answer changes nothing, and neither does a good one in between: so a plugin that flaps stays what it was. Unknown is a bad
    answer, because nobody can rely on it.
    """
    failures = 0 if answer.status in WELL else before.failures + 1
    recoveries = before.recoveries + 1 if answer.status in _BETTER.get(before.status, ()) else 0
    status = _status(before.status, answer.status, failures, recoveries, config)
    changed = status is not before.status
    return replace(
        before,
        status=status,
        message=_cut(answer.message),
        last_check=now,
        since=now if changed else before.since,
        failures=failures,
        recoveries=0 if changed else recoveries,
    )


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"


# As much of what a plugin says of itself as is kept and told.
_SHOWN = 1000

# The answers that count towards leaving a status in which a plugin stays for a while.
_BETTER = {Status.UNHEALTHY: WELL, Status.DEGRADED: (Status.HEALTHY,)}


def _status(before: Status, answer: Status, failures: int, recoveries: int, config: HealthConfig) -> Status:
    if failures:
        return Status.UNHEALTHY if failures >= config.failures else before
    return before if before in _BETTER and recoveries < config.recoveries else answer


_ORDER = (Status.HEALTHY, Status.DEGRADED, Status.UNKNOWN, Status.UNHEALTHY, Status.OFFLINE)
# As many plugins as a host's message names.
_NAMED = 3


class HostHealth(Mapping[str, HealthStatus]):
    """The answers of a host's plugins by name, and what they mean for the host. Immutable.

    ``status`` is the worst of them, in the order healthy, degraded, unknown, unhealthy, offline; that of a host without plugins is
    healthy.
    """

    def __init__(self, answers: Mapping[str, HealthStatus]) -> None:
        self._answers = dict(answers)

    @property
    def status(self) -> Status:
        """The worst status."""
        return max((answer.status for answer in self._answers.values()), key=_ORDER.index, default=Status.HEALTHY)

    @property
    def message(self) -> str:
        """Which plugins are not healthy, and why, the worst first; empty where all are."""
        ill = [(name, answer) for name, answer in self._answers.items() if answer.status is not Status.HEALTHY]
        ill.sort(key=lambda each: _ORDER.index(each[1].status), reverse=True)
        said = [f"{name!r} is {answer.status.value}{answer.message and ': ' + answer.message}" for name, answer in ill[:_NAMED]]
        if ill[_NAMED:]:
            said.append(f"and {len(ill) - _NAMED} more")
        return "; ".join(said)

    def __getitem__(self, name: str) -> HealthStatus:
        return self._answers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._answers)

    def __len__(self) -> int:
        return len(self._answers)

    def __repr__(self) -> str:
        return f"HostHealth(status={self.status.value!r}, {self._answers!r})"
