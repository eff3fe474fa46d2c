"""``hostkit lock``, ``verify`` and ``hash``: what they say, what they write, and what they end with."""

from __future__ import annotations

import json
import os
import stat
from hashlib import sha256

import pytest

ECHO = "class P:\n    def execute(self, ctx, request):\n        return request\n"


@pytest.fixture
def place(cli_place, install_demo):
    install_demo("calculator", "import pathlib\npathlib.Path(__file__).with_name('imported').touch()\n" + ECHO)
    install_demo("other", ECHO)
    return cli_place


def test_a_lock_is_written_beside_the_configuration_and_verified(cli, place, site):
    result = cli("lock")
    assert (result.exit_code, result.stderr) == (0, "")
    size = (place / "hostkit.lock").stat().st_size
    assert result.stdout == f"{place / 'hostkit.lock'}: 2 plugins, 2 distributions, 6 files locked ({size} bytes)\n"
    assert (cli("verify").exit_code, cli("verify", "other").exit_code, cli("lock", "--check").exit_code) == (0, 0, 0)
    assert not (site / "calculator" / "imported").exists()


def test_a_lock_lies_where_the_configuration_is_and_says(cli, place, tmp_path):
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "hostkit.toml").write_text("")
    assert cli("--config", str(folder / "hostkit.toml"), "lock").exit_code == 0
    (folder / "hostkit.toml").write_text('[lock]\nfile = "all.lock"\n')
    assert cli("--config", str(folder / "hostkit.toml"), "lock").exit_code == 0
    assert {path.name for path in folder.iterdir()} == {"hostkit.toml", "hostkit.lock", "all.lock"}


def test_a_finding_is_a_line_with_whose_it_is_the_file_and_the_remedy(cli, place, site):
    assert cli("lock").exit_code == 0
    (site / "other" / "evil\x1b[31m.py").write_text("")
    result = cli("verify")
    assert result.exit_code == 1
    line, verdict = result.stdout.splitlines()
    assert line == "extra: other: other/evil\\x1b[31m.py: it is not in the lock; delete the file; if it is meant, lock anew"
    assert verdict == f"{place / 'hostkit.lock'}: 2 plugins: 1 finding"
    assert cli("verify", "calculator").exit_code == 0, "only what was asked for"
    found = json.loads(cli("verify", "--json").stdout)
    assert (found["file"], found["policy"], found["plugins"]) == (str(place / "hostkit.lock"), "off", ["calculator", "other"])
    (finding,) = found["findings"]
    assert {key: finding[key] for key in ("kind", "plugin", "distribution", "file")} == {
        "kind": "extra",
        "plugin": "other",
        "distribution": "other",
        "file": "other/evil\x1b[31m.py",
    }


def test_without_a_lock_nothing_is_verified(cli, place):
    for arguments in (["verify"], ["lock", "--check"]):
        result = cli(*arguments)
        assert (result.exit_code, result.stdout) == (3, "")
        assert result.stderr.startswith(f"hostkit: IntegrityError: the lock {place / 'hostkit.lock'}: ")
    result = cli("verify", "--json")
    assert json.loads(result.stderr)["error"]["status"] == 3


def test_a_name_that_nobody_has_is_not_found(cli, place):
    assert cli("lock").exit_code == 0
    result = cli("verify", "calclator")
    assert (result.exit_code, "did you mean 'calculator'" in result.stderr) == (3, True)


def test_check_tells_what_would_be_written_otherwise_and_writes_nothing(cli, place, site, install_demo):
    assert cli("lock").exit_code == 0
    before = (place / "hostkit.lock").read_bytes()
    (site / "other" / "__init__.py").write_text(ECHO + "\n")
    install_demo("third", ECHO)
    (site / "x.pth").write_text("")
    result = cli("lock", "--check")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "plugins: third: is installed, and not locked",
        "distributions: other: is not as it is locked",
        "distributions: third: is installed, and not locked",
        "startup: x.pth: is installed, and not locked",
    ]
    assert json.loads(cli("lock", "--check", "--json").stdout)["current"] is False
    assert (place / "hostkit.lock").read_bytes() == before


def test_what_should_not_be_locked_is_told_and_nothing_is_written(cli, place, site):
    (site / "other" / "__init__.py").chmod(0o666)
    result = cli("lock")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "hostkit: error: world-writable: other: " in result.stderr
    assert "was not written: 1 finding that should not be locked" in result.stderr
    assert not (place / "hostkit.lock").exists()
    result = cli("lock", "--json")
    assert (result.exit_code, json.loads(result.stdout)["written"]) == (1, False)


def test_what_a_record_says_otherwise_is_a_warning(cli, place, site):
    (site / "other-1.0.dist-info" / "RECORD").write_text("other/__init__.py,sha256=abc,1\nother/gone.py,sha256=abc,1\n")
    result = cli("lock")
    assert result.exit_code == 0
    assert "warning: missing: other: other/gone.py: RECORD has it, and it is not there" in result.stderr
    assert "warning: modified: other: other/__init__.py: it is not what RECORD says" in result.stderr


def test_what_is_required_in_vain_is_a_warning(cli, place, install_demo):
    install_demo("needy", ECHO, requires=["there-is-none>=1"])
    result = cli("lock")
    assert result.exit_code == 0
    assert "warning: drift: needy there-is-none: needy requires there-is-none>=1, and it is not installed" in result.stderr


