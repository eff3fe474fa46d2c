"""The way to the host that is shown, which may end and come back as another process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from .._attach import Attached, NotRunning, Running


class Host(Protocol):
    """A running host, as ``Attached`` is one. Thread-safe."""

    def ask(self, verb: str, /, *, within: float = ..., **arguments: Any) -> Any:  # Any: JSON data
        """Return the answer. Raises ``NotRunning`` and ``Refused``."""
        ...


class Line:
    """A host, and once it is gone its successor: the only other one of the same application. Thread-safe."""

    def __init__(self, attached: Attached, app: str, find: Callable[[], list[Running]]) -> None:
        self._attached = attached
        self._app = app
        self._find = find

    def ask(self, verb: str, /, *, within: float = 5.0, **arguments: Any) -> Any:  # Any: JSON data
        """Return the answer. Raises ``NotRunning`` and ``Refused``."""
        try:
            return self._attached.ask(verb, within=within, **arguments)
        except NotRunning as error:
            # Only what changes nothing is asked of another process than was meant.
            path = self._successor() if verb == "snapshot" and not is_silence(error) else None
            if path is None:
                raise
        gone, self._attached = self._attached, Attached(path)
        gone.close()
        return self._attached.ask(verb, within=within, **arguments)

    def close(self) -> None:
        """Hang up. Idempotent."""
        self._attached.close()

    def _successor(self) -> Path | None:
        others = [host.path for host in self._find() if host.app == self._app and host.path != self._attached.path]
        return others[0] if len(others) == 1 else None


def is_silence(error: NotRunning) -> bool:
    """Tell whether a host may well be there, and only didn't answer in time."""
    return isinstance(error.__cause__, TimeoutError)
