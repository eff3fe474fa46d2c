"""What the verbs that write the configuration share: which file, which plugin, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._decided import words
from .._errors import ConfigError, PluginNotFound
from .._fields import sentence
from .._lines import place
from .._names import normalized
from .._offered import Glance, Offered, glance_of, not_found
from .._origins import overriding
from .._parsing import Document, Unreadable, parse
from .._reading import Reading, examined, spelled, table_of
from .._spec import PluginSpec
from . import _status
from ._edited import NotEditable, Word, edited, lines_to_write
from ._replaced import replaced
from ._session import Session
from ._text import escaped
from ._told import tell

_PICKED_UP = "A running host that watches its configuration takes it over; others do when they start."


def put(session: Session, name: str, key: str, value: Word) -> int:
    """Put one value of a plugin into the configuration file and say so; returns the exit status."""
    path = session.config_path or Path("hostkit.toml").absolute()
    if session.config_path is not None:
        _check(session.reading)
    spec = _installed(name, session.found, session.group)
    change = _Change(path, spec.name, key, value, may_create=session.config_path is None)
    replaced(path, change)
    _tell(session, change, _warnings(spec, change))
    return _status.ANSWERED


def _installed(name: str, specs: Mapping[str, PluginSpec], group: str) -> PluginSpec:
    for spec in specs.values():
        if normalized(spec.name) == normalized(name):
            return spec
    raise PluginNotFound(not_found(name, Offered(specs, Glance()), group))


class _Change:
    """One value that is put into a file's bytes; afterwards it tells what came of it."""

    def __init__(self, path: Path, plugin: str, key: str, value: Word, *, may_create: bool) -> None:
        self.path = path
        self.plugin = plugin
        self.key = key
        self.value = value
        self.keys: tuple[str, ...] = ()
        self.before: Any = None  # Any: what a person wrote there
        self.reading: Reading | None = None
        self.written = False
        self._may_create = may_create

    def __call__(self, data: bytes | None) -> bytes | None:
        if data is None and not self._may_create:
            raise ConfigError(f"{self.path}: No such file; make an empty one first if it is the one to write to")
        table = table_of(self.path)
        document = Document() if data is None else self._read(data, table)
        _check(examined(self.path, document))
        self.keys = spelled(document, ("plugins", self.plugin, self.key))
        own = document.get("plugins", {}).get(self.keys[1], {})
        self.before = own.get(self.key)
        if self.before == self.value:
            self._settle(document, written=False)
            return None
        try:
            text = edited((data or b"").decode(), self.path.suffix, (*table, *self.keys), self.value)
        except NotEditable as error:
            wanted = lines_to_write(self.path.suffix, (*table, *self.keys), self.value)
            raise ConfigError(f"{self.path}: {error}; nothing was written. What it should say:\n{wanted}") from None
        after = self._read(text.encode(), table)
        _check(examined(self.path, after))
        self._settle(after, written=True)
        return text.encode()

    def _read(self, data: bytes, table: tuple[str, ...]) -> Document:
        try:
            return parse(data, self.path.suffix, table=table)
        except Unreadable as error:
            raise ConfigError(error.at(self.path)) from None

    def _settle(self, document: Document, *, written: bool) -> None:
        self.reading = examined(self.path, document)
        self.written = written

    @property
    def line(self) -> int | None:
        """Where the value stands now."""
        return None if self.reading is None else self.reading.document.line(self.keys)


def _check(reading: Reading) -> None:
    """Refuse a file that is wrong itself; what the environment lacks or has too much of here may be otherwise where a host runs."""
    own = [problem for problem in reading.problems if problem.where == str(reading.path) and not problem.unset]
    if own:
        raise ConfigError(sentence(own))


def _warnings(spec: PluginSpec, change: _Change) -> list[str]:
    assert change.reading is not None
    found = []
    setting, config = overriding(change.reading, change.keys), change.reading.config
    if setting is not None and (config is None or getattr(config.plugin(spec.name), change.key) != change.value):
        found.append(f"{setting.variable} is set here and goes before the file: where it is set, what was written has no effect")
    if change.key == "isolation" and isinstance(change.value, str) and spec.error is None:
        wish = spec.manifest.wished_isolation or "none"
        if words().index(wish) > words().index(change.value):
            found.append(f"the manifest of {spec.name} asks for {wish!r}, which is more: it runs there all the same")
    disabled = change.reading.document["plugins"][change.keys[1]].get("enabled") is False
    if disabled and change.key != "enabled":
        found.append(f"{spec.name} is disabled")
    if config is not None and (reason := glance_of(config).why_not(spec)):
        found.append(f"{spec.name} is kept out: {reason}")
    if spec.error is not None:
        found.append(f"{spec.name} is broken: {spec.error}")
    unloadable = "with this environment the configuration can't be loaded"
    problems = change.reading.problems
    return [*found, *(f"{unloadable}: {place(problem.where, problem.line)}: {problem.said}" for problem in problems)]


def _tell(session: Session, change: _Change, warnings: list[str]) -> None:
    key = ".".join(change.keys)
    if session.json:
        session.output.json(
            {
                "plugin": change.plugin,
                "key": key,
                "value": change.value,
                "before": change.before,
                "file": str(change.path),
                "line": change.line,
                "written": change.written,
                "warnings": warnings,
            }
        )
        return
    where, said = place(change.path, change.line), f"{key} = {_shown(change.value)}"
    if change.written:
        session.output.line(escaped(f"{where}: {said}" + ("" if change.before is None else f" (was {_shown(change.before)})")))
        session.output.line(_PICKED_UP)
    else:
        session.output.line(escaped(f"{where}: {said} already; nothing was written"))
    for warning in warnings:
        tell(f"hostkit: warning: {escaped(warning)}")


def _shown(value: Any) -> str:  # Any: what a person wrote
    return json.dumps(value, ensure_ascii=False)
