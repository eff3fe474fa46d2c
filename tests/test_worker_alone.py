"""The worker's side by itself: standard library only, and at home under older interpreters."""

from __future__ import annotations

import ast
import json
import os
import select
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import hostkit
from hostkit._worker._frames import (
    BOOT,
    CALL,
    CLOSE,
    END,
    ERROR,
    GOODBYE,
    HEALTH,
    INFO,
    ITEM,
    READY,
    RESULT,
    Assembler,
    notes_size,
    packed,
)

PACKAGE = Path(hostkit.__file__).parent
OURS = [PACKAGE / "__init__.py", PACKAGE / "_contract.py", PACKAGE / "_errors.py", *sorted((PACKAGE / "_worker").glob("*.py"))]


@pytest.mark.parametrize("file", OURS, ids=lambda file: file.name)
def test_the_workers_files_are_in_the_syntax_of_python_3_9(file):
    ast.parse(file.read_text(), feature_version=(3, 9))


@pytest.mark.parametrize("file", OURS[1:], ids=lambda file: file.name)
def test_the_workers_files_import_the_standard_library_only(file):
    tree = ast.parse(file.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
    foreign = {name for name in names if name.partition(".")[0] not in {*sys.stdlib_module_names, "hostkit"}}
    # dill unpickles what the host itself sent, and only where a class can't be named; numpy is for whoever was given an array.
    assert foreign <= ({"numpy"} if file.name == "_arrays.py" else {"dill"})


PLUGIN = """
import sys

class Plain:
    def execute(self, ctx, request):
        return {"python": list(sys.version_info[:2]), "request": request}

class Async:
    async def execute(self, ctx, request):
        return {"python": list(sys.version_info[:2]), "request": request}

class Stream:
    def execute(self, ctx, request):
        for n in range(request):
            yield n

class AsyncStream:
    async def execute(self, ctx, request):
        for n in range(request):
            yield n
"""

# Annotations that need looking up, in the words of Python 3.9.
TYPED = """
from __future__ import annotations

import dataclasses
import datetime
import enum
import logging
import uuid
from typing import Dict, List, Literal, Optional, Tuple, TypedDict, Union

from hostkit import ExecutionContext, HealthStatus, Plugin, PluginInfo, Status

class Color(enum.Enum):
    RED = "red"

class Extra(TypedDict, total=False):
    note: str

@dataclasses.dataclass
class Request:
    when: datetime.datetime
    color: Color
    id: uuid.UUID
    pairs: List[Tuple[int, str]]
    word: Literal["a", "b"] = "a"
    count: Optional[int] = None
    either: Union[int, str] = 0
    by_number: Dict[int, float] = dataclasses.field(default_factory=dict)
    inner: Optional[Request] = None
    extra: Optional[Extra] = None

@dataclasses.dataclass
class Response:
    year: int
    color: Color
    depth: int

@dataclasses.dataclass
class Config:
    precision: int

class Typed(Plugin[Request, Response]):
    def __init__(self, config: Config):
        self.precision = config.precision

    def execute(self, ctx: ExecutionContext, request: Request) -> Response:
        print("printed by", ctx.request_id)
        ctx.logger.warning("logged %d", self.precision)
        depth, at = 0, request
        while at is not None:
            depth, at = depth + 1, at.inner
        if request.word == "b":
            try:
                raise KeyError("first")
            except KeyError as error:
                raise LookupError("second") from error
        return Response(request.when.year, request.color, depth)

    async def health(self) -> HealthStatus:
        return HealthStatus(Status.DEGRADED, "precision %d" % self.precision)

    def info(self):
        return PluginInfo("typed", capabilities=["a"])

class Newer:
    def execute(self, ctx, request: int | str):
        return request
"""
REQUEST = {
    "when": "2024-01-02T03:04:05Z",
    "color": "red",
    "id": "00000000-0000-0000-0000-000000000005",
    "pairs": [[1, "x"]],
    "either": "y",
    "by_number": {"1": 1.5},
    "inner": {"when": "2024-01-02", "color": "red", "id": "00000000-0000-0000-0000-000000000005", "pairs": []},
    "extra": {"note": "n"},
}


class Driver:
    """The least that a host has to be."""

    def __init__(self, python, directory, entry_point, config=None):
        self.control, theirs = socket.socketpair()
        calls, self.calls = os.pipe()
        self.answers, answers = os.pipe()
        lifeline, self.lifeline = os.pipe()
        self.output = os.open(directory / "output", os.O_RDWR | os.O_CREAT)
        self.faults = os.open(directory / "faults", os.O_RDWR | os.O_CREAT)
        os.ftruncate(self.faults, notes_size(1))
        fds = (theirs.fileno(), calls, answers, lifeline, self.output, self.faults)
        command = [python, "-I", "-S", str(PACKAGE / "_worker" / "__main__.py"), str(theirs.fileno())]
        self.process = subprocess.Popen(command, pass_fds=fds, stdin=subprocess.DEVNULL, start_new_session=True)
        path = json.loads(subprocess.check_output([python, "-I", "-S", "-c", "import sys, json; print(json.dumps(sys.path))"]))
        boot = {
            "channels": [(calls, answers)],
            "lifeline": lifeline,
            "faults": self.faults,
            "log": self.output,
            "cookie": "c",
            "plugin": "p",
            "id_prefix": "i-",
            "entry_point": entry_point,
            "directory": None,
            "config": config or {},
            "limits": {},
            "sandbox": None,
            "cap": 1 << 20,
            "buffers": 1 << 20,
            "timeout": 30.0,
            "path": [*path, str(directory)],
            "site_dirs": [],
        }
        self.assemblers = {end: Assembler() for end in (self.control.fileno(), self.answers)}
        self.control.sendall(packed(BOOT, meta=json.dumps(boot).encode()))
        theirs.close()
        for fd in (calls, answers, lifeline):
            os.close(fd)

    def told(self):
        """The next frame on the control socket."""
        return self._receive(self.control.fileno())

    def answer(self):
        """The next frame on the channel."""
        return self._receive(self.answers)

    def _receive(self, fd):
        frame = self.assemblers[fd].receive(lambda most: os.read(fd, most) if select.select([fd], [], [], 30)[0] else b"")
        assert frame is not None
        return frame

    def call(self, request):
        os.write(self.calls, packed(CALL, 7, json.dumps(request).encode()))
        return self.answer()

    def close(self):
        self.control.sendall(packed(CLOSE, 1))
        kinds = [self.told().kind, self.told().kind]
        return kinds, self.abandon()

    def abandon(self):
        """Close this side; the worker, if it still runs, ends by itself."""
        os.close(self.calls)
        os.close(self.answers)
        code = self.process.wait(30)
        self.control.close()
        os.close(self.lifeline)
        os.close(self.output)
        os.close(self.faults)
        return code


def interpreter(name):
    """The path of an interpreter that works: pyenv puts names on PATH that do nothing but complain."""
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for candidate in (shutil.which(name), *sorted(kept.glob(f"{name.removeprefix('python')}.*/bin/{name}"), reverse=True)):
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return str(candidate)
    pytest.skip(f"no {name} on this machine, neither on PATH nor among pyenv's")


@pytest.fixture(scope="module", params=["this one", "python3.9", "python3.10"])
def python(request):
    return sys.executable if request.param == "this one" else interpreter(request.param)


@pytest.mark.parametrize("kind", ["Plain", "Async"])
def test_a_worker_runs_under_any_interpreter_from_3_9_on(python, kind, tmp_path):
    (tmp_path / "alone.py").write_text(PLUGIN)
    driver = Driver(python, tmp_path, f"alone:{kind}")
    ready = driver.told()
    assert ready.kind == READY, ready.meta
    introduction = json.loads(ready.meta)
    answer = driver.call({"a": [1]})
    assert answer.kind == RESULT, answer.meta
    assert json.loads(answer.payload)["request"] == {"a": [1]}
    assert introduction["python"].startswith(".".join(map(str, json.loads(answer.payload)["python"])))
    assert driver.close() == ([RESULT, GOODBYE], 0)


@pytest.mark.parametrize("kind", ["Stream", "AsyncStream"])
def test_a_stream_runs_under_any_interpreter_from_3_9_on(python, kind, tmp_path):
    (tmp_path / "alone.py").write_text(PLUGIN)
    driver = Driver(python, tmp_path, f"alone:{kind}")
    assert driver.told().kind == READY
    assert driver.call(2).kind == ITEM
    assert [driver.answer().kind for _ in range(2)] == [ITEM, END]
    driver.close()


def test_types_config_errors_and_questions_work_under_any_interpreter_from_3_9_on(python, tmp_path):
    (tmp_path / "alone.py").write_text(TYPED)
    driver = Driver(python, tmp_path, "alone:Typed", {"precision": 4})
    ready = driver.told()
    assert ready.kind == READY, ready.meta
    answer = driver.call(REQUEST)
    assert answer.kind == RESULT, answer.meta
    assert json.loads(answer.payload) == {"year": 2024, "color": "red", "depth": 2}
    wrong = driver.call({**REQUEST, "colour": 1, "pairs": [[1, 2]]})
    assert [(row["path"], row["expected"]) for row in json.loads(wrong.meta)["rows"]] == [
        ("pairs.0.1", "text"),
        ("colour", "a known field (did you mean 'color'?)"),
    ]
    failed = json.loads(driver.call({**REQUEST, "word": "b"}).meta)
    assert failed["type"] == "LookupError"
    assert failed["traceback"].index("KeyError: 'first'") < failed["traceback"].index("LookupError: second")
    assert "hostkit/" not in failed["traceback"]
    driver.control.sendall(packed(HEALTH, 2))
    assert json.loads(driver.told().payload)["message"] == "precision 4"
    driver.control.sendall(packed(INFO, 3))
    assert json.loads(driver.told().payload)["capabilities"] == ["a"]
    assert driver.close() == ([RESULT, GOODBYE], 0)
    told = [json.loads(line) for line in (tmp_path / "output").read_bytes().splitlines()]
    assert {"stream": "stdout", "text": "printed by i-7", "request_id": "i-7"} in told
    assert {"level": 30, "logger": "hostkit.plugin.p", "text": "logged 4", "request_id": "i-7"} in told


def test_an_annotation_in_words_that_came_later_is_told(tmp_path):
    (tmp_path / "alone.py").write_text(TYPED)
    driver = Driver(interpreter("python3.9"), tmp_path, "alone:Newer")
    error = json.loads(driver.told().meta)
    assert error["kind"] == "contract"
    assert "an annotation of execute can't be resolved: int | str: TypeError" in error["text"]
    driver.abandon()


def test_the_workers_files_compile_under_any_interpreter_from_3_9_on(python):
    code = "import sys; [compile(open(name, encoding='utf-8').read(), name, 'exec') for name in sys.argv[1:]]"
    subprocess.run([python, "-W", "error", "-I", "-S", "-c", code, *map(str, OURS)], check=True, timeout=60)


def test_a_plugin_that_cannot_be_loaded_is_told_under_any_interpreter_from_3_9_on(python, tmp_path):
    (tmp_path / "alone.py").write_text(PLUGIN)
    driver = Driver(python, tmp_path, "alone:Plane")
    error = driver.told()
    assert error.kind == ERROR
    assert "did you mean Plain" in json.loads(error.meta)["text"]
    assert driver.abandon() == 1
