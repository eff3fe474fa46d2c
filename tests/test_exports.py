"""What hostkit exports, and what importing it costs a plugin author."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import hostkit
from hostkit import _errors

PACKAGE = Path(hostkit.__file__).parent


def test_every_exported_name_resolves_and_the_list_is_sorted():
    assert hostkit.__all__ == sorted(hostkit.__all__)
    for name in hostkit.__all__:
        assert getattr(hostkit, name) is not None
    assert set(hostkit.__all__) <= set(dir(hostkit))


def test_type_checkers_see_what_is_exported():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    shown = {alias.asname for node in ast.walk(block) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert shown == set(hostkit.__all__)


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(hostkit, "Manager")


def test_the_tree_of_errors_in_the_docstring_is_the_real_one():
    drawn, above = {}, ["HostkitError"]
    for line in _errors.__doc__.splitlines():
        branch = re.match(r"([│ ]*)[├└]─ (.*)", line)
        if branch:
            depth = len(branch[1]) // 3
            names = [word for word in re.findall(r"[A-Z]\w+", branch[2]) if word in vars(_errors)]
            assert names, f"nothing is drawn in {line!r}"
            drawn.update(dict.fromkeys(names, above[depth]))
            above[depth + 1 :] = names[-1:]
    real = {
        name: value.__base__.__name__
        for name, value in vars(_errors).items()
        if isinstance(value, type) and issubclass(value, _errors.HostkitError) and value is not _errors.HostkitError
    }
    assert drawn == real


def test_a_timeout_is_no_os_error_which_borders_would_swallow():
    assert not issubclass(hostkit.CallTimeout, OSError)
    assert not issubclass(hostkit.RetryableError, hostkit.HostkitError)


def test_errors_have_what_their_catcher_asks_for():
    for name in hostkit.__all__:
        kind = getattr(hostkit, name)
        if isinstance(kind, type) and issubclass(kind, hostkit.CallError):
            error = kind("words", plugin="p", request_id="r", phase="queue")
            assert (str(error), error.plugin, error.request_id, error.phase) == ("words", "p", "r", "queue")
            assert kind("words").plugin == ""
    lost = hostkit.WorkerCrashed("x", signal=11, stderr_tail="t", fault_dump="d")
    assert (lost.signal, lost.exit_code, lost.stderr_tail, lost.fault_dump) == (11, None, "t", "d")


def test_every_error_is_exported():
    assert {name for name, value in vars(_errors).items() if isinstance(value, type)} <= set(hostkit.__all__)


def test_importing_the_contract_loads_the_standard_library_only_and_little_of_it():
    code = f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); from hostkit import Plugin, hookimpl; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    assert loaded <= sys.stdlib_module_names | {"hostkit", "__main__"}
    assert not loaded & {"typing", "dataclasses", "inspect", "json", "logging", "asyncio", "threading", "re"}


def test_importing_hostkit_itself_loads_none_of_its_modules():
    code = f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); import hostkit; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert {name for name in run.stdout.split() if name.startswith("hostkit")} == {"hostkit"}
