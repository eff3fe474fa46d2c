"""Read a mapping from JSON, TOML or YAML text: bounded, and with nothing read twice or half."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

# Far above any real manifest or configuration, far below what a parser chokes on.
SIZE_LIMIT = 1024 * 1024
_DEPTH_LIMIT = 64

SUFFIXES = (".json", ".toml", ".yaml", ".yml")


class Unreadable(Exception):
    """The text is not what its suffix says; the message says where."""


def parse(data: bytes, suffix: str) -> dict[str, Any]:
    """Return the mapping in ``data``. Raises ``Unreadable``."""
    if len(data) > SIZE_LIMIT:
        raise Unreadable(f"{len(data)} bytes; at most {SIZE_LIMIT} are read")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable(f"expected UTF-8 text: {error}") from None
    if text.startswith("\ufeff"):
        raise Unreadable("begins with a byte order mark; save it as plain UTF-8")
    if "\0" in text:
        raise Unreadable("has a NUL character in it")
    try:
        found = _PARSERS[suffix](text)
    except RecursionError:
        raise Unreadable(f"is nested deeper than {_DEPTH_LIMIT} levels") from None
    except ValueError as error:
        raise Unreadable(str(error)) from None
    if not isinstance(found, dict):
        raise Unreadable(f"expected a mapping at the top, found {type(found).__name__}")
    _check_plain(found, 0)
    return found


def read(path: Path) -> dict[str, Any]:
    """Read and parse a file by its suffix. Raises ``Unreadable``."""
    if path.suffix not in SUFFIXES:
        raise Unreadable(f"has the suffix {path.suffix!r}; expected one of {', '.join(SUFFIXES)}")
    try:
        with path.open("rb") as file:
            data = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from None
    return parse(data, path.suffix)


def _json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"has the key {key!r} twice")
        found[key] = value
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _toml(text: str) -> Any:
    return tomllib.loads(text)


def _yaml(text: str) -> Any:
    import yaml  # 20 ms, for those who write YAML

    class Loader(yaml.SafeLoader):
        """Plain data only: an alias can blow up to gigabytes, a second key hides the first."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.events.AliasEvent):
                raise yaml.YAMLError(f"has an alias on line {self.peek_event().start_mark.line + 1}; write the value out")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            for key in keys:
                if not isinstance(key, str):
                    raise yaml.YAMLError(f"has the key {key!r}; keys are text")
                if keys.count(key) > 1:
                    raise yaml.YAMLError(f"has the key {key!r} twice")
            return dict(super().construct_mapping(node, deep))

    try:
        return yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


_PARSERS = {".json": _json, ".toml": _toml, ".yaml": _yaml, ".yml": _yaml}


def _check_plain(value: Any, depth: int) -> None:
    if depth > _DEPTH_LIMIT:
        raise Unreadable(f"is nested deeper than {_DEPTH_LIMIT} levels")
    if isinstance(value, dict):
        for part in value.values():
            _check_plain(part, depth + 1)
    elif isinstance(value, list):
        for part in value:
            _check_plain(part, depth + 1)
    elif not (value is None or isinstance(value, (str, int, float, bool))):
        raise Unreadable(f"has a {type(value).__name__}; write it as text")
    elif isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        raise Unreadable(f"has the number {value!r}")
