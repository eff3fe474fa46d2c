"""Where each value that holds comes from: a default, a line of the file, a variable, or the application itself.

A plugin's own table goes before ``[defaults]``, and in either the environment goes before the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ._config import HostConfig
from ._environment import Setting
from ._fields import Model
from ._lines import Keys, place
from ._names import normalized
from ._reading import Reading, spelled


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from. ``table`` is ``defaults`` where a plugin's value stands there and not in its own table."""

    kind: Literal["default", "file", "environment", "argument"]
    file: Path | None = None
    line: int | None = None
    variable: str = ""
    table: str = ""

    def __str__(self) -> str:
        named = {"file": place(self.file, self.line), "environment": self.variable}.get(self.kind, self.kind)
        return f"{named} [{self.table}]" if self.table else named


@dataclass(frozen=True, slots=True)
class Value:
    """One value that holds, as JSON data. ``reference`` is the text with ``${VAR}`` in it that the value was made from: whoever may not
    see what the environment holds is shown that. ``own`` says that it stands in the plugin's ``config`` table."""

    keys: Keys
    value: Any
    origin: Origin
    reference: Any = None
    own: bool = False


class Origins:
    """Tells of the values of one configuration."""

    def __init__(self, reading: Reading) -> None:
        if reading.config is None:
            raise ValueError("a configuration that is wrong has no values")
        self._config = reading.config
        self._given: _Operator | _Argument = _Operator(reading)

    @classmethod
    def of_argument(cls, config: HostConfig) -> Origins:
        """Return the origins of what an application passes itself."""
        made = cls.__new__(cls)
        made._config = config
        made._given = _Argument(config)
        return made

    def of_host(self) -> Iterator[Value]:
        """Yield what holds for the host, and for plugins that say nothing else."""
        for table in HostConfig.model_fields:
            if table != "plugins":
                yield from self._leaves(getattr(self._config, table), (table,), [(table,)])

    def of_plugin(self, name: str) -> Iterator[Value]:
        """Yield what holds for one plugin."""
        own = next((other for other in self._config.plugins if normalized(other) == normalized(name)), name)
        yield from self._leaves(self._config.plugin(name), ("plugins", own), [("plugins", own), ("defaults",)])

    def of_key(self, keys: Keys) -> Origin:
        """Return where the value at ``keys`` comes from, whatever may stand in for it elsewhere."""
        given = self._given.origin(keys)
        return Origin("default") if given is None else given[1]

    def _leaves(self, value: Any, keys: Keys, tables: Sequence[Keys]) -> Iterator[Value]:
        """Yield the values in ``value``, each with the first of ``tables`` that has a word for it."""
        inside = {key: getattr(value, key) for key in type(value).model_fields} if isinstance(value, Model) else value
        in_own = keys[:1] == ("plugins",) and keys[2:3] == ("config",)
        if isinstance(inside, Mapping) and (isinstance(value, Model) or (in_own and inside)):
            for key, part in inside.items():
                yield from self._leaves(part, (*keys, key), [(*table, key) for table in tables])
            return
        given = next((found for table in tables if (found := self._given.origin(table)) is not None), None)
        at, origin = (keys, Origin("default")) if given is None else given
        if origin.kind != "default" and at[:1] != keys[:1]:
            origin = Origin(origin.kind, origin.file, origin.line, origin.variable, table=str(at[0]))
        yield Value(keys, _plain(value), origin, self._given.reference(at) if origin.kind == "file" else None, own=in_own)


def overriding(reading: Reading, keys: Keys) -> Setting | None:
    """Return the environment's setting that goes before what the file has at ``keys``."""
    for setting in reversed(reading.settings):
        depth = len(setting.keys)
        same = all(_is_same(*pair) for pair in zip(range(depth), keys, setting.keys, strict=False))
        if same and depth <= len(keys) and _has(setting.value, keys[depth:]):
            return setting
    return None


def _is_same(depth: int, key: object, other: str) -> bool:
    """Whether two keys are one; those of plugins are compared as names are."""
    return normalized(str(key)) == normalized(other) if depth == 1 else key == other


class _Operator:
    """What file and environment say."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def origin(self, keys: Keys) -> tuple[Keys, Origin] | None:
        setting = overriding(self._reading, keys)
        if setting is not None:
            return keys, Origin("environment", variable=setting.variable)
        at = spelled(self._reading.document, tuple(map(str, keys)))
        if not _has(self._reading.document, at):
            return None
        return at, Origin("file", self._reading.path, self._reading.document.line(at))

    def reference(self, keys: Keys, /) -> Any:
        """Return what the file has at ``keys``, where the environment had a part in it."""
        if not any(known[: len(keys)] == keys for known in self._reading.references):
            return None
        value: Any = self._reading.document
        for key in keys:
            value = value[key]
        return value


class _Argument:
    """What the application says."""

    def __init__(self, config: HostConfig) -> None:
        self._given = config.model_dump(mode="json", exclude_unset=True)

    def origin(self, keys: Keys) -> tuple[Keys, Origin] | None:
        return (keys, Origin("argument")) if _has(self._given, keys) else None

    def reference(self, _keys: Keys, /) -> Any:
        return None


def _has(data: Any, keys: Keys) -> bool:
    for key in keys:
        if not isinstance(data, Mapping) or key not in data:
            return False
        data = data[key]
    return True


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value
