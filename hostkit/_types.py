"""``Blob`` and ``Array``: annotations for data that doesn't go through JSON.

Standard library only until something is validated: plugin authors import them in every worker.
"""

from __future__ import annotations

from ._worker import _arena, _buffers
from ._worker._data import DataError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar, Union

    import numpy as np
    from typing_extensions import TypeAlias

    Number = TypeVar("Number", bound="np.generic")
    Blob: TypeAlias = Union[bytes, bytearray, memoryview]
    Array: TypeAlias = "np.ndarray[Any, np.dtype[Number]]"
else:

    class Blob:
        """Bytes of any size, in a request, an answer, a stream's item, or a hook's argument or result.

        Takes bytes, bytearrays, memoryviews and whatever else has a flat buffer. What arrives is read-only and bytes-like: the
        ``bytes`` object itself in-process, a ``memoryview`` from another process. In plain JSON it is base64 text.

        A view of what a worker answered can still be written by that worker: take ``bytes(view)`` before its value decides
        something.
        """

        def __new__(cls, *_: object, **__: object) -> Any:
            raise TypeError("Blob is an annotation; give it bytes, a bytearray or a memoryview, or make one by empty_blob(size)")

        @staticmethod
        def __hostkit_convert__(value: object) -> Any:
            return _buffers.blob_of_json(value)

        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
            return _core_schema(_of_blob, _blob_out)

        @classmethod
        def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> Any:
            return {"type": "string", "contentEncoding": "base64"}

    class Array:
        """A numpy array of numbers: ``Array``, ``Array["float32"]``, or ``Array["uint8", 3]`` with the number of dimensions.

        Needs the extra ``hostkit[numpy]``. Elements are booleans, integers, floats or complex numbers, in either byte order; another
        element type or number of dimensions than the annotation says is an error, never converted. What arrives is read-only, in
        every mode: ``array.copy()`` before writing. In plain JSON it is nested lists.

        A view of what a worker answered can still be written by that worker: copy it before its values decide something.
        """

        _dtype: str | None = None
        _ndim: int | None = None

        def __new__(cls, *_: object, **__: object) -> Any:
            raise TypeError("Array is an annotation; give it a numpy array, or make one by empty_array(shape, dtype)")

        def __class_getitem__(cls, asked: Any) -> type[Array]:
            dtype, ndim = asked if isinstance(asked, tuple) and len(asked) == 2 else (asked, None)
            return _array_of(dtype, ndim)

        @classmethod
        def __hostkit_convert__(cls, value: object) -> Any:
            return _buffers.array_of_json(value, cls._dtype, cls._ndim)

        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
            from ._worker import _arrays  # noqa: F401 - without numpy it is said here, before the first call

            kind = _ArrayKind(cls._dtype, cls._ndim)
            return _core_schema(kind.taken, kind.out)

        @classmethod
        def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> Any:
            return {"type": "array"}


def _array_of(dtype: Any, ndim: Any) -> Any:
    from ._worker import _arrays

    if ndim is not None and (type(ndim) is not int or not 0 <= ndim <= 32):
        raise TypeError(f"Array[{dtype!r}, {ndim!r}]: expected a number of dimensions, 0 to 32")
    if getattr(dtype, "__name__", "") == "Any":
        return Array
    name = _arrays.dtype_name(dtype)
    words = f"Array[{name}]" if ndim is None else f"Array[{name}, {ndim}]"
    if words not in globals():
        members = {"_dtype": name, "_ndim": ndim, "__module__": __name__, "__doc__": Array.__doc__}
        globals()[words] = type(words, (Array,), members)
    return globals()[words]


def __getattr__(name: str) -> Any:
    """Make an array's annotation by its name, which is how one is pickled."""
    if not name.startswith("Array["):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    dtype, _, ndim = name[len("Array[") : -1].partition(", ")
    return _array_of(dtype, int(ndim) if ndim else None)


# A model's schema holds what follows, and a class of a script or a notebook is pickled with its schema: so these have names.


class _ArrayKind:
    """What an annotation says of an array."""

    def __init__(self, dtype: str | None, ndim: int | None) -> None:
        self.dtype = dtype
        self.ndim = ndim

    def taken(self, value: Any, info: Any) -> Any:
        from ._worker import _arrays

        if info.mode == "json":
            return _told(_buffers.array_of_json, value, self.dtype, self.ndim)
        return _arrays.read_only(_told(_arrays.checked, value, self.dtype, self.ndim))

    def out(self, value: Any) -> Any:
        from ._worker import _arrays

        array = _arrays.checked(value, self.dtype, self.ndim)
        return array.tolist() if _buffers.current() is None else _buffers.placeholder(array)


def _of_blob(value: Any, info: Any) -> Any:
    return _told(_buffers.blob_of_json if info.mode == "json" else _buffers.blob, value)


def _blob_out(value: Any) -> Any:
    return _buffers.base64_of(value) if _buffers.current() is None else _buffers.placeholder(_buffers.blob(value))


def _told(take: Any, *arguments: Any) -> Any:
    try:
        return take(*arguments)
    except DataError as error:
        from pydantic_core import PydanticCustomError

        raise PydanticCustomError("hostkit", "{expected}", error.rows[0]) from None


def _core_schema(taken: Any, out: Any) -> Any:
    from pydantic_core import core_schema

    return core_schema.with_info_plain_validator_function(
        taken,
        serialization=core_schema.plain_serializer_function_ser_schema(out, when_used="json"),
        metadata={"hostkit_carries": True},
    )


def empty_blob(size: int) -> memoryview:
    """Return new writable memory for a Blob of ``size`` bytes; its content is undefined.

    In a worker it lies where the host can see it, so answering with the whole of it copies nothing.
    """
    place = _arena.memory(size)
    return memoryview(bytearray(size)) if place is None else place


def empty_array(shape: Any, dtype: Any = "float64") -> Any:  # Any: a numpy array
    """Return a new writable numpy array; its content is undefined.

    In a worker it lies where the host can see it, so answering with the whole of it copies nothing.
    """
    from ._worker import _arrays

    return _arrays.empty(shape, dtype, _arena.memory)
