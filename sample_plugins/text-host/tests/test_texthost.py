from __future__ import annotations

import subprocess
import sys

import pytest
import texthost
from loguru import logger
from texthost.__main__ import main

import hostkit
from hostkit import hookimpl, testing


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No test reads the index of whoever runs it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield
    logger.remove()
    logger.disable("hostkit")


@pytest.fixture
def host():
    with texthost.open_host() as host:
        yield host


@pytest.fixture
def install(tmp_path, monkeypatch):
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def make(name, source, **options):
        testing.install(site, name, source, group="texthost.plugins", **options)

    yield make
    for name in [name for name, module in sys.modules.items() if str(getattr(module, "__file__", "")).startswith(str(site))]:
        del sys.modules[name]


STARRED = """
    from hostkit import hookimpl

    class P:
        star = "*"

        @hookimpl
        def configured(self, settings):
            self.star = settings.get("star", "*")

        @hookimpl
        def transform(self, text):
            return self.star + text

        @hookimpl(tryfirst=True)
        def score(self, words):
            return 0.5 if words == ["half"] else None
"""
FAILING = """
    from hostkit import hookimpl

    @hookimpl
    def transform(text):
        raise ValueError("not this text")
"""


@pytest.mark.parametrize("isolation", testing.isolations())
def test_every_plugin_is_asked_wherever_it_runs(host, install, isolation):
    install("starred", STARRED)
    host.load("starred", isolation=isolation)
    assert texthost.transformed(host, "text") == ["*text"]
    assert texthost.scored(host, "half") == 0.5
    assert texthost.scored(host, "whole") is None


@pytest.mark.parametrize("isolation", testing.isolations())
def test_a_plugin_hears_of_settings_that_were_made_before_it(host, install, isolation):
    install("starred", STARRED)
    texthost.configure(host, {"star": "+"})
    host.load("starred", isolation=isolation)
    assert texthost.transformed(host, "text") == ["+text"]


@pytest.mark.parametrize("isolation", testing.isolations())
def test_the_command_line_prints_every_result_and_the_score(install, capsys, isolation):
    install("starred", STARRED)
    main(["half", "--isolation", isolation, "--set", "star=#"])
    out = capsys.readouterr().out.splitlines()
    assert "#half" in out
    assert out[-1] == "score: 0.5"


@pytest.mark.parametrize("isolation", testing.isolations())
def test_a_failing_plugin_is_told_on_stderr_and_the_others_are_heard(install, capsys, isolation):
    install("failing", FAILING, attribute="")
    install("starred", STARRED)
    assert main(["text", "--isolation", isolation]) == 0
    said = capsys.readouterr()
    assert "*text" in said.out.splitlines()
    assert "plugin 'failing' raised ValueError: not this text" in said.err


def test_a_plugin_that_can_not_be_loaded_is_told_on_stderr_and_fails_the_command(install, capsys):
    install("typo", "from hostkit import hookimpl\n@hookimpl\ndef tranform(text): pass", attribute="")
    install("starred", STARRED)
    assert main(["text"]) == 1
    said = capsys.readouterr()
    assert "*text" in said.out.splitlines()
    assert "texthost has no hook of that name; did you mean transform?" in said.err


def test_wrong_arguments_are_usage_errors(capsys):
    for wrong in ([], ["text", "--isolation", "elsewhere"], ["text", "--set", "no-pair"]):
        with pytest.raises(SystemExit) as caught:
            main(wrong)
        assert caught.value.code == 2
    assert "expected KEY=VALUE, found 'no-pair'" in capsys.readouterr().err


def test_it_runs_as_a_module():
    command = [sys.executable, "-m", "texthost", "text"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines()[-1].startswith("score: "), done.stderr


def test_an_application_can_add_plugins_of_its_own(host):
    class Own:
        @hookimpl
        def transform(self, text):
            return text[::-1]

    host.register(Own(), name="own")
    assert texthost.transformed(host, "abc") == ["cba"]
    with pytest.raises(hostkit.InvalidRequest, match="hooks only"):
        host.execute("own", "abc")
