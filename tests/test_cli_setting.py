"""``hostkit isolate``, ``enable`` and ``disable``: what they write, what they keep, and what they refuse."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostkit import ConfigError
from hostkit._parsing import parse
from hostkit._reading import load
from hostkit.cli._edited import edited
from hostkit.cli._replaced import replaced

ECHO = "class P:\n    def execute(self, ctx, request):\n        return request\n"


@pytest.fixture
def place(cli_place, install_demo):
    install_demo("calculator", ECHO)
    install_demo("other", ECHO)
    return cli_place


def test_a_file_is_made_where_there_is_none(cli, place):
    result = cli("isolate", "calculator", "process")
    assert (result.exit_code, result.stderr) == (0, "")
    assert (place / "hostkit.toml").read_text() == '[plugins.calculator]\nisolation = "process"\n'
    assert result.stdout.splitlines()[0] == f'{place / "hostkit.toml"}:2: plugins.calculator.isolation = "process"'
    assert "running host that watches its configuration" in result.stdout
    assert stat.S_IMODE((place / "hostkit.toml").stat().st_mode) == 0o666 & ~umask()
    assert cli("list").stdout.split("\t")[3] == "process"


def umask():
    old = os.umask(0)
    os.umask(old)
    return old


def test_disable_and_enable_switch_a_plugin_off_and_on(cli, place):
    assert cli("disable", "calculator").exit_code == 0
    assert cli("list").stdout.split("\t")[3] == "disabled"
    result = cli("enable", "calculator")
    assert "plugins.calculator.enabled = true (was false)" in result.stdout
    assert cli("list").stdout.split("\t")[3] == "none"
    assert "already; nothing was written" in cli("enable", "calculator").stdout


COMMENTED = {
    "hostkit.toml": """\
# Ours. Don't touch.
[defaults]   # for all
timeout = "${CALCULATOR_TIMEOUT:-7s}"

# adds
[plugins.calculator] # by us
isolation = 'none'   # for speed
config = { token = "${TOKEN}" }

[template]
preload = [ ] # none
""",
    "pyproject.toml": """\
[project]
name = "x"   # ours
released = 2001-01-01

[tool.hostkit.plugins.calculator] # by us
isolation = 'none'   # for speed

[tool.other]
a = 1
""",
    "c.yaml": """\
# Ours.
plugins:
  # adds
  calculator:   # by us
    isolation: none   # for speed
    config: {token: "${TOKEN}"}

