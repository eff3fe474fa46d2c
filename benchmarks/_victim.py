"""The work of a worker that is about to be killed, and of its neighbours; importable by every worker."""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hostkit import ExecutionContext


def work(request: dict[str, Any]) -> dict[str, Any]:
    """Say which process this is, if a place is named for that, then take a while."""
    place = request.get("place")
    if place is not None:
        with open(f"{place}.new", "w", encoding="ascii") as file:
            file.write(str(os.getpid()))
        os.rename(f"{place}.new", place)
    time.sleep(request.get("seconds", 0.0))
    return {"number": request["number"]}


class Victim:
    """The same as a plugin."""

    def execute(self, ctx: ExecutionContext, request):  # type: ignore[no-untyped-def]
        """Work."""
        return work(request)
