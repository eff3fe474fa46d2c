"""What the plugin is asked and what it answers."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, model_validator

from ._secret import Secret, veiled

LONGEST_USER_ID = 255


def _user_id(text: str) -> str:
    name = unicodedata.normalize("NFC", text)
    if not 1 <= len(name) <= LONGEST_USER_ID or not name.isprintable() or name != name.strip():
        raise ValueError(f"should be 1 to {LONGEST_USER_ID} printable characters, without spaces around them")
    return name


UserId = Annotated[str, AfterValidator(_user_id)]
# The upper limits keep what a stranger may have hashed or parsed small.
Password = Annotated[Secret, Field(min_length=1, max_length=1024)]
Token = Annotated[Secret, Field(min_length=1, max_length=8192)]


class AuthRequest(BaseModel):
    """One question; a password goes before a token. Immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    user_id: UserId
    action: Literal["register", "authenticate"] = "authenticate"
    password: Password | None = None
    token: Token | None = None

    @model_validator(mode="after")
    def _has_proof(self) -> AuthRequest:
        if self.action == "register" and self.password is None:
            raise ValueError("should have a password to register with")
        if self.password is None and self.token is None:
            raise ValueError("should have a password or a token")
        return self

    # The last validator is the outermost: no error, of _has_proof neither, quotes anything but what passed through here.
    @model_validator(mode="wrap")
    @classmethod
    def _veil(cls, data: Any, handler: ModelWrapValidatorHandler[AuthRequest]) -> AuthRequest:
        return handler(veiled(data, shown={"user_id", "action"}))


class AuthResponse(BaseModel):
    """The answer: ``token`` where a password was right, ``error`` where ``valid`` is false. Immutable."""

    model_config = ConfigDict(frozen=True)

    valid: bool
    user_id: str
    token: Secret | None = None
    metadata: dict[str, str] = {}
    error: str | None = None
