"""Which files belong to a distribution or a plugin directory: found by walking what is there.

    top-level names ─► packages: the whole tree; modules; directories that are shared: the files in them and what RECORD claims below
    metadata        ─► the whole directory, without what an installer notes there about itself
    RECORD          ─► scripts and data outside of the import path

RECORD only says which names to look at, and what it says of them is compared: nothing is believed because it stands there.
"""

from __future__ import annotations

import base64
import csv
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES

from ._digests import Digest, contents
from ._errors import IntegrityError
from ._finding import Finding
from ._names import printable

CACHE = "__pycache__"
# What an installer writes about how it installed: another machine's differ, and nothing of it runs.
_NOTES = {"RECORD", "RECORD.jws", "RECORD.p7s", "INSTALLER", "REQUESTED", "direct_url.json"}
_MODULES = (*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES, ".pyc")
_INITS = [f"__init__{suffix}" for suffix in _MODULES]
_MOST_FILES = 100_000
_DEEPEST = 64


@dataclass(slots=True)
class Content:
    """The files of one thing below ``place``: relative name → absolute path, with slashes in the former.

    ``data`` are scripts and data elsewhere in the environment, relative to its root; ``caches`` are the files in
    ``__pycache__``, ``shared`` the directories that other distributions may have a part in, ``roots`` the trees that are its own.
    """

    place: str
    files: dict[str, str] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    caches: dict[str, str] = field(default_factory=dict)
    shared: set[str] = field(default_factory=set)
    tops: set[str] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)

    def tell(self, kind: str, file: str, text: str) -> None:
        """Add a finding."""
        self.findings.append(Finding("", kind, file, text))


def of_directory(place: str) -> Content:
    """Return what a plugin directory has."""
    content = Content(place)
    _check_writers(content, place)
    _Walk(content, place).tree("")
    _check_cases(content)
    return content


def of_distribution(place: str, metadata: str, source: str, tops: Iterable[str], claims: Mapping[str, Digest | None]) -> Content:
    """Return what a distribution has whose metadata directory is called ``metadata``. Its modules are in ``source``, which is ``place``
    for all but editable installs; ``tops`` are the names that it claims there, ``claims`` what RECORD says."""
    content = Content(place)
    _check_writers(content, place)
    notes = _Walk(content, place, leave_out=_NOTES)
    (notes.tree if os.path.isdir(os.path.join(place, metadata)) else notes.file)(metadata)  # of old installers it is a file
    walk = _Walk(content, source)
    for top in sorted(tops):
        _take_top(content, walk, top, claims)
    _take_data(content, place, claims)
    _check_cases(content)
    return content


def _take_top(content: Content, walk: _Walk, top: str, claims: Mapping[str, Digest | None]) -> None:
    content.tops.add(top)
    path = os.path.join(walk.root, top)
    if os.path.isdir(path):
        if is_package(path):
            walk.tree(top)
        else:
            _take_shared(content, walk, top, claims)
        return
    if os.path.lexists(path):
        walk.file(top)
    stem = top.partition(".")[0]
    beside = f"{CACHE}/{stem}."
    if top.endswith(tuple(SOURCE_SUFFIXES)):
        for name in _names(os.path.join(walk.root, CACHE)):
            if f"{CACHE}/{name}".startswith(beside):
                content.caches[f"{CACHE}/{name}"] = os.path.join(walk.root, CACHE, name)


def _take_shared(content: Content, walk: _Walk, directory: str, claims: Mapping[str, Digest | None]) -> None:
    """Take the files that lie in a directory that may be others', too, and of those in it what is claimed."""
    content.shared.add(directory)
    claimed = {claim[len(directory) + 1 :].partition("/")[0] for claim in claims if claim.startswith(f"{directory}/")}
    _check_writers(content, os.path.join(walk.root, directory))
    for name in _names(os.path.join(walk.root, directory)):
        below = f"{directory}/{name}"
        path = os.path.join(walk.root, below)
        if not os.path.isdir(path):
            walk.file(below)
        elif name == CACHE:
            walk.caches(below)
        elif name in claimed and is_package(path):
            walk.tree(below)
        elif name in claimed:
            _take_shared(content, walk, below, claims)


def _take_data(content: Content, place: str, claims: Iterable[str]) -> None:
    root = _environment_of(place)
    for claim in claims:
        path = os.path.normpath(os.path.join(place, claim))
        if not claim.startswith(("../", "/")) or not os.path.lexists(path):
            continue
        relative = os.path.relpath(os.path.realpath(path), os.path.realpath(root))
        if relative.startswith(".."):
            content.tell("escape", claim, f"RECORD claims a file outside of {root}")
        else:
            content.data[relative.replace(os.sep, "/")] = path


def _environment_of(place: str) -> str:
    """Return the directory that holds an environment's lib, bin and share."""
    above, python = os.path.split(os.path.dirname(place))
    root, lib = os.path.split(above)
    return root if python.startswith("python") and lib in ("lib", "lib64") else sys.prefix


