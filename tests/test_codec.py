from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import json
import pathlib
import sys
import types
import uuid
import warnings
from typing import Annotated, Any, Literal, Optional, TypedDict

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, RootModel, computed_field

from hostkit._worker._codec import PlainCodec, codec_for
from hostkit._worker._data import MOST_ROWS, DataError, found
from hostkit._worker._json import dump_json, load_json

SANDBOX = "standard"

NAN, INF = float("nan"), float("inf")


def rows(error):
    return [(row["path"], row["expected"], row["found"]) for row in error.rows]


def refused(action):
    """The rows of the DataError that an action raises; they are short text that any log can take."""
    with pytest.raises(DataError) as caught:
        action()
    for row in caught.value.rows:
        assert set(row) == {"path", "expected", "found"}
        assert all(len(text) < 10_000 for text in row.values())
    assert len(caught.value.rows) <= MOST_ROWS
    json.dumps(caught.value.rows, ensure_ascii=False).encode("utf-8")
    str(caught.value).encode("utf-8")
    return rows(caught.value)


def deep(depth, *, of=list):
    value = of()
    for _ in range(depth):
        value = [value] if of is list else {"a": value}
    return value


# What is JSON data, and what is not.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**300), 10**300) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)
# Everything that is only nearly JSON.
NEARLY = st.recursive(
    JSON
    | st.floats()
    | st.integers()
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
    | st.complex_numbers()
    | st.dates()
    | st.uuids()
    | st.decimals()
    | st.just(object())
    | st.builds(lambda: 10**5000)
    | st.just(NAN),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(
            st.text() | st.integers() | st.floats() | st.none() | st.dates() | st.tuples(st.integers()), inner, max_size=4
        )
        | st.frozensets(st.integers() | st.text(), max_size=3)
    ),
    max_leaves=10,
)


