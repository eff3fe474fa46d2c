"""Reports that take their time, some of them longer than their caller waits."""

from __future__ import annotations

import asyncio
import random
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from hostkit import ExecutionContext, Plugin

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class SlowConfig(BaseModel):
    """What the operator may set: how long a report takes in the middle, how long one that hangs, and the share of those."""

    model_config = ConfigDict(extra="forbid")

    median_seconds: Seconds = 0.03
    hang_seconds: Seconds = 0.6
    hang_rate: Annotated[float, Field(ge=0, le=1)] = 0.01


class SlowRequest(BaseModel):
    """What the report is about."""

    subject: str


class SlowResponse(BaseModel):
    """The report, and how long it took."""

    report: str
    seconds: float


class Slow(Plugin[SlowRequest, SlowResponse]):
    """Waits for something, as most slow code does; a call that is cancelled ends at once."""

    def __init__(self, config: SlowConfig) -> None:
        self._config = config
        self._dice = random.Random()  # noqa: S311 - nothing is kept secret with it

    async def execute(self, ctx: ExecutionContext, request: SlowRequest) -> SlowResponse:
        seconds = self._duration()
        await asyncio.sleep(seconds)
        return SlowResponse(report=f"all is well with {request.subject}", seconds=seconds)

    def _duration(self) -> float:
        if self._dice.random() < self._config.hang_rate:
            return self._config.hang_seconds
        return self._config.median_seconds * self._dice.lognormvariate(0, 0.35)
