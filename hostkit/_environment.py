"""The operator's settings in ``HOSTKIT_*`` environment variables. Standard library only, because a listing asks for them.

    HOSTKIT_DEFAULTS__TIMEOUT=5s                       defaults.timeout = "5s"
    HOSTKIT_PLUGINS__CALCULATOR__RETRY__ATTEMPTS=3     plugins.calculator.retry.attempts = 3

Two underscores part the levels. Values are JSON, else text. Variables without two underscores are others' business.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ._errors import ConfigError
from ._names import normalized
from ._parsing import Unreadable, value

_PREFIX, _SEPARATOR = "HOSTKIT_", "__"
_TABLES = ("audit", "defaults", "discovery", "exporters", "lock", "plugins", "template")


@dataclass(frozen=True, slots=True)
class Setting:
    """One variable; ``keys`` is where in the configuration its value goes. A plugin's name in it is normalized."""

    variable: str
    keys: tuple[str, ...]
    value: Any  # Any: JSON data


def settings(environment: Mapping[str, str] = os.environ) -> list[Setting]:
    """Return what the environment sets, in a fixed order. Raises ``ConfigError`` that names the variable."""
    found, wrong = read_settings(environment)
    for variable, words in wrong.items():
        raise ConfigError(f"{variable}: {words}")
    return found


def read_settings(environment: Mapping[str, str] = os.environ) -> tuple[list[Setting], dict[str, str]]:
    """Return what the environment sets, in a fixed order, and variable → what is wrong with it."""
    found: list[Setting] = []
    wrong: dict[str, str] = {}
    for variable in sorted(filter(_is_ours, environment)):
        try:
            found.append(Setting(variable, _keys(variable), value(environment[variable])))
        except (_NoKey, Unreadable) as error:
            wrong[variable] = str(error)
    return found, wrong


class _NoKey(Exception):
    """A variable's name leads nowhere."""


def _is_ours(variable: str) -> bool:
    return variable.startswith(_PREFIX) and (_SEPARATOR in variable or variable.removeprefix(_PREFIX).lower() in _TABLES)


def _keys(variable: str) -> tuple[str, ...]:
    table, *keys = variable.removeprefix(_PREFIX).lower().split(_SEPARATOR)
    if table not in _TABLES:
        near = difflib.get_close_matches(table, _TABLES, 1) or ["defaults"]
        raise _NoKey(f"there is no table {table!r}; did you mean {_PREFIX}{near[0].upper()}{_SEPARATOR}...?")
    if not keys or not all(key.strip("_") for key in keys):
        raise _NoKey(f"expected a key after the table, like {_PREFIX}DEFAULTS{_SEPARATOR}TIMEOUT")
    if table == "plugins":
        keys[0] = normalized(keys[0])
    return (table, *keys)
