"""A small application whose plugins rewrite and score a text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import hostkit

from . import hookspecs


def open_host(**options: Any) -> hostkit.Host:  # Any: what Host takes
    """Return the application's host, without any plugin loaded; a plugin that fails over a hook is logged and left out."""
    return hostkit.Host("texthost", hookspecs=[hookspecs], hook_errors="skip", **options)


def load_all(host: hostkit.Host, *, isolation: str | None = None) -> dict[str, hostkit.HostkitError]:
    """Load every installed plugin; return the error of each that can't be."""
    errors: dict[str, hostkit.HostkitError] = {}
    for name in host.specs:
        try:
            host.load(name, isolation=isolation)
        except hostkit.HostkitError as error:
            errors[name] = error
    return errors


def configure(host: hostkit.Host, settings: Mapping[str, str]) -> None:
    """Tell all plugins, those that are loaded later included, what the user has set."""
    host.hook.configured.call_historic(kwargs={"settings": dict(settings)})


def transformed(host: hostkit.Host, text: str) -> list[str]:
    """Return what each plugin makes of a text."""
    results: list[str] = host.hook.transform(text=text)
    return results


def scored(host: hostkit.Host, text: str) -> float | None:
    """Return the score of the first plugin that gives one."""
    score: float | None = host.hook.score(text=text, words=text.split())
    return score
