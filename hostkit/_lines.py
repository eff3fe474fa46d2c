"""On which line each key of a text stands, for errors and for who asks where a value comes from: reading does without.

Only texts that were read without an error are scanned. What stands in a TOML inline table or array has the line of the nearest key
that is told of; a YAML or JSON item has its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

# What leads to a value: names of keys, and numbers of items from 0.
Keys = tuple[str | int, ...]


def lines(text: str, suffix: str) -> dict[Keys, int]:
    """Return the line of every key and item, from 1; of a key that opens in several places the first."""
    scan = {".json": json_keys, ".toml": _toml_keys}.get(suffix, _yaml_keys)
    found: dict[Keys, int] = {}
    for keys, line in scan(text):
        found.setdefault(keys, line)
    return found


def place(file: object, line: int | None) -> str:
    """Return a file and the line in it as editors and terminals know it."""
    return str(file) if line is None else f"{file}:{line}"


# Not compiled here, which would cost a listing a millisecond.
_JSON_MARK = r'"(?:[^"\\]|\\.)*"|[\[\]{},:\n]|[^\s"\[\]{},:]+'


def json_keys(text: str) -> Iterator[tuple[Keys, int]]:  # noqa: C901 - one case a mark
    """Yield every key and item of a JSON text with its line, in their order; a key that is there twice comes twice."""
    tables: list[Keys | None] = []  # around this place; None for a list
    here: Keys = ()
    expected, line = "value", 1
    for match in re.finditer(_JSON_MARK, text):
        word = match[0]
        if word == "\n":
            line += 1
        elif word in ("]", "}"):
            here = _closed(tables, here)
            expected = ""
        elif word == ",":
            if tables[-1] is None:
                here = _next_item(here)
                expected = "value"
            else:
                expected = "key"
        elif word == ":":
            expected = "value"
        elif expected == "key":
            table = tables[-1]
            assert table is not None
            here = (*table, json.loads(word))
            yield here, line
            expected = ""
        else:
            if tables and tables[-1] is None:
                yield here, line
            if word == "{":
                tables.append(here)
                expected = "key"
            elif word == "[":
                tables.append(None)
                here = (*here, 0)


def _next_item(here: Keys) -> Keys:
    return (*here[:-1], int(here[-1]) + 1)


def _closed(tables: list[Keys | None], here: Keys) -> Keys:
    table = tables.pop()
    return here[:-1] if table is None else table


_TOML_MARK = r'''(?P<gap>[ \t\r]+|\#[^\n]*)
    |(?P<text>"""(?:[^\\]|\\.)*?"""(?!")|\'\'\'.*?\'\'\'(?!\')|"(?:[^"\\]|\\.)*"|'[^']*')
    |(?P<mark>[\[\]{}.=,\n])
    |(?P<bare>[^\s"'\[\]{}.=,\#]+)'''


def _toml_keys(text: str) -> Iterator[tuple[Keys, int]]:
    table: Keys = ()
    lists: dict[Keys, int] = {}  # arrays of tables, and how many each has
    for line, statement in _statements(text):
        if statement[0] != "[":
            keys = table
            for part in _toml_parts(statement[: statement.index("=")]):
                keys = (*keys, part)
                yield keys, line
            continue
        repeated = statement[1] == "["
        parts = _toml_parts(statement)
        table = ()
        for part in parts[:-1]:
            table = (*table, part)
            yield table, line
            table = (*table, lists[table] - 1) if table in lists else table
        table = (*table, parts[-1])
        yield table, line
        if repeated:
            lists[table] = lists.get(table, 0) + 1
            table = (*table, lists[table] - 1)
            yield table, line


def _statements(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each header and each key with its value, as tokens, with the line on which it begins."""
    line, begun, depth = 1, 1, 0
    statement: list[str] = []
    for match in re.finditer(_TOML_MARK, text, re.VERBOSE | re.DOTALL):
        word = match[0]
        if word == "\n" and depth == 0:
            if statement:
                yield begun, statement
            statement = []
        elif match.lastgroup != "gap":
            if not statement:
                begun = line
            depth += (word in ("[", "{")) - (word in ("]", "}"))
            statement.append(word)
        line += word.count("\n")
    if statement:
        yield begun, statement


def _toml_parts(tokens: list[str]) -> list[str]:
    return [_toml_key(word) for word in tokens if word not in ("[", "]", ".")]


def _toml_key(word: str) -> str:
    if not word.startswith('"'):
        return word.strip("'")
    import tomllib

    key: str = tomllib.loads(f"key = {word}")["key"]
    return key


def _yaml_keys(text: str) -> Iterator[tuple[Keys, int]]:
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    root = yaml.compose(text, loader)
    if root is not None:
        yield from _nodes(root, ())


def _nodes(node: Any, keys: Keys) -> Iterator[tuple[Keys, int]]:  # Any: PyYAML's nodes
    if node.id == "mapping":
        for key, part in node.value:
            yield (*keys, key.value), key.start_mark.line + 1
            yield from _nodes(part, (*keys, key.value))
    elif node.id == "sequence":
        for index, part in enumerate(node.value):
            yield (*keys, index), part.start_mark.line + 1
            yield from _nodes(part, (*keys, index))
