"""The file that a host's configuration came from: read again when the application asks for it, or when it has changed.

reload ─► read ─► valid as a whole? ─► apply the difference ─► ConfigApplied
                  └── no ──────────────────────────────────► ConfigRefused; ConfigError for whoever asked
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _reading
from ._config import HostConfig
from ._errors import ConfigError
from ._events import ConfigApplied, ConfigRefused, Events

if TYPE_CHECKING:
    from ._watching import Watch


class ConfigFile:
    """The configuration's file, if it came from one. ``adapted`` is what is made of all that is read from it. Thread-safe.

    ``apply`` takes a new configuration and returns what changed and what could not be applied, as sentences.
    """

    def __init__(
        self,
        source: HostConfig | Mapping[str, Any] | str | Path | None,
        events: Events,
        apply: Callable[[HostConfig], tuple[list[str], list[str]]],
        *,
        adapted: Callable[[HostConfig], HostConfig] = lambda config: config,
    ) -> None:
        self._path = Path(source).absolute() if isinstance(source, (str, Path)) else None
        self._events = events
        self._apply = apply
        self._adapted = adapted
        self._stopped = False
        self.forget()

    def forget(self) -> None:
        """Begin anew in a fork, where the thread that watches is not."""
        self._applying = threading.Lock()  # held by whoever applies a configuration
        self._lock = threading.Lock()  # guards _watch and _stopped
        self._watch: Watch | None = None

    def reload(self) -> tuple[str, ...]:
        """Do what ``Host.reload_config`` says."""
        path = self._named("read again")
        try:
            return self._applied(path)
        except Exception as error:  # plugins are loaded, subscribers called
            if not self._stopped:
                self._events.emit(ConfigRefused("", str(path), str(error)))
            raise

    def _applied(self, path: Path) -> tuple[str, ...]:
        with self._applying:
            changes, failures = self._apply(self._adapted(_reading.load(path)))
        if changes:
            self._events.emit(ConfigApplied("", str(path), tuple(changes)))
        if failures:
            raise ConfigError(f"{path}: {'; '.join(failures)}")
        return tuple(changes)

    def watch(self) -> None:
        """Do what ``Host.watch_config`` says."""
        path = self._named("watch")
        from ._watching import Watch  # watchfiles, an extra

        me: weakref.ref[ConfigFile] = weakref.ref(self)  # a host that is forgotten is not kept alive by the thread
        with self._lock:
            if self._watch is not None or self._stopped:
                return
            self._watch = Watch(path, lambda: _changed(me))
        self.changed()  # before the watch began

    def changed(self) -> None:
        """Apply what the file has now, or tell why not."""
        with suppress(Exception):  # it has been told; whatever goes wrong, the next change is to be seen
            self.reload()

    def stop(self) -> None:
        """Watch no more. Idempotent."""
        with self._lock:
            self._stopped = True
            watch, self._watch = self._watch, None
        if watch is not None:
            watch.stop()

    def _named(self, purpose: str) -> Path:
        if self._path is None:
            raise ConfigError(f"the configuration did not come from a file, so there is none to {purpose}")
        return self._path


def _changed(me: weakref.ref[ConfigFile]) -> None:
    file = me()
    if file is not None:
        file.changed()
