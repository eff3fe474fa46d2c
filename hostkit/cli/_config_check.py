"""``hostkit config check``: everything that is wrong with file and environment, and what is probably not meant."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import click

from .._config import HostConfig
from .._fields import Problem
from .._lines import Keys, place
from .._names import normalized
from .._origins import Origins
from .._reading import Reading
from . import _status
from ._session import Session
from ._text import escaped
from ._verb import Verb


@dataclass(frozen=True, slots=True)
class _Finding:
    state: str  # error or warning
    where: str  # a file or a variable
    line: int | None
    key: str
    text: str


@click.command("check", cls=Verb)
@click.argument("file", type=click.Path(), required=False)
@click.pass_obj
def verb(session: Session, file: str | None) -> int:
    """Check the configuration FILE, or the one that holds here, together with the environment's HOSTKIT_* settings.

    Every finding is a line. Exit status 2 if there is an error; a warning is no failure.
    """
    if file is not None:
        session.config_file = file
    reading = session.reading
    findings = [_error(problem) for problem in reading.problems] + sorted(
        _warnings(session, reading), key=lambda each: each.line or 0
    )
    errors = sum(1 for finding in findings if finding.state == "error")
    subject = "the environment" if reading.path is None else str(reading.path)
    if session.json:
        path = None if reading.path is None else str(reading.path)
        counts = {"errors": errors, "warnings": len(findings) - errors}
        session.output.json({"file": path, **counts, "findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            key = f"{finding.key}: " if finding.key else ""
            session.output.line(escaped(f"{place(finding.where, finding.line)}: {finding.state}: {key}{finding.text}"))
        session.output.line(escaped(f"{subject}: {_verdict(errors, len(findings) - errors)}"))
    return _status.USAGE if errors else _status.ANSWERED


def _verdict(errors: int, warnings: int) -> str:
    counts = [f"{count} {word}{'s' * (count > 1)}" for count, word in ((errors, "error"), (warnings, "warning")) if count]
    return ", ".join(counts if errors else ["valid", *counts])


def _error(problem: Problem) -> _Finding:
    return _Finding("error", problem.where, problem.line, problem.key, problem.words)


def _warnings(session: Session, reading: Reading) -> Iterator[_Finding]:
    yield from _not_installed(reading, session.found, session.group)
    if reading.config is None:
        return
    origins = Origins(reading)

    def warning(keys: Keys, text: str) -> _Finding:
        origin = origins.of_key(keys)
        return _Finding("warning", origin.variable or str(origin.file), origin.line, ".".join(map(str, keys)), text)

    for keys, variables in _passed(reading.config):
        for variable in variables:
            if variable not in os.environ:
                yield warning(keys, f"the environment variable {variable} is not set here, so the plugin would not see it")
    for path in reading.config.discovery.paths:
        if not path.is_dir():
            yield warning(("discovery", "paths"), f"{path} is no directory")


def _not_installed(reading: Reading, specs: Iterable[str], group: str) -> Iterator[_Finding]:
    known = {normalized(name): name for name in specs}
    tables = reading.document.get("plugins")
    named = {name: str(reading.path) for name in (tables if isinstance(tables, dict) else ())}
    in_file = {normalized(name) for name in named}
    for setting in reading.settings:
        if setting.keys[0] == "plugins" and setting.keys[1] not in in_file:
            named.setdefault(setting.keys[1], setting.variable)
    for name, where in named.items():
        if normalized(name) not in known:
            near = difflib.get_close_matches(normalized(name), known, 1)
            hint = f"; did you mean {known[near[0]]!r}?" if near else ""
            line = reading.document.line(("plugins", name)) if normalized(name) in in_file else None
            yield _Finding("warning", where, line, f"plugins.{name}", f"no plugin of that name is installed for {group}{hint}")


def _passed(config: HostConfig) -> Iterator[tuple[Keys, list[str]]]:
    yield ("defaults", "env"), config.defaults.env
    for name, plugin in config.plugins.items():
        yield ("plugins", name, "env"), plugin.env
