"""``hostkit info`` and ``hostkit health``."""

from __future__ import annotations

import json
import re

import pytest

PLUGIN = """
    import pathlib
    from hostkit import HealthStatus, PluginInfo, Status

    pathlib.Path(__file__).with_name("imported").touch()

    class P:
        def __init__(self, config: dict):
            self.status = config.get("status", "healthy")

        def execute(self, ctx, request):
            yield request

        def info(self):
            return PluginInfo("plugin", "9.9", "says \\x1b[31mred", capabilities=["math"], metadata={"a": 1})

        def health(self):
            if self.status == "raises":
                raise ValueError("ill\\x1b[0m")
            return HealthStatus(Status(self.status), "so so", metadata={"b": 2})
"""

MANIFEST = """
    description = "adds"
    author = "A. Uthor"
    capabilities = ["math", "more"]
    workers = 2

    [resources]
    max_memory_mb = 256
    max_open_files = 64
"""


def told(result):
    return dict(line.split(": ", 1) for line in result.stdout.splitlines() if ": " in line)


def test_info_tells_what_plugin_manifest_and_host_say(cli, install_demo, isolation):
    install_demo("plugin", PLUGIN, manifest=MANIFEST, version="1.2.0")
    result = cli("info", "plugin", "--json", "--isolation", isolation)
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["says"] == {
        "name": "plugin",
        "version": "9.9",
        "description": "says \x1b[31mred",
        "author": "A. Uthor",
        "capabilities": ["math"],
        "metadata": {"a": 1},
        "execute": "generator",
    }
    assert found["distribution"] == {"name": "plugin", "version": "1.2.0"}
    assert found["entry_point"] == "plugin:P"
    assert found["manifest"]["capabilities"] == ["math", "more"]
    held = isolation != "none"
    assert found["runs"] == {
        "isolation": isolation,
        "workers": 2 if held else None,
        "concurrency": None,
        "timeout": 30.0,
        "limits": {"max_memory_mb": 256, "max_open_files": 64},
        "recycle": {},
        "sandbox": "off",
        "permissions": {},
        "held_by": {"max_memory_mb": "RLIMIT_DATA, watchdog", "max_open_files": "RLIMIT_NOFILE, watchdog"} if held else {},
        "not_held": [] if held else ["max_memory_mb", "max_open_files"],
    }


def test_info_for_people_is_a_line_for_each_thing_that_is_said(cli, install_demo, isolation):
    install_demo("plugin", PLUGIN, manifest=MANIFEST, version="1.2.0")
    result = cli("info", "plugin", "--isolation", isolation)
    lines = told(result)
    assert lines["name"] == "plugin"
    assert lines["says.version"] == "9.9"
    assert lines["says.description"] == "says \\x1b[31mred"
    assert lines["distribution.version"] == "1.2.0"
    assert lines["manifest.capabilities"] == "math, more"
    assert lines["runs.isolation"] == isolation
    assert lines["runs.limits.max_open_files"] == "64"
    assert ("nothing can hold the limits" in result.stdout) == (isolation == "none")


def test_static_info_imports_nothing_of_the_plugin(cli, install_demo, site, isolation):
    install_demo("plugin", PLUGIN, manifest=MANIFEST, version="1.2.0")
    static = json.loads(cli("info", "plugin", "--json", "--static", "--isolation", isolation).stdout)
    assert not (site / "plugin" / "imported").exists()
    loaded = json.loads(cli("info", "plugin", "--json", "--isolation", isolation).stdout)
    assert static["says"] is None
    assert {**static, "says": loaded["says"]} == loaded


def test_info_tells_the_operators_word(cli, install_demo, cli_place):
    install_demo("plugin", PLUGIN, manifest=MANIFEST)
    (cli_place / "hostkit.toml").write_text(
        '[plugins.plugin]\nisolation = "process"\ntimeout = "2s"\nworkers = 1\nresources = { max_memory_mb = 128 }\n'
    )
    runs = json.loads(cli("info", "plugin", "--static", "--json").stdout)["runs"]
    assert (runs["isolation"], runs["timeout"], runs["workers"], runs["limits"]["max_memory_mb"]) == ("process", 2.0, 1, 128)
    refused = cli("info", "plugin", "--static", "--isolation", "none")
    assert (refused.exit_code, refused.stderr.startswith("hostkit: ConfigError: ")) == (2, True)


@pytest.mark.parametrize("static", [["--static"], []])
def test_info_of_a_broken_plugin_is_its_error(cli, install_demo, static):
    install_demo("plugin", PLUGIN, manifest="nonsense\n")
    result = cli("info", "plugin", *static)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith("hostkit: ManifestError: ")


