"""``hostkit disable``: switch a plugin off in the configuration."""

from __future__ import annotations

import click

from ._session import Session
from ._verb import PluginName, Verb


@click.command("disable", cls=Verb)
@click.argument("name", type=PluginName())
@click.pass_obj
def verb(session: Session, name: str) -> int:
    """Write into the configuration that the plugin NAME is switched off.

    Comments and layout of the file stay; ./hostkit.toml is made where there is no configuration.
    """
    from ._setting import put

    return put(session, name, "enabled", value=False)
