"""Hash passwords and compare them, with the same work whether there is an account or not."""

from __future__ import annotations

import secrets
import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from pydantic import SecretStr


class Passwords:
    """Thread-safe."""

    def __init__(self, hasher: PasswordHasher) -> None:
        self._hasher = hasher
        self._nobodys = hasher.hash(secrets.token_bytes(32))

    def hash(self, password: str) -> SecretStr:
        """Return what to store of a password."""
        return SecretStr(self._hasher.hash(_as_bytes(password)))

    def matches(self, password: str, stored: SecretStr | None) -> bool:
        """Whether ``stored`` was made of ``password``; None, for no account, takes as long as any other."""
        compared = self._nobodys if stored is None else stored.get_secret_value()
        try:
            self._hasher.verify(compared, _as_bytes(password))
        except VerifyMismatchError:
            return False
        return stored is not None

    def is_outdated(self, stored: SecretStr) -> bool:
        """Whether ``stored`` was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(stored.get_secret_value())


def _as_bytes(password: str) -> bytes:
    # Keyboards differ in how they write é; NIST SP 800-63B asks for one form before hashing.
    return unicodedata.normalize("NFKC", password).encode()
