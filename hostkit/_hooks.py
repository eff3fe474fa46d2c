"""Hooks in pluggy's way, over plugins in every place: order, ``firstresult`` and historic calls are pluggy's own.

    host.hook.name(arg=...) ─► pluggy ─► a stand-in for each implementation ─► backend.call_hook

A stand-in has the implementation's argument names and options, so pluggy orders it as the real one, and keeps the error of one
implementation from silencing the others.
"""

from __future__ import annotations

import difflib
import keyword
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

import pluggy

from ._backends import OfferedHook
from ._errors import ConfigError, HostkitError, PluginLoadError
from ._log import tell
from ._shape import Shape
from ._worker._codec import codec_for
from ._worker._structure import DataError, is_missing

if TYPE_CHECKING:
    from ._record import Record

hookspec = pluggy.HookspecMarker("hostkit")

_errors: ContextVar[list[HostkitError] | None] = ContextVar("hostkit_hook_errors", default=None)


class Crossing:
    """How one hook's arguments and result become data, by the annotations of its hookspec."""

    def __init__(self, function: Callable[..., Any]) -> None:
        hints = _hints(function)
        self._arguments = {name: _codec(hint) for name, hint in hints.items() if name != "return"}
        self.shape = Shape(response=hints.get("return") if not is_missing(hints.get("return")) else None)

    def encode(self, arguments: Mapping[str, object]) -> bytes:
        """Return the arguments as one JSON object. Raises ``DataError``."""
        members = []
        for name, value in arguments.items():
            codec = self._arguments.get(name) or codec_for(None)
            try:
                members.append(f'"{name}":'.encode() + codec.encode(value))
            except DataError as error:
                raise DataError.of([{**row, "path": f"{name}.{row['path']}".rstrip(".")} for row in error.rows]) from None
        return b"{" + b",".join(members) + b"}"


class Hooks:
    """The relay of one host. Registration is guarded by the host; calling is thread-safe as pluggy is."""

    def __init__(self, app: str, hookspecs: Iterable[object], on_error: Literal["raise", "skip"]) -> None:
        if on_error not in ("raise", "skip"):
            raise ConfigError(f"hook_errors: expected 'raise' or 'skip', found {on_error!r}")
        self._app = app
        self._on_error = on_error
        self._manager = pluggy.PluginManager("hostkit")
        for module in hookspecs:
            try:
                self._manager.add_hookspecs(module)
            except ValueError as error:
                raise ConfigError(f"hookspecs: {error}; mark them with hostkit.hookspec") from None

    def __getattr__(self, name: str) -> Hook:
        caller = getattr(self._manager.hook, name, None)
        if name.startswith("_") or caller is None:
            raise AttributeError(f"{self._app} has no hook {name!r}{_near(name, self.names)}")
        return Hook(caller, self._on_error)

    @property
    def names(self) -> list[str]:
        """The hooks that the application specifies."""
        return sorted(vars(self._manager.hook))

    def check(self, name: str, offered: Mapping[str, OfferedHook], *, isolated: bool) -> None:
        """Refuse a plugin whose implementations can't be called. Raises ``PluginLoadError`` of kind ``hook``."""
        for hook in offered.values():
            spec = self._spec(hook.name)
            if spec is None:
                if hook.options.get("optionalhook"):
                    continue
                raise _refused(name, hook, f"{self._app} has no hook of that name{_near(hook.name, self.names)}")
            unknown = [argument for argument in hook.arguments if argument not in spec.argnames]
            if unknown:
                raise _refused(name, hook, f"it takes {unknown[0]!r}, which the hook doesn't have; there is {', '.join(spec.argnames)}")
            if isolated:
                _check_crossing(name, hook, spec)

    def register(self, record: Record, offered: Mapping[str, OfferedHook], plugin: object | None) -> None:
        """Put a plugin's implementations into the relay; ``plugin`` is the object itself where it is in this process."""
        members: dict[str, object] = {}
        for hook in offered.values():
            if self._spec(hook.name) is None:
                continue
            if hook.options.get("wrapper") or hook.options.get("hookwrapper"):
                members[hook.name] = _bare(getattr(plugin, hook.function), hook)
            else:
                members[hook.name] = self._stand_in(record, hook)
        if members:
            self._manager.register(types.SimpleNamespace(**members), record.name)

    def unregister(self, name: str) -> None:
        """Take a plugin out of the relay. Idempotent."""
        if self._manager.has_plugin(name):
            self._manager.unregister(name=name)

    def _spec(self, name: str) -> Any:  # Any: pluggy's HookSpec, which it doesn't export
        caller = vars(self._manager.hook).get(name)
        return None if caller is None else caller.spec

    def _stand_in(self, record: Record, hook: OfferedHook) -> Callable[..., object]:
        crossing = Crossing(self._spec(hook.name).function)

        def relay(arguments: dict[str, object]) -> object:
            try:
                return record.call_hook(hook.name, arguments, crossing)
            except HostkitError as error:
                collected = _errors.get()
                if collected is None:
                    tell("ERROR", f"hook {hook.name}: {error}", plugin=record.name)
                else:
                    collected.append(error)
                return None

        return _bare(_with_arguments(relay, hook), hook)


