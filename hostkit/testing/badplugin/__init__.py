"""A plugin that misbehaves on demand, for trying what a host survives.

``python -m hostkit.testing.badplugin`` lists the faults, ``python -m hostkit.testing.badplugin FAULT`` runs one in a small host. In an
application's own host: ``host.register(BadPlugin, name="bad", isolation="process")``, then ``host.execute("bad", {"fault": "segfault"})``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hostkit._contract import ExecutionContext, HealthStatus

from . import _dying, _hanging, _living, _raising, _speaking, _spoiling  # noqa: F401 - they fill the table
from ._table import CLOSE, EXECUTE, FAULTS, HEALTH, IMPORT, INIT, Fault, checked, found

__all__ = ["FAULTS", "BadPlugin", "Fault", "install"]


class BadPlugin:
    """Do the fault that a request names: ``{"fault": NAME, ...}``, with what the fault takes beside. Without one, answer "fine".

    A fault of health or close is only armed by the call, and strikes at the next health check or close. One of import or init is
    chosen where the plugin is installed (``install(..., fault=...)``).
    """

    def __init__(self) -> None:
        self._armed: dict[str, Fault] = {}

    def execute(self, ctx: ExecutionContext, request: Mapping[str, Any] | None) -> Any:  # Any: whatever a fault answers with
        """Do it."""
        arguments = dict(request or {})
        name = arguments.pop("fault", None)
        if name is None:
            return "fine"
        fault = checked(found(name))
        if fault.stage in (HEALTH, CLOSE):
            self._armed[fault.stage] = fault
            return "armed"
        if fault.stage != EXECUTE:
            raise RuntimeError(f"the fault {fault.name!r} is one of {fault.stage}: choose it where the plugin is installed")
        return fault.do(ctx, **arguments)

    def health(self) -> Any:  # Any: a status, unless a fault lies
        """Be well, unless a fault is armed; it strikes once."""
        fault = self._armed.pop(HEALTH, None)
        return HealthStatus() if fault is None else fault.do()

    def close(self) -> None:
        """Close, unless a fault is armed."""
        fault = self._armed.pop(CLOSE, None)
        if fault is not None:
            fault.do()


def install(directory: Path, name: str = "bad", *, group: str = "hostkit.plugins", fault: str = "") -> str:
    """Write a distribution with the bad plugin into ``directory``, which you put on ``sys.path``; return its package's name.

    ``group`` is that of your application, ``"myapp.plugins"``. ``fault`` is one of import or init that it is to have. Raises
    ``LookupError`` for a fault that isn't there, and ``ValueError`` for one that a request names.
    """
    from hostkit import testing

    return testing.install(
        directory, name, _source(found(fault)) if fault else _SOURCE.format(at_import="", at_init=""), group=group
    )


def _source(fault: Fault) -> str:
    if fault.stage not in (IMPORT, INIT):
        raise ValueError(f"the fault {fault.name!r} is named in a request: it strikes in {fault.stage}")
    strike = f"checked(FAULTS[{fault.name!r}]).do()"
    return _SOURCE.format(
        at_import=strike if fault.stage == IMPORT else "",
        at_init=f"    def __init__(self):\n        super().__init__()\n        {strike}" if fault.stage == INIT else "",
    )


_SOURCE = '''\
from hostkit.testing.badplugin import FAULTS, BadPlugin
from hostkit.testing.badplugin._table import checked

{at_import}

class P(BadPlugin):
    """The bad plugin, installed."""
{at_init}
'''
