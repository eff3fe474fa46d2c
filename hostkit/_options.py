"""What a caller may give with one call, beside the request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._errors import CallError
from ._raised import invalid_request
from ._worker._data import DataError, found
from ._worker._json import dump_json

# In the order in which functions take them.
NAMES = ("timeout", "headers", "metadata", "request_id", "max_retries")


def check(
    plugin: str,
    headers: Mapping[str, str] | None,
    metadata: Mapping[str, Any] | None,
    request_id: str | None,
    max_retries: int | None,
) -> None:
    """Raise ``InvalidRequest`` for what is none of them; the timeout is looked at where it is used, because a call would cost a tenth
    of it. None and an empty mapping are nothing given."""
    if request_id is not None and not (isinstance(request_id, str) and 0 < len(request_id) <= 200 and request_id.isprintable()):
        raise wrong(plugin, "request_id", "1 to 200 printable characters", request_id)
    if max_retries is not None and not (isinstance(max_retries, int) and 0 <= max_retries <= 100):
        raise wrong(plugin, "max_retries", "a number from 0 to 100", max_retries)
    if headers or metadata:
        _check_mappings(plugin, headers or {}, metadata or {})


def _check_mappings(plugin: str, headers: Mapping[str, str], metadata: Mapping[str, Any]) -> None:
    if not all(isinstance(part, str) for pair in headers.items() for part in pair):
        raise wrong(plugin, "headers", "text to text", dict(headers))
    try:
        dump_json({"headers": dict(headers), "metadata": dict(metadata)})
    except DataError as error:
        raise invalid_request(error.rows, plugin=plugin, request_id="") from None


def wrong(plugin: str, path: str, expected: str, value: object) -> CallError:
    """Return the error for an option that is none."""
    return invalid_request([{"path": path, "expected": expected, "found": found(value)}], plugin=plugin, request_id="")
