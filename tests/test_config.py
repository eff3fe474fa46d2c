from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

import hostkit
from hostkit import ConfigError, HostConfig, PluginConfig, _schemas
from hostkit._config import AuditConfig, Defaults, DiscoveryConfig, ExportersConfig, LockConfig, TemplateConfig
from hostkit._reading import load


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    """Whatever the environment of the tests sets."""
    import os

    for variable in os.environ:
        if variable.startswith("HOSTKIT_"):
            monkeypatch.delenv(variable)


@pytest.fixture
def file(tmp_path):
    """Write a configuration file and return its path."""

    def write(text, name="hostkit.toml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


SCHEMA = jsonschema.Draft7Validator(_schemas.configuration())


def refusal(source):
    with pytest.raises(ConfigError) as caught:
        load(source)
    return str(caught.value)


EXAMPLE = {
    "defaults": {"timeout": "30s"},
    "plugins": {
        "calculator": {
            "enabled": True,
            "isolation": "process",
            "workers": 2,
            "config": {"precision": 4},
            "retry": {"attempts": 3, "wait": "100ms", "max_wait": "5s"},
            "rate": {"per_second": 10, "burst": 20},
        }
    },
}

EXAMPLE_TOML = """
[{0}defaults]
timeout = "30s"
[{0}plugins.calculator]
enabled = true
isolation = "process"
workers = 2
config = {{ precision = 4 }}
retry = {{ attempts = 3, wait = "100ms", max_wait = "5s" }}
rate = {{ per_second = 10, burst = 20 }}
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hostkit.toml", EXAMPLE_TOML.format("")),
        ("pyproject.toml", EXAMPLE_TOML.format("tool.hostkit.") + "[tool.other]\nreleased = 2001-01-01\n"),
        ("hostkit.json", json.dumps(EXAMPLE)),
        ("hostkit.yaml", yaml.safe_dump(EXAMPLE)),
        ("anything.yml", yaml.safe_dump(EXAMPLE)),
    ],
)
def test_every_format_says_the_same(file, name, text):
    config = load(file(text, name))
    assert config == load(EXAMPLE)
    calculator = config.plugin("calculator")
    assert (calculator.timeout, calculator.isolation, calculator.workers, calculator.config) == (
        30.0,
        "process",
        2,
        {"precision": 4},
    )
    assert (calculator.retry.attempts, calculator.retry.wait, calculator.retry.max_wait) == (3, 0.1, 5.0)
    assert (calculator.rate.per_second, calculator.rate.burst) == (10, 20)


def test_nothing_is_the_defaults():
    assert load(None) == load({}) == HostConfig()
    assert load(None).plugin("calculator") == PluginConfig()


def test_a_host_takes_a_file_a_mapping_or_an_object(file, new_host):
    path = file(EXAMPLE_TOML.format(""))
    for source in (path, str(path), EXAMPLE, load(EXAMPLE)):
        assert new_host(config=source).config.plugin("calculator").workers == 2
    with pytest.raises(ConfigError, match="expected a HostConfig, a mapping or the path of a file, found 3"):
        hostkit.Host(config=3)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("hostkit.toml", "[defaults\n", "Expected"),
        ("hostkit.toml", "[defaults]\ntimeout = 2001-01-01", "defaults.timeout: has a date"),
        ("hostkit.json", "[]", "expected a mapping at the top"),
        ("hostkit.json", '{"defaults": {}, "defaults": {}}', "'defaults' twice"),
        ("hostkit.yaml", "defaults: &a {}\nplugins: {x: *a}", "2: has an alias"),
        ("hostkit.ini", "[defaults]", r"suffix '.ini'"),
        ("pyproject.toml", "[project]\nname = 'x'", "has no table [tool.hostkit]"),
        ("pyproject.toml", "[tool]\nhostkit = 3", "expected a mapping at tool.hostkit, found a int"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(file, name, text, words):
    path = file(text, name)
    said = refusal(path)
    assert said.startswith((f"{path}: ", f"{path}:1: ", f"{path}:2: "))
    assert words in said


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    assert refusal(tmp_path / "hostkit.toml") == f"{tmp_path / 'hostkit.toml'}: No such file or directory"
    assert "no regular file" in refusal(tmp_path_of(tmp_path))


def tmp_path_of(tmp_path):
    place = tmp_path / "directory.toml"
    place.mkdir()
    return place


WRONG = {
    "timeout": [0, -1, True, "soon", "5 parsecs", [], math.inf, math.nan, 10**400, "400d", None],
    "start": ["", "fork", "Template", True, 1, None],
    "start_timeout": [0, "x"],
    "close_timeout": [0, "x"],
    "cancel_grace": [0, "x"],
    "isolation": ["", "sandbox", "Process", "off", 0, 1, [], "venv"],
    "workers": [0, -1, 1.5, True, "2", 10_000],
    "concurrency": [0, -1, 1.5, True, "2", 10_000],
    "standby": [-1, 1.5, True, "2", 10_000],
    "max_message_mb": [0, -1, 1025, "64", True, 1.5],
    "max_buffers_mb": [0, -1, (1 << 20) + 1, "64", True, 1.5],
    "require_enforcement": [0, 1, "yes", None, "true"],
    "sandbox": ["", "none", "Standard", "on", True, False, 1, []],
    "permissions": [None, [], "all", True, {"network": "yes"}, {"read": ["data"]}, {"execute": True}],
    "env": ["HOME", [1], ["A B"], ["A=B"], [""], None],
    "resources.max_memory_mb": [0, 31, -1, "256", True, math.inf],
    "resources.max_cpu_cores": [0, -1, 0.5, True],
    "resources.max_cpu_seconds": [0, -1, math.nan, math.inf, "5"],
    "resources.max_open_files": [0, 31],
    "resources.max_processes": [0, -1, 0.5, True, "5"],
    "resources.max_threads": [0, -1, 0.5, True, "5"],
    "resources.max_temporary_mb": [0, -1, 0.5, True, "5"],
    "recycle.max_calls": [0, -1, 0.5, True, "5"],
    "recycle.max_age": [0, -1, "5", "5 parsecs", True],
    "recycle.max_memory_mb": [0, -1, True, "5"],
    "rate.per_second": [0, -1, math.inf, math.nan, "10", True],
    "rate.burst": [0, -1, 1.5, True],
    "bulkhead.calls": [0, -1, 1.5, True, "3"],
    "bulkhead.queue": [-1, 1.5, True, "3"],
    "bulkhead.queue_timeout": [0, "x", True],
    "breaker.failures": [0, -1, 1.5, True, "3"],
    "breaker.failure_rate": [0, -1, 1.5, math.nan, "half", True],
    "breaker.window": [0, "x"],
    "breaker.minimum": [0, 1.5, True],
    "breaker.recovery": [0, "x"],
    "breaker.probes": [0, 1001, True],
    "breaker.successes": [0, 1001, True],
    "breaker.plugin_errors": [0, 1, "yes", None],
    "health.interval": [0, "x"],
    "health.timeout": [0, "x"],
    "health.failures": [0, 1001, True],
    "health.recoveries": [0, 1001, True],
    "health.action": ["", "Restart", "off", True, None],
    "auto.openings": [0, 1001, True],
    "retry.attempts": [0, -1, 101, 1.5, True, "3"],
    "retry.wait": [0, "x", True],
    "retry.max_wait": [0, "x"],
    "restarts.budget": [-1, True, "3", 1.5],
    "restarts.window": [0, "x"],
    "heartbeat.interval": [0, "x"],
    "heartbeat.misses": [0, 101, True],
    "rate": [3, [], "fast", {}, True],
    "bulkhead": [3, [], "narrow", {}, True],
    "breaker": [3, [], "off", True],
    "health": [3, [], "off", True],
    "auto": [3, False, True],
    "retry": [3, [], "never"],
    "restarts": [3, True],
    "heartbeat": [3, False],
}


@pytest.mark.parametrize("key", WRONG)
@pytest.mark.parametrize("table", ["defaults", "plugins.calculator"])
def test_a_wrong_value_is_refused_with_its_key_and_what_was_found(table, key):
    for value in WRONG[key]:
        data = value
        for part in reversed(f"{table}.{key}".split(".")):
            data = {part: data}
        said = refusal(data)
        assert said.startswith(f"the configuration: {table}."), said
        assert f"{table}.{key}" in said
        assert "found" in said or "unknown key" in said or "is missing" in said, said


@pytest.mark.parametrize("key", WRONG)
@pytest.mark.parametrize("table", ["defaults", "plugins.calculator"])
def test_a_wrong_value_of_every_key_is_refused_by_the_schema_too(table, key):
    passed = []
    for value in WRONG[key]:
        data = value
        for part in reversed(f"{table}.{key}".split(".")):
            data = {part: data}
        if SCHEMA.is_valid(data):
            passed.append(value)
    # Numbers that JSON has no words for, and a time that is too long as a text.
    assert all(isinstance(value, float) or value == "400d" for value in passed), passed
    assert len(passed) < len(WRONG[key])


def test_there_is_no_key_without_a_test_of_it():
    assert {key.split(".")[0] for key in WRONG} == set(Defaults.model_fields)
    assert set(PluginConfig.model_fields) - set(Defaults.model_fields) == {"enabled", "config"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"default": {}}, "default: unknown key; did you mean 'defaults'?"),
        ({"defaults": {"time_out": 3}}, "defaults.time_out: unknown key; did you mean 'timeout'?"),
        ({"timeout": 3}, "timeout: unknown key; did you mean 'defaults.timeout'?"),
        ({"plugins": {"calc": {"isolaton": "process"}}}, "plugins.calc.isolaton: unknown key; did you mean 'isolation'?"),
        ({"plugins": {"calc": {"retry": {"attempt": 3}}}}, "plugins.calc.retry.attempt: unknown key; did you mean 'attempts'?"),
        ({"plugins": {"calc": {"attempts": 3}}}, "plugins.calc.attempts: unknown key; did you mean 'plugins.calc.retry.attempts'?"),
        ({"discovery": {"path": []}}, "discovery.path: unknown key; did you mean 'paths'?"),
        ({"defaults": {"enabled": False}}, "defaults.enabled: unknown key; did you mean 'plugins.NAME.enabled'?"),
        ({"plugins": {"calc": {"fuse": {}}}}, "plugins.calc.fuse: unknown key"),
        ({"plugins": {"a b": {}}}, "'a b' is no name for a plugin"),
        ({"plugins": {"../x": {}}}, "no name for a plugin"),
        ({"plugins": []}, "plugins: expected a valid dictionary; found []"),
        ({"plugins": {"calc": 3}}, "plugins.calc"),
        ({"template": {"preload": "pydantic"}}, "template.preload: expected a valid list; found 'pydantic'"),
        ({"template": {"preload": ["no module"]}}, "template.preload.0"),
        ({"template": {"preload": [""]}}, "template.preload.0"),
        ({"plugins": {"calc": {"preload": []}}}, "plugins.calc.preload: unknown key"),
        ({"discovery": {"paths": "plugins"}}, "discovery.paths: expected a valid list; found 'plugins'"),
        ({"discovery": {"paths": [3]}}, "discovery.paths.0"),
        ({1: 2}, "1: "),
    ],
)
def test_a_wrong_key_is_told_with_what_was_probably_meant(data, words):
    assert words in refusal(data)


def test_a_plugin_s_own_values_are_not_shown_in_errors():
    said = refusal({"plugins": {"calc": {"config": "hunter2"}}})
    assert "plugins.calc.config: expected a valid dictionary; found str" in said
    assert "hunter2" not in said


def test_a_table_for_a_plugin_that_is_not_installed_is_no_error(new_host):
    assert new_host(config={"plugins": {"nobody-has-this": {"isolation": "process"}}}).specs is not None


# One plugin's table over the defaults.


def test_a_plugin_s_table_goes_before_the_defaults_key_by_key():
    config = load(
        {
            "defaults": {"timeout": 7, "workers": 3, "env": ["A"], "isolation": "process"},
            "plugins": {"calc": {"timeout": 9, "env": ["B"], "enabled": False}},
        }
    )
    calc, other = config.plugin("calc"), config.plugin("other")
    assert (calc.timeout, calc.workers, calc.env, calc.isolation, calc.enabled) == (9, 3, ["B"], "process", False)
    assert (other.timeout, other.workers, other.env, other.isolation, other.enabled) == (7, 3, ["A"], "process", True)
    assert (calc.close_timeout, other.close_timeout) == (5, 5)


def test_tables_in_a_table_are_merged_key_by_key_too():
    config = load(
        {
            "defaults": {
                "retry": {"attempts": 3, "wait": 1},
                "resources": {"max_memory_mb": 64, "max_open_files": 50},
                "rate": {"per_second": 1},
            },
            "plugins": {"calc": {"retry": {"wait": 2}, "resources": {"max_memory_mb": 128}, "rate": {"per_second": 5, "burst": 2}}},
        }
    )
    calc = config.plugin("calc")
    assert (calc.retry.attempts, calc.retry.wait, calc.retry.max_wait) == (3, 2, 5)
    assert (calc.resources.max_memory_mb, calc.resources.max_open_files) == (128, 50)
    assert (calc.rate.per_second, calc.rate.burst) == (5, 2)
    assert config.plugin("other").rate.burst == 1


def test_null_takes_a_default_back():
    config = load(
        {"defaults": {"rate": {"per_second": 1}, "isolation": "process"}, "plugins": {"calc": {"rate": None, "isolation": None}}}
    )
    assert (config.plugin("calc").rate, config.plugin("calc").isolation) == (None, None)


@pytest.mark.parametrize(("table", "name"), [("my_plugin", "my-plugin"), ("My.Plugin", "my_plugin"), ("calc", "CALC")])
def test_a_table_is_for_its_plugin_however_the_name_is_spelled(table, name):
    assert load({"plugins": {table: {"isolation": "process"}}}).plugin(name).isolation == "process"


def test_two_tables_for_one_plugin_are_an_error():
    assert "[plugins.my-plugin] and [plugins.My_Plugin] are one plugin" in refusal({"plugins": {"my-plugin": {}, "My_Plugin": {}}})


@given(
    st.dictionaries(st.sampled_from(["timeout", "workers", "close_timeout"]), st.integers(1, 9)),
    st.dictionaries(st.sampled_from(["timeout", "workers"]), st.integers(1, 9)),
)
def test_what_holds_is_the_nearest_word(defaults, own):
    merged = load({"defaults": defaults, "plugins": {"calc": own}}).plugin("calc")
    for key in ("timeout", "workers", "close_timeout"):
        assert getattr(merged, key) == own.get(key, defaults.get(key, getattr(PluginConfig(), key)))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("5s", 5), ("1.5s", 1.5), ("2m", 120), ("1h", 3600), ("1d", 86400), (" 5 s ", 5), (5, 5), (0.25, 0.25)],
)
def test_durations_are_seconds(text, seconds):
    assert load({"defaults": {"timeout": text}}).defaults.timeout == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["5", "s", "-5s", "5 sec", "5S", "5s 3s", "1e3s", "٥", "∞s", "0s", "0ms", ""])
def test_what_is_no_duration_is_refused(text):
    assert "defaults.timeout" in refusal({"defaults": {"timeout": text}})


# ${VAR} in files.


def test_variables_are_expanded_in_every_text(file, monkeypatch):
    monkeypatch.setenv("T", "7s")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("TRICKY", "${T} $T \\1 {x}")
    config = load(
        file(
            """
            [defaults]
            timeout = "${T}"
            env = ["${UNSET:-FALLBACK}", "X_${UNSET:-Y}_${UNSET:-Z}"]
            [plugins.calc.config]
            plain = "$T ${T}s $$ $${T} $$${T}"
            empty = "[${EMPTY}] [${UNSET:-}] [${EMPTY:-x}]"
            deep = [{ a = ["${TRICKY}"] }]
            number = 3
            url = "${UNSET:-https://example.com/?a=b:-c}"
            """
        )
    )
    assert config.defaults.timeout == 7
    assert config.defaults.env == ["FALLBACK", "X_Y_Z"]
    assert config.plugins["calc"].config == {
        "plain": "$T 7ss $$ ${T} $${T}",
        "empty": "[] [] []",
        "deep": [{"a": ["${T} $T \\1 {x}"]}],
        "number": 3,
        "url": "https://example.com/?a=b:-c",
    }


def test_a_missing_variable_is_told_with_file_key_and_name(file):
    path = file('[plugins.calc.config]\nsecrets = ["x", "${CALC_TOKEN}"]')
    assert refusal(path).startswith(f"{path}:2: plugins.calc.config.secrets.1: the environment variable CALC_TOKEN is not set")


@pytest.mark.parametrize("text", ["${", "${}", "${1A}", "${A", "${A:?x}", "${A-b}", "${ A }", "${A:-${B}}", "x${A:-{}}"])
def test_what_is_no_reference_is_an_error_and_not_a_text(file, text):
    path = file(f"[plugins.calc.config]\nx = '{text}'")
    said = refusal(path)
    assert said.startswith(f"{path}:2: plugins.calc.config.x: ")
    assert "expected ${VAR} or ${VAR:-default}" in said


def test_only_files_are_expanded(monkeypatch):
    monkeypatch.setenv("T", "7s")
    assert load({"plugins": {"calc": {"config": {"a": "${T}"}}}}).plugin("calc").config == {"a": "${T}"}
    monkeypatch.setenv("HOSTKIT_PLUGINS__CALC__CONFIG__A", "${T}")
    assert load(None).plugin("calc").config == {"a": "${T}"}


def test_paths_are_relative_to_their_file(file, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    path = file('discovery.paths = ["plugins", "/abs", "../up", "~/mine"]')
    expected = [tmp_path / "plugins", Path("/abs"), tmp_path / ".." / "up", Path("/somewhere/mine")]
    assert load(path).discovery.paths == expected
    monkeypatch.chdir(tmp_path)
    assert load("hostkit.toml").discovery.paths == expected


def test_paths_of_an_argument_are_relative_to_the_working_directory_of_then(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for config in (
        load({"discovery": {"paths": ["plugins"]}}),
        load(HostConfig.model_validate({"discovery": {"paths": ["plugins"]}})),
    ):
        assert config.discovery.paths == [tmp_path / "plugins"]


# HOSTKIT_* variables.


@pytest.fixture
def set_variables(monkeypatch):
    def put(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(f"HOSTKIT_{name}", value)

    return put


def test_variables_go_before_the_file_and_the_file_before_the_defaults(file, set_variables):
    path = file(
        '[defaults]\ntimeout = "3s"\nworkers = 3\n[plugins.calculator]\nisolation = "none"\nretry = { attempts = 3, wait = 1 }'
    )
    set_variables(
        DEFAULTS__TIMEOUT="5s",
        PLUGINS__CALCULATOR__ISOLATION="process",
        PLUGINS__CALCULATOR__RETRY__ATTEMPTS="7",
        PLUGINS__OTHER__ENABLED="false",
    )
    config = load(path)
    calculator = config.plugin("calculator")
    assert (calculator.timeout, calculator.workers, calculator.isolation) == (5, 3, "process")
    assert (calculator.retry.attempts, calculator.retry.wait) == (7, 1)
    assert config.plugin("other").enabled is False
    assert load(None).plugin("calculator").isolation == "process"


def test_arguments_go_before_variables(set_variables):
    set_variables(DEFAULTS__TIMEOUT="5s")
    assert load({}).defaults.timeout == 30
    assert load(HostConfig()).defaults.timeout == 30
    assert load(None).defaults.timeout == 5


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4", 4),
        ("true", True),
        ("null", None),
        ('"4"', "4"),
        ("four", "four"),
        ("[1, 2]", [1, 2]),
        ('{"B": 1}', {"B": 1}),
        ("", ""),
        ("1 2", "1 2"),
        ("007", "007"),
    ],
)
def test_a_variable_s_value_is_json_or_text(set_variables, text, value):
    set_variables(PLUGINS__CALC__CONFIG__A=text)
    assert load(None).plugin("calc").config == {"a": value}


def test_a_variable_may_set_a_whole_table(file, set_variables):
    set_variables(PLUGINS__CALC__CONFIG='{"B": 2}', PLUGINS__CALC__CONFIG__C="3", DEFAULTS__RATE='{"per_second": 5}')
    config = load(file("[plugins.calc.config]\na = 1\nB = 1"))
    assert config.plugin("calc").config == {"a": 1, "B": 2, "c": 3}
    assert config.defaults.rate.per_second == 5


def test_variables_that_are_valid_only_together_are(set_variables):
    set_variables(DEFAULTS__RATE__BURST="5", DEFAULTS__RATE__PER_SECOND="2")
    assert load(None).defaults.rate.burst == 5


@pytest.mark.parametrize("spelled", ["my-plugin", "My_Plugin", "my.plugin", "my__plugin"])
def test_a_plugin_s_name_in_a_variable_is_compared_as_names_are(file, set_variables, spelled):
    set_variables(PLUGINS__MY_PLUGIN__WORKERS="7")
    config = load(file(f'[plugins."{spelled}"]\ntimeout = 3'))
    assert (config.plugin("my-plugin").workers, config.plugin("my-plugin").timeout) == (7, 3)


@pytest.mark.parametrize("spelled", ["My-PLUGIN", "MY.PLUGIN"])
def test_a_variable_may_spell_the_name_with_other_separators(set_variables, spelled):
    set_variables(**{f"PLUGINS__{spelled}__WORKERS": "7"})
    assert load(None).plugin("my_plugin").workers == 7


def test_paths_in_a_variable_are_relative_to_the_working_directory(file, set_variables, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    path = file('[discovery]\npaths = ["of-file"]')
    assert load(path).discovery.paths == [tmp_path / "of-file"]
    set_variables(DEFAULTS__WORKERS="2")
    assert load(path).discovery.paths == [tmp_path / "of-file"]
    set_variables(DISCOVERY__PATHS='["of-variable"]')
    assert load(path).discovery.paths == [tmp_path / "here" / "of-variable"]


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("HOSTKIT_DEFAULTS__TIME_OUT", "3", "defaults.time_out: unknown key; did you mean 'timeout'?"),
        ("HOSTKIT_DEFAULTS__TIMEOUT", "soon", "defaults.timeout: expected seconds"),
        ("HOSTKIT_DEFAULTS__ISOLATION", "sandbox", "defaults.isolation: expected 'none', 'auto' or 'process'; found 'sandbox'"),
        ("HOSTKIT_DEFAULTS__RATE__BURST", "5", "defaults.rate.per_second: is missing"),
        ("HOSTKIT_PLUGINS__CALC__ISOLATON", "process", "plugins.calc.isolaton: unknown key; did you mean 'isolation'?"),
        ("HOSTKIT_PLUGINS__CALC", "3", "plugins.calc"),
        ("HOSTKIT_PLUGINS__CALC__CONFIG", "text", "plugins.calc.config: expected a valid dictionary"),
        ("HOSTKIT_PLUGINS__A B__WORKERS", "3", "no name for a plugin"),
        ("HOSTKIT_DEFAULT__TIMEOUT", "3", "there is no table 'default'; did you mean HOSTKIT_DEFAULTS__...?"),
        ("HOSTKIT_PLUGIN__CALC__ISOLATION", "process", "there is no table 'plugin'; did you mean HOSTKIT_PLUGINS__...?"),
        ("HOSTKIT_WHATEVER__X", "3", "there is no table 'whatever'"),
        ("HOSTKIT_DEFAULTS", "{}", "expected a key after the table"),
        ("HOSTKIT_DEFAULTS__", "3", "expected a key after the table"),
        ("HOSTKIT_PLUGINS____WORKERS", "3", "expected a key after the table"),
        ("HOSTKIT_DEFAULTS__ENV", "1e999", "has the number inf"),
        ("HOSTKIT_DEFAULTS__ENV", "[" * 50_000, "nested deeper"),
        ("HOSTKIT_DEFAULTS__TIMEOUT__SECONDS", "3", "defaults.timeout is no table"),
        ("HOSTKIT_DISCOVERY__PATHS", "/plugins", "discovery.paths: expected a valid list; found '/plugins'"),
    ],
)
def test_a_wrong_variable_is_named(file, monkeypatch, variable, value, words):
    monkeypatch.setenv("HOSTKIT_DEFAULTS__WORKERS", "2")
    path = file("[defaults]\ntimeout = 3\n[plugins.calc]\nworkers = 2")
    monkeypatch.setenv(variable, value)
    said = refusal(path)
    assert said.startswith(f"{variable}: "), said
    assert words in said


def test_a_mistake_in_the_file_is_the_file_s(file, set_variables):
    set_variables(DEFAULTS__WORKERS="2")
    path = file("[defaults]\ntimeout = 'soon'")
    assert refusal(path).startswith(f"{path}:2: defaults.timeout: ")


@pytest.mark.parametrize(
    "variable",
    [
        "HOSTKIT_CONFIG",
        "HOSTKIT_LOG",
        "HOSTKIT_PLUGINS_SERVICE_HOST",
        "HOSTKIT_DEFAULTS_PORT",
        "hostkit_defaults__timeout",
        "XHOSTKIT_DEFAULTS__TIMEOUT",
        "HOSTKIT",
    ],
)
def test_other_variables_are_none_of_its_business(monkeypatch, variable):
    monkeypatch.setenv(variable, "!")
    assert load(None) == HostConfig()


def test_a_host_obeys_the_environment(install_demo, new_host, set_variables):
    install_demo("calc", "import os\nclass P:\n    def execute(self, ctx, request):\n        return os.getpid()\n")
    set_variables(PLUGINS__CALC__ISOLATION="process", DEFAULTS__TIMEOUT="20s")
    host = new_host("demo")
    import os

    assert host.execute("calc", None) != os.getpid()
    with pytest.raises(ConfigError, match="below what the operator demands"):
        host.reload("calc", isolation="none")


def test_a_host_with_a_wrong_variable_does_not_start(set_variables):
    set_variables(PLUGINS__CALC__ISOLATION="sandbox")
    with pytest.raises(ConfigError, match="HOSTKIT_PLUGINS__CALC__ISOLATION: plugins.calc.isolation: "):
        hostkit.Host("demo")


def test_what_the_template_preloads_is_one_list_for_the_host(file, monkeypatch):
    assert load(None).template.preload == ["pydantic"]
    path = file('[template]\npreload = ["numpy", "xml.etree"]\n[defaults]\nstart = "template"\n[plugins.calc]\nstart = "fresh"')
    assert load(path).template.preload == ["numpy", "xml.etree"]
    assert (load(path).plugin("calc").start, load(path).plugin("other").start) == ("fresh", "template")
    monkeypatch.setenv("HOSTKIT_TEMPLATE__PRELOAD", "[]")
    assert load(path).template.preload == []


# Lines, and everything that is wrong at once.


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("hostkit.toml", "# c\n[plugins.calculator]\n\ntimeout = 'soon'\n", "4: plugins.calculator.timeout: expected seconds"),
        (
            "hostkit.toml",
            "[plugins.calculator]\nretry = { attempts = 3, wiat = 1 }\n",
            "2: plugins.calculator.retry.wiat: unknown key",
        ),
        ("hostkit.toml", "\n[plugins.calculator.rate]\nburst = 3\n", "2: plugins.calculator.rate.per_second: is missing"),
        ("hostkit.toml", "[plugins.'a b']\n", "1: plugins.a b: 'a b' is no name for a plugin"),
        ("hostkit.toml", "[template]\npreload = [\n'a',\n'b c',\n]\n", "2: template.preload.1: "),
        ("hostkit.toml", "[plugins.calculator.config]\na = 1\nb = '${'\n", "3: plugins.calculator.config.b: expected ${VAR}"),
        ("hostkit.toml", "[defaults]\ntimeout = 1\ntimeout = 2\n", "3: Cannot overwrite a value"),
        ("hostkit.json", '{"defaults": {\n"timeout": "soon"}}', "2: defaults.timeout: expected seconds"),
        ("hostkit.json", '{"defaults": {\n"env": ["A",\n\t"B C"]}}', "3: defaults.env.1: "),
        ("hostkit.yaml", "defaults:\n  workers: 2\n  timeout: soon\n", "3: defaults.timeout: expected seconds"),
        ("hostkit.yaml", "defaults:\n  env:\n  - A\n  - B C\n", "4: defaults.env.1: "),
        (
            "pyproject.toml",
            "[project]\nname = 'x'\n[tool.hostkit.defaults]\ntimeout = 'soon'\n",
            "4: defaults.timeout: expected seconds",
        ),
        ("pyproject.toml", "[tool]\nx = 1\n[tool.hostkit]\ndefaults.timeout = 2001-01-01\n", "4: defaults.timeout: has a date"),
    ],
)
def test_an_error_names_the_line(file, name, text, words):
    path = file(text, name)
    assert refusal(path).startswith(f"{path}:{words}")


def test_everything_that_is_wrong_is_told_at_once_from_the_first_line_to_the_last(file, set_variables):
    set_variables(DEFAULTS__WORKERS="none", DEFAULTZ__X="1", PLUGINS__CALC__ISOLATION="sandbox")
    path = file("[plugins.calc]\nconfig = { a = '${UNSET_A}' }\nworkers = 0\n[defaults]\ntimeout = '${UNSET_B}'\nstandby = -1\n")
    said = refusal(path)
    assert said.startswith(f"{path}:2: plugins.calc.config.a: the environment variable UNSET_A is not set")
    order = [
        "line 3: plugins.calc.workers: ",
        "line 5: defaults.timeout: the environment variable UNSET_B",
        "line 6: defaults.standby: ",
    ]
    order += ["HOSTKIT_DEFAULTS__WORKERS: defaults.workers: ", "HOSTKIT_PLUGINS__CALC__ISOLATION: plugins.calc.isolation: "]
    order += ["HOSTKIT_DEFAULTZ__X: there is no table 'defaultz'"]
    places = [said.index(words) for words in order]
    assert places == sorted(places), said
    assert "seconds" not in said  # of a text that could not be expanded


def test_what_a_variable_put_into_a_text_is_not_shown_in_errors(file, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    path = file("[defaults]\ntimeout = '${SECRET}'\nenv = ['A', 'x ${SECRET}']\nisolation = '${SECRET}'")
    said = refusal(path)
    assert "hunter2" not in said
    assert f"{path}:2: defaults.timeout: expected seconds" in said and "found what '${SECRET}' stands for" in said


def test_a_text_with_a_wrong_reference_is_not_shown_where_it_may_be_a_secret(file):
    said = refusal(file("[plugins.calc.config]\npassword = 'hunter2 ${'\n"))
    assert "password: expected ${VAR}" in said and "hunter2" not in said


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hostkit.toml", '"$schema" = "hostkit.schema.json"\ndefaults.timeout = 3\n'),
        ("hostkit.json", '{"$schema": "hostkit.schema.json", "defaults": {"timeout": 3}}'),
        ("hostkit.yaml", "$schema: hostkit.schema.json\ndefaults: {timeout: 3}\n"),
        ("pyproject.toml", '[tool.hostkit]\n"$schema" = "x"\ndefaults.timeout = 3\n'),
    ],
)
def test_a_schema_for_editors_may_be_named(file, name, text):
    assert load(file(text, name)).defaults.timeout == 3
    assert load({"$schema": "x", "defaults": {"timeout": 3}}).defaults.timeout == 3


def test_the_reference_has_every_key_with_its_default():
    page = Path(__file__).parents[1] / "docs" / "reference" / "configuration.md"
    if not page.exists():
        pytest.skip("not in a checkout")
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| ([^|]*?) \|", page.read_text().partition("## Every key")[2], re.MULTILINE))
    expected = (
        dict(keys_of(PluginConfig, ""))
        | dict(keys_of(DiscoveryConfig, "discovery."))
        | dict(keys_of(TemplateConfig, "template."))
        | dict(keys_of(AuditConfig, "audit."))
        | dict(keys_of(LockConfig, "lock."))
        | dict(keys_of(ExportersConfig, "exporters."))
    )
    assert rows.keys() == expected.keys()
    for key, default in expected.items():
        assert said(rows[key]) == (str(default) if isinstance(default, Path) else default), key


def keys_of(model, path):
    """Yield every key that has a value, and its default as JSON data."""
    for key, field in model.model_fields.items():
        inside = [
            part
            for part in (field.annotation, *get_args(field.annotation))
            if isinstance(part, type) and issubclass(part, BaseModel)
        ]
        default = None if field.is_required() else field.get_default()
        if not inside or default is None:
            yield path + key, ... if field.is_required() else default
        if inside:
            yield from keys_of(inside[0], f"{path}{key}.")


def said(cell):
    """Return what a cell of the table says of a default, as the models have it."""
    if cell in ("–", "needed"):
        return None if cell == "–" else ...
    word = cell.strip("`")
    if match := re.fullmatch(r"([0-9.]+) (ms|s)", word):
        return float(match[1]) * {"ms": 0.001, "s": 1}[match[2]]
    return json.loads(word)
