"""``hostkit.lock``: what stands in it, the same bytes for the same installation, and what is refused when it is read."""

from __future__ import annotations

import json
import random
import re
import tomllib
from contextlib import suppress
from hashlib import sha256

import pytest
from packaging.pylock import Pylock

import hostkit
from hostkit import _lockfile

ECHO = "class P:\n    def execute(self, ctx, request):\n        return request\n"
GROUP = "demo.plugins"


@pytest.fixture
def locked(install_demo, site, cli, cli_place):
    """A lock of two plugins that share what they require, as a file and parsed; ``locked()`` locks again."""
    install_demo(
        "one", ECHO, requires=["shared-library", 'windows-only ; sys_platform == "win32"'], manifest='isolation = "process"\n'
    )
    install_demo("two", ECHO, requires=["shared-library[more]"])
    for name, requires in {"shared-library": 'more-of-it ; extra == "more"', "more-of-it": ""}.items():
        module = name.replace("-", "_")
        (site / f"{module}.py").write_text("X = 1\n")
        info = site / f"{module}-2.0.dist-info"
        info.mkdir()
        needs = f"Requires-Dist: {requires}\n" if requires else ""
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.0\n{needs}Provides-Extra: more\n")
        (info / "top_level.txt").write_text(f"{module}\n")
    made = site / ".." / "plugins" / "folder"
    made.mkdir(parents=True)
    (made / "plugin.toml").write_text('entry_point = "folder_plugin:P"\n')
    (made / "folder_plugin.py").write_text(ECHO)
    (cli_place / "hostkit.toml").write_text(f'[discovery]\npaths = ["{made.parent}"]\n[plugins.one]\nenv = ["HOME"]\n')

    def make():
        result = cli("lock")
        assert (result.exit_code, result.stderr) == (0, "")
        text = (cli_place / "hostkit.lock").read_text()
        return text, tomllib.loads(text)

    return make


def test_a_lock_is_what_pep_751_says_with_hostkits_own_beside(locked):
    text, document = locked()
    pylock = Pylock.from_dict(document)
    assert {package.name: str(package.version) for package in pylock.packages} == {
        "more-of-it": "2.0",
        "one": "1.0",
        "shared-library": "2.0",
        "two": "1.0",
    }
    assert pylock.created_by == "hostkit"
    assert [dict(each) for each in pylock.packages[1].dependencies] == [{"name": "shared-library"}]
    assert document["tool"].keys() == {"hostkit"}


def test_a_plugin_is_locked_with_all_that_it_requires_and_may_do(locked, site):
    _, document = locked()
    own = document["tool"]["hostkit"]
    manifest = sha256((site / "one/plugin.toml").read_bytes()).hexdigest()
    assert own["plugins"]["one"] == {
        "entry-point": "one:P",
        "distribution": "one",
        "manifest": manifest,
        "requires": ["one", "shared-library"],
        "permissions": {"env": ["HOME"]},
        "isolation": "process",
        **({"sandbox": own["plugins"]["one"]["sandbox"]} if "sandbox" in own["plugins"]["one"] else {}),
    }
    assert own["plugins"]["two"]["requires"] == ["more-of-it", "shared-library", "two"], "extras and markers count"
    assert own["plugins"]["folder"]["files"].keys() == {"plugin.toml", "folder_plugin.py"}


def test_every_file_stands_in_it_once_with_its_size_and_digest(locked, site):
    text, document = locked()
    files = document["tool"]["hostkit"]["distributions"]["one"]["files"]
    assert files.keys() == {
        "one/__init__.py",
        "one/plugin.toml",
        "one-1.0.dist-info/METADATA",
        "one-1.0.dist-info/entry_points.txt",
    }
    data = (site / "one/__init__.py").read_bytes()
    assert files["one/__init__.py"] == [len(data), sha256(data).hexdigest()]
    assert text.count('"shared_library.py" = ') == 1, "two plugins share it"


def test_the_same_installation_gives_the_same_bytes(locked, cli):
    assert locked() == locked()
    assert cli("lock", "--check").exit_code == 0


def test_a_lock_says_the_same_wherever_the_environment_lies(locked, cli_place):
    text, _ = locked()
    assert str(cli_place.parent) not in text


def resealed(text):
    """Give a lock that somebody edited the digest that it must have."""
    digest = tomllib.loads(text)["tool"]["hostkit"]["digest"]
    return text.replace(digest, sha256(text.replace(digest, "0" * 64).encode()).hexdigest())


