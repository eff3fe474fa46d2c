"""A directory like a site-packages, with plugins and other distributions, as they are after ``pip install``."""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hostkit import testing

PLAIN = """
    class P:
        def execute(self, ctx, request):
            return {"result": request["a"] + request["b"]}
"""
PYDANTIC = """
    from pydantic import BaseModel

    from hostkit import Plugin


    class Request(BaseModel):
        operation: str
        a: float
        b: float


    class Response(BaseModel):
        result: float


    class P(Plugin[Request, Response]):
        def execute(self, ctx, request: Request) -> Response:
            return Response(result=request.a + request.b)
"""


@contextmanager
def site(plugins: dict[str, str], others: int = 0) -> Iterator[Path]:
    """Install plugins of these sources, and ``others`` distributions without one, at the head of ``sys.path``."""
    with tempfile.TemporaryDirectory(prefix="hostkit-benchmarks-") as name:
        place = Path(name)
        for plugin, source in plugins.items():
            testing.install(place, plugin, source)
        for number in range(others):
            _install_other(place, f"other_{number:03}", with_script=number % 3 == 0)
        sys.path.insert(0, name)
        importlib.invalidate_caches()
        try:
            yield place
        finally:
            sys.path.remove(name)


def _install_other(place: Path, name: str, *, with_script: bool) -> None:
    package, info = place / name, place / f"{name}-1.0.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").touch()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    (info / "RECORD").write_text(f"{name}/__init__.py,,\n", encoding="utf-8")
    if with_script:
        (info / "entry_points.txt").write_text(f"[console_scripts]\n{name} = {name}:main\n", encoding="utf-8")
