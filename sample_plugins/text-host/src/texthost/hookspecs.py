"""What plugins can do for a text."""

from __future__ import annotations

from hostkit import hookspec


@hookspec
def transform(text: str) -> str | None:
    """Return the text in another form."""


@hookspec(firstresult=True)
def score(text: str, words: list[str]) -> float | None:
    """Return how good a text is; None leaves it to the next plugin."""


@hookspec(historic=True)
def configured(settings: dict[str, str]) -> None:
    """Take notice of what the user has set. Called before the other hooks."""
