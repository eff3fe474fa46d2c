"""What the host can import its workers can import, and what nobody can import is sent to them by value."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import types
import zipfile

import pytest

import hostkit
from hostkit import PluginLoadError

ECHO = "class P:\n    def execute(self, ctx, request):\n        return request\n"
ASK = """
    import importlib, sys
    class P:
        def execute(self, ctx, request):
            if request == "path":
                return sys.path
            module = importlib.import_module(request)
            return [module.VALUE, module.__file__]
"""


@pytest.fixture
def ask(install, host):
    install("ask", ASK)
    return lambda what: host.execute("ask", what)


@pytest.fixture
def load(host):
    return lambda: host.load("ask", isolation="process")


def test_a_worker_searches_where_the_host_searches_in_the_same_order(ask, load, tmp_path, monkeypatch):
    for number in (1, 2):
        (tmp_path / f"dir{number}").mkdir()
        (tmp_path / f"dir{number}" / "shadowed.py").write_text(f"VALUE = {number}")
        monkeypatch.syspath_prepend(tmp_path / f"dir{number}")
    load()
    path = ask("path")
    assert path == [os.getcwd() if entry == "" else entry for entry in sys.path]
    assert ask("shadowed")[0] == 2


def test_modules_in_a_zip_archive_can_be_imported(ask, load, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "library.zip", "w") as archive:
        archive.writestr("zipped.py", "VALUE = 'from a zip'")
    monkeypatch.syspath_prepend(tmp_path / "library.zip")
    load()
    assert ask("zipped")[0] == "from a zip"


def test_an_isolated_plugin_can_live_in_a_zip_archive(host, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "plugins.zip", "w") as archive:
        archive.writestr("inzip/__init__.py", ECHO)
    monkeypatch.syspath_prepend(tmp_path / "plugins.zip")
    host.register(__import__("inzip").P, name="inzip", isolation="process")
    assert host.execute("inzip", 1) == 1


def test_a_directory_plugin_imports_its_own_modules(new_host, tmp_path):
    place = tmp_path / "plugins" / "folder"
    place.mkdir(parents=True)
    (place / "plugin.json").write_text('{"name": "folder", "version": "1.0", "entry_point": "folder_code:P"}')
    (place / "folder_code.py").write_text(
        "from folder_rest import answer\nclass P:\n    def execute(self, ctx, request):\n        return answer\n"
    )
    (place / "folder_rest.py").write_text("answer = 'from the folder'")
    for isolation in hostkit.testing.isolations():
        host = new_host(config={"discovery": {"paths": [str(tmp_path / "plugins")]}})
        host.load("folder", isolation=isolation)
        assert host.execute("folder", None) == "from the folder"
        host.close()
        assert str(place) not in sys.path
        for name in ("folder_code", "folder_rest"):
            sys.modules.pop(name, None)


# Whole environments: a program in a fresh virtual environment, with .pth files in it.

PROGRAM = """
import hostkit
host = hostkit.Host()
for isolation in ("none", "process"):
    host.reload("ask", isolation=isolation)
    for name in {names}:
        print(host.execute("ask", name)[0])
