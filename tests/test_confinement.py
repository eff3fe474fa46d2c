"""Which files a confined worker may read: those of its interpreter, what it can import, and no other plugin's."""

from __future__ import annotations

import dataclasses
import os

from hostkit._confinement import Ground
from hostkit._opening import Settings
from hostkit._permissions import Grants
from hostkit._spec import PluginSpec


def may_read(found, path):
    path = os.path.realpath(path)
    return any(path == place or path.startswith(place.rstrip("/") + "/") for place in found.read)


def confined(spec, *others):
    return Ground({each.name: each for each in (spec, *others)}).confinement(Settings(sandbox="standard"), spec)


def make(site, name, *, version="1.0"):
    (site / name).mkdir(parents=True)
    (site / name / "__init__.py").write_text("")
    (site / f"{name}_dist-{version}.dist-info").mkdir()
    return PluginSpec(name, f"{name}:P", distribution=f"{name}-dist", version=version)


def test_a_worker_reads_its_interpreter_its_plugin_and_its_libraries(site):
    import pydantic

    found = confined(make(site, "mine"))
    for path in (os.__file__, pydantic.__file__, site / "mine/__init__.py", site / "mine_dist-1.0.dist-info"):
        assert may_read(found, path), path


def test_a_worker_does_not_read_another_plugins_package_and_metadata(site):
    found = confined(make(site, "mine"), make(site, "other"))
    for name in ("other/__init__.py", "other_dist-1.0.dist-info"):
        assert not may_read(found, site / name), name


def test_a_library_that_holds_another_plugin_is_taken_apart(site, monkeypatch):
    monkeypatch.setattr("hostkit._confinement._PREFIXES", {str(site.parent)})
    lib = site.parent / "lib"
    monkeypatch.syspath_prepend(str(lib))
    mine, other = make(lib, "mine"), make(lib, "other")
    (lib / "library.py").write_text("")
    found = confined(mine, other)
    assert str(lib) not in found.read
    assert may_read(found, lib / "library.py")
    assert may_read(found, lib / "mine/__init__.py")
    assert not may_read(found, lib / "other/__init__.py")
    assert not may_read(found, lib / "other_dist-1.0.dist-info")


def test_a_directory_on_the_path_shows_its_modules_and_nothing_else(site):
    mine = make(site, "mine")
    (site / "settings.env").write_text("TOKEN=1")
    (site / ".git").mkdir()
    (site / "data").mkdir()
    (site / "beside.py").write_text("")
    found = confined(mine)
    assert may_read(found, site / "beside.py")
    for name in ("settings.env", ".git", "data"):
        assert not may_read(found, site / name), name


def test_plugins_that_share_a_namespace_do_not_read_each_other(site):
    for name in ("one", "two"):
        (site / "shared" / name).mkdir(parents=True)
        (site / "shared" / name / "__init__.py").write_text("")
    one = PluginSpec("one", "shared.one:P", distribution="one")
    two = PluginSpec("two", "shared.two:P", distribution="two")
    found = confined(one, two)
    assert may_read(found, site / "shared/one/__init__.py")
    assert not may_read(found, site / "shared/two/__init__.py")


def test_two_plugins_of_one_distribution_read_each_other(site):
    first = make(site, "first")
    second = PluginSpec("second", "first.second:P", distribution="first-dist")
    assert may_read(confined(first, second), site / "first/__init__.py")


def test_a_plugin_directory_is_read_and_its_neighbour_is_not(tmp_path):
    for name in ("mine", "other"):
        (tmp_path / "plugins" / name).mkdir(parents=True)
    mine = PluginSpec("mine", "m:P", directory=tmp_path / "plugins/mine")
    other = PluginSpec("other", "o:P", directory=tmp_path / "plugins/other")
    found = confined(mine, other)
    assert may_read(found, tmp_path / "plugins/mine/m.py")
    assert not may_read(found, tmp_path / "plugins/other/o.py")


def test_a_plugin_that_was_read_anew_is_the_same_one(tmp_path):
    (tmp_path / "mine").mkdir()
    mine = PluginSpec("mine", "m:P", directory=tmp_path / "mine")
    ground = Ground({"mine": dataclasses.replace(mine, version="1.0")})
    assert may_read(ground.confinement(Settings(sandbox="standard"), mine), tmp_path / "mine/m.py")


def test_what_was_granted_is_told_and_nothing_more(site):
    grants = Grants(network=True, read=("/data",), write=("/out",), subprocess=True)
    told = Ground({}).confinement(Settings(sandbox="standard", grants=grants), make(site, "mine")).told("/tmp/own", 7)
    assert (told["network"], told["subprocess"], told["lifeline"], told["temporary"]) == (True, True, 7, "/tmp/own")
    assert told["write"] == ["/dev/null", "/out"]
    assert "/data" in told["read"]
    assert "/usr/bin" in told["execute"]
    bare = Ground({}).confinement(Settings(sandbox="standard"), PluginSpec("mine", "mine:P")).told("/tmp/own", 7)
    assert (bare["network"], bare["subprocess"], bare["execute"], bare["write"]) == (False, False, [], ["/dev/null"])
    assert "/data" not in bare["read"]
    assert "/usr/bin" not in bare["read"]


def test_what_is_installed_later_is_seen(site):
    mine = make(site, "mine")
    specs = {"mine": mine}
    ground = Ground(specs)
    assert ground.still_holds(specs)
    (site / "later.py").write_text("")
    assert not ground.still_holds(specs)
    assert may_read(Ground(specs).confinement(Settings(sandbox="standard"), mine), site / "later.py")
