"""``hostkit isolate``: say in the configuration where a plugin runs."""

from __future__ import annotations

import click

from ._session import Session
from ._verb import IsolationWord, PluginName, Verb


@click.command("isolate", cls=Verb)
@click.argument("name", type=PluginName())
@click.argument("place", type=IsolationWord())
@click.pass_obj
def verb(session: Session, name: str, place: str) -> int:
    """Write into the configuration where the plugin NAME runs: none (in the host's process), process (in a worker), or auto (in the
    host's process for as long as that goes well).

    Comments and layout of the file stay; ./hostkit.toml is made where there is no configuration.
    """
    from ._setting import put

    return put(session, name, "isolation", place)
