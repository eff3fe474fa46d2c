from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

from hostkit import DuplicatePlugin, IntegrityError, ManifestError, PluginLoadError, testing

GROUP = "demo.plugins"

# Its import leaves a trace beside it: a look must never.
TRACED = """
    import pathlib, os
    pathlib.Path(os.environ["TRACES"], __name__).touch()
    class P:
        def execute(self, ctx, request):
            return [__name__, request]
"""


@pytest.fixture
def traces(tmp_path, monkeypatch):
    """The names of the modules of plugins that were imported, anywhere."""
    place = tmp_path / "traces"
    place.mkdir()
    monkeypatch.setenv("TRACES", str(place))
    return lambda: sorted(os.listdir(place))


@pytest.fixture
def demo(new_host):
    """A host with a group that nothing but a test installs into; workers may see where traces go."""

    def make(**config):
        config.setdefault("defaults", {}).setdefault("env", ["TRACES"])
        return new_host("demo", config=config)

    return make


def dist(place, name, entry_points, *, version="1.0", metadata=None, suffix="dist-info"):
    """Write the metadata of a distribution as an installer would, without any code."""
    info = Path(place, f"{name.replace('-', '_')}-{version}.{suffix}")
    info.mkdir(parents=True)
    lines = "\n".join(f"{each} = {value}" for each, value in entry_points)
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}\n", encoding="utf-8")
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" if metadata is None else metadata
    if text:
        (info / ("METADATA" if suffix == "dist-info" else "PKG-INFO")).write_text(text, encoding="utf-8")
    return info


def package(place, name, source=TRACED, **files):
    """Write a package; ``files`` are further files of it, with _ for the dot."""
    home = Path(place, name)
    home.mkdir(parents=True)
    (home / "__init__.py").write_text(textwrap.dedent(source), encoding="utf-8")
    for file, text in files.items():
        (home / file.replace("_", ".")).write_text(textwrap.dedent(text), encoding="utf-8")
    return home


def described(spec):
    assert spec.error is None, spec.error
    return spec.manifest.description


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("plugin.json", '{"description": "found", "isolation": "process"}'),
        ("plugin.toml", 'description = "found"\nisolation = "process"'),
        ("plugin.yaml", "description: found\nisolation: process"),
        ("plugin.yml", "description: found\nisolation: process"),
    ],
)
def test_a_manifest_is_found_in_every_format_and_nothing_is_imported(install_demo, demo, traces, site, file, text):
    install_demo("calc", TRACED, manifest=text, manifest_name=file)
    spec = demo().specs["calc"]
    assert described(spec) == "found"
    assert spec.manifest.wished_isolation == "process"
    assert spec.manifest_path == site / "calc" / file
    assert (spec.distribution, spec.version, spec.entry_point) == ("calc", "1.0", "calc:P")
    assert traces() == []


def test_a_dotted_entry_point_imports_no_parent(demo, site, traces):
    package(site, "outer", plugin_toml='description = "found"')
    package(site / "outer", "inner")
    dist(site, "outer", [("calc", "outer.inner:P")])
    host = demo()
    assert described(host.specs["calc"]) == "found"
    assert traces() == []
    assert host.execute("calc", 1) == ["outer.inner", 1]
    assert traces() == ["outer", "outer.inner"]


def test_a_plugin_may_be_a_single_module_without_a_manifest(demo, site, traces, isolation):
    (site / "single.py").write_text(textwrap.dedent(TRACED))
    dist(site, "single-plugin", [("single", "single:P")])
    (site / "plugin.toml").write_text("isolation = 'venv'")  # nobody's: no package is around it
    host = demo()
    spec = host.specs["single"]
    assert (spec.error, spec.manifest_path) == (None, None)
    assert traces() == []
    host.load("single", isolation=isolation)
    assert host.execute("single", 1) == ["single", 1]


def test_a_namespace_package_belongs_to_nobody_and_what_is_in_it_does(demo, site, tmp_path, monkeypatch, traces):
    other = tmp_path / "other"
    package(site / "space", "a", plugin_toml='description = "a"')
    package(other / "space", "b", plugin_toml='description = "b"')
    (site / "space" / "deep").mkdir()
    (site / "space" / "deep" / "leaf.py").write_text(textwrap.dedent(TRACED))
    monkeypatch.syspath_prepend(str(other))
    for name, module in [("a", "space.a"), ("b", "space.b.sub"), ("c", "space.deep.leaf")]:
        dist(site, f"space-{name}", [(name, f"{module}:P")])
    specs = demo().specs
    assert [(name, spec.error) for name, spec in specs.items()] == [("a", None), ("b", None), ("c", None)]
    assert [specs[name].manifest.description for name in "abc"] == ["a", "b", ""]
    assert traces() == []


