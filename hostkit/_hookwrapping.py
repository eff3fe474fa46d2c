"""Run a hook wrapper of an in-process plugin so that its own failure takes nothing from the hook: the other implementations run,
and their result is the hook's, as if the wrapper weren't there."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

from ._errors import HostkitError
from ._raised import call_error
from ._worker._failure import describe, is_interrupt

if TYPE_CHECKING:
    from ._backends import OfferedHook
    from ._hookspecs import Crossing
    from ._record import Record

# What a wrapper yields, is sent, and returns.
_Steps = Generator[None, Any, Any]


def guarded(
    record: Record,
    hook: OfferedHook,
    arguments: Mapping[str, object],
    crossing: Crossing,
    put_aside: Callable[[HostkitError], None],
) -> _Steps:
    """Run a wrapper of either style in pluggy's new style. ``put_aside`` gets the error where it fails."""
    context = record.context(None, None, None, None, None)
    try:
        lane = record.enter_for_hook(context, hook.function)
    except HostkitError as error:
        lane = None
        put_aside(error)
    if lane is None:
        return (yield)

    def failed(error: BaseException) -> None:
        if is_interrupt(error):
            raise error
        failure = call_error({**describe(error), "phase": "execute"}, plugin=record.name, request_id=context.request_id)
        failure.__cause__ = error
        put_aside(failure)

    try:
        steps = lane.backend.call_hook(context, hook.function, arguments, crossing)
        return (yield from _around(steps, _finish_old if hook.options.get("hookwrapper") else _finish, failed))
    finally:
        lane.gate.leave(context)


def _around(
    steps: _Steps, finish: Callable[[_Steps, Any, BaseException | None], Any], failed: Callable[[BaseException], None]
) -> _Steps:
    try:
        next(steps)
    except BaseException as error:  # foreign code
        failed(RuntimeError("the wrapper did not yield") if isinstance(error, StopIteration) else error)
        return (yield)
    inner: BaseException | None = None
    result: Any = None
    try:
        result = yield
    except BaseException as error:  # what the hook raises within: the wrapper may see it, and must not lose it
        inner = error
    try:
        return finish(steps, result, inner)
    except BaseException as error:  # foreign code
        if error is not inner:
            failed(error)
    if inner is not None:
        raise inner
    return result


def _finish(steps: _Steps, result: Any, inner: BaseException | None) -> Any:
    try:
        if inner is None:
            steps.send(result)
        else:
            steps.throw(inner)
    except StopIteration as stop:
        return stop.value
    steps.close()
    raise RuntimeError("the wrapper yielded twice")


def _finish_old(steps: _Steps, result: Any, inner: BaseException | None) -> Any:
    outcome: pluggy.Result[Any] = pluggy.Result.from_call(lambda: result)
    if inner is not None:
        outcome.force_exception(inner)
    try:
        steps.send(outcome)
    except StopIteration:
        return outcome.get_result()
    steps.close()
    raise RuntimeError("the wrapper yielded twice")