# the rest
template: {preload: []}
""",
}


@pytest.mark.parametrize("name", COMMENTED)
def test_comments_and_layout_stay(cli, place, name):
    path = place / name
    path.write_text(COMMENTED[name])
    options = ["--config", name] if name == "c.yaml" else []
    result = cli("isolate", "calculator", "process", *options)
    assert result.exit_code == 0, result.stderr
    word = {"c.yaml": "process"}.get(name, '"process"')
    expected = [
        line.replace("none ", f"{word} ", 1).replace("'none'", word) if "for speed" in line else line
        for line in COMMENTED[name].splitlines()
    ]
    assert path.read_text().splitlines() == expected
    assert cli("disable", "other", *options).exit_code == 0
    added = [line for line in path.read_text().splitlines() if line not in expected]
    assert [line.strip() for line in added] in (
        ["[plugins.other]", "enabled = false"],
        ["[tool.hostkit.plugins.other]", "enabled = false"],
        ["other:", "enabled: false"],
    )
    assert [line for line in path.read_text().splitlines() if line in expected and line] == [line for line in expected if line]


def test_json_keeps_its_indentation(cli, place):
    (place / "c.json").write_text('{\n\t"$schema": "hostkit.schema.json",\n\t"plugins": {\n\t\t"calculator": {}\n\t}\n}\n')
    result = cli("isolate", "calculator", "auto", "--config", "c.json", "--json")
    assert (place / "c.json").read_text() == (
        '{\n\t"$schema": "hostkit.schema.json",\n\t"plugins": {\n\t\t"calculator": {\n\t\t\t"isolation": "auto"\n\t\t}\n\t}\n}\n'
    )
    assert json.loads(result.stdout) == {
        "plugin": "calculator",
        "key": "plugins.calculator.isolation",
        "value": "auto",
        "before": None,
        "file": str(place / "c.json"),
        "line": 5,
        "written": True,
        "warnings": [],
    }
    (place / "d.json").write_text('{"plugins":{"calculator":{"isolation":"none"}}}')
    cli("isolate", "calculator", "process", "--config", "d.json")
    assert (place / "d.json").read_text() == '{"plugins":{"calculator":{"isolation":"process"}}}'


def test_the_table_is_the_one_that_the_file_has_however_it_is_spelled(cli, place, install_demo):
    install_demo("my-plugin", ECHO)
    (place / "hostkit.toml").write_text("[plugins.My_Plugin]\nworkers = 2\n")
    assert cli("disable", "my-plugin").exit_code == 0
    assert (place / "hostkit.toml").read_text() == "[plugins.My_Plugin]\nworkers = 2\nenabled = false\n"


def test_a_name_that_nobody_has_is_not_found_and_nothing_is_written(cli, place):
    result = cli("isolate", "calculater", "process")
    assert (result.exit_code, "did you mean 'calculator'?" in result.stderr) == (3, True)
    assert cli("isolate", "calculator", "proces").exit_code == 2
    assert not (place / "hostkit.toml").exists()


@pytest.mark.parametrize("text", ["[defaults]\ntimeout = 'soon'\n", "[defaults\n", "plugins = 3\n"])
def test_a_file_that_is_wrong_is_left_alone(cli, place, text):
    path = place / "hostkit.toml"
    path.write_text(text)
    result = cli("isolate", "calculator", "process")
    assert (result.exit_code, f"ConfigError: {path}:" in result.stderr) == (2, True)
    assert path.read_text() == text


def test_a_layout_that_only_a_person_can_edit_is_refused_with_the_lines_to_write(cli, place):
    text = "plugins:\n  calculator: {\n    workers: 2, # two\n  }\n"
    (place / "c.yaml").write_text(text)
    result = cli("isolate", "calculator", "process", "--config", "c.yaml")
    assert result.exit_code == 2
    assert "plugins:\n    calculator:\n      isolation: process" in result.stderr
    assert (place / "c.yaml").read_text() == text


def test_a_file_that_was_named_and_is_not_there_is_not_made(cli, place):
    result = cli("isolate", "calculator", "process", "--config", "typo.toml")
    assert (result.exit_code, "No such file" in result.stderr) == (2, True)
    assert sorted(os.listdir(place)) == []


def test_what_makes_it_ineffective_is_a_warning(cli, place, install_demo, monkeypatch):
    install_demo("wishful", ECHO, manifest='isolation = "process"\n')
    install_demo("broken", ECHO, manifest="nonsense = 1\n")
    assert "the manifest of wishful asks for 'process', which is more" in cli("isolate", "wishful", "none").stderr
    assert "asks for" not in cli("isolate", "wishful", "process").stderr
    assert "broken is broken: plugin 'broken': " in cli("disable", "broken").stderr
    monkeypatch.setenv("HOSTKIT_PLUGINS__CALCULATOR", '{"isolation": "process"}')
    assert "warning: HOSTKIT_PLUGINS__CALCULATOR is set here and goes before" in cli("isolate", "calculator", "none").stderr
    assert cli("isolate", "calculator", "process").stderr == ""
    cli("disable", "other")
    warnings = json.loads(cli("isolate", "other", "auto", "--json").stdout)["warnings"]
    assert warnings == ["other is disabled"]
    (place / "c.toml").write_text("[discovery]\nallowed_isolation = ['none']\n")
    kept_out = cli("isolate", "other", "process", "--config", "c.toml").stderr
    assert "warning: other is kept out: it would run with isolation 'process'" in kept_out


def test_variables_that_are_not_set_here_are_no_obstacle(cli, place, monkeypatch):
    monkeypatch.delenv("TOKEN", raising=False)
    (place / "hostkit.toml").write_text("[plugins.calculator.config]\ntoken = '${TOKEN}'\n")
    result = cli("isolate", "calculator", "process")
    assert result.exit_code == 0
    assert "hostkit.toml:5: plugins.calculator.config.token: the environment variable TOKEN is not set" in result.stderr
    monkeypatch.setenv("TOKEN", "x")
    assert load(place / "hostkit.toml").plugin("calculator").isolation == "process"


def test_a_link_stays_and_its_target_keeps_its_mode(cli, place, tmp_path):
    target = tmp_path / "elsewhere" / "real.toml"
    target.parent.mkdir()
    target.write_text("# ours\n")
    target.chmod(0o640)
    (place / "hostkit.toml").symlink_to(target)
    assert cli("isolate", "calculator", "process").exit_code == 0
    assert (place / "hostkit.toml").is_symlink()
    assert (target.read_text(), stat.S_IMODE(target.stat().st_mode)) == (
        '# ours\n\n[plugins.calculator]\nisolation = "process"\n',
        0o640,
    )
    assert os.listdir(target.parent) == ["real.toml"]


def test_a_host_takes_over_what_was_written(cli, place, new_host):
    (place / "hostkit.toml").write_text("# ours\n")
    host = new_host("demo", config=place / "hostkit.toml")
    host.load("calculator")
    assert host.info("calculator").metadata["hostkit"]["isolation"] == "none"
    cli("isolate", "calculator", "process")
    host.reload_config()
    assert host.info("calculator").metadata["hostkit"]["isolation"] == "process"


# Putting a file in another's place.


def test_two_at_once_lose_nothing(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"")

    def add():
        for _ in range(20):
            replaced(path, lambda data: data + b"x")

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() == b"x" * 80
    assert os.listdir(tmp_path) == ["file"]


def test_commands_at_once_lose_nothing(cli_process, place, install_demo):
    names = [f"p{number}" for number in range(4)]
    for name in names:
        install_demo(name, ECHO)
    processes = [cli_process("disable", name) for name in names]
    assert [process.wait() for process in processes] == [0] * 4
    assert {name: plugin.enabled for name, plugin in load(place / "hostkit.toml").plugins.items()} == dict.fromkeys(names, False)


def test_a_change_by_somebody_without_the_lock_is_seen_and_kept(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"a")
    seen = []

    def change(data):
        seen.append(data)
        if len(seen) == 1:
            path.write_bytes(b"b")  # an editor that saves at that moment
        return data + b"!"

    replaced(path, change)
    assert (seen, path.read_bytes()) == ([b"a", b"b"], b"b!")


def test_waiting_for_somebody_else_has_an_end(tmp_path):
    code = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match="somebody else is changing the configuration"):
            replaced(tmp_path / "file", lambda data: b"x", patience=0.1)
        other.stdin.close()
    assert os.listdir(tmp_path) == []


def test_a_change_that_fails_leaves_everything_as_it_was(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"a")

    def change(data):
        raise ConfigError("no")

    with pytest.raises(ConfigError, match="no"):
        replaced(path, change)
    with pytest.raises(ConfigError, match="can't be written: No such file"):
        replaced(tmp_path / "nowhere" / "file", lambda data: b"x")
    assert (os.listdir(tmp_path), path.read_bytes()) == (["file"], b"a")


def test_a_read_only_file_is_not_written(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"a")
    path.chmod(0o444)
    if os.geteuid() == 0:  # who may write what is read-only
        monkeypatch.setattr(os, "access", lambda file, mode: False)
    with pytest.raises(ConfigError, match="read-only"):
        replaced(path, lambda data: b"x")
    assert (os.listdir(tmp_path), path.read_bytes()) == (["file"], b"a")


# Layouts. What is edited is read again and compared by the code itself: here it only must not be refused.

LAYOUTS = [
    (".toml", "# only\n"),
    (".toml", "plugins.a.workers = 1\nx.y = 2\n"),
    (".toml", "plugins = { a = { workers = 1 } } # c\n"),
    (".toml", "plugins = {}\n"),
    (".toml", "plugins.b = { workers = 1 }\n"),
    (".toml", "[plugins]\nb.workers = 1 # x\nc.workers = 2\n"),
    (".toml", "[plugins.b]\n[x]\n[plugins.c]\n"),
    (".toml", "[plugins.b.config]\na=1\n"),
    (".toml", "[plugins.b.config]\na=1\n[plugins.b]\nworkers=2\n"),
    (".toml", "[plugins.b]\r\nisolation = 'none' # c\r\n[x]\r\na=1\r\n"),
    (".toml", "[plugins.a]\nx = '''\n[no]\n'''\n# foot"),
    (".toml", "plugins.b.isolation = 'none'\n"),
    (".toml", "[plugins.b]\nworkers = 1"),
    (".yaml", "plugins: {}\n"),
    (".yaml", "plugins: {a: {}}\n"),
    (".yaml", "plugins:\n  b:\n    workers: 1 # x"),
    (".yaml", "plugins:\n  b:\n    config:\n      a: |\n        text\n      l:\n      - x: 2\n  c: {}\n"),
    (".yaml", "{plugins: {b: {isolation: none}}}"),
    (".yaml", "a: 1\n"),
    (".yaml", "plugins:\n  b:\n    isolation: # none\n"),
    (".yaml", "---\nplugins: {}\n...\n"),
    (".yaml", "plugins:\n    b:\n        env:\n        - A\n\n# foot\n"),
    (".json", "{}"),
    (".json", '{"plugins": {"b": {"isolation": "none", "workers": 2}}}\n'),
]


@pytest.mark.parametrize(("suffix", "text"), LAYOUTS)
@pytest.mark.parametrize("value", ["process", False])
def test_every_common_layout_can_be_edited(suffix, text, value):
    key = "isolation" if value else "enabled"
    after = edited(text, suffix, ("plugins", "b", key), value)
    assert parse(after.encode(), suffix)["plugins"]["b"][key] == value
    assert all(part in after for part in text.split() if part.startswith("#"))
    assert ("\r\n" in after) == ("\r\n" in text)


@given(
    st.dictionaries(st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", fullmatch=True), st.booleans(), max_size=4),
    st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", fullmatch=True),
    st.sampled_from([".toml", ".yaml", ".json"]),
)
def test_any_name_can_be_added_in_every_format(tables, name, suffix):
    text = "{}" if suffix != ".toml" else ""
    for each, value in {**tables, name: True}.items():
        text = edited(text, suffix, ("plugins", each, "enabled"), value)
    assert parse(text.encode(), suffix)["plugins"] == {each: {"enabled": value} for each, value in {**tables, name: True}.items()}
