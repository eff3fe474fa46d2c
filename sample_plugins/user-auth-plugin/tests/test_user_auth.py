"""The plugin class itself, without a host."""

from __future__ import annotations

import base64
import json
import logging
import os
import sqlite3
import threading
import tomllib
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from importlib import metadata, resources
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
import pytest
from argon2 import PasswordHasher
from pydantic import SecretStr, ValidationError
from sqlalchemy import create_engine, event, make_url, text
from sqlalchemy.exc import OperationalError
from user_auth_plugin import AuthConfig, AuthRequest, AuthResponse, UserAuth
from user_auth_plugin._accounts import _ACCOUNTS, Account, Accounts
from user_auth_plugin._passwords import Passwords

from hostkit import CallTimeout, ExecutionContext, Manifest, RetryableError, Status

PASSWORD = "correct horse battery"
SIGNING_SECRET = "a secret of 48 bytes, so that HS384 takes it too."
# The smallest memory that the configuration takes: these tests are about answers, not about cost.
CHEAP = {"argon2_time_cost": 1, "argon2_memory_kib": 7168, "argon2_parallelism": 1}

Start = Callable[..., UserAuth]


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def start(clock: Clock) -> Iterator[Start]:
    with ExitStack() as stack:

        def started(**config: object) -> UserAuth:
            return stack.enter_context(closing(UserAuth(AuthConfig.model_validate(CHEAP | config), clock=clock)))

        yield started


@pytest.fixture
def auth(start: Start) -> UserAuth:
    return start(secret=SIGNING_SECRET)


