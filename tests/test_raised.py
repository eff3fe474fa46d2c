"""Data of an error, from whomever it comes, becomes an error of hostkit's own."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from hostkit import CallCancelled, CallError, InvalidRequest, InvalidResponse, PluginFailed, PluginLoadError, RetryableError
from hostkit._raised import call_error, load_error, show_remote
from hostkit._shape import UNTYPED, Shape
from hostkit._worker._data import DataError
from hostkit._worker._failure import describe
from hostkit._worker._loop import failure_of

SANDBOX = "standard"

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = (
    "phase",
    "rows",
    "type",
    "message",
    "traceback",
    "cancelled",
    "retryable",
    "memory",
    "kind",
    "text",
    "path",
    "expected",
    "found",
)


def raised(error):
    try:
        raise error
    except BaseException as caught:
        return caught


@given(st.dictionaries(st.sampled_from(FIELDS), ANY_JSON))
def test_whatever_a_worker_says_becomes_a_typed_error_of_text(said):
    error = call_error(said, plugin="p", request_id="r")
    assert isinstance(error, CallError)
    assert (error.plugin, error.request_id) == ("p", "r")
    assert error.phase in {"request", "execute", "response", "health", "info", "close"}
    str(error).encode("utf-8")
    for row in getattr(error, "errors", []):
        assert set(row) == {"path", "expected", "found"}
        assert all(type(text) is str for text in row.values())
    failed = load_error(said, plugin="p")
    assert isinstance(failed, PluginLoadError)
    for text in (str(failed), failed.kind, failed.remote_type, failed.remote_traceback):
        text.encode("utf-8")


def test_what_a_plugin_raised_is_told_as_text_and_data():
    error = call_error(failure_of(raised(RetryableError("later"))), plugin="p", request_id="r")
    assert type(error) is PluginFailed
    assert str(error) == "plugin 'p' raised hostkit._errors.RetryableError: later"
    assert error.retryable
    assert error.remote_message == "later"
    assert "raise error" in error.remote_traceback
    assert not call_error(failure_of(raised(ValueError())), plugin="p", request_id="r").retryable


def test_a_call_that_was_given_up_is_cancelled():
    error = call_error(failure_of(CallCancelled("the caller left")), plugin="p", request_id="r")
    assert type(error) is CallCancelled
    assert "the caller left" in str(error)


@pytest.mark.parametrize(
    ("phase", "kind"), [("request", InvalidRequest), ("response", InvalidResponse), ("execute", InvalidResponse)]
)
def test_rows_are_an_invalid_request_or_response(phase, kind):
    rows = [{"path": "a.b", "expected": "text", "found": "5"}, {"path": "", "expected": "x", "found": "y", "more": 1}, "no row", 5]
    error = call_error({"phase": phase, "rows": rows}, plugin="p", request_id="r")
    assert type(error) is kind
    assert "a.b: expected text, found 5; expected x, found y" in str(error)
    assert len(error.errors) == 2


def test_the_phase_of_a_question_is_told():
    error = call_error({**describe(ValueError("x")), "phase": "health"}, plugin="p", request_id="")
    assert str(error) == "plugin 'p' raised ValueError in health: x"
    assert error.phase == "health"


def test_an_endless_story_of_a_worker_is_cut():
    long = "x" * 10_000_000
    said = {"type": long, "message": long, "traceback": long}
    error = call_error(said, plugin="p", request_id="r")
    assert len(str(error)) + len(error.remote_traceback) < 300_000
    rows = [{"path": long, "expected": long, "found": long}] * 1000
    assert len(str(call_error({"rows": rows}, plugin="p", request_id="r"))) < 2_000_000
    assert len(str(load_error({"text": long, "traceback": long}, plugin="p"))) < 300_000


def test_an_error_that_nobody_catches_shows_the_plugins_traceback():
    error = call_error(failure_of(raised(ValueError("x"))), plugin="p", request_id="r")
    show_remote(error)
    assert "--- in the plugin ---\nTraceback" in error.__notes__[0]
    silent = call_error({}, plugin="p", request_id="r")
    show_remote(silent)
    assert not hasattr(silent, "__notes__")


def test_load_errors_say_what_went_wrong_in_a_word_and_a_sentence():
    error = load_error({**describe(ValueError("x")), "kind": "import", "text": "importing m raised ValueError: x"}, plugin="p")
    assert str(error) == "plugin 'p' can't be loaded: importing m raised ValueError: x"
    assert (error.plugin, error.kind, error.remote_type) == ("p", "import", "ValueError")


# What a caller's types make of a call.


class Point(BaseModel):
    x: float


def test_without_types_data_goes_and_comes_as_it_is():
    value = {"a": [1, 2.5, None, "é", True]}
    assert not UNTYPED.typed
    assert UNTYPED.decode(UNTYPED.encode(value)) == value
    assert UNTYPED.encode(Point(x=1)) == b'{"x":1.0}'


def test_with_types_the_answer_is_one_of_them():
    shape = Shape(Point, Point)
    assert shape.typed
    assert shape.response_type is Point
    assert shape.decode(shape.encode(Point(x=2))) == Point(x=2)
    assert shape.decode(b'{"x": 1, "newer": 2}') == Point(x=1)
    with pytest.raises(DataError):
        shape.decode(b'{"y": 1}')
    with pytest.raises(DataError):
        shape.encode({"y": 1})
    half = Shape(None, list[Point])
    assert half.typed
    assert half.response_type is None
    assert half.decode(b'[{"x": 1}]') == [Point(x=1)]


@pytest.mark.parametrize("kind", [dict, list, str, int, object])
def test_plain_data_never_passes_by_reference(kind):
    assert Shape(None, kind).response_type is None


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"NaN", b"[Infinity]", b"-Infinity", b'"\\ud800"', b"\xff", b"[" * 100_000 + b"]" * 100_000, b"9" * 5000]
)
def test_an_answer_that_is_no_json_is_a_data_error(payload):
    for shape in (UNTYPED, Shape(None, dict), Shape(None, Point)):
        with pytest.raises(DataError):
            shape.decode(payload)


def test_text_full_of_digits_is_a_request_like_any_other():
    for text in ("x" + "1" * 400, "1" * 400, " " + "9" * 5000):
        assert UNTYPED.decode(UNTYPED.encode({"id": text})) == {"id": text}
    with pytest.raises(DataError, match="below 1.8e308"):
        UNTYPED.encode({"id": 10**400})
    with pytest.raises(DataError, match="below 1.8e308"):
        Shape(Point, Point).encode({"x": 10**400})


@given(ANY_JSON)
def test_any_answer_is_an_answer_or_a_data_error(value):
    payload = json.dumps(value).encode()
    for shape in (UNTYPED, Shape(None, Point), Shape(None, dict[str, int])):
        try:
            shape.decode(payload)
        except DataError:
            pass
