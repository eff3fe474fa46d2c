"""What runs is what was verified: workers import the files of a table, by the very bytes that were compared, and nothing else."""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import itertools
import os
import py_compile
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from hostkit import IntegrityError, PluginFailed, PluginLoadError, _importable, _opener
from hostkit._config import PluginConfig

# Runs what it is sent, and returns its answer.
RUN = """
class P:
    def execute(self, ctx, request):
        names = {"__name__": "asked", "here": __file__.rpartition("/")[0]}
        exec(request, names)
        return names["answer"]
"""
# What must never run says so on the disk, which no sandbox may keep it from.
OPEN = {"sandbox": "off"} if "sandbox" in PluginConfig.model_fields else {}
EVIL = "open({!r}, 'w').close()\nanswer = 'evil'\n"
GOOD = "answer = 'good'\n"


def table_of(*places, without=()):
    """Size and sha256 of every file below these places, but of those whose path has one of these ends."""
    found = {}
    for place in places:
        for file in sorted(place.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts and not str(file).endswith(tuple(without)):
                data = file.read_bytes()
                found[str(file)] = (len(data), hashlib.sha256(data).hexdigest())
    return found


@pytest.fixture
def canary(tmp_path):
    return tmp_path / "canary"


@pytest.fixture
def evil(canary):
    return EVIL.format(str(canary))


@pytest.fixture
def verified(new_host, site, monkeypatch):
    """Make a host whose plugin "p" may import these files, by default all of ``site``: ``verified(table, start_timeout="5s")``."""
    plain = _opener.decide

    def start(files=None, *, config=None, **plugin):
        table = table_of(site) if files is None else files

        def decide(*args, **options):
            decided = plain(*args, **options)
            return replace(decided, settings=replace(decided.settings, verified=table))

        monkeypatch.setattr(_opener, "decide", decide)
        return new_host(config={**(config or {}), "plugins": {"p": {"isolation": "process", **OPEN, **plugin}}})

    return start


@pytest.fixture
def worker(install, site, verified):
    """Make something that runs lines in a worker and returns their ``answer``: ``run = worker({"part.py": source}, without=["x.py"])``.
    It may import what lies in ``site`` and ``beside`` at this moment, but not ``without``."""

    def make(files=None, *, without=(), beside=()):
        install("p", RUN, files=files)
        host = verified(table_of(site, *beside, without=without))
        return lambda lines: host.execute("p", textwrap.dedent(lines))

    return make


def test_a_plugin_whose_files_are_listed_runs_as_ever_and_writes_no_bytecode(worker, site):
    lines = """
        import p.part, p.sub.deep as deep
        answer = [p.part.answer, deep.answer, p.part.__file__, deep.__spec__.origin, p.__path__, p.part.__loader__.get_source("p.part")]
    """
    (site / "p" / "sub").mkdir(parents=True)
    files = {"part.py": GOOD, "sub/__init__.py": "", "sub/deep.py": "answer = 'deep'"}
    place = str(site / "p")
    assert worker(files)(lines) == ["good", "deep", f"{place}/part.py", f"{place}/sub/deep.py", [place], GOOD]
    assert not list(site.rglob("__pycache__"))


def test_a_plugin_that_was_changed_is_an_integrity_error_that_names_file_digests_and_remedy(install, verified, site, evil, canary):
    install("p", RUN)
    file = site / "p" / "__init__.py"
    host = verified()
    expected = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    file.write_text(evil)
    with pytest.raises(IntegrityError) as caught:
        host.load("p")
    found = hashlib.sha256(evil.encode()).hexdigest()[:12]
    words = str(caught.value)
    assert f"{file} isn't what was verified: expected sha256 {expected}… of {len(RUN)} bytes, found " in words
    assert (f"sha256 {found}" in words) is (len(evil) <= len(RUN))
    assert "`hostkit verify`" in words and "`hostkit lock`" in words
    assert not canary.exists()


def test_bytes_of_the_same_number_are_told_apart_by_their_digest(install, verified, site):
    install("p", RUN)
    file = site / "p" / "__init__.py"
    host = verified()
    changed = file.read_text().replace("answer", "ANSWER")
    file.write_text(changed)
    with pytest.raises(
        IntegrityError, match=f"found sha256 {hashlib.sha256(changed.encode()).hexdigest()[:12]}… of {len(changed)} bytes"
    ):
        host.load("p")


def test_a_module_that_is_not_listed_keeps_the_plugin_from_loading(install, verified, site, evil, canary):
    install("p", "import p.part\n" + RUN, files={"part.py": evil})
    host = verified(table_of(site, without=["part.py"]))
    with pytest.raises(IntegrityError, match="part.py isn't among the verified files"):
        host.load("p")
    assert not canary.exists()


def test_a_constructor_that_imports_what_was_changed_fails_in_the_same_way(install, verified, site):
    install(
        "p",
        "class P:\n    def __init__(self):\n        import p.part\n    def execute(self, ctx, request): ...\n",
        files={"part.py": GOOD},
    )
    host = verified()
    (site / "p" / "part.py").write_text("")
    with pytest.raises(IntegrityError, match="part.py isn't what was verified"):
        host.load("p")


def test_a_library_that_wraps_the_error_of_its_import_is_told_as_what_it_is(install, verified, site):
    files = {
        "lib.py": "try:\n    import p.part\nexcept ImportError as error:\n    raise ImportError('broken install') from error\n",
        "part.py": GOOD,
    }
    install("p", "import p.lib\n" + RUN, files=files)
    host = verified()
    (site / "p" / "part.py").write_text("")
    with pytest.raises(IntegrityError, match="broken install"):
        host.load("p")


def test_a_plugin_with_a_fault_of_its_own_fails_as_ever(install, verified):
    install("p", "import nowhere_at_all\n" + RUN)
    with pytest.raises(PluginLoadError, match="No module named 'nowhere_at_all'"):
        verified().load("p")


def test_a_late_import_of_what_was_changed_is_an_import_error_in_the_plugin(worker, site, canary, evil):
    run = worker({"part.py": GOOD})
    (site / "p" / "part.py").write_text(evil)
    with pytest.raises(PluginFailed, match="part.py isn't what was verified: expected sha256") as caught:
        run("import p.part")
    assert caught.value.remote_type == "ImportError"
    assert not canary.exists()


def test_a_library_does_without_an_optional_module_that_is_not_listed(worker, evil, canary):
    lines = """
        import importlib.util
        answer = [importlib.util.find_spec("p.part")]
        try:
            from p import part
        except ImportError as error:
            answer.append(type(error).__name__)
        try:
            import p.part
        except ModuleNotFoundError as error:
            answer.append(error.name)
            answer.append(str(error))
    """
    spec, first, name, words = worker({"part.py": evil}, without=["part.py"])(lines)
    assert (spec, first, name) == (None, "ImportError", "p.part")
    assert "isn't among the verified files" in words and "hostkit lock" in words
    assert not canary.exists()


def test_what_lies_before_a_listed_module_on_the_path_is_passed_over(worker, site, tmp_path, monkeypatch, evil, canary):
    before = tmp_path / "before"
    before.mkdir()
    (before / "colours.py").write_text(evil)
    monkeypatch.syspath_prepend(str(before))
    (site / "colours.py").write_text(GOOD)
    assert worker()("import colours; answer = colours.answer") == "good"
    assert not canary.exists()


def test_poisoned_bytecode_beside_a_listed_source_does_not_run(worker, site, tmp_path, evil, canary):
    (site / "p").mkdir()
    poison = tmp_path / "poison.py"
    poison.write_text(evil)
    cached = importlib.util.cache_from_source(str(site / "p" / "part.py"))
    py_compile.compile(str(poison), cached, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    assert worker({"part.py": GOOD})("import p.part; answer = p.part.answer") == "good"
    assert not canary.exists()


@pytest.mark.parametrize("kept", [True, False])
def test_bytecode_that_the_table_vouches_for_saves_the_compiler_its_work(install, verified, site, evil, canary, kept):
    install("p", RUN, files={"part.py": GOOD})
    source = site / "p" / "part.py"
    cached = Path(importlib.util.cache_from_source(str(source)))
    py_compile.compile(str(source), str(cached))
    vouched = cached.read_bytes().replace(b"good", b"fast")
    cached.write_bytes(vouched)
    host = verified({**table_of(site), str(cached): (len(vouched), hashlib.sha256(vouched).hexdigest())})
    if not kept:  # somebody else's now
        cached.write_bytes(vouched.replace(b"fast", b"evil"))
    lines = "import p.part; answer = [p.part.answer, p.part.__loader__.get_code('p.part').co_filename]"
    assert host.execute("p", lines) == ["fast" if kept else "good", str(source)]
    source.write_text(evil)
    with pytest.raises(PluginFailed, match="part.py isn't what was verified"):
        host.execute("p", "import sys; del sys.modules['p.part']; import p.part")
    assert not canary.exists()


@pytest.mark.parametrize("listed", [True, False])
def test_bytecode_without_a_source_is_refused_listed_or_not(worker, site, tmp_path, evil, canary, listed):
    (site / "p").mkdir()
    (tmp_path / "poison.py").write_text(evil)
    py_compile.compile(str(tmp_path / "poison.py"), str(site / "p" / "part.pyc"))
    with pytest.raises(PluginFailed, match="part.pyc"):
        worker(without=() if listed else ["part.pyc"])("import p.part")
    assert not canary.exists()


@pytest.mark.parametrize("way", ["import packed", "import zipimport; zipimport.zipimporter(ARCHIVE).load_module('packed')"])
def test_nothing_is_imported_from_an_archive(worker, tmp_path, monkeypatch, evil, canary, way):
    archive = tmp_path / "archives" / "packed.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("packed.py", evil)
    monkeypatch.syspath_prepend(str(archive))
    with pytest.raises(PluginFailed):
        worker(beside=[archive.parent])(way.replace("ARCHIVE", repr(str(archive))))
    assert not canary.exists()


def test_a_namespace_package_has_what_is_listed_of_it_wherever_it_lies(worker, site, tmp_path, monkeypatch, evil, canary):
    for place, name in ((site, "one"), (tmp_path / "other", "two")):
        (place / "space").mkdir(parents=True)
        (place / "space" / f"{name}.py").write_text(f"answer = {name!r}")
    monkeypatch.syspath_prepend(str(tmp_path / "other"))
    (tmp_path / "other" / "space" / "three.py").write_text(evil)
    lines = """
        import space.one, space.two
        answer = [space.one.answer, space.two.answer, len(space.__path__), getattr(space, "__file__", None)]
        try:
            import space.three
        except ImportError as error:
            answer.append(str(error))
    """
    *answer, words = worker(without=["three.py"], beside=[tmp_path / "other"])(lines)
    assert answer == ["one", "two", 2, None]
    assert "three.py isn't among the verified files" in words
    assert not canary.exists()


def test_a_directory_of_listed_data_does_not_take_the_place_of_a_module_that_is_not_listed(worker, site, evil, canary):
    (site / "p" / "part").mkdir(parents=True)
    (site / "p" / "part" / "data.txt").write_text("")
    with pytest.raises(PluginFailed, match="part.py isn't among the verified files"):
        worker({"part.py": evil}, without=["part.py"])("import p.part")
    assert not canary.exists()


# Libraries go these ways, each past the ordinary import.
WAYS = {
    "spec_from_file_location": """
        import importlib.util
        spec = importlib.util.spec_from_file_location("part", here + "/part.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        answer = module.answer
    """,
    "a loader": """
        import types
        from importlib.machinery import SourceFileLoader
        module = types.ModuleType("part")
        SourceFileLoader("part", here + "/part.py").exec_module(module)
        answer = module.answer
    """,
    "runpy by path": "import runpy; answer = runpy.run_path(here + '/part.py')['answer']",
    "runpy by name": "import runpy; answer = runpy.run_module('p.part')['answer']",
    "pkgutil": """
        import pkgutil, importlib.util
        [found] = [found for found in pkgutil.iter_modules([here]) if found.name == "part"]
        spec = found.module_finder.find_spec("part")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        answer = module.answer
    """,
    "a finder": """
        from importlib.machinery import PathFinder
        answer = PathFinder.find_spec("part", [here]).loader.load_module("part").answer
    """,
    "the path": "sys.path.insert(0, here); import part; sys.path.remove(here); answer = part.answer",
    "reload": "import p.part, importlib; answer = importlib.reload(p.part).answer",
    "the path-based finder": """
        import sys, importlib
        from importlib.machinery import PathFinder
        sys.meta_path.insert(0, PathFinder)
        sys.path_importer_cache.clear()
        importlib.invalidate_caches()
        import p.part
        answer = p.part.answer
    """,
}


def test_whichever_way_a_library_takes_it_gets_verified_bytes_or_an_error(worker, site, evil, canary):
    run = worker({"part.py": GOOD})
    for way, lines in WAYS.items():
        anew = "import sys\nfor name in ('part', 'p.part'): sys.modules.pop(name, None)\n"
        (site / "p" / "part.py").write_text(GOOD)
        assert run(anew + textwrap.dedent(lines)) == "good", way
        (site / "p" / "part.py").write_text(evil)
        with pytest.raises(PluginFailed, match="isn't what was verified"):
            run(anew + textwrap.dedent(lines))
        assert not canary.exists(), way


def test_resources_are_listed_bytes_only(worker, site):
    lines = """
        import importlib.resources as resources, pkgutil
        top = resources.files("p")
        answer = [
            top.joinpath("good.txt").read_text(), (top / "good.txt").read_bytes().decode(), sorted(found.name for found in top.iterdir()),
            pkgutil.get_data("p", "good.txt").decode(), (top / "none.txt").is_file(), top.is_dir(), top.joinpath("good.txt").open().read(),
        ]
        with resources.as_file(top / "good.txt") as path:
            answer.append(path.read_text())
        for read in (lambda: (top / "none.txt").read_text(), lambda: pkgutil.get_data("p", "none.txt"), lambda: (top / "changed.txt").read_bytes(),
                     lambda: __import__("p").__loader__.get_data(here + "/changed.txt")):
            try:
                answer.append(read())
            except OSError as error:
                answer.append(f"{type(error).__name__}: {error}")
    """
    run = worker({"good.txt": "good", "changed.txt": "good", "none.txt": "evil"}, without=["none.txt"])
    (site / "p" / "changed.txt").write_text("evil")
    *answer, none, no_data, changed, changed_data = run(lines)
    assert answer == ["good", "good", ["__init__.py", "changed.txt", "good.txt"], "good", False, True, "good", "good"]
    assert none.startswith("FileNotFoundError") and "isn't among the verified files" in none
    assert no_data.startswith("FileNotFoundError")
    assert changed.startswith("OSError") and "isn't what was verified" in changed and changed_data == changed


def test_the_resources_of_a_namespace_package_are_listed_bytes_too(worker, site):
    (site / "space").mkdir()
    (site / "space" / "one.txt").write_text("one")
    (site / "space" / "two.txt").write_text("two")
    lines = """
        import importlib.resources as resources
        top = resources.files("space")
        answer = [top.joinpath("one.txt").read_text(), sorted(found.name for found in top.iterdir())]
    """
    assert worker(without=["two.txt"])(lines) == ["one", ["one.txt"]]


def test_distributions_are_those_whose_metadata_is_listed(worker, install):
    install("other-one", GOOD)
    install("unheard-of", GOOD)
    lines = """
        import importlib.metadata as metadata
        answer = [metadata.version("p"), metadata.distribution("Other.One").metadata["Name"]]
        answer.append(sorted(found.metadata["Name"] for found in metadata.distributions()))
        answer.append(sorted(found.name for found in metadata.distribution("p").entry_points))
        try:
            answer.append(metadata.version("unheard-of"))
        except metadata.PackageNotFoundError:
            answer.append("not found")
    """
    hidden = [f"unheard_of-1.0.dist-info/{name}" for name in ("METADATA", "entry_points.txt")]
    assert worker(without=hidden)(lines) == ["1.0", "other-one", ["other-one", "p"], ["p"], "not found"]


def test_no_pth_file_is_run(install, verified, new_host, site, tmp_path, monkeypatch, evil, canary):
    install("p", RUN)
    (site / "x.pth").write_text(f"import os; open({str(canary)!r}, 'w').close()\n")
    monkeypatch.setattr(_importable, "_site_dirs", lambda: [str(site)])
    plain = new_host(config={"plugins": {"p": {"isolation": "process", **OPEN}}})
    plain.load("p")
    assert canary.exists(), "this is how workers start otherwise"
    canary.unlink()
    host = verified()
    host.execute("p", f"import site; site.addsitedir({str(site)!r}); answer = 1")
    assert not canary.exists()


def test_a_worker_that_is_verified_is_not_forked_from_a_template(install, verified):
    install("p", RUN)
    host = verified(config={"defaults": {"start": "template"}, "template": {"preload": ["colorsys"]}})
    assert host.execute("p", "import sys; answer = 'colorsys' in sys.modules") is False
    assert host._loader._opener._template.pid is None


def test_a_worker_that_takes_anothers_place_verifies_anew(install, verified, site, log, until, evil, canary):
    install("p", RUN)
    host = verified()
    pid = host.execute("p", "import os; answer = os.getpid()")
    (site / "p" / "__init__.py").write_text(evil)
    os.kill(pid, signal.SIGKILL)
    until(lambda: [record for record in log if "isn't what was verified" in record["text"]])
    assert not canary.exists()


def test_what_took_a_files_place_and_never_ends_is_refused_at_once(install, verified, site):
    install("p", RUN)
    file = site / "p" / "__init__.py"
    host = verified(start_timeout="5s")
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(IntegrityError, match="is no regular file"):
        host.load("p")


def test_a_file_that_is_gone_is_an_integrity_error(install, verified, site):
    install("p", RUN)
    host = verified()
    (site / "p" / "__init__.py").unlink()
    with pytest.raises(IntegrityError, match="can't be read: .*No such file"):
        host.load("p")


def test_a_path_that_leads_over_a_link_is_the_listed_file(install, verified, site, tmp_path, monkeypatch):
    install("p", RUN)
    (tmp_path / "link").symlink_to(site)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "link") if entry == str(site) else entry for entry in sys.path])
    assert verified(table_of(site)).execute("p", "import p; answer = p.__file__") == str(site / "p" / "__init__.py")


