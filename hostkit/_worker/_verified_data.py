"""Resources and metadata of verified packages: only what the table lists, and only its bytes.

What ``importlib.resources`` and ``importlib.metadata`` take for a path, and doesn't read by one.
"""

from __future__ import annotations

import io
import os
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, Any

    from ._verified_files import Files


class Listed:
    """A listed file, or a directory with such; of a namespace package all its ``places`` in one."""

    def __init__(self, files: Files, *places: str) -> None:
        self._files = files
        self._places = places

    @property
    def name(self) -> str:
        return os.path.basename(self._places[0])

    @property
    def parent(self) -> Any:
        from pathlib import Path

        return Path(self._places[0]).parent

    def __str__(self) -> str:
        return self._places[0]

    def __repr__(self) -> str:
        return f"Listed({self._places[0]!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Listed) and self._places == other._places

    def __hash__(self) -> int:
        return hash(self._places)

    def joinpath(self, *parts: str) -> Listed:
        below = "/".join(str(part) for part in parts if str(part))
        return Listed(self._files, *(os.path.normpath(f"{place}/{below}") for place in self._places))

    def __truediv__(self, part: str) -> Listed:
        return self.joinpath(part)

    def is_file(self) -> bool:
        return self._file() is not None

    def is_dir(self) -> bool:
        return any(place in self._files.directories for place in self._places)

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def iterdir(self) -> Iterator[Listed]:
        if not self.is_dir():
            raise NotADirectoryError(f"{self} is no directory with verified files")
        for name in dict.fromkeys(name for place in self._places for name in self._files.children(place)):
            yield self.joinpath(name)

    def read_bytes(self) -> bytes:
        return self._files.data(self._file() or self._places[0])

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        with self.open("r", encoding=encoding or "utf-8", errors=errors) as file:
            text: str = file.read()
        return text

    def open(self, mode: str = "r", *args: Any, **kwargs: Any) -> IO[Any]:
        raw = io.BytesIO(self.read_bytes())
        return raw if "b" in mode else io.TextIOWrapper(raw, *args, **{"encoding": "utf-8", **kwargs})

    def _file(self) -> str | None:
        return next((place for place in self._places if place in self._files), None)


class Reader:
    """A package's resources, as its loader offers them."""

    def __init__(self, files: Files, *places: str) -> None:
        self._top = Listed(files, *places)

    def files(self) -> Listed:
        return self._top

    def open_resource(self, name: str) -> IO[bytes]:
        return self._top.joinpath(name).open("rb")

    def resource_path(self, name: str) -> str:
        # Whoever needs a path gets a copy of the verified bytes.
        raise FileNotFoundError(f"{self._top.joinpath(name)} is given out by its bytes only")

    def is_resource(self, name: str) -> bool:
        return self._top.joinpath(name).is_file()

    def contents(self) -> Iterator[str]:
        return (found.name for found in self._top.iterdir())


def distributions(files: Files, context: Any) -> Iterator[Any]:
    """Yield the distributions whose metadata is listed, as ``importlib.metadata`` asks for them."""
    from importlib.metadata import PathDistribution

    wanted = None if context.name is None else _normal(context.name)
    for entry in context.path:
        for spelled in files.spellings(entry):
            for child in files.children(spelled):
                stem, dot, kind = child.rpartition(".")
                if dot and kind in ("dist-info", "egg-info") and wanted in (None, _normal(stem.partition("-")[0])):
                    found: Any = Listed(files, f"{spelled}/{child}")
                    yield PathDistribution(found)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
