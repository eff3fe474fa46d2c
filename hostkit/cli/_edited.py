"""A configuration's text with one value in it changed and nothing else: comments, order and layout stay.

TOML by tomlkit, YAML by the marks of its parser, JSON anew with its own indentation. What comes of it is read again and compared.
"""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .._parsing import Unreadable, parse

# What there is to say.
Word = bool | str


class NotEditable(Exception):
    """The layout is one that can't be edited here; the message says why."""


def edited(text: str, suffix: str, keys: Sequence[str], value: Word) -> str:
    """Return the text with ``value`` at ``keys``, in tables that are made where there are none. Raises ``NotEditable``."""
    unix = text.replace("\r\n", "\n")
    expected = _changed(_read(unix, suffix), keys, value)
    for edit in _EDITS[suffix]:
        found = edit(unix, keys, value)
        if found is not None and _is_that(found, suffix, expected) and (suffix == ".json" or _keeps(unix, found)):
            return found if unix == text else found.replace("\n", "\r\n")
    raise NotEditable("its layout is one that only a person can change")


def lines_to_write(suffix: str, keys: Sequence[str], value: Word) -> str:
    """Return what a person would write."""
    if suffix == ".toml":
        return f"[{'.'.join(map(_toml_key, keys[:-1]))}]\n{keys[-1]} = {json.dumps(value)}\n"
    if suffix == ".json":
        return json.dumps(_nested(keys, value), indent=2) + "\n"
    return "".join(_yaml_lines(keys, value, 0))


def _read(text: str, suffix: str) -> dict[str, Any]:
    if suffix == ".toml":
        import tomllib

        return tomllib.loads(text)  # with the dates of others' tables
    return dict(json.loads(text) if suffix == ".json" else parse(text.encode(), suffix)) if text.strip() else {}


def _changed(data: dict[str, Any], keys: Sequence[str], value: Word) -> dict[str, Any]:
    changed = table = copy.deepcopy(data)
    for key in keys[:-1]:
        table = table.setdefault(key, {})
    table[keys[-1]] = value
    return changed


def _is_that(text: str, suffix: str, expected: dict[str, Any]) -> bool:
    try:
        return _read(text, suffix) == expected
    except (ValueError, Unreadable):
        return False


def _keeps(before: str, after: str) -> bool:
    """Whether at most one line is another than before."""
    return sum((Counter(before.splitlines()) - Counter(after.splitlines())).values()) <= 1


def _toml(text: str, keys: Sequence[str], value: Word) -> str | None:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError
    from tomlkit.items import InlineTable

    try:
        document = tomlkit.parse(text)
        table: Any = document
        for depth, key in enumerate(keys[:-1]):
            if key not in table and isinstance(table, InlineTable):
                table[key] = tomlkit.inline_table() | _nested(keys[depth + 1 :], value)
                return tomlkit.dumps(document)
            if key not in table:
                return None
            table = table[key]
        table[keys[-1]] = value
        return tomlkit.dumps(document)
    except (TOMLKitError, ValueError):  # what tomllib reads all the same
        return None


def _toml_table(text: str, keys: Sequence[str], value: Word) -> str | None:
    """Make a table of its own, behind the last one beside it."""
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    end = _end_of_tables(lines, keys[:-2])
    before = "" if not end or not lines[end - 1].strip() else "\n"
    after = "\n" if end < len(lines) and lines[end].strip() else ""
    return "".join([*lines[:end], before, lines_to_write(".toml", keys, value), after, *lines[end:]])


def _toml_end(text: str, keys: Sequence[str], value: Word) -> str | None:
    return f"{text.rstrip()}\n\n{lines_to_write('.toml', keys, value)}"


def _end_of_tables(lines: Sequence[str], beside: Sequence[str]) -> int:
    """Return the number of the line behind the last table below ``beside``; the end of the text if there is none."""
    from .._lines import lines as lines_of

    known = lines_of("".join(lines), ".toml")
    below = [line for keys, line in known.items() if keys[: len(beside)] == tuple(beside)]
    # What stands at the top of the text must not come to stand in the new table.
    later = sorted(line for keys, line in known.items() if below and line > max(below))
    if not later:
        return len(lines)
    end = later[0] - 1
    # The comment above a table is the table's.
    while end > max(below) and lines[end - 1].lstrip().startswith("#"):
        end -= 1
    return end


def _json(text: str, keys: Sequence[str], value: Word) -> str | None:
    indent = re.search(r'^[{\[]\s*\n([ \t]+)"', text)
    separators = (",", ": " if '": ' in text or indent or not text.strip() else ":")
    written = json.dumps(
        _changed(_read(text, ".json"), keys, value),
        indent=indent[1] if indent else None,
        separators=separators if indent else (separators[0] + (" " if ", " in text else ""), separators[1]),
        ensure_ascii=text.isascii(),
    )
    return written + text[len(text.rstrip()) :]


def _yaml(text: str, keys: Sequence[str], value: Word) -> str | None:
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    node: Any = yaml.compose(text, loader)
    for depth, key in enumerate(keys):
        if node.id != "mapping":
            return None
        part = next((part for name, part in node.value if name.value == key), None)
        if part is None:
            return _with_entry(text, node, keys[depth:], value)
        node = part
    start, end = node.start_mark.index, node.end_mark.index
    return None if node.id != "scalar" else f"{text[:start]}{'' if start < end else ' '}{_yaml_word(value)}{text[end:]}"


def _with_entry(text: str, node: Any, keys: Sequence[str], value: Word) -> str | None:  # Any: one of PyYAML's nodes
    """Return the text with a further entry at the end of a mapping."""
    if node.flow_style:
        end = node.end_mark.index - 1
        entry = f"{_yaml_key(keys[0])}: {_yaml_flow(keys[1:], value)}"
        return f"{text[:end].rstrip()}{', ' if node.value else ''}{entry}{text[end:]}"
    last = node
    while last.id != "scalar" and not last.flow_style and last.value:
        last = last.value[-1][1] if last.id == "mapping" else last.value[-1]
    end = last.end_mark.index
    if last.end_mark.column:
        end = text.find("\n", end) + 1 or len(text)
    new_line = "" if text[:end].endswith("\n") else "\n"
    return text[:end] + new_line + "".join(_yaml_lines(keys, value, node.start_mark.column)) + text[end:]


def _yaml_lines(keys: Sequence[str], value: Word, column: int) -> Iterator[str]:
    for depth, key in enumerate(keys):
        yield " " * (column + 2 * depth) + _yaml_key(key) + (":\n" if depth < len(keys) - 1 else f": {_yaml_word(value)}\n")


def _yaml_flow(keys: Sequence[str], value: Word) -> str:
    return f"{{{_yaml_key(keys[0])}: {_yaml_flow(keys[1:], value)}}}" if keys else _yaml_word(value)


def _yaml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", key) and key.lower() not in _YAML_WORDS else json.dumps(key)


# What a parser of YAML 1.1 takes for something else.
_YAML_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


def _yaml_word(value: Word) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key, re.ASCII) else json.dumps(key)


def _nested(keys: Sequence[str], value: Word) -> Any:
    return {keys[0]: _nested(keys[1:], value)} if keys else value


_EDITS: dict[str, tuple[Callable[[str, Sequence[str], Word], str | None], ...]] = {
    ".toml": (_toml, _toml_table, _toml_end),
    ".json": (_json,),
    ".yaml": (_yaml,),
    ".yml": (_yaml,),
}
