"""``python -m hostkit.testing.badplugin [FAULT]``: list the faults, or run one in a small host and tell what came of it."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from hostkit._errors import WorkerLost
from hostkit._host import Host
from hostkit.testing import Told, answers_soon, hear, install, no_leaks, survives, tried

from . import FAULTS, Fault
from . import install as install_bad
from ._table import CLOSE, HEALTH, IMPORT, INIT, found

_GROUP = "badplugin.plugins"
_NEIGHBOUR = "class P:\n    def execute(self, ctx, request):\n        return request\n"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("fault", required=False)
@click.option("--isolation", type=click.Choice(["process", "none"]), default="process", show_default=True, help="Where to run it.")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds for the call; each fault has its own default."
)
def main(fault: str | None, isolation: str, timeout: float | None) -> None:
    """Run FAULT in a small host and tell what the caller was told; without FAULT, list them.

    Exit status: 0 the host survived as promised, 1 it didn't, 2 there is no such fault, or it may not run in-process.
    """
    if fault is None:
        _list()
        return
    try:
        chosen = found(fault)
    except LookupError as error:
        raise click.UsageError(str(error)) from None
    if chosen.alone and isolation == "none":
        raise click.UsageError(f"the fault {chosen.name!r} would end, stop or spoil this process: it runs in a worker only")
    try:
        with no_leaks(), _host(chosen, isolation) as host:
            _run(host, chosen, timeout)
        click.echo("left behind: nothing")
    except AssertionError as error:
        click.echo(f"survived: no: {error}")
        sys.exit(1)
    click.echo("survived: yes")


def _list() -> None:
    width = max(map(len, FAULTS))
    for name, fault in sorted(FAULTS.items()):
        where = " [worker only]" if fault.alone else ""
        click.echo(f"{name:{width}}  {fault.does.splitlines()[0]} → {' or '.join(fault.told)}{where}")


@contextmanager
def _host(fault: Fault, isolation: str) -> Iterator[Host]:
    """Install the bad plugin and a neighbour in a place of their own, and give a host that has the neighbour loaded."""
    with tempfile.TemporaryDirectory(prefix="badplugin-") as place:
        install_bad(Path(place), group=_GROUP, fault=fault.name if fault.stage in (IMPORT, INIT) else "")
        install(Path(place), "neighbour", _NEIGHBOUR, group=_GROUP)
        sys.path.insert(0, place)
        settings = {"isolation": isolation, **fault.settings}
        try:
            # Its faults are about surviving; what a sandbox forbids, containment.md shows.
            with Host("badplugin", config={"defaults": {"sandbox": "off"}, "plugins": {"bad": settings}}) as host:
                host.load("neighbour", isolation=isolation)
                yield host
        finally:
            sys.path.remove(place)
            for name in ("bad", "neighbour"):  # a second run in this process is of other files
                sys.modules.pop(name, None)


def _run(host: Host, fault: Fault, timeout: float | None) -> None:
    def neighbour() -> object:
        return host.execute("neighbour", "hello", timeout=1.0)

    with hear() as log:
        if fault.stage in (IMPORT, INIT):
            word = _show(tried(lambda: host.load("bad")))
        elif fault.stage == HEALTH:
            word = _check_health(host, fault)
        elif fault.stage == CLOSE:
            word = _close(host, fault, log)
        else:
            told, following = survives(
                host, "bad", {"fault": fault.name}, timeout=timeout or fault.timeout, neighbour=neighbour, log=log
            )
            word = _show(told)
            _show_next(following)
        click.echo(f"another plugin: answered in {answers_soon(neighbour) * 1000:.1f} ms")
    assert word in fault.told, f"{' or '.join(fault.told)} was promised, and not {word}"


def _show(told: Told) -> str:
    """Print what the caller was told; return the word for it."""
    error: Any = told.error  # of some class of hostkit's
    click.echo(f"told: {told.word}, after {told.seconds:.3f} s")
    if error is None:
        click.echo(f"answer: {str(told.answer)[:200]!r}")
        return told.word
    click.echo(f"message: {error}")
    if isinstance(error, WorkerLost):
        if error.exit_code is not None:
            click.echo(f"exit code: {error.exit_code}")
        if error.signal is not None:
            click.echo(f"signal: {error.signal} ({signal.Signals(error.signal).name})")
    return told.word


def _check_health(host: Host, fault: Fault) -> str:
    host.execute("bad", {"fault": fault.name})
    status = host.health("bad")
    click.echo(f"health: {status.status.value}: {status.message}")
    _show_next(tried(lambda: host.execute("bad", None)))
    word: str = status.status.value
    return word


def _close(host: Host, fault: Fault, log: list[dict[str, Any]]) -> str:
    host.execute("bad", {"fault": fault.name})
    closed = tried(lambda: host.unload("bad"))
    assert closed.error is None, f"unload raised {closed.error!r}"
    records = [record["text"] for record in log if record["level"] == "ERROR"]
    assert len(records) == 1, f"the log has {len(records)} errors, not one: {records}"
    click.echo(f"log: {records[0]}, after {closed.seconds:.3f} s")
    _show_next(tried(lambda: host.execute("bad", None)))
    return "log"


def _show_next(told: Told) -> None:
    assert told.error is None, f"the next call: {told.error!r}"
    click.echo(f"next call: answered in {told.seconds * 1000:.1f} ms")


if __name__ == "__main__":
    main(prog_name="python -m hostkit.testing.badplugin")
