from __future__ import annotations

import itertools
import os
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import hostkit
from hostkit import ManifestError, RequirementError

# A plugin that says how deep in the host's calls it was imported, and what it sees of the environment.
SOURCE = """
    import os, sys
    def _depth(frame=None):
        frame, depth = sys._getframe(), 0
        while frame is not None:
            frame, depth = frame.f_back, depth + 1
        return depth
    DEPTH = _depth()
    class P:
        def execute(self, ctx, request):
            return DEPTH if request is None else os.environ.get(request)
"""


def requires(*plugins, **more):
    lines = [f"required_plugins = {list(plugins)!r}"] if plugins else []
    return "\n".join(["[requirements]", *lines, *(f"{key} = {value!r}" for key, value in more.items())])


@pytest.fixture
def refused(install_demo, new_host, isolation):
    """Install a plugin with requirements, load it, and return what is said."""

    def run(manifest, **options):
        install_demo("calc", "raise SystemExit('imported')", manifest=manifest)
        host = new_host("demo", **options)
        assert host.specs["calc"].error is None
        with pytest.raises(RequirementError) as caught:
            host.load("calc", isolation=isolation)
        assert str(caught.value).startswith("plugin 'calc' requires ")
        return str(caught.value)

    return run


@pytest.mark.parametrize("wanted", [">=3.8", "3.8", ">=3.8,<4", "!=3.10.0", "==3.*", "~=3.8", ""])
def test_a_python_that_fits_loads(install_demo, new_host, wanted):
    install_demo("calc", SOURCE, manifest=requires(python=wanted, hostkit=">=0.1.0"))
    new_host("demo").load("calc")


@pytest.mark.parametrize(("wanted", "told"), [(">=4", ">=4"), ("<3", "<3"), ("9.9", ">=9.9"), ("==2.7.*", "==2.7.*")])
def test_a_python_that_does_not_fit_is_told(refused, wanted, told):
    version = ".".join(map(str, sys.version_info[:3]))
    assert f"Python {told}, found Python {version}" in refused(requires(python=wanted))


def test_a_hostkit_that_does_not_fit_is_told(refused):
    assert f"hostkit >=99, found hostkit {hostkit.__version__}" in refused(requires(hostkit=">=99"))


# Other plugins.


def test_required_plugins_are_loaded_before_and_closed_after(install_demo, new_host, log):
    install_demo("a", SOURCE, manifest=requires("b", "c>=1"))
    install_demo("b", SOURCE, manifest=requires("d"))
    install_demo("c", SOURCE, manifest=requires("d~=1.0"))
    install_demo("d", SOURCE)
    install_demo("e", SOURCE)
    host = new_host("demo")
    assert isinstance(host.execute("a", None), int)
    host.close()
    told = [record["text"] for record in log if record.get("plugin") in list("abcde")]
    loaded = [text.split("'")[1] for text in told if "loaded" in text]
    closed = [text.split("'")[1] for text in told if text.endswith("closed")]
    assert sorted(loaded) == ["a", "b", "c", "d"]
    assert (loaded[0], loaded[-1]) == ("d", "a")
    assert closed == loaded[::-1]


@pytest.mark.parametrize("verb", ["load", "reload", "execute", "health", "info"])
def test_whatever_loads_a_plugin_loads_what_it_requires(install_demo, new_host, verb):
    install_demo("a", SOURCE, manifest=requires("b"))
    install_demo("b", SOURCE)
    host = new_host("demo")
    {"execute": lambda: host.execute("a", None)}.get(verb, lambda: getattr(host, verb)("a"))()
    assert list(host.health()) == ["b", "a"]


def test_a_chain_is_loaded_without_deeper_calls(install_demo, new_host):
    names = [f"p{number}" for number in range(12)]
    for name, needed in itertools.pairwise(names):
        install_demo(name, SOURCE, manifest=requires(needed))
    install_demo(names[-1], SOURCE)
    host = new_host("demo")
    host.load(names[0])
    depths = {host.execute(name, None) for name in names[1:]}
    assert len(depths) == 1


