"""What a caller's types make of one call: how the request becomes bytes and bytes become the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic_core import from_json

from ._worker._buffers import current, read, resolved, written
from ._worker._codec import PlainCodec, codec_for
from ._worker._data import DataError, too_deep


class Shape:
    """The types of a caller: none for plain JSON data, or a request and a response type. Immutable, thread-safe."""

    __slots__ = ("_codec", "_decode", "carries", "response_type", "typed")

    def __init__(self, request: Any = None, response: Any = None) -> None:  # Any: annotations of every kind
        self.typed = request is not None or response is not None
        self.response_type = response if isinstance(response, type) and response not in _DATA else None
        self._codec = PlainCodec() if request is None else codec_for(request)
        self.carries = False  # whether an answer can hold buffers, as far as its type tells
        self._decode = _plain
        if response is not None:
            codec = codec_for(response, tolerant=True)
            self._decode = codec.decode
            self.carries = bool(codec.carries)

    def encode(self, request: object) -> bytes:
        """Return the request as JSON. Raises ``DataError``."""
        return self._codec.encode(request, round_trip=True)

    def written(self, request: object) -> tuple[bytes, Sequence[Any]]:
        """Return the request as JSON and the buffers beside it. Raises ``DataError``."""
        codec = self._codec
        if codec.carries is False:
            return codec.encode(request, round_trip=True), ()
        return written(codec, request, round_trip=True)

    def decode(self, payload: bytes, buffers: Sequence[Any] = ()) -> Any:  # Any: an instance of the caller's type, or JSON data
        """Return the answer. Raises ``DataError``, and ``Forged`` for placeholders of buffers that can't be."""
        return read(self._decode, payload, buffers) if buffers else self._decode(payload)


_DATA = (dict, list, tuple, set, str, int, float, bool, object)


def _plain(payload: bytes) -> Any:
    try:
        value = from_json(payload, allow_inf_nan=False)
        return value if current() is None else resolved(value)
    except ValueError as error:
        raise too_deep() if "recursion" in str(error) else DataError("", "valid JSON", str(error)) from None


UNTYPED = Shape()
