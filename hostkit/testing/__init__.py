"""For tests of plugins and of applications: install plugins on the spot, run them in every place, and notice what leaks."""

from __future__ import annotations

import gc
import os
import textwrap
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ._oracle import Told, answers_soon, hear, survives, tried

# What is heavy is imported where it is used: a worker that runs a bad plugin imports this package.

__all__ = ["FakeClock", "Told", "answers_soon", "hear", "install", "isolations", "no_leaks", "survives", "tried"]


def isolations() -> list[str]:
    """Return every word of ``isolation``: parametrize a test with it to run it in every place."""
    from hostkit._backends import BACKENDS

    return list(BACKENDS)


def install(
    directory: Path,
    name: str,
    source: str,
    *,
    group: str = "hostkit.plugins",
    attribute: str = "P",
    manifest: str | None = None,
    manifest_name: str = "plugin.toml",
    version: str = "1.0",
    requires: Iterable[str] = (),
    files: Mapping[str, str] | None = None,
) -> str:
    """Write a package with ``source`` and its distribution's metadata into ``directory``, as pip would; return the package's name.

    Put ``directory`` on ``sys.path`` to have the plugin found. ``attribute`` is the entry point's ("" for the module itself),
    ``files`` has further files of the package, and ``requires`` what the distribution says that it needs.
    """
    package = name.replace("-", "_").replace(".", "_")
    place = directory / package
    place.mkdir(parents=True, exist_ok=True)
    (place / "__init__.py").write_text(textwrap.dedent(source), encoding="utf-8")
    for file, text in (files or {}).items():
        (place / file).write_text(textwrap.dedent(text), encoding="utf-8")
    if manifest is not None:
        (place / manifest_name).write_text(textwrap.dedent(manifest), encoding="utf-8")
    info = directory / f"{package}-{version}.dist-info"
    info.mkdir(exist_ok=True)
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *(f"Requires-Dist: {text}" for text in requires), ""]
    (info / "METADATA").write_text("\n".join(metadata), encoding="utf-8")
    target = f"{package}:{attribute}" if attribute else package
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {target}\n", encoding="utf-8")
    return package


class FakeClock:
    """A clock that goes only when told: pass it as ``clock=``."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@contextmanager
def no_leaks(patience: float = 5.0) -> Iterator[None]:
    """Raise ``AssertionError`` where the block leaves descriptors, threads or workers behind. Linux only."""
    from multiprocess.process import active_children

    fds, threads, children = _fds(), set(threading.enumerate()), set(active_children())
    yield
    end = time.monotonic() + patience
    while (left := _left(fds, threads, children)) and time.monotonic() < end:
        gc.collect()
        for thread in set(threading.enumerate()) - threads:
            with suppress(RuntimeError):  # it has not quite started
                thread.join(0.05)
        for child in set(active_children()) - children:
            child.join(0.05)
    assert not left, f"left behind: {left}"


def _fds() -> dict[str, str]:
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue
    return found


def _left(fds: dict[str, str], threads: set[threading.Thread], children: set[object]) -> list[str]:
    from multiprocess.process import active_children

    new = {fd: target for fd, target in _fds().items() if fds.get(fd) != target and "/proc" not in target}
    return [
        *(f"descriptor {fd} → {target}" for fd, target in new.items()),
        *(f"thread {thread.name}" for thread in set(threading.enumerate()) - threads),
        *(f"process {child}" for child in set(active_children()) - children),
    ]
