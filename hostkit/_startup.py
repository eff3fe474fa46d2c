"""What concerns every plugin: what Python runs when it starts, and what would be imported in the place of something else.

The first are ``.pth`` files, ``sitecustomize`` and ``usercustomize``: code that no plugin names and no import shows. The second are
modules that stand earlier on the import path than the standard library's, or a distribution's, of the same name.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, ModuleSpec

from ._bytecode import caches_of, problem_of
from ._content import Content, is_package
from ._digests import Digests
from ._errors import IntegrityError
from ._finding import Finding

_MODULES = (*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES, ".pyc")
_CUSTOM = ("sitecustomize", "usercustomize")
_STDLIB = os.path.realpath(os.path.dirname(os.__file__))
_STDLIB_ZIP = os.path.join(os.path.dirname(_STDLIB), f"python{sys.version_info[0]}{sys.version_info[1]}.zip")
_STDLIB_PLACES = (_STDLIB, os.path.join(_STDLIB, "lib-dynload"), _STDLIB_ZIP)
# The standard library's own tests: projects have a package of that name, and nobody imports it for the other one.
_NOT_MISSED = {"test"}


def startup(path: Sequence[str], digests: Digests) -> tuple[dict[str, dict[str, str]], list[Finding]]:
    """Return what runs in every interpreter, file name → digest → where; and a finding for what can't be read."""
    found: dict[str, dict[str, str]] = {}
    findings: list[Finding] = []
    for place in path:
        for name in _names(place):
            relative = _starting(place, name)
            if relative is None:
                continue
            file = os.path.join(place, relative)
            try:
                found.setdefault(relative, {}).setdefault(digests.of(file, place).sha256, file)
                findings += _cached(file, digests, place)
            except IntegrityError as error:
                findings.append(Finding("", _kind(relative), file, str(error)))
    return found, findings


def _cached(source: str, digests: Digests, place: str) -> Iterator[Finding]:
    for cached in caches_of(source):
        if wrong := problem_of(cached, source, digests, place):
            yield Finding("", "foreign-pyc", cached, wrong)


def _starting(place: str, name: str) -> str | None:
    """Return the file that runs because of this name, relative to the place; None where it doesn't."""
    if name.endswith(".pth") and not _is_stdlib(place):
        return name
    if name.partition(".")[0] not in _CUSTOM:
        return None
    if name.endswith(_MODULES):
        return name
    inside = (f"{name}/__init__{suffix}" for suffix in _MODULES)
    return next((each for each in inside if os.path.lexists(os.path.join(place, each))), None)


def startup_findings(path: Sequence[str], digests: Digests, locked: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """Yield a finding for everything that runs in every interpreter and isn't locked."""
    found, findings = startup(path, digests)
    yield from findings
    for relative, places in sorted(found.items()):
        for digest, file in places.items():
            if digest not in locked.get(relative, ()):
                was = "is not what was locked" if relative in locked else "is not in the lock"
                yield Finding("", _kind(relative), file, f"it {was}, and Python runs it whenever it starts")


def _kind(relative: str) -> str:
    return "pth" if relative.endswith(".pth") else "sitecustomize"


def stdlib_shadows(path: Sequence[str]) -> Iterator[Finding]:
    """Yield a finding for every module that stands before the standard library's of the same name."""
    for place in path:
        if os.path.realpath(place) == _STDLIB:
            return
        for name in _packed(place) if os.path.isfile(place) else _modules(place):
            top = name.partition(".")[0]
            if top in sys.stdlib_module_names - _NOT_MISSED:
                yield Finding("", "shadow", os.path.join(place, name), f"it stands before the standard library's {top}")


def _modules(place: str) -> Iterator[str]:
    return (name for name in _names(place) if _is_module(os.path.join(place, name)))


def _packed(archive: str) -> list[str]:
    import zipfile  # 10 ms, for those who have one on their path

    try:
        with zipfile.ZipFile(archive) as packed:
            return sorted({name.partition("/")[0] for name in packed.namelist() if name.endswith(_MODULES)})
    except (OSError, zipfile.BadZipFile):  # the import system can't read it, either
        return []


def shadows(content: Content, editable_root: str) -> Iterator[Finding]:
    """Yield a finding for every top-level name of a distribution that an import finds elsewhere."""
    # Whatever is imported first of a distribution lies right below the import path, or is a package's __init__.
    own = {os.path.realpath(file) for name, file in content.files.items() if name.count("/") < 2}
    for top in sorted(content.tops):
        name = top.partition(".")[0]
        path = os.path.join(editable_root, top)
        if not name.isidentifier() or not _is_importable(path):
            continue
        spec = _found(name)
        if spec is None:
            continue
        origin = os.path.realpath(spec.origin) if spec.origin and spec.has_location else spec.origin
        if top in content.shared:
            if origin is not None and spec.has_location and origin not in own:
                yield Finding("", "shadow", origin, f"it hides the directory {top} that several distributions share")
        elif origin not in own:
            where = origin or ", ".join(map(str, spec.submodule_search_locations or ()))
            yield Finding("", "shadow", where, f"it would be imported in the place of {path}")


def _found(name: str) -> ModuleSpec | None:
    # Not by importlib.util.find_spec, which believes what a module that is loaded says of itself.
    for finder in sys.meta_path:
        find: Callable[..., ModuleSpec | None] | None = getattr(finder, "find_spec", None)
        try:
            spec = None if find is None else find(name, None)
        except Exception:  # a foreign finder: whoever imports it will see why
            spec = None
        if spec is not None:
            return spec
    return None


def look_anew() -> None:
    """Let the import system see what was installed a moment ago."""
    importlib.invalidate_caches()


def _is_importable(path: str) -> bool:
    return os.path.isdir(path) or path.endswith(_MODULES)


def _is_module(path: str) -> bool:
    return is_package(path) if os.path.isdir(path) else path.endswith(_MODULES)


def _is_stdlib(place: str) -> bool:
    return os.path.realpath(place) in _STDLIB_PLACES


def _names(place: str) -> list[str]:
    try:
        return sorted(os.listdir(place))
    except OSError:  # not there, or an archive
        return []
