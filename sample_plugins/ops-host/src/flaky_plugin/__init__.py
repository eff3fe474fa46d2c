"""Exchange rates from an upstream that breaks down now and then: what a circuit breaker is for."""

from __future__ import annotations

import random
import time
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from hostkit import ExecutionContext, HealthStatus, Plugin, Status

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Currency = Literal["CHF", "EUR", "JPY", "SEK", "USD"]

RATES: dict[Currency, float] = {"CHF": 0.93, "EUR": 1.0, "JPY": 163.2, "SEK": 11.4, "USD": 1.08}


class FlakyConfig(BaseModel):
    """What the operator may set.

    ``good_seconds`` of calm are followed by ``bad_seconds`` in which ``failure_rate`` of the calls fail, each after ``failing_seconds``,
    and so on.
    """

    model_config = ConfigDict(extra="forbid")

    good_seconds: Seconds = 20
    bad_seconds: Seconds = 10
    failure_rate: Annotated[float, Field(ge=0, le=1)] = 0.9
    failing_seconds: Seconds = 0.02

    def is_bad(self, age: float) -> bool:
        """Return whether calls fail ``age`` seconds after the plugin began."""
        whole = self.good_seconds + self.bad_seconds
        return whole > 0 and age % whole >= self.good_seconds


class FlakyRequest(BaseModel):
    """Which currency."""

    currency: Currency


class FlakyResponse(BaseModel):
    """How much of it one euro is."""

    rate: float


class UpstreamDown(Exception):
    """The upstream doesn't answer."""


class Flaky(Plugin[FlakyRequest, FlakyResponse]):
    """Knows the rates while its upstream is well."""

    def __init__(self, config: FlakyConfig) -> None:
        self._config = config
        self._began = time.monotonic()
        self._dice = random.Random()  # noqa: S311 - nothing is kept secret with it

    def execute(self, ctx: ExecutionContext, request: FlakyRequest) -> FlakyResponse:
        if self._is_bad and self._dice.random() < self._config.failure_rate:
            time.sleep(self._config.failing_seconds)
            ctx.logger.warning("no answer for %s", request.currency)
            raise UpstreamDown(f"rates.example.org:443 gave no rate of {request.currency}")
        return FlakyResponse(rate=RATES[request.currency])

    def health(self) -> HealthStatus:
        if self._is_bad:
            return HealthStatus(Status.DEGRADED, "the upstream answers hardly any request")
        return HealthStatus(Status.HEALTHY, "the upstream answers")

    @property
    def _is_bad(self) -> bool:
        return self._config.is_bad(time.monotonic() - self._began)
