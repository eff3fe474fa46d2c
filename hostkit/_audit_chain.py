"""The audit log's format: JSON, one entry a line, each of which has the hash of the line before and its own.

{"seq":7,"at":"2030-01-31T12:00:00.000000Z","kind":"loaded","plugin":"calculator", facts ... ,"prev":"…","hash":"…"}

``hash`` is the SHA-256 of the line up to ``,"hash"``, and ``prev`` that of the line before; 64 zeros in the first one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

LINE_LIMIT = 64 * 1024
_TEXT_LIMIT, _ITEM_LIMIT = 2000, 100
_OWN = ("seq", "at", "kind", "plugin", "prev", "hash")
_END = re.compile(rb',"hash":"([0-9a-f]{64})"\}')
_END_LENGTH = len(',"hash":""}') + 64
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HEAD = re.compile(r"(\d{1,18}):([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Head:
    """The last entry of a log: enough to tell later that nothing up to it was taken away. ``str(head)`` is ``SEQ:HASH``."""

    seq: int
    hash: str

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"

    @classmethod
    def parsed(cls, text: str) -> Head:
        """Return what ``str`` of a head says. Raises ``ValueError``."""
        match = _HEAD.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"expected SEQ:HASH, a number and 64 hexadecimal digits, found {text[:100]!r}")
        return cls(int(match[1]), match[2])


NOTHING = Head(0, "0" * 64)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line that is what it was when its hash was made."""

    head: Head
    prev: str
    kind: str
    plugin: str
    data: Mapping[str, Any]  # Any: JSON data

    def follows(self, head: Head) -> bool:
        """Whether it was written after the one that ``head`` names."""
        return self.prev == head.hash and self.head.seq == head.seq + 1


def line_after(head: Head, at: float, kind: str, plugin: str, facts: Mapping[str, object]) -> tuple[bytes, Head]:
    """Return the line for an entry that follows ``head``, with its end, and the new head. Whatever is long in it is cut."""
    body = _body(head, at, kind, plugin, {key: _short(value) for key, value in facts.items()})
    if len(body) + _END_LENGTH >= LINE_LIMIT:
        body = _body(head, at, kind, plugin, {"cut": f"{len(body)} bytes of facts"})
    digest = hashlib.sha256(body).hexdigest()
    return body + f',"hash":"{digest}"}}\n'.encode("ascii"), Head(head.seq + 1, digest)


def _body(head: Head, at: float, kind: str, plugin: str, facts: Mapping[str, object]) -> bytes:
    told = {key: value for key, value in facts.items() if key not in _OWN}
    data = {"seq": head.seq + 1, "at": _rfc3339(at), "kind": kind, "plugin": _short(plugin), **told, "prev": head.hash}
    # ASCII alone: no control character, no letter that turns the writing round, and no half of a pair gets into the file as it is.
    return json.dumps(data, ensure_ascii=True, separators=(",", ":"), default=_as_text).encode("ascii")[:-1]


def _rfc3339(at: float) -> str:
    return f"{(_EPOCH + timedelta(seconds=at)).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def _short(value: object) -> object:
    if isinstance(value, str):
        return value if len(value) <= _TEXT_LIMIT else f"{value[:_TEXT_LIMIT]}... ({len(value)} characters)"
    if isinstance(value, Mapping):
        return {str(_short(str(key))): _short(part) for key, part in list(value.items())[:_ITEM_LIMIT]}
    if isinstance(value, (list, tuple, set, frozenset)):
        parts = [_short(part) for part in list(value)[:_ITEM_LIMIT]]
        return parts if len(value) <= _ITEM_LIMIT else [*parts, f"... ({len(value)} items)"]
    if isinstance(value, float) and value - value != 0:
        return str(value)  # JSON has no word for infinity
    return value


def _as_text(value: object) -> str:
    return str(_short(str(value)))


