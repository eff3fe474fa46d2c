"""A calculator as a hostkit plugin."""

from __future__ import annotations

from collections.abc import Callable
from operator import add, mul, sub, truediv
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from hostkit import ExecutionContext, HealthStatus, Plugin, Status

Number = Annotated[float, Field(allow_inf_nan=False)]
Operation = Literal["add", "subtract", "multiply", "divide"]

OPERATIONS: dict[Operation, Callable[[float, float], float]] = {"add": add, "subtract": sub, "multiply": mul, "divide": truediv}


class CalculatorConfig(BaseModel):
    """What the operator may set."""

    model_config = ConfigDict(extra="forbid")

    precision: Annotated[int, Field(ge=0, le=15)] | None = None


class CalculatorRequest(BaseModel):
    """Two numbers and what to do with them."""

    operation: Operation
    a: Number
    b: Number


class CalculatorResponse(BaseModel):
    """What came out."""

    result: Number


class Calculator(Plugin[CalculatorRequest, CalculatorResponse]):
    """Knows the four basic operations."""

    def __init__(self, config: CalculatorConfig) -> None:
        self._precision = config.precision
        self._served = 0

    def execute(self, ctx: ExecutionContext, request: CalculatorRequest) -> CalculatorResponse:
        if request.operation == "divide" and request.b == 0:
            raise ZeroDivisionError("cannot divide by zero")
        result = OPERATIONS[request.operation](request.a, request.b)
        self._served += 1
        return CalculatorResponse(result=result if self._precision is None else round(result, self._precision))

    def health(self) -> HealthStatus:
        metadata = {"operations": len(OPERATIONS), "requests_served": self._served}
        return HealthStatus(Status.HEALTHY, "Calculator plugin is operational", metadata=metadata)
