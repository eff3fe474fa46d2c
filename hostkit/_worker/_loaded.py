"""Load one plugin and resolve its contract, once: in-process and worker do it with this same code.

entry point → module → object → checked contract, so that what is wrong with a plugin is said when it is loaded.
"""

from __future__ import annotations

import sys

from .._contract import HealthStatus, Plugin, PluginInfo, Status
from ._codec import codec_for
from ._data import DataError, found
from ._failure import class_name, is_interrupt, message, type_name
from ._hookimpls import hook_implementations
from ._json import dump_json, load_json
from ._signature import evaluated, innermost, is_contract, layers, parameters, promised_types, shown, takes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ._codec import Codec
    from ._hookimpls import HookImplementation

# CPython's code flags; inspect has names for them and costs a worker 15 ms.
_GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x200

CALL, COROUTINE, GENERATOR, ASYNC_GENERATOR, HOOKS_ONLY = "call", "coroutine", "generator", "async generator", "hooks only"


class LoadFailure(Exception):
    """The plugin can't be loaded; ``kind`` is the word of ``PluginLoadError.kind``, the cause what the plugin raised."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class LoadedPlugin:
    """A plugin object with everything that a call needs to know of it. Raises ``LoadFailure``."""

    hooks: dict[str, HookImplementation]
    execute: Callable[[Any, Any], Any] | None
    kind: str

    def __init__(
        self, plugin: Any, *, settle: Callable[[Any], Any] | None = None, settings: list[tuple[str, ...]] | None = None
    ) -> None:
        self.plugin = plugin
        self.settle = settle or _run_alone
        # The paths of its settings that may be shown.
        self.settings = settings or []
        try:
            self._look()
        except LoadFailure:
            raise
        except BaseException as error:  # attributes of a plugin may be foreign code, too
            if is_interrupt(error):
                raise
            raise LoadFailure("contract", f"looking at {_called(plugin)} raised {type_name(error)}: {message(error)}") from error

    def _look(self) -> None:
        self.hooks = hook_implementations(self.plugin)
        self.execute = getattr(self.plugin, "execute", None)
        self.kind = _checked_kind(self.plugin, self.execute, has_hooks=bool(self.hooks))
        self.request_codec, self.response_codec = self._codecs()
        for name in ("health", "info", "close"):
            _check_optional(self.plugin, name)

    @property
    def streams(self) -> bool:
        """Whether ``execute`` yields its answer in items."""
        return self.kind in (GENERATOR, ASYNC_GENERATOR)

    @property
    def is_async(self) -> bool:
        """Whether ``execute`` lives on an event loop."""
        return self.kind in (COROUTINE, ASYNC_GENERATOR)

    def _codecs(self) -> tuple[Codec, Codec]:
        try:
            request, response = promised_types(self.plugin, self.execute, streams=self.streams)
            return codec_for(request), codec_for(response)
        except TypeError as error:
            raise LoadFailure("contract", f"execute can't cross as data: {message(error)}") from None
        except NameError as error:
            raise LoadFailure("contract", f"an annotation of execute can't be resolved: {message(error)}") from error

    def health(self) -> HealthStatus:
        """Ask the plugin; an answer that is no status is an unknown one that says so. Raises what the plugin raises."""
        ask = getattr(self.plugin, "health", None)
        if ask is None:
            return HealthStatus()
        answer = self.settle(ask())
        try:
            return _as_status(answer)
        except Exception as error:  # what the plugin answers with may be foreign code, too
            words = f"health() returned {found(answer)}, expected a HealthStatus"
            return HealthStatus(Status.UNKNOWN, f"{words}: {message(error)}" if isinstance(error, DataError) else words)

    def info(self) -> dict[str, Any]:
        """Ask the plugin for its own words; empty where it has none. Raises what the plugin raises, and ``TypeError``."""
        ask = getattr(self.plugin, "info", None)
        answer = None if ask is None else self.settle(ask())
        if answer is None:
            return {}
        try:
            return _as_info(answer)
        except Exception as error:  # what the plugin answers with may be foreign code, too
            raise TypeError(f"info() returned {found(answer)}, expected a PluginInfo: {message(error)}") from None

    @property
    def closes(self) -> bool:
        """Whether the plugin has a ``close`` of its own."""
        ask = getattr(type(self.plugin), "close", None) or getattr(self.plugin, "close", None)
        return ask is not None and ask is not Plugin.close and not isinstance(self.plugin, type(sys))

    def close(self) -> None:
        """Let the plugin go. Raises what the plugin raises."""
        ask = getattr(self.plugin, "close", None)
        if ask is not None and not isinstance(self.plugin, type(sys)):
            self.settle(ask())


def _as_status(answer: Any) -> HealthStatus:
    """Return an answer as a status that is data in every mode."""
    if isinstance(answer, dict):
        answer = HealthStatus(**answer)
    elif not isinstance(answer, HealthStatus):
        answer = HealthStatus(Status(answer))
    fields = answer._fields()
    told = load_json(dump_json({**fields, "status": fields["status"].value}))
    if not isinstance(told["message"], str):
        raise DataError("message", "text", found(answer.message))
    return HealthStatus(**told)


def _as_info(answer: Any) -> dict[str, Any]:
    """Return an answer as the fields of a PluginInfo that are data in every mode."""
    if isinstance(answer, dict):
        answer = PluginInfo(**{"name": "", **answer})
    if not isinstance(answer, PluginInfo):
        raise DataError("", "a PluginInfo or a dict", found(answer))
    told: dict[str, Any] = load_json(dump_json(answer._fields()))
    for name, value in told.items():
        texts = value if name == "capabilities" else [] if name == "metadata" else [value]
        if not all(isinstance(text, str) for text in texts):
            raise DataError(name, "text", found(value))
    return told


def resolve(entry_point: str) -> Any:
    """Import what ``module:attribute`` or ``module`` names. Raises ``LoadFailure``."""
    module_name, _, path = entry_point.partition(":")
    try:
        __import__(module_name)
        target: Any = sys.modules[module_name]
    except BaseException as error:  # a plugin's module is foreign code
        if is_interrupt(error):
            raise
        raise LoadFailure("import", f"importing {module_name} raised {type_name(error)}: {message(error)}") from error
    for part in filter(None, path.split(".")):
        target = _attribute(target, part, f"{module_name} has no {path}")
    return target


def _attribute(target: Any, name: str, words: str) -> Any:
    try:
        return getattr(target, name)
    except AttributeError:
        raise LoadFailure("attribute", f"{words}{_near(name, target)}") from None
    except BaseException as error:  # a module's __getattr__ is foreign code
        if is_interrupt(error):
            raise
        raise LoadFailure("attribute", f"looking up {name!r} raised {type_name(error)}: {message(error)}") from error


def construct(target: Any, config: Mapping[str, Any]) -> Any:
    """Make the plugin object from what an entry point names. Raises ``LoadFailure``."""
    try:
        if not isinstance(target, type):
            return _as_it_is(target, config)
        positional, named = _arguments(target, config)
    except LoadFailure:
        raise
    except BaseException as error:  # attributes of a plugin, and the validators of its config, are foreign code
        if is_interrupt(error):
            raise
        raise LoadFailure("contract", f"looking at {_called(target)} raised {type_name(error)}: {message(error)}") from error
    try:
        return target(*positional, **named)
    except BaseException as error:  # a plugin's __init__ is foreign code
        if is_interrupt(error):
            raise
        words = message(error, inputs=False)
        raise LoadFailure("init", f"{target.__name__}() raised {type_name(error)}: {words}") from error


def settings_shown(target: Any, config: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the paths of those settings of a plugin's class that may be shown. Never raises."""
    if not config or not isinstance(target, type):
        return []
    from ._showable import showable  # only a plugin with a config pays for it

    try:
        return showable(evaluated(_maker(target), "config"))
    except BaseException as error:  # attributes of a plugin are foreign code
        if is_interrupt(error):
            raise
        return []


