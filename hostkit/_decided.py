"""Bring the operator's word and the manifest's request together: where a plugin runs, and held to what."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from ._backends import BACKENDS, Settings
from ._cgroup import delegated
from ._config import PluginConfig, RecycleConfig
from ._errors import ConfigError, SandboxUnavailable
from ._manifest import Manifest
from ._opening import Recycle
from ._permissions import granted


@dataclass(frozen=True, slots=True)
class Decided:
    """What was decided. ``unheld`` names the limits that were asked for and that nothing holds where the plugin runs; ``held`` says of
    the others what holds them."""

    isolation: str
    word: str  # one of words(): what was agreed on
    moved: str  # why it runs in a worker all the same; empty where it doesn't
    settings: Settings
    unheld: tuple[str, ...]
    held: Mapping[str, str]

    @property
    def auto(self) -> bool:
        """Whether it runs in-process for as long as that goes well."""
        return self.word == "auto" and self.isolation == "none"


def words() -> list[str]:
    """Return what ``isolation`` may say, from the least isolated to the most. A plugin with ``auto`` begins in-process and may be moved."""
    least, *more = BACKENDS
    return [least, "auto", *more]


def decide(name: str, manifest: Manifest, config: PluginConfig, isolation: str | None, *, moved: str = "") -> Decided:
    """Decide. ``isolation`` is the application's own word: before the manifest's wish, and never below the operator's floor; ``moved``
    says why the plugin has lost its place in this process, if it has.

    Raises ``ConfigError`` where it would, and ``SandboxUnavailable`` where a limit can't be enforced.
    """
    word = _isolation(name, manifest, config, isolation)
    resources = manifest.resources.capped(config.resources)
    limits = resources.as_limits()
    unheld = (*resources.limited, *(f"recycle.{name}" for name in sorted(_asked(config.recycle))), *_unconfined(manifest, config))
    refused = bool(unheld) and config.require_enforcement
    sandbox = config.sandbox or ("standard" if sys.platform == "linux" else "off")
    place = "process" if moved or (word == "auto" and refused) else "none" if word == "auto" else word
    if place == "none":
        if refused:
            raise SandboxUnavailable(
                f"plugin {name!r} asks for what nothing can hold in-process ({', '.join(unheld)}), and the operator set "
                'require_enforcement; run it with isolation "process"'
            )
    else:
        unheld = ("permissions",) if sandbox == "off" and manifest.permissions.any else ()
        if unheld and config.require_enforcement:
            raise SandboxUnavailable(
                f"plugin {name!r} declares permissions, which nothing holds with sandbox 'off', and the operator set "
                "require_enforcement; set sandbox to 'standard'"
            )
        _check_enforceable(name, limits, sandbox)
    grants = granted(manifest.permissions, config.permissions)
    settings = Settings(
        timeout=config.timeout,
        workers=config.workers or manifest.workers or 1,
        concurrency=config.concurrency or manifest.concurrency,
        standby=config.standby,
        start=config.start,
        start_timeout=config.start_timeout,
        close_timeout=config.close_timeout,
        cancel_grace=config.cancel_grace,
        heartbeat=config.heartbeat.interval,
        heartbeat_misses=config.heartbeat.misses,
        restarts=config.restarts.budget,
        restart_window=config.restarts.window,
        max_message=config.max_message_mb << 20,
        max_buffers=config.max_buffers_mb << 20,
        limits=limits,
        cgroup=delegated() if place != "none" and not limits.keys().isdisjoint(("memory_bytes", "processes")) else None,
        recycle=_recycle(config.recycle),
        environment=(*config.env, *(grants.env if place != "none" else ())),
        sandbox="off" if place == "none" else sandbox,
        grants=grants,
    )
    held = {} if place == "none" else {name: _holders(name, settings) for name in resources.limited}
    return Decided(place, word, moved, settings, unheld, held)


def _isolation(name: str, manifest: Manifest, config: PluginConfig, asked: str | None) -> str:
    ranks = {word: rank for rank, word in enumerate(words())}
    floor = config.isolation or "none"
    wish = (manifest.wished_isolation or "none") if asked is None else asked
    if not isinstance(wish, str) or wish not in ranks:
        raise ConfigError(f"plugin {name!r}: isolation {wish!r} is unknown; expected one of {', '.join(ranks)}")
    if asked is not None and ranks[asked] < ranks[floor]:
        raise ConfigError(f"plugin {name!r}: isolation {asked!r} is below what the operator demands, which is {floor!r}")
    return max(wish, floor, key=ranks.__getitem__)


def _asked(recycle: RecycleConfig) -> set[str]:
    return {name for name in RecycleConfig.model_fields if getattr(recycle, name) is not None}


def _unconfined(manifest: Manifest, config: PluginConfig) -> list[str]:
    """Return what asks for a sandbox, which nothing in-process is."""
    found = ["permissions"] if manifest.permissions.any else []
    return [*found, "sandbox"] if config.sandbox in ("standard", "strict") else found


def _recycle(recycle: RecycleConfig) -> Recycle | None:
    if not _asked(recycle):
        return None
    soft = recycle.max_memory_mb
    return Recycle(recycle.max_calls, recycle.max_age, None if soft is None else soft << 20)


# What holds each limit, the one that acts first before the others.
_HOLDERS = {
    "max_memory_mb": ("RLIMIT_DATA", "watchdog", "cgroup"),
    "max_cpu_cores": ("affinity", "watchdog"),
    "max_cpu_seconds": ("RLIMIT_CPU", "watchdog"),
    "max_open_files": ("RLIMIT_NOFILE", "watchdog"),
    "max_processes": ("watchdog", "cgroup"),
    "max_threads": ("RLIMIT_NPROC", "watchdog"),
    "max_temporary_mb": ("tmpfs", "watchdog"),
}


def _holders(name: str, settings: Settings) -> str:
    strict = settings.sandbox == "strict"
    here = {"cgroup": settings.cgroup is not None, "watchdog": sys.platform == "linux", "RLIMIT_NPROC": strict, "tmpfs": strict}
    return ", ".join(holder for holder in _HOLDERS[name] if here.get(holder, True))


def _check_enforceable(name: str, limits: dict[str, float], sandbox: str) -> None:
    missing = []
    if sandbox != "off" and sys.platform != "linux":
        missing.append(f"there is a sandbox on Linux only (sandbox = {sandbox!r})")
    if limits and importlib.util.find_spec("resource") is None:
        missing.append("no setrlimit on this system")
    if "cpu_cores" in limits and not hasattr(os, "sched_setaffinity"):
        missing.append("no CPU affinity on this system (max_cpu_cores)")
    if "memory_bytes" in limits and sys.platform != "linux":
        missing.append("RLIMIT_DATA holds on Linux only (max_memory_mb)")
    if limits and sys.platform == "linux" and not os.access("/proc/self/smaps_rollup", os.R_OK):
        missing.append("/proc is not mounted, so the host can't look at its worker")
    if "processes" in limits and sys.platform != "linux":
        missing.append("processes are counted on Linux only (max_processes)")
    if "threads" in limits and sys.platform != "linux":
        missing.append("threads are counted on Linux only (max_threads)")
    if "temporary_bytes" in limits and sandbox == "off":
        missing.append("without a sandbox a worker has no temporary directory of its own (max_temporary_mb)")
    if missing:
        raise SandboxUnavailable(f"plugin {name!r} asks for what can't be enforced here: {'; '.join(missing)}")
