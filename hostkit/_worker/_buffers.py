"""What travels beside the JSON of one message: its raw buffers, and the placeholders that stand for them in the JSON.

    {"$blob": 0}                                   the bytes of buffer 0
    {"$array": [1, "<f4", [480, 640]]}             buffer 1 as an array

A message is written and read by one thread at a time, which holds its ``Buffers`` meanwhile: so annotations, pydantic's models and
plain data all find them without being handed them.
"""

from __future__ import annotations

import sys
from _thread import _local

from ._data import DataError, found
from ._frames import FrameError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Protocol

    class Writing(Protocol):
        """A codec, as far as writing goes. ``carries`` says whether its values can hold buffers; None where only each value tells."""

        @property
        def carries(self) -> bool | None:
            """As said above."""
            ...

        def encode(self, value: object, *, round_trip: bool = False) -> bytes:
            """Return ``value`` as JSON. Raises ``DataError``."""
            ...


BLOB, ARRAY = "$blob", "$array"
_KEYS = (b'"$blob":', b'"$array":')
_BYTES = "bytes, a bytearray or a memoryview"

# Element types that are plain numbers, whatever the process: an object's would be pointers, a structure's may hide some.
DTYPES = frozenset(
    [
        "|b1",
        "|i1",
        "|u1",
        *(order + kind for order in "<>" for kind in ("i2", "i4", "i8", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")),
    ]
)
_MOST_DIMENSIONS = 32


class Forged(FrameError):
    """A placeholder that no honest side writes."""


class Buffers:
    """The raw buffers of one message, as a context in which this thread writes or reads it."""

    __slots__ = ("_before", "_numbers", "_written", "forged", "parts")

    def __init__(self, parts: Iterable[Any] = ()) -> None:  # Any: memoryviews of bytes; while writing also arrays in other layouts
        self.parts = list(parts)
        self.forged = ""
        self._numbers: dict[int, tuple[object, int]] = {}
        self._written = 0

    def __enter__(self) -> Any:
        self._before = current()
        _here.buffers = self
        return self

    def __exit__(self, *_: object) -> None:
        _here.buffers = self._before

    def add(self, value: object, flat: Callable[[], Any]) -> int:
        """Return the number of a value's buffer; a value that is in the message twice has one."""
        self._written += 1
        known = self._numbers.get(id(value))
        if known is None:
            # The value is kept, so that its id stays its own.
            known = self._numbers[id(value)] = value, len(self.parts)
            self.parts.append(flat())
        return known[1]

    def part(self, number: object) -> Any:
        """Return a buffer that a placeholder names. Raises ``DataError``."""
        if type(number) is not int or not 0 <= number < len(self.parts):
            raise self.bad(f"buffer {found(number)} of {len(self.parts)}")
        return self.parts[number]

    def bad(self, why: str) -> DataError:
        """Note a forgery and return the error to raise."""
        self.forged = self.forged or f"a placeholder is wrong: {why}"
        return DataError("", "a buffer of this message", why)

    def check_keys(self, payload: bytes) -> None:
        """Refuse data whose own keys look like placeholders. Raises ``DataError``."""
        if sum(payload.count(key) for key in _KEYS) > self._written:
            raise DataError("", f"no keys {BLOB} or {ARRAY} in data with buffers", "such a key")


_here: Any = _local()


def current() -> Buffers | None:
    """Return the buffers of the message that this thread is writing or reading."""
    return getattr(_here, "buffers", None)


def written(codec: Writing, value: object, *, round_trip: bool = False) -> tuple[bytes, list[Any]]:
    """Return a value as JSON and its buffers. Raises ``DataError``."""
    if not codec.carries:
        try:
            return codec.encode(value, round_trip=round_trip), []
        except DataError:
            if codec.carries is False:
                raise
    with Buffers() as buffers:
        payload = codec.encode(value, round_trip=round_trip)
        buffers.check_keys(payload)
    return payload, buffers.parts


def read(decode: Callable[[bytes], Any], payload: bytes, parts: Iterable[Any]) -> Any:
    """Return what JSON and its buffers mean. Raises ``DataError``, and ``Forged``."""
    with Buffers(parts) as buffers:
        try:
            return decode(payload)
        finally:
            if buffers.forged:
                raise Forged(buffers.forged)


def check_size(parts: Iterable[Any], most: int) -> None:
    """Refuse buffers that are larger than the operator allows, all together. Raises ``DataError``."""
    size = sum(part.nbytes for part in parts)
    if size > most:
        raise DataError("", f"at most {most} bytes of blobs and arrays (max_buffers_mb)", f"{size} bytes")


def is_big(value: object) -> bool:
    """Whether a value is bytes or an array, which have no place in JSON."""
    return isinstance(value, (bytes, bytearray, memoryview)) or _is_array(value)


def placeholder(value: Any) -> dict[str, Any]:
    """Return what stands in the JSON for bytes or an array, and put it beside. Raises ``DataError``."""
    buffers = current()
    assert buffers is not None
    if not _is_array(value):
        return {BLOB: buffers.add(value, lambda: flat_bytes(value))}
    from . import _arrays

    array = _arrays.plain(value)
    return {ARRAY: [buffers.add(value, lambda: _arrays.flat(array)), array.dtype.str, list(array.shape)]}


def flat_bytes(value: Any) -> memoryview:
    """Return anything bytes-like as a flat view. Raises ``DataError``."""
    try:
        view = memoryview(value)
    except (TypeError, ValueError):
        raise DataError("", _BYTES, found(value)) from None
    if view.nbytes == 0:
        return memoryview(b"")
    if not view.c_contiguous:
        raise DataError("", "bytes without gaps", f"a view with strides {view.strides}")
    return view.cast("B") if view.format != "B" or view.ndim != 1 else view


def blob(value: object) -> Any:
    """Return what an object is as a read-only blob, by reference. Raises ``DataError``."""
    if type(value) is bytes or (type(value) is memoryview and value.readonly and value.format == "B" and value.ndim == 1):
        return value
    return flat_bytes(value).toreadonly()


def blob_of_json(value: Any) -> Any:
    """Return the blob that a piece of JSON stands for: a placeholder's, or that of base64 text. Raises ``DataError``."""
    if type(value) is str:
        return _of_base64(value)
    if type(value) is dict and value.keys() == {BLOB}:
        buffers = current()
        if buffers is not None and buffers.parts:
            return _as_blob(buffers, value[BLOB])
    raise DataError("", _BYTES, found(value))


def _as_blob(buffers: Buffers, number: object) -> memoryview:
    part = buffers.part(number)
    return part.toreadonly() if type(part) is memoryview else flat_bytes(part.tobytes())


def _of_base64(text: str) -> bytes:
    import binascii

    try:
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True) if sys.version_info >= (3, 11) else _checked(text)
    except ValueError:
        raise DataError("", "bytes, as base64 where they are text", found(text)) from None


def _checked(text: str) -> bytes:
    import base64

    return base64.b64decode(text.encode("ascii"), validate=True)


def base64_of(value: Any) -> str:
    """Return a blob as the text that stands for it where there is nothing but JSON."""
    import binascii

    return binascii.b2a_base64(flat_bytes(value), newline=False).decode("ascii")


def as_json(value: Any) -> Any:
    """Return bytes as base64 text and an array as nested lists, for whoever prints them. Raises ``TypeError`` for anything else."""
    if not is_big(value):
        raise TypeError(f"{found(value)} is no JSON data")
    if not _is_array(value):
        return base64_of(value)
    from . import _arrays

    return _arrays.lists_of(value)


def array_of_json(value: Any, dtype: str | None, ndim: int | None) -> Any:
    """Return the array that a piece of JSON stands for: a placeholder's, or that of nested lists. Raises ``DataError``."""
    from . import _arrays

    if type(value) is list:
        return _arrays.checked(_arrays.of_lists(value, dtype), dtype, ndim)
    if type(value) is dict and value.keys() == {ARRAY}:
        buffers = current()
        if buffers is not None and buffers.parts:
            return _arrays.checked(_as_array(buffers, value[ARRAY]), dtype, ndim)
    raise DataError("", _arrays.wanted(dtype, ndim), found(value))


def _as_array(buffers: Buffers, said: Any) -> Any:
    from . import _arrays

    return _arrays.of_part(*_said(buffers, said))


def _said(buffers: Buffers, said: Any) -> tuple[Any, str, tuple[int, ...]]:
    """Return the part, dtype and shape of an array's placeholder, checked against each other."""
    if type(said) is not list or len(said) != 3:
        raise buffers.bad(f"an array of {found(said)}")
    part, dtype, shape = buffers.part(said[0]), said[1], said[2]
    if type(dtype) is not str or dtype not in DTYPES:
        raise buffers.bad(f"an array of type {found(dtype)}")
    if type(shape) is not list or len(shape) > _MOST_DIMENSIONS or not all(type(n) is int and 0 <= n < 1 << 62 for n in shape):
        raise buffers.bad(f"an array of shape {found(shape)}")
    size = int(dtype[2:])
    for length in shape:
        size *= length
    if size != part.nbytes:
        raise buffers.bad(f"an array of {size} bytes in a buffer of {part.nbytes}")
    return part, dtype, tuple(shape)


def resolved(value: Any) -> Any:
    """Return plain JSON data with the bytes and arrays that placeholders in it stand for; the data itself where it has none.

    Raises ``DataError`` and ``RecursionError``.
    """
    buffers = current()
    return value if buffers is None or not buffers.parts else _resolved(buffers, value)


def _resolved(buffers: Buffers, value: Any) -> Any:
    if type(value) is list:
        return [_resolved(buffers, part) for part in value]
    if type(value) is not dict:
        return value
    if len(value) == 1:
        if BLOB in value:
            return _as_blob(buffers, value[BLOB])
        if ARRAY in value:
            return _array_or_view(buffers, value[ARRAY])
    return {key: _resolved(buffers, part) for key, part in value.items()}


def _array_or_view(buffers: Buffers, said: Any) -> Any:
    part, dtype, shape = _said(buffers, said)
    try:
        from . import _arrays
    except ImportError:  # no numpy here, and nobody has asked for an array: the same numbers in the standard library's view
        return _as_view(part, dtype, shape)
    return _arrays.of_part(part, dtype, shape)


def _as_view(part: Any, dtype: str, shape: tuple[int, ...]) -> memoryview:
    code = _CODES.get(dtype[1:])
    native = dtype[0] == "|" or (dtype[0] == "<") is (sys.byteorder == "little")
    if code is None or not native or 0 in shape or not shape:
        return memoryview(part).toreadonly()
    view: Any = memoryview(part).toreadonly()  # typeshed wants to know the code
    numbers: memoryview = view.cast(code, shape)
    return numbers


_CODES = {"b1": "?", "i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "i8": "q", "u8": "Q", "f4": "f", "f8": "d"}


def _is_array(value: object) -> bool:
    # By the module that is there or isn't: nobody imports numpy to learn that a value is none of its arrays.
    numpy = sys.modules.get("numpy")
    ndarray = getattr(numpy, "ndarray", None)
    return ndarray is not None and isinstance(value, ndarray)
