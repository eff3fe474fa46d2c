"""The audit log's file: whole entries, whoever writes, and nothing but a file of our own."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import textwrap
import threading

import pytest

from hostkit._audit_chain import Verification, line_after
from hostkit._audit_file import AuditFile, News, Unwritable
from hostkit._deadline import Deadline


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


def news(kind="loaded", **facts):
    return News(1.9e9, kind, "p", facts)


def append(file, *kinds, sync=False, within=5.0):
    file.append([news(kind) for kind in kinds], deadline=Deadline.after(within), sync=sync)


def kinds(path):
    return [
        json.loads(line)["kind"] for line in path.read_bytes().splitlines() if line.startswith(b'{"seq"') and line.endswith(b'"}')
    ]


def findings(path, head=None):
    with open(path, "rb") as lines:
        return [(found.line, found.kind, found.note) for found in Verification(head).findings(lines)]


def test_a_new_file_begins_with_who_writes_and_is_nobody_elses_to_read(path):
    file = AuditFile(path, lambda: {"app": "demo"})
    append(file, "loaded", sync=True)
    first, second = map(json.loads, path.read_text().splitlines())
    assert (first["kind"], first["app"], first["after"]) == ("begun", "demo", None)
    assert (second["kind"], second["seq"]) == ("loaded", 2)
    assert path.stat().st_mode & 0o777 == 0o600
    assert findings(path) == []


def test_another_host_continues_the_chain(path):
    for app in ("one", "two"):
        append(AuditFile(path, lambda app=app: {"app": app}), "loaded")
    assert kinds(path) == ["begun", "loaded"] * 2
    assert findings(path) == []


def test_a_file_that_is_moved_away_is_followed_by_one_that_names_its_last_entry(path, tmp_path):
    file = AuditFile(path, dict)
    append(file, "loaded")
    last = file.head
    path.rename(tmp_path / "old.jsonl")
    append(file, "unloaded")
    assert json.loads(path.read_text().splitlines()[0])["after"] == str(last)
    assert findings(path) == []
    assert findings(tmp_path / "old.jsonl", last) == []


@pytest.mark.parametrize("cut", [1, 30, 150])
def test_a_line_that_a_crash_left_unfinished_is_closed_and_told(path, cut):
    append(AuditFile(path, dict), "loaded", "unloaded")
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    append(AuditFile(path, dict), "loaded")
    if cut == 1:  # all but its end was there
        assert path.read_bytes().startswith(whole)
        assert findings(path) == []
        return
    assert path.read_bytes().startswith(whole[:-cut] + b"\n")  # nothing is taken away
    told = next(json.loads(line) for line in path.read_bytes().splitlines() if b'"kind":"torn"' in line)
    assert told["bytes"] == len(whole[:-cut].splitlines()[-1])
    assert findings(path) == [(3, "torn", True)]


def test_a_first_line_that_was_left_unfinished_is_told_too(path):
    append(AuditFile(path, dict), "loaded")
    whole = path.read_bytes()
    for length in (1, 8, 20):
        path.write_bytes(whole[:length])
        append(AuditFile(path, dict), "loaded")
        assert findings(path) == [(1, "torn", True)]


def test_a_last_line_that_was_changed_is_told_and_stays_a_finding(path):
    append(AuditFile(path, dict), "loaded", "unloaded")
    path.write_bytes(path.read_bytes().replace(b'"unloaded"', b'"edited!!"'))
    append(AuditFile(path, dict), "loaded")
    assert "damaged" in kinds(path)
    assert findings(path) == [(3, "edited", False)]


@pytest.mark.parametrize("what", ["cut", "rewritten", "copytruncate"])
def test_a_host_remembers_what_it_wrote_last(path, what):
    file = AuditFile(path, dict)
    append(file, "loaded", "unloaded")
    whole = path.read_bytes().splitlines(keepends=True)
    left = {"cut": whole[:-1], "rewritten": whole[:-1], "copytruncate": []}[what]
    path.write_bytes(b"".join(left))
    if what == "rewritten":
        append(AuditFile(path, dict), "forged")
    remembered = str(file.head)
    append(file, "loaded")
    told = [json.loads(line) for line in path.read_bytes().splitlines() if b'"kind":"damaged"' in line]
    assert [each["head"] for each in told] == [remembered]


def test_a_file_that_is_no_audit_log_is_left_alone(path):
    path.write_text("root:x:0:0\n")
    path.chmod(0o600)
    with pytest.raises(Unwritable, match="is no audit log"):
        append(AuditFile(path, dict), "loaded")
    assert path.read_text() == "root:x:0:0\n"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("link", "is a link"),
        ("dangling", "is a link"),
        ("directory", "is a directory"),
        ("pipe", "is no regular file"),
        ("hard link", "has other names"),
        ("mode", "may be written by others"),
        ("nowhere", "No such file or directory"),
        ("device", "is no regular file"),
    ],
)
def test_whatever_else_stands_in_its_place_is_refused_and_not_written_to(tmp_path, path, kind, words):
    target = tmp_path / "target"
    if kind != "dangling":
        target.touch(0o600)
    if kind in ("link", "dangling"):
        path.symlink_to(target)
    elif kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path, 0o600)
    elif kind == "hard link":
        os.link(target, path)
    elif kind == "mode":
        path.touch()
        path.chmod(0o622)
    elif kind == "nowhere":
        path = tmp_path / "missing" / "audit.jsonl"
    else:
        path = type(path)(os.devnull)
    with pytest.raises(Unwritable, match=words):
        append(AuditFile(path, dict), "loaded")
    assert not target.exists() or target.read_bytes() == b""


def test_a_file_that_is_locked_for_ever_costs_no_more_than_the_deadline(path):
    file = AuditFile(path, dict)
    append(file, "loaded")
    with open(path) as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Unwritable, match="another process holds it"):
            append(file, "loaded", within=0.05)
    append(file, "loaded")
    assert findings(path) == []


WRITER = """
    import sys
    from pathlib import Path
    from hostkit._audit_file import AuditFile, News
    from hostkit._deadline import Deadline
    file = AuditFile(Path(sys.argv[1]), dict)
    for number in range(100):
        file.append([News(1.9e9, "loaded", sys.argv[2], {"n": number, "text": "x" * 300})], deadline=Deadline.after(30), sync=False)
