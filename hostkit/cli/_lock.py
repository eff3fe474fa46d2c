"""``hostkit lock``: write down what is installed, so that nothing else is loaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import click

from .. import _lockfile
from .._finding import Finding
from .._lockfile import Lock
from .._locking import Locked, lock_of, standing
from .._survey import Standing, Survey
from . import _status
from ._replaced import replaced
from ._session import Session
from ._text import escaped
from ._told import tell
from ._verb import Verb


@click.command("lock", cls=Verb)
@click.option("--check", is_flag=True, help="Write nothing; tell whether the lock is what would be written.")
@click.option("--editable", is_flag=True, help="Lock working trees (editable installs), too.")
@click.pass_obj
def verb(session: Session, check: bool, editable: bool) -> int:
    """Write hostkit.lock: the files of every plugin that is installed and enabled, and of all that it requires, with their SHA-256;
    its entry point, its permissions, and where it runs. Nothing of a plugin is imported.

    What should not be locked (a foreign .pyc, two distributions of one name, a file that everybody may write) is told, and nothing is
    written: status 1. The file is the configuration's [lock] file.
    """
    survey, config = Survey(anew=True), session.config.lock
    standings = list(_standings(session))
    made = lock_of(session.group, standings, survey, beside=session.lock_file, include=config.include, editable=editable)
    survey.save()
    if check:
        return _check(session, made)
    refused = made.refused
    if not refused:
        written = made.text.encode()
        replaced(session.lock_file, lambda _: written)
    _answer(session, made, written=not refused)
    return _status.FAILED if refused else _status.ANSWERED


def _standings(session: Session) -> Iterator[Standing]:
    for name, spec in session.specs.items():
        config = session.config.plugin(name)
        if not config.enabled:
            continue
        now = standing(spec, config)
        if now.wrong:
            tell(f"hostkit: warning: {escaped(name)} can't be loaded and is not locked: {escaped(now.wrong)}")
        else:
            yield now


def _check(session: Session, made: Locked) -> int:
    path = session.lock_file
    differences = list(_differences(_lockfile.read(path, session.group), made.lock))
    if session.json:
        session.output.json({"file": str(path), "current": not differences, "differences": differences})
    elif differences:
        for difference in differences:
            session.output.line(escaped(difference))
    else:
        session.output.line(escaped(f"{path}: what is installed is what is locked"))
    return _status.FAILED if differences else _status.ANSWERED


def _differences(before: Lock, after: Lock) -> Iterator[str]:
    for what in ("plugins", "distributions", "startup"):
        old: dict[str, Any] = getattr(before, what)  # Any: the parts of a lock
        new: dict[str, Any] = getattr(after, what)
        for name in sorted(old.keys() | new.keys()):
            if name not in new:
                yield f"{what}: {name}: is locked, and not installed"
            elif name not in old:
                yield f"{what}: {name}: is installed, and not locked"
            elif old[name] != new[name]:
                yield f"{what}: {name}: is not as it is locked"


def _answer(session: Session, made: Locked, *, written: bool) -> None:
    path, lock = session.lock_file, made.lock
    files = sum(len(each.files) + len(each.data) for each in lock.distributions.values())
    files += sum(len(each.files) for each in lock.plugins.values())
    if session.json:
        names = {"plugins": list(lock.plugins), "distributions": list(lock.distributions), "files": files}
        session.output.json({"file": str(path), "written": written, **names, "findings": [row(each) for each in made.findings]})
        return
    for finding in made.findings:
        tell(f"hostkit: {'error' if finding in made.refused else 'warning'}: {line(finding)}")
    if not written:
        tell(f"hostkit: {escaped(path)} was not written: {_count(len(made.refused), 'finding')} that should not be locked")
        return
    plugins, distributions = _count(len(lock.plugins), "plugin"), _count(len(lock.distributions), "distribution")
    size = os.stat(path).st_size
    session.output.line(escaped(f"{path}: {plugins}, {distributions}, {_count(files, 'file')} locked ({size} bytes)"))


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def row(finding: Finding) -> dict[str, str]:
    """Return a finding as JSON."""
    return {
        "kind": finding.kind,
        "plugin": finding.plugin,
        "distribution": finding.distribution,
        "file": finding.file,
        "text": finding.text,
        "remedy": finding.remedy,
    }


def line(finding: Finding) -> str:
    """Return a finding as a line."""
    whose = " ".join(dict.fromkeys(filter(None, (finding.plugin, finding.distribution))))
    where = ": ".join(filter(None, (whose, finding.file)))
    return escaped(f"{finding.kind}: {where}{': ' if where else ''}{finding.text}; {finding.remedy}")
