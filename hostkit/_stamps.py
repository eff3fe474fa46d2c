"""What a look at the installed plugins depends on: the import path, and how files and directories look from outside."""

from __future__ import annotations

import os
import sys
import time

# When it was modified and changed (nanoseconds), and its size; empty for what isn't there. The time of change notices
# permissions, and an edit whose modification time was set back. A list, because it is kept as JSON.
Stamp = list[int]

# Two changes within one tick of the clock for files, 10 ms at most, may bear the same time.
_TICK = 20_000_000
_UNSURE = [0, 0, 0]


def search_path() -> list[str]:
    """Return the directories and archives of the import path, absolute, each once."""
    entries = [entry for entry in sys.path if isinstance(entry, str) and "\0" not in entry]
    try:
        return list(dict.fromkeys(map(os.path.abspath, entries)))
    except FileNotFoundError:  # the working directory was removed, so nothing can be relative to it
        return list(dict.fromkeys(filter(os.path.isabs, entries)))


def stamp(path: str) -> Stamp:
    """Return how a file or directory looks now."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return []
    return [found.st_mtime_ns, found.st_ctime_ns, found.st_size]


class Stamps(dict[str, Stamp]):
    """How files looked, by path, each just before it was read."""

    def take(self, path: str) -> None:
        """Remember how ``path`` looks; one that changed a moment ago never counts as unchanged."""
        if path not in self:
            seen = stamp(path)
            now = time.time_ns()
            self[path] = _UNSURE if seen and abs(now - max(seen[:2])) < _TICK else seen

    def hold(self) -> bool:
        """Whether everything still looks the same."""
        return all(stamp(path) == seen for path, seen in self.items())
