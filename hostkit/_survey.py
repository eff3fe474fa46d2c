"""What is installed now, looked at once: the distributions, their files, and the digests of these."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from . import _startup
from ._bytecode import caches_of, problem_of
from ._closure import Installed, Lack, There
from ._content import CACHE, Content
from ._digests import Digest, Digests, contents
from ._errors import IntegrityError
from ._finding import Finding


@dataclass(frozen=True, slots=True)
class Standing:
    """How a plugin stands now: what is installed, what it is granted, and where it would run. ``wrong`` is why it can't be used."""

    name: str
    entry_point: str = ""
    distribution: str = ""
    directory: str = ""
    manifest: str = ""
    permissions: Mapping[str, bool | list[str]] = field(default_factory=dict)
    isolation: str = "none"
    sandbox: str = "off"
    wrong: str = ""
    duplicate: bool = False


class Survey:
    """One look at what is installed. Not thread-safe; what it finds is kept."""

    def __init__(self, *, anew: bool = False) -> None:
        _startup.look_anew()
        self.digests = Digests(anew=anew)
        self.there = There()
        self._closures: dict[tuple[str, ...], tuple[dict[str, Installed], list[Lack]]] = {}

    def closure(self, *names: str) -> tuple[dict[str, Installed], list[Lack]]:
        """Return these distributions with all that they require, and what is required in vain."""
        if names not in self._closures:
            self._closures[names] = self.there.closure(names)
        return self._closures[names]

    def save(self) -> None:
        """Keep what was found out for the next look."""
        self.digests.save()

    def digested(self, content: Content) -> tuple[dict[str, Digest], dict[str, Digest], list[Finding]]:
        """Return the digests of a content's files and data, and a finding for each that has none."""
        findings: list[Finding] = []
        files = dict(self._each(content.files, content.place, findings))
        data = {}
        for name, path in content.data.items():
            try:
                data[name] = _data_digest(path)
            except IntegrityError as error:
                findings.append(Finding("", "modified", name, str(error)))
        return files, data, findings

    def _each(self, files: Mapping[str, str], place: str, findings: list[Finding]) -> Iterator[tuple[str, Digest]]:
        for name, path in files.items():
            try:
                name.encode("utf-8")
                yield name, self.digests.of(path, place)
            except IntegrityError as error:
                findings.append(Finding("", "modified", name, str(error)))
            except UnicodeEncodeError:
                findings.append(Finding("", "extra", name, "its name can't be written down"))

    def caches(self, content: Content, changed: Iterable[str]) -> Iterator[Finding]:
        """Yield a finding for each cached ``.pyc`` that isn't its source's. Those of ``changed`` files are no news."""
        known = frozenset(changed)
        for name, path, source in _run(content):
            if source in known:
                continue
            if source not in content.files:
                yield Finding("", "sourceless-pyc", name, f"there is no {source}")
                continue
            try:
                wrong = problem_of(path, content.files[source], self.digests, content.place)
            except (IntegrityError, OSError) as error:
                wrong = str(error)
            if wrong:
                yield Finding("", "foreign-pyc", name, wrong)

    def bytecode(self, content: Content) -> dict[str, Digest]:
        """Return the digests of what was compared with its source and found the same: absolute path → digest."""
        return {path: self.digests.of(path, content.place) for _, path, _ in _run(content)}


def _run(content: Content) -> Iterator[tuple[str, str, str]]:
    """Yield the name and path of each ``.pyc`` that this Python would run, and the name of its source."""
    for name, path in sorted(content.caches.items()):
        if source := _source_of(name):
            yield name, path, source
    if sys.pycache_prefix is not None:
        for source, file in sorted(content.files.items()):
            yield from ((path, path, source) for path in caches_of(file))


def _source_of(cached: str) -> str:
    """Return the source of a ``.pyc`` that this Python would run, relative as that is; "" for another's."""
    directory, _, name = cached.rpartition("/")
    stem, dot, tag = name.removesuffix(".pyc").partition(f".{sys.implementation.cache_tag}")
    if not dot or tag not in ("", ".opt-1", ".opt-2"):
        return ""
    return f"{directory.removesuffix(CACHE)}{stem}.py"


def _data_digest(path: str) -> Digest:
    """Return the digest of a script or of data. A script's first line names this environment's interpreter, which doesn't count."""
    text = contents(path)
    if text.startswith(b"#!") and b"python" in text.partition(b"\n")[0]:
        text = b"#!python\n" + text.partition(b"\n")[2]
    return Digest(len(text), hashlib.sha256(text).hexdigest())


def source_root(installed: Installed, content: Content) -> str:
    """Return the directory that a distribution's modules lie in."""
    if not installed.editable:
        return installed.place
    top = next(iter(sorted(content.tops)), "")
    own = (path.removesuffix(name) for name, path in content.files.items() if name.partition("/")[0] == top)
    return os.path.normpath(next(own, installed.place))
