"""What an operator's programs can ask of a running host, and have it do: one function a verb, one line a verb in the table."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from ._admin_socket import AdminSocket, named
from ._decided import words
from ._errors import HostkitError
from ._history import History
from ._lane import Lane
from ._loader import Loader
from ._log import on_one_line, tell
from ._opener import where_it_runs
from ._shown import shown_config
from ._snapshot import Snapshots

if TYPE_CHECKING:
    from ._host import Host

# Seconds that a drain may be waited for.
_LONGEST_DRAIN = 60.0


class BadRequest(HostkitError):
    """A question that is none."""


def opened(host: Host, loader: Loader, source: Snapshots, path: Path | None) -> AdminSocket:
    """Keep a history from now on, start the exporters, and listen. Raises ``ConfigError``; then nothing is left behind."""
    history = History()
    loader.telemetry.start(source, loader.config.exporters, history=history)
    verbs = Verbs(host, loader, source, history)
    path = named(host.app) if path is None else path.absolute()
    try:
        return AdminSocket(path, verbs.answer, {"pid": os.getpid(), "app": host.app, "version": __version__})
    except BaseException:
        loader.telemetry.close()
        raise


class Verbs:
    """Answers an operator's programs. Thread-safe."""

    def __init__(self, host: Host, loader: Loader, source: Snapshots, history: History) -> None:
        self._host = host
        self._loader = loader
        self._source = source
        self._history = history
        self._verbs: dict[str, Callable[..., Any]] = {
            "snapshot": self._source.snapshot,
            "plugin": self._plugin,
            "log": self._log,
            "events": self._events,
            "isolate": self._isolate,
            "drain": self._drain,
            "resume": self._restart,
            "restart": self._restart,
            "metrics": self._metrics,
        }

    def answer(self, verb: str, arguments: Mapping[str, Any]) -> Any:  # Any: JSON data
        """Return the answer. Raises ``BadRequest``, and what the host raises."""
        function = self._verbs.get(verb)
        if function is None:
            raise BadRequest(f"no verb {verb[:50]!r}; there are {', '.join(self._verbs)}")
        expected = _ARGUMENTS.get(verb, {})
        wrong = [name for name in arguments if name not in expected]
        missing = [name for name, (_, needed) in expected.items() if needed and name not in arguments]
        if wrong or missing:
            raise BadRequest(
                f"{verb} takes {', '.join(expected) or 'no arguments'}; found {', '.join(map(repr, arguments)) or 'none'}"
            )
        for name, value in arguments.items():
            kinds = expected[name][0]
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise BadRequest(
                    f"{verb}: expected {name} as {' or '.join(kind.__name__ for kind in kinds)}, found {str(value)[:50]!r}"
                )
        return function(**arguments)

    def _plugin(self, name: str) -> dict[str, Any]:
        spec = self._loader.specs.get(name)
        record = self._loader.record(name)
        lane = record.lane
        shown = spec if record.spec is None else record.spec
        return {
            "name": name,
            "entry_point": "" if shown is None else shown.entry_point,
            "distribution": "" if shown is None else f"{shown.distribution} {shown.version}".strip(),
            "manifest": dict(shown.manifest_data) if shown is not None else {},
            "config": shown_config(record.config.config, () if lane is None else lane.backend.settings_shown),
            "runs": None if lane is None else _runs(lane),
            "errors": self._history.errors(name).after(0)["entries"],
        }

    def _log(self, name: str, after: int = 0) -> dict[str, Any]:
        if name:
            self._loader.record(name)
        return self._history.lines(name).after(after)

    def _events(self, after: int = 0) -> dict[str, Any]:
        return self._history.events.after(after)

    def _isolate(self, name: str, place: str) -> str:
        if place not in words():
            raise BadRequest(f"isolation {place[:50]!r} is unknown; expected one of {', '.join(words())}")
        self._told("isolate", f"{name} {place}")
        self._host.reload(name, isolation=place)
        return f"{name} runs with isolation {self._loader.record(name).isolation} now"

    def _drain(self, name: str, timeout: float = 10.0) -> str:
        if self._loader.record(name).lane is None:
            raise BadRequest(f"{on_one_line(name)} is not loaded: there is nothing to drain")
        self._told("drain", name)
        empty = self._host.drain(name, min(max(0.0, timeout), _LONGEST_DRAIN))
        return f"{name} takes no new calls" + ("" if empty else f"; after {timeout:g} s some still run")

    def _restart(self, name: str) -> str:
        self._told("restart", name)
        self._host.reload(name)
        return f"{name} was started anew"

    def _metrics(self) -> dict[str, str]:
        return {"text": self._host.metrics()}

    def _told(self, verb: str, about: str) -> None:
        tell("INFO", f"an operator asked by the admin socket: {verb} {on_one_line(about[:200])}")


def _runs(lane: Lane) -> dict[str, Any]:
    """Say where a plugin runs; its limits by the names that they are set by, as ``held_by`` says what holds each."""
    limits = lane.decided.settings.limits or {}
    named = {_IN_MB.get(name, f"max_{name}"): int(value) >> 20 if name in _IN_MB else value for name, value in limits.items()}
    return {**where_it_runs(lane.decided), "limits": named}


_IN_MB = {"memory_bytes": "max_memory_mb", "temporary_bytes": "max_temporary_mb"}


_NAME = ((str,), True)
# What each verb takes: its types, and whether it must be there.
_ARGUMENTS: dict[str, dict[str, tuple[tuple[type, ...], bool]]] = {
    "plugin": {"name": _NAME},
    "log": {"name": _NAME, "after": ((int,), False)},
    "events": {"after": ((int,), False)},
    "isolate": {"name": _NAME, "place": ((str,), True)},
    "drain": {"name": _NAME, "timeout": ((int, float), False)},
    "resume": {"name": _NAME},
    "restart": {"name": _NAME},
}
