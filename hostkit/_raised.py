"""Make the typed error of what a plugin raised; the same words for every backend, from the same data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._errors import (
    CallCancelled,
    CallError,
    HostkitError,
    IntegrityError,
    InvalidRequest,
    InvalidResponse,
    PluginFailed,
    PluginLoadError,
    SandboxUnavailable,
)
from ._worker._data import MOST_ROWS
from ._worker._failure import MESSAGE_LIMIT, TRACEBACK_LIMIT, clean

# How far a call has come where the plugin's side tells of an error.
_PHASES = {"request", "execute", "response", "health", "info", "close"}
_ROW = ("path", "expected", "found")


def call_error(said: Mapping[str, Any], *, plugin: str, request_id: str) -> CallError:
    """Return the error for ``failure_of`` data. The data may come from a worker: every field is taken as text or dropped."""
    phase = text_of(said.get("phase"))
    where: dict[str, Any] = {"plugin": plugin, "request_id": request_id, "phase": phase if phase in _PHASES else "execute"}
    if isinstance(said.get("rows"), list):
        rows = [{key: text_of(row.get(key)) for key in _ROW} for row in said["rows"][:MOST_ROWS] if isinstance(row, dict)]
        return _data_error(rows, where)
    kind, message = text_of(said.get("type")), text_of(said.get("message"))
    if said.get("cancelled") is True:
        return CallCancelled(f"plugin {plugin!r} stopped because its call was given up: {message}", **where)
    doing = "" if where["phase"] == "execute" else f" in {phase}"
    return PluginFailed(
        f"plugin {plugin!r} raised {kind}{doing}: {message}" if kind else f"plugin {plugin!r}: {message}",
        remote_type=kind,
        remote_message=message,
        remote_traceback=text_of(said.get("traceback"), 2 * TRACEBACK_LIMIT),
        retryable=said.get("retryable") is True,
        **where,
    )


def _data_error(rows: list[dict[str, str]], where: dict[str, Any]) -> CallError:
    plugin, phase = where["plugin"], where["phase"]
    words = "; ".join(
        f"{row['path'] + ': ' if row['path'] else ''}expected {row['expected']}, found {row['found']}" for row in rows
    )
    if phase == "request":
        return InvalidRequest(f"plugin {plugin!r} can't take this request: {words}", errors=rows, **where)
    return InvalidResponse(f"plugin {plugin!r} answered with something else than it promised: {words}", errors=rows, **where)


def invalid_request(rows: list[dict[str, str]], *, plugin: str, request_id: str) -> CallError:
    """Return the error for a request that is refused before it reaches a backend."""
    return _data_error(rows, {"plugin": plugin, "request_id": request_id, "phase": "request"})


def invalid_response(rows: list[dict[str, str]], *, plugin: str, request_id: str) -> CallError:
    """Return the error for an answer that isn't what the caller's types promise."""
    return _data_error(rows, {"plugin": plugin, "request_id": request_id, "phase": "response"})


def load_error(said: Mapping[str, Any], *, plugin: str) -> PluginLoadError | IntegrityError | SandboxUnavailable:
    """Return the error for a plugin that can't be loaded, from ``LoadFailure`` data."""
    words = f"plugin {plugin!r} can't be loaded: {text_of(said.get('text'))}"
    if said.get("kind") == "sandbox":
        return SandboxUnavailable(words)
    if said.get("kind") == "integrity":
        return IntegrityError(words)
    return PluginLoadError(
        words,
        plugin=plugin,
        kind=text_of(said.get("kind")),
        remote_type=text_of(said.get("type")),
        remote_traceback=text_of(said.get("traceback"), 2 * TRACEBACK_LIMIT),
    )


def denied_by_sandbox(error: HostkitError, *, plugin: str) -> None:
    """Say in the error of a confined plugin, which was denied something, who may have done that and what changes it."""
    remedy = f"its sandbox may have denied that: hostkit info {plugin} --static shows what it asks for and what it was granted"
    error.args = (f"{error}; {remedy}",)


def refused_by_system(error: BaseException, *, plugin: str) -> PluginLoadError:
    """Return the error for a worker that the system has no process, thread, descriptor or memory for."""
    why = str(error) or type(error).__name__
    return PluginLoadError(f"plugin {plugin!r}: a worker can't be started: {why}", plugin=plugin, kind="start")


def show_remote(error: CallError | PluginLoadError) -> None:
    """Let an uncaught error show the plugin's own traceback, which no ``__cause__`` carries across a process border."""
    trace = getattr(error, "remote_traceback", "")
    if trace:
        error.add_note(f"\n--- in the plugin ---\n{trace.rstrip()}")


def text_of(value: object, limit: int = 2 * MESSAGE_LIMIT) -> str:
    """Return a text that any log can hold; a worker's own words are shorter than the limit, so only a hostile one's are cut."""
    return clean(value[:limit]) if isinstance(value, str) else ""
