"""Load one plugin and resolve its contract, once: in-process and worker do it with this same code.

entry point → module → object → checked contract, so that what is wrong with a plugin is said when it is loaded.
"""

from __future__ import annotations

import sys

from .._contract import HealthStatus, PluginInfo, Status
from ._codec import codec_for
from ._data import DataError, found
from ._failure import is_interrupt, message, type_name
from ._hookimpls import hook_implementations
from ._json import dump_json
from ._signature import evaluated, is_contract, parameters, promised_types

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
    """A plugin object with everything that a call needs to know of it."""

    def __init__(self, plugin: Any, *, settle: Callable[[Any], Any] | None = None) -> None:
        self.plugin = plugin
        self.hooks: dict[str, HookImplementation] = hook_implementations(plugin)
        self.execute: Callable[[Any, Any], Any] | None = getattr(plugin, "execute", None)
        self.settle = settle or _run_alone
        self.kind = _checked_kind(plugin, self.execute, bool(self.hooks))
        self.request_codec, self.response_codec = self._codecs()
        for name in ("health", "info", "close"):
            _check_optional(plugin, name)

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
            raise LoadFailure("contract", f"execute can't cross as data: {error}") from None
        except NameError as error:
            raise LoadFailure("contract", f"an annotation of execute can't be resolved: {error}") from error

    def health(self) -> HealthStatus:
        """Ask the plugin; an answer that is no status is an unknown one that says so. Raises what the plugin raises."""
        ask = getattr(self.plugin, "health", None)
        answer = HealthStatus() if ask is None else self.settle(ask())
        if isinstance(answer, HealthStatus):
            return answer
        try:
            return HealthStatus(**answer) if isinstance(answer, dict) else HealthStatus(Status(answer))
        except (TypeError, ValueError):
            return HealthStatus(Status.UNKNOWN, f"health() returned {found(answer)}, expected a HealthStatus")

    def info(self) -> dict[str, Any]:
        """Ask the plugin for its own words; empty where it has none. Raises what the plugin raises."""
        ask = getattr(self.plugin, "info", None)
        answer = None if ask is None else self.settle(ask())
        if answer is None:
            return {}
        if isinstance(answer, dict):
            answer = PluginInfo(**answer)
        if not isinstance(answer, PluginInfo):
            raise TypeError(f"info() returned {found(answer)}, expected a PluginInfo")
        return answer._fields()

    def close(self) -> None:
        """Let the plugin go. Raises what the plugin raises."""
        ask = getattr(self.plugin, "close", None)
        if ask is not None and not isinstance(self.plugin, type(sys)):
            self.settle(ask())


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
        try:
            target = getattr(target, part)
        except AttributeError:
            raise LoadFailure("attribute", f"{module_name} has no {path}{_near(part, target)}") from None
    return target


def construct(target: Any, config: Mapping[str, Any]) -> Any:
    """Make the plugin object from what an entry point names. Raises ``LoadFailure``."""
    if not isinstance(target, type):
        return _as_it_is(target, config)
    needs = parameters(target.__init__, bound=True) if target.__init__ is not object.__init__ else ([], [], False)
    required, optional, _ = needs
    if [name for name in required if name != "config"]:
        raise LoadFailure(
            "contract", f"{target.__name__} needs ({', '.join(required)}); __init__ may take nothing, or config"
        )
    takes_config = "config" in (*required, *optional)
    if config and not takes_config:
        raise LoadFailure("config", f"{target.__name__} takes no config, found {', '.join(map(str, config))}")
    arguments = (_validated(target, config),) if takes_config and (config or "config" in required) else ()
    try:
        return target(*arguments)
    except BaseException as error:  # a plugin's __init__ is foreign code
        if is_interrupt(error):
            raise
        raise LoadFailure("init", f"{target.__name__}() raised {type_name(error)}: {message(error)}") from error


def _as_it_is(target: Any, config: Mapping[str, Any]) -> Any:
    is_module = isinstance(target, type(sys))
    if not is_module and (not hasattr(target, "execute") and not hook_implementations(target)):
        kind = type(target).__name__
        raise LoadFailure("type", f"the entry point names a {kind}; expected a Plugin class or an object with execute")
    if config:
        raise LoadFailure("config", f"only a class takes config, found {', '.join(map(str, config))}")
    return target


def _validated(target: type, config: Mapping[str, Any]) -> Any:
    try:
        annotation = evaluated(target.__init__, "config")
        return codec_for(annotation).decode(dump_json(dict(config)))
    except DataError as error:
        raise LoadFailure("config", f"its config is wrong: {error}") from None
    except (TypeError, NameError) as error:
        raise LoadFailure("contract", f"the annotation of config can't be used: {error}") from error


def _checked_kind(plugin: Any, execute: Any, has_hooks: bool) -> str:
    if execute is None or (execute is not None and is_contract(execute) and has_hooks):
        if has_hooks:
            return HOOKS_ONLY
        raise LoadFailure("contract", f"{_called(plugin)} has no execute(ctx, request) and no hook implementations")
    if not callable(execute):
        raise LoadFailure("contract", f"execute of {_called(plugin)} is a {type(execute).__name__}, expected a method")
    if is_contract(execute):
        raise LoadFailure("contract", f"{_called(plugin)} doesn't define execute(ctx, request)")
    required, optional, varargs = parameters(execute, bound=hasattr(execute, "__self__"))
    if len(required) > 2 or (len(required) + len(optional) < 2 and not varargs):
        raise LoadFailure("contract", f"execute must take (ctx, request), found ({', '.join([*required, *optional])})")
    return _kind(execute)


def _kind(execute: Any) -> str:
    seen = 0
    while execute is not None and seen < 16:
        code = getattr(getattr(execute, "__func__", execute), "__code__", None)
        flags = code.co_flags if code is not None else 0
        if flags & _ASYNC_GENERATOR:
            return ASYNC_GENERATOR
        if flags & _COROUTINE:
            return COROUTINE
        if flags & _GENERATOR:
            return GENERATOR
        execute, seen = getattr(execute, "__wrapped__", None), seen + 1
    return CALL


def _check_optional(plugin: Any, name: str) -> None:
    method = getattr(plugin, name, None)
    if method is None or (isinstance(plugin, type(sys)) and name == "close"):
        return
    if not callable(method):
        raise LoadFailure("contract", f"{name} of {_called(plugin)} is a {type(method).__name__}, expected a method")
    required, _, _ = parameters(method, bound=hasattr(method, "__self__"))
    if required:
        raise LoadFailure("contract", f"{name} must take nothing, found ({', '.join(required)})")


def _called(plugin: Any) -> str:
    return plugin.__name__ if isinstance(plugin, type(sys)) else type(plugin).__qualname__


def _near(part: str, target: Any) -> str:
    import difflib  # only a failing load pays for it

    near = difflib.get_close_matches(part, [name for name in dir(target) if not name.startswith("_")], 1)
    return f"; did you mean {near[0]}?" if near else ""


def _run_alone(value: Any) -> Any:
    if not hasattr(value, "__await__"):
        return value
    import asyncio  # only a sync plugin with an async health, info or close pays for it

    async def wait() -> Any:
        return await value

    return asyncio.run(wait())
