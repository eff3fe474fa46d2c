"""What happened to a host's plugins, as frozen records; each is written to the log and told to whoever subscribed.

decided somewhere ─► emit ─► the log: one line
                          └► subscribers, one after the other, on the same thread
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ._log import on_one_line, tell
from ._worker._failure import is_interrupt, message, type_name


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a plugin; to the host as a whole where ``plugin`` is empty. ``at`` is ``time.time()``.

    ``str(event)`` is the sentence that the log has, at ``level``; what it quotes of a plugin is escaped there, and nowhere else.
    """

    plugin: str
    at: float = field(default_factory=time.time, kw_only=True)

    @property
    def level(self) -> str:
        """How much it matters: INFO, WARNING or ERROR."""
        return "INFO"

    def __str__(self) -> str:
        return on_one_line(self._said())

    def _said(self) -> str:
        return f"{type(self).__name__}: plugin {self.plugin!r}"


@dataclass(frozen=True, slots=True)
class PluginLoaded(Event):
    """A plugin can be called now, where ``isolation`` says. ``facts`` has more: what was loaded, and what it is held to."""

    isolation: str
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)  # Any: JSON data

    def _said(self) -> str:
        return f"plugin {self.plugin!r} loaded, isolation {self.isolation}"


@dataclass(frozen=True, slots=True)
class PluginUnloaded(Event):
    """A plugin's backend was closed; ``error`` says what went wrong then, else it is empty."""

    error: str = ""

    @property
    def level(self) -> str:
        return "ERROR" if self.error else "INFO"

    def _said(self) -> str:
        if self.error:
            return f"plugin {self.plugin!r} did not close in order: {self.error}"
        return f"plugin {self.plugin!r} closed"


@dataclass(frozen=True, slots=True)
class PluginRefused(Event):
    """A plugin was to be loaded or reloaded, and is not; ``error`` is the name of the error that was raised, ``why`` its text."""

    error: str
    why: str

    def _said(self) -> str:
        return f"plugin {self.plugin!r} refused: {self.error}: {self.why}"


@dataclass(frozen=True, slots=True)
class IsolationChanged(Event):
    """A plugin runs in another place than before, or than it was to. ``asked``: the application or the operator wanted it so."""

    before: str
    after: str
    why: str
    asked: bool = False

    @property
    def level(self) -> str:
        return "INFO" if self.asked else "WARNING"

    def _said(self) -> str:
        return f"plugin {self.plugin!r} moved from isolation {self.before} to {self.after}: {self.why}"


@dataclass(frozen=True, slots=True)
class BreakerChanged(Event):
    """A plugin's circuit breaker is in another state: ``closed``, ``open`` or ``half-open``."""

    before: str
    after: str
    why: str

    @property
    def level(self) -> str:
        return "INFO" if self.after == "closed" else "WARNING"

    def _said(self) -> str:
        return f"plugin {self.plugin!r}: circuit {self.after}, was {self.before}: {self.why}"


@dataclass(frozen=True, slots=True)
class HealthChanged(Event):
    """A plugin counts as healthy or unhealthy from now on, or as something in between; the words are those of ``Status``."""

    before: str
    after: str
    why: str

    @property
    def level(self) -> str:
        return "INFO" if self.after == "healthy" else "WARNING"

    def _said(self) -> str:
        return f"plugin {self.plugin!r} is {self.after}, was {self.before}{self.why and ': ' + self.why}"


@dataclass(frozen=True, slots=True)
class WorkerStarted(Event):
    """A worker has taken the place of another one: it answers calls from now on. The first ones come with ``PluginLoaded``."""

    pid: int

    def _said(self) -> str:
        return f"plugin {self.plugin!r} has a new worker, process {self.pid}"


@dataclass(frozen=True, slots=True)
class WorkerEnded(Event):
    """A worker has ended by itself, or was ended; ``error`` is the name of the error that the calls in it got, ``why`` its text."""

    pid: int
    error: str
    why: str

    @property
    def level(self) -> str:
        return "WARNING"

    def _said(self) -> str:
        return f"plugin {self.plugin!r} lost a worker: {self.why}"


@dataclass(frozen=True, slots=True)
class WorkerReplaced(Event):
    """A worker gets no more calls and is ended, because it is in no state to go on."""

    pid: int
    why: str

    @property
    def level(self) -> str:
        return "WARNING"

    def _said(self) -> str:
        return f"plugin {self.plugin!r}: {self.why}; its worker is replaced"


@dataclass(frozen=True, slots=True)
class PluginGivenUp(Event):
    """A plugin's workers died so often that no more are started; ``left`` of them still answer calls."""

    why: str
    left: int = 0

    @property
    def level(self) -> str:
        return "ERROR"

    def _said(self) -> str:
        return self.why