@pytest.mark.parametrize(
    ("plugins", "circle"),
    [
        ({"a": ["a"]}, ["a → a"]),
        ({"a": ["b"], "b": ["a"]}, ["a → b → a", "b → a → b"]),
        (
            {"a": ["b"], "b": ["c"], "c": ["d"], "d": ["b"]},
            ["a → b → c → d → b", "b → c → d → b", "c → d → b → c", "d → b → c → d"],
        ),
    ],
)
def test_plugins_that_require_each_other_are_told_and_none_is_loaded(install_demo, new_host, plugins, circle):
    for name, needed in plugins.items():
        install_demo(name, "raise SystemExit('imported')", manifest=requires(*needed))
    host = new_host("demo")
    for name, drawn in zip(plugins, circle, strict=True):
        with pytest.raises(RequirementError, match=f"plugin '{name}': plugins require each other in a circle: ") as caught:
            host.load(name)
        assert str(caught.value).partition("circle: ")[2] == drawn
    assert host.health() == {}


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("nobody", "the plugin nobody, found no plugin of that name; install it"),
        ("dep>=2", "the plugin dep>=2, found version 1.0; install a version that fits"),
        ("dep!=1", "the plugin dep!=1, found version 1.0"),
        ("broken", "the plugin broken, found a broken one: plugin 'broken'"),
    ],
)
def test_a_plugin_that_is_not_there_is_told(refused, install_demo, wanted, words):
    install_demo("dep", "raise SystemExit")
    install_demo("broken", "", manifest="isolation = 3")
    assert words in refused(requires(wanted))


@pytest.mark.parametrize(
    ("last", "config", "drawn", "words"),
    [
        (None, {}, "c>=2 (not installed)", "'b' requires the plugin c>=2, found no plugin of that name; install it"),
        ({}, {}, "c>=2 (version 1.0)", "'b' requires the plugin c>=2, found version 1.0; install a version that fits"),
        ({"manifest": "isolation = 3"}, {}, "c>=2 (broken)", "'b' requires the plugin c>=2, found a broken one: "),
        (
            {"version": "2.0"},
            {"plugins": {"c": {"enabled": False}}},
            "c>=2 (disabled)",
            "'b' requires the plugin c>=2, found one that is disabled in the configuration; enable it",
        ),
        (
            {"version": "2.0"},
            {"discovery": {"exclude": ["c*"]}},
            "c>=2 (kept out)",
            "'b' requires the plugin c>=2, found one that is installed and kept out: [discovery] exclude has 'c*'; let it in",
        ),
    ],
)
def test_what_is_wrong_far_down_is_told_with_the_chain_that_leads_there(
    install_demo, new_host, isolation, last, config, drawn, words
):
    install_demo("a", "raise SystemExit('imported')", manifest=requires("b"))
    install_demo("b", "raise SystemExit('imported')", manifest=requires("c>=2"))
    if last is not None:
        install_demo("c", "raise SystemExit('imported')", **last)
    with pytest.raises(RequirementError) as caught:
        new_host("demo", config=config).load("a", isolation=isolation)
    assert str(caught.value).startswith(f"plugin 'a': a → b → {drawn}: plugin {words}")


def test_what_only_a_load_finds_out_far_down_has_its_chain_too(install_demo, new_host):
    install_demo("a", "raise SystemExit('imported')", manifest=requires("b"))
    install_demo("b", "raise SystemExit('imported')", manifest=requires("c"))
    install_demo("c", "raise SystemExit('imported')", manifest=requires(environment_vars=["NOBODY_SETS_THIS"]))
    host = new_host("demo")
    with pytest.raises(RequirementError) as caught:
        host.load("a")
    assert str(caught.value).startswith("plugin 'a': a → b → c: plugin 'c' requires the environment variable NOBODY_SETS_THIS, ")
    assert host.health() == {}


def test_a_disabled_plugin_is_not_there_for_others_either(refused, install_demo):
    install_demo("dep", "raise SystemExit")
    said = refused(requires("dep"), config={"plugins": {"dep": {"enabled": False}}})
    assert "requires the plugin dep, found one that is disabled in the configuration; enable it" in said


@pytest.mark.parametrize(("there", "wanted"), [("my-dep", "my_dep"), ("My.Dep", "my-dep>=1"), ("my_dep", "MY-DEP")])
def test_a_required_plugin_may_be_spelled_differently(install_demo, new_host, there, wanted):
    install_demo(there, SOURCE)
    install_demo("calc", SOURCE, manifest=requires(wanted))
    host = new_host("demo")
    host.load("calc")
    assert list(host.health()) == [there, "calc"]


