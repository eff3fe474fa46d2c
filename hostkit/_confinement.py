"""What a confined worker may reach: its interpreter, what it can import, its own plugin, and what was granted.

Everything in an import path that belongs to another plugin is left out, so a directory that holds some of it is taken apart: each
entry that is nobody else's is named by itself.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import all_suffixes
from typing import TYPE_CHECKING, Any

import packaging.utils

from ._broker import stand_ins
from ._importable import host_path
from ._package import package_of
from ._permissions import Grants

if TYPE_CHECKING:
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
            "tmpfs_mb": _TEMPORARY_MB,
            "threads": _THREADS,
        }


_TEMPORARY_MB, _THREADS = 256, 512


def confinement(level: str, grants: Grants, spec: PluginSpec | None, others: Iterable[PluginSpec]) -> Confinement:
    """Return what a plugin's workers may reach, where ``others`` are not its business."""
    own = {spec.distribution} if spec is not None and spec.distribution else set()
    foreign = [other for other in others if other is not spec and (not other.distribution or other.distribution not in own)]
    mine = _module(spec)
    hidden = _Hidden(mine, foreign)
    path = [entry for entry in host_path()["path"] if os.path.isabs(entry)]
    roots = _outermost([*_interpreter(), *_own_places(spec, mine), *_SYSTEM, *(entry for entry in path if _is_library(entry))])
    sources = [entry for entry in path if not _is_library(entry)]
    places = {os.path.realpath(entry) for entry in path}
    read = [kept for root in roots for kept in hidden.left_of(root, places)]
    sources = [kept for entry in sources for kept in _importable_in(entry, hidden)]
    return Confinement(
        level, (*dict.fromkeys([*read, *sources]),), (*places,), (*dict.fromkeys([*roots, *_SYSTEM, *sources]),), grants
    )


def _programs() -> Iterator[str]:
    yield from _PROGRAMS
    # This interpreter, and the one that it leads to out of a virtual environment.
    yield from {os.path.dirname(path) for path in (sys.executable, os.path.realpath(sys.executable))}


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


def _outermost(paths: Iterable[str]) -> list[str]:
    """Return the real paths of those that are there, without those that lie in another one."""
    found: list[str] = []
    # What leads out of the process, like /proc/self, must be resolved there.
    real = {path if path.startswith("/proc/") else os.path.realpath(path) for path in paths if os.path.exists(path)}
    for path in sorted(real):
        if not found or not any(_within(path, other) for other in found):
            found.append(path)
    return found


class _Hidden:
    """What belongs to other plugins."""

    def __init__(self, mine: Sequence[str], foreign: Iterable[PluginSpec]) -> None:
        self._modules = {parts for other in foreign if (parts := _apart(_module(other), mine))}
        self._distributions = {packaging.utils.canonicalize_name(other.distribution) for other in foreign if other.distribution}
        self._directories = {os.path.realpath(other.directory) for other in foreign if other.directory is not None}

    def left_of(self, root: str, places: Iterable[str]) -> Iterator[str]:
        """Yield ``root``, or what is left of it without what is hidden in the import path's ``places``."""
        hidden = [*self._directories, *(path for place in places if _within(place, root) for path in self._in(place))]
        yield from _without(root, [path for path in hidden if _within(path, root)])

    def _in(self, place: str) -> Iterator[str]:
        for *package, last in self._modules:
            where = os.path.join(place, *package)
            for name in (last, *(f"{last}{suffix}" for suffix in _SUFFIXES)):
                if os.path.exists(path := os.path.join(where, name)):
                    yield path
        if self._distributions:
            for entry in _entries(place):
                if entry.name.endswith(_METADATA) and self.owns(entry.name):
                    yield entry.path

    def owns(self, name: str) -> bool:
        """Whether a name in an import path's directory is another plugin's."""
        if name.endswith(_METADATA):
            return packaging.utils.canonicalize_name(name.partition("-")[0].removesuffix(".egg-info")) in self._distributions
        return (name.partition(".")[0],) in self._modules


_SUFFIXES = tuple(all_suffixes())


def _apart(module: Sequence[str], mine: Sequence[str]) -> tuple[str, ...]:
    """Return where a module leaves the way to mine; nothing for one that is above it, or the same."""
    for count, (part, own) in enumerate(zip(module, mine, strict=False), 1):
        if part != own:
            return tuple(module[:count])
    return tuple(module[: len(mine) + 1]) if len(module) > len(mine) else ()


def _without(root: str, hidden: Sequence[str]) -> Iterator[str]:
    if root in hidden:
        return
    if not hidden:
        yield root
        return
    for entry in _entries(root):
        below = [path for path in hidden if _within(path, entry.path)]
        if below:
            yield from _without(entry.path, below)
        else:
            yield entry.path


def _importable_in(entry: str, hidden: _Hidden) -> Iterator[str]:
    """Yield what can be imported from a directory that may hold anything: modules and packages, and what says who they are."""
    if os.path.isfile(entry):
        yield entry  # a zip file
    for each in _entries(entry):
        if hidden.owns(each.name):
            continue
        module = each.name.endswith(_SUFFIXES) or each.name.endswith((*_METADATA, ".pth", ".libs"))
        if module or any(os.path.exists(os.path.join(each.path, f"__init__{suffix}")) for suffix in _SUFFIXES):
            yield each.path


def _entries(place: str) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(place))
    except OSError:  # not there, or no directory: the worker can't read it either
        return []
