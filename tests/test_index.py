from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from hostkit import HostkitError, ManifestError, PluginLoadError, testing
from hostkit import _discovery as discovery
from hostkit._index import Index, default_file

GROUP = "demo.plugins"


@pytest.fixture(autouse=True)
def _long_ago(monkeypatch):
    """Files that a test has just written count as written long ago."""
    from hostkit import _stamps

    monkeypatch.setattr(_stamps, "_TICK", 0)


@pytest.fixture
def scans(monkeypatch):
    """How often was scanned."""
    counted = []
    scan = discovery.scan

    def counting(*arguments):
        counted.append(arguments)
        return scan(*arguments)

    monkeypatch.setattr(discovery, "scan", counting)
    return counted


@pytest.fixture
def index(site):
    """Make an index of the group, which every test has for itself; a new one begins with the file."""

    def make(*paths):
        return Index(GROUP, paths, file=default_file(GROUP))

    return make


@pytest.fixture
def install_demo(site):
    def make(name, source="", **options):
        return testing.install(site, name, source, group=GROUP, **options)

    return make


def test_a_second_look_scans_nothing(index, install_demo, scans):
    install_demo("calc", manifest="description = 'found'")
    same = index()
    first = same.look()
    assert same.look() == first
    assert index().look() == first
    assert first["calc"].manifest.description == "found"
    assert len(scans) == 1


def test_what_is_remembered_is_what_was_found(index, install_demo, site, tmp_path, scans):
    install_demo("calc", manifest="name = 'calc'\n[metadata]\na = [1, 2.5, true, 'é']")
    install_demo("wrong", manifest="name = 3")
    install_demo("bad name", version="1")
    for place in ("one", "two"):
        testing.install(tmp_path / place, "twice", "", group=GROUP)
    (tmp_path / "plugins" / "own").mkdir(parents=True)
    (tmp_path / "plugins" / "own" / "plugin.json").write_text('{"entry_point": "own_code:P", "version": "2.0"}')
    (tmp_path / "plugins" / "own" / "own_code.py").touch()
    found = index(tmp_path / "plugins", tmp_path / "missing").look()
    again = index(tmp_path / "plugins", tmp_path / "missing").look()
    assert len(scans) == 1
    assert list(again) == list(found)
    for name, spec in found.items():
        other = again[name]
        assert (repr(other.error), getattr(other.error, "__dict__", None)) == (
            repr(spec.error),
            getattr(spec.error, "__dict__", None),
        )
        for field in ("name", "entry_point", "distribution", "version", "directory", "manifest_path", "manifest_data"):
            assert getattr(other, field) == getattr(spec, field)
            assert type(getattr(other, field)) is type(getattr(spec, field))
    assert again["own"].version == "2.0"


def shown(specs):
    return [(repr(spec), spec.manifest_data) for spec in specs.values()]


