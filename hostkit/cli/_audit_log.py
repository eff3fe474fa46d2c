"""The audit log as the command line reads it: the file that is meant, line by line, however long."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .._audit_chain import LINE_LIMIT
from .._errors import ConfigError, HostkitError
from ._session import Session


class NoAuditLog(HostkitError):
    """There is no file, or it can't be read."""


def file_of(session: Session, named: str | None) -> Path:
    """Return the file that the command line names, else the one that the configuration does. Raises ``ConfigError``."""
    if named is not None:
        return Path(named)
    file = session.config.audit.file
    if file is None:
        raise ConfigError("no audit log is configured (audit.file), and none is named")
    return file


def lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file with their ends; of one that is longer than any entry, the beginning. Raises ``NoAuditLog``."""
    return (line for line, _ in lines_with_ends(path, 0))


def lines_with_ends(path: Path, start: int) -> Iterator[tuple[bytes, int]]:
    """Yield the same from byte ``start`` on, each with the byte that it ends at; all of it where the file is shorter than that."""
    try:
        with open(path, "rb") as file:
            if file.seek(0, os.SEEK_END) < start:
                start = 0  # another file
            file.seek(start)
            while line := file.readline(LINE_LIMIT):
                if len(line) == LINE_LIMIT and not line.endswith(b"\n"):
                    line = _whole(line, file)
                yield line, file.tell()
    except OSError as error:
        raise NoAuditLog(f"{path}: {error.strerror or error}") from None


def _whole(line: bytes, file: BinaryIO) -> bytes:
    """Go on to the end of an overlong line; return its beginning."""
    while True:
        more = file.readline(LINE_LIMIT)
        if not more or more.endswith(b"\n"):
            return line + more[-1:]
