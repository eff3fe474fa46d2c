"""Read a configuration from a file and the environment: validated as a whole, with all that is wrong and where.

file ─► ${VAR} expanded ─► HOSTKIT_* over it ─► HostConfig, its paths made absolute
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ._config import HostConfig
from ._environment import Setting, read_settings
from ._errors import ConfigError
from ._fields import Problem, problems_in, sentence
from ._lines import Keys
from ._names import normalized
from ._parsing import Document, Unreadable, read
from ._worker._data import found


def load(source: HostConfig | Mapping[str, Any] | str | Path | None) -> HostConfig:
    """Return a configuration from a file, or from what the application says itself. Raises ``ConfigError``.

    A file, or None for none, is what an operator decides: ``HOSTKIT_*`` variables go before it. A ``HostConfig`` or a mapping is an
    argument, which goes before the environment: it is taken as it is.
    """
    if source is None or isinstance(source, (str, Path)):
        reading = examine(None if source is None else Path(source))
        if reading.config is None:
            raise ConfigError(sentence(reading.problems))
        return reading.config
    if isinstance(source, Mapping):
        try:
            return _anchored(HostConfig.model_validate({key: part for key, part in source.items() if key != "$schema"}), Path())
        except ValidationError as error:
            raise ConfigError(sentence(problems_in(error, HostConfig, _WHOLE))) from None
    if isinstance(source, HostConfig):
        return _anchored(source, Path())
    raise ConfigError(f"{_WHOLE}: expected a HostConfig, a mapping or the path of a file, found {found(source)}")


_WHOLE = "the configuration"


@dataclass(frozen=True, slots=True)
class Reading:
    """What an operator's file and environment say: ``document`` as the file has it, ``settings`` as the variables have it.

    ``config`` is what holds, None where there are problems. ``references`` are the keys whose text the environment had a part in,
    with that text.
    """

    path: Path | None
    document: Document
    settings: Sequence[Setting]
    references: Mapping[Keys, str]
    problems: Sequence[Problem]
    config: HostConfig | None


def examine(path: Path | None) -> Reading:
    """Read a configuration file, or none, and the environment; everything that is wrong with them is told at once."""
    if path is None:
        return examined(None, Document())
    try:
        return examined(path, read(path, table=table_of(path)))
    except Unreadable as error:
        settings, wrong = read_settings()
        problems = [Problem(str(path), (), str(error), error.line), *_wrong_variables(wrong)]
        return Reading(path, Document(), settings, {}, problems, None)


def table_of(path: Path) -> tuple[str, ...]:
    """Return the table of a file that is hostkit's; none for a file that is so as a whole."""
    return ("tool", "hostkit") if path.name == "pyproject.toml" else ()


def examined(path: Path | None, document: Document) -> Reading:
    """Return what comes of a file's text, which may not be in the file yet."""
    where, folder = (_WHOLE, Path()) if path is None else (str(path), path.parent)
    expansion = _Expansion(where, document)
    data = expansion.of(document, ())
    config, wrong = _validated(data, where, document, expansion.references)
    # What is wrong with a text that could not be expanded has been told.
    untold = [
        problem for problem in wrong if not any(problem.keys[: len(known.keys)] == known.keys for known in expansion.problems)
    ]
    settings, unread = read_settings()
    problems = sorted([*expansion.problems, *untold], key=lambda problem: problem.line or 0)
    config = None if problems or config is None else _anchored(config, folder)
    if settings:
        config, overridden = _with_settings(data, config, settings, folder)
        problems += overridden
    problems += _wrong_variables(unread)
    return Reading(path, document, settings, expansion.references, problems, None if problems else config)


def _wrong_variables(wrong: Mapping[str, str]) -> list[Problem]:
    return [Problem(variable, (), words) for variable, words in wrong.items()]


def _validated(
    data: dict[str, Any], where: str, document: Document, references: Mapping[Keys, str]
) -> tuple[HostConfig | None, list[Problem]]:
    try:
        return HostConfig.model_validate(data), []
    except ValidationError as error:
        return None, problems_in(error, HostConfig, where, document.line, references.get)


def _with_settings(
    data: dict[str, Any], config: HostConfig | None, settings: Sequence[Setting], folder: Path
) -> tuple[HostConfig | None, list[Problem]]:
    """Return what holds with the environment's settings, and what is wrong with those; ``config`` is what holds without them."""
    merged = {} if config is None else _with_paths(data, config, folder)
    problems = [problem for setting in settings if (problem := _put(merged, setting)) is not None]
    try:
        found = HostConfig.model_validate(merged)
        return (None if problems else _anchored(found, Path())), problems
    except ValidationError as error:
        told = problems_in(error, HostConfig, "")
        # Beside a file that is wrong itself, what is missing may stand in that.
        certain = [problem for problem in told if config is not None or problem.words != "is missing"]
        problems += [dataclasses.replace(problem, where=_blamed(problem.keys, settings)) for problem in certain]
        return None, problems