SWAPPED = """
import importlib
outcomes = []
for number in range(100):
    try:
        outcomes.append(importlib.import_module(f"p.parts.m{number}").answer)
    except ImportError:
        outcomes.append("refused")

class P:
    def execute(self, ctx, request):
        return outcomes
"""


def test_files_that_are_swapped_while_workers_start_never_run(install, verified, site, tmp_path, evil, canary):
    """Whoever can write there swaps a whole directory, all the time: each import gets the listed bytes, or nothing."""
    install("p", SWAPPED)
    parts = site / "p" / "parts"
    versions = {tmp_path / "good": GOOD, tmp_path / "bad": evil}
    for place, text in versions.items():
        place.mkdir()
        for number in range(100):
            (place / f"m{number}.py").write_text(text)
    shutil.copytree(tmp_path / "good", parts)
    host = verified()
    shutil.rmtree(parts)
    stop = threading.Event()

    def swap():
        spare = tmp_path / "spare"
        for place in itertools.cycle(versions):
            spare.symlink_to(place)
            os.replace(spare, parts)
            if stop.is_set():
                return

    swapper = threading.Thread(target=swap)
    swapper.start()
    outcomes = []
    try:
        for _ in range(4):
            outcomes += host.execute("p", None)
            host.unload("p")
    finally:
        stop.set()
        swapper.join()
    assert set(outcomes) == {"good", "refused"}, "both were met, and nothing else"
    assert not canary.exists()


