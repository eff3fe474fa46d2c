from __future__ import annotations

import collections.abc
import dataclasses
import datetime as dt
import decimal
import enum
import pathlib
import sys
import textwrap
import types
import typing
import uuid
from typing import Annotated, Any, ClassVar, Literal, NewType, NotRequired, Optional, Required, TypedDict, TypeVar, Union

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, RootModel

from hostkit._worker._codec import codec_for
from hostkit._worker._data import DataError
from hostkit._worker._json import dump_json, load_json
from hostkit._worker._structure import Structure


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Number(enum.IntEnum):
    ONE = 1
    TWO = 2


UserId = NewType("UserId", int)
UTC = dt.timezone.utc


@dataclasses.dataclass
class Address:
    street: str
    number: int = 1


@dataclasses.dataclass
class Person:
    name: str
    address: Address
    others: list[Address] = dataclasses.field(default_factory=list)


class Title(TypedDict):
    text: str
    size: NotRequired[int]


class Loose(TypedDict, total=False):
    text: Required[str]
    size: int


class Wider(Title):
    width: int


@dataclasses.dataclass
class Node:
    value: int
    next: Optional[Node] = None
    children: list[Node] = dataclasses.field(default_factory=list)


class Tree(TypedDict):
    leaf: NotRequired[int]
    branches: NotRequired[list[Tree]]


def outcome(annotation, data):
    """What an annotation makes of data: the value, or DataError."""
    try:
        return codec_for(annotation).decode(dump_json(data))
    except DataError:
        return DataError


def refused(annotation, data):
    with pytest.raises(DataError) as caught:
        codec_for(annotation).decode(dump_json(data))
    return [(row["path"], row["expected"], row["found"]) for row in caught.value.rows]


