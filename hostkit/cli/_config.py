"""``hostkit config``: what the configuration says, whether it is right, and what may stand in it."""

from __future__ import annotations

from ._verb import VerbTable, shared_options

_VERBS = {
    "show": ("_config_show", "Show every value that holds, and where it comes from."),
    "check": ("_config_check", "Check file and environment, and tell everything that is wrong at once."),
    "schema": ("_config_schema", "Print the JSON Schema of the configuration or of the manifest, for editors."),
}

verb = VerbTable(
    "config",
    table=_VERBS,
    params=shared_options(),
    subcommand_metavar="VERB ...",
    help="Show and check the configuration, and print its schema.",
)