@pytest.mark.parametrize(
    ("status", "exit_code"), [("healthy", 0), ("degraded", 0), ("unhealthy", 1), ("offline", 1), ("unknown", 1), ("raises", 1)]
)
def test_health_is_an_exit_status(cli, install_demo, cli_place, isolation, status, exit_code):
    install_demo("plugin", PLUGIN)
    (cli_place / "hostkit.toml").write_text(f'[plugins.plugin]\nisolation = "{isolation}"\nconfig = {{ status = "{status}" }}\n')
    result = cli("health", "plugin", "--json")
    assert result.exit_code == exit_code
    whole = json.loads(result.stdout)
    found = whole["plugins"]["plugin"]
    assert found["isolation"] == isolation
    assert whole["status"] == found["status"]
    assert found["message"] in whole["message"] or status == "healthy"
    assert found["status"] == ("unhealthy" if status == "raises" else status)
    assert ("raised ValueError in health: ill" if status == "raises" else "so so") in found["message"]
    for_people = cli("health")
    assert for_people.exit_code == exit_code
    name, said, place, took, message = for_people.stdout.rstrip("\n").split("\t")
    assert (name, said, place, message) == ("plugin", found["status"], isolation, found["message"].replace("\x1b", "\\x1b"))
    assert float(took) < 10_000
    assert "\x1b" not in for_people.stdout


def test_health_of_all_asks_those_that_are_enabled(cli, install_demo, cli_place):
    for name in ("one", "two", "off"):
        install_demo(name, "class P:\n    def execute(self, ctx, request): pass\n")
    (cli_place / "hostkit.toml").write_text("[plugins.off]\nenabled = false\n")
    result = cli("health")
    assert (result.exit_code, [line.split()[0] for line in result.stdout.splitlines()]) == (0, ["one", "two"])
    install_demo("broken", "raise ValueError('at import')\n")
    result = cli("health")
    assert (result.exit_code, [line.split()[:2] for line in result.stdout.splitlines()]) == (
        1,
        [["broken", "offline"], ["one", "healthy"], ["two", "healthy"]],
    )
    assert cli("health", "one", "two", "one").exit_code == 0
    assert cli("health", "off").exit_code == 3


def test_health_on_a_terminal_is_a_table_that_ends_with_the_worst_of_it(install_demo, cli_terminal):
    install_demo("one", "class P:\n    def execute(self, ctx, request): pass\n")
    install_demo("two", "raise ValueError('[red]ill[/red] \\x1b[31m')\n")
    shown = re.sub("\x1b\\[[0-9;]*m", "", cli_terminal("health", status=1))
    heading, *rows, last = shown.splitlines()
    assert heading.split() == ["name", "status", "isolation", "ms", "message"]
    assert [row.split()[:3] for row in rows[:2]] == [["one", "healthy", "none"], ["two", "offline", "not"]]
    assert last.startswith("demo: offline, because 'two' is offline: plugin 'two' can't be loaded: ")
    assert "[red]ill[/red]" in last


def test_a_plugin_that_hangs_holds_up_the_answers_of_no_others(cli, install_demo, cli_place, isolation):
    for name in ("one", "two", "three"):
        install_demo(
            name, "import time\nclass P:\n    def execute(self, ctx, request): pass\n    def health(self): time.sleep(3)\n"
        )
    (cli_place / "hostkit.toml").write_text(f'[defaults]\nisolation = "{isolation}"\nhealth = {{ timeout = "500ms" }}\n')
    result = cli("health", "--json")
    assert result.exit_code == 1
    rows = json.loads(result.stdout)["plugins"]
    assert [row["message"] for row in rows.values()] == ["no answer to health in time (0.5 s)"] * 3
    assert sum(row["response_time"] for row in rows.values()) < 3 * 1.0


def test_health_without_plugins_says_so(cli):
    result = cli("health")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "hostkit: no plugin is installed for demo.plugins\n")
    assert json.loads(cli("health", "--json").stdout) == {"status": "healthy", "message": "", "plugins": {}}


def test_a_name_that_is_not_there_is_told_before_any_plugin_is_loaded(cli, install_demo, site):
    install_demo("plugin", PLUGIN)
    assert cli("health", "plugin", "nothere").exit_code == 3
    assert not (site / "plugin" / "imported").exists()


def test_what_plugins_print_is_not_among_the_answers(cli_process, install_demo):
    install_demo(
        "plugin",
        "print('at import', flush=True)\nclass P:\n    def execute(self, ctx, request): pass\n    def health(self): print('in health')\n",
    )
    process = cli_process("health", "--json")
    out, err = process.communicate()
    assert json.loads(out)["plugins"]["plugin"]["isolation"] == "none"
    assert "at import" in err and "in health" in err
