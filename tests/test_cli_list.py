"""``hostkit list``: what it shows, where it looks, and how little it imports."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from hostkit import Host, HostkitError

SANDBOX = "standard"  # and so nothing in the environment

ECHO = """
    import pathlib
    pathlib.Path(__file__).with_name("imported").touch()

    class P:
        def execute(self, ctx, request):
            return request
"""


def test_a_plugin_is_a_line_with_tabs(cli, install_demo):
    install_demo("calculator", ECHO, version="1.2.0", manifest='description = "adds"\nisolation = "process"\n')
    result = cli("list")
    assert result.stdout == "calculator\t1.2.0\tcalculator\tprocess\tadds\n"
    assert result.exit_code == 0


def test_nothing_installed_is_nothing_on_a_pipe(cli):
    result = cli("list")
    assert (result.stdout, result.exit_code) == ("", 0)


def test_json_has_the_same_and_more(cli, install_demo):
    install_demo("calculator", ECHO, version="1.2.0", manifest='description = "adds"\n')
    assert cli("--json", "list").stdout == cli("list", "--json").stdout
    assert json.loads(cli("list", "--json").stdout) == [
        {
            "name": "calculator",
            "version": "1.2.0",
            "distribution": "calculator",
            "directory": None,
            "isolation": "none",
            "description": "adds",
            "kept_out": None,
            "error": None,
        }
    ]


def test_a_broken_plugin_is_a_row_with_its_error_and_no_failure(cli, install_demo):
    install_demo("fine", ECHO)
    install_demo("bad", ECHO, manifest='isolatoin = "process"\n')
    result = cli("list")
    assert result.exit_code == 0
    bad, fine = result.stdout.splitlines()
    assert bad.startswith("bad\t") and "\tbroken\tManifestError: " in bad and "did you mean 'isolation'?" in bad
    assert fine.startswith("fine\t")
    rows = {row["name"]: row for row in json.loads(cli("list", "--json").stdout)}
    assert rows["bad"]["error"]["type"] == "ManifestError"
    assert rows["fine"]["error"] is None


def test_no_plugin_is_imported(cli, install_demo, site):
    install_demo("calculator", ECHO)
    cli("list")
    assert not (site / "calculator" / "imported").exists()


def test_words_of_a_plugin_cannot_forge_a_cell_or_a_line(cli, install_demo):
    install_demo("calculator", ECHO, manifest='description = "a\\tb\\nc\\u001b[31md\\u009be\\u202ef"\n')
    line, rest = cli("list").stdout.split("\n")
    assert rest == ""
    assert line.split("\t")[4] == "a\\tb\\nc\\x1b[31md\\x9be\\u202ef"


def test_a_terminal_gets_a_table_that_shows_markup_and_escapes_as_text(install_demo, cli_terminal):
    install_demo("calculator", ECHO, manifest='description = "[red]x[/red] \\u001b[31m"\n')
    shown = cli_terminal("list")
    assert "distribution" in shown.splitlines()[0]
    assert "[red]x[/red] \\x1b[31m" in shown


def test_a_terminal_shows_what_is_filtered_out_only_if_asked(install_demo, cli_place, cli_terminal):
    install_demo("calculator", ECHO)
    (cli_place / "hostkit.toml").write_text('[discovery]\nexclude = ["*"]\n')
    nothing = "no plugin is installed for demo.plugins; [discovery] keeps 1 out, and hostkit list --all says why\n"
    assert cli_terminal("list") == nothing
    shown = cli_terminal("list", "--all")
    assert "filtered" in shown
    assert "[discovery] exclude has '*'" in shown


@pytest.mark.parametrize("floor", [None, "none", "process"])
@pytest.mark.parametrize(
    "manifest",
    ["", "isolation = true", "isolation = false", 'isolation = "process"', 'transport = "subprocess"', 'transport = "inprocess"'],
)
def test_isolation_is_what_a_host_decides(cli, install_demo, cli_place, new_host, manifest, floor):
    install_demo("calculator", ECHO, manifest=manifest + "\n")
    config = {} if floor is None else {"plugins": {"calculator": {"isolation": floor}}}
    (cli_place / "c.json").write_text(json.dumps(config))
    host = new_host("demo", config={**config, "defaults": {"sandbox": "off"}})
    expected = host.info("calculator").metadata["hostkit"]["isolation"]
    assert json.loads(cli("list", "--json", "--config", "c.json").stdout)[0]["isolation"] == expected
    if floor is None:
        assert json.loads(cli("list", "--json").stdout)[0]["isolation"] == expected


def test_the_default_floor_holds_for_plugins_that_have_none_of_their_own(cli, install_demo, cli_place):
    install_demo("one", ECHO)
    install_demo("two", ECHO)
    (cli_place / "hostkit.toml").write_text('[defaults]\nisolation = "process"\n[plugins.two]\nisolation = "none"\n')
    rows = {row["name"]: row["isolation"] for row in json.loads(cli("list", "--json").stdout)}
    assert rows == {"one": "process", "two": "none"}


def test_a_disabled_plugin_says_so(cli, install_demo, cli_place):
    install_demo("calculator", ECHO)
    (cli_place / "hostkit.toml").write_text("[plugins.calculator]\nenabled = false\n")
    assert cli("list").stdout.split("\t")[3] == "disabled"


def test_a_plugin_directory_shows_its_place(cli, cli_place):
    plugin = cli_place / "plugins" / "adder"
    plugin.mkdir(parents=True)
    (plugin / "plugin.toml").write_text('entry_point = "adder:P"\nversion = "2.0"\n')
    (plugin / "adder.py").write_text("class P:\n    def execute(self, ctx, request): return request\n")
    (cli_place / "hostkit.toml").write_text('[discovery]\npaths = ["plugins"]\n')
    assert cli("list").stdout == f"adder\t2.0\t{plugin}\tnone\t\n"


def test_an_edited_configuration_counts_at_once(cli, install_demo, cli_place):
    install_demo("calculator", ECHO)
    config = cli_place / "hostkit.toml"
    for isolation in ("process", "none", "process"):
        config.write_text(f'[defaults]\nisolation = "{isolation}"\n')
        assert cli("list").stdout.split("\t")[3] == isolation
    config.write_text('[defaults]\nisolatoin = "process"\n')
    for _ in range(2):
        result = cli("list")
        assert result.exit_code == 2
        assert "ConfigError" in result.stderr and str(config) in result.stderr and "did you mean 'isolation'?" in result.stderr


def test_a_configuration_that_looks_at_the_environment_is_read_each_time(cli, install_demo, cli_place, monkeypatch):
    install_demo("calculator", ECHO)
    (cli_place / "hostkit.toml").write_text('[defaults]\nisolation = "${FLOOR}"\n')
    for isolation in ("process", "none"):
        monkeypatch.setenv("FLOOR", isolation)
        assert cli("list").stdout.split("\t")[3] == isolation
    monkeypatch.delenv("FLOOR")
    result = cli("list")
    assert result.exit_code == 2
    assert "FLOOR is not set" in result.stderr


def test_where_the_configuration_comes_from(cli, install_demo, cli_place, monkeypatch):
    """--config, then HOSTKIT_CONFIG, then ./hostkit.toml, then [tool.hostkit] in ./pyproject.toml."""
    install_demo("calculator", ECHO)

    def isolation(*arguments):
        return cli(*arguments).stdout.split("\t")[3]

    (cli_place / "pyproject.toml").write_text('[project.entry-points."hostkit.plugins"]\ncalculator = "calculator:P"\n')
    assert isolation("list") == "none"
    (cli_place / "pyproject.toml").write_text('[tool.hostkit.defaults]\nisolation = "process"\n')
    assert isolation("list") == "process"
    (cli_place / "hostkit.toml").write_text('[defaults]\nisolation = "none"\n')
    assert isolation("list") == "none"
    (cli_place / "other.yaml").write_text("defaults: {isolation: process}\n")
    monkeypatch.setenv("HOSTKIT_CONFIG", "other.yaml")
    assert isolation("list") == "process"
    assert isolation("--config", "hostkit.toml", "list") == "none"
    assert isolation("list", "--config", "hostkit.toml") == "none"
    monkeypatch.setenv("HOSTKIT_CONFIG", "")
    assert isolation("list") == "none"


@pytest.mark.parametrize("name", ["missing.toml", "", "folder.toml", "config.txt"])
def test_a_configuration_that_cannot_be_read_is_a_sentence(cli, cli_place, name):
    (cli_place / "folder.toml").mkdir()
    (cli_place / "config.txt").touch()
    result = cli("list", "--config", name)
    assert result.exit_code == 2
    assert result.stderr.startswith("hostkit: ConfigError: ")


def test_a_pyproject_that_is_no_toml_counts_only_if_it_may_configure_hostkit(cli, cli_place):
    (cli_place / "pyproject.toml").write_text("[project\n")
    assert cli("list").exit_code == 0
    (cli_place / "pyproject.toml").write_text("[tool.hostkit\n")
    result = cli("list")
    assert result.exit_code == 2
    assert "pyproject.toml" in result.stderr


def test_another_application_has_its_own_plugins(cli, install_demo):
    install_demo("theirs", ECHO, group="myapp.plugins")
    install_demo("ours", ECHO)
    assert cli("list").stdout.startswith("ours\t")
    assert cli("--app", "myapp", "list").stdout.startswith("theirs\t")
    assert cli("list", "--app", "myapp").stdout.startswith("theirs\t")
    for bad in ("a/b", "", "a b", "\udcff"):
        result = cli("list", "--app", bad)
        assert result.exit_code == 2, bad
        assert result.stderr.startswith("hostkit: ConfigError: --app: ")


@pytest.mark.parametrize("config", [None, '[defaults]\nisolation = "process"\n'])
def test_an_index_hit_imports_nothing_heavy(install_demo, cli_place, cli_process, config):
    install_demo("calculator", ECHO)
    if config is not None:
        (cli_place / "hostkit.toml").write_text(config)
    first = cli_process("list", "--json")
    assert json.loads(first.communicate()[0])[0]["name"] == "calculator"
    code = (
        "import sys; from hostkit.cli import main; main(['--app', 'demo', 'list', '--json']); print(*sys.modules, file=sys.stderr)"
    )
    # sys.path, which the index is kept by, begins with the working directory in both.
    second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=cli_place)
    third = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=cli_place)
    assert json.loads(third.stdout) == json.loads(second.stdout)
    loaded = {name.partition(".")[0] for name in third.stderr.split()}
    assert loaded.isdisjoint(
        {
            "pydantic",
            "pydantic_core",
            "loguru",
            "importlib_metadata",
            "rich",
            "packaging",
            "multiprocess",
            "asyncio",
            "yaml",
            "pluggy",
            "calculator",
        }
    )


def test_what_a_host_finds_is_what_is_listed(cli, install_demo, new_host):
    for name in ("b-plugin", "a.plugin", "c_plugin"):
        install_demo(name, ECHO)
    install_demo("broken", ECHO, manifest="nonsense\n")
    assert [line.split("\t")[0] for line in cli("list").stdout.splitlines()] == list(new_host("demo").specs)


def test_the_host_refuses_what_the_list_calls_broken(cli, install_demo, new_host):
    install_demo("broken", ECHO, manifest="nonsense\n")
    message = json.loads(cli("list", "--json").stdout)[0]["error"]["message"]
    with pytest.raises(HostkitError) as caught:
        new_host("demo").load("broken")
    assert str(caught.value) == message
    assert isinstance(new_host("demo"), Host)