def same(one, other):
    """Equality that tells 1 from 1.0 and True."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@given(JSON)
def test_json_data_crosses_unchanged(value):
    codec = PlainCodec()
    assert same(codec.decode(codec.encode(value)), value)


@given(NEARLY)
def test_anything_else_crosses_or_is_a_data_error(value):
    codec = PlainCodec()
    try:
        payload = codec.encode(value)
    except DataError:
        return
    codec.decode(payload)


@given(NEARLY, st.sampled_from([dict, list, Any, "model", "structure"]))
def test_no_codec_raises_anything_but_a_data_error(value, kind):
    class Model(BaseModel):
        a: Any = None

    @dataclasses.dataclass
    class Structure:
        a: Any = None

    annotation = {"model": Model, "structure": Structure}.get(kind, kind)
    codec = codec_for(annotation)
    for answer in (value, {"a": value}, Model.model_construct(a=value), Structure(value)):
        try:
            codec.decode(codec.encode(answer))
        except DataError:
            pass


@given(st.binary(max_size=60))
def test_bytes_that_are_no_json_are_a_data_error(noise):
    for codec in (PlainCodec(), codec_for(dict), codec_for(Point)):
        try:
            codec.decode(noise)
        except DataError:
            pass


class Point(BaseModel):
    x: float
    y: float = 0.0


@pytest.mark.parametrize(
    ("value", "path", "expected"),
    [
        (NAN, "", "a finite number"),
        ({"a": [1, {"b": INF}]}, "a.1.b", "a finite number"),
        ({"a": -INF}, "a", "a finite number"),
        ({"a": "\ud800"}, "a", "text without lone surrogates"),
        ({"a": {"\udfff": 1}}, "a key", "text without lone surrogates"),
        ([10**400], "0", "a number below 1.8e308"),
        ([10**5000], "0", "a number below 1.8e308"),
        ({"n": -(10**309)}, "n", "a number below 1.8e308"),
        ({"a": b"bytes"}, "a", "JSON data"),
        ({"a": [object]}, "a.0", "JSON data"),
        ({"a": 1j}, "a", "JSON data"),
        ({"a": dt.timedelta(1)}, "a", "JSON data"),
        ({"a": (item for item in ())}, "a", "JSON data (what execute returns is a stream only where it is a generator function)"),
        ({"a": {"m": Point.model_construct(x=NAN)}}, "a.m.x", "a finite number"),
    ],
    ids=[str(number) for number in range(14)],
)
def test_what_is_no_data_is_named_with_its_place(value, path, expected):
    for codec in (PlainCodec(), codec_for(Any)):
        assert refused(lambda codec=codec: codec.encode(value))[0][:2] == (path, expected)


@pytest.mark.parametrize("depth", [1, 100, 2_000, 5_000])
def test_data_that_is_nested_crosses_or_is_a_data_error(depth):
    for codec in (PlainCodec(), codec_for(list), codec_for(Anything), codec_for(list[Anything]), codec_for(Node)):
        for value in (deep(depth), deep(depth, of=dict), {"a": deep(depth)}, Anything.model_construct(a=deep(depth)), chain(depth)):
            try:
                payload = codec.encode(value)
                codec.decode(payload)
            except DataError:
                pass


@dataclasses.dataclass
class Node:
    a: Any = None


def chain(depth):
    node = Node()
    for _ in range(depth):
        node = Node(node)
    return node


@pytest.mark.parametrize("depth", [100_000])
@pytest.mark.parametrize("of", [list, dict])
def test_data_that_is_nested_too_deep_is_a_data_error_in_both_directions(depth, of):
    for codec in (PlainCodec(), codec_for(list), codec_for(dict), codec_for(Anything), codec_for(list[Anything])):
        found = refused(lambda codec=codec: codec.encode(deep(depth, of=of)))
        assert "deep" in found[0][1] or "list" in found[0][1] or "object" in found[0][1]
        text = b"[" * depth + b"]" * depth if of is list else b'{"a":' * depth + b"1" + b"}" * depth
        refused(lambda codec=codec, text=text: codec.decode(text))


class Anything(BaseModel):
    a: Any = None
    b: float | None = None


@pytest.mark.parametrize("depth", [2_000, 100_000])
def test_a_model_that_holds_something_too_deep_is_a_data_error(depth):
    for codec in (PlainCodec(), codec_for(Anything)):
        for round_trip in (False, True):
            refused(lambda codec=codec, r=round_trip: codec.encode(Anything.model_construct(a=deep(depth)), round_trip=r))


def test_data_within_itself_is_a_data_error():
    value = {}
    value["again"] = value
    assert "within itself" in refused(lambda: dump_json(value))[0][2]


def test_a_great_many_keys_cross():
    value = {f"key{number}": number for number in range(200_000)}
    codec = codec_for(dict[str, int])
    assert codec.decode(codec.encode(value)) == value


def test_a_great_many_unknown_keys_are_a_short_data_error():
    payload = dump_json({f"key{number}": number for number in range(200_000)})
    assert len(refused(lambda: codec_for(Mapped).decode(payload))) == MOST_ROWS
    assert len(refused(lambda: codec_for(Typed).decode(payload))) == MOST_ROWS


@dataclasses.dataclass
class Mapped:
    a: int = 0


class Typed(TypedDict, total=False):
    a: int


def test_large_numbers_that_a_float_holds_cross():
    value = {"a": 10**308, "b": -(2**1023), "c": 1.7e308, "d": 5e-324}
    assert same(PlainCodec().decode(PlainCodec().encode(value)), value)


def test_long_rows_of_digits_in_text_are_no_numbers():
    for text in ("1" * 1000, "x" + "1" * 1000, "a " + "7" * 5000 + " z", '"' + "1" * 400):
        value = {"id": text, text: [text]}
        for codec in (PlainCodec(), codec_for(dict), codec_for(Anything)):
            carried = {"a": value} if codec.type else value
            assert codec.decode(codec.encode(carried)) == (Anything(a=value) if codec.type else value)


def test_a_huge_number_in_a_model_is_refused_where_it_would_become_infinity():
    assert refused(lambda: codec_for(Anything).encode(Anything(a=10**400)))[0][:2] == ("a", "a number below 1.8e308")
    assert refused(lambda: codec_for(Point).encode(Point.model_construct(x=10**400)))[0][0] == "x"
    assert refused(lambda: codec_for(Point).decode(b'{"x":' + b"9" * 310 + b"}"))[0][0] == "x"
    assert refused(lambda: codec_for(Point).decode(b'{"x":' + b"9" * 5000 + b"}"))


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "[NaN]", '{"x": NaN}', '{"x": -Infinity}'])
def test_constants_that_json_does_not_have_are_refused_by_every_codec(text):
    for codec in (PlainCodec(), codec_for(dict), codec_for(Point), codec_for(Anything), codec_for(list[Point])):
        refused(lambda codec=codec: codec.decode(text.encode()))


@pytest.mark.parametrize("text", [r'"\ud800"', r'{"a": "\udc00x"}', r'{"\ud800": 1}'])
def test_half_a_surrogate_pair_is_refused_by_every_codec(text):
    for codec in (PlainCodec(), codec_for(dict), codec_for(str), codec_for(Anything)):
        refused(lambda codec=codec: codec.decode(text.encode()))


def test_a_whole_surrogate_pair_is_a_letter():
    assert load_json(rb'"\ud83d\ude00"') == "\U0001f600"


@pytest.mark.parametrize("noise", [b"", b"{", b"nul", b"\xff", b"\xef\xbb\xbf{}", b"1 2", b"'a'", b"{'a':1}", b"[1,]", b"\x00"])
def test_broken_json_is_a_data_error(noise):
    for codec in (PlainCodec(), codec_for(dict), codec_for(Point)):
        refused(lambda codec=codec: codec.decode(noise))


def test_objects_of_well_known_kinds_are_written_as_pydantic_writes_them():
    class Color(enum.Enum):
        RED = "red"

    class Number(enum.IntEnum):
        ONE = 1

    class Letter(str, enum.Enum):
        A = "a"

    Pair = collections.namedtuple("Pair", "a b")
    zone = dt.timezone(dt.timedelta(hours=2))
    value = {
        "enum": Color.RED,
        "int enum": Number.ONE,
        "str enum": Letter.A,
        "datetime": dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=zone),
        "date": dt.date(2024, 1, 2),
        "time": dt.time(3, 4),
        "uuid": uuid.UUID(int=5),
        "decimal": decimal.Decimal("1.50"),
        "path": pathlib.Path("/a/b"),
        "set": {1},
        "frozenset": frozenset({2}),
        "tuple": (1, (2,)),
        "named tuple": Pair(1, 2),
        "deque": collections.deque([1, 2]),
        "dataclass": Mapped(3),
        "ordered": collections.OrderedDict(a=1),
        "proxy": types.MappingProxyType({"a": 1}),
        "model": Point(x=1),
    }
    ours = load_json(dump_json(value))
    value["proxy"] = dict(value["proxy"])
    assert ours == json.loads(pydantic.TypeAdapter(Any).dump_json(value))


def test_keys_that_are_no_text_are_written_as_pydantic_writes_them():
    class Color(enum.Enum):
        RED = "red"

    value = {"in": [{Color.RED: 1, uuid.UUID(int=1): 2, dt.date(2024, 1, 1): 3, 4: 4, 5.5: 5}]}
    assert load_json(dump_json(value)) == json.loads(pydantic.TypeAdapter(Any).dump_json(value))
    assert refused(lambda: dump_json({(1, 2): 3}))
    assert refused(lambda: dump_json({object(): 3}))
    assert refused(lambda: dump_json({NAN: 3}))


class Hostile:
    def __repr__(self):
        raise SystemExit("no")


class Meta(type):
    @property
    def __name__(cls):
        raise RuntimeError("no name")

    def __getattribute__(cls, name):
        if name in ("__qualname__", "__module__"):
            raise RuntimeError("no name")
        return super().__getattribute__(name)


class Nameless(metaclass=Meta):
    def __repr__(self):
        raise KeyboardInterrupt


class LyingText(str):
    __slots__ = ()

    def __len__(self):
        raise SystemExit

    def encode(self, *_):
        raise SystemExit


class Chatty:
    def __repr__(self):
        return LyingText("x" * 1_000_000)


class SurrogateRepr:
    def __repr__(self):
        return "\ud800"


class Loops(dict):
    def items(self):
        raise RuntimeError("no items")


@dataclasses.dataclass
class Explodes:
    @property
    def a(self):
        raise LookupError("gone")

    a: int


Explodes.a = property(lambda self: (_ for _ in ()).throw(LookupError("gone")))


@pytest.mark.parametrize(
    "value", [Hostile(), Nameless(), Chatty(), SurrogateRepr(), Loops(a=1), object.__new__(Explodes)], ids=range(6)
)
def test_hostile_objects_are_told_and_run_nothing_that_hurts(value):
    for codec in (PlainCodec(), codec_for(dict), codec_for(Anything), codec_for(Mapped)):
        refused(lambda codec=codec: codec.encode(value))
        refused(lambda codec=codec: codec.encode({"a": value}))
        if not isinstance(value, Loops):  # pydantic reads a dict past its methods
            refused(lambda codec=codec: codec.encode(Anything.model_construct(a=value)))


def test_what_was_found_is_a_short_text_whatever_it_is():
    for value in ("x" * 10**7, list(range(10**6)), {n: n for n in range(10**6)}, deep(10_000), Hostile(), Nameless(), Chatty()):
        text = found(value)
        assert type(text) is str
        assert len(text) <= 120
    assert found(SurrogateRepr()) == "\\ud800"
    assert found([1, 2]) == "[1, 2]"
    assert found("a" * 500).endswith("...")


# pydantic's models.


class Free(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int = 0


class Careless(BaseModel):
    model_config = ConfigDict(extra="ignore")
    a: int = 0


class Silent(BaseModel):
    a: int = 0


class Mixed(BaseModel):
    free: Free = Free()
    careless: Careless = Careless()
    silent: Silent = Silent()
    many: list[Free | Silent] = []
    by_name: dict[str, Silent] = {}
    metadata: Optional[Silent] = None


def test_a_model_that_says_nothing_of_extra_fields_takes_none():
    assert refused(lambda: codec_for(Silent).decode(b'{"b": 1}')) == [("b", "a known field (a)", "1")]
    assert refused(lambda: codec_for(Point).decode(b'{"x": 1, "yy": 1}')) == [("yy", "a known field (did you mean 'y'?)", "1")]


def test_what_a_model_says_of_extra_fields_is_honoured_wherever_it_stands():
    assert codec_for(Free).decode(b'{"b": 1}').b == 1
    assert codec_for(Careless).decode(b'{"b": 1}') == Careless()
    assert codec_for(list[Free]).decode(b'[{"b": 1}]')[0].b == 1
    assert codec_for(Mixed).decode(b'{"free": {"b": 1}, "careless": {"b": 1}}').free.b == 1
    assert codec_for(Optional[Careless]).decode(b'{"b": 1}') == Careless()


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        (b'{"silent": {"b": 1}}', "silent.b"),
        (b'{"by_name": {"k": {"b": 1}}}', "by_name.k.b"),
        (b'{"metadata": {"b": 1}}', "metadata.b"),
        (b'{"free": {"x": 1}, "silnt": {}}', "silnt"),
    ],
    ids=str,
)
def test_a_silent_model_among_others_takes_no_unknown_fields_either(payload, path):
    assert [row[0] for row in refused(lambda: codec_for(Mixed).decode(payload))] == [path]


def test_an_older_pydantic_without_the_switch_refuses_unknown_fields_too(monkeypatch):
    monkeypatch.setattr("hostkit._worker._models._takes_extra", lambda: False)
    for annotation, payload, path in (
        (Point, b'{"x": 1, "z": 1}', "z"),
        (list[Point], b'[{"x": 1}, {"x": 1, "z": 1}]', "1.z"),
        (RootModel[Point], b'{"x": 1, "z": 1}', "z"),
        (Renamed, b'{"the name": "a", "name": "b"}', None),
        (Renamed, b'{"the name": "a", "nme": "b"}', "nme"),
    ):
        codec = codec_for(annotation)
        if path is not None:
            assert [row[0] for row in refused(lambda codec=codec, payload=payload: codec.decode(payload))] == [path]
        else:
            codec.decode(payload)


def test_whoever_reads_answers_lets_unknown_fields_pass():
    assert codec_for(Silent, tolerant=True).decode(b'{"a": 1, "b": 2}') == Silent(a=1)
    assert codec_for(Mapped, tolerant=True).decode(b'{"a": 1, "b": 2}') == Mapped(1)
    assert codec_for(Typed, tolerant=True).decode(b'{"a": 1, "b": 2}') == {"a": 1}
    assert codec_for(list[Mapped], tolerant=True).decode(b'[{"a": 1, "b": 2}]') == [Mapped(1)]

    class Strict(BaseModel):
        model_config = ConfigDict(extra="forbid")
        a: int

    assert refused(lambda: codec_for(Strict, tolerant=True).decode(b'{"a": 1, "b": 2}'))[0][0] == "b"


def test_errors_of_a_model_have_paths_and_what_was_found():
    told = refused(lambda: codec_for(Mixed).decode(b'{"silent": {"a": "x"}, "many": 5, "by_name": {"k": null}}'))
    assert [path for path, _, _ in told] == ["silent.a", "many", "by_name.k"]
    assert told[0][1:] == ("a valid integer, unable to parse string as an integer", "'x'")
    assert refused(lambda: codec_for(Point).decode(b"{}")) == [("x", "this field", "nothing")]


class Renamed(BaseModel):
    name: str = Field(alias="the name")
    size: int = Field(default=0, validation_alias="size", serialization_alias="size")


def test_aliases_are_the_names_in_the_data():
    codec = codec_for(Renamed)
    value = Renamed.model_validate({"the name": "a", "size": 3})
    assert codec.encode(value) == b'{"the name":"a","size":3}'
    assert codec.decode(codec.encode(value)) == value
    assert refused(lambda: codec.decode(b'{"name": "a"}'))[0] == ("the name", "this field", "nothing")
    assert "did you mean 'the name'?" in refused(lambda: codec.decode(b'{"the nme": "a", "the name": "b"}'))[0][1]


class Squared(BaseModel):
    model_config = ConfigDict(extra="forbid")
    side: float

    @computed_field
    @property
    def area(self) -> float:
        return self.side**2


def test_computed_fields_are_for_those_who_take_data_as_it_comes():
    codec = codec_for(Squared)
    assert codec.encode(Squared(side=2)) == b'{"side":2.0,"area":4.0}'
    assert codec.encode(Squared(side=2), round_trip=True) == b'{"side":2.0}'
    assert codec.decode(codec.encode(Squared(side=2), round_trip=True)) == Squared(side=2)


@dataclasses.dataclass
class WithSquare:
    square: Squared
    others: list[Squared]


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (list[Squared], [Squared(side=2)]),
        (Optional[Squared], Squared(side=2)),
        (dict[str, Squared], {"a": Squared(side=2)}),
        (Squared, {"side": 2.0}),
        (WithSquare, WithSquare(Squared(side=1), [Squared(side=3)])),
        (RootModel[list[Squared]], RootModel[list[Squared]]([Squared(side=2)])),
    ],
    ids=str,
)
def test_computed_fields_in_the_middle_of_something_cross_both_ways(annotation, value):
    codec = codec_for(annotation)
    back = codec.decode(codec.encode(value, round_trip=True))
    assert back == (Squared(side=2) if isinstance(value, dict) and "side" in value else value)
    assert isinstance(value, dict) or b'"area":' in codec.encode(value)


def test_a_computed_field_that_raises_is_a_data_error():
    class Ratio(BaseModel):
        a: int = 0

        @computed_field
        @property
        def b(self) -> float:
            return 1 / self.a

    for codec in (PlainCodec(), codec_for(Ratio)):
        assert "ZeroDivisionError" in refused(lambda codec=codec: codec.encode(Ratio()))[0][2]


@pytest.mark.parametrize("number", [NAN, INF, -INF])
@pytest.mark.parametrize("field", ["a", "b"])
def test_a_number_that_pydantic_would_silently_write_as_null_is_refused(number, field):
    value = Anything.model_construct(**{field: number})
    for codec in (PlainCodec(), codec_for(Anything)):
        for round_trip in (False, True):
            assert refused(lambda codec=codec, r=round_trip: codec.encode(value, round_trip=r))[0][:2] == (field, "a finite number")
    held = Anything(a={"k": [Anything.model_construct(b=number)]})
    assert refused(lambda: codec_for(Anything).encode(held))[0][0] == "a.k.0.b"
    assert refused(lambda: codec_for(list[Anything]).encode([value]))[0][0].endswith(f"0.{field}")


def test_a_null_that_is_one_is_fine():
    codec = codec_for(Anything)
    for value in (
        Anything(),
        Anything(a=[None, "null"]),
        Anything(a={"null": None}, b=1.0),
        Anything(a=(1, None)),
        Anything(a={None}),
    ):
        assert codec.decode(codec.encode(value)).b == value.b


def test_a_model_that_writes_numbers_as_words_of_its_own_choice_is_honoured():
    class Words(BaseModel):
        model_config = ConfigDict(ser_json_inf_nan="strings")
        a: float = NAN
        b: int | None = None

    class Constants(BaseModel):
        model_config = ConfigDict(ser_json_inf_nan="constants")
        a: float = NAN

    assert codec_for(Words).encode(Words()) == b'{"a":"NaN","b":null}'
    assert refused(lambda: codec_for(Constants).encode(Constants()))


def test_a_model_with_a_field_of_another_type_than_it_promises_is_refused():
    wrong = Point.model_construct(x="a lot")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert refused(lambda: codec_for(Point).encode(wrong))[0][0] == "x"
        assert codec_for(Point).encode(Point.model_construct(x=5)) == b'{"x":5.0,"y":0.0}'
        payload = codec_for(Point).encode(wrong, round_trip=True)
    assert refused(lambda: codec_for(Point).decode(payload))[0][0] == "x"


def test_a_subclass_of_the_promised_model_may_have_more():
    class Point3(Point):
        z: float = 3.0

    assert codec_for(Point).encode(Point3(x=1)) == b'{"x":1.0,"y":0.0,"z":3.0}'


def test_another_model_of_the_same_data_is_as_good():
    class Same(BaseModel):
        x: float
        y: float

    assert load_json(codec_for(Point).encode(Same(x=1, y=2))) == {"x": 1.0, "y": 2.0}
    assert load_json(codec_for(Point).encode({"x": 1})) == {"x": 1}
    assert refused(lambda: codec_for(Point).encode(Silent(a=1)))
    assert refused(lambda: codec_for(Point).encode(None))


def test_surrogates_and_objects_in_a_model_are_named_with_their_place():
    value = Anything.model_construct(a={"k": ["\ud800"]})
    assert refused(lambda: codec_for(Anything).encode(value))[0][:2] == ("a.k.0", "text without lone surrogates")
    assert refused(lambda: codec_for(Anything).encode(Anything(a=object())))[0][2].startswith("Unable to serialize unknown type")


@pytest.mark.parametrize(
    "error", [ValueError("odd"), RuntimeError("odd"), KeyError("odd"), RecursionError("odd"), SystemError("odd")]
)
def test_a_validator_that_raises_whatever_is_a_data_error(error):
    class Picky(BaseModel):
        a: int

        @pydantic.field_validator("a")
        @classmethod
        def check(cls, value):
            raise error

    @dataclasses.dataclass
    class Alike:
        a: int

        def __post_init__(self):
            raise error

    for annotation in (Picky, Alike, list[Picky], list[Alike]):
        payload = b'[{"a": 1}]' if "list" in str(annotation) else b'{"a": 1}'
        assert "odd" in str(refused(lambda payload=payload, a=annotation: codec_for(a).decode(payload)))


def test_running_out_of_memory_is_no_data_error():
    class Greedy(BaseModel):
        a: int

        @pydantic.field_validator("a")
        @classmethod
        def check(cls, value):
            raise MemoryError

    @dataclasses.dataclass
    class Alike:
        a: int

        def __post_init__(self):
            raise MemoryError

    for annotation in (Greedy, Alike):
        with pytest.raises(MemoryError):
            codec_for(annotation).decode(b'{"a": 1}')


def test_ctrl_c_in_a_validator_is_no_data_error():
    @dataclasses.dataclass
    class Interrupted:
        a: int

        def __post_init__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        codec_for(Interrupted).decode(b'{"a": 1}')


Positive = Annotated[int, Field(gt=0)]


@dataclasses.dataclass
class Order:
    count: Positive
    tags: list[Annotated[str, Field(max_length=3)]] = dataclasses.field(default_factory=list)


def test_constraints_in_annotations_hold():
    assert codec_for(Positive).decode(b"3") == 3
    assert refused(lambda: codec_for(Positive).decode(b"0"))
    assert codec_for(Order).decode(b'{"count": 1, "tags": ["abc"]}') == Order(1, ["abc"])
    assert [row[0] for row in refused(lambda: codec_for(Order).decode(b'{"count": 0, "tags": ["abc", "abcd"]}'))] == [
        "count",
        "tags.1",
    ]


def test_pydantic_dataclasses_are_models():
    @pydantic.dataclasses.dataclass
    class Sized:
        a: int

    @pydantic.dataclasses.dataclass(config=ConfigDict(extra="ignore"))
    class Loose:
        a: int

    codec = codec_for(Sized)
    assert codec.type is Sized
    assert codec.decode(codec.encode(Sized(1))) == Sized(1)
    assert refused(lambda: codec.decode(b'{"a": 1, "b": 2}'))[0][0] == "b"
    assert codec_for(Loose).decode(b'{"a": 1, "b": 2}') == Loose(1)


def test_a_model_that_waits_for_a_later_class_is_completed():
    assert codec_for(Early).decode(b'{"late": {"a": 1}}').late == Late(a=1)


class Early(BaseModel):
    late: Late


class Late(BaseModel):
    a: int


class Never(BaseModel):
    missing: Nowhere  # noqa: F821


def test_what_no_data_can_be_is_found_when_the_codec_is_made():
    class Plain:
        pass

    class Bad(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        a: Plain

    for annotation in (Plain, object(), list[Plain], dict[str, Plain], Optional[Plain], bytes, Literal[b"x"], "Plain"):
        with pytest.raises(TypeError):
            codec_for(annotation)
    with pytest.raises(NameError):
        codec_for(Never)
    with pytest.raises(TypeError):
        codec_for(Annotated[Plain, Field(gt=1)])


def test_a_codec_knows_the_class_whose_objects_pass_by_reference():
    assert codec_for(Point).type is Point
    assert codec_for(Mapped).type is Mapped
    assert codec_for(None).type is None
    assert codec_for(dict).type is None
    assert codec_for(list[Point]).type is None


def test_a_plugin_without_pydantic_never_looks_at_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "pydantic")
    codec = codec_for(Mapped)
    assert codec.decode(codec.encode(Mapped(2))) == Mapped(2)
