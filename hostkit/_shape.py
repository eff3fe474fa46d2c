"""What a caller's types make of one call: how the request becomes bytes and bytes become the answer."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

from ._worker._codec import PlainCodec, codec_for
from ._worker._data import DataError, too_deep


class Shape:
    """The types of a caller: none for plain JSON data, or a request and a response type. Immutable, thread-safe."""

    __slots__ = ("_decode", "_encode", "request_type", "response_type", "typed")

    def __init__(self, request: Any = None, response: Any = None) -> None:  # Any: annotations of every kind
        self.typed = request is not None or response is not None
        self.request_type = request if isinstance(request, type) else None
        self.response_type = response if isinstance(response, type) and response not in _DATA else None
        self._encode = PlainCodec().encode if request is None else codec_for(request).encode
        self._decode = _plain if response is None else codec_for(response, tolerant=True).decode

    def encode(self, request: object) -> bytes:
        """Return the request as JSON. Raises ``DataError``."""
        return self._encode(request, round_trip=True)

    def decode(self, payload: bytes) -> Any:  # Any: an instance of the caller's response type, or JSON data
        """Return the answer. Raises ``DataError``."""
        return self._decode(payload)


_DATA = (dict, list, tuple, set, str, int, float, bool, object)


def _plain(payload: bytes) -> Any:
    try:
        return from_json(payload, allow_inf_nan=False)
    except ValueError as error:
        raise too_deep() if "recursion" in str(error) else DataError("", "valid JSON", str(error)) from None


UNTYPED = Shape()