def test_two_distributions_with_one_package_of_a_namespace_are_duplicates(demo, site):
    package(site / "space", "a")
    dist(site, "one", [("x", "space.a:P")])
    dist(site, "two", [("y", "space.a:Q")])
    specs = demo().specs
    for name in "xy":
        assert isinstance(specs[name].error, DuplicatePlugin)
        assert "the module 'space.a' is claimed by distribution 'one' and by distribution 'two'" in str(specs[name].error)


def test_a_plugin_in_a_zip_file_is_found_with_its_manifest(demo, tmp_path, monkeypatch, traces, isolation):
    archive = tmp_path / "zipped.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("zipped/__init__.py", textwrap.dedent(TRACED))
        packed.writestr("zipped/plugin.yaml", "description: found")
        packed.writestr("zipped-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: zipped\nVersion: 1.0\n")
        packed.writestr("zipped-1.0.dist-info/entry_points.txt", f"[{GROUP}]\nzipped = zipped:P\n")
    monkeypatch.syspath_prepend(str(archive))
    host = demo()
    assert described(host.specs["zipped"]) == "found"
    assert traces() == []
    host.load("zipped", isolation=isolation)
    assert host.execute("zipped", 1) == ["zipped", 1]
    sys.modules.pop("zipped", None)


def test_no_more_of_a_zip_file_is_unpacked_than_a_manifest_may_have(demo, tmp_path, monkeypatch):
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("bomb/__init__.py", "")
        packed.writestr("bomb/plugin.json", b" " * 50_000_000)
        packed.writestr("bomb-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: bomb\nVersion: 1.0\n")
        packed.writestr("bomb-1.0.dist-info/entry_points.txt", f"[{GROUP}]\nbomb = bomb:P\n")
    assert archive.stat().st_size < 100_000
    monkeypatch.syspath_prepend(str(archive))
    error = demo().specs["bomb"].error
    assert isinstance(error, ManifestError)
    assert "longer than the 32768 bytes" in str(error)
    assert "bomb.zip/bomb/plugin.json" in str(error)


def test_an_egg_on_the_path_is_found(demo, tmp_path, monkeypatch):
    egg = tmp_path / "old-2.0-py3.egg"
    package(egg, "old", plugin_json='{"description": "found"}')
    info = egg / "EGG-INFO"
    info.mkdir()
    (info / "PKG-INFO").write_text("Metadata-Version: 1.0\nName: old\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nold = old:P\n")
    monkeypatch.syspath_prepend(str(egg))
    spec = demo().specs["old"]
    assert (described(spec), spec.version) == ("found", "2.0")


def test_an_egg_info_directory_is_found(demo, site):
    package(site, "old", plugin_toml='description = "found"')
    dist(site, "old", [("old", "old:P")], suffix="egg-info")
    assert described(demo().specs["old"]) == "found"


# Editable installs: the metadata is in the site directory, the code is elsewhere.

LIST = """
import os, sys
from hostkit._index import Index
spec = Index("demo.plugins", [], file=None).look()["calc"]
print(spec.error, spec.manifest_path, spec.manifest.description, "calc" in sys.modules, "calc.sub" in sys.modules)
"""


def listed_in_a_site(site_dir):
    """Look from a fresh interpreter to which ``site_dir`` is a site directory, with its .pth files."""
    code = f"import site; site.addsitedir({str(site_dir)!r})\n{LIST}"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split()


def test_an_editable_install_by_a_path_line_is_found(tmp_path):
    package(tmp_path / "src", "calc", "raise SystemExit", plugin_toml='description = "found"')
    site_dir = tmp_path / "site"
    dist(site_dir, "calc", [("calc", "calc:P")])
    (site_dir / "_editable_impl_calc.pth").write_text(f"{tmp_path / 'src'}\n")
    assert listed_in_a_site(site_dir) == ["None", str(tmp_path / "src" / "calc" / "plugin.toml"), "found", "False", "False"]


FINDER = """
import sys
from importlib.machinery import PathFinder
from importlib.util import spec_from_file_location
from pathlib import Path

MAPPING = {mapping!r}

class _EditableFinder:
    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        if fullname in MAPPING:
            location = Path(MAPPING[fullname])
            return spec_from_file_location(fullname, location / "__init__.py")
        return None

def install():
    sys.meta_path.append(_EditableFinder)
"""