# Annotation, data, and what it means; DataError where it means nothing.
PLAIN = [
    (int, 1, 1),
    (int, True, DataError),
    (int, "x", DataError),
    (int, 1.5, DataError),
    (int, None, DataError),
    (float, 1, 1.0),
    (float, 1.5, 1.5),
    (float, "x", DataError),
    (float, [1], DataError),
    (bool, True, True),
    (bool, "maybe", DataError),
    (bool, None, DataError),
    (str, "x", "x"),
    (str, 1, DataError),
    (str, None, DataError),
    (Optional[int], None, None),
    (Optional[int], 1, 1),
    (Optional[int], "x", DataError),
    (int | None, None, None),
    (Union[int, str], 1, 1),
    (Union[int, str], "x", "x"),
    (Union[int, str], [], DataError),
    (Union[float, int], 1, 1),
    (Union[float, int], 1.5, 1.5),
    (Union[int, float], 1.5, 1.5),
    (Literal["a", 1, None], "a", "a"),
    (Literal["a", 1, None], 1, 1),
    (Literal["a", 1, None], None, None),
    (Literal["a", 1], "b", DataError),
    (Literal[1], True, DataError),
    (Literal[True], 1, DataError),
    (Literal[Color.RED], "red", Color.RED),
    (Literal[Color.RED], "blue", DataError),
    (Color, "red", Color.RED),
    (Color, "green", DataError),
    (Color, ["red"], DataError),
    (Color, {"red": 1}, DataError),
    (Number, 1, Number.ONE),
    (Number, 3, DataError),
    (dt.datetime, "2024-01-02T03:04:05+00:00", dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
    (dt.datetime, "2024-01-02T03:04:05Z", dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
    (dt.datetime, "2024-13-02T03:04:05", DataError),
    (dt.date, "2024-01-02", dt.date(2024, 1, 2)),
    (dt.date, "tomorrow", DataError),
    (dt.time, "03:04:05", dt.time(3, 4, 5)),
    (dt.time, "25:00", DataError),
    (uuid.UUID, "00000000-0000-0000-0000-000000000005", uuid.UUID(int=5)),
    (uuid.UUID, "nobody", DataError),
    (decimal.Decimal, "1.50", decimal.Decimal("1.50")),
    (decimal.Decimal, 3, decimal.Decimal(3)),
    (decimal.Decimal, 0.1, decimal.Decimal("0.1")),
    (decimal.Decimal, "NaN", DataError),
    (decimal.Decimal, "Infinity", DataError),
    (decimal.Decimal, "much", DataError),
    (decimal.Decimal, True, DataError),
    (pathlib.Path, "/a/b", pathlib.Path("/a/b")),
    (pathlib.Path, 5, DataError),
    (list[int], [1, 2], [1, 2]),
    (list[int], [1, "x"], DataError),
    (list[int], {"a": 1}, DataError),
    (list, [1, "x"], [1, "x"]),
    (typing.List[int], [1], [1]),
    (tuple[int, str], [1, "x"], (1, "x")),
    (tuple[int, str], [1], DataError),
    (tuple[int, str], [1, "x", 2], DataError),
    (tuple[int, ...], [1, 2, 3], (1, 2, 3)),
    (tuple[int, ...], ["x"], DataError),
    (tuple, [1, "x"], (1, "x")),
    (set[int], [1, 1, 2], {1, 2}),
    (set[int], ["x"], DataError),
    (frozenset[str], ["x"], frozenset("x")),
    (set, [[1]], DataError),
    (dict[str, int], {"a": 1}, {"a": 1}),
    (dict[str, int], {"a": "x"}, DataError),
    (dict[str, int], [], DataError),
    (dict[int, str], {"1": "a", "-2": "b"}, {1: "a", -2: "b"}),
    (dict[int, str], {"x": "a"}, DataError),
    (dict[float, str], {"1.5": "a"}, {1.5: "a"}),
    (dict[uuid.UUID, int], {str(uuid.UUID(int=5)): 1}, {uuid.UUID(int=5): 1}),
    (dict[Color, int], {"red": 1}, {Color.RED: 1}),
    (dict[Color, int], {"green": 1}, DataError),
    (dict, {"a": [1]}, {"a": [1]}),
    (collections.abc.Mapping[str, int], {"a": 1}, {"a": 1}),
    (collections.abc.Sequence[int], [1], [1]),
    (typing.AbstractSet[int], [1], {1}),
    (UserId, 5, 5),
    (UserId, "x", DataError),
    (Annotated[int, "any words"], 5, 5),
    (Annotated[Optional[int], "any words"], None, None),
    (Any, {"a": [1, None]}, {"a": [1, None]}),
    (Address, {"street": "a", "number": 2}, Address("a", 2)),
    (Address, {"street": "a"}, Address("a")),
    (Address, {"number": 2}, DataError),
    (Address, {"street": 5}, DataError),
    (Address, {"street": "a", "nmber": 2}, DataError),
    (Address, [], DataError),
    (Address, None, DataError),
    (Person, {"name": "n", "address": {"street": "s"}, "others": [{"street": "t"}]}, Person("n", Address("s"), [Address("t")])),
    (Person, {"name": "n", "address": {}}, DataError),
    (Title, {"text": "a"}, {"text": "a"}),
    (Title, {"text": "a", "size": 1}, {"text": "a", "size": 1}),
    (Title, {"size": 1}, DataError),
    (Title, {"text": "a", "width": 1}, DataError),
    (Title, {"text": "a", "size": "x"}, DataError),
    (Loose, {"text": "a"}, {"text": "a"}),
    (Loose, {"size": 1}, DataError),
    (Wider, {"text": "a", "width": 1}, {"text": "a", "width": 1}),
    (Wider, {"text": "a"}, DataError),
    (dict[str, list[Optional[Address]]], {"a": [None, {"street": "s"}]}, {"a": [None, Address("s")]}),
    (Union[Address, Title], {"text": "a"}, {"text": "a"}),
    (Union[Address, Title], {"street": "a"}, Address("a")),
    (Union[Address, list[int], None], None, None),
    (Node, {"value": 1, "next": {"value": 2}, "children": [{"value": 3}]}, Node(1, Node(2), [Node(3)])),
    (Node, {"value": 1, "next": {"value": 2, "next": {"value": "x"}}}, DataError),
    (list[Node], [{"value": 1}], [Node(1)]),
    (Tree, {"branches": [{"leaf": 1}, {"branches": []}]}, {"branches": [{"leaf": 1}, {"branches": []}]}),
    (Tree, {"branches": [{"leaf": "x"}]}, DataError),
]


@pytest.mark.parametrize(("annotation", "data", "meaning"), PLAIN, ids=[str(number) for number in range(len(PLAIN))])
def test_data_means_the_same_by_annotation_in_a_dataclass_and_in_a_typed_dict(annotation, data, meaning):
    assert outcome(annotation, data) == meaning
    assert type(outcome(annotation, data)) is type(meaning)
    holder = dataclasses.make_dataclass("Holder", [("held", annotation)])
    table = TypedDict("table", {"held": annotation})
    inside = DataError if meaning is DataError else meaning
    found = outcome(holder, {"held": data})
    assert (found if found is DataError else found.held) == inside
    found = outcome(table, {"held": data})
    assert (found if found is DataError else found["held"]) == inside
    assert outcome(list[holder], [{"held": data}]) == (DataError if meaning is DataError else [holder(meaning)])


# Where the two differ on purpose: pydantic converts text to numbers, hostkit's own converters don't.
SAME_IN_PYDANTIC = [
    row
    for row in PLAIN
    if row[:2] not in [(int, True), (Literal[1], True), (Literal[True], 1)]
    and row[0] not in (Any, Literal[Color.RED], typing.AbstractSet[int])
    and row[1:] != (True, DataError)
]


@pytest.mark.parametrize(
    ("annotation", "data", "meaning"), SAME_IN_PYDANTIC, ids=[str(number) for number in range(len(SAME_IN_PYDANTIC))]
)
def test_data_means_the_same_in_a_pydantic_model(annotation, data, meaning):
    if sys.version_info < (3, 12) and "Title" in str(annotation) + "Loose Wider Tree":
        pytest.importorskip("typing_extensions")
    try:
        model = pydantic.create_model("Model", held=(annotation, ...))
    except pydantic.PydanticUserError as error:
        pytest.skip(f"pydantic takes no typing.TypedDict before Python 3.12: {error.code}")
    found = outcome(model, {"held": data})
    assert (found if found is DataError else found.held) == meaning


MAY_BE_ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-10, 10)
    | st.floats(-5, 5)
    | st.sampled_from(["", "x", "1", "red", "2024-01-02", "text"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "street", "value", "next", "1"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(MAY_BE_ANYTHING)
def test_every_annotation_takes_any_data_or_refuses_it_with_a_data_error(data):
    for annotation in {str(row[0]): row[0] for row in PLAIN}.values():
        codec = codec_for(annotation)
        try:
            value = codec.decode(dump_json(data))
        except DataError:
            continue
        again = codec.encode(value)
        assert codec.decode(again) == value


@pytest.mark.parametrize(
    ("annotation", "data", "expected"),
    [
        (int, "x", [("", "a whole number", "'x'")]),
        (Address, {"street": "a", "nmber": 2}, [("nmber", "a known field (did you mean 'number'?)", "2")]),
        (Address, {"street": "a", "zip": 2}, [("zip", "a known field (street, number)", "2")]),
        (Address, {}, [("street", "this field", "nothing")]),
        (Address, 5, [("", "an object with street, number", "5")]),
        (
            Person,
            {"name": 5, "address": {"street": None, "nummer": 1}, "others": [{"street": "s"}, {"street": 1}]},
            [
                ("name", "text", "5"),
                ("address.street", "text", "None"),
                ("address.nummer", "a known field (did you mean 'number'?)", "1"),
                ("others.1.street", "text", "1"),
            ],
        ),
        (dict[str, list[tuple[int, str]]], {"a": [[1, "x"], [1, 2]]}, [("a.1.1", "text", "2")]),
        (dict[int, int], {"one": 1}, [("one", "a whole number as key", "'one'")]),
        (Optional[Address], {"street": 1}, [("street", "text", "1")]),
        (Union[int, str, None], [], [("", "int or str or null", "[]")]),
        (Color, "green", [("", "one of 'red', 'blue'", "'green'")]),
        (Literal["a", 1], 2, [("", "one of 'a', 1", "2")]),
        (tuple[int, int], [1], [("", "a list of 2", "[1]")]),
        (set[Any], [[1]], [("", "a list of parts that a set can hold", "[[1]]")]),
        (dt.date, "x", [("", "the text of a date", "'x'")]),
        (Title, {"text": "a", "siez": 1}, [("siez", "a known field (did you mean 'size'?)", "1")]),
    ],
    ids=[str(number) for number in range(16)],
)
def test_an_error_says_where_what_was_expected_and_what_was_found(annotation, data, expected):
    assert refused(annotation, data) == expected


def test_many_wrong_fields_are_told_up_to_a_number():
    assert len(refused(Address, {f"key{number}": number for number in range(1000)})) == 20
    wide = dataclasses.make_dataclass("Wide", [(f"field{number}", int) for number in range(500)])
    assert len(refused(wide, {})) == 20
    assert len(refused(wide, {"nothing alike": 1})[0][1]) < 400


def test_a_path_is_clipped_where_keys_are_long():
    [(path, _, _)] = refused(dict[str, dict[str, int]], {"a" * 10_000: {"b" * 10_000: "x"}})
    assert len(path) < 400


@pytest.mark.parametrize("depth", [50, 400, 900, 20_000])
def test_a_type_that_holds_itself_takes_deep_data_or_refuses_it(depth):
    payload = b'{"value":1,"next":' * depth + b'{"value":2}' + b"}" * depth
    try:
        value = codec_for(Node).decode(payload)
    except DataError as error:
        assert "deep" in str(error)
        assert depth > 50
    else:
        for _ in range(depth):
            value = value.next
        assert value == Node(2)


def test_a_type_that_holds_itself_is_built_once():
    structure = Structure(Node)
    assert len(structure._built) == 1
    assert len(Structure(dict[str, list[Person]])._built) == 2


def test_two_classes_of_one_name_are_told_apart():
    def make(kind):
        return dataclasses.make_dataclass("Same", [("held", kind)])

    number, text = make(int), make(str)
    both = dataclasses.make_dataclass("Both", [("a", number), ("b", text)])
    assert outcome(both, {"a": {"held": 1}, "b": {"held": "x"}}) == both(number(1), text("x"))


def test_a_class_that_is_only_named_like_a_collection_is_none():
    for name in ("Mapping", "Sequence", "Set", "Enum", "dict", "Union", "Literal"):
        kind = type(name, (), {})
        with pytest.raises(TypeError, match="nothing that JSON data can be"):
            codec_for(kind)


def test_what_no_data_can_be_is_found_before_the_first_call():
    class Own:
        pass

    @dataclasses.dataclass
    class Needs:
        given: dataclasses.InitVar[int]
        kept: int

    for annotation in (
        Own,
        complex,
        bytes,
        type,
        object(),
        5,
        list[Own],
        dict[str, Own],
        Optional[Own],
        Literal[b"x"],
        collections.abc.Callable,
    ):
        with pytest.raises(TypeError):
            codec_for(annotation)
    with pytest.raises(TypeError, match="InitVar"):
        codec_for(Needs)
    for annotation in (dataclasses.make_dataclass("A", [("a", Own)]), TypedDict("B", {"a": Own})):
        with pytest.raises(TypeError, match="Own"):
            codec_for(annotation)


@dataclasses.dataclass
class Rectangle:
    kind: ClassVar[str] = "shape"
    width: float
    height: float
    area: float = dataclasses.field(init=False)
    scale: dataclasses.InitVar[float] = 1.0

    def __post_init__(self, scale):
        self.area = self.width * self.height * scale


def test_only_the_real_fields_of_a_dataclass_are_data():
    codec = codec_for(Rectangle)
    assert load_json(codec.encode(Rectangle(2, 3))) == {"width": 2, "height": 3, "area": 6}
    assert codec.decode(codec.encode(Rectangle(2, 3))) == Rectangle(2, 3)
    # What is computed is computed anew; what isn't a field isn't taken.
    assert codec.decode(b'{"width": 2, "height": 3, "area": 1000}').area == 6
    assert refused(Rectangle, {"width": 2, "height": 3, "kind": "x"})[0][0] == "kind"
    assert refused(Rectangle, {"width": 2, "height": 3, "scale": 5})[0][0] == "scale"


def test_frozen_slotted_keyword_only_and_inherited_dataclasses_work():
    @dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
    class Frozen:
        a: int
        b: str = "b"

    @dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
    class More(Frozen):
        c: float

    codec = codec_for(More)
    assert codec.decode(codec.encode(More(a=1, c=2.0))) == More(a=1, c=2.0)
    assert refused(More, {"a": 1})[0] == ("c", "this field", "nothing")


@dataclasses.dataclass
class Even:
    number: int

    def __post_init__(self):
        if self.number % 2:
            raise ValueError("an odd one")


def test_a_dataclass_that_refuses_values_is_a_data_error_with_its_words():
    assert refused(list[Even], [{"number": 2}, {"number": 3}]) == [("1", "what Even takes", "ValueError: an odd one")]


@dataclasses.dataclass
class Mixed:
    point: Point
    points: list[Point]
    title: Optional[Title] = None


class Point(BaseModel):
    x: float


def test_a_pydantic_model_inside_a_dataclass_is_validated_as_such():
    codec = codec_for(Mixed)
    value = Mixed(Point(x=1), [Point(x=2)], {"text": "t"})
    assert codec.decode(codec.encode(value)) == value
    assert [row[0] for row in refused(Mixed, {"point": {"x": "no"}, "points": [{"x": 1}, {"y": 1}]})] == [
        "point.x",
        "points.1.x",
        "points.1.y",
    ]


def test_an_answer_must_be_what_was_promised():
    codec = codec_for(Address)
    assert codec.encode(Address("a")) == b'{"street":"a","number":1}'
    assert codec.encode({"street": "a"}) == b'{"street":"a"}'
    for answer in (Address(5), {"street": 5}, None, "a", Point(x=1), [Address("a")]):
        with pytest.raises(DataError):
            codec.encode(answer)
    assert codec_for(dict[int, str]).encode({1: "a"}) == b'{"1":"a"}'
    with pytest.raises(DataError):
        codec_for(dict[int, str]).encode({"one": "a"})
    assert codec_for(set[int]).decode(codec_for(set[int]).encode({1, 2})) == {1, 2}
    assert codec_for(tuple[int, str]).encode((1, "a")) == b'[1,"a"]'


MODULE_WITH_TEXT = """
    from __future__ import annotations
    import dataclasses
    import datetime as dt
    from typing import Annotated, NotRequired, Optional, TypedDict

    @dataclasses.dataclass
    class Base:
        when: dt.date

    @dataclasses.dataclass
    class Inner(Base):
        parent: Optional[Outer] = None
        some: "list[Outer]" = dataclasses.field(default_factory=list)

    @dataclasses.dataclass
    class Outer:
        inner: Inner | None = None
        table: dict[str, Table] = dataclasses.field(default_factory=dict)

    class Table(TypedDict):
        outer: NotRequired[Outer]
        rest: Annotated[list["Outer"], "words"]
"""
MODULE_WITH_SOME_TEXT = """
    import dataclasses
    from typing import List, Optional

    @dataclasses.dataclass
    class Inner:
        parent: Optional["Outer"] = None
        some: List["Outer"] = dataclasses.field(default_factory=list)
        more: list["Outer"] = dataclasses.field(default_factory=list)

    @dataclasses.dataclass
    class Outer:
        inner: "Inner" = None
"""


def module(name, source):
    made = types.ModuleType(name)
    sys.modules[name] = made
    exec(textwrap.dedent(source), made.__dict__)
    return made


def test_annotations_that_are_kept_as_text_are_looked_up(monkeypatch):
    monkeypatch.setitem(sys.modules, "with_text", None)
    made = module("with_text", MODULE_WITH_TEXT)
    assert outcome(made.Inner, {"when": "2024-01-02"}).when == dt.date(2024, 1, 2)
    assert refused(made.Inner, {"when": "2024-01-02", "parent": {"inner": {"when": "x"}}})[0][0] == "parent.inner.when"
    assert refused(made.Inner, {"when": "2024-01-02", "some": [{"x": 1}]})[0][0] == "some.0.x"
    assert refused(made.Outer, {"table": {"a": {"rest": [{"x": 1}]}}})[0][0] == "table.a.rest.0.x"
    assert refused(made.Outer, {"table": {"a": {}}})[0] == ("table.a.rest", "this field", "nothing")


def test_names_in_quotes_within_other_annotations_are_looked_up(monkeypatch):
    monkeypatch.setitem(sys.modules, "with_some_text", None)
    made = module("with_some_text", MODULE_WITH_SOME_TEXT)
    for data, path in (
        ({"parent": {"x": 1}}, "parent.x"),
        ({"some": [{"x": 1}]}, "some.0.x"),
        ({"more": [{"x": 1}]}, "more.0.x"),
        ({"more": [{"inner": {"x": 1}}]}, "more.0.inner.x"),
    ):
        assert refused(made.Inner, data)[0][0] == path


def test_a_name_that_nobody_knows_is_said_when_the_codec_is_made(monkeypatch):
    monkeypatch.setitem(sys.modules, "unknown_name", None)
    made = module("unknown_name", "import dataclasses\n@dataclasses.dataclass\nclass A:\n    a: 'list[Nowhere]'\n")
    with pytest.raises(NameError, match="Nowhere"):
        codec_for(made.A)
    made = module("unknown_name", "import dataclasses\n@dataclasses.dataclass\nclass A:\n    a: 'this is no Python'\n")
    with pytest.raises(NameError, match="SyntaxError"):
        codec_for(made.A)


def test_a_local_class_may_name_itself():
    @dataclasses.dataclass
    class Local:
        inner: Optional[Local] = None

    assert outcome(Local, {"inner": {"inner": None}}) == Local(Local())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the type statement came with Python 3.12")
def test_a_named_type_that_holds_itself_works(monkeypatch):
    monkeypatch.setitem(sys.modules, "with_type", None)
    made = module("with_type", "type Json = dict[str, Json] | list[Json] | int\n")
    assert outcome(made.Json, {"a": [1, {"b": 2}]}) == {"a": [1, {"b": 2}]}
    assert outcome(made.Json, {"a": ["x"]}) is DataError


def test_no_annotation_takes_anything_and_none_inside_another_is_null():
    assert outcome(None, {"a": 1}) == {"a": 1}
    assert outcome(dict[str, None], {"a": None}) == {"a": None}
    assert outcome(dict[str, None], {"a": 1}) is DataError


def test_generic_types_without_their_arguments_take_anything():
    T = TypeVar("T")
    assert outcome(T, {"a": 1}) == {"a": 1}
    assert outcome(list[T], ["x", 1]) == ["x", 1]


def test_whoever_reads_answers_lets_unknown_fields_pass_at_every_depth():
    codec = codec_for(Person, tolerant=True)
    assert codec.decode(b'{"name": "n", "address": {"street": "s", "x": 1}, "y": 2}') == Person("n", Address("s"))
    codec = codec_for(Mixed, tolerant=True)
    assert codec.decode(b'{"point": {"x": 1, "y": 2}, "points": []}') == Mixed(Point(x=1), [])


def test_a_dataclass_may_carry_pydantics_configuration():
    @dataclasses.dataclass
    class Configured:
        __pydantic_config__ = ConfigDict(extra="ignore")
        a: int

    assert outcome(RootModel[Configured], {"a": 1, "b": 2}).root == Configured(1)


@dataclasses.dataclass
class Left:
    child: Left | Right | None = None
    left: int = 0


@dataclasses.dataclass
class Right:
    child: Left | Right | None = None
    right: int = 0


@pytest.mark.parametrize("levels", [1, 2, 60])
def test_a_choice_within_a_choice_takes_no_longer_with_each_level(levels):
    # Each level tries both classes; looked at anew for each, sixty levels would take longer than there are seconds.
    right = {"right": 1}
    for level in range(levels):
        right = {"child": right, "left" if level % 2 else "right": level}
    found = Structure(Left | Right).convert(right)
    for level in reversed(range(levels)):
        assert (type(found), found.left if level % 2 else found.right) == (Left if level % 2 else Right, level)
        found = found.child
    assert found == Right(None, 1)

    wrong: object = 3
    for _ in range(levels):
        wrong = {"child": wrong}
    with pytest.raises(DataError):
        Structure(Left | Right).convert(wrong)
