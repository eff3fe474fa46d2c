"""What the sandbox kept a plugin from, as far as the plugin's own errors tell of it.

worker: PermissionError ─► "denied" beside the error ─► at most so many ─► SandboxDenied
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ._events import Event, SandboxDenied
from ._raised import text_of
from ._sieve import Sieve

# Told at once, and one for each so many seconds after that: a plugin that is denied a million times fills no log.
_BURST, _PER_SECOND = 20, 0.1
_MOST = 4
_ERRNOS = ("EACCES", "EPERM")
_PATH_LIMIT = 1000


class Denials:
    """Tells of those of one host's plugins. Thread-safe."""

    def __init__(self, emit: Callable[[Event], None], *, sieve: Sieve | None = None) -> None:
        self._emit = emit
        self._sieve = sieve or Sieve(_BURST, _PER_SECOND)

    def heard(self, plugin: str, said: Mapping[str, Any]) -> None:  # Any: JSON data from a worker, and nothing else is known of it
        """Take what a worker said of an error."""
        denied = said.get("denied")
        if not isinstance(denied, list):
            return
        for each in denied[:_MOST]:
            if isinstance(each, dict) and each.get("errno") in _ERRNOS:
                left_out = self._sieve.take(plugin)
                if left_out is not None:
                    self._emit(SandboxDenied(plugin, each["errno"], text_of(each.get("path"), _PATH_LIMIT), left_out))

    def told(self) -> None:
        """Tell how many were left out and not told of."""
        for plugin, left_out in self._sieve.rest().items():
            self._emit(SandboxDenied(plugin, "", "", left_out))
