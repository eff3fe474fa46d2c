"""Run a plugin in the host's own process: the fastest place, and nothing protects the host from it.

    call ─► plugin.execute ─► answer                       (typed: the very objects)
    call ─► JSON ─► plugin.execute ─► JSON ─► answer       (plain data: what an isolated plugin would see)
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, Any

from .._asking import Asking, NoAnswer
from .._contract import ExecutionContext, HealthStatus
from .._deadline import Deadline
from .._errors import Busy, CallCancelled, CallError, CallTimeout, PluginFailed, PluginLoadError
from .._idle import Idle, NothingIdle
from .._log import hear_plugins
from .._opening import Opening
from .._raised import call_error, invalid_request, invalid_response, load_error
from .._shape import Shape
from .._worker._failure import describe, is_interrupt
from .._worker._loaded import ASYNC_GENERATOR, CALL, COROUTINE, LoadedPlugin, LoadFailure, construct, resolve
from .._worker._loop import decoded, encoded, failure_of
from .._worker._structure import DataError
from ._base import OfferedHook

if TYPE_CHECKING:
    from .._hooks import Crossing


class InProcess:
    """One plugin object in this process."""

    def __init__(self, opening: Opening) -> None:
        self._name = opening.name
        self._cap = opening.settings.max_message
        self._asking = Asking(opening.name)
        hear_plugins()
        self._turns = _turns(opening.settings.concurrency)
        self._loop: _PluginLoop | None = None
        self._closed = False
        self._path = None if opening.directory is None else str(opening.directory)
        if self._path is not None and self._path not in sys.path:
            sys.path.append(self._path)
        try:
            self._loaded = self._load(opening)
        except BaseException:
            self._leave_path()
            self._stop_loop()
            raise
        self.kind = self._loaded.kind
        self.hooks = {
            name: OfferedHook(name, tuple(hook.arguments), hook.options, hook.function.__name__)
            for name, hook in self._loaded.hooks.items()
        }

    def _load(self, opening: Opening) -> LoadedPlugin:
        try:
            target = opening.target if opening.target is not None else resolve(opening.entry_point)
            loaded = LoadedPlugin(construct(target, opening.config), settle=self._settle)
        except LoadFailure as failure:
            cause = failure.__cause__
            said = {**describe(cause or failure), "kind": failure.kind, "text": str(failure)}
            raise load_error(said, plugin=opening.name) from cause
        except (TypeError, NameError) as error:  # a hook implementation whose annotations are no data
            raise PluginLoadError(
                f"plugin {opening.name!r} can't be loaded: {error}", plugin=opening.name, kind="contract"
            ) from error
        if loaded.is_async:
            self._loop = _PluginLoop(opening.name)
        return loaded

    @property
    def plugin(self) -> object:
        """The plugin object itself."""
        return self._loaded.plugin

    def call(self, context: ExecutionContext, request: object, shape: Shape) -> Any:
        loaded = self._loaded
        if loaded.kind != CALL or self._turns is not None:
            return self._call_carefully(context, request, shape)
        try:
            if type(request) is not loaded.request_codec.type:
                request = self._request(context, request, shape)
            answer = loaded.execute(context, request)  # type: ignore[misc]  # kind is CALL, so there is one
        except BaseException as error:  # foreign code
            raise self._raised(context, error) from _cause(error)
        if context._ends_at is not None and context.cancelled:
            raise self._late(context)
        return answer if type(answer) is shape.response_type else self._answer(context, answer, shape)

    def _call_carefully(self, context: ExecutionContext, request: object, shape: Shape) -> Any:
        """The same for an async plugin, or one that takes a declared number of calls at a time."""
        with _Turn(self._turns, context):
            try:
                value = self._request(context, request, shape)
                started = self._loaded.execute(context, value)  # type: ignore[misc]  # the host sends hooks-only plugins none
                answer = self._wait(context, started) if self._loaded.kind == COROUTINE else started
            except BaseException as error:  # foreign code
                raise self._raised(context, error) from _cause(error)
        if context._ends_at is not None and context.cancelled:
            raise self._late(context)
        return answer if type(answer) is shape.response_type else self._answer(context, answer, shape)

    async def acall(self, context: ExecutionContext, request: object, shape: Shape) -> Any:
        if self._loaded.kind != COROUTINE or self._turns is not None:
            try:
                return await asyncio.to_thread(self.call, context, request, shape)
            except asyncio.CancelledError:
                context._cancelled = True
                raise
        try:
            value = self._request(context, request, shape)
            future = self._begin(self._loaded.execute(context, value))  # type: ignore[misc]  # kind is COROUTINE
            answer = await asyncio.wait_for(asyncio.wrap_future(future), context.remaining())
        except asyncio.CancelledError:
            context._cancelled = True
            raise
        except BaseException as error:  # foreign code
            raise self._raised(context, error) from _cause(error)
        return answer if type(answer) is shape.response_type else self._answer(context, answer, shape)

    def stream(self, context: ExecutionContext, request: object, shape: Shape) -> Iterator[Any]:
        if not self._loaded.streams:
            yield self.call(context, request, shape)
            return
        with _Turn(self._turns, context):
            items = self._items(context, request, shape)
            try:
                while True:
                    try:
                        item = next(items)
                        if context.cancelled:
                            raise self._late(context)
                    except StopIteration:
                        return
                    except BaseException as error:  # foreign code
                        raise self._raised(context, error) from _cause(error)
                    yield item if type(item) is shape.response_type else self._answer(context, item, shape)
            finally:
                items.close()

    def _items(self, context: ExecutionContext, request: object, shape: Shape) -> _Items:
        try:
            value = self._request(context, request, shape)
            started = self._loaded.execute(context, value)  # type: ignore[misc]  # it streams
        except BaseException as error:  # foreign code
            raise self._raised(context, error) from _cause(error)
        if self._loaded.kind != ASYNC_GENERATOR:
            return _Items(started.__next__, started.close)
        return _Items(lambda: self._next(context, started), lambda: self._wait(None, started.aclose()))

    def _next(self, context: ExecutionContext, started: Any) -> Any:
        try:
            return self._wait(context, started.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    async def astream(self, context: ExecutionContext, request: object, shape: Shape) -> AsyncIterator[Any]:
        items = self.stream(context, request, shape)
        end = object()
        try:
            while (item := await asyncio.to_thread(next, items, end)) is not end:
                yield item
        finally:
            context._cancelled = True
            await asyncio.to_thread(items.close)  # type: ignore[attr-defined]  # a generator

    def call_hook(self, context: ExecutionContext, name: str, arguments: Mapping[str, object], crossing: Crossing) -> Any:
        del crossing  # nothing crosses: the very objects, as pluggy passes them
        try:
            return self._settle(self._loaded.hooks[name].function(**arguments))
        except BaseException as error:  # foreign code
            raise self._raised(context, error) from _cause(error)

    def health(self, deadline: Deadline) -> HealthStatus:
        answer: HealthStatus = self._ask("health", self._loaded.health, deadline)
        return answer

    def info(self, deadline: Deadline) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = self._ask("info", self._loaded.info, deadline)
        return answer

    def close(self, deadline: Deadline) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self._ask("close", self._loaded.close, deadline)
        finally:
            self._stop_loop()
            self._leave_path()

    def _ask(self, what: str, question: Callable[[], Any], deadline: Deadline) -> Any:
        try:
            return self._asking.ask(what, question, deadline)
        except NoAnswer as error:
            raise CallTimeout(f"plugin {self._name!r}: {error}", plugin=self._name, phase=what) from None
        except BaseException as error:  # foreign code, from a thread of its own: never this thread's Ctrl-C
            raise call_error({**describe(error), "phase": what}, plugin=self._name, request_id="") from error

    def _request(self, context: ExecutionContext, request: object, shape: Shape) -> Any:
        codec = self._loaded.request_codec
        if type(request) is codec.type and codec.type is not None:
            return request
        try:
            payload = shape.encode(request)
            if len(payload) > self._cap:
                raise DataError("", f"at most {self._cap} bytes of JSON", f"{len(payload)} bytes")
        except DataError as error:
            raise invalid_request(error.rows, plugin=self._name, request_id=context.request_id) from None
        return decoded(codec.decode, payload)

    def _answer(self, context: ExecutionContext, answer: Any, shape: Shape) -> Any:
        try:
            if hasattr(answer, "__await__") and hasattr(answer, "close"):
                answer.close()
            payload = encoded(self._loaded.response_codec.encode, answer, cap=self._cap, round_trip=shape.typed)
        except BaseException as error:  # foreign serializers
            raise self._raised(context, error) from _cause(error)
        return self._decode(context, payload, shape)

    def _decode(self, context: ExecutionContext, payload: bytes, shape: Shape) -> Any:
        try:
            return shape.decode(payload)
        except DataError as error:
            raise invalid_response(error.rows, plugin=self._name, request_id=context.request_id) from None

    def _raised(self, context: ExecutionContext, error: BaseException) -> BaseException:
        """Return what to raise for ``error``: itself where it isn't the plugin's."""
        if isinstance(error, CallError) and not isinstance(error, (CallCancelled, CallTimeout)):
            return error if _is_own(error) else self._failed(context, error)
        if is_interrupt(error):
            return error
        if isinstance(error, (CallTimeout, FutureTimeout)) and context.cancelled and not context._cancelled:
            return self._late(context)
        return self._failed(context, error)

    def _failed(self, context: ExecutionContext, error: BaseException) -> CallError:
        return call_error(failure_of(error), plugin=self._name, request_id=context.request_id)

    def _late(self, context: ExecutionContext) -> CallError:
        where: dict[str, Any] = {"plugin": self._name, "request_id": context.request_id}
        if context._cancelled:
            return CallCancelled(f"plugin {self._name!r}: the call was given up", **where)
        return CallTimeout(
            f"plugin {self._name!r} did not answer within {context.timeout:g} s; in-process code can't be interrupted, so "
            "it ran to its end (an isolated plugin is stopped at its deadline)",
            **where,
        )

    def _settle(self, value: Any) -> Any:
        if not hasattr(value, "__await__"):
            return value
        if self._loop is None:
            self._loop = _PluginLoop(self._name)
        return self._wait(None, value)

    def _begin(self, awaitable: Any) -> Future[Any]:
        assert self._loop is not None
        return self._loop.begin(awaitable)

    def _wait(self, context: ExecutionContext | None, awaitable: Any) -> Any:
        future = self._begin(awaitable)
        try:
            return future.result(None if context is None else context.remaining())
        except BaseException:
            future.cancel()
            raise

    def _stop_loop(self) -> None:
        if self._loop is not None:
            self._loop.stop()

    def _leave_path(self) -> None:
        if self._path is not None and self._path in sys.path:
            sys.path.remove(self._path)


def _is_own(error: CallError) -> bool:
    """Whether hostkit raised this around the plugin, rather than the plugin by itself (a plugin may call a host too)."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__") == __name__ and not isinstance(error, PluginFailed)