def test_a_plugin_directory_without_a_version_fits_no_range(install_demo, new_host, tmp_path):
    home = tmp_path / "plugins" / "dep"
    home.mkdir(parents=True)
    (home / "plugin.toml").write_text('entry_point = "dep_code:P"')
    (home / "dep_code.py").write_text("class P: ...")
    install_demo("calc", SOURCE, manifest=requires("dep<2"))
    with pytest.raises(RequirementError, match="the plugin dep<2, found one of unknown version"):
        new_host("demo", config={"discovery": {"paths": [str(tmp_path / "plugins")]}}).load("calc")


def test_a_prerelease_counts(install_demo, new_host):
    install_demo("dep", SOURCE, version="2.0rc1")
    install_demo("calc", SOURCE, manifest=requires("dep>=1.5,<2"))
    with pytest.raises(RequirementError, match=r"found version 2\.0rc1"):
        new_host("demo").load("calc")
    install_demo("other", SOURCE, manifest=requires("dep>=1.5"))
    new_host("demo").load("other")


def test_a_registered_plugin_is_there_for_others(install_demo, new_host):
    class Dep:
        def execute(self, ctx, request):
            return request

    install_demo("calc", SOURCE, manifest=requires("dep"))
    host = new_host("demo")
    with pytest.raises(RequirementError, match="no plugin of that name"):
        host.load("calc")
    host.register(Dep, name="dep")
    host.load("calc")


# Optional ones.


@pytest.mark.parametrize(
    ("there", "config"),
    [
        (False, {}),
        (True, {"plugins": {"dep": {"enabled": False}}}),
        (True, {"discovery": {"exclude": ["dep"]}}),
    ],
)
def test_an_optional_plugin_may_be_missing_or_disabled_or_kept_out(install_demo, new_host, log, isolation, there, config):
    if there:
        install_demo("dep", "raise SystemExit", version="0.1")
    install_demo("calc", SOURCE, manifest=requires(optional_plugins=["dep>=1"]))
    host = new_host("demo", config=config)
    host.load("calc", isolation=isolation)
    assert list(host.health()) == ["calc"]
    assert not [record for record in log if record["level"] == "WARNING"]


def test_an_optional_plugin_that_is_there_is_loaded_before_and_closed_after(install_demo, new_host, log, isolation):
    install_demo("a", SOURCE, manifest=requires("b", optional_plugins=["z>=1"]))
    install_demo("b", SOURCE, manifest=requires(optional_plugins=["c"]))
    install_demo("c", SOURCE, manifest=requires("d"))
    for name in "dz":
        install_demo(name, SOURCE)
    host = new_host("demo", config={"defaults": {"isolation": isolation}})
    host.execute("a", None)
    order = list(host.health())
    assert sorted(order) == ["a", "b", "c", "d", "z"]
    assert order[-1] == "a"
    assert order.index("d") < order.index("c") < order.index("b")
    host.close()
    closed = [record["plugin"] for record in log if record["text"].endswith("closed")]
    assert closed == order[::-1]


def test_load_all_keeps_optional_plugins_before_those_that_name_them(install_demo, new_host, isolation):
    install_demo("a", SOURCE, manifest=requires(optional_plugins=["c", "nobody"]))
    install_demo("b", SOURCE, manifest=requires("a"))
    install_demo("c", SOURCE)
    host = new_host("demo")
    assert host.load_all(isolation=isolation) == {}
    assert list(host.health()) == ["c", "a", "b"]


def told_without(log):
    return [record["text"] for record in log if record["level"] == "WARNING" and "goes without: " in record["text"]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"source": "raise RuntimeError('no database')"}, "the optional plugin 'dep' can't be loaded: plugin 'dep'"),
        ({"source": SOURCE, "manifest": "isolation = 3"}, "the optional plugin 'dep' is broken: plugin 'dep'"),
        (
            {"source": SOURCE, "manifest": "[requirements]\nrequired_plugins = ['nobody']"},
            "the optional plugin 'dep' can't be loaded: plugin 'dep' requires the plugin nobody, found no plugin of that name",
        ),
        (
            {"source": SOURCE, "manifest": "[requirements]\nrequired_plugins = ['dep']"},
            "the optional plugin 'dep' can't be loaded: plugin 'dep': plugins require each other in a circle: dep → dep",
        ),
        (
            {"source": SOURCE, "manifest": "[requirements]\npython = '<3'"},
            "the optional plugin 'dep' can't be loaded: plugin 'dep' requires Python <3",
        ),
    ],
)
@pytest.mark.parametrize("together", [False, True])
def test_an_optional_plugin_that_cannot_be_loaded_is_a_warning(install_demo, new_host, log, isolation, options, words, together):
    install_demo("dep", **options)
    install_demo("calc", SOURCE, manifest=requires(optional_plugins=["dep"]))
    host = new_host("demo", config={"defaults": {"isolation": isolation}})
    if together:
        assert list(host.load_all("calc")) == []
    else:
        host.load("calc")
    assert list(host.health()) == ["calc"]
    [told] = told_without(log)
    assert told.startswith(f"plugin 'calc' goes without: {words}")


