"""Faults outside of calls: when the plugin is imported, made, asked for its health, and closed."""

from __future__ import annotations

import os
import signal as signals
import sys
import time

from hostkit._contract import HealthStatus

from ._table import CLOSE, HEALTH, IMPORT, INIT, fault

_SHORT_START = {"start_timeout": 0.6}
_SHORT_HEALTH = {"health": {"timeout": 0.5}}
_SHORT_CLOSE = {"close_timeout": 0.5}


@fault("PluginLoadError", stage=IMPORT)
def import_raises() -> None:
    """Raise while it is imported."""
    raise ValueError("broken on purpose")


@fault("PluginLoadError", stage=IMPORT)
def import_exits() -> None:
    """Call sys.exit while it is imported."""
    sys.exit(3)


@fault("WorkerExited", stage=IMPORT, alone=True)
def import_leaves() -> None:
    """Leave by os._exit while it is imported."""
    os._exit(0)


@fault("CallTimeout", stage=IMPORT, alone=True, settings=_SHORT_START)
def import_hangs() -> None:
    """Take longer to import than the operator allows for a start."""
    time.sleep(60)


@fault("WorkerCrashed", stage=IMPORT, alone=True)
def import_crashes() -> None:
    """Crash while it is imported."""
    import ctypes

    ctypes.string_at(0)


@fault("PluginLoadError", stage=INIT)
def init_raises() -> None:
    """Raise in __init__."""
    raise OSError("no disk")


@fault("CallTimeout", stage=INIT, alone=True, settings=_SHORT_START)
def init_hangs() -> None:
    """Take longer in __init__ than the operator allows for a start."""
    time.sleep(60)


@fault("unhealthy", stage=HEALTH)
def health_raises() -> object:
    """Raise in health."""
    raise RuntimeError("not well")


@fault("unhealthy", stage=HEALTH, settings=_SHORT_HEALTH)
def health_hangs(seconds: float = 1.2) -> object:
    """Take longer for health than the operator allows."""
    time.sleep(seconds)
    return HealthStatus()


@fault("unhealthy", "unknown", stage=HEALTH)
def health_lies() -> object:
    """Answer health with something that is no status."""
    return "never better"


@fault("log", stage=CLOSE)
def close_raises() -> None:
    """Raise in close."""
    raise RuntimeError("stuck")


@fault("log", stage=CLOSE, settings=_SHORT_CLOSE)
def close_hangs(seconds: float = 1.2) -> None:
    """Take longer to close than the operator allows."""
    time.sleep(seconds)


@fault("log", stage=CLOSE, alone=True)
def close_leaves() -> None:
    """Leave by os._exit in close."""
    os._exit(3)


@fault("log", stage=CLOSE, alone=True, settings=_SHORT_CLOSE)
def close_stops() -> None:
    """Stop the whole process in close: SIGSTOP."""
    os.kill(os.getpid(), signals.SIGSTOP)
    time.sleep(60)