def _cause(error: BaseException) -> BaseException | None:
    return None if isinstance(error, CallError) else error


def _turns(concurrency: int | None) -> Idle[None] | None:
    if concurrency is None:
        return None
    turns: Idle[None] = Idle()
    for _ in range(concurrency):
        turns.give(None)
    return turns


class _Turn:
    """One of the plugin's declared turns, or none to wait for."""

    def __init__(self, turns: Idle[None] | None, context: ExecutionContext) -> None:
        self._turns = turns
        self._context = context

    def __enter__(self) -> None:
        if self._turns is None:
            return
        try:
            self._turns.take(Deadline.after(self._context.remaining()))
        except NothingIdle:
            plugin = self._context._caller.plugin
            raise Busy(
                f"plugin {plugin!r} was busy for the whole {self._context.timeout:g} s of this call",
                plugin=plugin,
                request_id=self._context.request_id,
                phase="queue",
            ) from None

    def __exit__(self, *_: object) -> None:
        if self._turns is not None:
            self._turns.give(None)


class _Items:
    """A sync view of a generator of either kind."""

    def __init__(self, following: Callable[[], Any], close: Callable[[], Any]) -> None:
        self._following = following
        self.close = close

    def __next__(self) -> Any:
        return self._following()


class _PluginLoop:
    """An event loop on a thread of its own, where an async plugin lives from its first call to its close."""

    def __init__(self, plugin: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"hostkit-loop-{plugin}", daemon=True)
        self._thread.start()

    def begin(self, awaitable: Any) -> Future[Any]:
        """Start an awaitable on the loop."""

        async def wait() -> Any:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(wait(), self._loop)

    def stop(self) -> None:
        """End the loop; what still runs on it is cancelled. A loop that a plugin blocks is left behind. Idempotent."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(1.0)

    def _run(self) -> None:
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(_cancel_the_rest())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()


async def _cancel_the_rest() -> None:
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