def entry_of(line: bytes) -> Entry | None:
    """Return the entry that a line is, without its end; None where it isn't one, or is not as it was written."""
    end = _END.fullmatch(line, max(0, len(line) - _END_LENGTH))
    if end is None or hashlib.sha256(line[: end.start()]).hexdigest().encode() != end[1]:
        return None
    try:
        data = json.loads(line)
        seq, prev, kind, plugin = data["seq"], data["prev"], data["kind"], data["plugin"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if type(seq) is not int or seq < 1 or not all(isinstance(text, str) for text in (prev, kind, plugin)):
        return None
    return Entry(Head(seq, end[1].decode()), prev, kind, plugin, data)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it was written. ``line`` counts from 1; 0 where the whole file is meant. A ``note`` is no damage that
    the log doesn't tell of itself."""

    line: int
    kind: str  # edited, rewritten, missing, moved, inserted, truncated, restarted, head; torn, a note
    text: str
    note: bool = False


@dataclass
class Verification:
    """Goes through the lines of one log, from the first to the last. ``head`` is one that somebody has remembered.

    It knows only what the lines tell of each other: without a remembered head nobody can tell that the last ones were cut off, or that
    all of it was written anew.
    """

    remembered: Head | None = None
    last: Head = NOTHING
    entries: int = 0
    _at: int = 0  # the line of ``last``
    _before: Head | None = None
    _held: tuple[int, Entry] | None = None  # says that the one before is another than the one that stands there
    _broken: list[tuple[int, bytes]] = field(default_factory=list)
    _seen: bool = False

    def findings(self, lines: Iterable[bytes]) -> Iterator[Finding]:
        """Yield what is wrong, in the order of the lines, each of which comes with its end."""
        number = 0
        for number, line in enumerate(lines, 1):
            yield from self._line(number, line.removesuffix(b"\n"))
            if not line.endswith(b"\n") and not self._broken:
                yield Finding(number, "truncated", "it has no end: its writer, or whoever cut the file, stopped here")
        yield from self._held_back(None)
        yield from self._end(number)

    def _line(self, number: int, line: bytes) -> Iterator[Finding]:
        entry = entry_of(line)
        if entry is None:
            yield from self._held_back(None)
            self._broken.append((number, line))
            return
        if self._broken:
            yield from self._after_broken(number, entry)
            return
        yield from self._held_back(entry)
        yield from self._placed(number, entry)

    def _placed(self, number: int, entry: Entry) -> Iterator[Finding]:
        """Tell how an entry stands to the last one."""
        ours, last = entry.head, self.last
        if entry.follows(last):
            self._accept(number, entry)
        elif ours == last:
            yield Finding(number, "inserted", f"it is entry {ours.seq} once more")
        elif (self._before is not None and entry.follows(self._before)) or ours.seq == last.seq + 1:
            self._held = (number, entry)  # the next one says which of the two it follows
        elif ours.seq == 1 and entry.prev == NOTHING.hash:
            yield Finding(number, "restarted", f"another chain begins here, after entry {last.seq}")
            self._accept(number, entry)
        elif ours.seq > last.seq:
            yield Finding(number, "missing", f"{_range(last.seq + 1, ours.seq - 1)} missing before it")
            self._accept(number, entry)
        else:
            yield Finding(number, "moved", f"entry {ours.seq} stands after entry {last.seq}: it was moved or inserted")

    def _held_back(self, following: Entry | None) -> Iterator[Finding]:
        """Say which of two lines is wrong that don't fit together, by the one that follows them, if there is one."""
        if self._held is None:
            return
        (number, entry), self._held = self._held, None
        rival = self._before is not None and entry.follows(self._before)
        if following is not None and following.follows(entry.head):
            word, text = ("inserted", "the next line follows the one before it") if rival else ("rewritten", _REWRITTEN)
            yield Finding(self._at, word, text)
        elif rival:
            unsure = "" if following is not None else f", or line {self._at} is"
            yield Finding(
                number, "inserted", f"it follows entry {entry.head.seq - 1}, as line {self._at} does: it was inserted{unsure}"
            )
            return
        elif following is not None:
            yield Finding(number, "rewritten", "it doesn't follow the line before it, and the next line doesn't follow it")
        else:
            yield Finding(self._at, "rewritten", f"line {number} was not written after it: one of the two was written anew")
        self._accept(number, entry)
        if following is not None and following.head.seq == entry.head.seq + 1:
            self.last = Head(entry.head.seq, following.prev)  # it has been told

    def _after_broken(self, number: int, entry: Entry) -> Iterator[Finding]:
        """Tell of the lines before this one that are no entries, unless it tells of them itself."""
        broken, self._broken = self._broken, []
        if len(broken) == 1 and _tells_of(entry, broken[0][1]) and entry.follows(self.last):
            yield Finding(
                broken[0][0], "torn", f"{len(broken[0][1])} bytes of an entry that was not finished; the next line says so", True
            )
            self._accept(number, entry)
            return
        yield from _edited(broken)
        gone = entry.head.seq - self.last.seq - 1
        if gone < 0:
            yield from self._placed(number, entry)
            return
        if gone > len(broken):
            yield Finding(number, "missing", f"{gone - len(broken)} more entries before entry {entry.head.seq} are missing")
        elif gone == 0 and not entry.follows(self.last):
            yield Finding(number, "rewritten", "it doesn't follow the last line that is whole")
        self._accept(number, entry)

    def _accept(self, number: int, entry: Entry) -> None:
        self._before, self.last, self._at = self.last, entry.head, number
        self.entries += 1
        self._seen = self._seen or entry.head == self.remembered

    def _end(self, number: int) -> Iterator[Finding]:
        if self._broken:
            *earlier, (last, line) = self._broken
            yield from _edited(earlier)
            yield Finding(last, "truncated", f"{len(line)} bytes that are no whole entry")
        remembered = self.remembered
        if remembered is None or self._seen or remembered == NOTHING:
            return
        if remembered.seq > self.last.seq:
            text = f"entry {remembered.seq} is not there: it ends with entry {self.last.seq}, so the end was cut off"
        else:
            text = f"entry {remembered.seq} is not the one that was remembered: the log was written anew"
        yield Finding(number, "head", text)


_REWRITTEN = "it is not the line that the next one was written after: it was written anew, with a hash of its own"


def _edited(broken: Iterable[tuple[int, bytes]]) -> Iterator[Finding]:
    for number, line in broken:
        word = "its text is not the one that its hash was made of" if _claims(line) else "it is no entry"
        yield Finding(number, "edited", word)


def _claims(line: bytes) -> bool:
    return _END.fullmatch(line, max(0, len(line) - _END_LENGTH)) is not None


def torn_facts(line: bytes) -> dict[str, object]:
    """Return the facts of an entry that tells of a line which was not finished."""
    return {"bytes": len(line), "sha256": hashlib.sha256(line).hexdigest()}


def _tells_of(entry: Entry, line: bytes) -> bool:
    return entry.kind == "torn" and all(entry.data.get(key) == value for key, value in torn_facts(line).items())


def _range(first: int, last: int) -> str:
    return f"entry {first} is" if first == last else f"entries {first} to {last} are"
