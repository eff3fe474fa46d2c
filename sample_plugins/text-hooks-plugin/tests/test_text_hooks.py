from __future__ import annotations

import subprocess
import sys

import pytest
import texthost
from text_hooks_plugin import Emphasis

import hostkit
from hostkit import testing

PLACES = [(first, second) for first in testing.isolations() for second in testing.isolations()]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test reads the index of whoever runs it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def host():
    with hostkit.Host("texthost", hookspecs=[texthost.hookspecs]) as host:
        yield host


@pytest.fixture(params=PLACES, ids="-".join)
def loaded(request, host):
    for name, isolation in zip(("emphasis", "reversing"), request.param, strict=True):
        host.load(name, isolation=isolation)
    return host


def test_both_plugins_rewrite_a_text_and_emphasis_does_so_first(loaded):
    assert loaded.hook.transform(text="a b c") == ["A B C!", "c b a"]


def test_the_order_of_loading_makes_no_difference(host):
    for name in ("reversing", "emphasis"):
        host.load(name)
    assert host.hook.transform(text="a b c") == ["A B C!", "c b a"]


def test_emphasis_scores_what_reversing_leaves_to_it(loaded):
    assert loaded.hook.score(text="a bcd", words=["a", "bcd"]) == 2.0
    assert loaded.hook.score(text="", words=[]) == 0.0


def test_a_setting_is_heard_by_a_plugin_that_is_loaded_later(host):
    host.hook.configured.call_historic(kwargs={"settings": {"mark": "?"}})
    host.load("emphasis", isolation="process")
    assert host.hook.transform(text="a") == ["A?"]
    host.reload("emphasis", isolation="none")
    assert host.hook.transform(text="a") == ["A?"]


def test_alone_emphasis_fails_over_a_text_without_words(host):
    host.load("emphasis", isolation="process")
    with pytest.raises(hostkit.PluginFailed, match="plugin 'emphasis' raised ZeroDivisionError"):
        host.hook.score(text="", words=[])


def test_it_works_without_a_host():
    emphasis = Emphasis()
    emphasis.configured({"mark": "."})
    assert emphasis.transform("a") == "A."


@pytest.mark.parametrize("isolation", testing.isolations())
def test_the_application_finds_both(isolation):
    command = [sys.executable, "-m", "texthost", "the quick brown fox", "--isolation", isolation, "--set", "mark=?"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["THE QUICK BROWN FOX?", "fox brown quick the", "score: 4.0"]
