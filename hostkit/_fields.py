"""The field types that manifest and configuration share, and how their errors are told."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ._worker._structure import found

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")


def _seconds(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError('expected seconds or a text like "500ms", "5s" or "2m"')
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match is None:
            raise ValueError('expected seconds or a text like "500ms", "5s" or "2m"')
        return float(match[1]) * _UNITS[match[2]]
    return float(value)


# Seconds; a year is more than any of them can sensibly be.
Duration = Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=366 * 86400, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=1, le=4096)]


class Model(BaseModel):
    """Data that enters from outside: frozen, and nothing unknown gets by."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Resources(Model):
    """Limits of a worker. The kernel enforces each that is set; one that it can't enforce here refuses the load."""

    max_memory_mb: Annotated[int, Field(ge=32, le=1 << 24)] | None = None
    max_cpu_cores: Count | None = None
    max_cpu_seconds: Annotated[float, Field(gt=0, le=1e7, allow_inf_nan=False)] | None = None
    max_open_files: Annotated[int, Field(ge=32, le=1 << 20)] | None = None

    def capped(self, cap: Resources) -> Resources:
        """Return the smaller of each limit; where one says nothing the other decides."""
        pairs = {name: (getattr(self, name), getattr(cap, name)) for name in Resources.model_fields}
        return Resources(**{name: min((v for v in pair if v is not None), default=None) for name, pair in pairs.items()})

    def as_limits(self) -> dict[str, float]:
        """Return what is set, in the worker's units."""
        limits: dict[str, float] = {}
        if self.max_memory_mb is not None:
            limits["memory_bytes"] = self.max_memory_mb << 20
        for name in ("cpu_cores", "cpu_seconds", "open_files"):
            value = getattr(self, f"max_{name}")
            if value is not None:
                limits[name] = value
        return limits


def sentences(error: ValidationError, names: Iterable[str]) -> str:
    """Return what a validation error says, one clause a field, with a did-you-mean for unknown ones."""
    clauses = []
    for row in error.errors(include_url=False)[:10]:
        where = ".".join(str(part) for part in row["loc"] if not str(part).startswith(("function-", "constrained-")))
        clauses.append(f"{where}: {_sentence(row, list(names))}" if where else _sentence(row, list(names)))
    return "; ".join(clauses)


def _sentence(row: Any, names: list[str]) -> str:
    if row["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(row["loc"][-1]), names, 1)
        return f"unknown key; did you mean {near[0]!r}?" if near else "unknown key"
    if row["type"] == "missing":
        return "is missing"
    words = str(row["msg"]).removeprefix("Value error, ")
    words = words[:1].lower() + words[1:] if words.startswith("Input") else words
    return f"{words}; found {found(row['input'])}"


def all_fields(model: type[BaseModel]) -> list[str]:
    """Return every key of a model and of the models in it."""
    names: list[str] = []
    for name, info in model.model_fields.items():
        names.append(name)
        parts = [info.annotation, *getattr(info.annotation, "__args__", ())]
        for part in parts:
            if isinstance(part, type) and issubclass(part, BaseModel):
                names.extend(all_fields(part))
    return names