# Extension modules. One of the interpreter's own, under another roof, is one like any other.


def extension(name):
    spec = importlib.machinery.PathFinder.find_spec(name)
    if spec is None or not str(spec.origin).endswith(".so"):
        pytest.skip("this interpreter has its extension modules built in")
    return Path(spec.origin)


@pytest.fixture
def native(site):
    (site / "p").mkdir()
    return Path(shutil.copy(extension("_heapq"), site / "p"))


NATIVE = """
    import p._heapq as native
    maps = open("/proc/self/maps").read()
    answer = [native.__file__, native.__spec__.origin, native.__loader__.path, native.__name__, here in maps, "memfd:_heapq" in maps]
"""


def test_an_extension_module_is_loaded_from_sealed_memory_and_shows_its_own_path(worker, native):
    assert worker()(NATIVE) == [*[str(native)] * 3, "p._heapq", False, True]


def test_an_extension_module_that_was_changed_is_not_loaded(worker, native):
    run = worker()
    data = bytearray(native.read_bytes())
    data[-1] ^= 1
    native.write_bytes(data)
    with pytest.raises(PluginFailed, match=f"{re.escape(native.name)} isn't what was verified: expected sha256"):
        run(NATIVE)


def test_an_extension_module_that_is_not_listed_is_not_loaded_by_its_path_either(worker, native):
    lines = f"""
        import importlib.util
        spec = importlib.util.spec_from_file_location("_heapq", {str(native)!r})
        importlib.util.module_from_spec(spec)
    """
    with pytest.raises(PluginFailed, match="isn't among the verified files"):
        worker(without=[native.name])(lines)


