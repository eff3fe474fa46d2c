"""``hostkit audit``: the entries for people and programs, and every change found."""

from __future__ import annotations

import json
import signal

import pytest

import hostkit
from hostkit._audit_chain import NOTHING, line_after

ECHO = "class P:\n    def execute(self, ctx, request):\n        return request\n"


def written(path, count=6, head=NOTHING):
    lines = []
    for number in range(count):
        kind = "refused" if number % 3 == 2 else "loaded"
        line, head = line_after(
            head, 1.9e9 + number, kind, f"my-p{number % 2}", {"isolation": "process", "why": f"because of {number}"}
        )
        lines.append(line)
    path.write_bytes(b"".join(lines))
    return lines, head


@pytest.fixture
def path(cli_place):
    path = cli_place / "audit.jsonl"
    (cli_place / "hostkit.toml").write_text('[audit]\nfile = "audit.jsonl"\n')
    return path


def test_what_hosts_wrote_is_shown_and_clean(cli, install_demo, path):
    install_demo("p", ECHO)
    assert cli("execute", "p", "1").exit_code == 0
    shown = cli("audit", "show")
    assert [line.split()[2] for line in shown.stdout.splitlines()] == ["begun", "loading", "loaded", "unloaded"]
    done = cli("audit", "verify")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == f"{path}: 4 entries, no findings"


def test_a_line_of_show_says_number_time_kind_plugin_and_facts(cli, path):
    written(path, 1)
    assert cli("audit", "show").stdout == (
        '     1  2030-03-17T17:46:40.000000Z  loaded     my-p0  isolation=process why="because of 0"\n'
    )


@pytest.mark.parametrize(
    ("options", "seqs"),
    [
        ([], [1, 2, 3, 4, 5, 6]),
        (["--plugin", "my_P1"], [2, 4, 6]),
        (["--kind", "refused"], [3, 6]),
        (["--kind", "refused", "--kind", "loaded", "--last", "2"], [5, 6]),
        (["--plugin", "my-p1", "--kind", "loaded", "--last", "1"], [4]),
        (["--plugin", "nobody"], []),
    ],
)
def test_show_shows_what_is_asked_for(cli, path, options, seqs):
    _, head = written(path)
    assert [int(line.split()[0]) for line in cli("audit", "show", *options).stdout.splitlines()] == seqs
    answer = json.loads(cli("audit", "show", "--json", *options).stdout)
    assert [entry["seq"] for entry in answer["entries"]] == seqs
    assert answer["head"] == str(head)


def test_another_file_can_be_named(cli, cli_place):
    written(cli_place / "old.jsonl", 2)
    assert len(cli("audit", "show", "old.jsonl").stdout.splitlines()) == 2
    assert cli("audit", "verify", "old.jsonl").exit_code == 0


def test_without_a_file_there_is_nothing_to_show(cli, path, cli_place):
    for verb in ("show", "verify"):
        result = cli("audit", verb)
        assert result.exit_code == 3
        assert f"{path}: No such file or directory" in result.stderr
    (cli_place / "hostkit.toml").unlink()
    result = cli("audit", "verify")
    assert result.exit_code == 2
    assert "no audit log is configured (audit.file)" in result.stderr


CHANGES = {
    "edited": (lambda lines: lines.__setitem__(2, lines[2].replace(b"because", b"BECAUSE")), 3, "its text is not the one"),
    "missing": (lambda lines: lines.__delitem__(2), 3, "entry 3 is missing before it"),
    "moved": (lambda lines: lines.insert(4, lines.pop(2)), 3, "entry 3 is missing before it"),
    "inserted": (lambda lines: lines.insert(2, b"forged\n"), 3, "it is no entry"),
    "truncated": (lambda lines: lines.__setitem__(5, lines[5][:50]), 6, "50 bytes that are no whole entry"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_verify_says_which_line_and_what(cli, path, kind):
    lines, _ = written(path)
    change, line, words = CHANGES[kind]
    change(lines)
    path.write_bytes(b"".join(lines))
    done = cli("audit", "verify")
    assert done.exit_code == 1
    assert done.stdout.startswith(f"{path}:{line}: ")
    assert words in done.stdout.splitlines()[0]
    answer = json.loads(cli("audit", "verify", "--json").stdout)
    assert answer["findings"][0]["line"] == line
    assert answer["bad"] == len([finding for finding in answer["findings"] if not finding["note"]]) > 0


def test_an_end_that_was_cut_off_is_found_by_a_remembered_head_alone(cli, path):
    lines, _ = written(path)
    head = cli("audit", "verify").stdout.splitlines()[-1].removeprefix("head: ")
    assert head == json.loads(cli("audit", "show", "--json").stdout)["head"]
    path.write_bytes(b"".join(lines[:4]))
    assert cli("audit", "verify").exit_code == 0
    done = cli("audit", "verify", "--head", head)
    assert done.exit_code == 1
    assert "entry 6 is not there: it ends with entry 4" in done.stdout
    written(path, 9)
    assert cli("audit", "verify", "--head", head).exit_code == 0


def test_a_head_that_is_none_is_wrong_usage(cli, path):
    written(path)
    result = cli("audit", "verify", "--head", "6")
    assert result.exit_code == 2
    assert "expected SEQ:HASH" in result.stderr


def test_show_tells_of_lines_that_are_no_entries(cli, path):
    lines, _ = written(path)
    path.write_bytes(b"".join([lines[0], b"\x1b[31mforged\n", *lines[1:]]))
    result = cli("audit", "show")
    assert len(result.stdout.splitlines()) == 6
    assert "1 lines are no entries" in result.stderr


def test_follow_goes_on_with_what_is_written(cli_process, path):
    _, head = written(path, 2)
    process = cli_process("audit", "show", "--follow", "--json", "--last", "1")
    assert json.loads(process.stdout.readline())["seq"] == 2
    line, head = line_after(head, 1.9e9, "loaded", "p", {})
    with path.open("ab") as file:
        file.write(line[:20])  # a reader sees no half line
        file.flush()
        file.write(line[20:])
    assert json.loads(process.stdout.readline())["seq"] == 3
    path.write_bytes(b"")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130


def test_the_audit_log_is_where_the_environment_says(cli, cli_place, monkeypatch):
    monkeypatch.setenv("HOSTKIT_AUDIT__FILE", "here.jsonl")
    written(cli_place / "here.jsonl", 3)
    assert len(cli("audit", "show").stdout.splitlines()) == 3
    shown = cli("config", "show", "--origin").stdout
    assert f'audit.file = "{cli_place / "here.jsonl"}"' in shown
    assert "HOSTKIT_AUDIT__FILE" in shown


def test_a_huge_log_is_checked_line_by_line(cli, path):
    head, lines = NOTHING, []
    for number in range(3000):
        line, head = line_after(head, 1.9e9, "loaded", f"p{number}", {})
        lines.append(line)
    lines[1500] = b"x" * 500_000 + b"\n"
    path.write_bytes(b"".join(lines))
    done = cli("audit", "verify")
    assert done.stdout.splitlines()[0].startswith(f"{path}:1501: edited")
    assert "2999 entries, 1 finding" in done.stdout


def test_the_state_of_the_log_is_the_hosts(new_host, path):
    host = new_host(config={"audit": {"file": str(path)}})
    assert host.audit == hostkit.AuditState(path)
