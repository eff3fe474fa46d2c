"""The first words between the host and a worker: what it is told when it starts, and what it says when it is ready."""

from __future__ import annotations

import json
import keyword
import os
import unicodedata
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from ._importable import Target, host_path
from ._opening import Opening
from ._raised import load_error
from ._wires import Wires
from ._worker._data import DataError, found
from ._worker._frames import BOOT, PROTOCOL, Frame, FrameError, packed
from ._worker._json import dump_json
from ._worker._showable import MOST_CHARACTERS, MOST_KEYS, MOST_PATHS, Given, without_values

if TYPE_CHECKING:
    from ._cell import Cell


def _is_name(word: str) -> str:
    # Python reads names normalised, so that two of them may be one; and there is one word that it doesn't take and no list has.
    if not word.isidentifier() or keyword.iskeyword(word) or word == "__debug__" or unicodedata.normalize("NFKC", word) != word:
        raise ValueError("no name of an argument")
    return word


_Name = Annotated[str, AfterValidator(_is_name)]


class _Hook(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    function: str
    options: dict[str, bool]
    arguments: tuple[_Name, ...]
    optional: tuple[_Name, ...]
    untyped: tuple[str, ...]
    trouble: str

    @model_validator(mode="after")
    def _each_argument_once(self) -> Self:
        names = [*self.arguments, *self.optional]
        if len(set(names)) < len(names):
            raise ValueError("two arguments of one name")
        return self


_Path = Annotated[tuple[Annotated[str, Field(max_length=MOST_CHARACTERS)], ...], Field(min_length=1, max_length=MOST_KEYS)]


class Introduction(BaseModel):
    """What a worker says when it is ready; it comes from foreign code's process, so it is checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    cookie: str
    protocol: int
    plugin: str
    python: str
    kind: str
    hooks: dict[str, _Hook] = Field(default_factory=dict)
    settings: Annotated[tuple[_Path, ...], Field(max_length=MOST_PATHS)] = ()


class Greeting:
    """What one worker is told. Raises ``PluginLoadError`` for a configuration that is no data."""

    def __init__(self, opening: Opening, target: Target) -> None:
        self._plugin = opening.name
        self._cookie = os.urandom(8).hex()
        self._pickled = target.pickled
        self._said: dict[str, Any] = {
            **host_path(),
            "cookie": self._cookie,
            "plugin": opening.name,
            "id_prefix": opening.caller.id_prefix,
            "entry_point": target.entry_point,
            "directory": None if opening.directory is None else str(opening.directory),
            "config": _plain(opening),
            "secrets": sorted(opening.config.secrets) if isinstance(opening.config, Given) else [],
            "limits": dict(opening.settings.limits or {}),
            "cap": opening.settings.max_message,
            "buffers": opening.settings.max_buffers,
            "timeout": opening.settings.timeout,
            "verified": None if opening.settings.verified is None else {"files": dict(opening.settings.verified)},
        }

    def boot(self, wires: Wires, cell: Cell | None) -> bytes:
        """Return the BOOT frame for one worker."""
        theirs = wires.theirs
        descriptors = {"channels": theirs.channels, "lifeline": theirs.lifeline, "faults": wires.faults, "log": theirs.log}
        confined = None if cell is None else cell.told(theirs.lifeline)
        said = {**self._said, **descriptors, "sandbox": confined}
        return packed(BOOT, meta=json.dumps(said).encode(), buffers=self._pickled)

    def answered(self, frame: Frame) -> Introduction:
        """Return what the worker answered. Raises ``FrameError`` where that isn't this greeting's answer."""
        try:
            introduction = Introduction.model_validate_json(frame.meta)
        except ValidationError as error:
            row = error.errors(include_url=False)[0]
            raise FrameError(f"the handshake is wrong: {_short('.'.join(map(str, row['loc'])))}: {_short(row['msg'])}") from None
        expected = {"cookie": self._cookie, "protocol": PROTOCOL, "plugin": self._plugin}
        for name, value in expected.items():
            if getattr(introduction, name) != value:
                raise FrameError(f"the handshake's {name} is {found(getattr(introduction, name))}, expected {value!r}")
        return introduction


def _short(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:297]}..."


def _plain(opening: Opening) -> Any:
    try:
        return json.loads(dump_json(dict(opening.config)))
    except DataError as error:
        told = without_values(error, None, opening.config)
        raise load_error({"kind": "config", "text": f"its config is no JSON data: {told}"}, plugin=opening.name) from None