def test_an_editable_install_by_an_import_hook_is_found(tmp_path):
    home = package(tmp_path / "src", "calc", "raise SystemExit", plugin_json='{"description": "found"}')
    site_dir = tmp_path / "site"
    dist(site_dir, "calc", [("calc", "calc.sub:P")])
    (site_dir / "__editable___calc_1_0_finder.py").write_text(FINDER.format(mapping={"calc": str(home)}))
    (site_dir / "__editable__.calc-1.0.pth").write_text(
        "import __editable___calc_1_0_finder; __editable___calc_1_0_finder.install()\n"
    )
    assert listed_in_a_site(site_dir) == ["None", str(home / "plugin.json"), "found", "False", "False"]


def test_a_finder_that_raises_hides_no_plugin(install_demo, demo, monkeypatch):
    class Finder:
        @staticmethod
        def find_spec(fullname, path=None, target=None):
            if fullname == "calc":
                raise RuntimeError("not today")

    install_demo("calc", "", manifest='description = "found"')
    install_demo("other", "")
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    assert list(demo().specs) == ["calc", "other"]


# What is broken is a row, or no plugin at all; the others are found.


def test_garbage_in_one_distribution_hides_no_other(install_demo, demo, site, traces):
    install_demo("good", TRACED)
    binary = dist(site, "binary", [])
    (binary / "entry_points.txt").write_bytes(bytes(range(256)) * 40)
    bare = dist(site, "bare", [("bare", "bare:P")], metadata="")
    nameless = dist(site, "nameless", [("nameless", "nameless:P")], metadata="Metadata-Version: 2.1\n\n")
    versionless = dist(site, "versionless", [("v", "v:P")], metadata="Metadata-Version: 2.1\nName: versionless\nVersion: soon\n")
    evil = dist(site, "evil", [("evil", "evil:P")], metadata="Metadata-Version: 2.1\nName: ev\x1bil\nVersion: 1\n")
    utf16 = dist(site, "utf16", [("utf16", "utf16:P")])
    (utf16 / "METADATA").write_bytes("Name: utf16\n".encode("utf-16"))
    folder = dist(site, "folder", [])
    (folder / "entry_points.txt").unlink()
    (folder / "entry_points.txt").mkdir()
    (site / "empty-1.0.dist-info").mkdir()
    (site / "file-1.0.dist-info").write_text("a file in place of a directory")
    (site / "dangling-1.0.dist-info").symlink_to(site / "nowhere")
    (site / ".dist-info").mkdir()
    specs = demo().specs
    assert [name for name, spec in specs.items() if spec.error is None] == ["good"]
    broken = {name: spec.error for name, spec in specs.items() if name != "good"}
    assert sorted(broken) == sorted(place.name for place in (binary, bare, nameless, versionless, evil, utf16, folder))
    for name, error in broken.items():
        assert isinstance(error, PluginLoadError)
        assert error.kind == "metadata"
        assert f"distribution '{name}'" in str(error)
        assert str(error).isprintable()
    assert "its METADATA has a Version that is none: 'soon'" in str(broken[versionless.name])
    assert "its METADATA has a Name that is none: 'ev\\x1bil'" in str(broken[evil.name])
    assert "its entry_points.txt can't be read" in str(broken[folder.name])
    assert "its METADATA can't be read" in str(broken[bare.name])
    assert traces() == []


@pytest.mark.parametrize(
    "text",
    [
        f"[{GROUP}]\nnothing\n",
        f"[{GROUP}]\n= x:P\n",
        f"[{GROUP}]\nx =\n",
        f"[{GROUP}\nx = x:P\n",
        f"x = x:P\n[{GROUP}]\n",
        f"[{GROUP}]\n" + "=" * 1000,
        f"[{GROUP}]\nx = x:P ; y\n",
        f"[{GROUP}]\nx = " + "x." * 20_000 + "x:P\n",
        f"[{GROUP}]\n" + "x" * 20_000 + " = x:P\n",
        f"[{GROUP}]\nx = ../x:P\n",
        f"[{GROUP}]\nx = x/y:P\n",
        f"[{GROUP}]\nx = /etc/passwd\n",
        f"[{GROUP}]\nx = x:P()\n",
        f"[{GROUP}]\nx = x:\n",
        f"[{GROUP}]\nx = :P\n",
        f"[{GROUP}]\nx = .x:P\n",
        f"[{GROUP}]\nx = x:P:Q\n",
        f"[{GROUP}]\nx = x:1\n",
        f"[{GROUP}]\nx y = x:P\n",
        f"[{GROUP}]\n../x = x:P\n",
        f"[{GROUP}]\ncаlc = x:P\n",
        f"[{GROUP}]\nx\u202ey = x:P\n",
        f"[{GROUP}]\n\ud800 = x:P\n",
    ],
)
def test_a_broken_entry_point_is_no_plugin_that_can_be_used(install_demo, demo, site, traces, text):
    install_demo("good", TRACED)
    info = dist(site, "bad", [])
    (info / "entry_points.txt").write_bytes(text.encode("utf-8", "surrogatepass"))
    specs = demo().specs
    assert specs["good"].error is None
    for name, spec in specs.items():
        if name != "good":
            assert isinstance(spec.error, PluginLoadError)
            assert "'bad" in str(spec.error)
            assert name.isprintable()
            assert len(name) <= 200
            assert len(str(spec.error)) < 600
    assert traces() == []


