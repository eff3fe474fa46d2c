"""Read a mapping from JSON, TOML or YAML text: bounded, and with nothing read twice or half."""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ._lines import Keys, json_keys, lines, place

# Far above any real configuration or manifest. What a parser makes of so much text takes seconds for the first (an operator's
# own file) and milliseconds for the second (anybody's).
SIZE_LIMIT = 1024 * 1024
MANIFEST_LIMIT = 32 * 1024
_DEPTH_LIMIT = 32
# A YAML value takes twenty times as long as a JSON one, so their number is bounded, too: one for so many bytes of the limit.
_BYTES_PER_VALUE = 32
# What a YAML 1.1 parser may take for a number, and for how long: in sixties its time grows with the square.
_LONG_NUMBER = re.compile(r"[0-9A-Fa-fxob_:.+-]{400,}")

SUFFIXES = (".json", ".toml", ".yaml", ".yml")


class Unreadable(Exception):
    """The text is not what its suffix says. ``line`` is where, None where nobody can tell; ``keys`` lead to what was read already."""

    def __init__(self, words: str, line: int | None = None, *, keys: Keys = ()) -> None:
        super().__init__(words)
        self.line = line
        self.keys = keys

    def at(self, file: object) -> str:
        """Return what is wrong, headed by the file and line."""
        return f"{place(file, self.line)}: {self}"


class Document(dict[str, Any]):
    """What a file says. It knows the line of each key, and looks for it when it is asked. Not thread-safe."""

    __slots__ = ("_lines", "_suffix", "_table", "_text")

    def __init__(self, data: Mapping[str, Any] = MappingProxyType({}), text: str = "", suffix: str = "", table: Keys = ()) -> None:
        super().__init__(data)
        # The name by which editors know what may stand here.
        self.pop("$schema", None)
        self._text = text
        self._suffix = suffix
        self._table = table
        self._lines: dict[Keys, int] | None = None

    def line(self, keys: Keys) -> int | None:
        """Return the line of a key, or of the nearest one around it; None where the text doesn't tell."""
        if not self._suffix:
            return None
        if self._lines is None:
            self._lines = lines(self._text, self._suffix)
        full = (*self._table, *keys)
        return next((self._lines[full[:end]] for end in range(len(full), 0, -1) if full[:end] in self._lines), None)


def read(path: Path, *, limit: int = SIZE_LIMIT, table: Sequence[str] = ()) -> Document:
    """Read and parse a file by its suffix; ``limit`` and ``table`` as for ``parse``. Raises ``Unreadable``."""
    if path.suffix not in SUFFIXES:
        raise Unreadable(f"has the suffix {path.suffix!r}; expected one of {', '.join(SUFFIXES)}")
    return parse(contents(path, limit=limit), path.suffix, limit=limit, table=table)


def contents(path: Path, *, limit: int = SIZE_LIMIT) -> bytes:
    """Return a file's bytes, as far as one more than ``limit``. Raises ``Unreadable``."""
    try:
        # Not blocking, because a pipe in its place would keep whoever looks waiting.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Unreadable("is no regular file")
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(limit + 1)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        raise Unreadable(getattr(error, "strerror", None) or str(error)) from None


def parse(data: bytes, suffix: str, *, limit: int = SIZE_LIMIT, table: Sequence[str] = ()) -> Document:
    """Return the mapping in ``data``, or the one that ``table`` leads to in it. Raises ``Unreadable``."""
    if len(data) > limit:
        raise Unreadable(f"is longer than the {limit} bytes that are read")
    text = _text(data)
    whole = Document(_mapping(_parsed(text, suffix, limit), "the top"), text, suffix)
    document = whole if not table else Document(_table(whole, table), text, suffix, tuple(table))
    try:
        _check_plain(document, ())
    except Unreadable as error:
        error.line = document.line(error.keys)
        raise
    return document


