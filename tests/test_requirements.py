from __future__ import annotations

import itertools
import os
import sys

import pytest

import hostkit
from hostkit import ManifestError, PluginSpec, RequirementError
from hostkit._requirements import load_order

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


def spec(name, *required, version="1.0"):
    return PluginSpec(name, f"{name}:P", name, version, manifest_data={"requirements": {"required_plugins": list(required)}})


def test_ten_thousand_plugins_in_a_chain_have_an_order():
    names = [f"p{number}" for number in range(10_000)]
    specs = {name: spec(name, *needed) for name, *needed in zip(names, names[1:])} | {names[-1]: spec(names[-1])}
    assert load_order("p0", specs) == names[:0:-1]


def test_ten_thousand_plugins_in_a_circle_are_told_in_short():
    names = [f"p{number}" for number in range(10_000)]
    specs = {name: spec(name, needed) for name, needed in zip(names, [*names[1:], names[0]])}
    with pytest.raises(RequirementError, match="in a circle") as caught:
        load_order("p0", specs)
    assert len(str(caught.value)) < 300


def test_diamonds_upon_diamonds_are_looked_at_once_each():
    layers = [[f"l{layer}-{side}" for side in "ab"] for layer in range(200)]  # 2 ** 200 ways from top to bottom
    specs = {"top": spec("top", *layers[0])} | {name: spec(name) for name in layers[-1]}
    for upper, lower in itertools.pairwise(layers):
        specs |= {name: spec(name, *lower) for name in upper}
    order = load_order("top", specs)
    assert sorted(order) == sorted(name for layer in layers for name in layer)
    assert all(order.index(upper[0]) > order.index(lower[1]) for upper, lower in itertools.pairwise(layers))


@pytest.mark.parametrize(
    ("plugins", "circle"),
    [
        ({"a": ["a"]}, {"a → a"}),
        ({"a": ["b"], "b": ["a"]}, {"a → b → a", "b → a → b"}),
        ({"a": ["b"], "b": ["c"], "c": ["d"], "d": ["b"]}, {"b → c → d → b", "c → d → b → c", "d → b → c → d"}),
    ],
)
def test_plugins_that_require_each_other_are_told_and_none_is_loaded(install_demo, new_host, plugins, circle):
    for name, needed in plugins.items():
        install_demo(name, "raise SystemExit('imported')", manifest=requires(*needed))
    host = new_host("demo")
    for name in plugins:
        with pytest.raises(RequirementError, match=f"plugin '{name}': plugins require each other in a circle: ") as caught:
            host.load(name)
        assert str(caught.value).partition("circle: ")[2] in circle
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


def test_what_is_missing_far_down_is_told_by_the_one_that_requires_it(install_demo, new_host):
    install_demo("a", "raise SystemExit", manifest=requires("b"))
    install_demo("b", "raise SystemExit", manifest=requires("nobody"))
    with pytest.raises(RequirementError, match="plugin 'b' requires the plugin nobody, found no plugin of that name"):
        new_host("demo").load("a")


def test_a_disabled_plugin_is_not_there_for_others_either(refused, install_demo):
    install_demo("dep", "raise SystemExit")
    said = refused(requires("dep"), config={"plugins": {"dep": {"enabled": False}}})
    assert "requires the plugin 'dep', which is disabled in the configuration" in said


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


@pytest.mark.parametrize("there", ["missing", "broken", "fits"])
def test_an_optional_plugin_may_be_missing_and_is_not_loaded(install_demo, new_host, there):
    if there != "missing":
        install_demo("dep", "raise SystemExit", manifest="" if there == "fits" else "isolation = 3")
    install_demo("calc", SOURCE, manifest=requires(optional_plugins=["dep>=1"]))
    host = new_host("demo")
    host.load("calc")
    assert list(host.health()) == ["calc"]


def test_an_optional_plugin_that_is_there_must_fit(refused, install_demo):
    install_demo("dep", "raise SystemExit")
    assert "the plugin dep>=2, found version 1.0" in refused(requires(optional_plugins=["dep>=2"]))


def test_plugins_that_name_each_other_as_optional_are_no_circle(install_demo, new_host):
    install_demo("a", SOURCE, manifest=requires("b"))
    install_demo("b", SOURCE, manifest=requires(optional_plugins=["a", "b"]))
    host = new_host("demo")
    host.load("a")
    assert list(host.health()) == ["b", "a"]


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