def test_an_entry_point_with_extras_is_its_module(install_demo, demo, site):
    package(site, "extra")
    package(site, "spaced")
    dist(site, "extra", [("extra", "extra:P [fast,more]")])
    dist(site, "spaced", [("spaced", " spaced : P ")])
    specs = demo().specs
    assert (specs["extra"].entry_point, specs["extra"].error) == ("extra:P", None)
    assert (specs["spaced"].entry_point, specs["spaced"].error) == ("spaced:P", None)


def test_three_hundred_distributions_are_sorted_and_none_is_lost(demo, site):
    names = [f"plugin-{number:03}" for number in range(300)]
    for name in reversed(names):
        dist(site, name, [(name, f"{name.replace('-', '_')}:P")])
    (dist(site, "broken", []) / "entry_points.txt").write_bytes(b"\xff\xfe")
    specs = demo().specs
    assert list(specs) == ["broken-1.0.dist-info", *names]
    assert all(specs[name].error is None for name in names)


def test_entries_of_the_path_that_are_none_are_passed_over(install_demo, demo, monkeypatch, tmp_path):
    install_demo("calc", "")
    (tmp_path / "file").touch()
    odd = [None, 3, b"bytes", "", ".", str(tmp_path / "missing"), str(tmp_path / "file"), "nul\0", Path("/")]
    monkeypatch.setattr(sys, "path", [*odd, *sys.path])
    assert list(demo().specs) == ["calc"]


def test_a_working_directory_that_is_gone_is_no_matter(install_demo, demo, tmp_path, monkeypatch):
    install_demo("calc", "")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    monkeypatch.setattr(sys, "path", ["", "relative", *sys.path])
    (tmp_path / "gone").rmdir()
    assert list(demo().specs) == ["calc"]


# Manifests and the plugins that they are about.


def test_two_manifests_in_one_package_are_an_error_that_names_both(install_demo, demo, site):
    install_demo("calc", "", manifest="", files={"plugin.json": "{}"})
    error = demo().specs["calc"].error
    assert isinstance(error, ManifestError)
    assert str(site / "calc" / "plugin.toml") in str(error)
    assert str(site / "calc" / "plugin.json") in str(error)


@pytest.mark.parametrize("made", ["directory", "pipe", "dangling", "circle"])
def test_what_stands_in_the_place_of_a_manifest_is_not_passed_over(install_demo, demo, site, made):
    install_demo("calc", "")
    path = site / "calc" / "plugin.toml"
    if made == "directory":
        path.mkdir()
    elif made == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path if made == "circle" else site / "nowhere")
    error = demo().specs["calc"].error
    assert isinstance(error, ManifestError)
    assert str(path) in str(error)


def test_a_manifest_that_an_installer_linked_is_read(install_demo, demo, site, tmp_path):
    install_demo("calc", "")
    (tmp_path / "cached.toml").write_text('description = "found"')
    (site / "calc" / "plugin.toml").symlink_to(tmp_path / "cached.toml")
    assert described(demo().specs["calc"]) == "found"


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ('name = "other"', "name: expected 'calc' as its entry point, found 'other'"),
        ('entry_point = "calc:Q"', "entry_point: expected 'calc:P' as installed, found 'calc:Q'"),
        ('name = "Calc"\nentry_point = "other:P"', "entry_point: expected 'calc:P' as installed, found 'other:P'"),
    ],
)
def test_a_manifest_about_something_else_is_an_error(install_demo, demo, site, manifest, words):
    install_demo("calc", "", manifest=manifest)
    error = demo().specs["calc"].error
    assert isinstance(error, ManifestError)
    assert words in str(error)
    assert "plugin 'calc'" in str(error)
    assert str(site / "calc" / "plugin.toml") in str(error)


@pytest.mark.parametrize("name", ["calc-two", "CALC_two", "calc.two"])
def test_a_manifest_may_spell_the_name_differently(install_demo, demo, name):
    install_demo("calc-two", "", manifest=f'name = "{name}"\ndescription = "found"')
    assert described(demo().specs["calc-two"]) == "found"


