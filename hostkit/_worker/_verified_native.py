"""Load extension modules and shared libraries from sealed copies in memory, so that the verified bytes are those that run.

file ──read once──► verified bytes ──► memfd ──seal──► dlopen("/proc/self/fd/N")

A copy differs from the file in one point: its search path for libraries (RPATH, RUNPATH) is taken out, because the linker would load
whatever lies there. What an extension needs and the table lists is loaded before it, in the same way; the linker then finds it by its
name (SONAME, by which glibc knows what is loaded already). Everything else comes from where the system keeps its libraries.
"""

from __future__ import annotations

import _imp
import fcntl
import itertools
import os
import struct
import threading

from ._verified_files import not_listed, unverified

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ._verified_files import Files

# Not in Python's os before 3.14: the copy can never be executed as a program (Linux 6.3).
_MFD_NOEXEC_SEAL = 0x0008
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE if hasattr(fcntl, "F_SEAL_SEAL") else 0

# From elf.h.
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NEEDED, _DT_STRTAB, _DT_RPATH, _DT_RUNPATH, _DT_AUXILIARY, _DT_FILTER = 1, 5, 15, 29, 0x7FFFFFFD, 0x7FFFFFFF
_DT_AUDIT, _DT_DEPAUDIT = 0x6FFFFEFC, 0x6FFFFEFB
_DT_LOOS = 0x6000000D  # the first of the numbers that systems may give a meaning to; no linker here gives this one any
_HEADER, _SEGMENT, _DYNAMIC = struct.Struct("<32xQ14xHH"), struct.Struct("<I4xQQ8xQ"), struct.Struct("<qQ")


class Sealed:
    """All that was loaded this way. Thread-safe."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._count = itertools.count(1)
        self._modules: dict[str, str] = {}
        self._lock = threading.RLock()  # guards _libraries, and is held while they are loaded, which runs no Python code
        self._libraries: dict[str, str] = {}

    def module(self, spec: Any, again: Any) -> Any:
        """Make an extension module; ``again`` is its spec with the table's path, which becomes the name that the linker gets."""
        path = again.origin
        known = self._modules.get(path)
        if known is not None:  # the linker has it by this name, and needs no file any more
            again.origin = known
            return self._made(spec, again)
        data = self._files.code(path, spec.name)
        elf = _Elf(data, path)
        missing = self._load_needed(elf, ())
        fd = _copy(elf)
        try:
            again.origin = self._name(fd)
            module = self._made(spec, again)
        except ImportError as error:
            if missing:
                raise _without(missing, error, spec.name, path) from error
            raise
        finally:
            os.close(fd)
        self._modules[path] = again.origin
        return module

    def _made(self, spec: Any, again: Any) -> Any:
        module = _imp.create_dynamic(again)
        if getattr(module, "__file__", None) == again.origin:
            module.__file__ = spec.origin
        return module

    def library(self, path: str, mode: int) -> int:
        """Return the handle of a listed shared library. Raises ``OSError``, as the linker does."""
        from _ctypes import dlopen

        try:
            name = self._modules.get(path) or self._load(path, ())
        except ImportError as error:
            raise OSError(str(error)) from error
        return dlopen(name, mode)

    def _load(self, path: str, inherited: Sequence[str]) -> str:
        """Load a library, once, and return the name by which the linker has it. Raises ``ImportError``."""
        from _ctypes import dlopen

        with self._lock:
            if path in self._libraries:
                return self._libraries[path]
            elf = _Elf(self._files.code(path), path)
            self._libraries[path] = ""  # for libraries that need each other
            try:
                missing = self._load_needed(elf, inherited)
                fd = _copy(elf)
                try:
                    name = self._name(fd)
                    dlopen(name, os.RTLD_NOW)
                except OSError as error:
                    raise _without(missing, error, None, path) from error
                finally:
                    os.close(fd)
            except BaseException:
                del self._libraries[path]
                raise
            self._libraries[path] = name
            return name

    def _load_needed(self, elf: _Elf, inherited: Sequence[str]) -> list[str]:
        """Load what is listed of the libraries that a file needs; return those that lie where it looks for them and aren't."""
        missing = []
        for name in elf.needed:
            places = [os.path.normpath(f"{place}/{name}") for place in (*elf.search, *inherited)]
            listed = next(filter(None, map(self._files.listed, places)), None)
            if listed is not None:
                self._load(listed, (*elf.search, *inherited))
            else:
                missing += [place for place in places if os.path.exists(place)]
        return missing

    def _name(self, fd: int) -> str:
        # The linker takes a name that it has seen for what it loaded then, whatever the descriptor is now.
        return f"/proc/self/fd{'/' * next(self._count)}{fd}"


