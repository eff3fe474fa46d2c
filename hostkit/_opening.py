"""What a backend is opened with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._contract import Caller
from ._events import Event
from ._monitor import Monitor
from ._permissions import Grants

if TYPE_CHECKING:
    from ._confinement import Confinement
    from ._scratch import Scratch
    from ._template import Template

NOTHING = Grants()


@dataclass(frozen=True, slots=True)
class Recycle:
    """When a worker has served long enough and another one takes its place; None where that is no reason."""

    calls: int | None = None
    age: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """How a backend runs a plugin: the operator's word and the manifest's request, already brought together.

    Times are seconds, ``max_message`` bytes of JSON in one request or response, and ``max_buffers`` bytes of its blobs and arrays.
    ``limits`` has ``memory_bytes``, ``cpu_cores``, ``cpu_seconds``, ``open_files``, ``processes``, ``threads`` and ``temporary_bytes``,
    each only where it is set;
    ``cgroup`` is where workers may have control groups of their own. ``start`` says how a worker starts: as a ``fresh`` interpreter,
    or forked from the host's ``template``; ``sandbox`` to what it is confined, ``off``, ``standard`` or ``strict``, but for what is in
    ``grants``.
    ``verified`` has size and SHA-256 of every file that a worker may import beside the interpreter's and hostkit's own, by absolute
    path; None where it may import anything. Whoever lists a ``.pyc`` of ``__pycache__`` beside its source vouches for it: it is run in
    the source's place. ``locked`` is the digest of what was locked, empty where nothing was compared
    with a lock.
    """

    timeout: float = 30.0
    workers: int = 1
    standby: int = 0
    concurrency: int | None = None
    start: str = "fresh"
    start_timeout: float = 30.0
    close_timeout: float = 5.0
    cancel_grace: float = 1.0
    heartbeat: float = 5.0
    heartbeat_misses: int = 3
    restarts: int = 3
    restart_window: float = 300.0
    max_message: int = 64 * 1024 * 1024
    max_buffers: int = 1024 * 1024 * 1024
    limits: Mapping[str, float] | None = None
    cgroup: Path | None = None
    recycle: Recycle | None = None
    environment: tuple[str, ...] = ()
    sandbox: str = "off"
    grants: Grants = NOTHING
    # Not compared: the same settings are the same, whatever was installed anew meanwhile.
    verified: Mapping[str, tuple[int, str]] | None = field(default=None, compare=False, repr=False)
    locked: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Opening:
    """What a backend is opened with. ``target`` is a registered class or object, and then ``entry_point`` is empty; ``confinement`` and
    ``scratch`` are there where its workers are confined.

    ``happened`` is told what becomes of its workers, and ``denied`` what a confined one says of an error.
    """

    name: str
    entry_point: str
    config: Mapping[str, Any]
    settings: Settings
    caller: Caller
    monitor: Monitor
    directory: Path | None = None
    target: object | None = None
    template: Template | None = None
    confinement: Confinement | None = None
    scratch: Scratch | None = None
    happened: Callable[[Event], object] | None = None
    denied: Callable[[str, Mapping[str, Any]], object] | None = None
