"""Real libraries whose files are verified: pydantic and numpy, with their extension modules and the libraries that those need."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
from dataclasses import replace

import pytest

from hostkit import IntegrityError, _opener

PYDANTIC = ("pydantic", "pydantic-core", "typing-extensions", "annotated-types", "typing-inspection")

SUM = """
from pydantic import BaseModel

class Terms(BaseModel):
    a: float
    b: float

class Sum(BaseModel):
    result: float
    mapped: list[str]

class P:
    def execute(self, ctx, request: Terms) -> Sum:
        with open("/proc/self/maps") as file:
            mapped = {line.split(maxsplit=5)[5].strip() for line in file if len(line.split()) > 5}
        return Sum(result=request.a + request.b, mapped=sorted(mapped))
"""

PRODUCT = """
import numpy as np

class P:
    def execute(self, ctx, request):
        with open("/proc/self/maps") as file:
            mapped = {line.split(maxsplit=5)[5].strip() for line in file if len(line.split()) > 5}
        square = np.full((60, 60), 2.0)
        return {
            "result": float((square @ square)[0, 0]),
            "inverse": float(np.linalg.inv(np.eye(3) * 4)[0, 0]),
            "random": len(np.random.default_rng(1).normal(size=5)),
            "file": np._core._multiarray_umath.__file__,
            "mapped": sorted(mapped),
        }
"""


@functools.cache
def installed(*names):
    """Size and sha256 of all files of these distributions, or a skipped test where one isn't there."""
    found = {}
    for name in names:
        try:
            files = importlib.metadata.distribution(name).files or []
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"{name} is not installed")
        for file in files:
            path = os.path.normpath(str(file.locate()))
            if not path.endswith(".pyc") and os.path.isfile(path):
                with open(path, "rb") as opened:
                    data = opened.read()
                found[path] = (len(data), hashlib.sha256(data).hexdigest())
    return found


@pytest.fixture
def host_with(install, new_host, site, monkeypatch):
    """Install the plugin "p" and make a host for it, whose workers may import its file and these: ``host_with(source, table)``."""
    plain = _opener.decide

    def make(source, table):
        install("p", source)
        file = site / "p" / "__init__.py"
        listed = {**table, str(file): (file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest())}

        def decide(*args, **options):
            decided = plain(*args, **options)
            return replace(decided, settings=replace(decided.settings, verified=listed))

        monkeypatch.setattr(_opener, "decide", decide)
        return new_host(config={"plugins": {"p": {"isolation": "process"}}})

    return make


def from_packages(mapped):
    return [path for path in mapped if "-packages" in path]


def in_memory(mapped, name):
    return any(path.startswith("/memfd:") and name in path for path in mapped)


def test_a_plugin_with_pydantic_runs_from_verified_bytes(host_with):
    answer = host_with(SUM, installed(*PYDANTIC)).execute("p", {"a": 1, "b": 2})
    assert answer["result"] == 3.0
    assert from_packages(answer["mapped"]) == []
    assert in_memory(answer["mapped"], "_pydantic_core")


def test_a_plugin_with_numpy_runs_from_verified_bytes_down_to_the_libraries_that_it_brings(host_with):
    table = installed("numpy")
    answer = host_with(PRODUCT, table).execute("p", None)
    assert (answer["result"], answer["inverse"], answer["random"]) == (240.0, 0.25, 5)
    assert answer["file"] in table
    assert from_packages(answer["mapped"]) == []
    assert in_memory(answer["mapped"], "_multiarray_umath")
    libraries = [path for path in table if "/numpy.libs/" in path]
    assert all(in_memory(answer["mapped"], path.rpartition("/")[2][:40]) for path in libraries)


@pytest.mark.parametrize(
    ("source", "names", "part"),
    [
        (SUM, PYDANTIC, "/_pydantic_core."),
        (PRODUCT, ("numpy",), "/_multiarray_umath."),
        (PRODUCT, ("numpy",), "openblas"),
        (PRODUCT, ("numpy",), "gfortran"),
    ],
    ids=["pydantic", "numpy", "openblas", "gfortran"],
)
@pytest.mark.parametrize("listed", [True, False], ids=["other bytes", "not listed"])
def test_native_code_of_other_bytes_or_that_is_not_listed_is_an_integrity_error(host_with, source, names, part, listed):
    table = dict(installed(*names))
    path = next((path for path in table if part in path and ".so" in path), None)
    if path is None:
        pytest.skip("this build of it has no such file")
    size, _ = table.pop(path)
    if listed:
        table[path] = (size, "0" * 64)
    with pytest.raises(IntegrityError) as caught:
        host_with(source, table).load("p")
    assert path in str(caught.value)
    assert ("isn't what was verified: expected sha256 000000000000…" if listed else "isn't among the verified files") in str(
        caught.value
    )


def test_a_package_that_the_table_lacks_altogether_is_an_integrity_error(host_with):
    table = {path: row for path, row in installed(*PYDANTIC).items() if "typing_extensions" not in path}
    with pytest.raises(IntegrityError, match=r"typing_extensions.py isn't among the verified files"):
        host_with(SUM, table).load("p")