def _arguments(target: type, config: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments for a plugin's class: none, or its config."""
    maker = _maker(target)
    required, optional, _ = parameters(maker, bound=True) if maker is not None else ([], [], False)
    if [name for name in required if name != "config"]:
        raise LoadFailure("contract", f"{target.__name__} needs ({', '.join(required)}); __init__ may take nothing, or config")
    takes_config = "config" in (*required, *optional)
    if config and not takes_config:
        raise LoadFailure("config", f"{target.__name__} takes no config, found {', '.join(map(str, config))}")
    if not takes_config or not (config or "config" in required):
        return (), {}
    value = _validated(maker, config)
    assert maker is not None  # it has a config to take
    code = maker.__code__
    names = code.co_varnames[: code.co_posonlyargcount]
    return ((value,), {}) if "config" in names else ((), {"config": value})


def _maker(target: Any) -> Any:
    """Return the function of a class that takes what the class is called with, None where it takes nothing."""
    for name in ("__init__", "__new__"):
        found = getattr(target, name)
        if found is not getattr(object, name):
            return innermost(found)
    return None


def _as_it_is(target: Any, config: Mapping[str, Any]) -> Any:
    is_module = isinstance(target, type(sys))
    if not is_module and (not hasattr(target, "execute") and not hook_implementations(target)):
        kind = type(target).__name__
        raise LoadFailure("type", f"the entry point names a {kind}; expected a Plugin class or an object with execute")
    if config:
        raise LoadFailure("config", f"only a class takes config, found {', '.join(map(str, config))}")
    return target


def _validated(maker: Any, config: Mapping[str, Any]) -> Any:
    annotation: Any = None
    try:
        annotation = evaluated(maker, "config")
        return codec_for(annotation).decode(dump_json(dict(config)))
    except DataError as error:
        from ._showable import without_values

        raise LoadFailure("config", f"its config is wrong: {without_values(error, annotation, config)}") from None
    except (TypeError, NameError) as error:
        raise LoadFailure("contract", f"the annotation of config can't be used: {message(error)}") from error


def _checked_kind(plugin: Any, execute: Any, *, has_hooks: bool) -> str:
    if execute is None or (is_contract(execute) and has_hooks):
        if has_hooks:
            return HOOKS_ONLY
        raise LoadFailure("contract", f"{_called(plugin)} has no execute(ctx, request) and no hook implementations")
    if not callable(execute):
        raise LoadFailure("contract", f"execute of {_called(plugin)} is a {type(execute).__name__}, expected a method")
    if is_contract(execute):
        raise LoadFailure("contract", f"{_called(plugin)} doesn't define execute(ctx, request)")
    if not takes(execute, 2):
        raise LoadFailure("contract", f"execute must take (ctx, request), found ({shown(execute)})")
    return _kind(execute)


def _kind(execute: Any) -> str:
    """Return what a call of ``execute`` gives. What a decorator returns is taken for what the function below it does."""
    for layer in layers(execute):
        code = getattr(layer, "__code__", None)
        flags = code.co_flags if code is not None else 0
        if flags & _ASYNC_GENERATOR:
            return ASYNC_GENERATOR
        if flags & _COROUTINE or hasattr(layer, "_is_coroutine_marker"):  # inspect.markcoroutinefunction
            return COROUTINE
        if flags & _GENERATOR:
            return GENERATOR
    return CALL


def _check_optional(plugin: Any, name: str) -> None:
    method = getattr(plugin, name, None)
    if method is None or (isinstance(plugin, type(sys)) and name == "close"):
        return
    if not callable(method):
        raise LoadFailure("contract", f"{name} of {_called(plugin)} is a {type(method).__name__}, expected a method")
    if not takes(method, 0):
        raise LoadFailure("contract", f"{name} must take nothing, found ({shown(method)})")


def _called(plugin: Any) -> str:
    return plugin.__name__ if isinstance(plugin, (type(sys), type)) else class_name(type(plugin))


def _near(part: str, target: Any) -> str:
    import difflib  # only a failing load pays for it

    try:
        names = [name for name in dir(target) if not name.startswith("_")]
    except Exception:  # a module's __dir__ is foreign code
        return ""
    near = difflib.get_close_matches(part, names, 1)
    return f"; did you mean {near[0]}?" if near else ""


def _run_alone(value: Any) -> Any:
    if not hasattr(value, "__await__"):
        return value
    import asyncio  # only a sync plugin with an async health, info or close pays for it

    async def wait() -> Any:
        return await value

    return asyncio.run(wait())
