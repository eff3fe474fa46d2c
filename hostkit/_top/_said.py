"""A text on the screen that is said anew every second: laid out again only where it takes other room."""

from __future__ import annotations

from rich.text import Text
from textual.widgets import Static


class Said(Static):
    """Text as it is, without markup."""

    def __init__(self, text: str = "", *, id: str) -> None:  # noqa: A002 - textual's word
        super().__init__(text, id=id, markup=False)
        self._text: Text | None = None

    def say(self, text: Text) -> None:
        """Show another text."""
        before, self._text = self._text, text
        if before is None or before != text or before.style != text.style:
            self.update(text, layout=before is None or _room(before) != _room(text))


def _room(text: Text) -> list[int]:
    return [len(line) for line in text.plain.split("\n")]
