"""numpy's arrays as buffers and back; the only module that imports numpy."""

from __future__ import annotations

try:
    import numpy as np
except ImportError as error:
    raise ImportError("hostkit.Array needs numpy: pip install 'hostkit[numpy]'") from error

from ._buffers import DTYPES
from ._data import DataError, found

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def plain(value: Any) -> Any:
    """Return an array whose elements can cross. Raises ``DataError``."""
    if isinstance(value, np.ma.MaskedArray):
        raise DataError("", "an array without a mask", "a masked array, whose mask would be lost")
    array = np.asarray(value)
    if array.dtype.str not in DTYPES:
        raise DataError("", "an array of booleans, integers, floats or complex numbers", f"an array of {found(array.dtype)}")
    return array


def flat(array: Any) -> Any:
    """Return an array's bytes as a flat view, or the array itself where they don't lie in order."""
    if array.nbytes == 0:
        return memoryview(b"")
    return memoryview(array.reshape(-1).view("u1")) if array.flags.c_contiguous else array


def fill(target: memoryview, array: Any) -> None:
    """Copy an array in whatever layout into flat bytes."""
    np.frombuffer(target, dtype=array.dtype).reshape(array.shape)[...] = array


def of_part(part: Any, dtype: str, shape: tuple[int, ...]) -> Any:
    """Return a read-only array over a buffer."""
    if isinstance(part, np.ndarray):  # in-process, in another layout
        part = part.tobytes()
    array = np.empty(shape, dtype) if 0 in shape else np.frombuffer(part, dtype=dtype).reshape(shape)
    array.flags.writeable = False
    return array


def of_lists(value: list[Any], dtype: str | None) -> Any:
    """Return nested lists of numbers as an array. Raises ``DataError``."""
    try:
        array = np.array(value, dtype=dtype)
    except (TypeError, ValueError, OverflowError):
        raise DataError("", wanted(dtype, None), found(value)) from None
    return plain(array)


def lists_of(array: Any) -> Any:
    """Return an array as nested lists: complex numbers as pairs, and null for what JSON has no number for."""
    if array.dtype.kind == "c":
        array = np.stack([array.real, array.imag], axis=-1)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        array = np.where(np.isfinite(array), array.astype(object), None)
    return array.tolist()


def read_only(value: Any) -> Any:
    """Return an array as a read-only view of the same memory."""
    if not value.flags.writeable:
        return value
    view = value.view()
    view.flags.writeable = False
    return view


def checked(value: Any, dtype: str | None, ndim: int | None) -> Any:
    """Return an array if it is what an annotation says. Raises ``DataError``."""
    if not isinstance(value, np.ndarray):
        raise DataError("", wanted(dtype, ndim), found(value))
    array = plain(value)
    if (dtype is not None and array.dtype.newbyteorder("=") != np.dtype(dtype)) or (ndim is not None and array.ndim != ndim):
        raise DataError("", wanted(dtype, ndim), f"an array of {array.dtype.name} in {array.ndim} dimensions")
    return array


def wanted(dtype: str | None, ndim: int | None) -> str:
    """Say what an annotation asks for."""
    kind = "a numpy array" if dtype is None else f"a numpy array of {dtype}"
    return kind if ndim is None else f"{kind} in {ndim} dimensions"


def dtype_name(dtype: Any) -> str:
    """Return the name of an element type that can cross. Raises ``TypeError``."""
    try:
        known = np.dtype(dtype)
    except TypeError as error:
        raise TypeError(f"Array[{dtype!r}]: {error}") from None
    if known.str not in DTYPES:
        raise TypeError(f"Array[{dtype!r}]: expected booleans, integers, floats or complex numbers, found {known}")
    return str(known.name)


def empty(shape: Any, dtype: Any, memory: Any) -> Any:
    """Return a new array, in ``memory(bytes)`` where that gives some."""
    known = np.dtype(dtype_name(dtype))
    dimensions = tuple(shape) if hasattr(shape, "__iter__") else (shape,)
    size = known.itemsize
    for length in dimensions:
        size *= length
    place = memory(size) if size else None
    return np.empty(dimensions, known) if place is None else np.frombuffer(place, known).reshape(dimensions)
