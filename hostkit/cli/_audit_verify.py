"""``hostkit audit verify``: which line of the audit log is not as it was written."""

from __future__ import annotations

from dataclasses import asdict

import click

from .._audit_chain import Head, Verification
from . import _status
from ._audit_log import file_of, lines
from ._session import Session
from ._text import escaped
from ._verb import Verb, _ParamType


class _HeadType(_ParamType):
    name = "seq:hash"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Head:
        try:
            return value if isinstance(value, Head) else Head.parsed(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command("verify", cls=Verb)
@click.argument("file", type=click.Path(), required=False)
@click.option(
    "--head",
    type=_HeadType(),
    metavar="SEQ:HASH",
    help="An entry that was remembered elsewhere, as this verb prints the last one: it must still be there.",
)
@click.pass_obj
def verb(session: Session, file: str | None, head: Head | None) -> int:
    """Check the audit log FILE, or the one that is configured: every line by its own hash, and by that of the line before.

    Each finding is a line. Without --head nobody can tell that the last lines were cut off, or that all of it was written anew. Exit
    status 0 if nothing is found, 1 if something is, 3 if there is no file.
    """
    path = file_of(session, file)
    verification = Verification(head)
    output = session.output
    bad = 0
    found = []
    for finding in verification.findings(lines(path)):
        bad += not finding.note
        if session.json:
            found.append(asdict(finding))
        else:
            output.line(escaped(f"{path}:{finding.line}: {finding.kind}: {finding.text}"))
    last = verification.last
    if session.json:
        output.json({"file": str(path), "entries": verification.entries, "head": str(last), "bad": bad, "findings": found})
    else:
        output.line(escaped(f"{path}: {verification.entries} entries, {bad or 'no'} finding{'s' * (bad != 1)}"))
        output.line(f"head: {last}")
    return _status.FAILED if bad else _status.ANSWERED
