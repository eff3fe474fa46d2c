"""``hostkit config``: show with origins and without secrets, check with everything at once, schema."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from hostkit import HostConfig, _schemas
from hostkit._origins import Origins
from hostkit._reading import load

SANDBOX = "standard"  # and so nothing in the environment

ECHO = "class P:\n    def execute(self, ctx, request):\n        return request\n"

FILE = """\
[defaults]
timeout = "7s"
breaker = false
env = ["A_${NOT_SET:-B}"]

[plugins.My_Plugin]
isolation = "process"
retry = { attempts = 3 }

[plugins.My_Plugin.config]
password = "hunter2"
token = "x${TOKEN}"
deep = { "a b" = [1, "hunter3"] }
"""


@pytest.fixture
def configured(cli_place, install_demo, monkeypatch):
    monkeypatch.setenv("TOKEN", "hunter4")
    install_demo("my-plugin", ECHO)
    (cli_place / "hostkit.toml").write_text(FILE)
    return cli_place / "hostkit.toml"


def rows(result):
    assert result.exit_code == 0, result.stderr
    return {row["key"]: row for row in json.loads(result.stdout)}


def test_every_value_is_shown_with_its_origin(cli, configured, monkeypatch):
    monkeypatch.setenv("HOSTKIT_PLUGINS__MY_PLUGIN__RETRY", '{"wait": 2}')
    monkeypatch.setenv("HOSTKIT_DEFAULTS__WORKERS", "3")
    found = rows(cli("config", "show", "my-plugin", "--json"))

    def told(key):
        row = found[f"plugins.My_Plugin.{key}"]
        return row.get("value"), row["from"]

    assert told("timeout") == (7.0, f"{configured}:2 [defaults]")
    assert told("breaker") == (None, f"{configured}:3 [defaults]")
    assert told("isolation") == ("process", f"{configured}:7")
    assert told("retry.attempts") == (3, f"{configured}:8")
    assert told("retry.wait") == (2.0, "HOSTKIT_PLUGINS__MY_PLUGIN__RETRY")
    assert told("retry.max_wait") == (5.0, "default")
    assert told("workers") == (3, "HOSTKIT_DEFAULTS__WORKERS [defaults]")
    assert told("enabled") == (True, "default")
    assert not [key for key in found if not key.startswith("plugins.My_Plugin.")]
    assert rows(cli("config", "show", "My_Plugin", "--json")) == found
    assert cli("config", "show", "My_Plugin").stderr == ""


def test_people_get_a_line_for_each_value_and_the_origin_when_they_ask(cli, configured):
    lines = cli("config", "show", "my-plugin").stdout.splitlines()
    assert "plugins.My_Plugin.timeout = 7.0" in lines
    told = dict(line.split("  # ") for line in cli("config", "show", "my-plugin", "--origin").stdout.splitlines())
    assert {key.rstrip() for key in told} == set(lines)
    assert next(origin for key, origin in told.items() if ".isolation = " in key) == f"{configured}:7"


def test_without_a_name_it_is_the_host_and_every_plugin(cli, configured, install_demo):
    install_demo("other", ECHO)
    configured.write_text(FILE + "[plugins.absent]\nworkers = 2\n")
    found = rows(cli("config", "show", "--json"))
    assert found["template.preload"]["value"] == ["pydantic"]
    assert found["discovery.paths"]["origin"] == "default"
    assert (found["defaults.timeout"]["line"], found["defaults.timeout"]["table"]) == (2, None)
    assert found["plugins.other.timeout"]["from"] == f"{configured}:2 [defaults]"
    assert found["plugins.absent.workers"]["value"] == 2
    assert {key.split(".")[1] for key in found if key.startswith("plugins.")} == {"My_Plugin", "other", "absent"}


@pytest.mark.parametrize("options", [[], ["--json"], ["--origin"], ["--show-config"], ["--show-config", "--json", "--origin"]])
def test_what_the_environment_put_into_a_text_is_never_shown(cli, configured, monkeypatch, options):
    monkeypatch.setenv("NOT_SET", "hunter5")
    result = cli("config", "show", *options)
    assert "hunter4" not in result.output and "hunter5" not in result.output
    assert "A_${NOT_SET:-B}" in result.stdout


def test_a_plugin_s_own_values_are_shown_only_when_they_are_asked_for(cli, configured, monkeypatch):
    monkeypatch.setenv("HOSTKIT_PLUGINS__MY_PLUGIN__CONFIG__PIN", "hunter6")
    for options in ([], ["--json"], ["--origin"]):
        assert "hunter" not in cli("config", "show", *options).stdout
    found = rows(cli("config", "show", "my-plugin", "--json"))
    assert found["plugins.My_Plugin.config.password"]["masked"] == "***"
    assert found["plugins.My_Plugin.config.password"]["line"] == 11
    found = rows(cli("config", "show", "my-plugin", "--json", "--show-config"))
    assert found["plugins.My_Plugin.config.password"]["value"] == "hunter2"
    assert found["plugins.My_Plugin.config.token"]["reference"] == "x${TOKEN}"
    assert found['plugins.My_Plugin.config.deep."a b"']["value"] == [1, "hunter3"]
    assert found["plugins.My_Plugin.config.pin"]["value"] == "hunter6"


def test_a_name_that_nobody_has_is_not_found(cli, configured):
    result = cli("config", "show", "my-plugni")
    assert (result.exit_code, "did you mean 'my-plugin'" in result.stderr) == (3, True)


def test_a_wrong_configuration_has_no_values(cli, configured):
    configured.write_text("\n[defaults]\ntimeout = 'soon'\n")
    result = cli("config", "show")
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{configured}:3: defaults.timeout: " in result.stderr


@pytest.mark.parametrize("name", ["c.yaml", "c.json"])
def test_every_format_has_its_lines(cli, cli_place, name):
    (cli_place / name).write_text('{"defaults":\n  {"timeout": 3,\n   "workers": 2}}')
    found = rows(cli("--config", name, "config", "show", "--json"))
    assert [found[f"defaults.{key}"]["line"] for key in ("timeout", "workers")] == [2, 3]


def test_what_an_application_passes_itself_is_an_argument():
    config = load({"defaults": {"timeout": 3}, "plugins": {"calc": {"retry": {"attempts": 2}, "config": {"a": 1}}}})
    found = {".".join(map(str, value.keys)): str(value.origin) for value in Origins.of_argument(config).of_plugin("calc")}
    assert found["plugins.calc.timeout"] == "argument [defaults]"
    assert found["plugins.calc.retry.attempts"] == "argument"
    assert found["plugins.calc.retry.wait"] == "default"
    assert found["plugins.calc.config.a"] == "argument"


def test_every_key_is_shown_once():
    shown = [".".join(map(str, value.keys)) for value in Origins.of_argument(HostConfig()).of_host()]
    assert len(shown) == len(set(shown))
    assert {key.split(".")[0] for key in shown} == set(HostConfig.model_fields) - {"plugins"}


# config check


def test_a_configuration_that_is_right_is_valid(cli, configured):
    result = cli("config", "check")
    assert (result.exit_code, result.stderr) == (0, "")
    assert (
        result.stdout
        == f"{configured}:4: warning: defaults.env: the environment variable A_B is not set here, so the plugin would not see it\n{configured}: valid, 1 warning\n"
    )


def test_nothing_to_check_is_the_environment(cli, monkeypatch):
    assert cli("config", "check").stdout == "the environment: valid\n"
    monkeypatch.setenv("HOSTKIT_DEFAULTS__TIMEOUT", "soon")
    result = cli("config", "check")
    assert result.exit_code == 2
    assert result.stdout.startswith("HOSTKIT_DEFAULTS__TIMEOUT: error: defaults.timeout: expected seconds")


def test_all_findings_are_told_at_once(cli, cli_place, install_demo, monkeypatch):
    install_demo("calculator", ECHO)
    monkeypatch.setenv("HOSTKIT_DEFAULTS__STANDBY", "-1")
    monkeypatch.setenv("HOSTKIT_PLUGINS__CALC__WORKERS", "2")
    (cli_place / "other.toml").write_text(
        "[plugins.calclator]\nisolation = 'sandbox'\nworkers = 0\n[plugins.calculator.config]\na = '${UNSET}'\n"
    )
    result = cli("config", "check", "other.toml")
    assert result.exit_code == 2
    path = cli_place / "other.toml"
    lines = result.stdout.splitlines()
    for line, words in zip(
        lines,
        [
            f"{path}:2: error: plugins.calclator.isolation: expected 'none', 'auto' or 'process'; found 'sandbox'",
            f"{path}:3: error: plugins.calclator.workers: expected ",
            f"{path}:5: error: plugins.calculator.config.a: the environment variable UNSET is not set",
            "HOSTKIT_DEFAULTS__STANDBY: error: defaults.standby: ",
            "HOSTKIT_PLUGINS__CALC__WORKERS: warning: plugins.calc: no plugin of that name is installed for demo.plugins",
            f"{path}:1: warning: plugins.calclator: no plugin of that name is installed for demo.plugins; did you mean 'calculator'?",
            f"{path}: 4 errors, 2 warnings",
        ],
        strict=True,
    ):
        assert line.startswith(words)
    found = json.loads(cli("config", "check", "other.toml", "--json").stdout)
    assert (found["file"], found["errors"], found["warnings"]) == (str(path), 4, 2)
    first = found["findings"][0]
    assert (first["state"], first["where"], first["line"], first["key"]) == ("error", str(path), 2, "plugins.calclator.isolation")


def test_a_file_that_cannot_be_read_is_a_finding_with_its_line(cli, cli_place):
    (cli_place / "hostkit.toml").write_text("[defaults]\ntimeout = \n")
    result = cli("config", "check")
    assert (result.exit_code, result.stdout.startswith(f"{cli_place / 'hostkit.toml'}:2: error: Invalid value")) == (2, True)
    assert cli("config", "check", "absent.toml").stdout.startswith(f"{cli_place / 'absent.toml'}: error: No such file")


def test_plugins_in_configured_directories_are_installed_also_while_the_rest_is_wrong(cli, cli_place):
    place = cli_place / "plugins" / "calc"
    place.mkdir(parents=True)
    (place / "plugin.toml").write_text('entry_point = "calc_module:P"\n')
    (place / "calc_module.py").write_text(ECHO)
    text = '[discovery]\npaths = ["plugins", "nowhere"]\n[plugins.calc]\nworkers = 2\n'
    (cli_place / "hostkit.toml").write_text(text)
    assert (
        f"{cli_place / 'hostkit.toml'}:2: warning: discovery.paths: {cli_place / 'nowhere'} is no directory"
        in cli("config", "check").stdout
    )
    (cli_place / "hostkit.toml").write_text(text + "timeout = 'soon'\n")
    assert "no plugin of that name" not in cli("config", "check").stdout


# config schema and the verb itself


def test_the_schemas_are_printed(cli):
    assert json.loads(cli("config", "schema").stdout) == json.loads(_schemas.text(_schemas.configuration()))
    assert json.loads(cli("config", "schema", "--manifest").stdout) == json.loads(_schemas.text(_schemas.manifest()))


def test_config_alone_and_with_a_wrong_verb_says_what_there_is(cli):
    result = cli("config")
    assert (result.exit_code, "schema" in result.stderr) == (2, True)
    result = cli("config", "chek")
    assert (result.exit_code, "no verb 'chek'; did you mean 'check'?" in result.stderr) == (2, True)
    for verb in ("show", "check", "schema"):
        assert cli("config", verb, "--help").stdout.startswith(f"Usage: hostkit config {verb} ")


def test_a_listing_loads_neither_models_nor_editors(cli_place, install_demo):
    install_demo("calculator", ECHO)
    (cli_place / "hostkit.toml").write_text("[plugins.calculator]\nisolation = 'process'\n")
    code = "import sys; from hostkit.cli import main; main(['--app', 'demo', 'list']); print(*sys.modules, file=sys.stderr)"
    for _ in range(2):
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("calculator\t")
    assert not {"pydantic", "tomlkit", "yaml"} & set(ran.stderr.split())
