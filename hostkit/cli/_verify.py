"""``hostkit verify``: is what is installed what was locked?"""

from __future__ import annotations

from collections.abc import Sequence

import click

from .. import _lockfile
from .._errors import PluginNotFound
from .._finding import Finding
from .._locking import standing
from .._offered import not_found
from .._survey import Survey
from .._verification import Verification
from . import _status
from ._lock import line, row
from ._session import Session
from ._text import escaped
from ._verb import PluginName, Verb


@click.command("verify", cls=Verb)
@click.argument("names", type=PluginName(), nargs=-1, metavar="[NAME ...]")
@click.option("--anew", is_flag=True, help="Read every file, also those that have not changed since the last time.")
@click.pass_obj
def verb(session: Session, names: tuple[str, ...], anew: bool) -> int:
    """Compare the plugins NAME, or all that are installed or locked, and everything that they require, with hostkit.lock.

    Each finding is a line: its kind, whose it is, the file, what was found, and the remedy. Exit status 0 if there is none, 1 if there
    is one, 3 if there is no lock that can be read.
    """
    path = session.lock_file
    lock = _lockfile.read(path, session.group)
    wanted = list(dict.fromkeys(names)) or _all(session, lock)
    for name in wanted:
        if name not in session.specs and lock.plugin(name) is None:
            raise PluginNotFound(not_found(name, session.specs, session.group))
    survey = Survey(anew=anew)
    verification = Verification(lock, survey)
    findings = _found(session, verification, wanted)
    survey.save()
    _answer(session, wanted, findings)
    return _status.FAILED if findings else _status.ANSWERED


def _all(session: Session, lock: _lockfile.Lock) -> list[str]:
    enabled = [name for name in session.specs if session.config.plugin(name).enabled]
    locked = [name for name in lock.plugins if name in enabled or session.config.plugin(name).enabled]
    return sorted({*enabled, *locked})


def _found(session: Session, verification: Verification, names: Sequence[str]) -> list[Finding]:
    findings: dict[tuple[str, ...], Finding] = {}
    for name in names:
        spec = session.specs.get(name)
        now = None if spec is None else standing(spec, session.config.plugin(name))
        for each in verification.plugin_alone(name, now):
            # What several plugins require is told once.
            shared = (each.kind, each.distribution, each.file, each.text)
            findings.setdefault(shared if each.file else (*shared, each.plugin), each)
    return sorted([*verification.everywhere, *findings.values()])


def _answer(session: Session, names: Sequence[str], findings: Sequence[Finding]) -> None:
    path = str(session.lock_file)
    if session.json:
        policy = session.config.lock.policy
        session.output.json({"file": path, "policy": policy, "plugins": list(names), "findings": [row(each) for each in findings]})
        return
    for finding in findings:
        session.output.line(line(finding))
    many = f"{len(findings)} finding{'' if len(findings) == 1 else 's'}" if findings else "no findings"
    session.output.line(escaped(f"{path}: {len(names)} plugin{'' if len(names) == 1 else 's'}: {many}"))
