"""Issue tokens and read them back: JWTs signed with HS256 and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import jwt

_ALGORITHM = "HS256"
_SHAPE = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Validity:
    """Seconds since the epoch; a token no longer holds at ``expires``."""

    issued: int
    expires: int

    def __str__(self) -> str:
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

    def issue(self, user_id: str) -> tuple[str, Validity]:
        """Return a token for a user, and how long it holds."""
        issued = int(self._clock())
        validity = Validity(issued, issued + self._lifetime)
        claims = {"iss": self._issuer, "sub": user_id, "iat": validity.issued, "exp": validity.expires}
        return jwt.encode(claims, self._key, _ALGORITHM), validity

    def read(self, token: str, user_id: str) -> Validity:
        """Return how long a token of this user holds. Raises ``InvalidToken``."""
        if not _SHAPE.fullmatch(token):
            raise InvalidToken("it is no JWT")
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[_ALGORITHM],
                issuer=self._issuer,
                subject=user_id,
                # PyJWT would ask the system's clock.
                options={"require": ["iss", "sub", "iat", "exp"], "verify_exp": False, "verify_iat": False},
            )
        except jwt.InvalidTokenError as error:
            raise InvalidToken(type(error).__name__) from None
        validity = Validity(claims["iat"], claims["exp"])
        if validity.expires <= self._clock():
            raise InvalidToken("it has expired")
        return validity