def keeping_times(path, change):
    """Change something in a directory, and set the directory's modification time back."""
    before = path.stat()
    change()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES = {
    "install": lambda site, install: install("other"),
    "uninstall": lambda site, install: shutil.rmtree(site / "calc-1.0.dist-info"),
    "upgrade": lambda site, install: (
        (site / "calc-1.0.dist-info").rename(site / "calc-1.1.dist-info"),
        install("calc", version="1.1"),
    ),
    "entry points edited in place": lambda site, install: keeping_times(
        site / "calc-1.0.dist-info",
        lambda: (site / "calc-1.0.dist-info" / "entry_points.txt").write_text(f"[{GROUP}]\ncalc = calc:Q\n"),
    ),
    "entry points edited, size and modification time kept": lambda site, install: keeping_times(
        site / "calc-1.0.dist-info" / "entry_points.txt",
        lambda: (site / "calc-1.0.dist-info" / "entry_points.txt").write_text(f"[{GROUP}]\ncalc = calc:Q\n"),
    ),
    "entry points removed": lambda site, install: (site / "calc-1.0.dist-info" / "entry_points.txt").unlink(),
    "entry points for another": lambda site, install: (site / "bare-1.0.dist-info" / "entry_points.txt").write_text(
        f"[{GROUP}]\nb = b:P\n"
    ),
    "metadata edited": lambda site, install: (site / "calc-1.0.dist-info" / "METADATA").write_text("Name: calc\nVersion: 7\n"),
    "metadata removed": lambda site, install: (site / "calc-1.0.dist-info" / "METADATA").unlink(),
    "manifest edited": lambda site, install: keeping_times(
        site / "calc", lambda: (site / "calc" / "plugin.toml").write_text("tags = ['y']")
    ),
    "manifest removed": lambda site, install: (site / "calc" / "plugin.toml").unlink(),
    "second manifest": lambda site, install: (site / "calc" / "plugin.yaml").write_text("{}"),
    "first manifest of a plugin": lambda site, install: (site / "plain" / "plugin.json").write_text('{"description": "new"}'),
    "package hidden by another": lambda site, install: (site.parent / "first" / "calc").mkdir(),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("from_file", [True, False], ids=["file", "memory"])
def test_a_change_is_noticed(index, install_demo, site, tmp_path, monkeypatch, scans, change, from_file):
    (tmp_path / "first").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "first"))
    install_demo("calc", manifest="tags = ['x']")
    install_demo("plain")
    (site / "bare-1.0.dist-info").mkdir()
    (site / "bare-1.0.dist-info" / "METADATA").write_text("Name: bare\nVersion: 1.0\n")
    same = index()
    before = same.look()
    assert len(scans) == 1
    CHANGES[change](site, install_demo)
    (index() if from_file else same).look()
    assert len(scans) == 2
    after = index().look()
    assert len(scans) == 2
    assert shown(after) == shown(discovery.scan(GROUP, []))
    if change != "package hidden by another":
        assert shown(after) != shown(before)


def test_a_changed_import_path_is_noticed(index, install_demo, tmp_path, monkeypatch, scans):
    install_demo("calc")
    same = index()
    assert list(same.look()) == ["calc"]
    testing.install(tmp_path / "more", "other", "", group=GROUP)
    monkeypatch.syspath_prepend(str(tmp_path / "more"))
    assert list(same.look()) == ["calc", "other"]
    monkeypatch.setattr(sys, "path", sys.path[1:])
    assert list(same.look()) == ["calc"]
    monkeypatch.chdir(tmp_path / "more")
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert list(same.look()) == ["calc", "other"]
    monkeypatch.chdir(tmp_path)
    assert list(same.look()) == ["calc"]


def test_a_changed_archive_is_noticed(index, tmp_path, monkeypatch):
    archive = tmp_path / "packed.zip"
    monkeypatch.syspath_prepend(str(archive))
    same = index()
    assert same.look() == {}
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("zipped-1.0.dist-info/METADATA", "Name: zipped\nVersion: 1.0\n")
        packed.writestr("zipped-1.0.dist-info/entry_points.txt", f"[{GROUP}]\nzipped = zipped:P\n")
    assert list(same.look()) == ["zipped"]


def test_a_changed_plugin_directory_is_noticed(index, tmp_path, scans):
    paths = tmp_path / "plugins", tmp_path / "later"
    paths[0].mkdir()
    same = index(*paths)
    assert list(same.look()) == [str(paths[1])]
    home = paths[0] / "own"
    home.mkdir()
    assert list(same.look()) == [str(paths[1])]
    (home / "plugin.toml").write_text('entry_point = "own_code:P"')
    assert isinstance(same.look()["own"].error, ManifestError)
    (home / "own_code.py").touch()
    assert same.look()["own"].error is None
    (home / "own_code.py").chmod(0o666)
    assert same.look()["own"].error is not None
    (home / "own_code.py").chmod(0o644)
    (home / "plugin.toml").write_text('entry_point = "own_code:Q"')
    assert same.look()["own"].entry_point == "own_code:Q"
    paths[1].mkdir()
    assert list(same.look()) == ["own"]
    shutil.rmtree(home)
    assert same.look() == {}
    seen = len(scans)
    assert same.look() == {}
    assert len(scans) == seen


def test_other_paths_and_groups_have_answers_of_their_own(index, install_demo, site, tmp_path):
    install_demo("calc")
    testing.install(site, "other", "", group="other.plugins")
    file = default_file(GROUP)
    assert list(Index(GROUP, [], file=file).look()) == ["calc"]
    assert list(Index("other.plugins", [], file=file).look()) == ["other"]
    assert list(Index(GROUP, [tmp_path / "missing"], file=file).look()) == [str(tmp_path / "missing"), "calc"]
    assert list(Index(GROUP, [], file=file).look()) == ["calc"]