@pytest.mark.parametrize(
    ("manifest", "about"),
    [
        ("", "abc"),
        ('name = "b"\n', "b"),
        ('entry_point = "many:C"\n', "c"),
        ('name = "b"\nentry_point = "many:B"\n', "b"),
    ],
)
def test_a_manifest_of_a_package_with_several_plugins_is_about_those_it_names(demo, site, manifest, about):
    package(site, "many", plugin_toml=f'{manifest}description = "found"')
    dist(site, "many", [(name, f"many:{name.upper()}") for name in "abc"])
    specs = demo().specs
    assert {name: described(spec) for name, spec in specs.items()} == {name: "found" if name in about else "" for name in "abc"}


@pytest.mark.parametrize("manifest", ['name = "d"', 'entry_point = "many:D"', 'name = "a"\nentry_point = "many:B"'])
def test_a_manifest_about_none_of_a_package_s_plugins_is_an_error_for_all(demo, site, manifest):
    package(site, "many", plugin_toml=manifest)
    dist(site, "many", [(name, f"many:{name.upper()}") for name in "abc"])
    specs = demo().specs
    assert [type(spec.error) for spec in specs.values()] == [ManifestError] * 3


# Duplicates: no order decides who wins, because nobody does.


def test_two_distributions_with_one_name_are_both_refused(demo, site):
    for name, module in [("one", "a"), ("two", "b")]:
        package(site, module)
        dist(site, name, [("calc", f"{module}:P")])
    host = demo()
    assert list(host.specs) == ["calc"]
    error = host.specs["calc"].error
    assert isinstance(error, DuplicatePlugin)
    assert "the name 'calc' is claimed by distribution 'one' and by distribution 'two'" in str(error)
    with pytest.raises(DuplicatePlugin, match="one"):
        host.load("calc")


@pytest.mark.parametrize(
    ("one", "two"), [("calc", "Calc"), ("a-b", "a_b"), ("a.b", "a__b"), ("file", "ﬁle"), ("calc", "ｃalc"), ("k", "K")]
)
def test_names_that_are_one_after_normalization_are_duplicates(demo, site, one, two):
    dist(site, "one", [(one, "a:P")])
    dist(site, "two", [(two, "b:P")])
    specs = demo().specs
    assert set(specs) == {one, two}
    for spec in specs.values():
        assert isinstance(spec.error, DuplicatePlugin)
        assert "'one'" in str(spec.error)
        assert "'two'" in str(spec.error)


@pytest.mark.parametrize(("one", "two"), [("calc", "calc"), ("calc", "Calc"), ("a-b", "a.b")])
def test_one_distribution_with_a_name_twice_offers_neither(demo, site, one, two):
    dist(site, "both", [(one, "a:P"), (two, "a:Q")])
    specs = demo().specs
    assert all(isinstance(spec.error, DuplicatePlugin) for spec in specs.values())
    assert "by distribution 'both' and by distribution 'both'" in str(specs[one].error)


def test_one_entry_point_in_two_distributions_is_a_duplicate(demo, site):
    dist(site, "one", [("x", "same:P")])
    dist(site, "two", [("y", "same:P [extra]")])
    specs = demo().specs
    for name in "xy":
        assert isinstance(specs[name].error, DuplicatePlugin)
        assert "the entry point 'same:P' is claimed by distribution 'one' and by distribution 'two'" in str(specs[name].error)


def test_one_top_level_module_in_two_distributions_is_a_duplicate(demo, site):
    package(site, "same")
    dist(site, "one", [("x", "same:P")])
    dist(site, "two", [("y", "same.sub:Q")])
    specs = demo().specs
    for name in "xy":
        assert isinstance(specs[name].error, DuplicatePlugin)
        assert "the module 'same' is claimed by distribution 'one' and by distribution 'two'" in str(specs[name].error)


def test_several_plugins_of_one_distribution_may_share_a_module(demo, site):
    package(site, "many")
    dist(site, "many", [("a", "many:A"), ("b", "many.b:B"), ("c", "many:A")])
    assert [spec.error for spec in demo().specs.values()] == [None] * 3


def test_a_broken_plugin_claims_its_name_all_the_same(demo, site):
    package(site, "a", plugin_toml="isolation = 'nowhere'")
    package(site, "b")
    dist(site, "one", [("calc", "a:P")])
    dist(site, "two", [("calc", "b:P")])
    assert isinstance(demo().specs["calc"].error, DuplicatePlugin)


