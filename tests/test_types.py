"""``Blob`` and ``Array`` as annotations: what they take, what arrives, and what they cost nobody else."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Any, Optional, TypedDict

import pytest
from pydantic import BaseModel, ValidationError

from hostkit import Array, Blob, empty_array, empty_blob
from hostkit._worker._buffers import Buffers, Forged, read, written
from hostkit._worker._codec import codec_for
from hostkit._worker._data import DataError

SANDBOX = "standard"

numpy = pytest.importorskip("numpy")


class Picture(BaseModel):
    title: str
    pixels: Array[numpy.uint8, 3]
    thumbnail: Optional[Blob] = None
    layers: list[Blob] = []
    named: dict[str, Array] = {}


@dataclass
class Sound:
    name: str
    samples: Blob
    parts: list[Blob]


class Table(TypedDict):
    columns: dict[str, Array[numpy.float64]]


class Plain(BaseModel):
    a: int


PIXELS = numpy.arange(24, dtype="uint8").reshape(2, 4, 3)


def crossed(annotation: Any, value: Any, to: Any = None) -> Any:
    """Write a value by one annotation and read it by the same, or another."""
    payload, parts = written(codec_for(annotation), value, round_trip=True)
    return read(codec_for(to or annotation, tolerant=True).decode, payload, parts)


def test_a_model_with_pictures_and_bytes_arrives_as_it_was() -> None:
    sent = Picture(title="x", pixels=PIXELS, thumbnail=b"abc", layers=[b"1", b"", bytearray(b"22")], named={"m": numpy.eye(3)})
    got = crossed(Picture, sent)
    assert got.title == "x"
    assert (got.pixels == PIXELS).all()
    assert got.pixels.dtype == "uint8"
    assert got.thumbnail == b"abc"
    assert [bytes(layer) for layer in got.layers] == [b"1", b"", b"22"]
    assert (got.named["m"] == numpy.eye(3)).all()


def test_a_dataclass_and_a_typed_dict_hold_them_too() -> None:
    got = crossed(Sound, Sound("a", b"12", [memoryview(b"3"), b"4"]))
    assert (got.name, bytes(got.samples), [bytes(part) for part in got.parts]) == ("a", b"12", [b"3", b"4"])
    assert crossed(Table, {"columns": {"a": numpy.ones(3)}})["columns"]["a"].tolist() == [1.0, 1.0, 1.0]
    assert bytes(crossed(list[Blob], [b"x"])[0]) == b"x"
    assert bytes(crossed(Blob, b"x")) == b"x"


def test_plain_data_may_hold_bytes_and_arrays() -> None:
    got = crossed(None, {"a": [b"x", {"b": numpy.arange(3)}], "c": 1})
    assert bytes(got["a"][0]) == b"x"
    assert got["a"][1]["b"].tolist() == [0, 1, 2]
    assert got["c"] == 1
    assert bytes(crossed(dict[str, Any], {"a": b"x"})["a"]) == b"x"


def test_plain_data_is_read_by_a_plugin_with_types_and_the_other_way_round() -> None:
    got = crossed(None, {"title": "t", "pixels": PIXELS, "thumbnail": b"1"}, to=Picture)
    assert (got.pixels == PIXELS).all()
    plain = crossed(Picture, Picture(title="t", pixels=PIXELS), to=dict)
    assert plain["title"] == "t"
    assert (plain["pixels"] == PIXELS).all()
    untyped = crossed(None, Picture(title="t", pixels=PIXELS), to=Picture)
    assert (untyped.pixels == PIXELS).all()


def test_what_is_in_a_message_twice_crosses_once() -> None:
    shared = bytes(1000)
    _, parts = written(codec_for(list[Blob]), [shared, shared])
    assert len(parts) == 1


def test_a_bytes_object_stays_the_very_object_in_a_model_and_others_become_read_only() -> None:
    data = b"abc"
    assert Picture(title="", pixels=PIXELS, thumbnail=data).thumbnail is data
    room = bytearray(b"abc")
    view = Picture(title="", pixels=PIXELS, thumbnail=room).thumbnail
    assert isinstance(view, memoryview)
    assert view.readonly
    room[0] = 0
    assert view[0] == 0, "it is the same memory"


def test_an_array_in_a_model_is_the_same_memory_and_read_only_in_every_mode() -> None:
    own = PIXELS.copy()
    model = Picture(title="", pixels=own)
    assert numpy.shares_memory(model.pixels, own)
    for array in (model.pixels, crossed(Picture, model).pixels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    own[0] = 1


@pytest.mark.parametrize(
    "array",
    [
        numpy.zeros((0, 3)),
        numpy.array(5.0),
        numpy.arange(12).reshape(3, 4).T,
        numpy.arange(12)[::3],
        numpy.arange(4, dtype=">i2"),
        numpy.array([True, False]),
        numpy.array([1j, 2], dtype="complex64"),
        numpy.arange(3, dtype="float16"),
    ],
    ids=["empty", "one number", "turned", "with gaps", "big endian", "booleans", "complex", "halves"],
)
def test_arrays_of_every_layout_arrive_as_they_were(array: Any) -> None:
    got = crossed(Array, array)
    assert got.dtype == array.dtype
    assert got.shape == array.shape
    assert (got == array).all()


def test_memory_in_other_layouts_is_a_blob_where_it_has_no_gaps() -> None:
    assert bytes(crossed(Blob, memoryview(b"abcd").cast("H"))) == b"abcd"
    with pytest.raises(DataError, match="bytes without gaps"):
        crossed(Blob, memoryview(b"abcd")[::2])


@pytest.mark.parametrize(
    "array",
    [
        numpy.array([object()]),
        numpy.array(["text"]),
        numpy.zeros(2, dtype=[("a", "i4"), ("b", "O")]),
        numpy.zeros(2, dtype=[("a", "i4")]),
        numpy.array(["2020-01-01"], dtype="datetime64[D]"),
        numpy.ma.masked_array([1, 2], mask=[0, 1]),
    ],
    ids=["objects", "text", "structure with objects", "structure", "dates", "masked"],
)
def test_arrays_that_are_no_plain_numbers_are_refused(array: Any) -> None:
    with pytest.raises(DataError, match="an array"):
        crossed(Array, array)
    with pytest.raises(DataError, match="an array"):
        crossed(None, {"a": array})
    with pytest.raises(ValidationError, match="an array"):
        Picture(title="", pixels=PIXELS, named={"a": array})


def test_another_element_type_or_number_of_dimensions_is_said_in_words() -> None:
    for wrong in (PIXELS.astype("int64"), PIXELS[0]):
        with pytest.raises(DataError) as caught:
            crossed(None, {"title": "", "pixels": wrong}, to=Picture)
        (row,) = caught.value.rows
        assert row["path"] == "pixels"
        assert row["expected"] == "a numpy array of uint8 in 3 dimensions"
        assert row["found"] == f"an array of {wrong.dtype} in {wrong.ndim} dimensions"
    with pytest.raises(DataError, match="a numpy array of float64"):
        crossed(None, {"columns": {"a": numpy.arange(3)}}, to=Table)


def test_what_is_no_bytes_is_said_in_words() -> None:
    with pytest.raises(DataError) as caught:
        crossed(None, {"title": "", "pixels": PIXELS, "thumbnail": 5}, to=Picture)
    assert caught.value.rows == [{"path": "thumbnail", "expected": "bytes, a bytearray or a memoryview", "found": "5"}]


def test_a_field_that_was_assigned_something_else_is_noticed_when_it_is_written() -> None:
    picture = Picture(title="", pixels=PIXELS)
    picture.pixels = "no array"
    with pytest.raises(DataError):
        written(codec_for(Picture), picture)


def test_plain_json_has_base64_and_nested_lists() -> None:
    small = Picture(title="", pixels=PIXELS, thumbnail=b"\xff\x00")
    text = small.model_dump_json()
    assert '"thumbnail":"/wA="' in text
    again = Picture.model_validate_json(text)
    assert again.thumbnail == b"\xff\x00"
    assert (again.pixels == PIXELS).all()
    assert codec_for(Sound).decode(b'{"name":"a","samples":"/wA=","parts":[]}').samples == b"\xff\x00"
    with pytest.raises(DataError, match="base64"):
        codec_for(Blob).decode(b'"not base64"')
    with pytest.raises(DataError, match="a numpy array"):
        codec_for(Array).decode(b"[[1],[2,3]]")
    assert Picture.model_json_schema()["properties"]["pixels"]["type"] == "array"


@pytest.mark.parametrize(
    "placeholder",
    [
        '{"$blob":1}',
        '{"$blob":-1}',
        '{"$blob":true}',
        '{"$blob":"0"}',
        '{"$array":[0,"|O",[1]]}',
        '{"$array":[0,"O",[8]]}',
        '{"$array":[0,"<f4",[3]]}',
        '{"$array":[0,"<f4",[-2,-1]]}',
        '{"$array":[0,"<f4",[1e0]]}',
        '{"$array":[0,"<f4",2]}',
        '{"$array":[0,"<V8",[1]]}',
        '{"$array":[0,"|u1",[4611686018427387904,4]]}',
        '{"$array":[0,["<f4"],[2]]}',
        '{"$array":[9,"<f4",[2]]}',
        '{"$array":0}',
    ],
)
def test_a_placeholder_that_no_honest_side_writes_is_a_forgery(placeholder: str) -> None:
    for annotation, text in [
        (None, placeholder),
        (Blob, placeholder),
        (Array, placeholder),
        (dict[str, Any], f'{{"a":{placeholder}}}'),
    ]:
        if (annotation, "$blob" in placeholder) in [(Blob, False), (Array, True)]:
            continue
        with pytest.raises(Forged):
            read(codec_for(annotation).decode, text.encode(), [memoryview(b"12345678")])
    with pytest.raises(Forged):
        text = (
            f'{{"title":"","pixels":[[[1]]],"layers":[{placeholder}]}}'
            if "$blob" in placeholder
            else f'{{"title":"","pixels":{placeholder}}}'
        )
        read(codec_for(Picture).decode, text.encode(), [memoryview(b"12345678")])


def test_keys_that_look_like_placeholders_are_data_where_there_are_no_buffers() -> None:
    data = {"$blob": 0, "x": {"$array": [1]}}
    assert crossed(None, data) == data
    with pytest.raises(DataError, match="no keys"):
        written(codec_for(None), {"a": b"x", "b": {"$blob": 0}})
    assert crossed(None, {"a": b"x", "b": '{"$blob":0}'})["b"] == '{"$blob":0}'


def test_only_annotations_that_can_hold_buffers_are_written_with_care() -> None:
    assert codec_for(Plain).carries is False
    assert codec_for(Picture).carries is True
    assert codec_for(Sound).carries is True
    assert codec_for(list[Picture]).carries is True
    assert codec_for(int).carries is None
    assert written(codec_for(Plain), Plain(a=1)) == (b'{"a":1}', [])
    with pytest.raises(DataError):
        codec_for(None).encode({"a": b"1"})


def test_nobody_writes_or_reads_buffers_of_a_message_that_is_over() -> None:
    with pytest.raises(DataError):
        written(codec_for(None), {"a": b"1", "b": object()})
    with pytest.raises(DataError):
        codec_for(None).encode({"a": b"1"})
    with Buffers() as outer:
        with Buffers([memoryview(b"x")]):
            assert bytes(codec_for(Blob).decode(b'{"$blob":0}')) == b"x"
        assert outer.parts == []


def test_annotations_make_no_instances_and_say_what_to_give() -> None:
    with pytest.raises(TypeError, match="give it bytes"):
        Blob(b"x")
    with pytest.raises(TypeError, match="empty_array"):
        Array([1])
    for wrong in ("O", "text", "M8[s]", "U5"):
        with pytest.raises(TypeError, match="Array"):
            Array[wrong]
    with pytest.raises(TypeError, match="dimensions"):
        Array["uint8", -1]
    assert Array["float32"] is Array[numpy.float32]


def test_memory_in_the_host_is_ordinary_memory() -> None:
    assert empty_array((3, 2), "int16").shape == (3, 2)
    assert empty_array(5).dtype == "float64"
    blob = empty_blob(10)
    blob[:] = b"0123456789"
    assert bytes(blob) == b"0123456789"


def test_importing_them_loads_the_standard_library_alone() -> None:
    code = (
        "import sys; from hostkit import Array, Blob; "
        "print(sorted({'numpy', 'pydantic', 'pydantic_core', 'typing_extensions'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
