"""What threads and screens tell the application."""

from __future__ import annotations

from typing import Any

from textual.message import Message

from .._errors import HostkitError
from ._dialogs import Act
from ._feed import Answer


class Heard(Message):
    """The feed has an answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


class Done(Message):
    """Something was done to a plugin, or wasn't."""

    def __init__(self, wanted: Act, answer: Any, error: HostkitError | None) -> None:  # Any: JSON data
        super().__init__()
        self.wanted = wanted
        self.answer = answer
        self.error = error


class Opened(Message):
    """A screen is the one that is looked at now."""


class Changed(Message):
    """A screen shows something else of what is known, or has another size."""
