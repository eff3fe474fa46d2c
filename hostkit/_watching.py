"""Watch a file, the configuration or the lock, and say when it has become another one. Needs watchfiles (``hostkit[watch]``).

the system: something in the folder ─► quiet for 0.1 s ─► other bytes than before? ─► changed()
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from ._errors import ConfigError
from ._log import tell
from ._parsing import Unreadable, contents

# Milliseconds: a writer that pauses for longer between two writes is taken to be done (the docs say to replace the file in one
# step), and where the system tells nothing, as some network file systems do, the file is looked at so often anyway.
_QUIET, _ANYWAY = 100, 1000


class Watch:
    """Calls ``changed``, on a thread of its own, after the file's bytes (or what ``seen`` returns of it) have become others, until
    ``stop``. Raises ``ConfigError``; ``what`` is the file's name in that."""

    def __init__(
        self,
        path: Path,
        changed: Callable[[], None],
        *,
        seen: Callable[[Path], object] | None = None,
        what: str = "the configuration",
    ) -> None:
        try:
            import watchfiles
        except ImportError as error:
            raise ConfigError(f"watching {what} needs watchfiles, which is not installed: pip install 'hostkit[watch]'") from error
        self._path = path
        self._changed = changed
        self._now = seen or _seen
        self._seen = self._now(path)
        self._stop = threading.Event()
        # The folders, because a file is replaced rather than written to; and that of the file behind a link.
        self._changes = watchfiles.watch(
            *dict.fromkeys((path.parent, path.resolve().parent)),
            step=_QUIET,
            stop_event=self._stop,
            rust_timeout=_ANYWAY,
            yield_on_timeout=True,
            raise_interrupt=False,
            watch_filter=None,
            recursive=False,
        )
        self._thread = threading.Thread(target=self._run, name="hostkit-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Watch no more. Idempotent."""
        self._stop.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(1.0)

    def _run(self) -> None:
        try:
            for _ in self._changes:
                self.look()
        except (OSError, RuntimeError) as error:  # no watch to be had, or no more
            tell("WARNING", f"{self._path} can't be watched ({error}); it is looked at every {_ANYWAY / 1000:g} s")
        while not self._stop.wait(_ANYWAY / 1000):
            self.look()

    def look(self) -> None:
        """Look at the file now."""
        now = self._now(self._path)
        if now != self._seen and not self._stop.is_set():
            self._seen = now
            self._changed()


def _seen(path: Path) -> bytes | str:
    """Return what stands there; of what can't be read, why."""
    try:
        return contents(path)
    except Unreadable as error:
        return str(error)