def test_an_optional_plugin_is_not_loaded_without_what_it_requires(install_demo, new_host, log, isolation):
    install_demo("base", "raise RuntimeError('no database')")
    install_demo("dep", SOURCE, manifest=requires("base"))
    install_demo("calc", SOURCE, manifest=requires(optional_plugins=["dep"]))
    host = new_host("demo", config={"defaults": {"isolation": isolation}})
    host.load("calc")
    assert list(host.health()) == ["calc"]
    first, second = told_without(log)
    assert "the optional plugin 'base' can't be loaded: " in first
    assert "the optional plugin 'dep' can't be loaded: it requires 'base', which could not be loaded" in second


def test_an_optional_plugin_that_is_there_must_fit(refused, install_demo):
    install_demo("dep", "raise SystemExit")
    said = refused(requires(optional_plugins=["dep>=2"]))
    assert "the plugin dep>=2, found version 1.0; install a version that fits, or disable it" in said


def test_plugins_that_name_each_other_as_optional_are_no_circle(install_demo, new_host):
    install_demo("a", SOURCE, manifest=requires("b"))
    install_demo("b", SOURCE, manifest=requires(optional_plugins=["a", "b"]))
    host = new_host("demo")
    host.load("a")
    assert list(host.health()) == ["b", "a"]


def test_threads_that_load_the_plugins_of_an_optional_circle_do_not_wait_for_each_other(install_demo, new_host):
    names = ["a", "b", "c", "d"]
    for name, other in zip(names, [*names[1:], names[0]], strict=True):
        install_demo(name, SOURCE, manifest=requires(optional_plugins=[other]))
    host = new_host("demo")
    start = threading.Barrier(len(names))

    def load(name):
        start.wait(10)
        host.load(name)

    with ThreadPoolExecutor(len(names)) as pool:
        for loaded in [pool.submit(load, name) for name in names]:
            loaded.result(20)
    assert list(host.health()) == ["d", "c", "b", "a"]


# Unloading.


@pytest.fixture
def chained(install_demo, new_host, isolation):
    """A host that has loaded a, which requires b, which requires c; d has c as optional."""
    install_demo("a", SOURCE, manifest=requires("B>=1"))
    install_demo("b", SOURCE, manifest=requires("c"))
    install_demo("c", SOURCE)
    install_demo("d", SOURCE, manifest=requires(optional_plugins=["c"]))
    host = new_host("demo", config={"defaults": {"isolation": isolation}})
    assert host.load_all() == {}
    return host


def test_a_plugin_that_others_need_is_not_unloaded(chained):
    with pytest.raises(RequirementError) as caught:
        chained.unload("c")
    assert str(caught.value) == "plugin 'c' is needed by 'b', 'a'; unload 'a' first, or force it (force=True)"
    with pytest.raises(RequirementError, match="plugin 'b' is needed by 'a'; unload 'a' first"):
        chained.unload("b")
    assert sorted(chained.health()) == ["a", "b", "c", "d"]
    for name in ("a", "b", "c"):
        chained.unload(name)
    assert list(chained.health()) == ["d"]
    chained.unload("c")  # which isn't loaded


def test_force_unloads_it_and_leaves_the_others_as_they_are(chained):
    chained.unload("c", force=True)
    assert sorted(chained.health()) == ["a", "b", "d"]
    assert isinstance(chained.execute("a", None), int)
    chained.load("c")
    chained.unload("b", force=True)
    with pytest.raises(RequirementError, match="plugin 'c' is needed by 'a'"):
        chained.unload("c")


