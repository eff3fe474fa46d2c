"""Text that no repr, log line or error message shows; JSON alone reveals it, because that is how it crosses."""

from __future__ import annotations

from collections.abc import Container
from typing import Annotated, Any

from pydantic import BaseModel, PlainSerializer, SecretStr

RevealedInJson = PlainSerializer(SecretStr.get_secret_value, return_type=str, when_used="json")
Secret = Annotated[SecretStr, RevealedInJson]


def veiled(data: Any, *, shown: Container[str]) -> Any:  # Any: whatever somebody gave a model to validate
    """Return a model's input so that an error, which quotes it, shows only the fields in ``shown``.

    Unknown keys are veiled too: ``pasword`` holds a password.
    """
    if isinstance(data, BaseModel):
        return data
    if not isinstance(data, dict):
        return _veil(data)
    return {key: value if key in shown else _veil(value) for key, value in data.items()}


class _Veiled(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return "'**********'"


def _veil(value: object) -> object:
    if isinstance(value, str):
        return _Veiled(value)
    # Numbers and lists are never right here, and their class is all that the error needs to say.
    return value if value is None or isinstance(value, SecretStr) else type(value)
