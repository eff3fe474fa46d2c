"""``hostkit dashboard``: a running host in a browser, until Ctrl-C."""

from __future__ import annotations

import os
import secrets
import socket as sockets
import stat
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .._attach import found
from .._errors import ConfigError
from . import _status
from ._attached import attached, running_host_options
from ._session import Session
from ._told import tell
from ._verb import Verb, verbose_option

if TYPE_CHECKING:
    from .._dashboard._serving import Serving

_PORT = 8642
_VARIABLE = "HOSTKIT_DASHBOARD_TOKEN"
# Half of what a random one has: who chooses a token has to choose one that can't be guessed.
_SHORTEST = 16
_OPEN = (
    "--host {}: whoever reaches this address can try the token, and what is sent isn't encrypted; a tunnel by SSH to 127.0.0.1 is"
)


@click.command("dashboard", cls=Verb)
@running_host_options
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=_PORT, show_default=True, help="The port; 0 takes any that is free.")
@click.option(
    "--allow-host", "names", metavar="NAME", multiple=True, help="A host name by which a browser may call it, beside localhost."
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"The token, in a file that only you can read.  [default: ${_VARIABLE}, else a random one]",
)
@verbose_option
@click.pass_obj
def verb(
    session: Session, pid: int | None, socket: Path | None, host: str, port: int, names: tuple[str, ...], token_file: Path | None
) -> int:
    """Show a running host in a browser, and let whoever has the token isolate, drain and restart its plugins.

    The address to open is printed, with the token in it if it is a random one. Ends with Ctrl-C.
    """
    token, source = _token(token_file)
    with session.log_on_stderr(), _serving(session, pid, socket, (host, port), names, token) as serving:
        serving.start()
        _announce(session, serving.address, token, source)
        serving.wait()
    return _status.FAULT  # it ends by a signal only


@contextmanager
def _serving(
    session: Session, pid: int | None, path: Path | None, place: tuple[str, int], names: tuple[str, ...], token: str
) -> Iterator[Serving]:
    try:
        from .._dashboard._app import Dashboard
        from .._dashboard._guard import HostNames
        from .._dashboard._line import Line
        from .._dashboard._serving import Serving
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("starlette", "uvicorn"):
            raise
        raise ConfigError(f"hostkit dashboard needs {error.name}, which is not installed: pip install 'hostkit[web]'") from error
    with ExitStack() as ending:
        running = ending.enter_context(attached(session, pid, path))
        # Whoever named a process or a path meant that one, and no other that comes after it.
        find = found if pid is None and path is None else list
        line = ending.enter_context(closing(Line(running, running.ask("snapshot")["app"], find)))
        listener = ending.enter_context(_listener(*place))
        loopback = ip_address(listener.getsockname()[0]).is_loopback
        if not loopback:
            tell(f"hostkit: warning: {_OPEN.format(place[0])}")
            names = (*names, sockets.gethostname())
        serving = Serving(Dashboard(line), listener, token=token, names=HostNames(names, loopback=loopback))
        try:
            yield serving
        finally:
            with session.signals.closing():
                serving.close()


def _listener(host: str, port: int) -> sockets.socket:
    try:
        family, *_, address = sockets.getaddrinfo(host, port, type=sockets.SOCK_STREAM, flags=sockets.AI_PASSIVE)[0]
        return sockets.create_server(address[:2], family=family)
    except OSError as error:
        hint = "; --port 0 takes one that is free" if port else ""
        raise ConfigError(f"--host {host} --port {port}: can't listen there: {error.strerror or error}{hint}") from error


def _token(file: Path | None) -> tuple[str, str]:
    """Return the token and where it comes from; nowhere if it was made just now. Raises ``ConfigError``."""
    if file is not None:
        return _checked(_contents(file), f"--token-file {file}"), str(file)
    text = os.environ.get(_VARIABLE)
    if text is not None:
        return _checked(text, f"${_VARIABLE}"), f"${_VARIABLE}"
    return secrets.token_urlsafe(32), ""


def _contents(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            if stat.S_ISREG(mode) and mode & 0o077:
                raise ConfigError(f"--token-file {file}: others can read or write it; chmod 600 {file}")
            return opened.read(4096).decode("ascii").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--token-file {file}: {getattr(error, 'strerror', None) or 'expected letters, digits and signs'}"
        ) from error


def _checked(token: str, where: str) -> str:
    if len(token) < _SHORTEST:
        raise ConfigError(f"{where}: expected a token of at least {_SHORTEST} characters, found {len(token)}")
    if not all("!" <= letter <= "~" for letter in token):
        raise ConfigError(f"{where}: expected a token of letters, digits and signs, found a space or something else in it")
    return token


def _announce(session: Session, address: str, token: str, source: str) -> None:
    shown = address if source else f"{address}#token={token}"
    if session.json:
        session.output.json({"address": address, "token": None if source else token}, one_line=True)
        return
    session.output.line(shown)
    tell(f"hostkit: {'the token is that of ' + source if source else 'open this address'}; Ctrl-C ends it")
