"""Run every act in a host at each level, and say what became of it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import hostkit
from hostkit import testing

from ._stage import GROUP, PLUGIN, QUIET, Stage
from ._table import ACTS, Act

LEVELS = ("off", "standard", "strict")

REACHED = "reached"  # it was done, and seen where it shows outside of the worker
DENIED = "denied"  # the kernel refused it
HIDDEN = "hidden"  # what it reaches for is not there
LIMITED = "limited"  # it was done as far as a limit goes, or came to nothing
ENDED = "ended"  # it cost the plugin its worker, and nobody else anything
ABSENT = "absent"  # this machine has no such thing
BROKEN = "broken"  # the act itself went wrong, or claims what nobody saw

_WORDS = {
    DENIED: ("EPERM", "EACCES", "EROFS", "EXDEV"),
    HIDDEN: ("ENOENT", "ESRCH", "ENOTDIR", "EIDRM"),
    LIMITED: ("EAGAIN", "EMFILE", "ENOMEM", "ENOSPC", "EFBIG", "EDQUOT"),
}


class Row(NamedTuple):
    """What became of an act: a word, and how it was stopped or what proves that it was not."""

    word: str
    how: str


@contextmanager
def stage() -> Iterator[Stage]:
    """Put up a stage in a directory of its own, as the current one, with what is installed there to be found."""
    before = os.getcwd()
    with (
        tempfile.TemporaryDirectory(prefix="esc-", ignore_cleanup_errors=True) as place,
        Stage(Path(place).resolve()).open() as made,
    ):
        os.chdir(made.target["project"])
        sys.path.insert(0, str(made.site))
        try:
            yield made
        finally:
            sys.path.remove(str(made.site))
            os.chdir(before)


def run(made: Stage, level: str, names: Iterable[str] = tuple(ACTS), permissions: str = "") -> dict[str, Row]:
    """Try these acts, in their order, in one host at a level, with what is granted of permissions.

    Raises ``SandboxUnavailable`` where the machine can't hold it.
    """
    with hostkit.Host(GROUP, config=made.configuration(level, permissions)) as host:
        host.load("neighbour", isolation="process")
        host.load(PLUGIN, isolation="process")
        return {name: _row(host, made, ACTS[name], level) for name in names}


def _row(host: hostkit.Host, made: Stage, act: Act, level: str) -> Row:
    made.meet(host)
    made.exit_code = None
    target = {**made.target, "blob": bytes(1 << 18)} if act.name == "truncate-shared-memory" else made.target
    told = testing.tried(lambda: host.execute(PLUGIN, {"act": act.name, "target": target}, timeout=20.0))
    row = _lost(made, told.error) if told.error is not None else _answered(told.answer, level)
    row = _seen(made, act, row)
    made.mend()
    if act.alone and row.word in (REACHED, ENDED) and not isinstance(told.error, hostkit.WorkerLost):
        host.reload(PLUGIN)  # its worker is there, and must not be used again
    if told.error is not None or act.alone:
        testing.answers_soon(lambda: host.execute("neighbour", {}))
        host.execute(PLUGIN, {}, timeout=10.0)
    return row


def _lost(made: Stage, error: hostkit.HostkitError) -> Row:
    if isinstance(error, hostkit.PluginFailed):
        return Row(BROKEN, str(error))
    if isinstance(error, hostkit.WorkerLost):
        made.exit_code = error.exit_code
    return Row(ENDED, type(error).__name__)


def _answered(answer: Mapping[str, Any], level: str) -> Row:
    how = answer["how"]
    if not answer["blocked"]:
        return Row(REACHED, how)
    begin = how.partition(":")[0]
    if begin in (LIMITED, HIDDEN, ABSENT):
        return Row(begin, how)
    code = how.rpartition(" ")[2]
    if code == "ENOSYS" and level != LEVELS[0]:
        return Row(DENIED, how)  # how a filter says that there is no such call
    return Row(next((word for word, codes in _WORDS.items() if code in codes), ABSENT), how)


def _seen(made: Stage, act: Act, row: Row) -> Row:
    """Believe one's eyes more than the act's own words."""
    seen = made.saw(act.name, row.how, row.word == REACHED)
    if seen and row.word == REACHED:
        return row
    if seen:
        return Row(REACHED, f"seen from outside; the call ended with {row.how}")
    if seen is False and row.word == REACHED:
        return Row(LIMITED, "nothing came of it") if act.name in QUIET else Row(BROKEN, f"nobody saw that: {row.how}")
    return row