def test_a_plugin_that_others_need_may_be_reloaded_and_drained(chained):
    chained.reload("c")
    assert chained.drain("c", 5.0)
    chained.reload("c")
    assert sorted(chained.health()) == ["a", "b", "c", "d"]


def test_nobody_unloads_what_a_plugin_that_is_being_loaded_needs(install_demo, new_host, tmp_path):
    begun, go_on = tmp_path / "begun", tmp_path / "go"
    os.mkfifo(begun)
    os.mkfifo(go_on)
    install_demo(
        "a", f"open({str(begun)!r}, 'w').close(); open({str(go_on)!r}).close()\n" + textwrap.dedent(SOURCE), manifest=requires("b")
    )
    install_demo("b", SOURCE)
    host = new_host("demo")
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(host.load, "a")
        begun.read_text()
        try:
            with pytest.raises(RequirementError, match="plugin 'b' is needed by 'a'"):
                host.unload("b")
        finally:
            go_on.write_text("")
        loading.result(10)
    assert list(host.health()) == ["b", "a"]


# A required plugin that can't be loaded.


def test_a_required_plugin_that_fails_to_load_says_so_itself(install_demo, new_host, isolation):
    install_demo("dep", "raise RuntimeError('no database')")
    install_demo("calc", SOURCE, manifest=requires("dep"))
    host = new_host("demo", config={"defaults": {"isolation": isolation}})
    with pytest.raises(hostkit.PluginLoadError, match="no database") as caught:
        host.load("calc")
    assert caught.value.plugin == "dep"
    assert host.health() == {}


def test_a_manifest_that_is_wrong_since_the_look_is_a_manifest_error(install_demo, new_host, site):
    install_demo("calc", SOURCE, manifest=requires("dep"))
    install_demo("dep", SOURCE, manifest="")
    host = new_host("demo")
    assert host.specs["dep"].error is None
    (site / "calc" / "plugin.toml").write_text("isolation = 3")
    with pytest.raises(ManifestError, match="isolation"):
        host.load("calc")


# The environment and programs.


def test_a_missing_variable_is_told(refused):
    said = refused(requires(environment_vars=["CALC_TOKEN"]))
    assert "the environment variable CALC_TOKEN, found none of that name" in said
    assert 'env = ["CALC_TOKEN"]' in said


def test_in_process_a_variable_of_the_host_is_there(install_demo, new_host, monkeypatch):
    monkeypatch.setenv("CALC_TOKEN", "")
    install_demo("calc", SOURCE, manifest=requires(environment_vars=["CALC_TOKEN"]))
    host = new_host("demo")
    host.load("calc", isolation="none")
    assert host.execute("calc", "CALC_TOKEN") == ""


def test_isolated_only_a_passed_variable_is_there(install_demo, new_host, monkeypatch):
    monkeypatch.setenv("CALC_TOKEN", "secret")
    install_demo("calc", SOURCE, manifest=requires(environment_vars=["CALC_TOKEN"]))
    with pytest.raises(RequirementError, match="the environment variable CALC_TOKEN, found none of that name"):
        new_host("demo").load("calc", isolation="process")
    host = new_host("demo", config={"plugins": {"calc": {"env": ["CALC_TOKEN"]}}})
    host.load("calc", isolation="process")
    assert host.execute("calc", "CALC_TOKEN") == "secret"


def test_isolated_what_every_worker_sees_is_there(install_demo, new_host):
    install_demo("calc", SOURCE, manifest=requires(environment_vars=["PATH"]))
    new_host("demo").load("calc", isolation="process")


def test_a_program_that_is_not_on_the_path_is_told(refused):
    said = refused(requires(system_packages=["no-such-program-anywhere"]))
    assert "the program no-such-program-anywhere on PATH, found no such program; install it" in said


def test_a_program_on_the_path_is_there(install_demo, new_host, tmp_path, monkeypatch):
    program = tmp_path / "calc-tool"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    install_demo("calc", SOURCE, manifest=requires(system_packages=["calc-tool"]))
    new_host("demo").load("calc")


@pytest.mark.parametrize("made", ["file", "directory"])
def test_what_cannot_be_run_is_no_program(refused, tmp_path, monkeypatch, made):
    place = tmp_path / "calc-tool"
    place.mkdir() if made == "directory" else place.touch(0o644)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "the program calc-tool on PATH" in refused(requires(system_packages=["calc-tool"]))
