"""Issue tokens and read them back: JWTs signed with HS256 and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import jwt

_ALGORITHM = "HS256"
_ACCOUNT = "account"
_SHAPE = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Token:
    """A token of one account; from ``expires`` on, in seconds since the epoch, it holds no longer."""

    text: str = field(repr=False)
    account_id: str
    expires: int

    @property
    def end(self) -> str:
        """When it expires, as ISO 8601 in UTC."""
        return datetime.fromtimestamp(self.expires, UTC).isoformat()


class InvalidToken(Exception):
    """The token proves nothing; the text says why, and quotes nothing of it."""


class Tokens:
    """Thread-safe."""

    def __init__(self, key: bytes, *, issuer: str, lifetime: int, clock: Callable[[], float]) -> None:
        self._key = key
        self._issuer = issuer
        self._lifetime = lifetime
        self._clock = clock

    def issue(self, user_id: str, account_id: str) -> Token:
        """Return a new token for a user's account."""
        now = int(self._clock())
        expires = now + self._lifetime
        claims = {"iss": self._issuer, "sub": user_id, _ACCOUNT: account_id, "iat": now, "exp": expires}
        return Token(jwt.encode(claims, self._key, _ALGORITHM), account_id, expires)

    def read(self, text: str, user_id: str) -> Token:
        """Return the token that ``text`` is, if it is this user's and holds now. Raises ``InvalidToken``."""
        claims = self._claims(text, user_id)
        if claims["exp"] <= self._clock():
            raise InvalidToken("its token has expired")
        return Token(text, claims[_ACCOUNT], claims["exp"])

    def _claims(self, text: str, user_id: str) -> dict[str, Any]:
        if not _SHAPE.fullmatch(text):
            raise InvalidToken("its token is no JWT")
        try:
            return jwt.decode(
                text,
                self._key,
                algorithms=[_ALGORITHM],
                issuer=self._issuer,
                subject=user_id,
                # PyJWT would compare times with the system's clock.
                options={"require": ["iss", "sub", _ACCOUNT, "iat", "exp"], "verify_exp": False, "verify_iat": False},
            )
        except jwt.InvalidTokenError as error:
            raise InvalidToken(f"its token: {type(error).__name__}") from None
