"""The command line: one module a verb, and one line a verb in this table.

    main ─► signals ─► options ─► the verb's module, imported only now ─► answer on stdout, status to the shell

Nothing heavier than the standard library's lightest is imported before the verb is known.
"""

from __future__ import annotations

from collections.abc import Sequence

# Verb → its module here, and what the help says of it.
VERBS = {
    "list": ("_list", "Show the plugins that are installed; imports none of them."),
    "info": ("_info", "Show all that is known of one plugin, and what it is held to."),
    "execute": ("_execute", "Call a plugin and print its answer as JSON."),
    "health": ("_health", "Ask plugins how they are doing."),
    "top": ("_top", "Watch the plugins of a running host, and isolate, drain or restart them."),
    "isolate": ("_isolate", "Say in the configuration where a plugin runs."),
    "enable": ("_enable", "Switch a plugin on in the configuration."),
    "disable": ("_disable", "Switch a plugin off in the configuration."),
    "lock": ("_lock", "Write down what is installed, so that nothing else is loaded."),
    "verify": ("_verify", "Compare what is installed with the lock."),
    "hash": ("_hash", "Print the digests of a plugin's files."),
    "audit": ("_audit", "Show the audit log, and check that nobody changed it."),
    "config": ("_config", "Show and check the configuration, and print its schema."),
    "dashboard": ("_dashboard", "Show a running host in a browser."),
    "doctor": ("_doctor", "Check this machine, the configuration and what is installed."),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line as this process's only task, and return its exit status; signal handlers stay installed."""
    import sys

    from ._signals import Signals

    signals = Signals()
    signals.install()
    try:
        from ._group import run

        return run(sys.argv[1:] if arguments is None else list(arguments), signals)
    except KeyboardInterrupt:
        return signals.status
    finally:
        signals.end()
