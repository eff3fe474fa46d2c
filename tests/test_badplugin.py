"""The bad plugin that hostkit ships: every fault comes out as the table promises, in a worker and, where it may, in-process."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from hostkit import PluginFailed
from hostkit.testing import badplugin
from hostkit.testing.badplugin.__main__ import main


def run(*arguments):
    return CliRunner().invoke(main, list(arguments))


@pytest.mark.parametrize("name", sorted(badplugin.FAULTS))
def test_every_fault_is_survived_as_promised_in_a_worker(name):
    result = run(name)
    assert result.exit_code == 0, result.output
    assert "another plugin: answered in" in result.stdout
    assert result.stdout.endswith("left behind: nothing\nsurvived: yes\n")


@pytest.mark.parametrize("name", sorted(name for name, fault in badplugin.FAULTS.items() if not fault.alone))
def test_every_fault_that_may_run_in_process_is_survived_there_too(name):
    result = run(name, "--isolation", "none")
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("survived: yes\n")


@pytest.mark.parametrize("name", ["segfault", "exit", "hold-the-gil", "spin", "stop", "fill-disk", "import-leaves"])
def test_what_would_take_the_host_along_is_refused_in_process(name):
    result = run(name, "--isolation", "none")
    assert result.exit_code == 2
    assert "runs in a worker only" in result.output


def test_the_list_has_a_line_for_each_fault():
    lines = run().stdout.splitlines()
    assert [line.split()[0] for line in lines] == sorted(badplugin.FAULTS)
    assert all(" → " in line for line in lines)


def test_an_unknown_fault_is_told_with_the_nearest_one():
    result = run("segfualt")
    assert result.exit_code == 2
    assert "did you mean 'segfault'?" in result.output


def test_it_runs_as_a_module_and_tells_exit_code_signal_and_seconds():
    def told(*arguments):
        command = [sys.executable, "-m", "hostkit.testing.badplugin", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    crash = told("segfault", "--timeout", "5")
    assert crash.returncode == 0, crash.stderr
    assert "told: WorkerCrashed, after 0." in crash.stdout
    assert "signal: 11 (SIGSEGV)" in crash.stdout
    assert "next call: answered in" in crash.stdout
    assert "exit code: 0" in told("exit").stdout


def test_an_application_registers_it_and_names_the_fault_in_a_request(new_host):
    host = new_host("myapp")
    host.register(badplugin.BadPlugin, name="bad", isolation="process")
    with pytest.raises(Exception, match="status 4"):
        host.execute("bad", {"fault": "exit", "code": 4})
    assert host.execute("bad", {}) == "fine"


def test_it_is_installed_for_an_applications_group(site, new_host):
    badplugin.install(site, "naughty", group="myapp.plugins")
    host = new_host("myapp")
    assert list(host.specs) == ["naughty"]
    with pytest.raises(PluginFailed, match="bad value"):
        host.execute("naughty", {"fault": "raise"})


def test_registered_in_process_it_refuses_what_would_end_the_host(new_host):
    host = new_host("myapp")
    host.register(badplugin.BadPlugin, name="bad", isolation="none")
    with pytest.raises(PluginFailed, match='run it with isolation "process"'):
        host.execute("bad", {"fault": "segfault"})
    with pytest.raises(PluginFailed, match="did you mean 'segfault'"):
        host.execute("bad", {"fault": "segfualt"})
    assert host.execute("bad", None) == "fine"


def test_a_fault_of_a_request_can_not_be_installed(site):
    with pytest.raises(ValueError, match="named in a request"):
        badplugin.install(site, fault="segfault")
    with pytest.raises(LookupError):
        badplugin.install(site, fault="nothing-of-the-kind")


def test_the_table_of_faults_names_tests_that_there_are():
    root = Path(__file__).parent
    text = (root.parent / "docs" / "reference" / "faults.md").read_text()
    rows = [line for line in text.splitlines() if re.match(r"\| [0-9]", line)]
    assert len(rows) > 50
    for row in rows:
        file = ""
        named = re.findall(r"(test_\w+\.py)?::(test_\w+)", row)
        assert named, row
        for other, test in named:
            file = other or file
            assert f"def {test}(" in (root / file).read_text(), (row[:40], file, test)
