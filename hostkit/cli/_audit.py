"""``hostkit audit``: what was loaded, refused, unloaded, denied and changed, and whether that is still what was written."""

from __future__ import annotations

from ._verb import VerbTable, shared_options

_VERBS = {
    "show": ("_audit_show", "Show the entries of the audit log."),
    "verify": ("_audit_verify", "Find lines that were edited, cut, moved, inserted or truncated."),
}

verb = VerbTable(
    "audit",
    table=_VERBS,
    params=shared_options(),
    subcommand_metavar="VERB ...",
    help="Show the audit log, and check that nobody changed it.",
)
