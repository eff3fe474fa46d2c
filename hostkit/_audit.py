"""The audit log of one host: what was loaded, refused, unloaded, denied and changed, written where nobody can change it unseen.

about to be loaded ─► written, or refused under the policy "enforce" ─► imported
events ─► written at once; those that a call or the monitor tells of by a thread of its own ─► the file
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import __version__
from ._audit_file import AuditFile, News, Unwritable
from ._deadline import Deadline
from ._errors import ConfigError, IntegrityError
from ._events import (
    ConfigApplied,
    ConfigRefused,
    Event,
    HostTampered,
    IsolationChanged,
    LockChanged,
    LockMismatch,
    PluginLoaded,
    PluginRefused,
    PluginUnloaded,
    SandboxDenied,
    SandboxViolated,
)
from ._log import tell
from ._sieve import Sieve

# Seconds that an entry may wait for another process that is writing.
_PATIENCE = 1.0
# Refusals of one plugin that are written at once, and how many a second after that: a call to a plugin that can't be loaded tries again.
_BURST, _PER_SECOND = 20, 0.1
# Entries that may wait to be written; what is more is dropped, and counted.
_WAITING = 1000


@dataclass(frozen=True, slots=True)
class AuditState:
    """How the audit log is doing: ``head`` is ``SEQ:HASH`` of the last entry that this host wrote, ``dropped`` how many it could not
    write, ``error`` why the last one could not be written; empty where it was. Without an audit log ``file`` is None."""

    file: Path | None
    head: str = ""
    dropped: int = 0
    error: str = ""


class Audit:
    """Writes the entries of one host to ``file``, or none where that is None. Thread-safe.

    With ``enforced()`` true nothing is loaded whose entry can't be written.
    """

    def __init__(
        self, app: str, file: Path | None, enforced: Callable[[], bool] = lambda: False, *, sieve: Sieve | None = None
    ) -> None:
        self.enforced = enforced
        self._app = app
        self._dropped = 0
        self._refusals = sieve or Sieve(_BURST, _PER_SECOND)
        self._file = self._opened(file)
        self.forget()

    def forget(self) -> None:
        """Begin anew in a fork, where the thread that writes is not and an entry may be half written."""
        self._lock = threading.Lock()  # guards _file and everything below, and the writing
        self._file = self._opened(self.path)
        self._untold = 0  # entries that were dropped since the last one that was written
        self._untold_since = 0.0
        self._error = ""
        self._behind = _Behind(self._written)

    @property
    def path(self) -> Path | None:
        """Where it writes."""
        return None if self._file is None else self._file.path

    @property
    def state(self) -> AuditState:
        """How it is doing."""
        with self._lock:
            file = self._file
            head = "" if file is None or file.head is None else str(file.head)
            return AuditState(None if file is None else file.path, head, self._dropped, self._error)

    def loading(self, plugin: str, facts: Mapping[str, Any]) -> None:
        """Write that a plugin is about to be loaded. Raises ``IntegrityError`` where that must be written and can't."""
        error = self._written(News(time.time(), "loading", plugin, facts))
        if error and self.enforced():
            raise IntegrityError(
                f"plugin {plugin!r} is not loaded, because its entry in the audit log can't be written, and the policy is to enforce "
                f"the lock: {self.path}: {error}"
            )

    def heard(self, event: Event) -> None:
        """Write the entry for an event that is worth one."""
        if self._file is None:
            return
        news = _news(event)
        if news is None:
            return
        if isinstance(event, PluginRefused):
            left_out = self._refusals.take(event.plugin)
            if left_out is None:
                return
            if left_out:
                news = News(news.at, news.kind, news.plugin, {**news.facts, "left_out": left_out})
        if isinstance(event, (SandboxDenied, SandboxViolated)):
            self._written_behind(news)
        else:
            self._written(news)

    def moved(self, file: Path | None) -> bool:
        """Write to another file from now on, each of the two saying so; return whether it is another. Raises ``ConfigError``, and goes
        on with the one before, where nothing can be written to the other one."""
        before, now = self._file, time.time()
        if file == self.path:
            return False
        after = self._opened(file)
        if after is not None:
            left = None if before is None or before.head is None else str(before.head)
            came = News(now, "audit", "", {"change": "continued", "from": self._named(before), "head": left})
            try:
                with self._lock:
                    after.append([came], deadline=Deadline.after(_PATIENCE), sync=True)
            except Unwritable as error:
                raise ConfigError(f"audit.file: {file}: {error}; it stays {self._named(before) or 'none'}") from None
        self._written(News(now, "audit", "", {"change": "ended", "to": self._named(after)}))
        with self._lock:
            self._file = after
            self._error = ""
        return True

    def close(self) -> None:
        """Write what waits. Idempotent; events that come later are written, too."""
        for plugin, left_out in self._refusals.rest().items():
            self._written(News(time.time(), "refused", plugin, {"left_out": left_out}))
        self._behind.end()

    def _opened(self, path: Path | None) -> AuditFile | None:
        if path is None:
            return None
        return AuditFile(path, self._beginning)

    def _beginning(self) -> dict[str, object]:
        return {"hostkit": __version__, "enforced": self.enforced(), "app": self._app, "pid": os.getpid()}

    @staticmethod
    def _named(file: AuditFile | None) -> str | None:
        return None if file is None else str(file.path)

    def _written_behind(self, news: News) -> None:
        if not self._behind.put(news):
            with self._lock:
                self._count(news, "more entries wait than are kept")

    def _written(self, news: News) -> str:
        """Write an entry now; return why it can't be, and count it."""
        with self._lock:
            file = self._file
            if file is None:
                return ""
            error, silent, about = "", self._untold, list[News]()
            mine = News(news.at, news.kind, news.plugin, {**news.facts, "app": self._app, "pid": os.getpid()})
            try:
                sync = news.kind in _LASTING
                about = file.append([*self._of_dropped(news.at), mine], deadline=Deadline.after(_PATIENCE), sync=sync)
                self._untold, self._error = 0, ""
            except Unwritable as unwritable:
                error = str(unwritable)
                self._count(news, error)
        if error and not silent:
            tell("WARNING", f"the audit log {file.path} can't be written: {error}; entries are dropped, and counted")
        elif silent and not error:
            tell("WARNING", f"the audit log {file.path} is written again; {silent} entries were dropped")
        for each in about:
            if each.kind in ("torn", "damaged"):
                why = each.facts.get("why", "its last line was not finished; a crash or a power cut does that")
                tell(
                    "ERROR" if each.kind == "damaged" else "WARNING",
                    f"the audit log {file.path}: {why}; hostkit audit verify says more",
                )
        return error

    def _of_dropped(self, at: float) -> list[News]:
        if not self._untold:
            return []
        facts = {"count": self._untold, "since": self._untold_since, "why": self._error, "app": self._app, "pid": os.getpid()}
        return [News(at, "dropped", "", facts)]

    def _count(self, news: News, error: str) -> None:
        self._untold_since = self._untold_since if self._untold else news.at
        self._untold += 1
        self._dropped += 1
        self._error = error