def test_what_is_found_does_not_depend_on_any_order(demo, tmp_path, monkeypatch):
    offers = [
        ("one", "calc", "a:P"),
        ("two", "Calc", "b:P"),
        ("three", "x", "b.c:Q"),
        ("four", "y", "c:P"),
        ("five", "z", "c:P"),
        ("six", "w", "d:P"),
    ]
    outcomes = set()
    for number, order in enumerate(itertools.permutations(range(6), 6)):
        if number % 37:
            continue
        places = [tmp_path / f"{number}-{index}" for index in range(6)]
        for index, (name, plugin, target) in zip(order, offers, strict=True):
            dist(places[index], name, [(plugin, target)])
        with monkeypatch.context() as patch:
            patch.setattr(sys, "path", [*map(str, places), *sys.path])
            outcomes.add(tuple((name, spec.distribution, str(spec.error)) for name, spec in demo().specs.items()))
    assert len(outcomes) == 1
    broken = {name: error != "None" for name, _, error in outcomes.pop()}
    assert broken == {"calc": True, "Calc": True, "x": True, "y": True, "z": True, "w": False}


def test_the_first_copy_of_a_distribution_on_the_path_counts(demo, tmp_path, monkeypatch):
    for place, version in [("first", "2.0"), ("second", "1.0")]:
        dist(tmp_path / place, "calc-plugin", [("calc", f"{place}:P")], version=version)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "first"), str(tmp_path / "second"), *sys.path])
    spec = demo().specs["calc"]
    assert (spec.error, spec.version, spec.entry_point) == (None, "2.0", "first:P")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "second"), str(tmp_path / "first"), *sys.path])
    assert demo().specs["calc"].version == "1.0"


def test_a_first_copy_without_plugins_hides_the_second(demo, tmp_path, monkeypatch):
    (dist(tmp_path / "first", "calc-plugin", []) / "entry_points.txt").unlink()
    dist(tmp_path / "second", "calc.plugin", [("calc", "calc:P")])
    monkeypatch.setattr(sys, "path", [str(tmp_path / "first"), str(tmp_path / "second"), *sys.path])
    assert demo().specs == {}


def test_what_a_deinstallation_left_behind_hides_nothing(demo, tmp_path, monkeypatch):
    (tmp_path / "first" / "calc_plugin-0.9.dist-info").mkdir(parents=True)
    dist(tmp_path / "second", "calc-plugin", [("calc", "calc:P")])
    monkeypatch.setattr(sys, "path", [str(tmp_path / "first"), str(tmp_path / "second"), *sys.path])
    assert demo().specs["calc"].error is None


# Loading is a look of its own: what was remembered decides nothing.


def test_a_plugin_that_was_uninstalled_since_the_look_is_not_loaded(install_demo, demo, site, traces):
    from hostkit._discovery import reread

    install_demo("calc", TRACED)
    spec = demo().specs["calc"]
    shutil.rmtree(site / "calc-1.0.dist-info")
    with pytest.raises(
        PluginLoadError, match=r"plugin 'calc' is not installed any more: distribution 'calc' offers no such plugin"
    ):
        reread(spec, GROUP, [])
    assert traces() == []


def test_a_plugin_is_loaded_as_it_is_installed_now(install_demo, demo, site):
    from hostkit._discovery import reread

    install_demo("calc", "")
    spec = demo().specs["calc"]
    install_demo("calc", "", manifest='isolation = "process"', attribute="Q")
    assert reread(spec, GROUP, []).entry_point == "calc:Q"
    assert reread(spec, GROUP, []).manifest.wished_isolation == "process"
    (site / "calc" / "plugin.toml").write_text("isolation = 3")
    with pytest.raises(ManifestError, match="isolation"):
        reread(spec, GROUP, [])


def test_a_distribution_is_read_anew_whatever_its_directory_is_called(demo, site):
    from hostkit._discovery import reread

    info = dist(site, "calc-plugin", [("calc", "calc:P")])
    info.rename(site / "something-else.dist-info")
    assert reread(demo().specs["calc"], GROUP, []).distribution == "calc-plugin"


def test_a_host_takes_no_notice_of_other_groups(install, install_demo, demo):
    install("other", "", group="other.plugins")
    install("near", "", group="demo.plugins.more")
    install_demo("calc", "")
    assert list(demo().specs) == ["calc"]


# Plugin directories.