def test_what_changed_a_moment_ago_is_looked_at_again(index, install_demo, scans, monkeypatch):
    from hostkit import _stamps

    monkeypatch.setattr(_stamps, "_TICK", 3600 * 10**9)
    install_demo("calc")
    same = index()
    same.look()
    same.look()
    assert len(scans) == 2


# The file of the index: whatever is in it, what is found is what is installed.


def damaged(text):
    kept = json.loads(text)
    yield "empty", ""
    yield "half", text[: len(text) // 2]
    yield "binary", "\0\x01"
    yield "deep", "[" * 100_000
    yield "other data", "[1, 2, 3]"
    yield "null", "null"
    yield "no key", json.dumps({**kept, "key": None})
    yield "another version", json.dumps({**kept, "key": "0" * 64})
    yield "no stamps", json.dumps({**kept, "stamps": {}})
    yield "stamps of another type", json.dumps({**kept, "stamps": [1]})
    yield "stamps that are text", json.dumps({**kept, "stamps": dict.fromkeys(kept["stamps"], "x")})
    yield "specs of another type", json.dumps({**kept, "specs": {"calc": 1}})
    row = kept["specs"][0]
    for field in row:
        for value in (3, [1], {"a": 1}, True):
            yield f"{field} is {value}", json.dumps({**kept, "specs": [{**row, field: value}]})
        yield f"no {field}", json.dumps({**kept, "specs": [{key: part for key, part in row.items() if key != field}]})
    for error in (["SystemExit", "x"], ["TYPE_CHECKING", "x"], ["HostkitError"], ["annotations", "x"], ["Nothing", "x"], ["__name__", "x"], "ManifestError", [[], "x"], ["ManifestError", 3]):  # fmt: skip
        yield f"error is {error}", json.dumps({**kept, "specs": [{**row, "error": error}]})


def test_a_damaged_file_is_ignored_and_replaced(index, install_demo):
    install_demo("calc", manifest="tags = ['x']")
    expected = index().look()
    file = default_file(GROUP)
    text = file.read_text()
    for what, content in damaged(text):
        if what == "manifest_data is {'a': 1}":
            continue  # nobody can tell; see below what it can do
        file.write_text(content)
        found = index().look()
        assert found == expected, what
        assert isinstance(found["calc"].manifest_data, dict)
        assert json.loads(file.read_text()) == json.loads(text), what


@pytest.mark.parametrize("who", ["others may write it", "others may write its directory", "a link", "another's", "a directory"])
def test_a_file_that_somebody_else_may_have_written_is_ignored(index, install_demo, tmp_path, monkeypatch, scans, who):
    install_demo("calc")
    index().look()
    file = default_file(GROUP)
    if who == "others may write it":
        file.chmod(0o622)
    elif who == "others may write its directory":
        file.parent.chmod(0o777)
    elif who == "a link":
        file.rename(tmp_path / "elsewhere")
        file.symlink_to(tmp_path / "elsewhere")
    elif who == "a directory":
        file.unlink()
        file.mkdir(mode=0o700)
    else:
        user = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    assert list(index().look()) == ["calc"]
    assert len(scans) == 2


def test_the_file_is_its_user_s_alone(index, install_demo):
    before = os.umask(0)
    try:
        index().look()
    finally:
        os.umask(before)
    file = default_file(GROUP)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("cache", ["file/cache", "/proc/nowhere", "relative", ""])
def test_without_a_place_for_the_file_a_look_is_only_slower(index, install_demo, tmp_path, monkeypatch, scans, cache):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / cache) if cache.startswith("file") else cache)
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    install_demo("calc")
    same = index()
    assert list(same.look()) == list(same.look()) == ["calc"]
    assert len(scans) == 1
    assert list(index().look()) == ["calc"]
    assert len(scans) == 2


def test_a_full_disk_leaves_nothing_half_written(index, install_demo, monkeypatch, tmp_path):
    install_demo("calc")
    file = default_file(GROUP)

    def full(source, target):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert list(index().look()) == ["calc"]
    assert list(file.parent.iterdir()) == []