def test_modules_that_are_loaded_one_after_the_other_are_not_taken_for_one_another(worker, native):
    for name in ("_bisect", "_random"):
        shutil.copy(extension(name), native.parent)
    lines = """
        import p._heapq, p._bisect, p._random, os, sys, importlib
        answer = [hasattr(p._heapq, "heappush"), hasattr(p._bisect, "insort_left"), hasattr(p._random, "Random")]
        first = sys.modules.pop("p._bisect")
        answer.append(importlib.import_module("p._bisect") is not first)
        links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
        answer.append([os.readlink(link) for link in links if os.path.exists(link) and "_bisect" in os.readlink(link)])
    """
    assert worker()(lines) == [True, True, True, True, []], "each is its own, and no descriptor is kept"


def test_ctypes_is_not_led_from_the_systems_libraries_to_others(worker, native):
    lines = f"""
        import ctypes
        ctypes.CDLL("/usr/lib/../..{native}")
    """
    with pytest.raises(PluginFailed, match="isn't among the verified files"):
        worker(without=[native.name])(lines)


@pytest.mark.parametrize("listed", [True, False])
def test_ctypes_loads_what_comes_with_a_package_from_sealed_memory_or_not_at_all(worker, native, listed):
    lines = f"""
        import ctypes
        answer = []
        ctypes.CDLL(None), ctypes.CDLL("libc.so.6")
        try:
            ctypes.CDLL({str(native)!r})
        except OSError as error:
            answer.append(str(error))
        answer.append(here in open("/proc/self/maps").read())
    """
    answer = worker(without=() if listed else [native.name])(lines)
    assert answer[-1] is False
    assert len(answer) == (1 if listed else 2)
    assert listed or "isn't among the verified files" in answer[0]


