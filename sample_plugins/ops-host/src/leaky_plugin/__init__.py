"""Counts words, and keeps more of each text than anybody needs: a leak, held by the limit on its memory."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from hostkit import ExecutionContext, HealthStatus, Plugin, Status


class LeakyConfig(BaseModel):
    """What the operator may set: how much each call leaves behind."""

    model_config = ConfigDict(extra="forbid")

    leak_kib: Annotated[int, Field(ge=0)] = 128


class LeakyRequest(BaseModel):
    """A text."""

    text: str


class LeakyResponse(BaseModel):
    """How many words it has."""

    words: int


class Leaky(Plugin[LeakyRequest, LeakyResponse]):
    """Has a cache without an end."""

    def __init__(self, config: LeakyConfig) -> None:
        self._kept_bytes = config.leak_kib << 10
        self._cache: list[bytes] = []

    def execute(self, ctx: ExecutionContext, request: LeakyRequest) -> LeakyResponse:
        self._cache.append(b"\xff" * self._kept_bytes)  # written to, or the kernel wouldn't count it
        return LeakyResponse(words=len(request.text.split()))

    def health(self) -> HealthStatus:
        return HealthStatus(Status.HEALTHY, f"{len(self._cache)} texts in the cache")
