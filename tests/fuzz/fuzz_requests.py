"""JSON and types, as a worker reads its requests and a host its answers: data of that type, or rows that say what is wrong.

The first byte of the input says which type, the rest is the JSON. What was read can be written, and means the same when it is read
again.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import json
import pathlib
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from pydantic import BaseModel, Field

from hostkit._worker._codec import codec_for
from hostkit._worker._data import MOST_ROWS, DataError
from hostkit._worker._json import dump_json, load_json


class Colour(enum.Enum):
    RED = "red"
    GREEN = 2


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


@dataclass
class Inner:
    count: int
    ratio: float | None = None


@dataclass
class Everything:
    name: str
    colour: Colour = Colour.RED
    inner: Inner | None = None
    many: list[Inner] = field(default_factory=list)
    tags: frozenset[str] = frozenset()
    by_number: dict[int, str] = field(default_factory=dict)
    pair: tuple[int, str] | None = None
    movie: Movie | None = None
    choice: Literal["a", 1, None] = None
    at: dt.datetime | dt.date | None = None
    who: uuid.UUID | None = None
    price: decimal.Decimal | None = None
    place: pathlib.Path | None = None
    either: int | Inner | list[int] | None = None


@dataclass
class Left:
    child: Left | Right | None = None
    left: int = 0


@dataclass
class Right:
    child: Left | Right | None = None
    right: int = 0


class Item(BaseModel):
    name: str
    price: Annotated[float, Field(ge=0)] = 0.0
    tags: set[str] = set()
    parts: list[Item] = []
    colour: Colour | None = None


TYPES: list[Any] = [
    Everything,
    Item,
    Left,
    Movie,
    list[Inner],
    dict[float, float],
    dict[int, list[Movie]],
    Mapping[str, Sequence[int]],
    tuple[int, ...],
    set[tuple[int, str]],
    bool | int | float | str | None,
    list[Item],
    dict[str, Any],
]
CODECS = [(kind, codec_for(kind, tolerant=tolerant)) for kind in TYPES for tolerant in (False, True)]


def check(data: bytes) -> None:
    if not data:
        return
    plain(data[1:])
    kind, codec = CODECS[data[0] % len(CODECS)]
    value = read(codec.decode, data[1:])
    if value is not WRONG and not OVERFLOWN.search(data):
        written = codec.encode(value, round_trip=True)
        again = codec.decode(written)
        assert again == value, (kind, value, again)


def plain(payload: bytes) -> None:
    value = read(load_json, payload)
    if value is WRONG:
        return
    assert json.loads(payload) == value
    if not OVERFLOWN.search(payload):
        assert load_json(dump_json(value)) == value


# Numbers that are JSON and that no float holds: they are read as infinity, which can't be written.
OVERFLOWN = re.compile(rb"[0-9][eE]\+?[0-9]{3}|[0-9]{309}")
WRONG = object()


def read(decode, payload: bytes) -> Any:
    try:
        return decode(payload)
    except DataError as error:
        assert 0 < len(error.rows) <= MOST_ROWS
        for row in error.rows:
            assert set(row) == {"path", "expected", "found"}
            for words in row.values():
                assert len(words) < 16 * 1024
                words.encode("utf-8")
        return WRONG