class Hook:
    """One hook of the host: call it with keyword arguments, as pluggy's own."""

    __slots__ = ("_caller", "_on_error")

    def __init__(self, caller: Any, on_error: str) -> None:  # Any: pluggy.HookCaller and its subset
        self._caller = caller
        self._on_error = on_error

    def __call__(self, **arguments: object) -> Any:  # Any: a list of results, or the first one, as the hookspec says
        """Call every implementation. One that fails doesn't keep the others from running; its error is raised after them (one
        as itself, several as an ``ExceptionGroup``), or logged and skipped, as the host was told."""
        return self._collecting(lambda: self._caller(**arguments))

    def call_extra(self, methods: list[Callable[..., object]], kwargs: Mapping[str, object]) -> Any:
        """Call with additional functions, as pluggy's own."""
        return self._collecting(lambda: self._caller.call_extra(methods, kwargs))

    def call_historic(self, result_callback: Callable[[Any], None] | None = None, kwargs: Mapping[str, object] | None = None) -> None:
        """Call now, and again for every plugin that is loaded later. Errors of later ones are logged."""
        self._collecting(lambda: self._caller.call_historic(result_callback, kwargs))

    def get_hookimpls(self) -> Any:
        """Return pluggy's list of the implementations, in reverse calling order."""
        return self._caller.get_hookimpls()

    def _collecting(self, call: Callable[[], Any]) -> Any:
        errors: list[HostkitError] = []
        token = _errors.set(errors)
        try:
            result = call()
        finally:
            _errors.reset(token)
        for error in errors:
            plugin = getattr(error, "plugin", "")
            tell("WARNING", f"hook {self._caller.name}: {error}", plugin=plugin, request_id=getattr(error, "request_id", ""))
        if errors and self._on_error == "raise":
            raise errors[0] if len(errors) == 1 else ExceptionGroup(f"hook {self._caller.name}", errors)
        return result


def _check_crossing(name: str, hook: OfferedHook, spec: Any) -> None:
    if hook.options.get("wrapper") or hook.options.get("hookwrapper"):
        raise _refused(name, hook, "a wrapper runs around the other implementations and can't be isolated; run it in-process")
    hints = _hints(spec.function)
    for argument in (*hook.arguments, "return"):
        try:
            _codec(hints.get(argument))
        except TypeError as error:
            what = "its result" if argument == "return" else f"its argument {argument!r}"
            raise _refused(name, hook, f"{what} is no data and can't cross to a worker: {error}; run it in-process") from None


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise ConfigError(f"the hookspec {function.__name__}: an annotation can't be resolved: {error}") from None


def _codec(hint: Any) -> Any:
    codec = codec_for(hint)
    adapter = getattr(codec, "adapter", None)
    if adapter is not None:
        try:
            adapter.json_schema(mode="serialization")
        except Exception as error:  # pydantic's several ways of saying that a type has no JSON
            raise TypeError(str(error).partition("\n")[0]) from None
    return codec


def _with_arguments(relay: Callable[[dict[str, object]], object], hook: OfferedHook) -> Callable[..., object]:
    """Make a function with the implementation's argument names: pluggy reads them off its code."""
    names = [hook.name, *hook.arguments]
    if not all(name.isidentifier() and not keyword.iskeyword(name) for name in names):
        raise ValueError(f"no names of a hook and its arguments: {names!r}")
    inside = ", ".join(f"{name!r}: {name}" for name in hook.arguments)
    source = f"lambda {', '.join(hook.arguments)}: _relay({{{inside}}})"
    made: Callable[..., object] = eval(source, {"_relay": relay})  # noqa: S307 - identifiers that the hookspec has, too
    made.__name__ = made.__qualname__ = hook.name
    return made


def _bare(function: Callable[..., Any], hook: OfferedHook) -> Callable[..., Any]:
    """Mark a function with the options as pluggy reads them, under the hook's own name."""
    if isinstance(function, types.MethodType):
        return function
    function.hostkit_impl = {**hook.options, "specname": None}  # type: ignore[attr-defined]
    return function


def _refused(name: str, hook: OfferedHook, why: str) -> PluginLoadError:
    return PluginLoadError(f"plugin {name!r}: its implementation of the hook {hook.name} is refused: {why}", plugin=name, kind="hook")


def _near(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {near[0]}?" if near else ""


