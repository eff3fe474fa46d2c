"""A plugin's account of itself, health and info, as its worker gives it: from foreign code's process, so it is checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, FiniteFloat

from .._contract import HealthStatus, Status
from .._worker._codec import codec_for
from .._worker._data import DataError
from .._worker._json import dump_json


def _data(metadata: dict[str, Any]) -> dict[str, Any]:
    try:
        dump_json(metadata)
    except DataError as error:
        raise ValueError(str(error)) from None
    return metadata


_Metadata = Annotated[dict[str, Any], AfterValidator(_data)]


class _Health(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    status: Status
    message: str = ""
    last_check: FiniteFloat | None = None
    response_time: FiniteFloat = 0.0
    metadata: _Metadata = {}


class _Info(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    name: str = ""
    version: str = ""
    description: str = ""
    author: str = ""
    capabilities: tuple[str, ...] = ()
    metadata: _Metadata = {}


_health, _info = codec_for(_Health), codec_for(_Info)


def health_said(payload: bytes) -> HealthStatus:
    """Return the status that a worker tells. Raises ``DataError`` for anything else."""
    return HealthStatus(**vars(_health.decode(payload)))


def info_said(payload: bytes) -> Mapping[str, Any]:
    """Return the fields of the info that a worker tells. Raises ``DataError`` for anything else."""
    fields: dict[str, Any] = vars(_info.decode(payload))
    return fields
