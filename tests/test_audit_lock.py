"""The lock file is watched: whatever becomes of it is told once, and decides nothing."""

from __future__ import annotations

import hashlib
import os
import queue

import pytest

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
