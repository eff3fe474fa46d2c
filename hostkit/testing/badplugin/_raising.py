"""Faults of a plugin that raises, or answers with what is no data."""

from __future__ import annotations

import functools
import os
import pickle
import sys
from collections.abc import Callable
from typing import Any

from hostkit._contract import ExecutionContext

from ._table import fault


class Weird(BaseException):
    """An error that ``except Exception`` doesn't catch."""


class Unprintable(BaseException):
    """An error that ends the process of whoever asks for its text."""

    def __str__(self) -> str:
        raise SystemExit(9)

    __repr__ = __str__


class Unpicklable(Exception):
    """An error that can't be pickled, nor made again from its arguments."""

    def __init__(self, first: object, second: object) -> None:
        super().__init__(f"{first} and {second}")
        self.lock = sys._getframe()

    def __reduce__(self) -> Any:
        raise TypeError("never pickled")


class _Hostile(type):
    @property
    def __module__(cls) -> str:  # type: ignore[override]
        raise SystemExit(8)

    def __repr__(cls) -> str:
        raise SystemExit(7)


class Nameless(Exception, metaclass=_Hostile):
    """An error whose class ends the process of whoever asks where it comes from."""


def _cyclic() -> Exception:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


def _noted() -> Exception:
    error = ValueError("with notes of a wrong type")
    error.__notes__ = [3, None, object()]  # type: ignore[list-item]
    return error


RAISED: dict[str, Callable[[], BaseException]] = {
    "value": lambda: ValueError("bad value"),
    "weird": lambda: Weird("not an Exception"),
    "unprintable": Unprintable,
    "unpicklable": lambda: Unpicklable("one", "two"),
    "nameless": lambda: Nameless("whose?"),
    "group": lambda: ExceptionGroup("several", [ValueError("one"), ExceptionGroup("more", [OSError(5, "two")])]),
    "cyclic": _cyclic,
    "noted": _noted,
    "generator-exit": GeneratorExit,
    "keyboard": KeyboardInterrupt,
    "stop": lambda: StopIteration(3),
    "exit-0": lambda: SystemExit(0),
    "exit-3": lambda: SystemExit(3),
    "exit-text": lambda: SystemExit("out of here"),
    "exit-none": lambda: SystemExit(None),
    "exit-object": lambda: SystemExit({"code": 1}),
}


@fault("PluginFailed")
def raise_(ctx: ExecutionContext, what: str = "value") -> object:
    """Raise an error; "what" is a word of RAISED: ordinary ones, BaseExceptions, and hostile ones."""
    error = RAISED[what]()
    raise error


@fault("PluginFailed")
def raise_unprintable(ctx: ExecutionContext) -> object:
    """Raise an error whose text calls sys.exit when somebody asks for it."""
    raise Unprintable


@fault("PluginFailed")
def raise_keyboard_interrupt(ctx: ExecutionContext) -> object:
    """Raise a KeyboardInterrupt that is no Ctrl-C."""
    raise KeyboardInterrupt


@fault("PluginFailed")
def sys_exit(ctx: ExecutionContext, code: int = 0) -> object:
    """Call sys.exit in a call."""
    sys.exit(code)


@fault("PluginFailed")
def recurse(ctx: ExecutionContext) -> object:
    """Recurse without end, in Python."""

    def deeper() -> object:
        return deeper()

    return deeper()


@fault("InvalidResponse")
def answer_object(ctx: ExecutionContext) -> object:
    """Answer with an object that is no data."""
    return object()


@fault("InvalidResponse")
def answer_nan(ctx: ExecutionContext) -> object:
    """Answer with NaN, which JSON doesn't have."""
    return {"ratio": float("nan")}


@fault("InvalidResponse")
def answer_surrogate(ctx: ExecutionContext) -> object:
    """Answer with half a surrogate pair, which UTF-8 doesn't have."""
    return "\ud800"


@fault("InvalidResponse")
def answer_deep(ctx: ExecutionContext, depth: int = 100_000) -> object:
    """Answer with lists nested a hundred thousand deep."""
    start: list[object] = []
    return functools.reduce(lambda inner, _: [inner], range(depth), start)


class Gadget:
    """Unpickling one makes a directory."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (self.place,)


@fault("InvalidResponse")
def answer_pickle(ctx: ExecutionContext, place: str = "/nonexistent/canary") -> object:
    """Answer with a pickle that would run code in whoever loads it."""
    return [Gadget(place), pickle.dumps(Gadget(place))]
