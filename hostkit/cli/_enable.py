"""``hostkit enable``: switch a plugin on in the configuration."""

from __future__ import annotations

import click

from ._session import Session
from ._verb import PluginName, Verb


@click.command("enable", cls=Verb)
@click.argument("name", type=PluginName())
@click.pass_obj
def verb(session: Session, name: str) -> int:
    """Write into the configuration that the plugin NAME is switched on.

    Comments and layout of the file stay; ./hostkit.toml is made where there is no configuration.
    """
    from ._setting import put

    return put(session, name, "enabled", value=True)
