"""Hooks in pluggy's way, over plugins in every place: order, ``firstresult`` and wrappers are pluggy's own.

    host.hook.name(arg=...) ─► pluggy ─► a stand-in for each implementation ─► record ─► backend.call_hook
                                           └─► its error is put aside, and the next one is called

A stand-in has the implementation's argument names and options, so pluggy orders it as the real one. It asks at each call where its
plugin runs, so plugins keep their places when they are reloaded elsewhere.
"""

from __future__ import annotations

import keyword
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pluggy

from ._backends import OfferedHook
from ._errors import ConfigError, HostForkedError, HostkitError, PluginLoadError
from ._hookspecs import HookSpec, near, specified
from ._hookwrapping import guarded
from ._lifetimes import FORKED
from ._log import tell

if TYPE_CHECKING:
    from ._lane import Lane
    from ._record import Record

hookspec = pluggy.HookspecMarker("hostkit")

# What the hook call that runs now has put aside; None outside of one.
_errors: ContextVar[list[HostkitError] | None] = ContextVar("hostkit_hook_errors", default=None)


class Hooks:
    """The implementations of all loaded plugins of one host. Thread-safe."""

    def __init__(self, app: str, hookspecs: Iterable[object], on_error: Literal["raise", "skip"]) -> None:
        if on_error not in ("raise", "skip"):
            raise ConfigError(f"hook_errors: expected 'raise' or 'skip', found {on_error!r}")
        self._app = app
        self._specs = specified(hookspecs)
        self.relay = Relay(app, {name: Hook(self, spec, on_error) for name, spec in self._specs.items()})
        self._forked = False
        self._lock = threading.Lock()  # guards everything below
        self._plugins: dict[str, _StandIns] = {}  # in the order of loading
        self._history: list[_HistoricCall] = []
        self._manager = self._new_manager()

    def check(self, name: str, offered: Mapping[str, OfferedHook], *, isolated: bool) -> None:
        """Refuse a plugin with an implementation that can't be called. Raises ``PluginLoadError`` of kind ``hook``."""
        if not self._specs:
            return  # a host that calls no hooks, such as the command line's
        for hook in offered.values():
            spec = self._specs.get(hook.name)
            if spec is not None:
                why = _refusal(hook, spec, isolated=isolated)
            elif hook.options.get("optionalhook"):
                continue
            else:
                why = f"{self._app} has no hook of that name{near(hook.name, self._specs)}"
            if why:
                text = f"plugin {name!r}: its implementation of the hook {hook.name} is refused: {why}"
                raise PluginLoadError(text, plugin=name, kind="hook")
            if spec is not None:
                _warn(name, hook, spec)

    def admit(self, record: Record, lane: Lane) -> None:
        """Tell a plugin on its new lane of the historic calls before it, then open both to everybody. Its errors are logged; what a
        ``result_callback`` raises is raised, and the lane stays unopened."""
        heard = 0
        while True:
            with self._lock:
                missed = self._history[heard:]
                if not missed:
                    self._place(record, lane)
                    record.lane = lane
                    return
            _tell(record, lane, missed)
            heard += len(missed)

    def unregister(self, name: str) -> None:
        """Take a plugin out of the relay. Idempotent."""
        with self._lock:
            before = self._plugins.pop(name, None)
            if before is not None:
                self._manager = self._new_manager()

    def forget(self, *, loaded: bool) -> None:
        """Disarm the relay in a fork of the host's process if it has ``loaded`` plugins, without the lock: the thread that held it may
        not be here."""
        self._forked = loaded
        self._lock = threading.Lock()

    # Below: what the hooks ask for.

    def caller(self, name: str) -> Any:  # Any: pluggy.HookCaller, which has no types of the hook's own
        """Return pluggy's caller of a hook, as the loaded plugins are now. Raises ``HostForkedError``."""
        if self._forked:
            raise HostForkedError(FORKED)
        return getattr(self._manager.hook, name)

    def remember(self, call: _HistoricCall) -> list[Any]:
        """Note a historic call for the plugins that come later; return pluggy's list of the implementations that are here."""
        with self._lock:
            found: list[Any] = self.caller(call.spec.name).get_hookimpls()
            self._history.append(call)
            return found

    def _new_manager(self) -> pluggy.PluginManager:
        # A new one for every change but an addition: callers never see half of a change, and before 1.7 pluggy's unregister
        # leaves behind the second implementation that a plugin has of one hook.
        manager = pluggy.PluginManager("hostkit")
        if self._specs:
            # Any: pluggy takes every object, and its annotations modules and classes only
            space: Any = _StandIns({spec.name: _stand_in_spec(spec) for spec in self._specs.values()})
            manager.add_hookspecs(space)
        for name, members in self._plugins.items():
            manager.register(members, name)
        return manager

    def _place(self, record: Record, lane: Lane) -> None:
        """Put a plugin's implementations into the relay; one that was there before keeps its place."""
        offered = [hook for hook in lane.backend.hooks.values() if hook.name in self._specs]
        members = _StandIns({hook.function: _stand_in(record, hook, self._specs[hook.name]) for hook in offered})
        before = self._plugins.get(record.name)
        self._plugins[record.name] = members
        if before is None:
            self._manager.register(members, record.name)
        elif vars(before) or vars(members):
            self._manager = self._new_manager()


