"""Bring the operator's word and the manifest's request together: where a plugin runs, and held to what."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass

from ._backends import BACKENDS, Settings
from ._config import PluginConfig
from ._errors import ConfigError, SandboxUnavailable
from ._manifest import Manifest


@dataclass(frozen=True, slots=True)
class Decided:
    """What was decided. ``unheld`` names the limits that were asked for and that nothing holds where the plugin runs."""

    isolation: str
    settings: Settings
    unheld: tuple[str, ...]


def decide(name: str, manifest: Manifest, config: PluginConfig, isolation: str | None) -> Decided:
    """Decide. ``isolation`` is the application's own word: before the manifest's wish, and never below the operator's floor.

    Raises ``ConfigError`` where it would, and ``SandboxUnavailable`` where a limit can't be enforced.
    """
    place = _isolation(name, manifest, config, isolation)
    resources = manifest.resources.capped(config.resources)
    limits = resources.as_limits()
    unheld: tuple[str, ...] = ()
    if place == "none":
        unheld = resources.limited
        if unheld and config.require_enforcement:
            raise SandboxUnavailable(
                f"plugin {name!r} has limits ({', '.join(unheld)}) that nothing can hold in-process, and the operator set "
                'require_enforcement; run it with isolation "process"'
            )
    else:
        _check_enforceable(name, limits)
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
        limits=limits,
        environment=tuple(config.env),
    )
    return Decided(place, settings, unheld)


def _isolation(name: str, manifest: Manifest, config: PluginConfig, asked: str | None) -> str:
    ranks = {word: rank for rank, word in enumerate(BACKENDS)}
    floor = config.isolation or "none"
    wish = (manifest.wished_isolation or "none") if asked is None else asked
    if not isinstance(wish, str) or wish not in ranks:
        raise ConfigError(f"plugin {name!r}: isolation {wish!r} is unknown; expected one of {', '.join(ranks)}")
    if asked is not None and ranks[asked] < ranks[floor]:
        raise ConfigError(f"plugin {name!r}: isolation {asked!r} is below what the operator demands, which is {floor!r}")
    return max(wish, floor, key=ranks.__getitem__)


def _check_enforceable(name: str, limits: dict[str, float]) -> None:
    missing = []
    if limits and importlib.util.find_spec("resource") is None:
        missing.append("no setrlimit on this system")
    if "cpu_cores" in limits and not hasattr(os, "sched_setaffinity"):
        missing.append("no CPU affinity on this system (max_cpu_cores)")
    if "memory_bytes" in limits and sys.platform != "linux":
        missing.append("RLIMIT_DATA holds on Linux only (max_memory_mb)")
    if missing:
        raise SandboxUnavailable(f"plugin {name!r} has limits that can't be enforced here: {'; '.join(missing)}")
