"""The escape plugin tries every act it knows at every level of the sandbox: what comes of each stands in its table."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import hostkit

escape_plugin = pytest.importorskip("escape_plugin", reason="the sample plugins are installed by tox")

from escape_plugin import _report  # noqa: E402
from escape_plugin._run import ABSENT, BROKEN, LEVELS, REACHED, Row, run, stage  # noqa: E402

ACTS = escape_plugin.ACTS
DOCUMENT = Path(__file__).parent.parent / "docs" / "reference" / "containment.md"
# What the grants of a test open, of all that the escape plugin tries.
OPENED = {
    *("fork", "fork-by-number", "clone", "vfork", "fork-bomb", "run-program", "spawn-program", "adopt-orphans", "signal-everybody"),
    *("connect-tcp", "configure-interface"),
    *("create-file", "create-directory", "create-fifo", "create-symlink", "link-out"),
    *("read-dotenv", "read-configuration", "read-lock-file", "read-audit-log", "read-host-environment-variable"),
}
# What this machine can't hold to is a refusal that names what is missing.
MISSING = "this machine doesn't reach the level"


@pytest.mark.parametrize("level", LEVELS)
def test_every_act_comes_out_as_the_table_says(level):
    with stage() as made:
        try:
            rows = run(made, level)
        except hostkit.SandboxUnavailable as error:
            pytest.skip(f"{MISSING}: {error}")
    assert _report.differences({level: rows}) == []
    assert rows.keys() == ACTS.keys()
    if level == "off":  # the acts are real: where nothing holds them they are done
        done = [name for name, row in rows.items() if row.word == REACHED]
        assert len(done) > (150 if os.geteuid() == 0 else 90), {name: row for name, row in rows.items() if row.word != REACHED}


def test_what_is_granted_is_open_and_nothing_else():
    with stage() as made:
        here = made.target
        granted = f"""
            subprocess = true
            network = ["127.0.0.1:{here["tcp"]}"]
            write = ["{here["directory"]}"]
            read = ["{here["project"]}"]
            env = ["{here["variable"]}"]
        """
        try:
            rows = run(made, "standard", permissions=granted)
        except hostkit.SandboxUnavailable as error:
            pytest.skip(f"{MISSING}: {error}")
    usual = {name for name, words in _report.expected().items() if words[LEVELS.index("standard")] == REACHED}
    assert {name for name, row in rows.items() if row.word == REACHED} - usual == OPENED
    assert {name: row for name, row in rows.items() if row.word == BROKEN} == {}


def test_the_document_is_what_these_runs_gave():
    rows = {
        level: {name: Row(words[number], "") for name, words in _report.expected().items()} for number, level in enumerate(LEVELS)
    }
    assert DOCUMENT.read_text(encoding="utf-8") == _report.document(rows), (
        "python -m escape_plugin --markdown > docs/reference/containment.md"
    )


def test_the_table_has_each_act_once_and_a_reason_for_each_that_is_reached_in_the_sandbox():
    expected = _report.expected()
    assert expected.keys() == ACTS.keys()
    assert len(expected) > 60
    assert not {word for words in expected.values() for word in words} & {ABSENT, BROKEN}
    assert {name for name, words in expected.items() if REACHED in words[1:]} == _report.reasons().keys()


def test_an_act_that_comes_out_otherwise_is_told():
    rows = {"standard": {"read-ssh-key": Row(REACHED, "read it"), "chmod": Row("denied", "PermissionError EPERM")}}
    assert _report.differences(rows) == ["standard: read-ssh-key is reached (read it), expected was denied"]


def test_what_an_act_only_claims_is_not_believed():
    with stage() as made, hostkit.Host("escapes", config=made.configuration("off")) as host:
        host.load("neighbour", isolation="process")
        made.meet(host)
        assert made.saw("read-ssh-key", "read 'something'", claimed=False) is False
        assert made.saw("read-ssh-key", f"read '{made.secret}'", claimed=True) is True
        assert made.saw("overwrite-file", "wrote into it", claimed=False) is False
        Path(made.target["canary"]).write_text("changed")
        assert made.saw("overwrite-file", "PermissionError EPERM", claimed=False) is True
        made.mend()
        assert Path(made.target["canary"]).read_text().strip() == made.secret


def test_in_the_hosts_own_process_nothing_is_tried(new_host):
    host = new_host()
    host.register(escape_plugin.Escape(), name="not-isolated")
    with pytest.raises(hostkit.PluginFailed, match="isolate it"):
        host.execute("not-isolated", {"act": "become-program", "target": {}})


def test_an_unknown_act_is_an_error_with_the_nearest_name():
    with pytest.raises(LookupError, match="did you mean 'read-shadow'"):
        escape_plugin.found("read-shadows")
