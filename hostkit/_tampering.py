"""Notice what a plugin in the host's own process did to the process while it was imported and constructed.

    before = Snapshot.take()
    ...                                      import and construct the plugin
    for change in before.changes(own={"calculator_plugin"}):
        change.what, change.found            "sys.path", "added '/tmp/x'"
    before.restore(own={"calculator_plugin"})

This notices carelessness and is no protection: whoever wants to can hide from it. It looks at what is shared by everybody in the
process and one level deep: at the names in some modules and classes, not at what the objects behind them hold. Objects are
compared by identity and never asked for their text; only numbers, text and the like are compared by value.

No change is what well-behaved imports do: new modules, functions at exit (closing one's own files is what ``atexit`` is for, and
it has no public list), handlers of one's own loggers, narrow warnings filters (``_filters``), a finder behind all others on
``sys.meta_path``, which only gets what nobody else finds (every copy of ``six`` does that), attributes that are new in a module.

Other threads are not told apart: what the host itself changes meanwhile (``os.chdir``, ``warnings.catch_warnings``,
``contextlib.redirect_stdout``) looks as if the plugin had.
"""

from __future__ import annotations

import builtins
import gc
import logging
import re
import socket
import sys
import warnings
from asyncio import events
from collections.abc import Callable, Collection, Iterable
from locale import LC_ALL, setlocale
from os import O_CLOEXEC, O_RDONLY, chdir, close, getcwd, read, umask  # bound here, to be the system's own when they are needed
from os import open as open_
from typing import Any

from ._filters import told as told_filter
from ._looks import Attributes, Change, Environment, List, Look, Modules, Others, Setting, Signals, behind_all, failed, narrow
from ._worker._failure import class_name

# Names here mean what they meant before any plugin was loaded: functions look builtins up in what this is where they are defined.
__builtins__ = vars(builtins).copy()  # type: ignore[assignment]  # which is what an imported module has

__all__ = ["Change", "Snapshot"]


class Snapshot:
    """What of this process plugins have no business with, at one moment.

    It holds references to what it saw: keep it no longer than the load it is taken for. To be used by one thread, that of the load
    (trace functions are a thread's own; only the main thread can set signal handlers back).
    """

    def __init__(self, loaded: dict[str, object], seen: tuple[Any, ...]) -> None:
        self._loaded = loaded
        self._seen = seen

    @classmethod
    def take(cls) -> Snapshot:
        return cls(dict(sys.modules), tuple(_seen(look) for look in _LOOKS))

    def changes(self, own: Collection[str] = ()) -> tuple[Change, ...]:
        """Return what is different now. ``own`` has the top-level modules that the plugin may load anew, and mute."""
        others = Others(self._loaded, frozenset(own))
        return tuple(change for look, seen in zip(_LOOKS, self._seen, strict=True) for change in _changes(look, seen, others))

    def restore(self, own: Collection[str] = ()) -> tuple[str, ...]:
        """Put back what ``changes`` tells, and return words for what could not be put back."""
        others = Others(self._loaded, frozenset(own))
        return tuple(word for look, seen in zip(_LOOKS, self._seen, strict=True) for word in _restored(look, seen, others))


_UNSEEN = object()


def _seen(look: Look) -> Any:
    """Look, or leave it out: a part that an earlier plugin spoiled must not keep others from being loaded."""
    try:
        return look.see()
    except Exception:  # foreign objects in the process's own places
        return _UNSEEN


def _changes(look: Look, seen: Any, others: Others) -> Iterable[Change]:
    if seen is _UNSEEN:
        return ()
    try:
        return list(look.changes(seen, others))
    except Exception as error:  # foreign objects in the process's own places
        return (Change(look.what, f"can't be read any more: {class_name(type(error))}"),)


def _restored(look: Look, seen: Any, others: Others) -> Iterable[str]:
    if seen is _UNSEEN:
        return ()
    try:
        return list(look.restore(seen, others))
    except Exception as error:  # foreign objects in the process's own places, or no permission
        return (failed(look.what, error),)


def _directory() -> str | None:
    try:
        return getcwd()
    except OSError:  # it was removed
        return None


def _mask() -> str:
    """Return the umask in octal. Linux tells it; elsewhere it has to be set to be read, and then to one that opens nothing."""
    try:
        found = _UMASK.search(_status())
    except OSError:
        found = None
    if found is not None:
        return found.group(1).decode()
    mask = umask(0o077)
    umask(mask)
    return f"{mask:04o}"


def _status() -> bytes:
    status = open_("/proc/self/status", O_RDONLY | O_CLOEXEC)
    try:
        return read(status, 4096)
    finally:
        close(status)


_UMASK = re.compile(rb"^Umask:\s*([0-7]+)", re.MULTILINE)


def _names(owner: object, name: str) -> tuple[Callable[[], Any], Callable[[Any], object]]:
    """Return how to read and write an attribute, past what its owner's class would say by then."""
    names = vars(owner)
    return lambda: names.get(name), lambda value: names.__setitem__(name, value)


def _filters() -> Any:
    """Return the warnings filters in force: from Python 3.14 on a context may have its own."""
    of_context = getattr(warnings, "_get_filters", None)
    return getattr(warnings, "filters", None) if of_context is None else of_context()


def _set_filters(filters: list[Any]) -> None:
    if _filters() is not filters:
        warnings.filters = filters
    with _catch_warnings():  # which forgets what was decided by the filters until now
        pass


_catch_warnings = warnings.catch_warnings
_ROOT = logging.getLogger()
_MANAGER = _ROOT.manager

# Names first: what follows is put back by functions that are found under them.
_LOOKS: tuple[Look, ...] = (
    Attributes(),
    Modules(),
    List("sys.path", *_names(sys, "path")),
    List("sys.meta_path", *_names(sys, "meta_path"), harmless=behind_all),
    List("sys.path_hooks", *_names(sys, "path_hooks")),
    Signals(),
    List("warnings filters", _filters, _set_filters, harmless=narrow, word=told_filter),
    Setting("root logger", _names(_ROOT, "level")[0], _ROOT.setLevel, noun="its level "),
    Setting("root logger", *_names(_ROOT, "disabled"), noun="disabled "),
    List("root logger", *_names(_ROOT, "handlers"), noun="its handlers: "),
    List("root logger", *_names(_ROOT, "filters"), noun="its filters: "),
    Setting("root logger", lambda: _MANAGER.disable, logging.disable, noun="what logging.disable suppresses "),
    Setting("root logger", *_names(logging, "_loggerClass"), noun="the class of new loggers "),
    Environment(),
    Setting("cwd", _directory, chdir),
    Setting("umask", _mask, lambda mask: umask(int(mask, 8))),
    Setting("locale", lambda: setlocale(LC_ALL), lambda name: setlocale(LC_ALL, name)),
    Setting("recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    Setting("thread switch interval", sys.getswitchinterval, sys.setswitchinterval),
    Setting("trace function", sys.gettrace, sys.settrace),
    Setting("profile function", sys.getprofile, sys.setprofile),
    # Not by asyncio's own functions: they warn from Python 3.14 on, and the first call makes one.
    Setting("event loop policy", *_names(events, "_event_loop_policy"), made_by="asyncio"),
    Setting("default socket timeout", socket.getdefaulttimeout, socket.setdefaulttimeout),
    Setting("garbage collector", gc.isenabled, lambda on: gc.enable() if on else gc.disable(), noun="enabled "),
    Setting("garbage collector", gc.get_threshold, lambda counts: gc.set_threshold(*counts), noun="its threshold "),
)