"""


def test_processes_and_threads_that_write_at_once_make_one_chain(path):
    processes = [subprocess.Popen([sys.executable, "-c", textwrap.dedent(WRITER), str(path), f"app{n}"]) for n in range(3)]

    def write():
        file = AuditFile(path, dict)
        for _ in range(50):
            append(file, "loaded", within=30)

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert findings(path) == []
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert [entry["seq"] for entry in entries] == list(range(1, 3 * 101 + 3 * 51 + 1))
    for app in ("app0", "app1", "app2"):
        assert [entry["n"] for entry in entries if entry["plugin"] == app] == list(range(100))


LIMITED = """
    import resource, sys
    from pathlib import Path
    from hostkit._audit_file import AuditFile, News, Unwritable
    from hostkit._deadline import Deadline
    path = Path(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
    file = AuditFile(path, dict)
    def append():
        file.append([News(1.9e9, "loaded", "p", {"text": "x" * 700})], deadline=Deadline.after(5), sync=True)
    try:
        while True:
            append()
    except Unwritable as error:
        print(error)
    size = path.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    append()
    print(size)
"""


def test_a_file_that_may_not_grow_holds_whole_entries_and_goes_on_later(path):
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(LIMITED), str(path)], capture_output=True, text=True, check=True)
    words, size = done.stdout.splitlines()
    assert words == "File too large"
    assert path.read_bytes()[int(size) - 1 : int(size)] == b"\n"
    assert findings(path) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_write_that_fails_half_way_leaves_nothing_behind(path, monkeypatch, number):
    file = AuditFile(path, dict)
    append(file, "loaded")
    before, real = path.read_bytes(), os.write

    def half(descriptor, data):
        if len(data) < 200:
            raise OSError(number, os.strerror(number))
        return real(descriptor, data[: len(data) - 100])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(Unwritable, match=os.strerror(number)):
        append(file, "loaded")
    monkeypatch.undo()
    assert path.read_bytes() == before
    append(file, "loaded")
    assert findings(path) == []


def test_a_long_entry_does_not_hide_the_chain(path):
    file = AuditFile(path, dict)
    for _ in range(4):
        file.append([News(1.9e9, "loaded", "p", {str(n): "x" * 2000 for n in range(30)})], deadline=Deadline.after(5), sync=False)
    append(AuditFile(path, dict), "loaded")
    assert findings(path) == []


def test_the_line_of_the_docs_is_an_entry():
    line, _ = line_after(Verification().last, 1.9e9, "loaded", "calculator", {"isolation": "process"})
    assert line.startswith(
        b'{"seq":1,"at":"2030-03-17T17:46:40.000000Z","kind":"loaded","plugin":"calculator","isolation":"process","prev":"000'
    )
