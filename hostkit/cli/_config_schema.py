"""``hostkit config schema``: what may stand in a configuration or manifest, as a JSON Schema."""

from __future__ import annotations

import click

from . import _status
from ._session import Session
from ._verb import Verb


@click.command("schema", cls=Verb)
@click.option("--manifest", is_flag=True, help="Of plugin.toml, plugin.json and plugin.yaml instead.")
@click.pass_obj
def verb(session: Session, manifest: bool) -> int:
    """Print the JSON Schema of the configuration (draft 7), from which editors know keys, values and defaults."""
    from .. import _schemas

    session.output.line(_schemas.text(_schemas.manifest() if manifest else _schemas.configuration()))
    return _status.ANSWERED
