"""Say whom a warnings filter concerns, so that a library that mutes its own warnings isn't blamed.

A filter is ``(action, message, category, module, line)``. It is narrow, and nobody else's business, where at least one of these holds:

- its category is a class of a module that isn't one of the others': ``simplefilter("ignore", urllib3.exceptions.DependencyWarning)``;
- its module pattern begins with text that no name of the others' modules begins with: ``filterwarnings("always", module=r"^sklearn\\.")``;
- its message pattern asks for at least 8 characters of text at its beginning:
  ``filterwarnings("ignore", message="numpy.ndarray size changed")``.

Any other one (``simplefilter("ignore")``, ``simplefilter("error", DeprecationWarning)``, ``filterwarnings("ignore", message=".*")``)
decides about warnings of modules that were there before. Patterns are read and never run, for they may take for ever.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Collection

from ._worker._failure import class_name

# Names here mean what they meant before any plugin was loaded: functions look builtins up in what this is where they are defined.
__builtins__ = vars(builtins).copy()  # type: ignore[assignment]  # which is what an imported module has

_LEAST_TEXT = 8
# Characters that stand for themselves, the escaped ones included.
_TEXT = re.compile(r"(?:[^\\.^$*+?{}\[\]|()]|\\\W)*")
_LONE_DOT = re.compile(r"(?<!\\)\.(?![*+?{])")


def is_narrow(row: object, others: Collection[str]) -> bool:
    """Whether a filter can't concern warnings of ``others``, names of modules."""
    if type(row) is not tuple or len(row) != 5:
        return False
    _, message, category, module, _ = row
    return _is_of_no(others, category) or _fits_no(others, module) or _asks_for_text(message)


def _is_of_no(others: Collection[str], category: object) -> bool:
    return issubclass(type(category), type) and module_of(category) not in others


def module_of(kind: object) -> str:
    """Return the name of a class's module, past what its metaclass would say."""
    name = type.__dict__["__dict__"].__get__(kind).get("__module__")
    return name if type(name) is str else "builtins"


def _fits_no(others: Collection[str], pattern: object) -> bool:
    text = _source(pattern)
    beginning = "" if text is None else _beginning(text.removeprefix("^"))
    return beginning != "" and not any(name.startswith(beginning) for name in others)


def _asks_for_text(pattern: object) -> bool:
    text = _source(pattern)
    if text is None:
        return False
    # "numpy.ndarray" is meant as it reads, though its dot is any character.
    return len(_beginning(_LONE_DOT.sub(" ", text.removeprefix("^").removeprefix(".*")))) >= _LEAST_TEXT


def _source(pattern: object) -> str | None:
    """Return a pattern's text, if it is a plain one."""
    if type(pattern) is not re.Pattern or type(pattern.pattern) is not str or pattern.flags & re.VERBOSE:
        return None
    return pattern.pattern


def _beginning(text: str) -> str:
    """Return what everything that the pattern matches begins with; "" where that can't be told at a glance."""
    found = _TEXT.match(text)
    if found is None or "|" in text:
        return ""
    literal = re.sub(r"\\(\W)", r"\1", found.group())
    return literal[:-1] if text[found.end() :].startswith(("*", "?", "{")) else literal


def told(row: object) -> str:
    """Return a filter in words, without asking any of its parts."""
    if type(row) is not tuple or len(row) != 5:
        return f"a {class_name(type(row))}"
    action, message, category, module, _ = row
    words = [action if type(action) is str else class_name(type(action))]
    words.append(class_name(category) if issubclass(type(category), type) else class_name(type(category)))
    words.extend(f"{what} {text!r:.80}" for what, text in (("message", _source(message)), ("module", _source(module))) if text)
    return f"({', '.join(words)})"
