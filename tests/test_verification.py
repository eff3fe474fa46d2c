"""Every kind of finding: an installation that was locked and verifies without one is changed in one way."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import marshal
import os
import shutil
import struct
import sys
import zipfile
from pathlib import Path

import pytest

import hostkit
from hostkit import testing
from hostkit._finding import KINDS

SOURCE = """
    from answer_library import answer

    class P:
        def execute(self, ctx, request):
            return answer()
"""


def distribution(site, name, files, *, version="1.0", requires=(), record=True):
    """Write a distribution that offers no plugin, with its RECORD, as an installer would."""
    for file, text in files.items():
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).write_text(text)
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    needs = "".join(f"Requires-Dist: {text}\n" for text in requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
    if record:
        rows = [*files, f"{info.name}/METADATA", f"{info.name}/RECORD"]
        (info / "RECORD").write_text("".join(f"{row},,\n" for row in rows))
    return info


class Place:
    """A locked installation with one plugin, what it requires, and the command line that verifies it."""

    def __init__(self, site, cli, cwd):
        self.site, self.cli, self.cwd = site, cli, cwd

    def verify(self, *names):
        result = self.cli("verify", "--json", *names)
        assert result.exit_code in (0, 1), result.stderr
        findings = json.loads(result.stdout)["findings"]
        assert bool(findings) is bool(result.exit_code)
        return findings

    def lock(self, *options):
        result = self.cli("lock", *options)
        assert result.exit_code == 0, result.stderr
        assert self.verify() == []

    def finds(self, kind, file="", *, only=True):
        """Verify, expect this one finding, and that the plugin is refused for it; return the finding."""
        findings = self.verify()
        told = [each for each in findings if each["kind"] == kind and each["file"].endswith(file)]
        assert len(told) == 1, findings
        if only:
            assert findings == told
        assert told[0]["remedy"]
        return told[0]


@pytest.fixture
def place(site, install_demo, cli, cli_place):
    distribution(
        site,
        "answer-library",
        {"answer_library/__init__.py": "def answer():\n    return 42\n", "answer_library/more.py": "MORE = 1\n"},
    )
    distribution(site, "part-one", {"family/one/__init__.py": "ONE = 1\n"})
    distribution(site, "part-two", {"family/two/__init__.py": "TWO = 2\n"})
    install_demo(
        "plugin",
        SOURCE,
        requires=["answer-library", "part-one", "part-two"],
        manifest='name = "plugin"\nversion = "1.0"\n',
        files={"data.txt": "data"},
    )
    (cli_place / "hostkit.toml").write_text('[lock]\npolicy = "enforce"\n')
    found = Place(site, cli, cli_place)
    found.lock()
    return found


def refusal(new_host, place):
    """The sentence with which a host under the lock refuses the plugin."""
    host = new_host("demo", config=str(place.cwd / "hostkit.toml"))
    with pytest.raises(hostkit.IntegrityError) as error:
        host.load("plugin")
    assert "answer_library" not in sys.modules and "plugin" not in sys.modules, "something of it was imported"
    return str(error.value)


def test_what_is_installed_as_it_was_locked_has_no_findings_and_runs(place, new_host, isolation):
    result = place.cli("verify")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, f"{place.cwd / 'hostkit.lock'}: 1 plugin: no findings")
    host = new_host("demo", config=str(place.cwd / "hostkit.toml"))
    host.load("plugin", isolation=isolation)
    assert host.execute("plugin", {}) == 42


def test_a_modified_file_is_found_and_refused_before_anything_is_imported(place, new_host):
    (place.site / "answer_library/more.py").write_text("MORE = 2\n")
    finding = place.finds("modified", "answer_library/more.py")
    assert finding["distribution"] == "answer-library"
    sentence = refusal(new_host, place)
    assert "plugin 'plugin'" in sentence
    assert "modified: answer_library/more.py" in sentence
    assert "reinstall answer-library" in sentence


def test_a_missing_file_is_found(place, new_host):
    (place.site / "plugin/data.txt").unlink()
    place.finds("missing", "plugin/data.txt")
    assert "missing: plugin/data.txt" in refusal(new_host, place)


def test_an_extra_file_is_found(place, new_host):
    (place.site / "plugin/evil.py").write_text("")
    place.finds("extra", "plugin/evil.py")
    assert "extra: plugin/evil.py" in refusal(new_host, place)


def cached(source, text=None, *, flags=0):
    """Write the .pyc that Python would use for a source, of another text if there is one; return its path."""
    file = Path(importlib.util.cache_from_source(str(source)))
    file.parent.mkdir(exist_ok=True)
    found = source.stat()
    header = struct.pack("<III", flags, int(found.st_mtime), found.st_size)
    if flags:
        header = struct.pack("<I", flags) + importlib.util.source_hash(source.read_bytes())
    code = compile(source.read_text() if text is None else text, str(source), "exec", dont_inherit=True)
    file.write_bytes(importlib.util.MAGIC_NUMBER + header + marshal.dumps(code))
    return file


def test_what_python_keeps_in_its_cache_is_no_finding(place):
    for source in ("answer_library/__init__.py", "plugin/__init__.py", "family/one/__init__.py"):
        cached(place.site / source)
    cached(place.site / "answer_library/more.py", flags=3)  # checked by its hash
    (place.site / "plugin/__pycache__/__init__.cpython-27.pyc").write_bytes(b"another Python's")
    assert place.verify() == []


def test_a_poisoned_pyc_with_the_header_of_its_source_is_found(place, new_host):
    cached(place.site / "answer_library/__init__.py", "def answer():\n    return 'poison'\n")
    finding = place.finds("foreign-pyc", ".pyc")
    assert finding["text"] == "its code is not what its source compiles to"
    assert "foreign-pyc" in refusal(new_host, place)


@pytest.mark.parametrize(
    "text",
    ["X = 1", "X = 1.0", "X = True", "X = b'1'", "X = {1}", "X = ...", "X = 10**20", "X = -1j", "X = y(1)", "def f(x=1): pass"],
)
def test_a_constant_that_is_another_one_is_another_code(place, text):
    source = place.site / "answer_library/more.py"
    source.write_text(f"{text}\n")
    place.lock()
    cached(source)
    assert place.verify() == []
    cached(source, f"{text.replace('1', '2').replace('True', 'False').replace('...', 'None')}\n")
    place.finds("foreign-pyc", ".pyc")


def test_a_pyc_that_is_compiled_elsewhere_is_the_same(place):
    source = place.site / "answer_library/more.py"
    text = "def f(a, *, b=(1, 'x', None)):\n    return [c for c in {'k': a} if b not in {1, 2, 3}]\n"
    source.write_text(text)
    place.lock()
    file = cached(source)
    file.write_bytes(file.read_bytes()[:16] + marshal.dumps(compile(text, "/elsewhere/more.py", "exec", dont_inherit=True)))
    assert place.verify() == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xe3",
        b"r\xff\xff\xff\x7f",
        b"(\xff\xff\xff\x7f",
        b"s\xff\xff\xff\x7f",
        b"\xa9\x01r\0\0\0\0",
        b"\xa9\x01" * 5000 + b"N",
    ],
)
def test_a_pyc_that_marshal_would_choke_on_is_a_finding(place, body):
    file = cached(place.site / "plugin/__init__.py")
    file.write_bytes(file.read_bytes()[:16] + body)
    place.finds("foreign-pyc", ".pyc")


def test_a_pyc_that_is_never_compared_with_its_source_is_found(place):
    cached(place.site / "plugin/__init__.py", flags=1)
    assert "unchecked" in place.finds("foreign-pyc", ".pyc")["text"]


def test_a_pyc_of_an_earlier_source_is_found(place):
    file = cached(place.site / "plugin/__init__.py")
    os.utime(place.site / "plugin/__init__.py", (1, 1))
    place.finds("foreign-pyc", file.name)


def test_a_pyc_without_a_source_is_found(place):
    shutil.copy(cached(place.site / "plugin/__init__.py"), place.site / "plugin/evil.pyc")
    place.finds("sourceless-pyc", "plugin/evil.pyc")


def test_a_pyc_without_a_source_in_the_cache_is_found(place):
    file = cached(place.site / "plugin/__init__.py")
    file.rename(file.with_name(file.name.replace("__init__", "gone")))
    place.finds("sourceless-pyc", "gone." + file.name.partition(".")[2])


def test_a_pth_file_is_found(place, new_host):
    (place.site / "evil.pth").write_text("import os\n")
    assert place.finds("pth", "evil.pth")["plugin"] == ""
    assert "pth: " in refusal(new_host, place)


def test_a_pth_file_that_was_locked_and_says_something_else_is_found(place):
    (place.site / "known.pth").write_text("# nothing\n")
    place.lock()
    (place.site / "known.pth").write_text("import evil\n")
    assert "is not what was locked" in place.finds("pth", "known.pth")["text"]


@pytest.mark.parametrize("name", ["sitecustomize.py", "usercustomize/__init__.py", "sitecustomize.pyc"])
def test_what_customizes_every_interpreter_is_found(place, name):
    (place.site / name).parent.mkdir(exist_ok=True)
    (place.site / name).write_text("")
    place.finds("sitecustomize", name)


def test_a_plugin_that_is_not_in_the_lock_is_found_and_refused(place, install_demo, new_host):
    install_demo("newcomer", SOURCE)
    finding = place.finds("unlisted")
    assert (finding["plugin"], finding["distribution"]) == ("newcomer", "newcomer")
    host = new_host("demo", config=str(place.cwd / "hostkit.toml"))
    with pytest.raises(
        hostkit.IntegrityError, match=r"unlisted: the plugin of distribution newcomer is not in the lock; uninstall it, or lock it"
    ):
        host.load("newcomer")
    host.load("plugin")  # the others are loaded all the same


def test_a_plugin_directory_that_is_not_in_the_lock_is_found(place):
    made = place.cwd / "plugins" / "folder"
    made.mkdir(parents=True)
    (made / "plugin.toml").write_text('entry_point = "folder_plugin:P"\n')
    (made / "folder_plugin.py").write_text("class P:\n    def execute(self, ctx, request):\n        return 1\n")
    (place.cwd / "hostkit.toml").write_text('[lock]\npolicy = "enforce"\n[discovery]\npaths = ["plugins"]\n')
    assert place.finds("unlisted")["plugin"] == "folder"


def test_the_files_of_a_plugin_directory_are_verified(place):
    made = place.cwd / "plugins" / "folder"
    made.mkdir(parents=True)
    (made / "plugin.toml").write_text('entry_point = "folder_plugin:P"\n')
    (made / "folder_plugin.py").write_text("class P:\n    def execute(self, ctx, request):\n        return 1\n")
    (place.cwd / "hostkit.toml").write_text('[lock]\npolicy = "enforce"\n[discovery]\npaths = ["plugins"]\n')
    place.lock()
    (made / "folder_plugin.py").write_text("evil = 1\n")
    assert place.finds("modified", "folder_plugin.py")["plugin"] == "folder"


def test_a_second_distribution_of_the_same_name_is_found(place):
    distribution(place.site, "answer-library", {}, version="0.9")
    assert "is installed 2 times" in place.finds("duplicate", only=False)["text"]


def test_a_plugin_that_two_distributions_offer_is_found(place, site):
    testing.install(site, "other", SOURCE, group="demo.plugins")
    (site / "other-1.0.dist-info/entry_points.txt").write_text("[demo.plugins]\nplugin = other:P\n")
    assert "claimed by" in place.finds("duplicate", only=False)["text"]


def test_a_link_that_leads_out_is_found(place, tmp_path):
    (tmp_path / "elsewhere.py").write_text("")
    (place.site / "plugin/evil.py").symlink_to(tmp_path / "elsewhere.py")
    place.finds("escape", "plugin/evil.py")


def test_a_link_in_the_place_of_a_locked_file_is_found_even_with_the_same_bytes(place, tmp_path):
    file = place.site / "plugin/data.txt"
    shutil.move(file, tmp_path / "data.txt")
    file.symlink_to(tmp_path / "data.txt")
    place.finds("escape", "plugin/data.txt")


def test_a_record_that_claims_what_lies_outside_is_found(place):
    with (place.site / "answer_library-1.0.dist-info/RECORD").open("a") as record:
        record.write("../../../../../../../../../etc/passwd,,\n")
    place.finds("escape", "etc/passwd")


def test_names_that_differ_in_case_only_are_found(place):
    (place.site / "answer_library/More.py").write_text("")
    place.finds("case-collision", "answer_library/more.py", only=False)


def test_a_working_tree_in_the_place_of_a_package_is_found(place):
    (place.site / "answer_library-1.0.dist-info/direct_url.json").write_text(
        '{"url": "file:///src", "dir_info": {"editable": true}}'
    )
    assert place.finds("editable", "answer_library-1.0.dist-info")["distribution"] == "answer-library"


@pytest.mark.parametrize("file", ["family/__init__.py", "family/evil.py"])
def test_a_file_in_a_directory_that_distributions_share_is_found(place, file):
    (place.site / file).write_text("")
    told = [each for each in place.verify() if each["kind"] == "shared-namespace"]
    assert {each["distribution"] for each in told} <= {"part-one", "part-two"}
    assert told


def test_a_further_part_of_a_shared_directory_is_its_own_affair(place):
    distribution(place.site, "part-three", {"family/three/__init__.py": ""})
    assert place.verify() == []


def test_an_entry_point_that_was_changed_is_found(place):
    (place.site / "plugin-1.0.dist-info/entry_points.txt").write_text("[demo.plugins]\nplugin = plugin:Q\n")
    finding = place.finds("entry-point", only=False)
    assert finding["text"] == "its entry point is plugin:Q of plugin, plugin:P of plugin was locked"


def test_an_entry_point_that_was_added_is_found(place):
    (place.site / "plugin-1.0.dist-info/entry_points.txt").write_text(
        "[demo.plugins]\nplugin = plugin:P\nfurther = plugin:Further\n"
    )
    assert place.finds("entry-point", only=False)["plugin"] == "further"


def test_another_version_of_what_is_required_is_found(place):
    shutil.rmtree(place.site / "answer_library-1.0.dist-info")
    distribution(place.site, "answer-library", {}, version="1.1")
    assert place.finds("drift")["text"] == "answer-library 1.0 is locked, answer-library 1.1 is installed"


def test_something_required_that_is_gone_is_found(place):
    shutil.rmtree(place.site / "part_two-1.0.dist-info")
    assert place.finds("drift")["text"] == "part-two 1.0 is locked, and not installed"


def test_a_further_requirement_is_found(place):
    distribution(place.site, "surprise", {"surprise.py": ""})
    with (place.site / "answer_library-1.0.dist-info/METADATA").open("a") as metadata:
        metadata.write("Requires-Dist: surprise\n")
    assert "surprise 1.0 is required now" in place.finds("drift", only=False)["text"]


def test_a_plugin_that_is_gone_is_found(place):
    shutil.rmtree(place.site / "plugin-1.0.dist-info")
    assert "not installed" in place.finds("missing", only=False)["text"]


def test_a_permission_that_was_not_locked_is_found_and_refused(place, new_host):
    config = place.cwd / "hostkit.toml"
    config.write_text('[lock]\npolicy = "enforce"\n[plugins.plugin]\nenv = ["SECRET"]\n')
    assert place.finds("permission")["text"] == "env is granted 'SECRET', which was not locked"
    assert "permission: " in refusal(new_host, place)


def test_a_place_that_is_less_isolated_than_the_locked_one_is_found(place):
    config = place.cwd / "hostkit.toml"
    config.write_text('[lock]\npolicy = "enforce"\n[plugins.plugin]\nisolation = "process"\n')
    place.lock()
    config.write_text('[lock]\npolicy = "enforce"\n')
    assert place.finds("permission")["text"] == "isolation 'none' is less than 'process', which was locked"


@pytest.mark.parametrize("name", ["answer-libary", "answer-1ibrary", "ansvver-library", "answerlibrary"])
def test_a_name_that_looks_like_a_locked_one_is_found(place, name):
    distribution(place.site, name, {f"{name.replace('-', '_')}x.py": ""})
    with (place.site / "plugin-1.0.dist-info/METADATA").open("a") as metadata:
        metadata.write(f"Requires-Dist: {name}\n")
    assert place.finds("look-alike", only=False)["text"] == f"{name} can be taken for answer-library, which is locked"


@pytest.mark.parametrize("name", ["p1ugin", "pluginn", "plguin"])
def test_a_plugin_that_looks_like_a_locked_one_is_found(place, install_demo, name):
    install_demo(name, SOURCE)
    told = [each for each in place.verify() if each["kind"] == "look-alike"]
    assert {each["text"] for each in told} == {f"{name} can be taken for plugin, which is locked"}


def test_a_name_in_other_letters_is_found(place, site):
    testing.install(site, "sneaky", SOURCE, group="demo.plugins")
    (site / "sneaky-1.0.dist-info/entry_points.txt").write_text("[demo.plugins]\nрlugin = sneaky:P\n", encoding="utf-8")
    assert "рlugin can be taken for plugin" in place.finds("look-alike", only=False)["text"]


@pytest.mark.parametrize("name", ["json.py", "sqlite3/__init__.py", "secrets.pyc"])
def test_a_module_before_the_standard_librarys_is_found(place, name, new_host):
    (place.site / name).parent.mkdir(exist_ok=True)
    (place.site / name).write_text("")
    place.finds("shadow", name.partition("/")[0])
    assert "shadow: " in refusal(new_host, place)


def test_a_module_that_is_found_before_a_locked_one_is_found(place, tmp_path, monkeypatch):
    earlier = tmp_path / "earlier"
    earlier.mkdir()
    (earlier / "answer_library.py").write_text("")
    monkeypatch.syspath_prepend(str(earlier))
    assert place.finds("shadow", "earlier/answer_library.py")["distribution"] == "answer-library"


def test_a_package_that_hides_a_shared_directory_is_found(place, tmp_path, monkeypatch):
    later = tmp_path / "later"
    (later / "family").mkdir(parents=True)
    (later / "family/__init__.py").write_text("")
    monkeypatch.setattr(sys, "path", [*sys.path, str(later)])
    assert {each["kind"] for each in place.verify()} == {"shadow"}


@pytest.mark.parametrize("name", ["plugin/data.txt", "plugin", "answer_library-1.0.dist-info"])
def test_what_everybody_may_write_is_found(place, name):
    path = place.site / name
    path.chmod(path.stat().st_mode | 0o002)
    place.finds("world-writable", name)


def test_every_kind_of_finding_has_a_mutation_here():
    text = Path(__file__).read_text()
    assert [kind for kind in KINDS if f'"{kind}"' not in text] == []


def test_a_poisoned_pyc_of_what_runs_in_every_interpreter_is_found(place):
    (place.site / "sitecustomize.py").write_text("")
    place.lock()
    cached(place.site / "sitecustomize.py")
    assert place.verify() == []
    cached(place.site / "sitecustomize.py", "evil = 1\n")
    place.finds("foreign-pyc", ".pyc")


def test_a_poisoned_pyc_in_a_cache_that_lies_elsewhere_is_found(place, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "caches"))
    Path(importlib.util.cache_from_source(str(place.site / "plugin/__init__.py"))).parent.mkdir(parents=True)
    cached(place.site / "plugin/__init__.py")
    assert place.verify() == []
    cached(place.site / "plugin/__init__.py", "evil = 1\n")
    place.finds("foreign-pyc", ".pyc")


def test_an_archive_before_the_standard_library_is_looked_into(place, tmp_path, monkeypatch):
    archive = tmp_path / "early.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("harmless.py", "")
    monkeypatch.syspath_prepend(str(archive))
    assert place.verify() == []
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("json/__init__.py", "")
    place.finds("shadow", "early.zip/json")


def test_a_library_of_the_linked_name_in_a_package_is_found(place):
    """Where a module of the same name stands twice, Python takes the extension."""
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    (place.site / f"answer_library/more{suffix}").write_bytes(b"")
    place.finds("extra", suffix)
    (place.site / f"answer_library/more{suffix}").unlink()
    (place.site / f"family{suffix}").write_bytes(b"")
    assert {each["kind"] for each in place.verify()} == {"shadow"}


@pytest.mark.parametrize(
    "row", ["..", "../..", ".", "/", "./plugin", "", ",,", '"', "plugin/../../x", "\\..\\..", "plugin/" + "x/" * 2000]
)
def test_a_record_of_anybodys_leads_nowhere(place, row):
    with (place.site / "answer_library-1.0.dist-info/RECORD").open("a") as record:
        record.write(f"{row},,\n")
    assert {each["kind"] for each in place.verify()} <= {"escape", "modified"}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("answer_library-1.0.dist-info/METADATA", "\0\udcff"),
        ("answer_library-1.0.dist-info/METADATA", ""),
        ("answer_library-1.0.dist-info/METADATA", "Name: answer-library\nVersion: 1.0\nRequires-Dist: !!\n"),
        ("answer_library-1.0.dist-info/direct_url.json", "[" * 100_000),
        ("answer_library-1.0.dist-info/direct_url.json", '{"dir_info": 7}'),
        ("answer_library-1.0.dist-info/RECORD", '"' + "x" * 200_000),
        ("answer_library-1.0.dist-info/entry_points.txt", "[[[\n=\n"),
        ("answer_library-1.0.dist-info/top_level.txt", "../..\n/etc\nplugin\n"),
    ],
)
def test_metadata_of_anybodys_is_a_finding_and_no_traceback(place, file, text):
    (place.site / file).write_bytes(text.encode("utf-8", "surrogateescape"))
    findings = place.verify()
    assert findings or file.endswith("direct_url.json")


def test_a_record_that_claims_anothers_files_makes_them_no_news(place):
    with (place.site / "answer_library-1.0.dist-info/RECORD").open("a") as record:
        record.write("plugin/data.txt,,\n")
    assert place.verify() == []
    (place.site / "plugin/data.txt").write_text("changed")
    assert {(each["kind"], each["file"]) for each in place.verify()} == {("modified", "plugin/data.txt")}


def test_a_file_of_a_plugin_directory_is_extra_though_a_distribution_has_one_of_that_name(place):
    made = place.cwd / "plugins" / "folder"
    made.mkdir(parents=True)
    (made / "plugin.toml").write_text('entry_point = "folder_plugin:P"\n')
    (made / "folder_plugin.py").write_text("class P:\n    def execute(self, ctx, request):\n        return 1\n")
    (place.cwd / "hostkit.toml").write_text('[discovery]\npaths = ["plugins"]\n')
    place.lock()
    (made / "answer_library").mkdir()
    (made / "answer_library/more.py").write_text("evil = 1\n")
    place.finds("extra", "answer_library/more.py")


def test_a_grant_that_was_not_locked_is_found(place):
    manifest = place.site / "plugin/plugin.toml"
    manifest.write_text(
        'name = "plugin"\nversion = "1.0"\nisolation = "process"\n[permissions]\nnetwork = ["a.example:443", "b.example:443"]\nsubprocess = true\n'
    )
    config = place.cwd / "hostkit.toml"
    config.write_text('[plugins.plugin.permissions]\nnetwork = ["a.example:443"]\n')
    place.lock()
    config.write_text('[plugins.plugin.permissions]\nnetwork = ["a.example:443", "b.example:443"]\n')
    assert place.finds("permission")["text"] == "network is granted 'b.example:443', which was not locked"
    config.write_text('[plugins.plugin.permissions]\nnetwork = ["a.example:443"]\nsubprocess = true\n')
    assert place.finds("permission")["text"] == "subprocess is granted as a whole, which was not locked"


def test_a_sandbox_that_holds_less_than_the_locked_one_is_found(place):
    config = place.cwd / "hostkit.toml"
    config.write_text('[plugins.plugin]\nisolation = "process"\nsandbox = "standard"\n')
    place.lock()
    config.write_text('[plugins.plugin]\nisolation = "process"\nsandbox = "off"\n')
    assert place.finds("permission")["text"] == "sandbox 'off' is less than 'standard', which was locked"
