"""The kinds of things in a process that plugins can change: how each is seen, compared and put back."""

from __future__ import annotations

import builtins
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from operator import is_not
from os import environb, fsdecode  # bound here, so that they are the system's own when they are needed
from time import tzset
from types import ModuleType
from typing import Any, NamedTuple, Protocol

from ._filters import is_narrow, module_of
from ._unasked import name_of, plain, same, told
from ._worker._failure import class_name, message

# Names here mean what they meant before any plugin was loaded: functions look builtins up in what this is where they are defined.
__builtins__ = vars(builtins).copy()  # type: ignore[assignment]  # which is what an imported module has


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is no longer as it was. ``found`` never has a value of the environment: they are secrets."""

    what: str
    found: str


class Others:
    """The modules that were there before and aren't the plugin's own."""

    def __init__(self, loaded: dict[str, object], own: frozenset[str]) -> None:
        self.loaded = loaded
        self._own = own

    def owns(self, name: str) -> bool:
        return type(name) is str and name.partition(".")[0] in self._own

    @cached_property
    def names(self) -> set[str]:
        return {name for name in self.loaded if type(name) is str and not self.owns(name)}


class Look(Protocol):
    """One part of the process: how it is now, what became of it, and the way back."""

    @property
    def what(self) -> str: ...
    def see(self) -> Any: ...
    def changes(self, seen: Any, others: Others) -> Iterable[Change]: ...
    def restore(self, seen: Any, others: Others) -> Iterable[str]: ...


@dataclass(frozen=True, slots=True)
class Setting:
    """One value that a function of Python or the system returns, and another one sets."""

    what: str
    read: Callable[[], Any]
    write: Callable[[Any], object]
    noun: str = ""
    # The package that makes the value when it is first asked for: that is no change.
    made_by: str | None = None

    def see(self) -> Any:
        return self.read()

    def changes(self, seen: Any, others: Others) -> Iterable[Change]:
        del others
        now = self.read()
        if not (same(seen, now) or (seen is None and self._is_made(now))):
            yield Change(self.what, f"{self.noun}is {told(now)}, was {told(seen)}")

    def restore(self, seen: Any, others: Others) -> Iterable[str]:
        if any(self.changes(seen, others)):
            self.write(seen)
        return ()

    def _is_made(self, value: object) -> bool:
        return self.made_by is not None and module_of(type(value)).partition(".")[0] == self.made_by


def _nothing(item: object, others: Others, *, behind: bool) -> bool:
    del item, others, behind
    return False


def behind_all(item: object, others: Others, *, behind: bool) -> bool:
    del item, others
    return behind


def narrow(item: object, others: Others, *, behind: bool) -> bool:
    del behind
    return is_narrow(item, others.names)


class _Harmless(Protocol):
    """Whether an added item is nobody's business. ``behind``: it stands behind all that was there before."""

    def __call__(self, item: object, others: Others, *, behind: bool) -> bool: ...


@dataclass(frozen=True, slots=True)
class List:
    """A list whose items and their order matter."""

    what: str
    read: Callable[[], Any]
    write: Callable[[list[Any]], object]
    noun: str = ""
    harmless: _Harmless = _nothing
    word: Callable[[object], str] = told

    def see(self) -> tuple[list[Any], list[Any]]:
        there = self.read()
        return there, _items(there)

    def changes(self, seen: tuple[list[Any], list[Any]], others: Others) -> Iterable[Change]:
        there = self.read()
        was, before = seen
        if not issubclass(type(there), list):
            if there is not was:
                yield Change(self.what, f"{self.noun}replaced by {told(there)}")
            return
        now = _items(there)
        if len(now) == len(before) and not any(map(is_not, now, before)):
            return
        found = "; ".join(self._differences(before, now, others))
        if found:
            yield Change(self.what, f"{self.noun}{found}")

    def _differences(self, before: list[Any], now: list[Any], others: Others) -> Iterator[str]:
        added = [item for item, behind in _added(before, now) if not self.harmless(item, others, behind=behind)]
        if added:
            yield f"added {self._some(added)}"
        removed = [item for item in before if not _among(item, now)]
        if removed:
            yield f"removed {self._some(removed)}"
        elif not same(tuple(before), tuple(item for item in now if _among(item, before))):
            yield "the order changed"

    def restore(self, seen: tuple[list[Any], list[Any]], others: Others) -> Iterable[str]:
        if any(self.changes(seen, others)):
            there, before = seen
            added = _added(before, _items(self.read()))
            stay = [(item, behind) for item, behind in added if self.harmless(item, others, behind=behind)]
            if issubclass(type(there), list):
                there[:] = [*(item for item, behind in stay if not behind), *before, *(item for item, behind in stay if behind)]
            self.write(there)
        return ()

    def _some(self, items: Sequence[object]) -> str:
        more = f" and {len(items) - 3} more" if len(items) > 3 else ""
        return ", ".join(map(self.word, items[:3])) + more