def _without(missing: Sequence[str], error: Exception, name: str | None, path: str) -> ImportError:
    """Return the error for what the linker didn't take, perhaps because of a library that it was not let have."""
    if missing:
        return unverified(f"{error}; {not_listed(missing[0])}", name, path)
    return ImportError(str(error), name=name, path=path)


class _Elf:
    """What a shared object says of the libraries that it needs. Raises ``ImportError`` for what is none of a 64-bit machine here."""

    def __init__(self, data: bytes, path: str) -> None:
        self.data = data
        self.path = path
        self.needed: list[str] = []
        self.search: list[str] = []
        self.cut: list[int] = []  # where the entries are that are taken out
        try:
            self._read()
        except (struct.error, IndexError, OverflowError, ValueError, StopIteration) as error:
            raise unverified(f"{path} is no shared object that hostkit can read: {error}", None, path) from error

    def _read(self) -> None:
        if self.data[:6] != b"\x7fELF\x02\x01":
            raise ValueError("expected ELF of 64 bits, little-endian")
        start, size, count = _HEADER.unpack_from(self.data)
        segments = [_SEGMENT.unpack_from(self.data, start + index * size) for index in range(count)]
        dynamic = next((segment for segment in segments if segment[0] == _PT_DYNAMIC), None)
        if dynamic is None:
            return
        entries = []
        for at in range(dynamic[1], dynamic[1] + dynamic[3], _DYNAMIC.size):
            tag, value = _DYNAMIC.unpack_from(self.data, at)
            if tag == 0:
                break
            entries.append((at, tag, value))
        table = next((value for _, tag, value in entries if tag == _DT_STRTAB), 0)
        # Addresses are those in memory.
        offset = next(table - at + begin for kind, begin, at, long in segments if kind == _PT_LOAD and at <= table < at + long)
        for at, tag, value in entries:
            self._take(at, tag, offset + value)

    def _take(self, at: int, tag: int, text_at: int) -> None:
        if tag in (_DT_NEEDED, _DT_AUXILIARY, _DT_FILTER, _DT_RPATH, _DT_RUNPATH, _DT_AUDIT, _DT_DEPAUDIT):
            text = os.fsdecode(self.data[text_at : self.data.index(b"\0", text_at)])
            if tag in (_DT_RPATH, _DT_RUNPATH):
                self.search += self._places(text)
                self.cut.append(at)
            elif "/" in text or tag in (_DT_AUDIT, _DT_DEPAUDIT):
                raise ValueError(f"it names {text!r}, which the linker would load from there")
            else:
                self.needed.append(text)

    def _places(self, text: str) -> list[str]:
        origin = os.path.dirname(self.path)
        places = [place.replace("${ORIGIN}", origin).replace("$ORIGIN", origin) for place in text.split(":")]
        return [place for place in places if place.startswith("/") and "$" not in place]


def _copy(elf: _Elf) -> int:
    """Return a descriptor of a file in memory that nobody can change any more. Raises ``ImportError`` where there is none."""
    try:
        os.stat("/proc/self/fd")  # the only way by which the linker gets there
        fd = _memory(os.path.basename(elf.path)[:200])
    except (OSError, AttributeError) as error:
        raise unverified(f"{elf.path} can't be loaded from memory, as verified files are: {error}", None, elf.path) from error
    try:
        rest = memoryview(elf.data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        for at in elf.cut:
            os.pwrite(fd, _DT_LOOS.to_bytes(8, "little"), at)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _memory(name: str) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | _MFD_NOEXEC_SEAL)
    except OSError:
        return os.memfd_create(name, flags)
