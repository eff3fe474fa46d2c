"""The lock file is watched: whatever becomes of it is told once, and decides nothing."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import sys

import pytest

import hostkit
from hostkit import IntegrityError
from hostkit._lock_watch import LockWatch


def check(data):
    if not data.startswith(b"lock"):
        raise IntegrityError("it is no lock")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "hostkit.lock"
    path.write_bytes(b"lock 1")
    return path


@pytest.fixture
def watched(path):
    """A watch that is looked at by hand, and what it told."""
    told = []
    return LockWatch(path, check, told.append), told


def replaced(path, data):
    partial = path.with_suffix(".new")
    partial.write_bytes(data)
    os.replace(partial, path)


def states(told):
    return [event.state for event in told]


@pytest.mark.parametrize(
    ("change", "state", "words"),
    [
        (lambda path: replaced(path, b"lock 2"), "valid", hashlib.sha256(b"lock 2").hexdigest()),
        (lambda path: path.write_bytes(b"lo"), "invalid", "it is no lock"),
        (lambda path: path.write_bytes(b"LOCK 1"), "invalid", "it is no lock"),
        (lambda path: path.write_bytes(b""), "invalid", "it is no lock"),
        (lambda path: path.unlink(), "missing", ""),
        (lambda path: (path.unlink(), path.mkdir()), "invalid", "no regular file"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "invalid", "no regular file"),
    ],
    ids=["another", "half", "edited", "emptied", "deleted", "directory", "pipe"],
)
def test_each_change_is_told_once(watched, path, change, state, words):
    watch, told = watched
    change(path)
    watch.look()
    watch.look()
    (event,) = told
    assert (event.state, event.file) == (state, str(path))
    assert words in event.why
    assert event.level == ("WARNING" if state == "valid" else "ERROR")


def test_a_link_in_its_place_is_told_even_if_it_says_the_same(watched, path, tmp_path):
    watch, told = watched
    (tmp_path / "other").write_bytes(b"lock 1")
    path.unlink()
    path.symlink_to(tmp_path / "other")
    watch.look()
    assert states(told) == ["valid"]
    assert f"a link to {tmp_path / 'other'}" in told[0].why
    (tmp_path / "other").write_bytes(b"evil")
    watch.look()
    assert states(told) == ["valid", "invalid"]


def test_the_same_again_is_not_told(watched, path):
    watch, told = watched
    replaced(path, b"lock 1")
    watch.look()
    assert told == []


def test_a_change_that_keeps_size_and_time_is_seen(watched, path):
    watch, told = watched
    before = path.stat()
    path.write_bytes(b"lock 2")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    watch.look()
    assert states(told) == ["valid"]


def test_it_is_told_by_itself_where_the_system_tells(path):
    pytest.importorskip("watchfiles")
    told = queue.Queue()
    watch = LockWatch(path, check, told.put)
    watch.start()
    try:
        replaced(path, b"evil")
        assert told.get(timeout=10).state == "invalid"
        path.unlink()
        assert told.get(timeout=10).state == "missing"
        replaced(path, b"lock 3")
        assert told.get(timeout=10).state == "valid"
    finally:
        watch.stop()


# In a host.


@pytest.fixture
def locked(install_demo, cli, cli_place):
    """Two plugins that are locked and audited; returns the configuration's file."""
    for name in ("p", "q"):
        install_demo(name, "class P:\n    def execute(self, ctx, request):\n        return request\n")
    file = cli_place / "hostkit.toml"
    file.write_text('[lock]\npolicy = "enforce"\n[audit]\nfile = "audit.jsonl"\n')
    result = cli("lock")
    assert result.exit_code == 0, result.stderr
    return file


def entries(file, *kinds):
    found = map(json.loads, file.with_name("audit.jsonl").read_text().splitlines())
    return [entry for entry in found if entry["kind"] in kinds]


def swapped(path):
    (path.parent / "elsewhere").write_text("evil")
    path.unlink()
    path.symlink_to(path.parent / "elsewhere")


@pytest.mark.parametrize(
    ("change", "state"),
    [
        (lambda path: path.write_bytes(path.read_bytes() + b"\n[tool.other]\n"), "invalid"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "invalid"),
        (lambda path: path.unlink(), "missing"),
        (swapped, "invalid"),
    ],
    ids=["edited", "half-written", "deleted", "swapped for a link"],
)
def test_a_lock_that_is_no_good_any_more_opens_nothing_and_closes_nothing(locked, new_host, change, state, isolation):
    host = new_host("demo", config=locked)
    heard = queue.Queue()
    host.subscribe(lambda event: isinstance(event, hostkit.LockChanged) and heard.put(event))
    host.load("p", isolation=isolation)
    change(locked.with_name("hostkit.lock"))
    assert heard.get(timeout=10).state == state
    assert host.execute("p", 1) == 1
    with pytest.raises(hostkit.IntegrityError):
        host.load("q", isolation=isolation)
    with pytest.raises(hostkit.IntegrityError):
        host.reload("p", isolation="process")
    assert host.execute("p", 1) == 1
    assert [entry["state"] for entry in entries(locked, "lock")] == [state]
    assert [entry["plugin"] for entry in entries(locked, "refused")] == ["q", "p"]
    assert heard.empty()


def test_a_lock_that_changed_is_told_at_the_next_load_without_watchfiles_too(locked, new_host, monkeypatch):
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    host = new_host("demo", config=locked)
    host.load("p")
    locked.with_name("hostkit.lock").unlink()
    with pytest.raises(hostkit.IntegrityError):
        host.load("q")
    assert [entry["state"] for entry in entries(locked, "lock")] == ["missing"]


def test_what_was_loaded_has_the_digest_of_the_lock(locked, new_host, isolation):
    host = new_host("demo", config=locked)
    host.load("p", isolation=isolation)
    (loading,), (loaded,) = entries(locked, "loading"), entries(locked, "loaded")
    assert loading["digest"] == loaded["digest"]
    assert (len(loaded["digest"]), loaded["policy"]) == (64, "enforce")
    assert [entry["enforced"] for entry in entries(locked, "begun")] == [True]


def test_what_is_not_as_locked_is_written_down_and_has_no_digest(locked, new_host, site):
    locked.write_text('[lock]\npolicy = "audit"\n[audit]\nfile = "audit.jsonl"\n')
    (site / "p" / "more.py").write_text("")
    new_host("demo", config=locked).load("p")
    (mismatch,) = entries(locked, "mismatch")
    assert mismatch["plugin"] == "p"
    assert "digest" not in entries(locked, "loaded")[0]


def test_another_policy_is_written_down(locked, new_host):
    host = new_host("demo", config=locked)
    host.load("p")
    locked.write_text('[audit]\nfile = "audit.jsonl"\n')
    assert host.reload_config() == ("lock.policy enforce → off",)
    assert [entry["changes"] for entry in entries(locked, "config")] == [["lock.policy enforce → off"]]


def test_the_policy_enforce_denies_a_load_whose_entry_can_not_be_written(locked, new_host):
    locked.with_name("audit.jsonl").mkdir()
    host = new_host("demo", config=locked)
    with pytest.raises(hostkit.IntegrityError, match="its entry in the audit log can't be written"):
        host.load("p")
    assert "p" not in sys.modules
    locked.write_text(locked.read_text().replace("enforce", "audit"))
    host.reload_config()
    assert host.execute("p", 1) == 1
