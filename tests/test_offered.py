"""Discovery filters: which of the plugins that are installed count for a host, and what is said of the others."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from hostkit import PluginNotFound, PluginSpec, RequirementError, _stamps
from hostkit._index import default_file
from hostkit._offered import glance_of
from hostkit._reading import load

SANDBOX = "standard"  # and so nothing in the environment

ECHO = """
    class P:
        def execute(self, ctx, request):
            return request
"""
NEVER = "raise SystemExit('imported')"


def why_not(config, name="my-plugin", error=None, **manifest):
    return glance_of(load(config)).why_not(PluginSpec(name, "m:P", error=error, manifest_data=manifest))


@pytest.mark.parametrize(
    "pattern",
    ["my-plugin", "my*", "*", "my?plugin", "MY-*", "my_*", "My.Plugin", "[lm]y-*", "my_plugin", "*-[!x]lugin"],
)
def test_a_pattern_matches_a_name_as_it_is_spelled_and_as_names_are_compared(pattern):
    for spelled in ("my-plugin", "My_Plugin", "my.plugin"):
        assert why_not({"discovery": {"exclude": ["other", pattern]}}, spelled) == f"[discovery] exclude has {pattern!r}"
        assert why_not({"discovery": {"include": ["other", pattern]}}, spelled) == ""


@pytest.mark.parametrize("pattern", ["", "my", "plugin", "my-plugin-*", "*_", "-*", "[!m]*", "my-plugi[", "[m]*z"])
def test_a_pattern_matches_a_whole_name_and_nothing_that_it_does_not_say(pattern):
    assert why_not({"discovery": {"exclude": [pattern]}}) == ""
    assert why_not({"discovery": {"include": [pattern]}}) == f"none of [discovery] include matches its name: {pattern!r}"


def test_exclude_goes_before_include():
    assert why_not({"discovery": {"include": ["my-*"], "exclude": ["*-plugin"]}}) == "[discovery] exclude has '*-plugin'"


@pytest.mark.parametrize(
    ("wanted", "there", "missing"),
    [
        (["add"], ["sub", "add"], ""),
        (["add", "sub"], ["sub", "add"], ""),
        (["add", "sub"], ["sub"], "'add'"),
        (["add", "sub"], [], "'add', 'sub'"),
        (["add"], ["Add"], "'add'"),
        ([], [], ""),
    ],
)
def test_all_required_capabilities_must_be_there(wanted, there, missing):
    told = f"[discovery] required_capabilities asks for what its manifest doesn't list: {missing}" if missing else ""
    assert why_not({"discovery": {"required_capabilities": wanted}}, capabilities=there) == told


@pytest.mark.parametrize(
    ("manifest", "floor", "place"),
    [
        ({}, None, "none"),
        ({}, "process", "process"),
        ({}, "auto", "auto"),
        ({"isolation": True}, None, "process"),
        ({"isolation": "none"}, "process", "process"),
        ({"isolation": "auto"}, "none", "auto"),
        ({"isolation": "process"}, "none", "process"),
        ({"transport": "subprocess"}, None, "process"),
        ({"transport": "inprocess"}, None, "none"),
    ],
)
@pytest.mark.parametrize("where", ["defaults", "plugins"])
def test_the_isolation_that_counts_is_where_it_would_run(manifest, floor, place, where):
    table = {} if floor is None else {"isolation": floor}
    floors = {"defaults": table} if where == "defaults" else {"plugins": {"My_Plugin": table}}
    for allowed in (["none"], ["auto"], ["process"], ["none", "process"]):
        told = why_not({"discovery": {"allowed_isolation": allowed}, **floors}, **manifest)
        assert (told == "") is (place in allowed)
        assert (
            not told
            or told.startswith(f"it would run with isolation {place!r}, and [discovery] allowed_isolation has 'no")
            or (told == f"it would run with isolation {place!r}, and [discovery] allowed_isolation has {allowed[0]!r}")
        )


def test_a_broken_plugin_stays_a_broken_one_unless_its_name_is_filtered(install_demo, new_host):
    install_demo("broken", NEVER, manifest="nonsense")
    filters = {"required_capabilities": ["add"], "allowed_isolation": ["process"]}
    assert list(new_host("demo", config={"discovery": filters}).specs) == ["broken"]
    assert list(new_host("demo", config={"discovery": {"exclude": ["bro*"]}}).specs) == []


FILTERS = [
    ({"include": ["a*"]}, "none of [discovery] include matches its name: 'a*'"),
    ({"exclude": ["x*"]}, "[discovery] exclude has 'x*'"),
    ({"required_capabilities": ["add"]}, "[discovery] required_capabilities asks for what its manifest doesn't list: 'add'"),
    ({"allowed_isolation": ["process"]}, "it would run with isolation 'none', and [discovery] allowed_isolation has 'process'"),
]


@pytest.fixture
def one_of_two(install_demo):
    """Two plugins: "adder", which every filter of FILTERS lets in, and "xtra", which none does."""
    install_demo("adder", ECHO, manifest="capabilities = ['add']\nisolation = 'process'\n")
    install_demo("xtra", NEVER, manifest="description = 'more'\n")


@pytest.mark.parametrize(("filters", "why"), FILTERS)
def test_what_is_filtered_out_is_not_there_and_whoever_asks_hears_why(one_of_two, new_host, filters, why):
    host = new_host("demo", config={"discovery": filters})
    assert list(host.specs) == ["adder"]
    for ask in (
        lambda: host.load("xtra"),
        lambda: host.load("xtra", isolation="process"),
        lambda: host.execute("xtra", 1),
        lambda: host.plugin("xtra"),
        lambda: host.info("xtra"),
        lambda: host.health("xtra"),
        lambda: host.reload("xtra"),
    ):
        with pytest.raises(PluginNotFound) as caught:
            ask()
        assert str(caught.value) == f"plugin 'xtra' is installed, and the configuration keeps it out: {why}"
    assert host.load_all() == {}
    assert list(host.health()) == ["adder"]
    assert isinstance(host.load_all("xtra")["xtra"], PluginNotFound)


@pytest.mark.parametrize(("filters", "why"), FILTERS)
def test_who_requires_what_is_filtered_out_hears_why(one_of_two, install_demo, new_host, filters, why):
    install_demo(
        "also",
        NEVER,
        manifest="capabilities = ['add']\nisolation = 'process'\n[requirements]\nrequired_plugins = ['XTRA']\n",
    )
    with pytest.raises(RequirementError) as caught:
        new_host("demo", config={"discovery": filters}).load("also")
    assert str(caught.value) == (
        f"plugin 'also' requires the plugin XTRA, found one that is installed and kept out: {why}; let it in, if it may be used"
    )


def test_the_environment_filters_too(one_of_two, new_host, monkeypatch, cli):
    monkeypatch.setenv("HOSTKIT_DISCOVERY__EXCLUDE", '["x*"]')
    assert list(new_host("demo").specs) == ["adder"]
    assert cli("list").stdout.startswith("adder\t")
    assert cli("list").stdout.count("\n") == 1


def test_plugin_directories_are_filtered_like_the_others(new_host, tmp_path):
    for name in ("adder", "xtra"):
        home = tmp_path / "plugins" / name
        home.mkdir(parents=True)
        (home / "plugin.toml").write_text(f'entry_point = "{name}_code:P"')
        (home / f"{name}_code.py").write_text("class P: ...")
    config = {"discovery": {"paths": [str(tmp_path / "plugins")], "exclude": ["x*"]}}
    assert list(new_host("demo", config=config).specs) == ["adder"]


def test_what_the_application_registers_is_not_filtered(one_of_two, new_host, isolation):
    class P:
        def execute(self, ctx, request):
            return "registered"

    host = new_host("demo", config={"discovery": {"include": ["a*"], "required_capabilities": ["add"]}})
    host.register(P, name="own", isolation=isolation)
    host.register(P, name="xtra", isolation=isolation)  # a name that is free, because who has it is kept out
    assert host.execute("own", 1) == host.execute("xtra", 1) == "registered"


def test_what_a_manifest_has_become_since_the_look_decides(one_of_two, new_host, monkeypatch):
    """The index only saves time: a load reads the manifest anew."""
    monkeypatch.setattr(_stamps, "_TICK", 0)  # what was written just now counts as written long ago
    host = new_host("demo", config={"discovery": {"required_capabilities": ["add"]}})
    assert list(host.specs) == ["adder"]
    file = default_file("demo.plugins")
    kept = json.loads(file.read_text())
    for row in kept["specs"]:
        row["manifest_data"] = {"capabilities": ["add"]}
    file.write_text(json.dumps(kept))
    again = new_host("demo", config={"discovery": {"required_capabilities": ["add"]}})
    assert list(again.specs) == ["adder", "xtra"]
    with pytest.raises(PluginNotFound, match="keeps it out: .discovery. required_capabilities"):
        again.load("xtra")


# The command line.


@pytest.fixture
def filtered(one_of_two, cli_place, request):
    """A working directory whose configuration lets "adder" in and keeps "xtra" out."""
    (cli_place / "hostkit.toml").write_text('[discovery]\nexclude = ["x*"]\n')


WHY = "[discovery] exclude has 'x*'"


def test_a_list_has_what_counts_and_all_of_it_only_if_asked(filtered, cli):
    assert cli("list").stdout == "adder\t1.0\tadder\tprocess\t\n"
    assert cli("list", "--all").stdout == f"adder\t1.0\tadder\tprocess\t\nxtra\t1.0\txtra\tfiltered\t{WHY}\n"
    assert [row["kept_out"] for row in json.loads(cli("list", "--json").stdout)] == [None]
    row = json.loads(cli("list", "--all", "--json").stdout)[1]
    assert (row["name"], row["isolation"], row["kept_out"], row["description"], row["error"]) == (
        "xtra",
        "filtered",
        WHY,
        "more",
        None,
    )


@pytest.mark.parametrize(("filters", "why"), FILTERS)
def test_a_list_that_reads_no_configuration_anew_filters_the_same(one_of_two, cli, cli_place, filters, why):
    lines = "\n".join(f"{key} = {value!r}" for key, value in filters.items())
    (cli_place / "hostkit.toml").write_text(f"[discovery]\n{lines}\n")
    assert cli("list").exit_code == 0
    code = "import sys; from hostkit.cli import main; main(['--app', 'demo', 'list', '--all']); print('pydantic' in sys.modules)"
    ran = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=cli_place) for _ in range(2)
    ]
    assert ran[1].stdout == f"adder\t1.0\tadder\tprocess\t\nxtra\t1.0\txtra\tfiltered\t{why}\nFalse\n"


def test_what_was_remembered_of_a_configuration_in_another_form_is_not_used(filtered, cli):
    assert "xtra" not in cli("list").stdout
    [file] = default_file("").parent.glob("config-*.json")
    kept = json.loads(file.read_text())
    del kept["glance"]["exclude"]
    file.write_text(json.dumps(kept))
    assert "xtra" not in cli("list").stdout


@pytest.mark.parametrize("arguments", [("info", "xtra"), ("info", "xtra", "--static"), ("execute", "xtra"), ("health", "xtra")])
def test_verbs_say_why_a_plugin_is_not_there(filtered, cli, arguments):
    result = cli(*arguments)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == f"hostkit: PluginNotFound: plugin 'xtra' is installed, and the configuration keeps it out: {WHY}\n"


def test_health_asks_those_that_count(filtered, cli):
    result = cli("health", "--json")
    assert (result.exit_code, list(json.loads(result.stdout)["plugins"])) == (0, ["adder"])


def test_completion_offers_what_counts(filtered, cli):
    for words, offered in (("hostkit --app demo info ", ["adder"]), ("hostkit --app demo info x", [])):
        result = cli(env={"_HOSTKIT_COMPLETE": "zsh_complete", "COMP_WORDS": words, "COMP_CWORD": "4"})
        assert result.stdout.splitlines()[1::3] == offered


def test_the_doctor_counts_them_and_knows_patterns_that_match_nothing(filtered, cli, cli_place):
    (cli_place / "hostkit.toml").write_text('[discovery]\nexclude = ["x*", "adddr"]\n[plugins.xtra]\ntimeout = 3\n')
    result = cli("doctor", "--json")
    found = {f"{each['section']}/{each['name']}": each for each in json.loads(result.stdout)["findings"]}
    assert result.exit_code == 0
    assert found["plugins/filters"]["state"] == "note"
    assert found["plugins/filters"]["text"] == "1 of 2 are kept out by [discovery]: xtra"
    assert found["configuration/discovery.exclude"]["text"] == "'adddr' matches no plugin in demo.plugins"
    assert "plugins/xtra" not in found
    assert "configuration/plugins.xtra" not in found


def test_the_doctor_draws_the_chain_and_names_optional_plugins_that_cannot_be_loaded(cli, install_demo):
    install_demo("a", NEVER, manifest="[requirements]\nrequired_plugins = ['b']\n")
    install_demo("b", NEVER, manifest="[requirements]\nrequired_plugins = ['nobody']\n")
    install_demo("c", NEVER, manifest="[requirements]\noptional_plugins = ['b']\n")
    result = cli("doctor", "--json")
    found = {each["name"]: each for each in json.loads(result.stdout)["findings"] if each["section"] == "plugins"}
    assert result.exit_code == 1
    assert "plugin 'a': a → b → nobody (not installed): plugin 'b' requires" in found["a"]["text"]
    assert found["c"]["state"] == "note"
    assert "the optional plugin 'b' can't be loaded: plugin 'b' requires the plugin nobody" in found["c"]["text"]
