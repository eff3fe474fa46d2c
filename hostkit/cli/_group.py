"""From arguments to an exit status: options, the verb's module, and every way in which a run can end."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click
from click.shell_completion import shell_complete

from .. import __version__
from .._errors import HostkitError
from . import VERBS, _status
from ._output import OutputFailed, OutputGone, silence
from ._session import Session
from ._signals import Signals, kill_workers
from ._told import tell, tell_error
from ._verb import VerbTable, shared_options

# The documented name of click's own protocol for completion.
_COMPLETE = "_HOSTKIT_COMPLETE"


class Verbs(VerbTable):
    """All verbs."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> NoReturn:  # type: ignore[override]
        """What click's own test runner calls."""
        raise SystemExit(run(list(args or ()), Signals()))


def _show_version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        context.obj.output.line(f"hostkit {__version__} (Python {platform.python_version()})")
        context.exit()


def _without_verb() -> None:
    context = click.get_current_context()
    if context.invoked_subcommand is None:
        raise click.exceptions.NoArgsIsHelpError(context)


hostkit = Verbs(
    "hostkit",
    table=VERBS,
    callback=_without_verb,
    invoke_without_command=True,
    params=[
        *shared_options(),
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_version,
            help="Show the version and exit.",
        ),
    ],
    subcommand_metavar="VERB ...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="Find, call and check plugins, in this process or isolated in another one.",
    epilog=(
        "Exit status: 0 answered, 1 the plugin failed, 2 wrong usage or request, 3 not found or refused, 4 timed out, "
        "5 the worker was lost, 130 interrupted, 143 terminated."
    ),
)


def run(arguments: list[str], signals: Signals) -> int:
    """Run one command line and return its exit status. Whatever happens is one sentence on stderr, never a traceback."""
    as_json = "--json" in (arguments[: arguments.index("--")] if "--" in arguments else arguments)
    session = Session(signals, json=as_json)
    try:
        status = _invoked(arguments, session)
    except click.exceptions.Exit as done:
        status = done.exit_code
    except click.ClickException as error:
        status = _tell_usage(error, as_json=as_json)
    except (KeyboardInterrupt, click.Abort, EOFError):
        kill_workers()
        status = signals.status or 130
    except OutputGone:
        status = _status.PIPE
    except BrokenPipeError:  # click's own printing of help
        silence(sys.stdout)
        status = _status.PIPE
    except HostkitError as error:
        status = _status.status_of(error)
        kind, verbose = type(error).__name__, session.verbose
        tell_error(kind, str(error), status=status, as_json=as_json, verbose=verbose, carried=vars(error))
    except OutputFailed as error:
        status = _status.FAULT
        tell_error("OutputFailed", str(error), status=status, as_json=as_json)
    except Exception as error:  # no traceback of hostkit's own reaches a user
        status = _status.FAULT
        tell_error(f"fault in hostkit{_place(error)}: {type(error).__name__}", str(error), status=status, as_json=as_json)
    if signals.status and as_json:
        tell_error("Interrupted", _SIGNALS.get(signals.status, "ended"), status=signals.status, as_json=True)
    return signals.status or status


_SIGNALS = {130: "interrupted by Ctrl-C", 143: "terminated by SIGTERM"}


def _invoked(arguments: list[str], session: Session) -> int:
    instruction = os.environ.get(_COMPLETE)
    if instruction:
        return shell_complete(hostkit, {"obj": session}, "hostkit", _COMPLETE, instruction)
    with hostkit.make_context("hostkit", arguments, obj=session) as context:
        status: int = hostkit.invoke(context)
    return status


def _tell_usage(error: click.ClickException, *, as_json: bool) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        tell(error.format_message())
        return _status.USAGE
    tell_error("UsageError", error.format_message(), status=_status.USAGE, as_json=as_json)
    context = getattr(error, "ctx", None)
    if context is not None and not as_json:
        tell(f"  ({context.command_path} -h shows how it is used)")
    return _status.USAGE


def _place(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f" at {trace.tb_frame.f_globals.get('__name__')}:{trace.tb_lineno}"