def _tell(record: Record, lane: Lane, calls: Iterable[_HistoricCall]) -> None:
    for call in calls:
        for hook in lane.backend.hooks.values():
            if hook.name != call.spec.name:
                continue
            context = record.context(None, None, None, None, None)
            arguments = {name: call.arguments[name] for name in _taken(hook, call.spec)}
            try:
                result = lane.backend.call_hook(context, hook.function, arguments, call.spec.crossing)
            except HostkitError as error:
                _log("ERROR", call.spec.name, error)
            else:
                call.hand(result)


@dataclass(frozen=True, slots=True, eq=False)
class _HistoricCall:
    spec: HookSpec
    arguments: Mapping[str, object]
    callback: Callable[[Any], None] | None

    def hand(self, result: object) -> None:
        if result is not None and self.callback is not None:
            self.callback(result)


class Relay:
    """``host.hook``: an attribute for each hook that the application specifies, and none beside them."""

    __slots__ = ("__app", "__dict__")

    def __init__(self, app: str, hooks: Mapping[str, Hook]) -> None:
        self.__app = app
        vars(self).update(hooks)

    def __getattr__(self, name: str) -> Hook:
        raise AttributeError(f"{self.__app} has no hook {name!r}{near(name, vars(self))}")

    def __repr__(self) -> str:
        return f"<hooks of {self.__app}: {', '.join(vars(self))}>"


class Hook:
    """One hook of a host: call it with keyword arguments, as pluggy's own. Thread-safe."""

    __slots__ = ("_hooks", "_on_error", "_spec")

    def __init__(self, hooks: Hooks, spec: HookSpec, on_error: str) -> None:
        self._hooks = hooks
        self._spec = spec
        self._on_error = on_error

    @property
    def name(self) -> str:
        """The hook's name."""
        return self._spec.name

    def __call__(self, **arguments: object) -> Any:  # Any: a list of results, or the first one, as the hookspec says
        """Call every implementation, the one loaded last first. One that fails doesn't keep the others from running; its error is
        raised after them (one as itself, several as an ``ExceptionGroup``), or logged and skipped, as the host was told."""
        given = self._given(arguments)
        return self._collecting(lambda: self._hooks.caller(self.name)(**given))

    def call_extra(self, methods: list[Callable[..., object]], kwargs: Mapping[str, object]) -> Any:
        """Call with additional functions, as pluggy's own. What these raise is raised as it is."""
        given = self._given(kwargs)
        return self._collecting(lambda: self._hooks.caller(self.name).call_extra(methods, given))

    def call_historic(
        self, result_callback: Callable[[Any], None] | None = None, kwargs: Mapping[str, object] | None = None
    ) -> None:
        """Call now, and again for every plugin that is loaded later. Errors of later ones are logged."""
        if not self._spec.historic:
            raise TypeError(f"the hook {self.name} is not historic: call it as {self.name}(...)")
        call = _HistoricCall(self._spec, self._spec.bound(kwargs or {}), result_callback)
        self._collecting(lambda: self._call_present(call))

    def get_hookimpls(self) -> Any:
        """Return pluggy's list of the implementations, in reverse calling order."""
        return self._hooks.caller(self.name).get_hookimpls()

    def is_historic(self) -> bool:
        """Whether it is called by ``call_historic``."""
        return self._spec.historic

    def __repr__(self) -> str:
        return f"<hook {self.name}>"

    def _given(self, arguments: Mapping[str, object]) -> Mapping[str, object]:
        if self._spec.historic:
            raise TypeError(f"the hook {self.name} is historic: call it as {self.name}.call_historic(kwargs=...)")
        return self._spec.bound(arguments)

    def _call_present(self, call: _HistoricCall) -> None:
        present = reversed(self._hooks.remember(call))
        results = [impl.function(**{name: call.arguments[name] for name in impl.argnames}) for impl in present]
        for result in results:
            call.hand(result)

    def _collecting(self, call: Callable[[], Any]) -> Any:
        errors: list[HostkitError] = []
        token = _errors.set(errors)
        try:
            result = call()
        finally:
            _errors.reset(token)
            for error in errors:
                _log("WARNING", self.name, error)
        if len(errors) > 1 and self._on_error == "raise":
            raise ExceptionGroup(f"hook {self.name}: {len(errors)} implementations failed", errors)
        if errors and self._on_error == "raise":
            raise errors[0]
        return result