# The kinds of entries that are on the disk before anything goes on.
_LASTING = ("loading", "refused", "mismatch", "config", "config-refused", "lock", "audit", "violated")


def _news(event: Event) -> News | None:
    """Return what an event is in the log; None for one that is nothing there."""
    found = _FACTS.get(type(event))
    if found is None:
        return None
    kind, facts = found
    return News(event.at, kind, event.plugin, facts(event))


# Any: each function takes the event beside it.
_FACTS: dict[type[Event], tuple[str, Callable[[Any], Mapping[str, object]]]] = {
    PluginLoaded: ("loaded", lambda event: {"isolation": event.isolation, **event.facts}),
    PluginRefused: ("refused", lambda event: {"error": event.error, "why": event.why}),
    PluginUnloaded: ("unloaded", lambda event: {"error": event.error} if event.error else {}),
    IsolationChanged: (
        "isolation",
        lambda event: {"before": event.before, "after": event.after, "why": event.why, "asked": event.asked},
    ),
    HostTampered: ("tampered", lambda event: {"changes": event.changes}),
    ConfigApplied: ("config", lambda event: {"file": event.file, "changes": event.changes}),
    ConfigRefused: ("config-refused", lambda event: {"file": event.file, "why": event.why}),
    LockMismatch: ("mismatch", lambda event: {"file": event.file, "findings": event.findings}),
    LockChanged: ("lock", lambda event: {"file": event.file, "state": event.state, "why": event.why}),
    SandboxDenied: ("denied", lambda event: {"what": event.what, "path": event.path, "left_out": event.left_out}),
    SandboxViolated: ("violated", lambda event: {"dump": event.dump}),
}


class _Behind:
    """Writes entries on a thread of its own, which is there while some wait. Thread-safe."""

    def __init__(self, write: Callable[[News], object]) -> None:
        self._write = write
        self._waiting: queue.SimpleQueue[News | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # guards _thread and _ended
        self._thread: threading.Thread | None = None
        self._ended = False

    def put(self, news: News) -> bool:
        """Take an entry; return whether there was room for it."""
        if self._waiting.qsize() >= _WAITING:
            return False
        self._waiting.put(news)
        with self._lock:
            if self._thread is None and not self._ended:
                try:
                    self._thread = thread = threading.Thread(target=self._run, name="hostkit-audit", daemon=True)
                    thread.start()
                except RuntimeError:  # no thread to be had: they wait until the end
                    self._thread = None
            ended = self._ended
        if ended:
            self._rest()
        return True

    def end(self) -> None:
        """Write everything that waits, and let the thread end."""
        with self._lock:
            thread, self._thread, self._ended = self._thread, None, True
        if thread is not None:
            self._waiting.put(None)
            if threading.current_thread() is not thread:
                thread.join(2 * _PATIENCE)
        self._rest()

    def _rest(self) -> None:
        with suppress(queue.Empty):
            while True:
                if (news := self._waiting.get_nowait()) is not None:
                    self._write(news)

    def _run(self) -> None:
        while (news := self._waiting.get()) is not None:
            self._write(news)