def _table(whole: Document, table: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = whole
    for depth, part in enumerate(table, 1):
        if part not in found:
            raise Unreadable(f"has no table [{'.'.join(table)}]")
        found = _mapping(found[part], ".".join(table[:depth]), whole.line(tuple(table[:depth])))
    return found


def _mapping(found: Any, where: str, line: int | None = None) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise Unreadable(f"expected a mapping at {where}, found {_kind(found)}", line)
    return found


def value(text: str) -> Any:  # Any: JSON data
    """Return what a word of the environment means: JSON, else the text itself. Raises ``Unreadable``."""
    try:
        found = _json(text)
    except ValueError:
        found = text
    except RecursionError:
        raise Unreadable(_TOO_DEEP) from None
    _check_plain(found, ())
    return found


_TOO_DEEP = f"is nested deeper than {_DEPTH_LIMIT} levels"


def _text(data: bytes) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable(f"expected UTF-8 text: {error}", data.count(b"\n", 0, error.start) + 1) from None
    if text.startswith("\ufeff"):
        raise Unreadable("begins with a byte order mark; save it as plain UTF-8", 1)
    if "\0" in text:
        raise Unreadable("has a NUL character in it", text.count("\n", 0, text.index("\0")) + 1)
    return text


def _parsed(text: str, suffix: str, limit: int) -> Any:
    try:
        if suffix == ".json":
            return _json(text)
        return _toml(text) if suffix == ".toml" else _yaml(text, limit // _BYTES_PER_VALUE)
    except RecursionError:
        raise Unreadable(_TOO_DEEP) from None
    except _Twice as error:
        raise Unreadable(str(error), _repeated(text, error.key)) from None
    except (ValueError, ArithmeticError) as error:  # ArithmeticError: a number beyond a float
        raise _syntax(error, text) from None


def _repeated(text: str, key: str) -> int | None:
    """Return the line on which a JSON key stands for the second time in its object."""
    seen: set[Keys] = set()
    for keys, line in json_keys(text):
        if keys in seen and keys[-1] == key:
            return line
        seen.add(keys)
    return None


# Where tomllib and json end their messages with the place, because not every version has it apart.
_PLACE = r" \(at (?:line (\d+), column (\d+)|end of document)\)$|: line (\d+) column (\d+) \(char \d+\)$"


def _syntax(error: Exception, text: str) -> Unreadable:
    words = " ".join(str(error).split())
    match = re.search(_PLACE, words)
    if match is None:
        return Unreadable(words)
    line, column = match[1] or match[3], match[2] or match[4]
    words = words[: match.start()]
    return Unreadable(f"{words} (column {column})", int(line)) if line else Unreadable(words, text.rstrip().count("\n") + 1)


def _json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)


class _Twice(ValueError):
    """A JSON object has the same key twice."""

    def __init__(self, key: str) -> None:
        super().__init__(f"has the key {key!r} twice")
        self.key = key


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, part in pairs:
        if key in found:
            raise _Twice(key)
        found[key] = part
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_QUOTED = re.compile(r"\"[^\"\n]*\"|'[^'\n]*'")


def _toml(text: str) -> Any:
    # tomllib needs the square of a dotted key's parts: 20 s for 64 KB.
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > _DEPTH_LIMIT:
            keys = _QUOTED.sub("", line)
            keys = keys if keys.lstrip().startswith("[") else keys.rpartition("=")[0]
            if keys.count(".") > _DEPTH_LIMIT:
                raise Unreadable(f"has a key of more than {_DEPTH_LIMIT} parts", number)
    import tomllib  # 5 ms, for those who write TOML

    return tomllib.loads(text)


def _yaml(text: str, most: int) -> Any:
    import yaml  # 20 ms, for those who write YAML

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, and not in every build

    class Loader(base):  # type: ignore[misc]  # one of two classes
        """Plain data only; a second key would hide the first."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
            keys: set[str] = set()
            for key, _ in node.value:
                if key.tag != "tag:yaml.org,2002:str":
                    raise Unreadable(f"has the key {str(key.value)[:60]!r}; keys are text", key.start_mark.line + 1)
                if key.value in keys:
                    raise Unreadable(f"has the key {key.value!r} twice", key.start_mark.line + 1)
                keys.add(key.value)
            return dict(super().construct_mapping(node, deep))

    try:
        _check_events(yaml, yaml.parse(text, base), most)
        return yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
    except yaml.reader.ReaderError as error:
        raise Unreadable(
            f"has the character {error.character!r}: {error.reason}", text.count("\n", 0, error.position) + 1
        ) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = ", ".join(filter(None, (error.context, error.problem)))
        raise Unreadable(words, None if mark is None else mark.line + 1) from None
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def _check_events(yaml: Any, events: Any, most: int) -> None:
    """Look at the text's events before anything is built: building is recursive, in C without a limit."""
    depth = count = 0
    for event in events:
        line = event.start_mark.line + 1
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        count += isinstance(event, yaml.NodeEvent)
        if depth > _DEPTH_LIMIT:
            raise Unreadable(_TOO_DEEP, line)
        if count > most:
            raise Unreadable(f"has more than {most} values", line)
        if isinstance(event, yaml.AliasEvent):
            raise Unreadable("has an alias; write the value out", line)
        if getattr(event, "tag", None) is not None:
            raise Unreadable(f"has the tag {event.tag!r}; expected plain data", line)
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and _LONG_NUMBER.fullmatch(event.value):
            raise Unreadable(f"has a number of {len(event.value)} characters", line)


def _check_plain(found: Any, path: Keys) -> None:
    if len(path) > _DEPTH_LIMIT:
        raise Unreadable(_TOO_DEEP)
    if isinstance(found, dict):
        for key, part in found.items():
            _check_text(key, path)
            _check_plain(part, (*path, key))
    elif isinstance(found, list):
        for index, part in enumerate(found):
            _check_plain(part, (*path, index))
    elif isinstance(found, str):
        _check_text(found, path)
    elif isinstance(found, (int, float)):
        _check_number(found, path)
    elif found is not None:
        raise _unplain(path, f"has {_kind(found)}; write it as text")


def _check_number(found: float, path: Keys) -> None:
    if isinstance(found, int) and found.bit_length() > 64:
        raise _unplain(path, "has a number beyond 64 bits")
    if isinstance(found, float) and not math.isfinite(found):
        raise _unplain(path, f"has the number {found!r}")


def _check_text(text: str, path: Keys) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise _unplain(path, "has half a character (a lone surrogate)") from None


def _unplain(path: Keys, words: str) -> Unreadable:
    shown = ".".join(map(str, path)).encode("utf-8", "backslashreplace").decode("utf-8")
    return Unreadable(f"{shown[:200]}: {words}" if path else words, keys=path)


def _kind(found: object) -> str:
    kind = type(found).__name__
    return {"NoneType": "nothing", "str": "text", "bool": "true or false"}.get(kind, f"a {kind}")
