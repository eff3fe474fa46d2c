"""The worker's side by itself: standard library only, and at home under older interpreters."""

from __future__ import annotations

import ast
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import hostkit
from hostkit._worker._frames import BOOT, CALL, CLOSE, END, ERROR, GOODBYE, ITEM, READY, RESULT, Assembler, parts

PACKAGE = Path(hostkit.__file__).parent
OURS = [PACKAGE / "__init__.py", PACKAGE / "_contract.py", PACKAGE / "_errors.py", *sorted((PACKAGE / "_worker").glob("*.py"))]
OLDER = [
    name for name in ("python3.9", "python3.10") if shutil.which(name) or list(Path.home().glob(f".pyenv/versions/{name[6:]}.*"))
]


@pytest.mark.parametrize("file", OURS, ids=lambda file: file.name)
def test_the_workers_files_are_in_the_syntax_of_python_3_9(file):
    ast.parse(file.read_text(), feature_version=(3, 9))


@pytest.mark.parametrize("file", OURS[1:], ids=lambda file: file.name)
def test_the_workers_files_import_the_standard_library_only(file):
    tree = ast.parse(file.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
    foreign = {name for name in names if name.partition(".")[0] not in {*sys.stdlib_module_names, "hostkit"}}
    # dill unpickles what the host itself sent, and only where a class can't be named.
    assert foreign <= {"dill"}


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
"""


class Driver:
    """The least that a host has to be."""

    def __init__(self, python, directory, entry_point):
        self.control, theirs = socket.socketpair()
        self.channel, channel = socket.socketpair()
        lifeline, self.lifeline = os.pipe()
        self.output = os.open(directory / "output", os.O_RDWR | os.O_CREAT)
        fds = (theirs.fileno(), channel.fileno(), lifeline, self.output)
        command = [python, "-I", "-S", str(PACKAGE / "_worker" / "__main__.py"), str(theirs.fileno())]
        self.process = subprocess.Popen(command, pass_fds=fds, stdin=subprocess.DEVNULL, start_new_session=True)
        path = json.loads(subprocess.check_output([python, "-I", "-S", "-c", "import sys, json; print(json.dumps(sys.path))"]))
        boot = {
            "channels": [channel.fileno()],
            "lifeline": lifeline,
            "faults": self.output,
            "log": self.output,
            "cookie": "c",
            "plugin": "p",
            "id_prefix": "i-",
            "entry_point": entry_point,
            "directory": None,
            "config": {},
            "limits": {},
            "cap": 1 << 20,
            "timeout": 30.0,
            "path": [*path, str(directory)],
            "site_dirs": [],
        }
        self.assemblers = {sock: Assembler() for sock in (self.control, self.channel)}
        for sock in self.assemblers:
            sock.settimeout(30)
        self.control.sendmsg(parts(BOOT, meta=json.dumps(boot).encode()))
        for end in (theirs, channel):
            end.close()
        os.close(lifeline)

    def receive(self, sock):
        frame = self.assemblers[sock].receive(sock.recv_into)
        assert frame is not None
        return frame

    def call(self, request):
        self.channel.sendmsg(parts(CALL, 7, json.dumps(request).encode()))
        return self.receive(self.channel)

    def close(self):
        self.control.sendmsg(parts(CLOSE, 1))
        kinds = [self.receive(self.control).kind, self.receive(self.control).kind]
        self.channel.close()
        code = self.process.wait(30)
        self.control.close()
        os.close(self.lifeline)
        os.close(self.output)
        return kinds, code


@pytest.fixture(params=[sys.executable, *OLDER], ids=["this one", *OLDER])
def python(request):
    if request.param == sys.executable:
        return sys.executable
    kept = sorted(Path.home().glob(f".pyenv/versions/{request.param[6:]}.*/bin/{request.param}"))
    return str(kept[-1]) if kept else shutil.which(request.param)


@pytest.mark.parametrize("kind", ["Plain", "Async"])
def test_a_worker_runs_under_any_interpreter_from_3_9_on(python, kind, tmp_path):
    (tmp_path / "alone.py").write_text(PLUGIN)
    driver = Driver(python, tmp_path, f"alone:{kind}")
    ready = driver.receive(driver.control)
    assert ready.kind == READY, ready.meta
    introduction = json.loads(ready.meta)
    answer = driver.call({"a": [1]})
    assert answer.kind == RESULT, answer.meta
    assert json.loads(answer.payload)["request"] == {"a": [1]}
    assert introduction["python"].startswith(".".join(map(str, json.loads(answer.payload)["python"])))
    assert driver.close() == ([RESULT, GOODBYE], 0)


def test_a_stream_runs_under_any_interpreter_from_3_9_on(python, tmp_path):
    (tmp_path / "alone.py").write_text(PLUGIN)
    driver = Driver(python, tmp_path, "alone:Stream")
    assert driver.receive(driver.control).kind == READY
    assert driver.call(2).kind == ITEM
    assert [driver.receive(driver.channel).kind for _ in range(2)] == [ITEM, END]
    driver.close()


def test_a_plugin_that_cannot_be_loaded_is_told_under_any_interpreter_from_3_9_on(python, tmp_path):
    (tmp_path / "alone.py").write_text(PLUGIN)
    driver = Driver(python, tmp_path, "alone:Plane")
    error = driver.receive(driver.control)
    assert error.kind == ERROR
    assert "did you mean Plain" in json.loads(error.meta)["text"]
    assert driver.process.wait(30) == 1
    for sock in (driver.control, driver.channel):
        sock.close()
    os.close(driver.lifeline)
    os.close(driver.output)