def test_a_working_tree_is_locked_only_on_demand(cli, place, site):
    (site / "other-1.0.dist-info" / "direct_url.json").write_text('{"url": "file:///src", "dir_info": {"editable": true}}')
    result = cli("lock")
    assert result.exit_code == 1
    assert "error: editable: other: " in result.stderr
    assert cli("lock", "--editable").exit_code == 0
    assert cli("verify").exit_code == 0
    (site / "other" / "__init__.py").write_text("changed = 1\n")
    assert json.loads(cli("verify", "--json").stdout)["findings"][0]["kind"] == "modified"


def test_plugins_that_are_switched_off_or_broken_are_not_locked(cli, place, install_demo):
    install_demo("broken", ECHO, manifest="nonsense\n")
    (place / "hostkit.toml").write_text("[plugins.other]\nenabled = false\n")
    result = cli("lock", "--json")
    assert json.loads(result.stdout)["plugins"] == ["calculator"]
    assert "hostkit: warning: broken can't be loaded and is not locked" in result.stderr
    assert cli("verify").exit_code == 0, "what can't be loaded in any case is no news"


def test_a_lock_that_is_there_keeps_its_permissions_and_is_replaced_as_a_whole(cli, place):
    path = place / "hostkit.lock"
    path.write_text("nonsense")
    path.chmod(0o640)
    assert cli("lock").exit_code == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.write_text("nonsense")
    path.chmod(0o444)
    result = cli("lock")
    if os.geteuid() != 0:
        assert (result.exit_code, "can't be written" in result.stderr) == (2, True)
    assert sorted(each.name for each in place.iterdir()) == ["hostkit.lock"]


def test_hash_prints_what_sha256sum_would(cli, place, site):
    result = cli("hash", "calculator")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [line.split() for line in result.stdout.splitlines()]
    data = (site / "calculator/__init__.py").read_bytes()
    assert [sha256(data).hexdigest(), str(len(data)), "calculator/__init__.py"] in rows
    assert rows[-1][2] == "calculator"
    found = json.loads(cli("hash", "calculator", "--json").stdout)
    assert found["sha256"] == rows[-1][0]
    assert found["files"]["calculator/__init__.py"] == {"size": len(data), "sha256": sha256(data).hexdigest()}


def test_hash_takes_files_directories_and_distributions(cli, place, site):
    (place / "file").write_text("x")
    assert cli("hash", "file").stdout.splitlines()[0].split() == [sha256(b"x").hexdigest(), "1", "file"]
    assert cli("hash", "./file").stdout.splitlines()[0] == cli("hash", "file").stdout.splitlines()[0]
    names = [line.split()[2] for line in cli("hash", str(site / "other")).stdout.splitlines()]
    assert names == ["__init__.py", str(site / "other")]
    assert json.loads(cli("hash", "pydantic", "--json").stdout)["files"]["pydantic/__init__.py"]["size"] > 0
    result = cli("hash", "nothing-of-that-name")
    assert (result.exit_code, result.stdout) == (3, "")


def test_a_whole_tree_has_the_same_digest_in_another_place(cli, place, site, tmp_path):
    before = cli("hash", str(site / "other")).stdout.split()[-3]
    (site / "other").rename(tmp_path / "moved")
    assert cli("hash", str(tmp_path / "moved")).stdout.split()[-3] == before


def test_a_pipe_in_the_place_of_a_file_keeps_nobody_waiting(cli, place, site):
    assert cli("lock").exit_code == 0
    (site / "other" / "__init__.py").unlink()
    os.mkfifo(site / "other" / "__init__.py")
    result = cli("verify", "--json")
    assert result.exit_code == 1
    assert "is no regular file" in json.loads(result.stdout)["findings"][0]["text"]
    assert cli("hash", str(site / "other" / "__init__.py")).exit_code == 3


def test_an_operator_locks_verifies_and_runs(cli_process, place, site):
    """From the shell, as processes of their own."""
    (place / "hostkit.toml").write_text('[lock]\npolicy = "enforce"\n')

    def run(*arguments):
        process = cli_process(*arguments)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    status, _, err = run("execute", "other", "1")
    assert status == 3
    assert "IntegrityError: plugin 'other' is not loaded: the lock " in err
    assert run("lock")[0] == 0
    assert run("execute", "other", "1", "--isolation", "process")[:2] == (0, "1\n")
    assert run("verify")[0] == 0, "the caches that Python has written are no finding"
    (site / "other" / "__init__.py").write_text("import os\nos._exit(9)\n")
    status, _, err = run("execute", "other", "1", "--json")
    error = json.loads(err.splitlines()[-1])["error"]
    assert (status, error["type"]) == (3, "IntegrityError")
    assert "modified: other/__init__.py" in error["message"]
    assert run("verify")[0] == 1


def test_a_script_in_the_environment_is_known_whatever_interpreter_it_names(cli, place, site, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "tool"
    script.write_text("#!/one/bin/python\nprint(1)\n")
    (site / "other-1.0.dist-info" / "RECORD").write_text("../bin/tool,,\nother/__init__.py,,\n")
    assert cli("lock").exit_code == 0
    script.write_text("#!/another/bin/python3.11\nprint(1)\n")
    assert cli("verify").exit_code == 0
    script.write_text("#!/one/bin/python\nprint(2)\n")
    (finding,) = json.loads(cli("verify", "--json").stdout)["findings"]
    assert (finding["kind"], finding["file"]) == ("modified", "bin/tool")
