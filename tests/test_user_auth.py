"""The user-auth sample plugin through a host, in every place."""

from __future__ import annotations

import pytest

import hostkit

pytest.importorskip("user_auth_plugin", reason="the sample plugins are installed by tox")

SANDBOX = "standard"
PASSWORD = "correct horse battery staple"


@pytest.fixture
def auth(new_host, isolation, tmp_path):
    config = {"database_url": f"sqlite:///{tmp_path / 'users.db'}", "secret": "s" * 40}
    host = new_host(config={"plugins": {"user-auth": {"config": config, "permissions": {"write": [str(tmp_path)]}}}})
    host.load("user-auth", isolation=isolation)
    return host


def test_a_registered_user_gets_in_by_password_and_then_by_token(auth):
    assert auth.execute("user-auth", {"action": "register", "user_id": "ada", "password": PASSWORD})["valid"]
    by_password = auth.execute("user-auth", {"user_id": "ada", "password": PASSWORD})
    assert by_password["valid"]
    assert auth.execute("user-auth", {"user_id": "ada", "token": by_password["token"]})["valid"]


def test_a_wrong_password_and_an_unknown_user_get_the_same_answer(auth):
    auth.execute("user-auth", {"action": "register", "user_id": "ada", "password": PASSWORD})
    wrong = auth.execute("user-auth", {"user_id": "ada", "password": "not this password"})
    unknown = auth.execute("user-auth", {"user_id": "bob", "password": "not this password"})
    assert not wrong["valid"]
    assert wrong["error"] == unknown["error"]


def test_health_checks_the_database(auth):
    assert auth.health("user-auth").status is hostkit.Status.HEALTHY


def test_no_password_or_token_is_ever_logged_or_told(auth, log, capfd):
    auth.execute("user-auth", {"action": "register", "user_id": "ada", "password": PASSWORD})
    token = auth.execute("user-auth", {"user_id": "ada", "password": PASSWORD})["token"]
    with pytest.raises(hostkit.InvalidRequest) as caught:
        auth.execute("user-auth", {"user_id": "ada", "pasword": PASSWORD})
    auth.close()
    told = repr(log) + "".join(capfd.readouterr()) + str(caught.value) + repr(caught.value.errors)
    assert PASSWORD not in told
    assert token not in told
    assert any(row.get("plugin") == "user-auth" for row in log)
