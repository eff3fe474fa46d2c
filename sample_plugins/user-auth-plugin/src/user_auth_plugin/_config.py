"""What the operator decides."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, SecretStr, model_validator
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from ._secret import veiled

_DRIVERS = ("sqlite", "postgresql+psycopg")
_SECRET_BYTES = 32  # RFC 7518, 3.2: a key for HS256 is as long as its hash, or longer


def _database_url(value: SecretStr) -> SecretStr:
    try:
        driver = make_url(value.get_secret_value()).drivername
    except (ArgumentError, ValueError):  # a port that is no number is a ValueError, and is quoted in it
        raise ValueError(_A_DATABASE) from None
    if driver not in _DRIVERS:
        raise ValueError(f"{_A_DATABASE}, found one that begins with {driver}")
    return value


_A_DATABASE = "should be a database's URL like sqlite:////folder/users.db or postgresql+psycopg://user@host/name"


def _signing_secret(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value().encode()) < _SECRET_BYTES:
        raise ValueError(f"should have at least {_SECRET_BYTES} bytes")
    return value


class AuthConfig(BaseModel):
    """The operator's table. Immutable; ``token_lifetime`` in seconds.

    The argon2 defaults are RFC 9106's for little memory; the lower limits are OWASP's smallest memory, and argon2's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    database_url: Annotated[SecretStr, AfterValidator(_database_url)] = SecretStr("sqlite://")
    secret: Annotated[SecretStr, AfterValidator(_signing_secret)] | None = None
    issuer: Annotated[str, Field(min_length=1, max_length=255)] = "user-auth"
    token_lifetime: Annotated[int, Field(ge=1, le=366 * 86400)] = 24 * 3600
    min_password_length: Annotated[int, Field(ge=1, le=1024)] = 8
    argon2_time_cost: Annotated[int, Field(ge=1, le=1000)] = 3
    argon2_memory_kib: Annotated[int, Field(ge=7168, le=1 << 22)] = 65536
    argon2_parallelism: Annotated[int, Field(ge=1, le=64)] = 4

    @model_validator(mode="wrap")
    @classmethod
    def _veil(cls, data: Any, handler: ModelWrapValidatorHandler[AuthConfig]) -> AuthConfig:
        return handler(veiled(data, shown=cls.model_fields.keys() - {"database_url", "secret"}))

    @property
    def database(self) -> URL:
        """Where the accounts are."""
        return make_url(self.database_url.get_secret_value())