WRONG = {
    "half of it": lambda text: text[: len(text) // 2],
    "nothing": lambda text: "",
    "no TOML": lambda text: "{",
    "another table": lambda text: text + "\n[evil]\n",
    "another tool": lambda text: text + "\n[tool.evil]\n",
    "an unknown key": lambda text: text.replace("entry-point =", "entrypoint =", 1),
    "a path that leads out": lambda text: text.replace('"one/__init__.py"', '"../one/__init__.py"'),
    "a path from the top": lambda text: text.replace('"one/__init__.py"', '"/one/__init__.py"'),
    "a path with a drive": lambda text: text.replace('"one/__init__.py"', '"c:/one/__init__.py"'),
    "a path with backslashes": lambda text: text.replace('"one/__init__.py"', "'..\\one'"),
    "a path that is none": lambda text: text.replace('"one/__init__.py"', '"one//__init__.py"'),
    "a digest that is none": lambda text: re.sub(r"[0-9a-f]{64}\"\]", 'abc"]', text, count=1),
    "a size that is none": lambda text: re.sub(r"= \[\d+, ", "= [-1, ", text, count=1),
    "a size that is a word": lambda text: re.sub(r"= \[\d+, ", '= ["1", ', text, count=1),
    "a distribution that isn't there": lambda text: text.replace('"shared-library"]', '"shared-library", "ghost"]'),
    "packages of another kind": lambda text: text.replace('name = "one"', 'name = "eno"', 1),
    "another version of the format": lambda text: text.replace("version = 1\n", "version = 2\n"),
    "another version of PEP 751": lambda text: text.replace('lock-version = "1.0"', 'lock-version = "2.0"'),
    "another application": lambda text: text.replace('"demo.plugins"', '"other.plugins"'),
    "bytes that are no text": lambda text: text.replace("one", "\udcff", 1),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_lock_that_is_wrong_is_refused_with_file_and_reason(locked, cli_place, what):
    path = cli_place / "hostkit.lock"
    text, _ = locked()
    assert _lockfile.read(path, GROUP).group == GROUP
    wrong = WRONG[what](text)
    assert wrong != text
    with suppress(ValueError, KeyError):  # what is no TOML has none
        wrong = resealed(wrong)
    path.write_bytes(wrong.encode("utf-8", "surrogateescape"))
    with pytest.raises(hostkit.IntegrityError) as error:
        _lockfile.read(path, GROUP)
    assert str(error.value).startswith(f"the lock {path}")
    assert "hostkit lock" in str(error.value)


def test_a_lock_cut_anywhere_is_refused(locked, cli_place):
    path = cli_place / "hostkit.lock"
    text, _ = locked()
    lines = text.splitlines(keepends=True)
    for count in range(len(lines)):
        path.write_text("".join(lines[:count]))
        with pytest.raises(hostkit.IntegrityError):
            _lockfile.read(path, GROUP)


def test_a_lock_from_which_a_line_is_taken_is_refused(locked, cli_place):
    path = cli_place / "hostkit.lock"
    text, _ = locked()
    lines = text.splitlines(keepends=True)
    for gone in range(len(lines)):
        path.write_text("".join(lines[:gone] + lines[gone + 1 :]))
        with pytest.raises(hostkit.IntegrityError):
            _lockfile.read(path, GROUP)


def test_a_lock_that_is_no_file_is_refused(locked, cli_place):
    with pytest.raises(hostkit.IntegrityError, match=r"write it: hostkit lock"):
        _lockfile.read(cli_place / "hostkit.lock", GROUP)
    (cli_place / "hostkit.lock").mkdir()
    with pytest.raises(hostkit.IntegrityError, match="is no regular file"):
        _lockfile.read(cli_place / "hostkit.lock", GROUP)


def test_names_of_files_are_written_so_that_they_are_read_again(locked, site):
    for name in ('a "quoted" name.txt', "tab\tand\x7f.txt", "größe.txt", "back'tick`.txt", "💥.txt", "new\nline.txt"):
        (site / "one" / name).write_text("x")
    _, document = locked()
    files = document["tool"]["hostkit"]["distributions"]["one"]["files"]
    assert "one/new\nline.txt" in files and "one/tab\tand\x7f.txt" in files and "one/💥.txt" in files


def test_a_name_that_cannot_be_written_down_is_not_locked(locked, site, cli):
    (site / "one" / "\udcff.txt").write_text("x")
    result = cli("lock", "--json")
    assert result.exit_code == 1
    assert [each["text"] for each in json.loads(result.stdout)["findings"]] == ["its name can't be written down"]


def test_whatever_stands_in_a_lock_it_is_read_or_refused(locked, cli_place):
    """Bytes, words and lines are swapped for others, with the digest made right, so that everything behind it is reached."""
    text, _ = locked()
    path = cli_place / "hostkit.lock"
    junk = [
        "1",
        "-1",
        "true",
        '""',
        "[]",
        "{}",
        "[[]]",
        '"x"',
        "1979-05-27",
        "nan",
        '["a"]',
        "{ a = 1 }",
        "x",
        "\x00",
        "[tool]",
        "é",
    ]
    chance = random.Random(5)
    words = re.findall(r"\S+|\s+", text)
    for _ in range(400):
        changed = list(words)
        for _ in range(chance.choice((1, 1, 3))):
            changed[chance.randrange(len(changed))] = chance.choice([*junk, chance.choice(words), ""])
        wrong = "".join(changed)
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            wrong = resealed(wrong)
        path.write_text(wrong)
        with suppress(hostkit.IntegrityError):
            _lockfile.read(path, GROUP)
