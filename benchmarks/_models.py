"""The same work with pydantic models."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from hostkit import ExecutionContext, Plugin


class CalculatorRequest(BaseModel):
    """What to calculate."""

    operation: Literal["add", "subtract", "multiply", "divide"]
    a: float
    b: float


class CalculatorResponse(BaseModel):
    """What came of it."""

    result: float


REQUEST = CalculatorRequest(operation="add", a=2, b=3)


def calculate(request: CalculatorRequest) -> CalculatorResponse:
    """Answer one request."""
    return CalculatorResponse(result=request.a + request.b)


class Calculator(Plugin[CalculatorRequest, CalculatorResponse]):
    """A plugin with models."""

    def execute(self, ctx: ExecutionContext, request: CalculatorRequest) -> CalculatorResponse:
        """Add two numbers."""
        return calculate(request)


_SAME = CalculatorResponse(result=5)


class Idler(Plugin[CalculatorRequest, CalculatorResponse]):
    """A plugin that does nothing, so that a call costs what is around it."""

    def execute(self, ctx: ExecutionContext, request: CalculatorRequest) -> CalculatorResponse:
        """Return the same answer always."""
        return _SAME
