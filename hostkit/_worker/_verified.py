"""Import only what was verified: outside the interpreter's own library and hostkit's own files, the files of a table, by their bytes.

import ─► Finder: where is it, by the table alone ─► loader: bytes read once, size and sha256 compared, those very bytes compiled

Two things stand behind each other. The finder takes the place of the path-based one on ``sys.meta_path``. And the interpreter's
loaders of files read only what is in the table, so that a library that goes past the finder, with ``spec_from_file_location``,
``runpy``, ``pkgutil`` or a finder of its own, gets verified bytes or an error as well. Bytecode is read from a file only where the
table has the file beside its source, for the host has compared the two then; none is written. Nothing is imported from archives, no
.pth file is run.

Code that reads a file itself and executes it is the plugin's own doing. It can undo all this, too: what is not verified is kept
from running by accident here, and from being swapped in from outside, not from a plugin that was verified and means harm.
"""

from __future__ import annotations

import io
import os
import sys

from ._output import _ImportWatch
from ._verified_files import Files, not_listed, unverified

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

    from ._verified_native import Sealed

_bootstrap: Any = sys.modules["_frozen_importlib"]
_external: Any = sys.modules["_frozen_importlib_external"]

# Where the system keeps libraries, which are trusted as the interpreter is that needs them itself.
_SYSTEM = ("/lib/", "/lib64/", "/usr/lib/", "/usr/lib64/")


def import_verified_only(said: dict[str, Any]) -> None:
    """Import nothing else from now on. The interpreter must have been started with ``-I -S``: its path is its own library then."""
    hostkit = sys.modules["hostkit"].__path__[0]
    files = Files(said["verified"]["files"], [*sys.path, hostkit])
    sys.dont_write_bytecode = True
    guards = _Guards(files)
    guards.guard_loaders()
    guards.guard_resources()
    guards.guard_archives()
    finder = Finder(files)
    sys.meta_path[:] = [finder if found is _external.PathFinder else found for found in sys.meta_path]
    sys.path[:] = said["path"]
    if said["directory"]:
        sys.path.append(said["directory"])
    _watch({"ctypes": guards.guard_ctypes, "site": guards.guard_site})


class Finder:
    """What takes the path-based finder's place."""

    def __init__(self, files: Files) -> None:
        self._files = files
        *kinds, _ = _external._get_supported_file_loaders()  # the last one is for bytecode
        self._kinds = [(suffix, loader) for loader, suffixes in kinds for suffix in suffixes]

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> Any:  # noqa: ARG002 - the import system's call
        """Return a listed module's spec. Raises ``ModuleNotFoundError`` for an import of what is there and isn't listed."""
        spec = self._spec(name, path)
        if spec is not None and spec.loader is not None:
            return spec
        # A directory of that name, with listed files in it, doesn't count beside a module.
        there = _external.PathFinder.find_spec(name, path)
        if there is not None and there.has_location:
            # Only whoever imports it wants it. Others ask what there is, to do without.
            if sys._getframe(2).f_code.co_name == "_find_and_load_unlocked":
                raise unverified(f"{name}: {not_listed(there.origin)}", name, there.origin, ModuleNotFoundError)
            return None
        if spec is not None:
            portions = spec.submodule_search_locations
            spec.submodule_search_locations = _external._NamespacePath(name, portions, self._spec)
        return spec

    def _spec(self, name: str, path: Any) -> Any:
        portions: list[str] = []
        for entry in sys.path if path is None else path:
            spec = self._in(name, entry) if isinstance(entry, str) and entry else None
            if spec is not None and spec.loader is not None:
                return spec
            if spec is not None:
                portions += spec.submodule_search_locations
        if not portions:
            return None
        spec = _bootstrap.ModuleSpec(name, None)
        spec.submodule_search_locations = portions
        return spec

    def _in(self, name: str, entry: str) -> Any:
        if self._files.trusts(entry):
            return _external.PathFinder.find_spec(name, [entry])
        tail = name.rpartition(".")[2]
        for directory in self._files.spellings(entry):
            place = f"{directory}/{tail}"
            if place in self._files.directories:
                for suffix, loader in self._kinds:
                    file = f"{place}/__init__{suffix}"
                    if file in self._files:
                        return _external.spec_from_file_location(
                            name, file, loader=loader(name, file), submodule_search_locations=[place]
                        )
            for suffix, loader in self._kinds:
                if place + suffix in self._files:
                    return _external.spec_from_file_location(name, place + suffix, loader=loader(name, place + suffix))
            if place in self._files.directories:
                spec = _bootstrap.ModuleSpec(name, None)
                spec.submodule_search_locations = [place]
                return spec
        return None

    def find_distributions(self, context: Any = None) -> Any:
        """Yield distributions for ``importlib.metadata``."""
        from importlib.metadata import DistributionFinder

        from ._verified_data import distributions

        return distributions(self._files, DistributionFinder.Context() if context is None else context)


