"""Which running host is meant: the options of the verbs that attach to one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .._attach import Attached, NotRunning, Running, found
from ._session import Session


def running_host_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb ``--pid`` and ``--socket``; it gets ``pid`` and ``socket``, for ``attached``."""
    pid = click.option("--pid", type=int, metavar="PID", help="The process of the host.  [default: the one that is running]")
    path = click.Path(path_type=Path)
    socket = click.option("--socket", type=path, metavar="PATH", help="Its admin socket, where it has a path of its own.")
    return pid(socket(function))


def attached(session: Session, pid: int | None, socket: Path | None) -> Attached:
    """Return the host that is meant, after it has answered. Raises ``NotRunning`` with the choice there is, and ``Refused``."""
    host = Attached(socket if socket is not None else _chosen(session.app, pid).path)
    host.ask("snapshot")
    return host


def _chosen(app: str, pid: int | None) -> Running:
    hosts = found()
    meant = [host for host in hosts if pid in (None, host.pid) and app in (_ANY, host.app)]
    if len(meant) > 1:
        meant = [host for host in meant if host.app == app] or meant
    if len(meant) == 1:
        return meant[0]
    there = "; ".join(f"--pid {host.pid} is {host.app}" for host in hosts)
    if meant:
        raise NotRunning(f"more than one host is running, say which one is meant: {there}")
    which = "" if pid is None else f" of process {pid}"
    which += "" if app == _ANY else f" of application {app!r}"
    raise NotRunning(
        f"no host{which} of this user can be asked; one can that was made with Host(..., admin=True), for as long as it is open"
        + (f". There: {there}" if there else "")
    )


# What --app says where it isn't given: then any host will do, if there is only one.
_ANY = "hostkit"
