"""Run a plugin in the host's own process: the fastest place, and nothing protects the host from it.

call ─► plugin.execute ─► answer                       (typed: the very objects)
call ─► JSON ─► plugin.execute ─► JSON ─► answer       (plain data: what an isolated plugin would see)
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from .._asking import Asking, NoAnswer
from .._contract import ExecutionContext, HealthStatus
from .._deadline import Deadline
from .._errors import CallCancelled, CallError, CallTimeout, PluginFailed, PluginLoadError
from .._log import hear_plugins, tell
from .._opening import Opening
from .._raised import call_error, invalid_request, invalid_response, load_error
from .._shape import Shape
from .._vitals import NONE, Vitals
from .._worker._buffers import check_size
from .._worker._data import DataError
from .._worker._failure import describe, is_interrupt, message, quotes_inputs, type_name
from .._worker._loaded import ASYNC_GENERATOR, CALL, COROUTINE, LoadedPlugin, LoadFailure, construct, resolve, settings_shown
from .._worker._loop import decoded, encoded, failure_of
from .._worker._plugin_loop import PluginLoop
from ._base import OfferedHook
from ._streams import Items, in_threads
from ._turns import Turn, turns

if TYPE_CHECKING:
    from .._hookspecs import Crossing


class InProcess:
    """One plugin object in this process."""

    def __init__(self, opening: Opening) -> None:
        self._name = opening.name
        self._cap = opening.settings.max_message
        self._most = opening.settings.max_buffers
        self._grace = opening.settings.cancel_grace
        self._asking = Asking(opening.name)
        hear_plugins()
        self._turns = turns(opening.settings.concurrency)
        self._starting = threading.Lock()  # guards _loop's making
        self._loop: PluginLoop | None = None
        # Calls that wait for the plugin's loop; a dict's own operations are atomic.
        self._waiting: dict[ExecutionContext | None, Future[Any]] = {}
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
        if _NO_THREADS_AT_EXIT and self._loaded.closes:
            self._asking.stand_by()
        self.kind = self._loaded.kind
        self.settings_shown = frozenset(self._loaded.settings)
        self.hooks = {name: OfferedHook(**hook.offer(isolated=False)) for name, hook in self._loaded.hooks.items()}

    def _load(self, opening: Opening) -> LoadedPlugin:
        try:
            target = opening.target if opening.target is not None else resolve(opening.entry_point)
            plugin, settings = construct(target, opening.config), settings_shown(target, opening.config)
            loaded = LoadedPlugin(plugin, settle=self._settle, settings=settings)
        except LoadFailure as failure:
            cause = failure.__cause__
            said = {**describe(cause or failure, inputs=False), "kind": failure.kind, "text": str(failure)}
            if cause is not None and quotes_inputs(cause):
                cause = None  # what pydantic found may be the plugin's own settings
            raise load_error(said, plugin=opening.name) from cause
        except (TypeError, NameError) as error:  # a hook implementation whose annotations are no data
            raise PluginLoadError(
                f"plugin {opening.name!r} can't be loaded: {error}", plugin=opening.name, kind="contract"
            ) from error
        if loaded.is_async:
            self._loop = PluginLoop(opening.name)
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
        with self._turn(context):
            try:
                value = self._request(context, request, shape)
                started = self._loaded.execute(context, value)  # type: ignore[misc]  # the host sends hooks-only plugins none
                answer = self._wait(context, started) if self._loaded.kind == COROUTINE else started
            except BaseException as error:  # foreign code
                raise self._raised(context, error) from _cause(error)
        if context._ends_at is not None and context.cancelled:
            raise self._late(context)
        return answer if type(answer) is shape.response_type else self._answer(context, answer, shape)

    def cancel(self, context: ExecutionContext) -> None:
        waiting = self._waiting.get(context)
        if waiting is not None:
            waiting.cancel()

    async def acall(self, context: ExecutionContext, request: object, shape: Shape) -> Any:
        if self._loaded.kind != COROUTINE:
            try:
                return await asyncio.to_thread(self.call, context, request, shape)
            except asyncio.CancelledError:
                context._cancelled = True
                raise
        async with Turn(self._turns, context):
            try:
                value = self._request(context, request, shape)
                started = self._loaded.execute(context, value)  # type: ignore[misc]  # kind is COROUTINE
                answer = await self._await(context, started)
            except BaseException as error:  # foreign code
                raise self._raised(context, error) from _cause(error)
        return answer if type(answer) is shape.response_type else self._answer(context, answer, shape)

    async def _await(self, context: ExecutionContext, awaitable: Any) -> Any:
        """Wait for the plugin's loop on the running one."""
        assert self._loop is not None
        begin = self._loop.begin if context._trace is None else _within(context, self._loop.begin)
        future = begin(awaitable)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), context.remaining())
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                context._cancelled = True
                raise
            # Not this task: the call was cancelled under it, on the plugin's loop.
            raise CancelledError from None

    def stream(self, context: ExecutionContext, request: object, shape: Shape) -> Iterator[Any]:
        if not self._loaded.streams:
            yield self.call(context, request, shape)
            return
        with self._turn(context):
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
                context._cancelled = True
                self._end(items.close)

    async def astream(self, context: ExecutionContext, request: object, shape: Shape) -> AsyncGenerator[Any, None]:
        if self._loaded.kind != ASYNC_GENERATOR:
            async with aclosing(in_threads(self.stream(context, request, shape), context)) as items:
                async for item in items:
                    yield item
            return
        async with Turn(self._turns, context):
            started = self._started(context, request, shape)
            try:
                while True:
                    try:
                        item = await self._await(context, anext(started))
                        if context.cancelled:
                            raise self._late(context)
                    except StopAsyncIteration:
                        return
                    except BaseException as error:  # foreign code
                        raise self._raised(context, error) from _cause(error)
                    yield item if type(item) is shape.response_type else self._answer(context, item, shape)
            finally:
                context._cancelled = True
                await asyncio.to_thread(self._end, lambda: self._wait(None, started.aclose(), self._grace))

    def _turn(self, context: ExecutionContext) -> Turn:
        """Return the turn of a call whose caller blocks: not where that would keep the plugin itself from its turn, and from its end."""
        if self._loop is not None and self._loaded.is_async:
            try:
                self._loop.check_thread()
            except RuntimeError as error:
                raise self._failed(context, error) from error
        return Turn(self._turns, context)

    def _end(self, close: Callable[[], object]) -> None:
        """End a stream. Its caller has what it wanted, so what goes wrong now is only told."""
        try:
            close()
        except BaseException as error:  # foreign code
            if is_interrupt(error):
                raise
            said = f"plugin {self._name!r} did not end its stream in order: {type_name(error)}: {message(error)}"
            tell("WARNING", said, plugin=self._name)

    def _started(self, context: ExecutionContext, request: object, shape: Shape) -> Any:
        try:
            value = self._request(context, request, shape)
            return self._loaded.execute(context, value)  # type: ignore[misc]  # it streams
        except BaseException as error:  # foreign code
            raise self._raised(context, error) from _cause(error)

    def _items(self, context: ExecutionContext, request: object, shape: Shape) -> Items:
        started = self._started(context, request, shape)
        if self._loaded.kind != ASYNC_GENERATOR:
            items = Items(started.__next__, started.close)
        else:
            items = Items(lambda: self._next(context, started), lambda: self._wait(None, started.aclose(), self._grace))
        return items if context._trace is None else Items(_within(context, items.__next__), _within(context, items.close))

    def _next(self, context: ExecutionContext, started: Any) -> Any:
        try:
            return self._wait(context, started.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def call_hook(self, context: ExecutionContext, name: str, arguments: Mapping[str, object], crossing: Crossing) -> Any:
        del crossing  # nothing crosses: the very objects, as pluggy passes them
        with Turn(self._turns, context):
            try:
                answer = self._settle(self._loaded.hooks[name](dict(arguments)), context)
            except BaseException as error:  # foreign code
                raise self._raised(context, error) from _cause(error)
        if context._ends_at is not None and context.cancelled:
            raise self._late(context)
        return answer

    def ask_health(self, deadline: Deadline) -> Future[HealthStatus]:
        try:
            return self._asking.begin("health", self._typed("health", self._loaded.health), deadline)
        except NoAnswer as error:
            refused: Future[HealthStatus] = Future()
            refused.set_exception(self._unanswered("health", error))
            return refused

    def info(self, deadline: Deadline) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = self._ask("info", self._loaded.info, deadline)
        return answer

    def vitals(self) -> Vitals:
        return NONE

    def close(self, deadline: Deadline) -> None:
        if self._closed:
            return
        self._closed = True
        if self._loop is not None:
            self._loop.cancel_calls(min(self._grace, deadline.remaining()))
        try:
            self._ask("close", self._loaded.close, deadline)
        finally:
            self._asking.end()
            self._stop_loop()
            self._leave_path()

    def _ask(self, what: str, question: Callable[[], Any], deadline: Deadline) -> Any:
        try:
            return self._asking.ask(what, self._typed(what, question), deadline)
        except NoAnswer as error:
            raise self._unanswered(what, error) from None

    def _typed(self, what: str, question: Callable[[], Any]) -> Callable[[], Any]:
        """Return a question that raises typed errors alone."""

        def asked() -> Any:
            try:
                return question()
            except BaseException as error:  # foreign code, on a thread of its own: nobody's Ctrl-C
                raise call_error({**describe(error), "phase": what}, plugin=self._name, request_id="") from error

        return asked

    def _unanswered(self, what: str, error: NoAnswer) -> CallTimeout:
        return CallTimeout(f"plugin {self._name!r}: {error}", plugin=self._name, phase=what)

    def _request(self, context: ExecutionContext, request: object, shape: Shape) -> Any:
        codec = self._loaded.request_codec
        if type(request) is codec.type and codec.type is not None:
            return request
        try:
            payload, buffers = shape.written(request)
            if len(payload) > self._cap:
                raise DataError("", f"at most {self._cap} bytes of JSON", f"{len(payload)} bytes")
            check_size(buffers, self._most)
        except DataError as error:
            raise invalid_request(error.rows, plugin=self._name, request_id=context.request_id) from None
        return decoded(codec.decode, payload, buffers)

    def _answer(self, context: ExecutionContext, answer: Any, shape: Shape) -> Any:
        try:
            if hasattr(answer, "__await__") and hasattr(answer, "close"):
                answer.close()
            payload, buffers = encoded(self._loaded.response_codec, answer, cap=self._cap, most=self._most, round_trip=shape.typed)
        except BaseException as error:  # foreign serializers
            raise self._raised(context, error) from _cause(error)
        return self._decode(context, payload, buffers, shape)

    def _decode(self, context: ExecutionContext, payload: bytes, buffers: list[Any], shape: Shape) -> Any:
        try:
            return shape.decode(payload, buffers)
        except DataError as error:
            raise invalid_response(error.rows, plugin=self._name, request_id=context.request_id) from None

    def _raised(self, context: ExecutionContext, error: BaseException) -> BaseException:
        """Return what to raise for ``error``. Raises it where it isn't the plugin's: the caller's own Ctrl-C or cancellation."""
        if isinstance(error, CallError) and not isinstance(error, (CallCancelled, CallTimeout)):
            return error if _is_own(error) else self._failed(context, error)
        if is_interrupt(error) or (isinstance(error, asyncio.CancelledError) and context._cancelled):
            raise error
        if isinstance(error, (CallTimeout, FutureTimeout)) and context.cancelled and not context._cancelled:
            return self._late(context)
        if isinstance(error, CancelledError) and context._cancelled:
            return self._late(context)
        if isinstance(error, CancelledError) and self._closed:
            where: dict[str, Any] = {"plugin": self._name, "request_id": context.request_id}
            return CallCancelled(f"plugin {self._name!r}: it was closed under the call", **where)
        return self._failed(context, error)

    def _failed(self, context: ExecutionContext, error: BaseException) -> CallError:
        return call_error(failure_of(error), plugin=self._name, request_id=context.request_id)

    def _late(self, context: ExecutionContext) -> CallError:
        where: dict[str, Any] = {"plugin": self._name, "request_id": context.request_id}
        if context._cancelled:
            return CallCancelled(f"plugin {self._name!r}: the call was given up", **where)
        how = "it was cancelled" if self._loaded.is_async else _NOT_INTERRUPTED
        return CallTimeout(f"plugin {self._name!r} did not answer within {context.timeout:g} s; {how}", **where)

    def _settle(self, value: Any, context: ExecutionContext | None = None) -> Any:
        if not hasattr(value, "__await__"):
            return value
        with self._starting:
            if self._loop is None:
                self._loop = PluginLoop(self._name)
        return self._wait(context, value)

    def _wait(self, context: ExecutionContext | None, awaitable: Any, limit: float | None = None) -> Any:
        assert self._loop is not None
        future = self._loop.begin_awaited(awaitable)
        if context is not None:
            self._waiting[context] = future
            if context._cancelled:  # between its begin and now
                future.cancel()
        try:
            return future.result(Deadline.after(limit if context is None else context.remaining()).wait())
        except BaseException:
            future.cancel()
            raise
        finally:
            self._waiting.pop(context, None)

    def _stop_loop(self) -> None:
        if self._loop is not None:
            self._loop.stop()

    def _leave_path(self) -> None:
        if self._path is not None and self._path in sys.path:
            sys.path.remove(self._path)


# CPython 3.12 starts no thread from its exit handlers, where a forgotten host is closed; 3.11 and 3.13 do.
_NO_THREADS_AT_EXIT = sys.version_info[:2] == (3, 12)

_NOT_INTERRUPTED = "in-process code can't be interrupted, so it ran to its end (an isolated plugin is stopped at its deadline)"


def _is_own(error: CallError) -> bool:
    """Whether hostkit raised this around the plugin, rather than the plugin by itself (a plugin may call a host too)."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__") == __name__ and not isinstance(error, PluginFailed)


def _within(context: ExecutionContext, step: Callable[..., Any]) -> Callable[..., Any]:
    """Return a step of the plugin's that runs in the call's trace: what a stream's caller does between two of them isn't part of it."""
    attached = None if context._trace is None else context._trace.attached
    if attached is None:
        return step

    def run(*arguments: Any) -> Any:
        with attached():
            return step(*arguments)

    return run


def _cause(error: BaseException) -> BaseException | None:
    return None if isinstance(error, CallError) else error
