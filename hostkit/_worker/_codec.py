"""Between JSON bytes and the types a plugin or a caller names; the same code in host and worker, so both modes agree.

pydantic is used where an annotation is pydantic's (then its module is loaded already); everything else goes through the
standard library.
"""

from __future__ import annotations

from ._annotations import is_missing
from ._buffers import current, resolved
from ._data import too_deep
from ._json import dump_json, load_json, model_json
from ._models import ModelCodec, is_pydantic
from ._schema import refuse_without_buffers
from ._structure import Structure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Codec(Protocol):
        """Both directions between bytes and one type."""

        # The class whose instances pass by reference in-process; None for plain data, which is always copied.
        type: type | None
        # Whether its values can hold buffers that go beside the JSON; None where only each value tells.
        carries: bool | None

        def decode(self, payload: bytes) -> Any:  # Any: an instance of the annotation
            """Return what ``payload`` means as this type. Raises ``DataError``."""
            ...

        def encode(self, value: object, *, round_trip: bool = False) -> bytes:
            """Return ``value`` as JSON. Raises ``DataError`` where it is no data or not of this type."""
            ...


def codec_for(annotation: object, *, tolerant: bool = False) -> Codec:
    """Return the codec for an annotation; one that says nothing takes any JSON data.

    ``tolerant`` lets unknown fields pass where no model says otherwise, as a reader of answers should. Raises ``TypeError``
    where the annotation is nothing that data can be, and ``NameError`` where a name in it is unknown.
    """
    if is_missing(annotation):
        return PlainCodec()
    if is_pydantic(annotation):
        return ModelCodec(annotation, tolerant=tolerant)
    return _StructureCodec(annotation, tolerant=tolerant)


class PlainCodec:
    """Any JSON data, as it is."""

    type: type | None = None
    carries: bool | None = None

    def decode(self, payload: bytes) -> Any:
        value = load_json(payload)
        if current() is None:
            return value
        try:
            return resolved(value)
        except RecursionError:
            raise too_deep() from None

    def encode(self, value: object, *, round_trip: bool = False) -> bytes:
        if hasattr(type(value), "__pydantic_serializer__"):
            refuse_without_buffers(value)
            return model_json(value, round_trip=round_trip)
        return dump_json(value, round_trip=round_trip)


class _StructureCodec:
    """A dataclass, a TypedDict or any other annotation of the standard library."""

    def __init__(self, annotation: Any, *, tolerant: bool) -> None:
        self._structure = Structure(annotation, tolerant=tolerant)
        self.type = annotation if isinstance(annotation, type) and hasattr(annotation, "__dataclass_fields__") else None
        self.carries: bool | None = self._structure.carries or None

    def decode(self, payload: bytes) -> Any:
        try:
            return self._structure.convert(load_json(payload))
        except RecursionError:
            raise too_deep() from None

    def encode(self, value: object, *, round_trip: bool = False) -> bytes:
        payload = dump_json(value, round_trip=True)
        self.decode(payload)
        # What models in it compute is for those who take the data as it comes.
        return dump_json(value) if self._structure.has_models and not round_trip else payload
