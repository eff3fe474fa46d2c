"""A plugin that tries to do what it was not granted, one act a call, and tells what came of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from hostkit import ExecutionContext, Plugin

from . import (  # noqa: F401 - they fill the table
    _channel,
    _kernel,
    _lifeline,
    _limits,
    _network,
    _others,
    _proc,
    _programs,
    _reading,
    _sharing,
    _signals,
    _writing,
)
from ._table import ACTS, Act, Held, found, tried

__all__ = ["ACTS", "Act", "Escape", "Held", "found", "tried"]


class Escape(Plugin[dict[str, Any], dict[str, Any]]):  # Any: JSON data
    """Do the act that a request names: ``{"act": NAME, "target": {...}}``; without one, answer that all is well."""

    def execute(self, ctx: ExecutionContext, request: Mapping[str, Any]) -> dict[str, Any]:
        name = request.get("act")
        if name is None:
            return {"act": None, "blocked": True, "how": "nothing was asked for"}
        if not sys.argv[:1] or not sys.argv[0].startswith("hostkit-worker:"):
            raise RuntimeError(
                'in the host\'s own process there is nothing to escape from, and much to break: isolate it ("process")'
            )
        return tried(found(name), request.get("target") or {})
