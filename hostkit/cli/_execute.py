"""``hostkit execute``: one call; the answer alone on stdout."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import click

from .._host import Host
from .._raised import invalid_request
from .._worker._data import DataError
from . import _status
from ._output import Output
from ._request import load, read_request
from ._session import Session
from ._verb import IsolationWord, Pair, PluginName, Seconds, Verb, verbose_option


@click.command("execute", cls=Verb, epilog="The request is checked before anything is started. Exit status as in hostkit -h.")
@click.argument("name", type=PluginName())
@click.argument("words", metavar="[JSON | KEY=VALUE ... | -]", nargs=-1, type=click.UNPROCESSED)
@click.option("--isolation", type=IsolationWord(), help="Where to run it; never below what the operator demands.")
@click.option("--timeout", type=Seconds(unlimited=True), help='Time for the call: seconds, "500ms", "5s", or "none".')
@click.option("--header", "headers", multiple=True, type=Pair(), help="A header of the call; may be repeated.")
@click.option("--metadata", metavar="JSON", help="Metadata of the call: a JSON object.")
@click.option("--request-id", metavar="TEXT", help="The call's id, for the log and the plugin.")
@click.option("--max-retries", type=click.IntRange(0, 100), help="How often a call that may be repeated is repeated.")
@click.option("--grace", type=Seconds(), default=5.0, show_default=True, help="Time for the call to end after a SIGTERM.")
@verbose_option
@click.pass_obj
def verb(
    session: Session,
    /,
    name: str,
    words: tuple[str, ...],
    isolation: str | None,
    grace: float,
    headers: Sequence[tuple[str, str]],
    metadata: str | None,
    **call: Any,  # what Host.execute takes beside
) -> int:
    """Call the plugin NAME and print its answer as JSON.

    The request is one JSON text, or key=value pairs whose values are JSON where they can be and text where not, or - for JSON on
    stdin; without one it is {}. The answer stands alone on stdout: indented on a terminal, on one line elsewhere; a plugin that
    streams gets a line for each item, as it comes. Everything else goes to stderr.
    """
    call["headers"] = _headers(headers)
    with session.host() as (host, output):
        call["metadata"], request = _checked(host, name, words, metadata, call)
        host.load(name, isolation=isolation)
        if session.signals.draining:
            raise KeyboardInterrupt
        with session.signals.call(grace):
            _call(host, output, name, request, call)
    return _status.ANSWERED


def _headers(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    headers = dict(pairs)
    if len(headers) < len(pairs):
        raise click.UsageError("--header: each key may be given once")
    return headers


def _checked(host: Host, name: str, words: Sequence[str], metadata: str | None, call: dict[str, Any]) -> tuple[Any, Any]:
    """Return metadata and request, after all that can be known to be wrong without the plugin has been looked for."""
    record = host._loader.record(name)  # raises for a name that isn't there, before stdin is read
    try:
        data = None if metadata is None else _metadata(metadata)
        record.context(**call, metadata=data)
        return data, read_request(words, record.config.max_message_mb << 20)
    except DataError as error:
        raise invalid_request(error.rows, plugin=name, request_id=call["request_id"] or "") from None


def _metadata(text: str) -> dict[str, Any]:
    data = load(text)
    if not isinstance(data, dict):
        raise DataError("metadata", "a JSON object", text[:100])
    return data


def _call(host: Host, output: Output, name: str, request: Any, call: dict[str, Any]) -> None:
    lane = host._loader.record(name).lane
    if lane is None or not lane.streams:
        output.json(host.execute(name, request, **call))
        return
    with closing(host.stream(name, request, **call)) as items:  # type: ignore[type-var]  # a generator
        for item in items:
            output.json(item, one_line=True)