@pytest.fixture(params=["memory", "file", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "postgresql":
        yield from _postgresql_schema()
    else:
        yield "sqlite://" if request.param == "memory" else f"sqlite:///{tmp_path}/users.db"


@pytest.fixture(params=["file", "postgresql"])
def shared_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "postgresql":
        yield from _postgresql_schema()
    else:
        yield f"sqlite:///{tmp_path}/users.db"


def _postgresql_schema() -> Iterator[str]:
    given = os.environ.get("HOSTKIT_TEST_POSTGRESQL")
    if given is None:
        pytest.skip("HOSTKIT_TEST_POSTGRESQL names no database, like postgresql+psycopg://user@host/name")
    schema = f"user_auth_{uuid4().hex}"
    engine = create_engine(given)
    try:
        with engine.begin() as connection:
            connection.execute(text(f"CREATE SCHEMA {schema}"))
        own = make_url(given).update_query_dict({"options": f"-csearch_path={schema}"})
        yield own.render_as_string(hide_password=False)
        with engine.begin() as connection:
            connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    finally:
        engine.dispose()


def ask(auth: UserAuth, **fields: object) -> AuthResponse:
    return auth.execute(ExecutionContext("r-1"), AuthRequest.model_validate({"user_id": "alice"} | fields))


def register(auth: UserAuth, user_id: str = "alice", password: str = PASSWORD) -> str:
    return token_of(ask(auth, user_id=user_id, action="register", password=password))


def token_of(answer: AuthResponse) -> str:
    assert answer.valid
    assert answer.token is not None
    return answer.token.get_secret_value()


def forged(token: str, changes: dict[str, object], *, key: str = SIGNING_SECRET, algorithm: str = "HS256") -> str:
    claims = jwt.decode(token, options={"verify_signature": False}) | changes
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, key, algorithm)


# Passwords


def test_a_registered_user_authenticates_by_password(start: Start, database_url: str) -> None:
    auth = start(database_url=database_url)
    register(auth)
    answer = ask(auth, password=PASSWORD)
    assert (answer.valid, answer.user_id, answer.error) == (True, "alice", None)
    assert answer.metadata == {"method": "password", "expires": "2023-11-15T22:13:20+00:00"}
    assert token_of(answer)


def test_an_unknown_user_and_a_wrong_password_get_the_same_answer(auth: UserAuth) -> None:
    register(auth)
    wrong, unknown = ask(auth, password="wrong"), ask(auth, user_id="bob", password="wrong")
    assert wrong == AuthResponse(valid=False, user_id="alice", error="wrong user id or password")
    assert unknown == wrong.model_copy(update={"user_id": "bob"})


def test_an_unknown_user_costs_as_many_verifications_as_a_wrong_password() -> None:
    verified = []

    class Counting(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> Any:
            verified.append(self.check_needs_rehash(str(hash)))
            return super().verify(hash, password)

    passwords = Passwords(Counting(time_cost=1, memory_cost=7168, parallelism=1))
    stored = passwords.hash(PASSWORD)
    assert not passwords.matches("wrong", stored)
    assert not passwords.matches("wrong", None)
    assert verified == [False, False]


def test_a_password_is_the_same_however_a_keyboard_writes_its_letters(auth: UserAuth) -> None:
    register(auth, password="cafe\u0301 au lait")
    assert ask(auth, password="caf\u00e9 au lait").valid


def test_a_taken_user_id_is_refused_and_keeps_its_password(start: Start, database_url: str) -> None:
    auth = start(database_url=database_url)
    register(auth)
    assert ask(auth, action="register", password="another password").error == "the user id is taken"
    assert ask(auth, password=PASSWORD).valid
    assert not ask(auth, password="another password").valid


def test_two_spellings_of_one_user_id_are_one_user(auth: UserAuth) -> None:
    register(auth, "rene\u0301")
    assert not ask(auth, user_id="ren\u00e9", action="register", password=PASSWORD).valid
    assert ask(auth, user_id="ren\u00e9", password=PASSWORD).valid


def test_a_short_password_is_not_registered(start: Start) -> None:
    auth = start(min_password_length=12)
    answer = ask(auth, action="register", password="eleven char")
    assert (answer.valid, answer.error) == (False, "the password has fewer than 12 characters")
    assert not ask(auth, password="eleven char").valid


def test_a_hash_made_with_other_parameters_is_renewed_at_the_next_login(start: Start, tmp_path: Path) -> None:
    url, path = f"sqlite:///{tmp_path}/users.db", tmp_path / "users.db"
    register(start(database_url=url))
    before = _stored_hash(path)
    stronger = start(database_url=url, argon2_time_cost=2)
    assert not ask(stronger, password="wrong").valid
    assert _stored_hash(path) == before
    assert ask(stronger, password=PASSWORD).valid
    renewed = _stored_hash(path)
    assert "t=1" in before
    assert "t=2" in renewed
    assert ask(stronger, password=PASSWORD).valid
    assert _stored_hash(path) == renewed


def test_a_renewed_hash_does_not_replace_one_that_was_changed_meanwhile(database_url: str) -> None:
    with closing(Accounts(make_url(database_url))) as accounts:
        account = accounts.add("alice", SecretStr("first"))
        assert account is not None
        accounts.replace_hash(account, SecretStr("second"))
        accounts.replace_hash(account, SecretStr("third"))
        assert accounts.find("alice") == Account("alice", account.id, SecretStr("second"))


def _stored_hash(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        (stored,) = connection.execute("SELECT password_hash FROM user_auth_accounts").fetchone()
    return str(stored)


# Tokens


@pytest.mark.parametrize(("now", "end"), [(1_700_000_000, "2023-11-14T22:14:20"), (4_000_000_000, "2096-10-02T07:07:40")])
def test_a_token_authenticates_its_user_until_it_expires(start: Start, clock: Clock, now: float, end: str) -> None:
    clock.now = now
    auth = start(token_lifetime=60)
    token = register(auth)
    clock.now += 59.9
    good = AuthResponse(valid=True, user_id="alice", metadata={"method": "token", "expires": f"{end}+00:00"})
    assert ask(auth, token=token) == good
    clock.now += 0.1
    late = AuthResponse(valid=False, user_id="alice", error="the token is invalid or has expired")
    assert ask(auth, token=token) == late


def test_a_token_is_no_good_for_another_user(auth: UserAuth) -> None:
    token = register(auth)
    register(auth, "bob")
    assert not ask(auth, user_id="bob", token=token).valid


def test_a_tampered_token_is_invalid_wherever_it_was_changed(auth: UserAuth) -> None:
    token = register(auth)
    changed = [token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :] for at in range(len(token))]
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    respelled = [token[:-1] + letter for letter in letters if letter != token[-1]]
    for other in [*changed, *respelled, token + "=", token + "A", token[:-1], f" {token}", f"{token}\n", token + "."]:
        assert not ask(auth, token=other).valid


@pytest.mark.parametrize(
    "token",
    [
        "nonsense",
        "a.b.c",
        "\u00e4.\u00f6.\u00fc",
        f"{base64.urlsafe_b64encode(b'[' * 3000).decode().rstrip('=')}.e30.AA",
    ],
)
def test_what_is_no_token_is_an_invalid_one(auth: UserAuth, token: str) -> None:
    assert ask(auth, token=token).error == "the token is invalid or has expired"


@pytest.mark.parametrize(
    "changes",
    [{name: None} for name in ("iss", "sub", "account", "iat", "exp")]
    + [{"iss": "somebody else"}, {"sub": "bob"}, {"account": "another"}, {"aud": "somewhere else"}, {"exp": 1_699_999_999}],
)
def test_a_signed_token_with_one_wrong_claim_is_invalid(auth: UserAuth, changes: dict[str, object]) -> None:
    token = register(auth)
    assert ask(auth, token=forged(token, {})).valid
    assert not ask(auth, token=forged(token, changes)).valid


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [("another secret, of at least as many bytes as ours", "HS256"), (SIGNING_SECRET, "HS384"), ("", "none")],
)
def test_a_token_of_another_key_or_algorithm_is_invalid(auth: UserAuth, key: str, algorithm: str) -> None:
    assert not ask(auth, token=forged(register(auth), {}, key=key, algorithm=algorithm)).valid


def test_a_token_ends_with_its_account_even_if_the_user_id_is_registered_again(start: Start, tmp_path: Path) -> None:
    auth = start(database_url=f"sqlite:///{tmp_path}/users.db")
    token = register(auth)
    with closing(sqlite3.connect(tmp_path / "users.db")) as connection, connection:
        connection.execute("DELETE FROM user_auth_accounts")
    assert not ask(auth, token=token).valid
    register(auth)
    assert not ask(auth, token=token).valid


def test_tokens_hold_in_every_process_with_the_same_secret_and_database(start: Start, shared_database_url: str) -> None:
    token = register(start(database_url=shared_database_url, secret=SIGNING_SECRET))
    assert ask(start(database_url=shared_database_url, secret=SIGNING_SECRET), token=token).valid


def test_without_a_secret_each_process_makes_its_own(start: Start, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/users.db"
    token = register(start(database_url=url))
    assert not ask(start(database_url=url), token=token).valid


# Requests and answers


def _from_json(data: object) -> AuthRequest:
    return AuthRequest.model_validate_json(json.dumps(data))


@pytest.mark.parametrize(
    "request_data",
    [
        {"user_id": "alice"},
        {"user_id": "", "password": PASSWORD},
        {"user_id": " alice", "password": PASSWORD},
        {"user_id": "al\nice", "password": PASSWORD},
        {"user_id": "al\0ice", "password": PASSWORD},
        {"user_id": "a" * 256, "password": PASSWORD},
        {"password": PASSWORD},
        {"user_id": "alice", "password": ""},
        {"user_id": "alice", "token": ""},
        {"user_id": "alice", "password": None},
        {"user_id": "alice", "password": [PASSWORD]},
        {"user_id": "alice", "password": 31415926},
        {"user_id": "alice", "password": PASSWORD * 100},
        {"user_id": "alice", "pasword": PASSWORD},
        {"user_id": "alice", "action": "register"},
        {"user_id": "alice", "action": "register", "token": PASSWORD},
        {"user_id": "alice", "action": "delete", "password": PASSWORD},
        PASSWORD,
        [PASSWORD],
    ],
)
@pytest.mark.parametrize("read", [AuthRequest.model_validate, _from_json])
def test_a_malformed_request_is_refused_without_quoting_its_secrets(
    request_data: object, read: Callable[[object], AuthRequest]
) -> None:
    with pytest.raises(ValidationError) as caught:
        read(request_data)
    shown = f"{caught.value} {caught.value!r} {caught.value.errors()}"
    assert PASSWORD not in shown
    assert "31415926" not in shown


def test_a_request_made_past_its_validation_is_refused_too(auth: UserAuth) -> None:
    request = AuthRequest.model_construct(user_id="alice", action="authenticate", password=None, token=None)
    with pytest.raises(ValueError, match="neither a password nor a token"):
        auth.execute(ExecutionContext(), request)


def test_a_request_reveals_its_secrets_as_json_and_nowhere_else() -> None:
    request = AuthRequest.model_validate({"user_id": "alice", "password": PASSWORD, "token": "the token"})
    assert json.loads(request.model_dump_json()) == {
        "user_id": "alice",
        "action": "authenticate",
        "password": PASSWORD,
        "token": "the token",
    }
    assert AuthRequest.model_validate_json(request.model_dump_json(round_trip=True)) == request
    for shown in (repr(request), str(request), f"{request}", repr(request.model_dump()), repr(vars(request))):
        assert PASSWORD not in shown
        assert "the token" not in shown


def test_a_request_may_come_as_plain_data(auth: UserAuth) -> None:
    register(auth)
    assert auth.execute(ExecutionContext(), _from_json({"user_id": "alice", "password": PASSWORD})).valid


def test_an_answer_reveals_its_token_as_json_and_nowhere_else(auth: UserAuth) -> None:
    register(auth)
    answer = ask(auth, password=PASSWORD)
    token = token_of(answer)
    assert json.loads(answer.model_dump_json())["token"] == token
    assert token not in f"{answer} {answer!r} {answer.model_dump()}"
    assert ask(auth, token=AuthResponse.model_validate_json(answer.model_dump_json()).token).valid


def test_a_call_that_is_too_late_is_not_begun(auth: UserAuth) -> None:
    with pytest.raises(CallTimeout):
        auth.execute(ExecutionContext(timeout=0), AuthRequest.model_validate({"user_id": "alice", "password": "x"}))


# Configuration


@pytest.mark.parametrize(
    "config",
    [
        {"secret": "hush " * 6},
        {"sceret": "hush " * 8},
        {"database_url": "mysql://user:hush @host/name"},
        {"database_url": "postgresql://user:hush @host/name"},
        {"database_url": "sqlite+aiosqlite://"},
        {"database_url": "postgresql+psycopg://user@host:hush /name"},
        {"database_url": "hush "},
        {"token_lifetime": 0},
        {"token_lifetime": "long"},
        {"argon2_memory_kib": 8},
    ],
)
def test_a_wrong_configuration_is_refused_without_quoting_its_secrets(config: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as caught:
        AuthConfig.model_validate_json(json.dumps(config))
    assert "hush " not in f"{caught.value} {caught.value.errors()}"


def test_a_configuration_does_not_show_its_secrets() -> None:
    config = AuthConfig.model_validate({"secret": SIGNING_SECRET, "database_url": "postgresql+psycopg://user:hush@host/name"})
    assert SIGNING_SECRET not in repr(config)
    assert "hush" not in repr(config) + str(config.database)


def test_a_secret_is_measured_in_bytes() -> None:
    assert AuthConfig.model_validate({"secret": "\u00e4" * 16}).secret is not None
    with pytest.raises(ValidationError, match="at least 32 bytes"):
        AuthConfig.model_validate({"secret": "a" * 31})


# The database, and life


def test_a_plugin_whose_database_can_not_be_opened_does_not_start(start: Start, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="unable to open database file"):
        start(database_url=f"sqlite:///{tmp_path}/no-such-folder/users.db")


def test_health_says_whether_the_accounts_can_be_read(start: Start, tmp_path: Path) -> None:
    auth = start(database_url=f"sqlite:///{tmp_path}/users.db")
    register(auth)
    healthy = auth.health()
    assert healthy.status is Status.HEALTHY
    assert healthy.metadata["requests_served"] == 1
    assert healthy.metadata["database"] == "sqlite"
    assert healthy.metadata["uptime"] >= 0
    _rename(tmp_path / "users.db", "user_auth_accounts", "gone")
    unhealthy = auth.health()
    assert (unhealthy.status, unhealthy.message) == (Status.UNHEALTHY, "the database doesn't answer")
    assert unhealthy.metadata["database_error"] == "no such table: user_auth_accounts"
    _rename(tmp_path / "users.db", "gone", "user_auth_accounts")
    assert auth.health().status is Status.HEALTHY


def test_a_database_that_does_not_answer_is_worth_another_try(start: Start, tmp_path: Path) -> None:
    auth = start(database_url=f"sqlite:///{tmp_path}/users.db")
    register(auth)
    _rename(tmp_path / "users.db", "user_auth_accounts", "gone")
    with pytest.raises(RetryableError, match="the database of the accounts doesn't answer"):
        ask(auth, password=PASSWORD)


def _rename(path: Path, table: str, name: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"ALTER TABLE {table} RENAME TO {name}")


def test_closing_twice_is_closing_once_and_nothing_runs_afterwards(start: Start, database_url: str) -> None:
    auth = start(database_url=database_url)
    register(auth)
    auth.close()
    auth.close()
    with pytest.raises(RuntimeError, match="user-auth is closed"):
        ask(auth, password=PASSWORD)
    health = auth.health()
    assert (health.status, health.metadata["requests_served"]) == (Status.OFFLINE, 1)


def test_accounts_outlive_the_plugin_in_a_database_that_does(start: Start, shared_database_url: str) -> None:
    first = start(database_url=shared_database_url)
    register(first)
    first.close()
    assert ask(start(database_url=shared_database_url), password=PASSWORD).valid


# Many at once


def at_once(count: int, act: Callable[[int], Any]) -> list[Any]:
    together = threading.Barrier(count)

    def run(number: int) -> Any:
        together.wait(30)
        return act(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def test_of_many_who_register_one_user_id_exactly_one_gets_it(start: Start, database_url: str) -> None:
    auth = start(database_url=database_url)
    answers = at_once(16, lambda number: ask(auth, action="register", password=f"password {number}"))
    assert [answer.valid for answer in answers].count(True) == 1
    logins = at_once(16, lambda number: ask(auth, password=f"password {number}").valid)
    assert logins == [answer.valid for answer in answers]


def test_many_users_register_and_authenticate_at_once(start: Start, database_url: str) -> None:
    auth = start(database_url=database_url)

    def live(number: int) -> list[bool]:
        user, other = f"user-{number}", f"user-{(number + 1) % 16}"
        token = register(auth, user, f"password {number}")
        good = [ask(auth, user_id=user, password=f"password {number}"), ask(auth, user_id=user, token=token)]
        bad = [ask(auth, user_id=user, password="wrong"), ask(auth, user_id=other, token=token)]
        auth.health()
        return [answer.valid for answer in good + bad]

    assert at_once(16, live) == [[True, True, False, False]] * 16
    assert auth.health().metadata["requests_served"] == 16 * 5


def test_many_plugins_may_start_on_one_empty_database_at_once(start: Start, shared_database_url: str) -> None:
    plugins = at_once(8, lambda _: start(database_url=shared_database_url, secret=SIGNING_SECRET))
    register(plugins[0])
    assert all(ask(plugin, password=PASSWORD).valid for plugin in plugins)


def test_a_table_that_another_process_creates_just_now_is_taken_as_it_is(start: Start, shared_database_url: str) -> None:
    others = []

    def be_faster(*_: object, **__: object) -> None:
        others.append(start(database_url=shared_database_url, secret=SIGNING_SECRET))

    event.listen(_ACCOUNTS, "before_create", be_faster, once=True)
    auth = start(database_url=shared_database_url, secret=SIGNING_SECRET)
    register(others[0])
    assert ask(auth, password=PASSWORD).valid


# What is told to others


def test_no_log_record_and_no_output_shows_a_password_hash_or_token(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("sqlalchemy", "sqlalchemy.engine", "sqlalchemy.pool"):
        caplog.set_level(logging.DEBUG, name)
    auth = start(database_url=f"sqlite:///{tmp_path}/users.db", secret=SIGNING_SECRET)
    token = register(auth)
    ask(auth, action="register", password="a second password")
    ask(auth, password=PASSWORD)
    ask(auth, password="a wrong password")
    ask(auth, user_id="nobody", password="a wrong password")
    ask(auth, token=token)
    ask(auth, user_id="nobody", token=token)
    stored = _stored_hash(tmp_path / "users.db")
    _rename(tmp_path / "users.db", "user_auth_accounts", "gone")
    failures = [_failure(auth, action=action, password=PASSWORD) for action in ("register", "authenticate")]
    auth.health()
    auth.close()

    records = [f"{record.getMessage()} {vars(record)} {record.exc_text}" for record in caplog.records]
    told = "\n".join([*records, *failures, *capfd.readouterr()])
    assert "user alice registered" in told
    assert "user nobody refused: wrong user id or password" in told
    assert any(record.name.startswith("sqlalchemy.engine") for record in caplog.records)
    secrets = [PASSWORD, "a second password", "a wrong password", SIGNING_SECRET, token, *token.split(".")[1:], stored]
    assert [secret for secret in secrets if secret in told] == []
    assert "$argon2" not in told


def _failure(auth: UserAuth, **fields: object) -> str:
    with pytest.raises((OperationalError, RetryableError)) as caught:
        ask(auth, **fields)
    return "".join(traceback.format_exception(caught.value))


# The package


def test_the_manifest_is_accepted_and_agrees_with_the_package() -> None:
    manifest = Manifest.model_validate(tomllib.loads((resources.files("user_auth_plugin") / "plugin.toml").read_text()))
    (entry_point,) = metadata.entry_points(group="hostkit.plugins", name=manifest.name)
    assert entry_point.load() is UserAuth
    assert manifest.version == metadata.version("user-auth-plugin")
    assert "authenticate" in manifest.capabilities