class _Walk:
    """Walks trees below one root, and adds what it finds to a content."""

    def __init__(self, content: Content, root: str, *, leave_out: Iterable[str] = ()) -> None:
        self.root = root
        self._content = content
        self._real = os.path.realpath(root)
        self._leave_out = frozenset(leave_out)
        self._seen: set[tuple[int, int]] = set()

    def tree(self, top: str, depth: int = 0) -> None:
        """Take everything below ``top``."""
        directory = os.path.join(self.root, top) if top else self.root
        if not self._may_be_taken(directory, top) or not self._is_new(directory):
            return
        if depth > _DEEPEST:
            raise IntegrityError(f"{printable(directory, 1000)} is nested deeper than {_DEEPEST} levels")
        for name in _names(directory):
            below = f"{top}/{name}" if top else name
            if name in self._leave_out:
                continue
            if not os.path.isdir(os.path.join(directory, name)):
                self.file(below)
            elif name == CACHE:
                self.caches(below)
            else:
                self.tree(below, depth + 1)

    def file(self, relative: str) -> None:
        """Take one file."""
        path = os.path.join(self.root, relative)
        if self._may_be_taken(path, relative):
            self._content.files[relative] = path
        if len(self._content.files) > _MOST_FILES:
            raise IntegrityError(f"{printable(self.root, 1000)} has more than {_MOST_FILES} files that belong to one distribution")

    def caches(self, directory: str) -> None:
        """Take what Python keeps in a ``__pycache__``; whatever else is in it is a file like any other."""
        place = os.path.join(self.root, directory)
        if not self._may_be_taken(place, directory):
            return
        for name in _names(place):
            below, path = f"{directory}/{name}", os.path.join(place, name)
            if not name.endswith(".pyc"):
                self.file(below)
            elif self._may_be_taken(path, below):
                self._content.caches[below] = path

    def _is_new(self, directory: str) -> bool:
        found = os.stat(directory)
        identity = (found.st_dev, found.st_ino)
        if identity in self._seen:
            return False  # a link that leads back up
        self._seen.add(identity)
        return True

    def _may_be_taken(self, path: str, relative: str) -> bool:
        """Whether it lies inside, and say who may write it."""
        mode = _check_writers(self._content, path)
        if not stat.S_ISLNK(mode):
            return True  # what is above it was looked at
        real = os.path.realpath(path)
        if real == self._real or real.startswith(f"{self._real}{os.sep}"):
            return True
        self._content.tell("escape", relative, f"it is a link that leads out, to {real}")
        return False


def is_package(path: str) -> bool:
    """Whether a directory is a package that one distribution has for itself."""
    return any(os.path.lexists(os.path.join(path, name)) for name in _INITS)


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise IntegrityError(f"{printable(directory, 1000)} can't be read: {error.strerror}") from None


def _check_writers(content: Content, path: str) -> int:
    try:
        mode = os.lstat(path).st_mode
    except OSError:  # whoever reads it says why it can't be
        return 0
    if mode & stat.S_IWOTH and not stat.S_ISLNK(mode) and os.name == "posix":
        content.tell("world-writable", path, "everybody may write it")
    return mode


def _check_cases(content: Content) -> None:
    folded: dict[str, str] = {}
    for name in sorted(content.files):
        other = folded.setdefault(name.casefold(), name)
        if other != name:
            content.tell("case-collision", name, f"it differs from {other} in upper and lower case only")


def recorded(metadata: str) -> dict[str, Digest | None]:
    """Return what a distribution's RECORD claims: name → digest, None where it has none. Empty where there is no RECORD."""
    path = os.path.join(metadata, "RECORD")
    if not os.path.lexists(path):
        return {}
    text = contents(path).decode("utf-8", "surrogateescape")
    found: dict[str, Digest | None] = {}
    try:
        for row in csv.reader(text.splitlines()):
            if row and row[0] and "\0" not in row[0]:
                found[row[0].replace("\\", "/")] = _claimed(row)
    except csv.Error as error:
        raise IntegrityError(f"{printable(path, 1000)} can't be parsed: {error}") from None
    return found


def _claimed(row: list[str]) -> Digest | None:
    if len(row) < 3 or not row[1].startswith("sha256=") or not row[2].isdigit():
        return None
    encoded = row[1].removeprefix("sha256=")
    try:
        return Digest(int(row[2]), base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).hex())
    except ValueError:
        return None


def tops_of(metadata: str, claims: Iterable[str], entry_modules: Iterable[str]) -> set[str]:
    """Return the names of files and directories on the import path that a distribution claims to have."""
    own = os.path.basename(metadata)
    claimed = {claim.partition("/")[0] for claim in claims if not claim.startswith(("../", "/", "./"))}
    listed = os.path.join(metadata, "top_level.txt")
    if os.path.lexists(listed):
        claimed.update(_existing(os.path.dirname(metadata), contents(listed).decode("utf-8", "replace").split()))
    claimed.update(_existing(os.path.dirname(metadata), entry_modules))
    return claimed - {own, CACHE, "", ".", ".."}


def _existing(place: str, modules: Iterable[str]) -> Iterator[str]:
    """Yield what there is in a directory that would be imported as one of these."""
    wanted = {module.partition(".")[0] for module in modules if "/" not in module}
    for name in _names(place):
        if name in wanted or (name.partition(".")[0] in wanted and name.endswith(_MODULES)):
            yield name
