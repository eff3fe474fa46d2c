from __future__ import annotations

import subprocess
import sys

import escape_plugin
import pytest

import hostkit


@pytest.fixture
def host():
    with hostkit.Host() as host:
        yield host


def test_it_answers_without_an_act(host):
    assert host.execute("escape", {}) == {"act": None, "blocked": True, "how": "nothing was asked for"}


def test_an_act_says_whether_it_was_blocked_and_how(host, tmp_path):
    answer = host.execute("escape", {"act": "read-ssh-key", "target": {"home": str(tmp_path)}})
    assert answer.pop("how") in {"FileNotFoundError ENOENT", "PermissionError EACCES"}
    assert answer == {"act": "read-ssh-key", "blocked": True}


def test_every_act_says_in_one_line_what_it_would_mean():
    for act in escape_plugin.ACTS.values():
        assert act.does
        assert len(act.does) < 140, act.name
        assert act.name == act.name.lower()


def test_a_run_prints_each_act_and_ends_well_where_all_is_as_expected():
    done = subprocess.run(
        [sys.executable, "-m", "escape_plugin", "--level", "off", "overwrite-file", "forge-log"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[:3] for line in done.stdout.splitlines()] == [
        ["off", "overwrite-file", "reached"],
        ["off", "forge-log", "limited"],
    ]


def test_an_act_that_is_not_there_is_a_usage_error():
    done = subprocess.run([sys.executable, "-m", "escape_plugin", "no-such-act"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no such act: no-such-act" in done.stderr
