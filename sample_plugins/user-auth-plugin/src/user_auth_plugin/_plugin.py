"""The plugin: one question in, one answer out."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable

from argon2 import PasswordHasher
from pydantic import SecretStr
from sqlalchemy.exc import SQLAlchemyError

from hostkit import ExecutionContext, HealthStatus, Plugin, Status

from ._accounts import Account, Accounts
from ._config import AuthConfig
from ._messages import AuthRequest, AuthResponse
from ._passwords import Passwords
from ._tokens import InvalidToken, Token, Tokens


class UserAuth(Plugin[AuthRequest, AuthResponse]):
    """Registers users, and authenticates them by password or token. Thread-safe."""

    def __init__(self, config: AuthConfig, *, clock: Callable[[], float] = time.time) -> None:
        self._started = time.monotonic()
        self._min_password_length = config.min_password_length
        self._passwords = Passwords(_hasher(config))
        self._tokens = Tokens(_key(config), issuer=config.issuer, lifetime=config.token_lifetime, clock=clock)
        self._lock = threading.Lock()  # guards the two below
        self._served = 0
        self._closed = False
        self._accounts = Accounts(config.database)

    def execute(self, ctx: ExecutionContext, request: AuthRequest) -> AuthResponse:
        self._count()
        ctx.raise_if_cancelled()
        if request.password is not None:
            answer = self._register if request.action == "register" else self._by_password
            return answer(ctx, request.user_id, request.password.get_secret_value())
        if request.token is not None and request.action == "authenticate":
            return self._by_token(ctx, request.user_id, request.token.get_secret_value())
        raise ValueError("the request has neither a password nor a token")  # an AuthRequest made past its validation

    def health(self) -> HealthStatus:
        if self._closed:
            return HealthStatus(Status.OFFLINE, "closed", metadata=self._vitals())
        try:
            self._accounts.check()
        except SQLAlchemyError as error:
            why = {"database_error": str(getattr(error, "orig", error))}
            return HealthStatus(Status.UNHEALTHY, "the database doesn't answer", metadata=self._vitals() | why)
        return HealthStatus(Status.HEALTHY, "the database answers", metadata=self._vitals())

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self._accounts.close()

    def _register(self, ctx: ExecutionContext, user_id: str, password: str) -> AuthResponse:
        if len(password) < self._min_password_length:
            return _refusal(ctx, user_id, f"the password has fewer than {self._min_password_length} characters")
        account = self._accounts.add(user_id, self._passwords.hash(password))
        if account is None:
            return _refusal(ctx, user_id, "the user id is taken")
        ctx.logger.info("user %s registered", user_id)
        return self._welcome(account)

    def _by_password(self, ctx: ExecutionContext, user_id: str, password: str) -> AuthResponse:
        account = self._accounts.find(user_id)
        matches = self._passwords.matches(password, None if account is None else account.password_hash)
        if account is None or not matches:
            return _refusal(ctx, user_id, "wrong user id or password")
        if self._passwords.is_outdated(account.password_hash):
            self._accounts.replace_hash(account, self._passwords.hash(password))
        ctx.logger.info("user %s authenticated by password", user_id)
        return self._welcome(account)

    def _by_token(self, ctx: ExecutionContext, user_id: str, text: str) -> AuthResponse:
        try:
            token = self._tokens.read(text, user_id)
        except InvalidToken as error:
            return _refusal(ctx, user_id, _NOT_ACCEPTED, why=str(error))
        account = self._accounts.find(user_id)
        if account is None or account.id != token.account_id:
            return _refusal(ctx, user_id, _NOT_ACCEPTED, why="its token's account is gone")
        ctx.logger.info("user %s authenticated by token", user_id)
        return AuthResponse(valid=True, user_id=user_id, metadata=_metadata("token", token))

    def _welcome(self, account: Account) -> AuthResponse:
        token = self._tokens.issue(account.user_id, account.id)
        metadata = _metadata("password", token)
        return AuthResponse(valid=True, user_id=account.user_id, token=SecretStr(token.text), metadata=metadata)

    def _count(self) -> None:
        with self._lock:
            if self._closed:
                raise RuntimeError("user-auth is closed")
            self._served += 1

    def _vitals(self) -> dict[str, object]:
        return {
            "uptime": round(time.monotonic() - self._started, 3),
            "requests_served": self._served,
            "database": self._accounts.database,
        }


_NOT_ACCEPTED = "the token is invalid or has expired"


def _refusal(ctx: ExecutionContext, user_id: str, error: str, *, why: str = "") -> AuthResponse:
    ctx.logger.warning("user %s refused: %s", user_id, why or error)
    return AuthResponse(valid=False, user_id=user_id, error=error)


def _metadata(method: str, token: Token) -> dict[str, str]:
    return {"method": method, "expires": token.end}


def _key(config: AuthConfig) -> bytes:
    return secrets.token_bytes(32) if config.secret is None else config.secret.get_secret_value().encode()


def _hasher(config: AuthConfig) -> PasswordHasher:
    return PasswordHasher(
        time_cost=config.argon2_time_cost,
        memory_cost=config.argon2_memory_kib,
        parallelism=config.argon2_parallelism,
    )
