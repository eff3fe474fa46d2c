"""What a confined worker may reach: its interpreter, what it can import, its own plugin, and what was granted.

Everything in an import path that belongs to another plugin is left out, so a directory that holds some of it is taken apart: each
entry that is nobody else's is named by itself.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import all_suffixes
from typing import TYPE_CHECKING, Any

import packaging.utils

from ._broker import stand_ins
from ._importable import import_path
from ._package import package_of
from ._permissions import Grants

if TYPE_CHECKING:
    from ._opening import Settings
    from ._spec import PluginSpec

# What C libraries look at: how to load others, time zones, certificates, names of hosts and services. None of it is a secret.
_SYSTEM = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/etc/localtime", "/etc/timezone",
    "/usr/share/zoneinfo", "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/pki/tls", "/etc/pki/ca-trust/extracted",
    "/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/etc/ca-certificates", "/etc/mime.types", "/etc/hosts",
    "/etc/host.conf", "/etc/nsswitch.conf", "/etc/services", "/etc/protocols", "/etc/gai.conf",
    "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom",
    "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/filesystems", "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu", "/sys/devices/system/node", "/sys/kernel/mm/transparent_hugepage",
)  # fmt: skip
_NETWORKING = ("/etc/resolv.conf", "/run/systemd/resolve/stub-resolv.conf", "/run/systemd/resolve/resolv.conf")
_PROGRAMS = ("/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/libexec")
# Where a distribution says what it is.
_METADATA = (".dist-info", ".egg-info")


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a plugin's workers may reach. Paths are absolute; ``roots`` are those of ``read`` before they were taken apart,
    and the links that lead there."""

    level: str
    read: tuple[str, ...]
    listed: tuple[str, ...]
    roots: tuple[str, ...]
    grants: Grants
    threads: int
    temporary_mb: int

    @property
    def brokered(self) -> tuple[str, ...]:
        """The endpoints to which the host makes the connections; none where the worker makes its own."""
        return () if isinstance(self.grants.network, bool) else self.grants.network

    def told(self, temporary: str, lifeline: int, broker: int = -1) -> dict[str, Any]:
        """Return it as a worker is told it."""
        grants = self.grants
        return {
            "level": self.level,
            "read": [
                *self.read,
                *(_programs() if grants.subprocess else ()),
                *(_NETWORKING if grants.network else ()),
                *grants.read,
            ],
            "list": list(self.listed),
            "roots": [*self.roots, *(_programs() if grants.subprocess else ()), *grants.read],
            "write": ["/dev/null", *grants.write],
            "execute": [*_programs(), *self.read] if grants.subprocess else [],
            "temporary": temporary,
            "network": grants.network if grants.network is True else "brokered" if grants.network else False,
            "broker": broker,
            "names": stand_ins(self.brokered),
            "subprocess": grants.subprocess,
            "lifeline": lifeline,
            "tmpfs_mb": self.temporary_mb,
            "threads": self.threads,
        }


# At strict, where nobody says anything else.
_TEMPORARY_MB, _THREADS = 256, 512


class Ground:
    """What is on this process's import path, and whose it is: looked at once, for all plugins of a host. Thread-safe."""

    def __init__(self, specs: Mapping[str, PluginSpec]) -> None:
        self._specs = specs
        self._seen = _stamps()
        path = [entry for entry in import_path() if os.path.isabs(entry)]
        libraries = [entry for entry in path if _is_library(entry)]
        self._common = _there([*_interpreter(), *_SYSTEM, *libraries])
        self._listings = {os.path.realpath(entry): _listing(os.path.realpath(entry)) for entry in path}
        self._importable = [found for entry in path if entry not in libraries for found in _importable_in(entry)]

    def still_holds(self, specs: Mapping[str, PluginSpec]) -> bool:
        """Whether nothing has been installed or taken away since, and the path is the same."""
        return self._specs is specs and self._seen == _stamps()

    def confinement(self, settings: Settings, spec: PluginSpec | None) -> Confinement:
        """Return what a plugin's workers may reach; the other plugins are not its business."""
        limits = settings.limits or {}
        foreign = [other for other in self._specs.values() if spec is None or not _together(spec, other)]
        mine = _module(spec)
        hidden = _Hidden(mine, foreign)
        roots = _outermost(self._common | _there(_own_places(spec, mine)))
        places = {place: [*hidden.among(place, listing)] for place, listing in self._listings.items()}
        read = [kept for root in roots for kept in self._left_of(root, hidden, places)]
        importable = [found.path for found in self._importable if not hidden.owns(found)]
        return Confinement(
            settings.sandbox,
            (*dict.fromkeys([*read, *importable]),),
            (*places,),
            (*dict.fromkeys([*roots, *_SYSTEM, *importable]),),
            settings.grants,
            threads=int(limits.get("threads", _THREADS)),
            temporary_mb=int(limits.get("temporary_bytes", _TEMPORARY_MB << 20)) >> 20,
        )

    def _left_of(self, root: str, hidden: _Hidden, places: Mapping[str, Sequence[str]]) -> Iterator[str]:
        """Yield ``root``, or what is left of it without what is other plugins'."""
        there = [path for place, paths in places.items() if _within(place, root) for path in paths]
        yield from self._without(root, [path for path in (*hidden.directories, *there) if _within(path, root)])

    def _without(self, root: str, hidden: Sequence[str]) -> Iterator[str]:
        if root in hidden:
            return
        if not hidden:
            yield root
            return
        # Of what lies beneath only the next step on the way to something hidden matters.
        steps = {path[len(root) :].lstrip("/").partition("/")[0] for path in hidden}
        for found in self._listings.get(root) or _listing(root):
            if found.name in steps:
                yield from self._without(found.path, [path for path in hidden if _within(path, found.path)])
            else:
                yield found.path


