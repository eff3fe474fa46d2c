"""Hooks as methods of a class, for what has to be remembered from one to the next."""

from __future__ import annotations

from hostkit import hookimpl


class Emphasis:
    """Writes a text in capitals; the setting ``mark`` is what it ends with."""

    def __init__(self) -> None:
        self._mark = "!"

    @hookimpl
    def configured(self, settings: dict[str, str]) -> None:
        self._mark = settings.get("mark", "!")

    @hookimpl(tryfirst=True)
    def transform(self, text: str) -> str:
        return text.upper() + self._mark

    @hookimpl(trylast=True)
    def score(self, words: list[str]) -> float:
        return sum(map(len, words)) / len(words)
