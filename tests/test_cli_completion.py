"""Completion in bash, zsh and fish by click's protocol, and what the command line says of itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hostkit.cli import VERBS
from hostkit.cli._group import hostkit as group

ECHO = "class P:\n    def execute(self, ctx, request):\n        return request\n"


@pytest.fixture
def complete(cli):
    """Complete the last word of a command line as a shell would ask: returns the words that are offered."""

    def ask(*words, shell="zsh"):
        environment = {"_HOSTKIT_COMPLETE": f"{shell}_complete"}
        if shell == "fish":
            environment |= {"COMP_WORDS": " ".join(("hostkit", "--app", "demo", *words[:-1])), "COMP_CWORD": words[-1]}
        else:
            environment |= {"COMP_WORDS": " ".join(("hostkit", "--app", "demo", *words)), "COMP_CWORD": str(len(words) + 2)}
        result = cli(env=environment)
        assert (result.exit_code, result.stderr) == (0, "")
        lines = result.stdout.splitlines()
        if shell == "zsh":
            return lines[1::3]
        return [line.partition(",")[2].partition("\t")[0] for line in lines if line]

    return ask


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_verbs_and_plugins_are_completed_in_every_shell(complete, install_demo, shell):
    install_demo("calculator", ECHO, manifest='description = "adds,\\nand more"\n')
    install_demo("calendar", ECHO)
    install_demo("other", ECHO)
    assert complete("he", shell=shell) == ["health"]
    assert complete("execute", "cal", shell=shell) == ["calculator", "calendar"]
    assert complete("execute", "x", shell=shell) == []
    assert complete("health", "other", "calc", shell=shell) == ["calculator"]


def test_words_and_options_are_completed(complete):
    assert complete("") == list(VERBS)
    assert complete("execute", "x", "--isolation", "") == ["none", "auto", "process"]
    assert complete("execute", "x", "--isolation", "p") == ["process"]
    assert complete("execute", "--ti") == ["--timeout"]
    assert complete("--ve") == ["--version"]
    assert "--config" in complete("list", "--")


def test_broken_plugins_and_a_broken_configuration_offer_nothing(complete, install_demo, cli_place):
    install_demo("plugin", ECHO)
    install_demo("broken", ECHO, manifest="nonsense\n")
    assert complete("info", "") == ["plugin"]
    (cli_place / "hostkit.toml").write_text("nonsense = 1\n")
    assert complete("info", "") == []


def test_no_plugin_is_imported_for_a_completion(complete, install_demo, site):
    install_demo("plugin", "import pathlib\npathlib.Path(__file__).with_name('imported').touch()\n" + ECHO)
    assert complete("info", "") == ["plugin"]
    assert not (site / "plugin" / "imported").exists()


def test_a_question_that_makes_no_sense_is_no_traceback(cli, monkeypatch):
    monkeypatch.delenv("COMP_WORDS", raising=False)
    assert cli(env={"_HOSTKIT_COMPLETE": "nonsense"}).exit_code == 1
    result = cli(env={"_HOSTKIT_COMPLETE": "bash_complete"})
    assert (result.exit_code, result.stderr.startswith("hostkit: ")) == (70, True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_each_shell_is_printed(cli, shell):
    result = cli(env={"_HOSTKIT_COMPLETE": f"{shell}_source"})
    assert result.exit_code == 0
    assert "_HOSTKIT_COMPLETE" in result.stdout


def test_bash_itself_completes_a_plugin(install_demo, cli_place):
    command = Path(sys.executable).with_name("hostkit")
    bash = shutil.which("bash")
    if bash is None or not command.exists():
        pytest.skip("no bash, or hostkit is not installed as a command")
    install_demo("calculator", ECHO)
    script = subprocess.run(
        [command], env={**os.environ, "_HOSTKIT_COMPLETE": "bash_source"}, capture_output=True, text=True, check=True
    ).stdout
    ask = f'{script}\nCOMP_WORDS=({command} --app demo info calc); COMP_CWORD=4; _hostkit_completion {command}; echo "${{COMPREPLY[@]}}"'
    assert subprocess.run([bash, "-c", ask], capture_output=True, text=True, check=True).stdout == "calculator\n"


def test_the_help_imports_no_verb(cli_place):
    code = "import sys; from hostkit.cli import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for verb, (module, words) in VERBS.items():
        assert f"  {verb} " in ran.stdout
        assert " ".join(words.split()) in " ".join(ran.stdout.split())
        assert f"hostkit.cli.{module}" not in ran.stderr.split()


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_help(cli, verb):
    for option in ("-h", "--help"):
        result = cli(verb, option)
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout.startswith(f"Usage: hostkit {verb} ")


def test_the_version(cli_process):
    process = cli_process("--version")
    from hostkit import __version__

    assert process.stdout.read().startswith(f"hostkit {__version__} (Python 3.")
    assert process.wait() == 0


def test_both_modules_are_the_command(cli_place):
    for module in ("hostkit", "hostkit.cli"):
        ran = subprocess.run([sys.executable, "-m", module, "--app", "demo", "lst"], capture_output=True, text=True)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert ran.stderr.startswith("hostkit: UsageError: no verb 'lst'; did you mean 'list'?\n")


def test_the_reference_names_every_verb_and_option():
    page = Path(__file__).parents[1].joinpath("docs", "reference", "cli.md")
    if not page.exists():
        pytest.skip("not in a checkout")
    text = page.read_text()
    for verb in VERBS:
        assert f"## hostkit {verb}" in text
        command = group.get_command(None, verb)
        for option in {name for parameter in command.params for name in parameter.opts if name.startswith("--")}:
            assert f"`{option}" in text, (verb, option)
