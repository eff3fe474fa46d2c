"""What is shown of a plugin's settings, to an operator and in texts: the plugin says what may be (``_worker/_showable.py``)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import Secret, SecretBytes, SecretStr

from ._worker._showable import HIDDEN, ITEM, Given, holds_secret, looks_secret

# Characters of one text.
_MOST = 1000


class Unshown(Given):
    """A plugin's settings, whose text has none of the values: whatever prints a configuration, and be it a traceback, prints this.

    What an application passes as one of pydantic's secrets is in it as it is, because it has to cross; ``secrets`` are the paths of those.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        found: set[tuple[str, ...]] = set()
        try:
            plain = {key: _revealed(value, (key,), found) for key, value in config.items()}
        except RecursionError:  # it is no data either, and that is told where it is to be some
            plain = dict(config)
        super().__init__(plain, found)

    def __repr__(self) -> str:
        return repr(dict.fromkeys(self, HIDDEN))

    __str__ = __repr__


def _revealed(value: Any, path: tuple[str, ...], found: set[tuple[str, ...]]) -> Any:
    if isinstance(value, dict):
        return {key: _revealed(part, (*path, str(key)), found) for key, part in value.items()}
    if isinstance(value, list):
        return [_revealed(part, (*path, ITEM), found) for part in value]
    if not isinstance(value, (SecretStr, SecretBytes, Secret)):
        return value
    found.add(path)
    secret = value.get_secret_value()
    return secret.decode("utf-8", "surrogateescape") if isinstance(secret, bytes) else secret


def shown_config(config: Mapping[str, Any], allowed: Collection[tuple[str, ...]] = ()) -> dict[str, Any]:  # Any: JSON data
    """Return a plugin's settings with every value replaced that is not ``allowed`` to be shown, or looks like a secret.

    ``allowed`` are the backend's ``settings_shown``; nothing, where the plugin isn't loaded.
    """
    paths = frozenset(allowed) - (config.secrets if isinstance(config, Unshown) else frozenset())
    return {key: _shown(value, (key,), paths) for key, value in config.items()}


def _shown(value: Any, path: tuple[str, ...], allowed: frozenset[tuple[str, ...]]) -> Any:
    if looks_secret(path[-1]) or not any(other[: len(path)] == path for other in allowed):
        return HIDDEN
    if isinstance(value, Mapping):
        return {str(key): _shown(part, (*path, str(key)), allowed) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(part, (*path, ITEM), allowed) for part in value]
    if path not in allowed or not isinstance(value, (str, int, float, type(None))):
        return HIDDEN
    if isinstance(value, str):
        return HIDDEN if holds_secret(value) else value if len(value) <= _MOST else f"{value[:_MOST]}…"
    return value