def _items(there: Any) -> list[Any]:
    """Return a list's items, past what a subclass would say."""
    return [*list.__iter__(there)] if issubclass(type(there), list) else []


def _added(before: list[Any], now: list[Any]) -> list[tuple[Any, bool]]:
    """Return what is new, each with whether it stands behind all that was there before."""
    known = [_among(item, before) for item in now]
    last = max((place for place, is_known in enumerate(known) if is_known), default=-1)
    return [(item, place > last) for place, item in enumerate(now) if not known[place]]


def _among(item: object, items: Iterable[object]) -> bool:
    return any(same(item, other) for other in items)


class Signals:
    """Who handles each signal, as far as Python set it."""

    what = "signal handlers"

    def see(self) -> dict[int, object]:
        return dict(zip(_SIGNALS, map(_handler, _SIGNALS), strict=True))

    def changes(self, seen: dict[int, object], others: Others) -> Iterable[Change]:
        del others
        for number, before in seen.items():
            now = _handler(number)
            if not same(before, now):
                yield Change(_signal_name(number), f"its handler is {_told_handler(now)}, was {_told_handler(before)}")

    def restore(self, seen: dict[int, object], others: Others) -> Iterable[str]:
        del others
        for number, before in seen.items():
            if not same(before, _handler(number)):
                try:
                    _set_handler(number, before)
                except (TypeError, ValueError, OSError) as error:  # not the main thread; or C code had set it
                    yield failed(_signal_name(number), error)


_SIGNALS = sorted(int(number) for number in signal.valid_signals())
# Without the enums of signal.getsignal, which cost ten times as much and hash foreign handlers.
_signal = import_module("_signal")
_handler = _signal.getsignal
_set_handler = _signal.signal


def _signal_name(number: int) -> str:
    try:
        return f"signal {signal.Signals(number).name}"
    except ValueError:  # a real-time signal between the first and the last
        return f"signal {number}"


def _told_handler(handler: object) -> str:
    if type(handler) is int:
        return "SIG_IGN" if handler else "SIG_DFL"
    return "C code's" if handler is None else told(handler)


class Environment:
    """The variables, as Python set them; what C code put into the environment Python doesn't see either."""

    what = "os.environ"

    def see(self) -> dict[bytes, bytes]:
        return dict(environb)

    def changes(self, seen: dict[bytes, bytes], others: Others) -> Iterable[Change]:
        del others
        now = dict(environb)
        if now != seen:
            for name in _different(seen, now):
                found = "added" if name not in seen else "changed" if name in now else "removed"
                yield Change(f"os.environ {plain(fsdecode(name))}", found)

    def restore(self, seen: dict[bytes, bytes], others: Others) -> Iterable[str]:
        del others
        changed = _different(seen, dict(environb))
        for name in changed:
            if name in seen:
                environb[name] = seen[name]
            else:
                del environb[name]
        if b"TZ" in changed:
            tzset()  # the C library keeps what it read
        return ()


def _different(before: dict[bytes, bytes], now: dict[bytes, bytes]) -> list[bytes]:
    return [name for name in {**before, **now} if before.get(name) != now.get(name)]


class Modules:
    """The modules that were there before: gone, or others in their place. New ones are what an import is for."""

    what = "sys.modules"

    def see(self) -> dict[str, object]:
        return sys.modules  # type: ignore[return-value]  # it holds whatever somebody put there

    def changes(self, seen: dict[str, object], others: Others) -> Iterable[Change]:
        now: Any = getattr(sys, "modules", None)
        if now is not seen:
            yield Change(self.what, f"replaced by {told(now)}")
        for name, module in _replaced(others, seen):
            found = "removed" if module is _MISSING else f"replaced by {told(module)}"
            yield Change(f"sys.modules {name_of(name)}", found)

    def restore(self, seen: dict[str, object], others: Others) -> Iterable[str]:
        for name, _ in list(_replaced(others, seen)):
            seen[name] = others.loaded[name]
        sys.modules = seen  # type: ignore[assignment]
        return ()


