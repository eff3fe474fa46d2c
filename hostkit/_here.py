"""Start a plugin in this process, and look at what that does to it.

what it requires is here? ─► snapshot ─► import, construct ─► compare ─► it stays
        └────── no ──────────────────────── fails ───────────── differs ─► told; with isolation "auto": undone, and it is moved
"""

from __future__ import annotations

import sys

from ._backends import BACKENDS, Backend, Opening
from ._conflicts import unmet
from ._deadline import Deadline
from ._errors import HostkitError, PluginLoadError
from ._events import Events, HostTampered
from ._log import tell
from ._spec import PluginSpec
from ._tampering import Snapshot


class Unfit(Exception):
    """A plugin that may leave this process has no business in it; the text says why."""


def start_here(opening: Opening, spec: PluginSpec | None, *, may_leave: bool, events: Events) -> Backend:
    """Start a plugin in-process. Raises ``PluginLoadError``, and ``Unfit`` where it may leave and should."""
    if may_leave and spec is not None and spec.distribution and (missing := unmet(spec.distribution)):
        raise Unfit(f"{spec.distribution} {spec.version} requires {', '.join(missing)}")
    before = _snapshot(opening)
    own = _own_modules(opening)
    try:
        backend = BACKENDS["none"](opening)
    except PluginLoadError as error:
        if may_leave and error.kind in ("import", "init"):
            _undo(opening, before, own)
            raise Unfit(f"it can't be loaded here: {error}") from error
        raise
    changes = before.changes(own)
    if not changes:
        return backend
    said = tuple(f"{change.what}: {change.found}" for change in changes)
    if not may_leave:
        events.emit(HostTampered(opening.name, said))
        return backend
    _close(opening, backend)
    _undo(opening, before, own)
    raise Unfit(f"it changed the host's process while it was loaded: {'; '.join(said)}")


def _snapshot(opening: Opening) -> Snapshot:
    """Look at the process as it will be when hostkit has put a plugin's directory on the path."""
    if opening.directory is None or str(opening.directory) in sys.path:
        return Snapshot.take()
    sys.path.append(str(opening.directory))
    try:
        return Snapshot.take()
    finally:
        sys.path.remove(str(opening.directory))


def _own_modules(opening: Opening) -> tuple[str, ...]:
    target = opening.target
    kind = target if isinstance(target, type) else type(target)
    module = opening.entry_point.partition(":")[0] or kind.__module__
    return (module.partition(".")[0],)


def _close(opening: Opening, backend: Backend) -> None:
    try:
        backend.close(Deadline.after(opening.settings.close_timeout))
    except HostkitError as error:
        tell("WARNING", f"plugin {opening.name!r} did not close in order before it was moved: {error}", plugin=opening.name)


def _undo(opening: Opening, before: Snapshot, own: tuple[str, ...]) -> None:
    there = str(opening.directory) in sys.path
    left = before.restore(own)
    if opening.directory is not None and not there:
        sys.path.remove(str(opening.directory))
    if left:
        tell("WARNING", f"plugin {opening.name!r}: what it changed can't be put back: {'; '.join(left)}", plugin=opening.name)
