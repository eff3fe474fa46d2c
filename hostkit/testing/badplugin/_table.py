"""The table of faults: a name, what it does, what the caller is told, and the function that does it."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

# When a fault strikes.
IMPORT, INIT, EXECUTE, HEALTH, CLOSE = "import", "init", "execute", "health", "close"


class Fault(NamedTuple):
    """One fault.

    ``does`` is one line. ``told`` names the errors of which the caller gets one: classes of hostkit's, ``"answer"`` where the call is
    answered all the same, the word of a ``Status`` for health, and ``"log"`` for a close that is told in the log alone.
    ``alone`` says that it would end, stop or spoil the process it runs in, so that it is refused outside of a worker.
    ``settings`` is what the operator must have configured for it to come out as ``told``, and ``timeout`` the seconds to give the call.
    """

    name: str
    does: str
    told: tuple[str, ...]
    do: Callable[..., Any]  # Any: what the call is answered with
    stage: str
    alone: bool
    timeout: float
    settings: Mapping[str, Any]  # Any: as in a configuration file


Does = TypeVar("Does", bound=Callable[..., Any])

FAULTS: dict[str, Fault] = {}


def fault(
    *told: str, stage: str = EXECUTE, alone: bool = False, timeout: float = 10.0, settings: Mapping[str, Any] | None = None
) -> Callable[[Does], Does]:
    """Enter a function into the table, under its own name with hyphens; its docstring is what it does."""

    def enter(do: Does) -> Does:
        name = do.__name__.strip("_").replace("_", "-")
        FAULTS[name] = Fault(name, do.__doc__ or "", told, do, stage, alone, timeout, settings or {})
        return do

    return enter


def found(name: object) -> Fault:
    """Return a fault by its name. Raises ``LookupError`` with the nearest name."""
    fault = FAULTS.get(str(name).replace("_", "-"))
    if fault is None:
        near = difflib.get_close_matches(str(name), FAULTS, 1)
        hint = f"did you mean {near[0]!r}?" if near else "python -m hostkit.testing.badplugin lists them"
        raise LookupError(f"no fault {name!r}; {hint}")
    return fault


def checked(fault: Fault) -> Fault:
    """Return a fault that may run here. Raises ``RuntimeError`` for one that would take the host along."""
    if fault.alone and not in_worker():
        raise RuntimeError(
            f"the fault {fault.name!r} would end, stop or spoil the host's own process, and is refused here: run it with "
            'isolation "process"'
        )
    return fault


def in_worker() -> bool:
    """Whether this process is a worker."""
    return sys.argv[:1] != [] and sys.argv[0].startswith("hostkit-worker:")