def test_what_is_no_shared_object_at_all_is_an_import_error(worker, site):
    (site / "p").mkdir()
    name = "part" + importlib.machinery.EXTENSION_SUFFIXES[0]
    (site / "p" / name).write_bytes(b"\x7fELF\x02\x01" + b"\xff" * 100)
    with pytest.raises(PluginFailed, match="no shared object that hostkit can read") as caught:
        worker()("import p.part")
    assert caught.value.remote_type == "ImportError"


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no compiler")
@pytest.mark.parametrize("where", ["$ORIGIN", "a place of its own"])
@pytest.mark.parametrize("listed", [True, False])
def test_a_library_that_another_one_needs_is_verified_wherever_it_is_looked_for(worker, site, tmp_path, canary, where, listed):
    """Its constructor runs as soon as the linker has loaded it."""
    (site / "p").mkdir()
    place = site / "p" if where == "$ORIGIN" else tmp_path / "libraries"
    place.mkdir(exist_ok=True)
    compiler = ["gcc", "-shared", "-fPIC", "-x", "c", "-"]
    tell = f'#include <stdio.h>\n__attribute__((constructor)) static void tell(void) {{ fclose(fopen("{canary}", "w")); }}\nint inner(void) {{ return 7; }}\n'
    inner, outer = place / "libinner-hostkit.so", site / "p" / "libouter.so"
    subprocess.run([*compiler, "-o", inner, f"-Wl,-soname,{inner.name}"], input=tell, text=True, check=True)
    rpath = f"-Wl,-rpath,{where if place == site / 'p' else place}"
    needs = "int inner(void);\nint outer(void) { return inner(); }\n"
    subprocess.run([*compiler, "-o", outer, "-x", "none", inner, rpath], input=needs, text=True, check=True)
    run = worker(beside=[place], without=() if listed else [inner.name])
    lines = f"import ctypes; answer = [ctypes.CDLL({str(outer)!r}).outer(), {str(inner)!r} in open('/proc/self/maps').read()]"
    if listed:
        assert run(lines) == [7, False]
    else:
        with pytest.raises(PluginFailed, match=inner.name):
            run(lines)
    assert canary.exists() is listed
