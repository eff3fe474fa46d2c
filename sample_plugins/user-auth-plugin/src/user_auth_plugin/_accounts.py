"""The accounts in their database: embedded SQLite, or PostgreSQL. Each transaction is one statement."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from uuid import uuid4

from pydantic import SecretStr
from sqlalchemy import (
    URL,
    Column,
    Connection,
    Dialect,
    Engine,
    MetaData,
    String,
    Table,
    TypeDecorator,
    create_engine,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.pool import StaticPool

from hostkit import RetryableError

from ._messages import LONGEST_USER_ID


class _Hidden(TypeDecorator[SecretStr]):
    """Text that SQLAlchemy's log of result rows doesn't show; hide_parameters leaves rows out."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: SecretStr | None, dialect: Dialect) -> str | None:
        return None if value is None else value.get_secret_value()

    def process_result_value(self, value: str | None, dialect: Dialect) -> SecretStr | None:
        return None if value is None else SecretStr(value)


_METADATA = MetaData()
_ACCOUNTS = Table(
    "user_auth_accounts",
    _METADATA,
    Column("user_id", String(LONGEST_USER_ID), primary_key=True),
    Column("id", String(32), nullable=False),
    Column("password_hash", _Hidden(255), nullable=False),
)


@dataclass(frozen=True, slots=True)
class Account:
    """One user; ``id`` tells two accounts apart that had the same ``user_id`` one after the other."""

    user_id: str
    id: str
    password_hash: SecretStr


class Accounts:
    """Thread-safe. Close it."""

    def __init__(self, url: URL) -> None:
        self._engine = _engine(url)
        # Guards the one connection of a database in memory: two threads in it at once end the process with SIGSEGV.
        self._turn = threading.Lock() if isinstance(self._engine.pool, StaticPool) else nullcontext()
        try:
            self._create_table()
        except BaseException:
            self.close()
            raise

    @property
    def database(self) -> str:
        """The kind of database: sqlite or postgresql."""
        return self._engine.dialect.name

    def add(self, user_id: str, password_hash: SecretStr) -> Account | None:
        """Store and return a new account, or None where the user id is taken."""
        account = Account(user_id, uuid4().hex, password_hash)
        try:
            with self._transaction() as connection:
                connection.execute(insert(_ACCOUNTS).values(asdict(account)))
        except IntegrityError:
            return None
        return account

    def find(self, user_id: str) -> Account | None:
        """Return a user's account. Raises ``RetryableError`` where the database doesn't answer."""
        try:
            with self._transaction() as connection:
                row = connection.execute(select(_ACCOUNTS).where(_ACCOUNTS.c.user_id == user_id)).one_or_none()
        except OperationalError as error:
            raise RetryableError("the database of the accounts doesn't answer") from error
        return None if row is None else Account(*row)

    def replace_hash(self, account: Account, password_hash: SecretStr) -> None:
        """Store another hash of the same password, unless somebody was faster."""
        same = (_ACCOUNTS.c.user_id == account.user_id) & (_ACCOUNTS.c.password_hash == account.password_hash)
        with self._transaction() as connection:
            connection.execute(update(_ACCOUNTS).where(same).values(password_hash=password_hash))

    def check(self) -> None:
        """Raise SQLAlchemy's error where the accounts can't be read."""
        with self._transaction() as connection:
            connection.execute(select(literal(1)).select_from(_ACCOUNTS).limit(1))

    def close(self) -> None:
        """Close every connection."""
        with self._turn:
            self._engine.dispose()

    def _create_table(self) -> None:
        try:
            self._create_missing()
        except DBAPIError:
            # Another worker may have created it between the look and the creation: then it is there now.
            self._create_missing()

    def _create_missing(self) -> None:
        with self._transaction() as connection:
            _METADATA.create_all(connection)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._turn, self._engine.begin() as connection:
            yield connection


def _engine(url: URL) -> Engine:
    # Errors and SQLAlchemy's log would otherwise quote password hashes.
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        return create_engine(url, hide_parameters=True, poolclass=StaticPool, connect_args={"check_same_thread": False})
    try:
        return create_engine(url, hide_parameters=True, pool_pre_ping=True)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{url.drivername} needs {error.name}: pip install 'user-auth-plugin[postgresql]'", name=error.name
        ) from error
