"""``hostkit top``: a live view of a running host in the terminal, or one look at it for scripts."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from pathlib import Path

import click

from .._attach import Attached
from .._errors import ConfigError
from . import _status
from ._attached import attached, running_host_options
from ._session import Session
from ._verb import Verb

_SHORTEST, _LONGEST = 0.1, 60.0


@click.command("top", cls=Verb)
@running_host_options
@click.option(
    "--interval",
    type=click.FloatRange(_SHORTEST, _LONGEST),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to look; rates and quantiles are of the last so many seconds.",
)
@click.option("--once", is_flag=True, help="Print one table and end: the numbers of one interval from now on.")
@click.pass_obj
def verb(session: Session, pid: int | None, socket: Path | None, interval: float, once: bool) -> int:
    """Watch the plugins of a running host, and isolate, drain or restart them by a key.

    The host is one of this user that was made with Host(..., admin=True): the one that is running, or the one that --pid or --socket
    names. Without a terminal, or with --once, a plain table is printed; with --json the host's snapshot as it is.
    """
    live = not once and not session.json and _is_terminal()
    if live and importlib.util.find_spec("textual") is None:
        raise ConfigError("hostkit top needs textual, which is not installed: pip install 'hostkit[top]'; --once does without it")
    with attached(session, pid, socket) as host:
        if live:
            return _watched(host, interval)
        if session.json:
            session.output.json(host.ask("snapshot"))
        else:
            _print_once(session, host, interval)
    return _status.ANSWERED


def _is_terminal() -> bool:
    """Whether there is something to draw on and to hear keys from; textual draws on stderr."""
    streams = (sys.stdin, sys.stdout, sys.stderr)
    return all(stream is not None and stream.isatty() for stream in streams) and os.environ.get("TERM", "dumb") != "dumb"


def _watched(host: Attached, interval: float) -> int:
    from .._top._app import Top

    top = Top(host, interval=interval)
    top.run()
    return _status.FAULT if top.return_code == 1 else top.return_code or _status.ANSWERED


def _print_once(session: Session, host: Attached, interval: float) -> None:
    from .._top._once import table
    from .._top._rows import look

    before = host.ask("snapshot")
    time.sleep(interval)
    session.output.line("\n".join(table(look(before, host.ask("snapshot")))))