class _StandIns:
    """A plugin, or the application, as pluggy sees it."""

    def __init__(self, functions: Mapping[str, Callable[..., Any]]) -> None:
        vars(self).update(functions)

    def __dir__(self) -> Iterable[str]:
        return list(vars(self))


def _stand_in_spec(spec: HookSpec) -> Callable[..., Any]:
    made = _function(spec.name, spec.arguments, lambda _: None)
    # Defaults, history and warnings are seen to here, the same way whichever pluggy it is.
    made.hostkit_spec = {  # type: ignore[attr-defined]
        "firstresult": bool(spec.options.get("firstresult")),
        "historic": False,
        "warn_on_impl": None,
        "warn_on_impl_args": None,
    }
    return made


def _stand_in(record: Record, hook: OfferedHook, spec: HookSpec) -> Callable[..., Any]:
    function, crossing = hook.function, spec.crossing

    def call(arguments: dict[str, object]) -> object:
        try:
            return record.front.call_hook(record.context(None, None, None, None, None), function, arguments, crossing)
        except HostkitError as error:
            _put_aside(error, spec.name)
            return None

    def wrap(arguments: dict[str, object]) -> Generator[None, Any, Any]:
        put_aside = lambda error: _put_aside(error, spec.name)  # noqa: E731
        return guarded(record, hook, arguments, crossing, put_aside)

    wraps = _wraps(hook)
    made = _function(spec.name, _taken(hook, spec), wrap if wraps else call, yields=wraps)
    # An old-style wrapper is run by ``guarded`` and looks like a new one from outside.
    made.hostkit_impl = {**hook.options, "specname": spec.name, "wrapper": wraps, "hookwrapper": False}  # type: ignore[attr-defined]
    return made


def _put_aside(error: HostkitError, hook: str) -> None:
    collected = _errors.get()
    if collected is None:  # somebody called the stand-in itself
        raise error
    error.add_note(f"in its implementation of the hook {hook}")
    collected.append(error)


def _log(level: str, hook: str, error: HostkitError) -> None:
    plugin, request_id = getattr(error, "plugin", ""), getattr(error, "request_id", "")
    tell(level, f"hook {hook}: {type(error).__name__}: {error}", plugin=plugin, request_id=request_id)


def _function(
    name: str, arguments: Iterable[str], relay: Callable[[dict[str, object]], object], *, yields: bool = False
) -> Callable[..., Any]:
    """Make a function with these arguments: pluggy reads their names off its code."""
    names = list(arguments)
    if not all(each.isidentifier() and not keyword.iskeyword(each) for each in names):
        raise ValueError(f"no names of a hook's arguments: {names!r}")
    inside = "_" + "".join(names)  # longer than each of them, so none hides it
    body = f"{inside}({{{', '.join(f'{each!r}: {each}' for each in names)}}})"
    source = f"lambda {', '.join(names)}: {f'(yield from {body})' if yields else body}"
    made: Callable[..., Any] = eval(source, {inside: relay})  # noqa: S307 - identifiers that the hookspec has, too
    made.__name__ = made.__qualname__ = name
    return made


def _taken(hook: OfferedHook, spec: HookSpec) -> list[str]:
    """Return the arguments that an implementation is called with: of those with defaults, the ones that the hook has."""
    return [*hook.arguments, *(name for name in hook.optional if name in spec.arguments)]


def _wraps(hook: OfferedHook) -> bool:
    return bool(hook.options.get("wrapper") or hook.options.get("hookwrapper"))


def _refusal(hook: OfferedHook, spec: HookSpec, *, isolated: bool) -> str:
    """Say why an implementation can't be called; empty where it can."""
    if _wraps(hook):
        if isolated:
            return "a wrapper runs around the other implementations and can't be isolated; run it in-process"
        if spec.historic:
            return "a historic hook has no wrappers"
    why = spec.unknown(hook.arguments) or hook.trouble
    return why or (spec.crossing.refusal(hook, _taken(hook, spec)) if isolated else "")


def _warn(name: str, hook: OfferedHook, spec: HookSpec) -> None:
    warned = [spec.options.get("warn_on_impl")]
    warned += [(spec.options.get("warn_on_impl_args") or {}).get(argument) for argument in _taken(hook, spec)]
    for warning in warned:
        if warning is not None:
            warnings.warn_explicit(warning, None, f"plugin {name}, {hook.function}", 1)