@dataclass(frozen=True, slots=True)
class HostTampered(Event):
    """A plugin changed something of the host's process while it was loaded in it."""

    changes: tuple[str, ...]

    @property
    def level(self) -> str:
        return "WARNING"

    def _said(self) -> str:
        return f"plugin {self.plugin!r} changed the host's process while it was loaded: {'; '.join(self.changes)}"


@dataclass(frozen=True, slots=True)
class SandboxDenied(Event):
    """A plugin's own error says that it was kept from something: ``what`` is ``EACCES`` or ``EPERM``, ``path`` the file, where there is
    one. ``left_out`` is how many such errors were not told since the one before; where it alone is told, ``what`` is empty.

    It comes from the plugin's process: one that is caught there is not seen, and one can be made up.
    """

    what: str
    path: str = ""
    left_out: int = 0

    @property
    def level(self) -> str:
        return "WARNING"

    def _said(self) -> str:
        more = f"{self.left_out} more of its errors said so and were not told" if self.left_out else ""
        if not self.what:
            return f"plugin {self.plugin!r} was denied something by its sandbox: {more}"
        where = f" at {self.path!r}" if self.path else ""
        return f"plugin {self.plugin!r} was denied something by its sandbox: {self.what}{where}{more and '; ' + more}"


@dataclass(frozen=True, slots=True)
class SandboxViolated(Event):
    """The kernel ended a plugin's worker for a system call that it may not make; ``dump`` has the last lines of its fault dump."""

    dump: str = ""

    @property
    def level(self) -> str:
        return "ERROR"

    def _said(self) -> str:
        return (
            f"plugin {self.plugin!r}: its worker was ended for a system call that it may not make{self.dump and ': ' + self.dump}"
        )


@dataclass(frozen=True, slots=True)
class LockChanged(Event):
    """The lock file is another one than before: ``state`` is ``valid``, ``invalid`` or ``missing``, and ``why`` says what is wrong with it,
    or has its digest. What is loaded stays; what is loaded next is held to the file as it is then."""

    file: str
    state: str
    why: str = ""

    @property
    def level(self) -> str:
        return "WARNING" if self.state == "valid" else "ERROR"

    def _said(self) -> str:
        return f"{self.file}: the lock file changed and is {self.state} now{self.why and ': ' + self.why}"


@dataclass(frozen=True, slots=True)
class ConfigApplied(Event):
    """A changed configuration holds from now on; ``changes`` has what it changed, as the log says it."""

    file: str
    changes: tuple[str, ...]

    def _said(self) -> str:
        return f"{self.file}: applied: {'; '.join(self.changes) or 'nothing changed'}"


@dataclass(frozen=True, slots=True)
class ConfigRefused(Event):
    """A changed configuration, or a part of it, can't be applied; what held before still holds."""

    file: str
    why: str

    @property
    def level(self) -> str:
        return "ERROR"

    def _said(self) -> str:
        return f"{self.why}; what held before still holds"


@dataclass(frozen=True, slots=True)
class LockMismatch(Event):
    """A plugin is not what the lock has, or there is no lock that can be read, and it is loaded all the same."""

    file: str
    findings: tuple[str, ...]

    @property
    def level(self) -> str:
        return "WARNING"

    def _said(self) -> str:
        return (
            f"plugin {self.plugin!r} is not what the lock {self.file} has, and is loaded all the same: {'; '.join(self.findings)}"
        )


class Events:
    """Who is told. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the replacement of _subscribers
        self._subscribers: tuple[Callable[[Event], object], ...] = ()

    def subscribe(self, subscriber: Callable[[Event], object]) -> Callable[[], None]:
        """Call ``subscriber`` with every event from now on, until what this returns is called."""
        with self._lock:
            self._subscribers += (subscriber,)

        def unsubscribe() -> None:
            with self._lock:
                self._subscribers = tuple(other for other in self._subscribers if other is not subscriber)

        return unsubscribe

    def emit(self, event: Event) -> None:
        """Write an event to the log, with its fields bound to the record, and tell the subscribers."""
        tell(event.level, str(event), plugin=event.plugin, event=type(event).__name__, **_bound(event))
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except BaseException as error:  # the application's code, and nothing here may fail because of it
                if is_interrupt(error):
                    raise
                tell("ERROR", f"a subscriber of events raised {type_name(error)}: {message(error)}")


# Characters of one text that is bound to a record, and items of one list.
_MOST, _MOST_ITEMS = 1000, 100


def _bound(event: Event) -> dict[str, Any]:  # Any: plain data
    """Return what an event says of itself, as plain data in which nothing forges or paints."""
    return {each.name: _plain(getattr(event, each.name)) for each in fields(event) if each.repr and each.name != "plugin"}


def _plain(value: object) -> object:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, tuple):
        return [_plain(each) for each in value[:_MOST_ITEMS]]
    return on_one_line(str(value))[:_MOST]