host.close()
"""


@pytest.fixture
def environment(tmp_path, install, site):
    """A virtual environment's site-packages, and how to run a program there in which the plugin "ask" is installed."""
    install("ask", ASK)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", tmp_path / "venv"], check=True)
    (packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    inherited = [entry for entry in sys.path if entry and "pytest" not in entry]

    def run(names, **environ):
        paths = [str(site), *environ.pop("first", []), *inherited]
        done = subprocess.run(
            [tmp_path / "venv" / "bin" / "python", "-c", PROGRAM.format(names=names)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    return packages, run


def test_what_pth_files_add_can_be_imported(environment, tmp_path):
    packages, run = environment
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "by_line.py").write_text("VALUE = 'line'")
    (packages / "linked.pth").write_text(f"{tmp_path / 'linked'}\n")
    (packages / "in_site.py").write_text("VALUE = 'site'")
    (tmp_path / "elsewhere.py").write_text("VALUE = 'editable'")
    (packages / "_editable.py").write_text(
        textwrap.dedent(
            f"""
            import importlib.machinery, importlib.util, sys
            class Finder:
                @classmethod
                def find_spec(cls, name, path=None, target=None):
                    if name == "by_finder":
                        return importlib.util.spec_from_file_location(name, {str(tmp_path / "elsewhere.py")!r})
            def install():
                sys.meta_path.append(Finder)
            """
        )
    )
    (packages / "editable.pth").write_text("import _editable; _editable.install()\n")
    names = ["by_line", "by_finder", "in_site"]
    assert run(names) == ["line", "editable", "site"] * 2


def test_pythonpath_comes_before_site_packages(environment, tmp_path):
    packages, run = environment
    (packages / "both.py").write_text("VALUE = 'site'")
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "both.py").write_text("VALUE = 'pythonpath'")
    assert run(["both"], first=[str(tmp_path / "first")]) == ["pythonpath"] * 2


def test_the_directory_of_the_script_can_be_imported_from(install, site, tmp_path):
    (tmp_path / "beside.py").write_text("VALUE = 'beside'")
    install("ask", ASK)
    (tmp_path / "program.py").write_text(PROGRAM.format(names=["beside"]))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])}
    done = subprocess.run(
        [sys.executable, tmp_path / "program.py"], env=env, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["beside"] * 2


# By value.

HEAD = "import hostkit\nfrom hostkit import Plugin\nhost = hostkit.Host()\n"
RUN = """
for isolation in ("none", "process"):
    host.register({what}, name=f"here-{{isolation}}", isolation=isolation)
    print(host.execute(f"here-{{isolation}}", {request!r}))
host.close()
"""
BY_VALUE = {
    "a plain class": ("class P:\n    def execute(self, ctx, request):\n        return request\n", "P", 1, "1"),
    "an object with state": (
        "class P:\n    def __init__(self, n):\n        self.n = n\n    def execute(self, ctx, request):\n        return self.n + request\n",
        "P(40)",
        2,
        "42",
    ),
    "globals and imports": (
        "import math\nK = 2\ndef twice(x):\n    return x * K\n"
        "class P:\n    def execute(self, ctx, request):\n        return twice(math.floor(request))\n",
        "P",
        1.5,
        "2",
    ),
    "a class made in a function": (
        "def make(n):\n    class P:\n        def execute(self, ctx, request):\n            return n + request\n    return P\n",
        "make(3)",
        4,
        "7",
    ),
    "a base class": (
        "class Base:\n    def execute(self, ctx, request):\n        return self.word()\nclass P(Base):\n    def word(self):\n        return 'base'\n",
        "P",
        None,
        "base",
    ),
    "super": (
        "class Base:\n    def execute(self, ctx, request):\n        return [request]\n"
        "class P(Base):\n    def execute(self, ctx, request):\n        return super().execute(ctx, request) + [2]\n",
        "P",
        1,
        "[1, 2]",
    ),
    "a dataclass": (
        "from dataclasses import dataclass\n@dataclass\nclass Req:\n    a: int\n    b: int = 5\n"
        "class P:\n    def execute(self, ctx, request: Req) -> int:\n        return request.a + request.b\n",
        "P",
        {"a": 1},
        "6",
    ),
    "a typed dict": (
        "from typing import TypedDict\nclass Req(TypedDict):\n    a: int\n"
        "class P:\n    def execute(self, ctx, request: Req) -> int:\n        return request['a']\n",
        "P",
        {"a": 1},
        "1",
    ),
    "pydantic models": (
        "from typing import Literal\nfrom pydantic import BaseModel, Field, computed_field, field_validator\nLIMIT = 7\n"
        "class Base(BaseModel):\n    base: int = 1\n"
        "class Req(Base):\n    op: Literal['a', 'b'] = 'a'\n    a: int\n    b: list[int] = Field(default_factory=list, max_length=3)\n"
        "    inner: 'Req | None' = None\n"
        "    @field_validator('a')\n    @classmethod\n    def small(cls, value):\n        assert value < LIMIT\n        return value\n"
        "class Resp(BaseModel):\n    r: int\n    @computed_field\n    @property\n    def double(self) -> int:\n        return self.r * 2\n"
        "class P(Plugin[Req, Resp]):\n    def execute(self, ctx, request: Req) -> Resp:\n"
        "        assert isinstance(request, Req)\n        return Resp(r=request.a + request.base + request.inner.a)\n",
        "P",
        {"a": 2, "inner": {"a": 4}},
        "{'r': 7, 'double': 14}",
    ),
    "pydantic models named by annotations alone": (
        "from pydantic import BaseModel\nclass Req(BaseModel):\n    a: int\nclass Resp(BaseModel):\n    r: int\n"
        "class P:\n    def execute(self, ctx, request: Req) -> Resp:\n        return {'r': request.a}\n",
        "P",
        {"a": 2},
        "{'r': 2}",
    ),
    "an enumeration": (
        "import enum\nfrom pydantic import BaseModel\nclass Color(enum.Enum):\n    RED = 'red'\n    BLUE = 'blue'\n    def shout(self):\n        return self.value.upper()\nclass Req(BaseModel):\n    color: Color\n"
        "class P:\n    def execute(self, ctx, request: Req) -> str:\n        return request.color.shout() if request.color is Color.RED else ''\n",
        "P",
        {"color": "red"},
        "RED",
    ),
    "a config model": (
        "from pydantic import BaseModel\nclass Config(BaseModel):\n    n: int = 3\n"
        "class P:\n    def __init__(self, config: Config = Config()):\n        self.n = config.n\n    def execute(self, ctx, request):\n        return self.n\n",
        "P",
        None,
        "3",
    ),
    "an async generator": ("class P:\n    async def execute(self, ctx, request):\n        return request\n", "P", 9, "9"),
}


@pytest.mark.parametrize("future", ["", "from __future__ import annotations\n"], ids=["", "annotations as text"])
@pytest.mark.parametrize("case", BY_VALUE)
def test_a_class_of_the_main_module_runs_isolated(case, future, host, monkeypatch):
    source, what, request, expected = BY_VALUE[case]
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    names = vars(main)
    exec(compile(future + "from hostkit import Plugin\n" + source, "<script>", "exec"), names)
    for isolation in hostkit.testing.isolations():
        host.register(eval(what, names), name=f"here-{isolation}", isolation=isolation)
        assert str(host.execute(f"here-{isolation}", request)) == expected


@pytest.mark.parametrize("case", ["a plain class", "pydantic models"])
@pytest.mark.parametrize("future", ["", "from __future__ import annotations\n"], ids=["", "annotations as text"])
def test_a_class_of_a_script_runs_isolated(case, future):
    source, what, request, expected = BY_VALUE[case]
    program = future + HEAD + source + RUN.format(what=what, request=request)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [expected] * 2
    assert done.stderr == ""


def test_a_class_of_a_test_function_runs_isolated(host):
    offset = 10

    class Local:
        def execute(self, ctx, request):
            return request + offset

    host.register(Local, name="local", isolation="process")
    assert host.execute("local", 5) == 15


def test_a_class_of_an_importable_module_is_imported_by_name(host, install):
    package = install("known", ECHO + "\nWHERE = __file__\n", group="nobody.plugins")
    module = __import__(package)
    host.register(module.P, name="byname", isolation="process")
    assert host.execute("byname", 1) == 1


def test_what_cannot_be_sent_is_a_load_error_that_says_what_to_do(host):
    class Locked:
        def execute(self, ctx, request):
            return host.config is None

    with pytest.raises(PluginLoadError, match="put its class into a module") as caught:
        host.register(Locked, name="locked", isolation="process")
    assert caught.value.kind == "import"
    host.register(Locked, name="locked", isolation="none")
    assert host.execute("locked", None) is False


def test_what_cannot_be_put_together_in_the_worker_is_a_load_error(host):
    class Bomb:
        def __reduce__(self):
            return int, ("not a number",)

        def execute(self, ctx, request): ...

    with pytest.raises(PluginLoadError, match="pickle") as caught:
        host.register(Bomb(), name="bomb", isolation="process")
    assert caught.value.kind == "import"
