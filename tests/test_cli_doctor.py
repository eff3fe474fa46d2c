"""``hostkit doctor``: what it looks at, and when it fails."""

from __future__ import annotations

import json

import pytest

import hostkit

ECHO = """
    import pathlib
    pathlib.Path(__file__).with_name("imported").touch()

    class P:
        def execute(self, ctx, request):
            return request
"""


def findings(result):
    return {f"{found['section']}/{found['name']}": found for found in json.loads(result.stdout)["findings"]}


def test_a_machine_on_which_all_is_well(cli, install_demo, site):
    install_demo("plugin", ECHO, version="1.2.0")
    result = cli("doctor", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    found = findings(result)
    for name in (
        "hostkit",
        "python",
        "platform",
        "memfd",
        "pidfd",
        "lifeline signal",
        "rlimits",
        "CPU affinity",
        "cgroups",
        "worker",
        "sandbox standard",
        "sandbox strict",
    ):
        assert found[f"machine/{name}"]["state"] in ("ok", "note")
    assert found["machine/worker"]["text"].startswith("ready in ")
    assert found["plugins/plugin"] == {
        "section": "plugins",
        "name": "plugin",
        "state": "ok",
        "text": "1.2.0, isolation none",
        "remedy": "",
    }
    assert not (site / "plugin" / "imported").exists()
    for_people = cli("doctor")
    assert for_people.exit_code == 0
    assert for_people.stdout.endswith("\nnothing is broken\n")


@pytest.mark.parametrize(
    ("options", "kind", "remedy"),
    [
        ({"manifest": "isolatoin = true\n"}, "ManifestError", "mend its manifest"),
        ({"manifest": "[requirements]\npython = '<3'\n"}, "RequirementError", ""),
        ({"manifest": "[requirements]\nrequired_plugins = ['nothere']\n"}, "RequirementError", ""),
        ({"manifest": "[resources]\nmax_memory_mb = 64\n"}, None, ""),
    ],
)
def test_a_plugin_that_could_not_run_is_broken(cli, install_demo, options, kind, remedy):
    install_demo("plugin", ECHO, **options)
    install_demo("fine", ECHO)
    result = cli("doctor", "--json")
    found = findings(result)["plugins/plugin"]
    assert findings(result)["plugins/fine"]["state"] == "ok"
    assert result.exit_code == (1 if kind else 0)
    assert found["state"] == ("broken" if kind else "note")
    assert remedy in found["remedy"]
    assert found["text"].startswith(f"{kind}: " if kind else "1.0, isolation none; nothing holds its limits there")


def test_two_that_claim_one_name_are_broken(cli, install_demo, site):
    install_demo("one", ECHO)
    install_demo("two", ECHO)
    (site / "two-1.0.dist-info" / "entry_points.txt").write_text("[demo.plugins]\none = two:P\n")
    result = cli("doctor")
    assert result.exit_code == 1
    assert "DuplicatePlugin" in result.stdout
    assert "→ uninstall all but one of them" in result.stdout


def test_an_operator_who_demands_what_cannot_be_held_hears_of_it(cli, install_demo, cli_place):
    install_demo("plugin", ECHO, manifest="[resources]\nmax_memory_mb = 64\n")
    (cli_place / "hostkit.toml").write_text("[defaults]\nrequire_enforcement = true\n")
    result = cli("doctor", "--json")
    assert result.exit_code == 1
    assert findings(result)["plugins/plugin"]["text"].startswith("SandboxUnavailable: ")


def test_a_wrong_configuration_is_a_finding_and_the_machine_is_still_looked_at(cli, install_demo, cli_place):
    install_demo("plugin", ECHO)
    (cli_place / "hostkit.toml").write_text("[defaults]\ntimeuot = 1\n")
    result = cli("doctor", "--json")
    assert (result.exit_code, result.stderr) == (1, "")
    found = findings(result)
    assert found["configuration/file"]["state"] == "broken"
    assert "did you mean 'timeout'?" in found["configuration/file"]["text"]
    assert found["machine/worker"]["state"] == "ok"
    assert found["plugins/all"]["state"] == "note"
    assert findings(cli("doctor", "--json", "--config", "nothere.toml"))["configuration/file"]["state"] == "broken"


def test_a_configuration_is_named_with_what_it_says_of_nobody(cli, install_demo, cli_place, monkeypatch):
    install_demo("plugin", ECHO)
    monkeypatch.setenv("HOSTKIT_DEFAULTS__TIMEOUT", "5s")
    (cli_place / "hostkit.toml").write_text("[plugins.plugin]\nenabled = false\n[plugins.plugn]\n")
    result = cli("doctor", "--json")
    assert result.exit_code == 0
    found = findings(result)
    assert found["configuration/file"]["text"] == f"{cli_place / 'hostkit.toml'} is valid"
    assert found["configuration/HOSTKIT_DEFAULTS__TIMEOUT"]["text"] == "sets defaults.timeout"
    assert found["configuration/plugins.plugn"]["state"] == "note"
    assert found["plugins/plugin"]["text"] == "disabled in the configuration"


def test_a_machine_that_starts_no_worker_is_broken(cli, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("subprocess.Popen", refuse)
    result = cli("doctor", "--json")
    assert result.exit_code == 1
    worker = findings(result)["machine/worker"]
    assert (worker["state"], "Operation not permitted" in worker["text"]) == ("broken", True)


def test_what_this_system_lacks_is_a_note(cli, monkeypatch):
    monkeypatch.delattr("os.pidfd_open")
    found = findings(cli("doctor", "--json"))["machine/pidfd"]
    assert found["state"] == "note"
    assert found["text"].startswith("not here")


def test_words_of_a_plugin_cannot_paint_the_report(cli, install_demo):
    install_demo("plugin", ECHO, manifest='"\\u001b[31m" = 1\n')
    result = cli("doctor")
    assert result.exit_code == 1
    assert "\x1b" not in result.stdout


def test_a_level_of_the_sandbox_that_cannot_be_had_is_a_note_that_says_why(cli, monkeypatch):
    def missing(self, settings, spec):
        raise hostkit.SandboxUnavailable(f"{settings.sandbox}: Landlock: this kernel has none")

    monkeypatch.setattr("hostkit._confinement.Ground.confinement", missing)
    result = cli("doctor", "--json")
    found = findings(result)["machine/sandbox standard"]
    assert result.exit_code == 0
    assert (found["state"], "this kernel has none" in found["text"]) == ("note", True)
    assert "sandbox = 'standard' are refused" in found["remedy"]


@pytest.mark.parametrize(("policy", "state", "status"), [("enforce", "broken", 1), ("audit", "note", 0)])
def test_a_lock_that_cannot_be_read_is_a_finding(cli, install_demo, cli_place, policy, state, status):
    install_demo("plugin", ECHO)
    (cli_place / "hostkit.toml").write_text(f'[lock]\npolicy = "{policy}"\n')
    result = cli("doctor", "--json")
    found = findings(result)["configuration/lock"]
    assert (result.exit_code, found["state"]) == (status, state)
    assert "write it: hostkit lock" in found["text"]
    assert cli("lock").exit_code == 0
    found = findings(cli("doctor", "--json"))["configuration/lock"]
    assert (found["state"], found["text"]) == ("ok", f"{cli_place / 'hostkit.lock'} has 1 plugins; policy {policy}")
