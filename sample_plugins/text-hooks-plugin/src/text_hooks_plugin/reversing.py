"""Hooks as functions of a module, for what needs no memory."""

from __future__ import annotations

from hostkit import hookimpl


@hookimpl
def transform(text: str) -> str:
    return " ".join(reversed(text.split()))


@hookimpl(specname="score")
def nothing_is_worth_nothing(words: list[str]) -> float | None:
    return None if words else 0.0
