"""The field types that manifest and configuration share, and how their errors are told."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from ._lines import Keys, place
from ._names import checked_name, printable
from ._worker._data import found

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")


def _seconds(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError('expected seconds or a text like "500ms", "5s" or "2m"')  # noqa: TRY004 - what pydantic takes
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match is None:
            raise ValueError('expected seconds or a text like "500ms", "5s" or "2m"')
        return float(match[1]) * _UNITS[match[2]]
    try:
        return float(value)
    except OverflowError:
        raise ValueError("expected a number that fits a float") from None


_LONGEST = 366 * 86400
# How a schema says it, for editors: without looking into the numbers of a text.
_DURATION_SCHEMA = WithJsonSchema(
    {
        "description": 'Seconds, or a text like "500ms", "5s" or "2m".',
        "anyOf": [
            {"type": "number", "exclusiveMinimum": 0, "maximum": _LONGEST},
            {"type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d)\s*$"},
        ],
    }
)

# Seconds; a year is more than any of them can sensibly be.
Duration = Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=_LONGEST, allow_inf_nan=False), _DURATION_SCHEMA]
Count = Annotated[int, Field(strict=True, ge=1, le=4096)]


_LATER_ISOLATION = {
    "venv": 'isolation "venv" is not enforced by this version of hostkit; ask for "process"',
}


def _isolation(value: object) -> object:
    if isinstance(value, bool):
        return "process" if value else "none"
    if isinstance(value, str) and value in _LATER_ISOLATION:
        raise ValueError(_LATER_ISOLATION[value])
    return value


Isolation = Annotated[
    Literal["none", "auto", "process"] | None,
    BeforeValidator(_isolation),
    WithJsonSchema({"enum": ["none", "auto", "process", True, False, None]}),
]

_ADDRESS = re.compile(r"(?:(\[[0-9A-Za-z:.%]+\]|[0-9A-Za-z._-]+):)?([0-9]{1,5})", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def _variable(text: str) -> str:
    if not _VARIABLE.fullmatch(text):
        raise ValueError("expected the name of an environment variable")
    return text


def _text_of_port(value: object) -> object:
    return str(value) if type(value) is int else value


def _address(text: str) -> str:
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match[2]) > 0xFFFF:
        raise ValueError('expected "HOST:PORT" or "PORT", such as "127.0.0.1:9464"; an IPv6 address stands in [brackets]')
    return f"{match[1] or '127.0.0.1'}:{int(match[2])}"


def _module(text: str) -> str:
    if not all(part.isidentifier() for part in text.split(".")):
        raise ValueError("expected the name of a module")
    return text


Variable = Annotated[str, AfterValidator(_variable), WithJsonSchema({"type": "string", "pattern": f"^{_VARIABLE.pattern}$"})]
# Where something listens: in this machine only, unless another address is named.
_ADDRESS_SCHEMA = {
    "anyOf": [{"type": "string", "pattern": f"^{_ADDRESS.pattern}$"}, {"type": "integer", "minimum": 0, "maximum": 0xFFFF}]
}
Address = Annotated[str, BeforeValidator(_text_of_port), AfterValidator(_address), WithJsonSchema(_ADDRESS_SCHEMA)]
Module = Annotated[str, AfterValidator(_module), WithJsonSchema({"type": "string", "pattern": r"^[^\W\d]\w*(\.[^\W\d]\w*)*$"})]
_NAME_SCHEMA = {"type": "string", "maxLength": 128, "pattern": "^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"}
Name = Annotated[str, AfterValidator(checked_name), WithJsonSchema(_NAME_SCHEMA)]


class Model(BaseModel):
    """Data that enters from outside: frozen, and nothing unknown gets by."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Resources(Model):
    """Limits of a worker. Each that is set is enforced; one that can't be enforced here refuses the load."""

    max_memory_mb: Annotated[int, Field(ge=32, le=1 << 24)] | None = None
    max_cpu_cores: Count | None = None
    max_cpu_seconds: Annotated[float, Field(gt=0, le=1e7, allow_inf_nan=False)] | None = None
    max_open_files: Annotated[int, Field(ge=32, le=1 << 20)] | None = None
    max_processes: Count | None = None
    max_threads: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    max_temporary_mb: Annotated[int, Field(ge=1, le=1 << 24)] | None = None

    def capped(self, cap: Resources) -> Resources:
        """Return the smaller of each limit; where one says nothing the other decides."""
        pairs = {name: (getattr(self, name), getattr(cap, name)) for name in Resources.model_fields}
        return Resources(**{name: min((v for v in pair if v is not None), default=None) for name, pair in pairs.items()})

    @property
    def limited(self) -> tuple[str, ...]:
        """What is set, by the names of the fields."""
        return tuple(name for name in Resources.model_fields if getattr(self, name) is not None)

    def as_limits(self) -> dict[str, float]:
        """Return what is set, in the worker's units."""
        limits: dict[str, float] = {}
        if self.max_memory_mb is not None:
            limits["memory_bytes"] = self.max_memory_mb << 20
        if self.max_temporary_mb is not None:
            limits["temporary_bytes"] = self.max_temporary_mb << 20
        for name in ("cpu_cores", "cpu_seconds", "open_files", "processes", "threads"):
            value = getattr(self, f"max_{name}")
            if value is not None:
                limits[name] = value
        return limits


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with what somebody wrote: ``where`` is the file, the variable, or a word for what has no name, and
    ``keys`` lead to it there. ``unset`` says that only a variable of the environment is missing."""

    where: str
    keys: Keys
    words: str
    line: int | None = None
    unset: bool = False

    @property
    def key(self) -> str:
        """The key as ``plugins.calculator.timeout``; empty for the whole."""
        return printable(".".join(map(str, self.keys)))

    @property
    def said(self) -> str:
        """The key and the words, without the place."""
        return f"{self.key}: {self.words}" if self.keys else self.words


def sentence(problems: Sequence[Problem]) -> str:
    """Return what is wrong, one clause a problem: the first of a file with its name and line, each further one with its line."""
    clauses = []
    for before, problem in zip([None, *problems], problems[:10], strict=False):
        if before is None or before.where != problem.where:
            clauses.append(f"{place(problem.where, problem.line)}: {problem.said}")
        else:
            clauses.append(problem.said if problem.line is None else f"line {problem.line}: {problem.said}")
    if len(problems) > 10:
        clauses.append(f"and {len(problems) - 10} more")
    return "; ".join(clauses)


def problems_in(
    error: ValidationError,
    model: type[BaseModel],
    where: str,
    line: Callable[[Keys], int | None] = lambda _keys: None,
    origin: Callable[[Keys], str | None] = lambda _keys: None,
) -> list[Problem]:
    """Return what a validation error says, from the first line to the last, with a did-you-mean for unknown keys.

    ``origin`` gives the text that a value was made from, which may be told where the value may not.
    """
    found = []
    for row in error.errors(include_url=False):
        keys = tuple(part for part in row["loc"] if part != "[key]")
        found.append(Problem(where, keys, _words(row, keys, model, origin(keys)), line(keys)))
    return sorted(found, key=lambda problem: problem.line or 0)


def _words(row: Any, keys: Keys, model: type[BaseModel], origin: str | None) -> str:  # Any: a row of ValidationError.errors()
    if row["type"] == "extra_forbidden":
        return f"unknown key{_near(keys, model)}"
    if row["type"] == "missing":
        return "is missing"
    words = str(row["msg"]).removeprefix("Value error, ").replace("Input should be", "expected")
    if origin is not None:
        return f"{words}; found what {found(origin)} stands for"
    return f"{words}; found {type(row['input']).__name__ if _may_hold_secrets(row['input'], keys) else found(row['input'])}"


def _may_hold_secrets(value: object, keys: Keys) -> bool:
    """Whether a value is from a plugin's own table, or may have such a table in it."""
    around = isinstance(value, (Mapping, list, tuple)) if not keys else keys[0] == "plugins" and len(keys) <= 2
    return "config" in keys or (around and bool(value))