@dataclass(frozen=True, slots=True)
class _Found:
    """An entry of a directory; ``of`` is the module that it is a part of, ``distribution`` the one that it says something of."""

    name: str
    path: str
    of: str
    distribution: str


def _programs() -> Iterator[str]:
    yield from _PROGRAMS
    # This interpreter, and the one that it leads to out of a virtual environment.
    yield from {os.path.dirname(path) for path in (sys.executable, os.path.realpath(sys.executable))}


def _together(spec: PluginSpec, other: PluginSpec) -> bool:
    """Whether two rows are one plugin, read at different times, or two that one distribution brings."""
    return spec.name == other.name or (spec.distribution != "" and spec.distribution == other.distribution)


def _module(spec: PluginSpec | None) -> list[str]:
    return [] if spec is None else spec.entry_point.partition(":")[0].split(".")


def _interpreter() -> Iterator[str]:
    yield os.path.dirname(os.path.abspath(__file__))
    yield from (sysconfig.get_path(name) for name in ("stdlib", "platstdlib"))
    yield os.path.join(sys.base_prefix, "lib")
    yield from (os.path.join(prefix, "pyvenv.cfg") for prefix in {sys.prefix, sys.base_prefix})


def _own_places(spec: PluginSpec | None, module: Sequence[str]) -> Iterator[str]:
    if spec is None:
        return
    if spec.directory is not None:
        yield str(spec.directory)
    yield from package_of(".".join(module)).places


def _is_library(entry: str) -> bool:
    """Whether an entry of the path holds what was installed, and nothing else."""
    return any(_within(entry, os.path.realpath(prefix)) or _within(entry, prefix) for prefix in _PREFIXES) and "lib" in entry


_PREFIXES = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix}


def _within(path: str, place: str) -> bool:
    return path == place or path.startswith(place.rstrip("/") + "/")


def _stamps() -> list[tuple[str, int]]:
    found = []
    for entry in import_path():
        try:
            found.append((entry, os.stat(entry).st_mtime_ns))
        except OSError:
            found.append((entry, 0))
    return found


def _there(paths: Iterable[str]) -> set[str]:
    """Return the real paths of those that are there."""
    # What leads out of the process, like /proc/self, must be resolved there.
    return {path if path.startswith("/proc/") else os.path.realpath(path) for path in paths if os.path.exists(path)}


def _outermost(paths: Iterable[str]) -> list[str]:
    """Return the paths without those that lie in another one."""
    found: list[str] = []
    for path in sorted(paths):
        if not any(_within(path, other) for other in found):
            found.append(path)
    return found


class _Hidden:
    """What belongs to other plugins than the one whose module is ``mine``."""

    def __init__(self, mine: Sequence[str], foreign: Iterable[PluginSpec]) -> None:
        modules = {parts for other in foreign if (parts := _apart(_module(other), mine))}
        self._tops = {parts[0] for parts in modules if len(parts) == 1}
        self._deeper = [parts for parts in modules if len(parts) > 1]
        self._distributions = {packaging.utils.canonicalize_name(other.distribution) for other in foreign if other.distribution}
        self.directories = [os.path.realpath(other.directory) for other in foreign if other.directory is not None]

    def owns(self, found: _Found) -> bool:
        """Whether an entry of an import path's directory is another plugin's."""
        return found.distribution in self._distributions if found.distribution else found.of in self._tops

    def among(self, place: str, listing: Iterable[_Found]) -> Iterator[str]:
        """Yield what is other plugins' in a directory of the import path."""
        yield from (found.path for found in listing if self.owns(found))
        for *package, last in self._deeper:
            where = os.path.join(place, *package)
            yield from (path for name in _names_of(last) if os.path.exists(path := os.path.join(where, name)))


_SUFFIXES = tuple(all_suffixes())


def _apart(module: Sequence[str], mine: Sequence[str]) -> tuple[str, ...]:
    """Return where a module leaves the way to mine; nothing for one that is above it, or the same."""
    for count, (part, own) in enumerate(zip(module, mine, strict=False), 1):
        if part != own:
            return tuple(module[:count])
    return tuple(module[: len(mine) + 1]) if len(module) > len(mine) else ()


def _names_of(module: str) -> Iterator[str]:
    yield module
    yield from (f"{module}{suffix}" for suffix in _SUFFIXES)


def _importable_in(entry: str) -> Iterator[_Found]:
    """Yield what can be imported from a directory that may hold anything: modules and packages, and what says who they are."""
    if os.path.isfile(entry):
        yield _Found(os.path.basename(entry), entry, "", "")  # a zip file
    for found in _listing(entry):
        module = found.name.endswith((*_SUFFIXES, *_METADATA, ".pth", ".libs"))
        if module or any(os.path.exists(os.path.join(found.path, f"__init__{suffix}")) for suffix in _SUFFIXES):
            yield found


def _listing(place: str) -> list[_Found]:
    try:
        return [_described(entry) for entry in os.scandir(place)]
    except OSError:  # not there, or no directory: the worker can't read it either
        return []


def _described(entry: os.DirEntry[str]) -> _Found:
    name = entry.name
    said = packaging.utils.canonicalize_name(name.partition("-")[0].removesuffix(".egg-info")) if name.endswith(_METADATA) else ""
    return _Found(name, entry.path, name.partition(".")[0], said)
