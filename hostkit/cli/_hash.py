"""``hostkit hash``: the digests that a lock would have."""

from __future__ import annotations

import os

import click

from .._content import of_directory
from .._digests import Digest, Digests, whole
from .._errors import IntegrityError, PluginNotFound
from .._offered import not_found
from .._survey import Survey
from . import _status
from ._session import Session
from ._text import escaped
from ._verb import PluginName, Verb


@click.command("hash", cls=Verb)
@click.argument("what", type=PluginName(), metavar="PATH|NAME")
@click.pass_obj
def verb(session: Session, what: str) -> int:
    """Print the SHA-256 and size of each file of a plugin's own distribution, of a plugin directory, of a distribution, or of the file or
    directory PATH; and in the last line one digest for all of them.

    A NAME goes before a PATH; ./NAME is a path. What Python keeps in __pycache__ is left out.
    """
    files = _files(session, what)
    digest = whole(files)
    if session.json:
        listed = {name: {"size": each.size, "sha256": each.sha256} for name, each in sorted(files.items())}
        session.output.json({"name": what, "sha256": digest, "files": listed})
        return _status.ANSWERED
    for name, each in sorted(files.items()):
        session.output.line(f"{each.sha256}  {each.size:>9}  {escaped(name)}")
    session.output.line(f"{digest}  {sum(each.size for each in files.values()):>9}  {escaped(what)}")
    return _status.ANSWERED


def _files(session: Session, what: str) -> dict[str, Digest]:
    if os.sep in what:
        return _at(what)
    spec = session.specs.get(what)
    if spec is not None and spec.directory is not None:
        return _at(str(spec.directory))
    survey = Survey(anew=True)
    installed = survey.there.all(what if spec is None else spec.distribution)
    if installed:
        files, data, unread = survey.digested(installed[0].content())
        if unread:
            raise IntegrityError(f"{what}: {unread[0]}")
        return {**files, **data}
    if os.path.lexists(what):
        return _at(what)
    raise PluginNotFound(f"{not_found(what, session.specs, session.group)}; and there is no distribution or file of that name")


def _at(path: str) -> dict[str, Digest]:
    digests = Digests(anew=True)
    if not os.path.isdir(path):
        return {os.path.basename(path): digests.of(path, os.path.dirname(path) or ".")}
    return {name: digests.of(file, path) for name, file in of_directory(path).files.items()}