def test_files_of_import_paths_that_are_gone_are_dropped(index, install_demo, tmp_path):
    file = default_file(GROUP)
    file.parent.mkdir(mode=0o700, parents=True)
    for number in range(100):
        old = file.parent / f"{number:03}.json"
        old.touch()
        os.utime(old, (number, number))
    install_demo("calc")
    assert list(index().look()) == ["calc"]
    left = sorted(entry.name for entry in file.parent.iterdir())
    assert len(left) == 64
    assert file.name in left
    assert "099.json" in left
    assert "000.json" not in left


FORGED = {
    "another module": {"entry_point": "forged:P"},
    "a directory": {"directory": "EVIL", "entry_point": "forged:P", "distribution": ""},
    "another distribution": {"distribution": "nothing", "entry_point": "forged:P"},
    "another name": {"name": "calc2", "entry_point": "forged:P"},
}


@pytest.mark.parametrize("forgery", FORGED)
def test_a_forged_file_makes_nothing_run(index, install_demo, tmp_path, site, new_host, monkeypatch, forgery):
    install_demo(
        "calc", "class P:\n    def execute(self, ctx, request):\n        return 'installed'\n", manifest="isolation = 'none'"
    )
    index().look()
    file = default_file(GROUP)
    kept = json.loads(file.read_text())
    evil = tmp_path / "evil"
    evil.mkdir()
    for place in (evil, site):
        (place / "forged.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'CANARY')!r}).touch()\nclass P: ...")
    (evil / "plugin.toml").write_text('name = "calc"\nentry_point = "forged:P"')
    changed = {key: str(evil) if value == "EVIL" else value for key, value in FORGED[forgery].items()}
    kept["specs"][0].update(changed)
    (site / "forged.py").touch()
    from hostkit import _stamps

    kept["stamps"] = {path: _stamps.stamp(path) for path in kept["stamps"]}
    file.write_text(json.dumps(kept))
    host = new_host("demo", config={"plugins": {"calc": {"isolation": "none"}}})
    name = changed.get("name", "calc")
    assert host.specs[name].entry_point == "forged:P"
    try:
        assert host.execute(name, 1) == "installed"
    except PluginLoadError as refused:
        assert "is not installed any more" in str(refused)
    assert not (tmp_path / "CANARY").exists()


def test_a_forged_manifest_grants_nothing(index, install_demo, new_host):
    install_demo("calc", "class P:\n    def execute(self, ctx, request): return request\n", manifest="isolation = 'process'")
    index().look()
    file = default_file(GROUP)
    kept = json.loads(file.read_text())
    kept["specs"][0]["manifest_data"] = {"isolation": "none"}
    file.write_text(json.dumps(kept))
    host = new_host("demo")
    assert host.specs["calc"].manifest.wished_isolation == "none"
    assert host.info("calc").metadata["hostkit"]["isolation"] == "process"


def test_a_forged_error_is_nothing_but_an_error(index, install_demo, new_host):
    install_demo("calc")
    index().look()
    file = default_file(GROUP)
    kept = json.loads(file.read_text())
    kept["specs"][0]["error"] = ["ManifestError", "forged"]
    file.write_text(json.dumps(kept))
    with pytest.raises(HostkitError, match="forged"):
        new_host("demo").load("calc")


HIT = """
import sys
from hostkit._index import Index, default_file
specs = Index("demo.plugins", [], file=default_file("demo.plugins")).look()
heavy = ["importlib_metadata", "pydantic", "yaml", "packaging", "multiprocess", "loguru", "tomllib", "hostkit._discovery"]
print(specs["calc"].manifest_data["description"], [name for name in heavy if name in sys.modules])
"""


def test_a_hit_imports_nothing_that_only_a_scan_needs(index, install_demo, site):
    install_demo("calc", "raise SystemExit", manifest="description: found", manifest_name="plugin.yaml")

    def look():
        environment = {**os.environ, "PYTHONPATH": str(site)}
        # Without site directories, whose .pth files import what they like.
        code = f"import sys; sys.path[:0] = {[path for path in sys.path if path]!r}\n{HIT}"
        ended = subprocess.run([sys.executable, "-S", "-c", code], env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.strip()

    assert "importlib_metadata" in look()
    keep = look()
    assert keep == "found []" or look() == "found []"  # the first may have come within a tick of the clock