def _with_paths(data: dict[str, Any], config: HostConfig, folder: Path) -> dict[str, Any]:
    """Return what a file says with its paths absolute, so that those of the environment can be relative to something else."""
    discovery = {**data.get("discovery", {}), "paths": [str(path) for path in config.discovery.paths]}
    found = {**data, "discovery": discovery, "lock": {**data.get("lock", {}), "file": str(_absolute(config.lock.file, folder))}}
    if config.audit.file is not None:
        found["audit"] = {**data["audit"], "file": str(config.audit.file)}
    return found


def _put(data: dict[str, Any], setting: Setting) -> Problem | None:
    *tables, last = spelled(data, setting.keys)
    for depth, key in enumerate(tables, 1):
        inside = data.get(key, {})
        if not isinstance(inside, dict):
            seen = type(inside).__name__ if "config" in tables[:depth] else found(inside)
            return Problem(setting.variable, (), f"{'.'.join(tables[:depth])} is no table, found {seen}")
        data[key] = dict(inside)
        data = data[key]
    data[last] = _merged(data.get(last), setting.value)
    return None


def spelled(data: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``keys`` with a plugin's name as the configuration spells it."""
    tables = data.get("plugins")
    if keys[0] != "plugins" or not isinstance(tables, dict):
        return keys
    names = (name for name in tables if normalized(name) == normalized(keys[1]))
    return (keys[0], next(names, keys[1]), *keys[2:])


def _merged(old: Any, new: Any) -> Any:  # Any: JSON data
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}


def _blamed(keys: Keys, settings: Sequence[Setting]) -> str:
    def shared(setting: Setting) -> int:
        pairs = zip(setting.keys, keys, strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == normalized(str(pair[1])) or pair[0] == pair[1], pairs))

    return max(settings, key=shared).variable


def _anchored(config: HostConfig, folder: Path) -> HostConfig:
    """Return a configuration whose paths stay what they are when the working directory changes."""
    discovery, lock, audit = config.discovery, config.lock, config.audit
    paths = [_absolute(path, folder) for path in discovery.paths]
    if paths != discovery.paths:
        discovery = discovery.model_copy(update={"paths": paths})
    if lock.model_fields_set and lock.file != (file := _absolute(lock.file, folder)):
        lock = lock.model_copy(update={"file": file})
    if audit.file is not None and audit.file != (file := _absolute(audit.file, folder)):
        audit = audit.model_copy(update={"file": file})
    if (discovery, lock, audit) == (config.discovery, config.lock, config.audit):
        return config
    return config.model_copy(update={"discovery": discovery, "lock": lock, "audit": audit})


def _absolute(path: Path, folder: Path) -> Path:
    return (folder / os.path.expanduser(path)).absolute()


# Two dollars are one, for a text that has such a thing in it.
_REFERENCE = re.compile(r"\$?\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^{}]*))?\})?")


class _Expansion:
    """Expands ``${VAR}`` in the texts of one document, and remembers where."""

    def __init__(self, where: str, document: Document) -> None:
        self._where = where
        self._document = document
        self.references: dict[Keys, str] = {}
        self.problems: list[Problem] = []

    def of(self, value: Any, keys: Keys) -> Any:  # Any: what a parser gave
        if isinstance(value, dict):
            return {name: self.of(part, (*keys, name)) for name, part in value.items()}
        if isinstance(value, list):
            return [self.of(part, (*keys, index)) for index, part in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        return _REFERENCE.sub(lambda match: self._replacement(match, value, keys), value)

    def _replacement(self, match: re.Match[str], text: str, keys: Keys) -> str:
        if match[0].startswith("$$"):
            return match[0][1:]
        if match[1] is None:
            # What a plugin's own table has may be a secret.
            seen = type(text).__name__ if "config" in keys else found(text)
            self._tell(keys, f"expected ${{VAR}} or ${{VAR:-default}}, or $${{ for the text itself; found {seen}")
            return match[0]
        self.references[keys] = text
        value: str | None = os.environ.get(match[1], match[2])
        if value is None:
            self._tell(keys, f"the environment variable {match[1]} is not set, and has no default (${{VAR:-...}})", unset=True)
            return match[0]
        return value

    def _tell(self, keys: Keys, words: str, *, unset: bool = False) -> None:
        self.problems.append(Problem(self._where, keys, words, self._document.line(keys), unset))
