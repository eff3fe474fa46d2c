"""What a plugin asks for and what the operator allows come together: nothing is granted that not both have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hostkit._permissions import Permissions, granted


def grants(asked, allowed):
    return granted(Permissions.model_validate(asked), Permissions.model_validate(allowed))


def why(found, wish):
    return next(grant.why for grant in found.wishes if grant.wish == wish)


def test_nothing_that_a_manifest_asks_for_is_granted_by_itself():
    found = grants({"network": True, "read": ["/data"], "write": ["/out"], "subprocess": True, "env": ["TOKEN"]}, {})
    assert found.as_data() == {}
    assert [grant.granted for grant in found.wishes] == [False] * 5
    assert why(found, "env TOKEN") == "the operator's permissions.env doesn't have it"


def test_nothing_is_granted_that_the_manifest_does_not_ask_for():
    assert grants({}, {"network": True, "read": ["/"], "write": ["/"], "subprocess": True, "env": ["TOKEN"]}).as_data() == {}


def test_what_both_have_is_granted():
    both = {"network": ["api.example.org:443"], "read": ["/data"], "write": ["/out"], "subprocess": True, "env": ["TOKEN"]}
    assert grants(both, both).as_data() == both


@pytest.mark.parametrize(
    ("wish", "cap", "got"),
    [
        ("/data/in", "/data", ["/data/in"]),
        ("/data", "/data/in", ["/data/in"]),
        ("/data", "/database", []),
        ("/data/../etc", "/data", []),
        ("/data", "/", ["/data"]),
    ],
)
def test_of_two_paths_the_narrower_one_is_granted(wish, cap, got):
    assert grants({"read": [wish]}, {"read": [cap]}).as_data().get("read", []) == got


def test_a_link_is_followed_before_paths_are_compared(tmp_path):
    (tmp_path / "allowed").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "allowed" / "link").symlink_to(tmp_path / "secret")
    assert grants({"read": [str(tmp_path / "allowed" / "link")]}, {"read": [str(tmp_path / "allowed")]}).read == ()


def test_what_may_be_written_may_be_read():
    assert grants({"read": ["/out"]}, {"write": ["/out"]}).read == ("/out",)
    assert grants({"write": ["/out"]}, {"read": ["/out"]}).write == ()


@pytest.mark.parametrize(
    ("wish", "cap", "got"),
    [
        ("api.example.org:443", "*:443", ["api.example.org:443"]),
        ("api.example.org:443", "API.example.org:*", ["api.example.org:443"]),
        ("*:443", "api.example.org:443", ["api.example.org:443"]),
        ("api.example.org:443", "api.example.org:80", []),
        ("evil.example.org:443", "api.example.org:443", []),
        ("[::1]:80", "[::1]:80", ["[::1]:80"]),
    ],
)
def test_of_two_endpoints_the_narrower_one_is_granted(wish, cap, got):
    assert grants({"network": [wish]}, {"network": [cap]}).as_data().get("network", []) == got


def test_a_plugin_that_asks_for_every_endpoint_gets_those_that_are_allowed():
    found = grants({"network": True}, {"network": ["api.example.org:443"]})
    assert found.network == ("api.example.org:443",)
    assert why(found, "network everything") == "the operator allows of it api.example.org:443"
    assert grants({"network": True}, {"network": True}).network is True


@pytest.mark.parametrize(
    "wrong",
    [
        {"network": ["api.example.org"]},
        {"network": ["api.example.org:99999"]},
        {"network": ["http://api.example.org:80"]},
        {"network": "yes"},
        {"read": ["data"]},
        {"read": ["/da\0ta"]},
        {"subprocess": "yes"},
        {"env": ["A B"]},
        {"execute": True},
    ],
)
def test_what_is_no_permission_is_an_error(wrong):
    with pytest.raises(ValidationError):
        Permissions.model_validate(wrong)


names = st.sampled_from(["/a", "/a/b", "/a/b/c", "/ab", "/c", "/"])


@given(st.lists(names, max_size=4), st.lists(names, max_size=4))
def test_every_granted_path_lies_within_a_wish_and_within_a_cap(wishes, caps):
    def within(path, places):
        return any(path == place or path.startswith(place.rstrip("/") + "/") for place in places)

    for path in grants({"write": wishes}, {"write": caps}).write:
        assert within(path, wishes)
        assert within(path, caps)
