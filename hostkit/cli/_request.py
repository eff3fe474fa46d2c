"""From the words of a command line, or from stdin, to a request: JSON data, checked before anything is started."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from .._shape import UNTYPED
from .._worker._data import DataError, found


def read_request(words: Sequence[str], limit: int) -> Any:  # Any: JSON data
    """Return the request that is one JSON text, key=value pairs, or ``-`` for JSON on stdin; ``{}`` where there is none.

    ``limit`` is the most bytes of JSON that the plugin is sent. Raises ``DataError``.
    """
    request = _from_stdin(limit) if list(words) == ["-"] else _from_words(words)
    size = len(UNTYPED.encode(request))
    if size > limit:
        raise _too_long(limit, f"{size} bytes")
    return request


def load(text: str) -> Any:
    """Parse strict JSON: no NaN, no key twice, nothing that the interpreter can't hold. Raises ``DataError``."""
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError:
        raise DataError("", "JSON that is not nested so deep", "data nested beyond the interpreter's limit") from None
    except json.JSONDecodeError as error:
        raise DataError("", "valid JSON", f"{error.msg} (line {error.lineno}, column {error.colno})") from None
    except ValueError as error:  # a number of thousands of digits
        raise DataError("", "numbers below 1e308", str(error)) from None


def _from_stdin(limit: int) -> Any:
    if sys.stdin is None:
        raise DataError("", "JSON on stdin", "no stdin: it is closed")
    data = bytearray()
    # Piece by piece: a Ctrl-C that comes between two reads of one long read() would wait for the next byte.
    read = getattr(sys.stdin.buffer, "read1", sys.stdin.buffer.read)
    while piece := read(_PIECE):
        data += piece
        if len(data) > limit:
            raise _too_long(limit, "more on stdin")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError("", "UTF-8 text on stdin", str(error)) from None
    if not text.strip():
        raise DataError("", "JSON on stdin", "nothing")
    return load(text)


_PIECE = 1 << 20


def _from_words(words: Sequence[str]) -> Any:
    if len(words) == 1 and (words[0].lstrip()[:1] in _JSON_BEGINS or "=" not in words[0]):
        return _one_text(words[0])
    request: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not key or not equals:
            raise DataError("", "key=value pairs, or one JSON text in quotes", found(word))
        if key in request:
            raise DataError(key, "each key once", "it twice")
        request[key] = _value(key, text)
    return request


_JSON_BEGINS = ("{", "[", '"')


def _one_text(text: str) -> Any:
    try:
        return load(text)
    except DataError as error:
        if error.rows[0]["expected"] == "valid JSON" and text.lstrip()[:1] not in _JSON_BEGINS:
            raise DataError("", "JSON, key=value pairs, or - for stdin", found(text)) from None
        raise


def _value(key: str, text: str) -> Any:
    if _NOT_A_NUMBER.fullmatch(text):
        raise DataError(key, f"a finite number, or '{key}=\"{text}\"' for the text", text)
    try:
        return load(text)
    except DataError as error:
        row = error.rows[0]
        if row["expected"] == "valid JSON":
            return text
        raise DataError(f"{key}.{row['path']}" if row["path"] else key, row["expected"], row["found"]) from None


_NOT_A_NUMBER = re.compile(r"-?(NaN|Infinity)")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    request = dict(pairs)
    if len(request) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DataError(twice, "each key once", "it twice")
    return request


def _no_constant(name: str) -> Any:
    raise DataError("", "finite numbers", name)


def _too_long(limit: int, seen: str) -> DataError:
    return DataError("", f"at most {limit} bytes of JSON (max_message_mb)", seen)