def _near(loc: Keys, model: type[BaseModel]) -> str:
    *table, key = loc
    paths = list(_paths(model))
    here = [path[-1] for path in paths if len(path) == len(loc) and _shared(path, table) == len(table)]
    if near := difflib.get_close_matches(str(key), here, 1):
        return f"; did you mean {near[0]!r}?"
    if near := difflib.get_close_matches(str(key), [path[-1] for path in paths], 1):
        path = max((path for path in paths if path[-1] == near[0]), key=lambda path: _shared(path, table))
        shared = _shared(path, table)
        return f"; did you mean {'.'.join([*map(str, table[:shared]), *path[shared:]])!r}?"
    return ""


def _shared(path: Sequence[str], table: Sequence[int | str]) -> int:
    """Return how many parts of a key's path are those of a table, from the top."""
    pairs = zip(path, table, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] in (_ANY, pair[1]), pairs))


_ANY = "NAME"


def _paths(model: type[BaseModel], table: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every key of a model and of the models in it."""
    for name, info in model.model_fields.items():
        yield (*table, name)
        annotation: Any = info.annotation
        inside = getattr(annotation, "__args__", ())
        parent = (*table, name, _ANY) if getattr(annotation, "__origin__", None) is dict else (*table, name)
        for part in (annotation, *inside):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from _paths(part, parent)