_MISSING = object()


def _replaced(others: Others, now: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    before = others.loaded
    if _moved(before, now):
        for name, module in before.items():
            there = now.get(name, _MISSING)
            if there is not module and not others.owns(name):
                yield name, there


def _moved(before: dict[str, object], now: Mapping[str, object]) -> bool:
    """Whether anything may be replaced or removed. Dictionaries keep their order and what is new comes last, so the values can be
    compared place by place, which takes half as long as looking up the names; the last name, whose value may have been given to a
    new one, is looked up.
    """
    return next(reversed(before), None) not in now or any(map(is_not, before.values(), now.values()))


class _Names(NamedTuple):
    """The names in a module or class: what each stands for."""

    label: str
    owner: Any
    live: Mapping[str, object]
    before: dict[str, object]

    def differences(self) -> Iterator[tuple[str, object, object]]:
        """Yield each name with what it stood for and stands for."""
        live, before = self.live, self.before
        if _moved(before, live):
            unimportant = _CHANGING.get(self.label, frozenset())
            for name, was in before.items():
                now = live.get(name, _MISSING)
                if not same(was, now) and name not in unimportant:
                    yield name, was, now
        if self.label == "builtins":
            yield from ((name, _MISSING, now) for name, now in live.items() if name not in before)

    def put_back(self, name: str, value: object) -> None:
        if issubclass(type(self.owner), type):
            type.__setattr__(self.owner, name, value)
        elif value is _MISSING:
            del self.live[name]  # type: ignore[attr-defined]  # a module's dictionary
        else:
            self.live[name] = value  # type: ignore[index]


class Attributes:
    """Names of modules and classes that everybody relies on: replaced or removed. Only builtins may not have more of them: a name
    there is seen in every module.
    """

    what = "attributes"

    def see(self) -> list[_Names]:
        return [names for module in _WATCHED for names in _names_of(module)]

    def changes(self, seen: list[_Names], others: Others) -> Iterable[Change]:
        del others
        for names in seen:
            for name, was, now in names.differences():
                found = "removed" if now is _MISSING else f"{'added' if was is _MISSING else 'replaced by'} {told(now)}"
                yield Change(f"{names.label}.{name_of(name)}", found)

    def restore(self, seen: list[_Names], others: Others) -> Iterable[str]:
        del others
        for names in seen:
            for name, was, _ in list(names.differences()):
                try:
                    names.put_back(name, was)
                except (TypeError, AttributeError) as error:
                    yield failed(f"{names.label}.{name_of(name)}", error)


# The classes beside each module are those whose methods are patched most.
_WATCHED: Mapping[str, tuple[str, ...]] = {
    "asyncio": (),
    "builtins": (),
    "datetime": (),
    "importlib": (),
    "io": (),
    "json": ("JSONDecoder", "JSONEncoder"),
    "logging": ("Handler", "Logger"),
    "multiprocessing": (),
    "os": (),
    "pickle": (),
    "queue": (),
    "select": (),
    "selectors": (),
    "signal": (),
    "socket": ("socket",),
    "ssl": ("SSLContext",),
    "subprocess": ("Popen",),
    "sys": (),
    "threading": ("Thread",),
    "time": (),
    "warnings": (),
}
# Names that have a look of their own, or that Python itself sets again.
_CHANGING: Mapping[str, frozenset[str]] = {
    "logging": frozenset({"_loggerClass"}),
    "sys": frozenset({"path", "meta_path", "path_hooks", "modules", "last_type", "last_value", "last_traceback", "last_exc"}),
    "warnings": frozenset({"filters", "_filters_version"}),
}


def _names_of(module: str) -> Iterator[_Names]:
    there: Any = sys.modules.get(module)
    if not issubclass(type(there), ModuleType):
        return
    live = ModuleType.__getattribute__(there, "__dict__")
    yield _Names(module, there, live, live.copy())
    for name in _WATCHED[module]:
        kind = live.get(name)
        if issubclass(type(kind), type):
            proxy = type.__dict__["__dict__"].__get__(kind)
            yield _Names(f"{module}.{name}", kind, proxy, dict(proxy))


def failed(what: str, error: Exception) -> str:
    return f"{what}: {class_name(type(error))}: {message(error)}"
