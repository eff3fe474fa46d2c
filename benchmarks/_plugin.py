"""The work that every peer does, without pydantic; importable by every worker."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hostkit import ExecutionContext

REQUEST = {"operation": "add", "a": 2.0, "b": 3.0}


def calculate(request: dict[str, Any]) -> dict[str, Any]:
    """Answer one request of plain data."""
    return {"result": request["a"] + request["b"]}


class Plain:
    """A plugin of plain data: it names no types, so nothing is checked on the way."""

    def execute(self, ctx: ExecutionContext, request):  # type: ignore[no-untyped-def]
        """Add two numbers."""
        return calculate(request)