class _Guards:
    """What is put before the interpreter's own ways to read code from files."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._native: Sealed | None = None

    def guard_loaders(self) -> None:
        """Let loaders of source, bytecode and extension modules take verified bytes alone, whoever made them."""
        files = self._files
        read, code, bytecode = (
            _external.FileLoader.get_data,
            _external.SourceLoader.get_code,
            _external.SourcelessFileLoader.get_code,
        )
        made, opened = _external.ExtensionFileLoader.create_module, io.open_code

        def get_data(loader: Any, path: str) -> Any:
            return read(loader, path) if files.trusts(str(path)) else files.data(str(path))

        def get_code(loader: Any, name: str) -> Any:
            path = str(loader.get_filename(name))
            return code(loader, name) if files.trusts(path) else self._code(loader, name, path)

        def get_bytecode(loader: Any, name: str) -> Any:
            path = str(loader.get_filename(name))
            if files.trusts(path):
                return bytecode(loader, name)
            raise unverified(f"{name}: {path} is bytecode without its source, which nobody can verify", name, path)

        def create_module(loader: Any, spec: Any) -> Any:
            return made(loader, spec) if files.trusts(spec.origin) else self._extension(spec)

        def open_code(path: str) -> Any:
            return opened(path) if files.trusts(path) else io.BytesIO(files.data(path))

        _external.FileLoader.get_data = get_data
        _external.SourceLoader.get_code = get_code
        _external.SourcelessFileLoader.get_code = get_bytecode
        _external.ExtensionFileLoader.create_module = create_module
        io.open_code = open_code

    def _code(self, loader: Any, name: str, path: str) -> Any:
        source = self._files.code(path, name)
        if type(loader).source_to_code is not _external.SourceLoader.source_to_code:  # one that compiles in its own way
            return loader.source_to_code(source, path)
        cached = _external.cache_from_source(path)
        compiled = self._files.vouched(cached)
        if compiled is None or compiled[:4] != _external.MAGIC_NUMBER:
            return loader.source_to_code(source, path)
        return _external._compile_bytecode(memoryview(compiled)[16:], name=name, bytecode_path=cached, source_path=path)

    def _extension(self, spec: Any) -> Any:
        listed = self._files.listed(spec.origin)
        if listed is None:
            raise unverified(f"{spec.name}: {not_listed(spec.origin)}", spec.name, spec.origin)
        again = _bootstrap.ModuleSpec(spec.name, spec.loader, origin=listed)
        again.submodule_search_locations = spec.submodule_search_locations
        return self._sealed().module(spec, again)

    def _sealed(self) -> Sealed:
        if self._native is None:
            from ._verified_native import Sealed

            self._native = Sealed(self._files)
        return self._native

    def guard_resources(self) -> None:
        """Let packages offer as their resources what is listed."""
        files = self._files
        own = _external.FileLoader.get_resource_reader

        def get_resource_reader(loader: Any, name: str) -> Any:
            if files.trusts(loader.path):
                return own(loader, name)
            return (
                _reader(files, loader.path.rpartition("/")[0]) if sys.version_info >= (3, 10) or loader.is_package(name) else None
            )

        _external.FileLoader.get_resource_reader = get_resource_reader
        if sys.version_info < (3, 10):  # which asks the loader itself, and nobody for a namespace package's
            _external.SourceFileLoader.files = lambda loader: get_resource_reader(loader, loader.name).files()
            return
        namespace = getattr(_external, "NamespaceLoader", None) or _external._NamespaceLoader
        own_of_namespace = namespace.get_resource_reader

        def get_namespace_reader(loader: Any, name: str) -> Any:
            places = list(loader._path)
            return own_of_namespace(loader, name) if all(map(files.trusts, places)) else _reader(files, *places)

        namespace.get_resource_reader = get_namespace_reader

    def guard_archives(self) -> None:
        """Import nothing from archives but the interpreter's own."""
        files = self._files
        zipimport: Any = sys.modules.get("zipimport") or __import__("zipimport")
        init = zipimport.zipimporter.__init__

        def refuse(importer: Any, path: Any) -> None:
            if not files.trusts(str(path)):
                raise zipimport.ZipImportError(
                    f"{path}: nothing is imported from archives, which nobody has verified", path=str(path)
                )
            init(importer, path)

        zipimport.zipimporter.__init__ = refuse

    def guard_ctypes(self, module: Any, _: object = None) -> None:
        """Let ctypes load a library that comes with a package from its verified bytes."""
        files, plain = self._files, module._dlopen

        def dlopen(name: Any, mode: int = 0) -> Any:
            path = str(name or "")
            if "/" not in path:  # the system looks where it keeps them
                return plain(name, mode)
            path = os.path.realpath(path)
            if files.trusts(path) or (path.startswith(_SYSTEM) and "-packages/" not in path):
                return plain(path, mode)
            listed = files.listed(str(name)) or files.listed(path)
            if listed is None:
                raise OSError(not_listed(str(name)))
            return self._sealed().library(listed, mode)

        module._dlopen = dlopen

    def guard_site(self, module: Any, _: object = None) -> None:
        """Let no .pth file do anything."""
        module.addpackage = lambda *_, **__: None


def _reader(files: Files, *places: str) -> Any:
    from ._verified_data import Reader

    return Reader(files, *places)


def _watch(wires: dict[str, Callable[..., None]]) -> None:
    for name in wires.keys() & sys.modules.keys():
        wires.pop(name)(sys.modules[name])
    sys.meta_path.insert(0, _ImportWatch(wires, None))
