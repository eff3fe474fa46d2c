"""Whether a ``.pyc`` in ``__pycache__`` is what its source compiles to.

Python runs it in the source's place where its header fits the source, which anybody can write; RECORD has no digest for it. So the
source is compiled, and the two are compared as marshalled bytes. These differ for the same code in one bit only, which says that an
object is used twice somewhere in the interpreter: where the bytes differ both are taken apart by the reader below. Bytes that nobody
vouches for are never given to ``marshal``, which isn't made for that.
"""

from __future__ import annotations

import hashlib
import importlib.util
import marshal
import os
import struct
import sys
import warnings
from typing import Any

from ._digests import Digests, contents
from ._errors import IntegrityError

_HEADER = 16


def problem_of(cached: str, source: str, digests: Digests, place: str) -> str:
    """Return what is wrong with a cached ``.pyc``; "" where it is what its source compiles to."""
    level = _level(cached)
    modified = int(os.stat(source).st_mtime)
    parts = (
        sys.version,
        importlib.util.MAGIC_NUMBER.hex(),
        level,
        modified,
        *digests.of(source, place),
        *digests.of(cached, place),
    )
    fact = hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()
    memory = digests.memory(place)
    if fact in memory.facts:
        return ""
    data, text = _read(cached, digests, place), _read(source, digests, place)
    if data[:4] != importlib.util.MAGIC_NUMBER:
        return "it is of another Python"
    if wrong := _header_problem(data, modified, text) or _code_problem(data[_HEADER:], text, source, level):
        return wrong
    memory.know(fact)
    return ""


def caches_of(source: str) -> list[str]:
    """Return the ``.pyc`` files that this Python would run in the place of a source."""
    if not source.endswith(".py"):
        return []
    levels = (importlib.util.cache_from_source(source, optimization=level) for level in ("", "1", "2"))
    return [path for path in levels if os.path.lexists(path)]


def _read(path: str, digests: Digests, place: str) -> bytes:
    data = contents(path)
    if hashlib.sha256(data).hexdigest() != digests.of(path, place).sha256:
        raise IntegrityError("it was changed while it was read; try again")
    return data


def _header_problem(data: bytes, modified: int, text: bytes) -> str:
    if len(data) < _HEADER:
        return "it has no whole header"
    (flags,) = struct.unpack_from("<I", data, 4)
    if flags & 1:
        if not flags & 2:
            return "it is never compared with its source (an unchecked hash)"
        return "" if data[8:16] == importlib.util.source_hash(text) else "it was made from another source"
    if (modified & 0xFFFFFFFF, len(text) & 0xFFFFFFFF) != struct.unpack_from("<II", data, 8):
        return "it was made from another source"
    return ""


def _level(cached: str) -> int:
    _, mark, level = cached.rpartition(".opt-")
    return int(level[0]) if mark and level[:1] in ("1", "2") else 0


def _code_problem(body: bytes, text: bytes, source: str, level: int) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the plugin's source, which whoever imports it hears
            code = compile(text, source, "exec", dont_inherit=True, optimize=level)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"its source does not compile ({type(error).__name__})"
    ours = marshal.dumps(code)
    if ours == body:
        return ""
    try:
        return "" if _Marshalled(ours).code() == _Marshalled(body).code() else "its code is not what its source compiles to"
    except (IntegrityError, RecursionError, IndexError, struct.error, TypeError):
        return "its code can't be read"


_REFERABLE = 0x80
# What a code object consists of, in order: "i" four bytes, "o" an object; the name of the file is left out of the comparison.
_CODE_PARTS = "iiiiioooooXooioo"


class _Marshalled:
    """One marshalled value, taken apart into tuples, bytes and numbers without making anything of it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._known: list[Any] = []

    def code(self) -> Any:
        """Return the whole as something that compares. Raises a whole lot of errors for what is no code object."""
        found = self._object()
        if self._at != len(self._data):
            raise IntegrityError("something follows the code")
        return found

    def _take(self, count: int) -> bytes:
        if count < 0 or self._at + count > len(self._data):
            raise IntegrityError("it ends too soon")
        self._at += count
        return self._data[self._at - count : self._at]

    def _int(self) -> int:
        number: int = struct.unpack("<i", self._take(4))[0]
        return number

    def _object(self) -> Any:
        kind = self._take(1)[0]
        referable, kind = kind & _REFERABLE, kind & ~_REFERABLE
        if kind == ord("r"):
            found = self._known[self._int()]
            if found is None:
                raise IntegrityError("an object in itself")
            return found
        place = len(self._known)
        if referable:
            self._known.append(None)
        found = self._of_kind(kind)
        if referable:
            self._known[place] = found
        return found

    def _of_kind(self, kind: int) -> Any:
        letter = chr(kind)
        if letter in "NFTS.":
            return (letter,)
        if letter in "zZaAuts":
            size = self._take(1)[0] if letter in "zZ" else self._int()
            return ("bytes" if letter == "s" else "text", self._take(size))
        if letter in "ilgy":
            return (letter, self._number(letter))
        if letter in ")(":
            size = self._take(1)[0] if letter == ")" else self._int()
            return ("tuple", *(self._object() for _ in range(size)))
        if letter in "<>":
            # A set is written in an order that depends on the process.
            return ("set", frozenset(self._object() for _ in range(self._int())))
        if letter == ":":
            return ("slice", *(self._object() for _ in range(3)))
        if letter == "c":
            return ("code", *self._parts())
        raise IntegrityError(f"something of the kind {kind}")

    def _number(self, letter: str) -> Any:
        if letter == "l":
            count = self._int()
            return count, self._take(2 * abs(count))
        return self._take({"i": 4, "g": 8, "y": 16}[letter])

    def _parts(self) -> list[Any]:
        found = []
        for part in _CODE_PARTS:
            value = self._int() if part == "i" else self._object()
            if part != "X":
                found.append(value)
        return found
