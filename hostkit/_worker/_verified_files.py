"""The files that a worker may import, and their bytes: read once, and given out only where size and sha256 are the table's."""

from __future__ import annotations

import os
import stat
from hashlib import sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_REMEDY = "`hostkit verify` tells all that differs, `hostkit lock` takes it over"
_PACKAGES = ("site-packages", "dist-packages")
_MARK = "hostkit_unverified"


class Files:
    """The table, and the trees that need none: the interpreter's own library and hostkit's own files."""

    def __init__(self, table: Mapping[str, Sequence[int | str]], trees: Sequence[str]) -> None:
        self._table = table
        self._trees = trees
        self._spelled: dict[str, tuple[str, ...]] = {}
        self.directories: set[str] = set()
        for path in table:
            directory = path.rpartition("/")[0]
            while directory and directory not in self.directories:
                self.directories.add(directory)
                directory = directory.rpartition("/")[0]

    def __contains__(self, path: str) -> bool:
        return path in self._table

    def trusts(self, path: str) -> bool:
        """Whether a path lies in a tree that needs no table. Packages that were installed beside the library don't."""
        path = os.path.abspath(path)
        return any(
            path == tree or (path.startswith(tree + "/") and path[len(tree) + 1 :].split("/", 1)[0] not in _PACKAGES)
            for tree in self._trees
        )

    def spellings(self, directory: str) -> tuple[str, ...]:
        """Return a directory as the table may call it."""
        found = self._spelled.get(directory)
        if found is None:
            # Wherever a link leads just now, what is read there must have the table's bytes.
            names = (directory, os.path.abspath(directory), os.path.realpath(directory))
            found = self._spelled[directory] = tuple(dict.fromkeys(names))
        return found

    def listed(self, path: str) -> str | None:
        """Return a path as the table calls it, or None where it isn't there."""
        if path in self._table:
            return path
        directory, _, name = os.path.abspath(path).rpartition("/")
        for spelled in self.spellings(directory):
            if f"{spelled}/{name}" in self._table:
                return f"{spelled}/{name}"
        return None

    def children(self, directory: str) -> list[str]:
        """Return the names of what is listed right in a directory."""
        head = directory + "/"
        below = (path[len(head) :] for path in self._table if path.startswith(head))
        return sorted({name.partition("/")[0] for name in below})

    def code(self, path: str, name: str | None = None) -> bytes:
        """Return a file's verified bytes, for a module. Raises ``ImportError``."""
        listed = self.listed(path)
        if listed is None:
            raise unverified(not_listed(path), name, path)
        try:
            data, trouble = self._verified(listed)
        except OSError as error:
            raise unverified(f"{path} was verified and can't be read: {error}", name, path) from error
        if trouble:
            raise unverified(trouble, name, path)
        return data

    def vouched(self, path: str) -> bytes | None:
        """Return a file's verified bytes, or None where it isn't listed, or isn't any more what it was then."""
        try:
            return self._verified(path)[0] or None if path in self._table else None
        except OSError:
            return None

    def data(self, path: str) -> bytes:
        """Return a file's verified bytes, for whoever reads data. Raises ``FileNotFoundError`` and ``OSError``."""
        listed = self.listed(path)
        if listed is None:
            raise FileNotFoundError(not_listed(path))
        data, trouble = self._verified(listed)
        if trouble:
            raise OSError(trouble)
        return data

    def _verified(self, path: str) -> tuple[bytes, str]:
        """Return a file's bytes, and what is wrong with them."""
        size, digest = self._table[path]
        data = _read(path, int(size) + 1)
        found = sha256(data).hexdigest()
        if len(data) == size and found == digest:
            return data, ""
        bytes_found = f"more than {size} bytes" if len(data) > int(size) else f"sha256 {found[:12]}… of {len(data)} bytes"
        return (
            b"",
            f"{path} isn't what was verified: expected sha256 {str(digest)[:12]}… of {size} bytes, found {bytes_found}; {_REMEDY}",
        )


def _read(path: str, most: int) -> bytes:
    # Whatever took the file's place, a pipe too, must not make this wait.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(f"{path} is no regular file")
        parts = []
        while most > 0:
            part = os.read(fd, most)
            if not part:
                break
            parts.append(part)
            most -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
    finally:
        os.close(fd)


def not_listed(path: str) -> str:
    """Return the words for a file that is there and isn't in the table."""
    return f"{path} isn't among the verified files, so nothing is loaded from it; {_REMEDY}"


def unverified(words: str, name: str | None, path: str | None, kind: type[ImportError] = ImportError) -> ImportError:
    """Return the error for a module that isn't imported; the worker itself can tell it from others."""
    error = kind(words, name=name, path=path)
    vars(error)[_MARK] = True
    return error


def refusal_in(error: BaseException | None) -> str:
    """Return the words of such an error, where it is one or was raised from one; else nothing."""
    for _ in range(16):
        if isinstance(error, ImportError) and _MARK in vars(error):
            return str(error)
        error = None if error is None else error.__cause__
    return ""