@pytest.fixture
def plugins(tmp_path, site, monkeypatch):
    """A directory of plugin directories."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    place = tmp_path / "plugins"
    place.mkdir()
    return place


def add(plugins, name, *, entry_point="", source=TRACED, file="plugin.toml", manifest=""):
    """Write a plugin directory whose module is called like it."""
    home = plugins / name
    home.mkdir()
    module = name.replace("-", "_") + "_code"
    (home / f"{module}.py").write_text(textwrap.dedent(source))
    (home / file).write_text(f'entry_point = "{entry_point or module + ":P"}"\n{manifest}')
    return home


def configured(*paths):
    return {"discovery": {"paths": list(map(str, paths))}}


def test_a_plugin_directory_is_found_and_runs(demo, plugins, traces, isolation):
    home = add(plugins, "calc", manifest='version = "1.5"\ndescription = "found"')
    host = demo(**configured(plugins))
    spec = host.specs["calc"]
    assert (described(spec), spec.version, spec.directory, spec.distribution) == ("found", "1.5", home, "")
    assert traces() == []
    host.load("calc", isolation=isolation)
    assert host.execute("calc", 1) == ["calc_code", 1]
    assert host.info("calc").version == "1.5"


def test_a_relative_path_is_relative_to_the_configuration(new_host, plugins, tmp_path, monkeypatch):
    add(plugins, "calc")
    file = tmp_path / "hostkit.toml"
    file.write_text('discovery.paths = ["plugins"]')
    monkeypatch.chdir("/")
    assert described(new_host("demo", config=file).specs["calc"]) == ""


def test_a_path_that_is_missing_or_no_directory_is_a_row(demo, plugins, tmp_path):
    add(plugins, "calc")
    (tmp_path / "file").touch()
    missing = [tmp_path / "missing", tmp_path / "file", Path("/proc/self/fd/nothing"), Path("/nul\0")]
    specs = demo(**configured(*missing, plugins)).specs
    assert specs["calc"].error is None
    assert len(specs) == 5
    for place, reason in zip(missing, ["No such file", "Not a directory", "No such file", "null"], strict=True):
        spec = next(spec for name, spec in specs.items() if str(place).split("\0")[0] in name)
        assert isinstance(spec.error, ManifestError)
        assert reason in str(spec.error)


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("plugin.toml", "", "entry_point: is missing; a plugin directory needs module:Class"),
        ("plugin.toml", 'entry_point = "nothing:P"', "entry_point: there is no module 'nothing'"),
        ("plugin.toml", 'entry_point = "json:P"', "the name of module 'json' is taken"),
        ("plugin.toml", 'entry_point = "../code:P"', "entry_point: expected module:Class"),
        ("plugin.toml", 'entry_point = "its_code:P"\nname = "a b"', "name: "),
        ("plugin.toml", 'entry_point = "its_code:P"\nnmae = "x"', "did you mean 'name'"),
        ("plugin.json", "{", "Expecting"),
        ("plugin.yaml", "a: *b", "alias"),
        ("plugin.yaml", "a: !!python/name:os.system", "tag"),
    ],
)
def test_a_plugin_directory_with_a_wrong_manifest_is_a_row(demo, plugins, traces, file, text, reason):
    add(plugins, "good")
    home = plugins / "calc"
    home.mkdir()
    (home / file).write_text(text)
    for module in ("its_code", "json"):
        (home / f"{module}.py").write_text(textwrap.dedent(TRACED))
    specs = demo(**configured(plugins)).specs
    assert specs["good"].error is None
    error = specs["calc"].error
    assert isinstance(error, ManifestError)
    assert str(home / file) in str(error)
    assert reason in str(error)
    assert traces() == []


def test_a_directory_whose_name_is_none_needs_one_in_its_manifest(demo, plugins):
    add(plugins, "named here", entry_point="its_code:P", manifest='name = "named"')
    (plugins / "named here" / "its_code.py").touch()
    add(plugins, "line\nbreak", entry_point="code:P")
    specs = demo(**configured(plugins)).specs
    assert specs["named"].error is None
    assert isinstance(specs["line\\nbreak"].error, ManifestError)
    assert "\n" not in str(specs["line\\nbreak"].error)


def test_a_directory_without_a_manifest_is_no_plugin(demo, plugins):
    (plugins / "__pycache__").mkdir()
    (plugins / "README.md").touch()
    (plugins / "plugin.toml").touch()
    assert demo(**configured(plugins)).specs == {}


def test_two_manifests_in_one_directory_are_an_error(demo, plugins):
    home = add(plugins, "calc")
    (home / "plugin.json").write_text("{}")
    assert "expected one manifest" in str(demo(**configured(plugins)).specs["calc"].error)


@pytest.mark.parametrize("linked", ["directory", "manifest", "module"])
def test_a_link_that_leads_out_of_the_plugin_path_is_not_followed(demo, plugins, tmp_path, traces, linked):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    home = add(elsewhere if linked == "directory" else plugins, "calc")
    if linked == "directory":
        (plugins / "calc").symlink_to(home)
    else:
        file = home / ("plugin.toml" if linked == "manifest" else "calc_code.py")
        shutil.move(file, elsewhere / file.name)
        file.symlink_to(elsewhere / file.name)
    host = demo(**configured(plugins))
    error = host.specs["calc"].error
    assert isinstance(error, IntegrityError)
    assert "leads out of the plugin path" in str(error)
    assert str(elsewhere) in str(error)
    with pytest.raises(IntegrityError):
        host.load("calc")
    assert traces() == []


def test_a_link_inside_of_the_plugin_path_and_one_to_it_are_followed(demo, plugins, tmp_path):
    (plugins / "versions").mkdir()
    home = add(plugins / "versions", "calc")
    (plugins / "calc").symlink_to(home)
    (tmp_path / "linked").symlink_to(plugins)
    host = demo(**configured(tmp_path / "linked", plugins))
    assert [(name, spec.error) for name, spec in host.specs.items()] == [("calc", None)]


@pytest.mark.parametrize("writable", ["plugins", "calc", "calc/plugin.toml", "calc/calc_code.py"])
def test_what_everybody_can_write_is_not_trusted(demo, plugins, traces, writable):
    add(plugins, "calc")
    place = plugins.parent / writable if writable == "plugins" else plugins / writable
    place.chmod(place.stat().st_mode | 0o002)
    host = demo(**configured(plugins))
    name, spec = next(iter(host.specs.items()))
    assert name == ("calc" if writable != "plugins" else str(plugins))
    assert isinstance(spec.error, IntegrityError)
    assert f"{place} can be written by everybody" in str(spec.error)
    with pytest.raises(IntegrityError):
        host.load(name)
    place.chmod(0o755)
    assert host.specs["calc"].error is None
    assert traces() == []


def test_a_plugin_that_everybody_can_write_since_the_look_is_not_loaded(demo, plugins):
    from hostkit._discovery import reread

    home = add(plugins, "calc")
    spec = demo(**configured(plugins)).specs["calc"]
    assert reread(spec, GROUP, [plugins]) == spec
    home.chmod(0o777)
    with pytest.raises(IntegrityError, match="can be written by everybody"):
        reread(spec, GROUP, [plugins])
    home.chmod(0o755)
    plugins.chmod(0o777)
    with pytest.raises(IntegrityError, match="can be written by everybody"):
        reread(spec, GROUP, [plugins])


def test_a_plugin_directory_outside_of_the_configured_paths_is_not_loaded(demo, plugins, tmp_path):
    from hostkit._discovery import reread

    add(plugins, "calc")
    spec = demo(**configured(plugins)).specs["calc"]
    with pytest.raises(PluginLoadError, match="no plugin directory in a configured path"):
        reread(spec, GROUP, [tmp_path])


def test_two_plugin_directories_with_one_module_are_duplicates(demo, plugins, install_demo):
    for name in ("one", "two"):
        add(plugins, name, entry_point="main:P")
        (plugins / name / "main.py").touch()
    specs = demo(**configured(plugins)).specs
    for name in ("one", "two"):
        assert isinstance(specs[name].error, DuplicatePlugin)
        assert f"directory '{plugins / 'one'}' and by directory '{plugins / 'two'}'" in str(specs[name].error)


def test_a_plugin_directory_and_a_distribution_with_one_name_are_duplicates(demo, plugins, install_demo):
    add(plugins, "calc")
    install_demo("calc", "")
    error = demo(**configured(plugins)).specs["calc"].error
    assert isinstance(error, DuplicatePlugin)
    assert f"by directory '{plugins / 'calc'}' and by distribution 'calc'" in str(error)


def test_a_module_that_an_installed_one_would_hide_is_a_duplicate_or_taken(demo, plugins, install_demo, site):
    add(plugins, "mine", entry_point="shared:P")
    (plugins / "mine" / "shared.py").touch()
    (site / "shared.py").touch()
    error = demo(**configured(plugins)).specs["mine"].error
    assert isinstance(error, ManifestError)
    assert f"the name of module 'shared' is taken by {site / 'shared.py'}" in str(error)


def test_a_plugin_directory_may_hold_a_package(demo, plugins, isolation):
    home = add(plugins, "calc", entry_point="calc_package.inner:P")
    package(home, "calc_package", "")
    (home / "calc_package" / "inner.py").write_text("class P:\n    def execute(self, ctx, request):\n        return request\n")
    host = demo(**configured(plugins))
    host.load("calc", isolation=isolation)
    assert host.execute("calc", 1) == 1


def test_install_writes_what_a_host_finds(site, demo):
    testing.install(site, "calc", "", group=GROUP)
    assert demo().specs["calc"].error is None
