"""Every error that hostkit raises. Standard library only, because workers import it.

HostkitError
├─ ManifestError, ConfigError, DuplicatePlugin, PluginNotFound, PluginLoadError, RequirementError
├─ HostForkedError                    this process is a fork of the one that owns the host
├─ IntegrityError, SandboxUnavailable security fails closed
└─ CallError                          has .plugin .request_id .phase
   ├─ Rejected                        it never reached the plugin: safe to repeat
   │  └─ InvalidRequest  Draining  PluginClosed  CircuitOpen  Busy  RateLimited
   ├─ PluginFailed                    the plugin raised
   ├─ InvalidResponse  CallTimeout  CallCancelled
   └─ WorkerLost                      the worker is gone; has .exit_code .signal .stderr_tail .fault_dump
      ├─ WorkerCrashed  WorkerExited  WorkerKilled  WorkerHung
      └─ MemoryExceeded  CpuExceeded  ProcessesExceeded  SandboxViolation  ProtocolError
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


class HostkitError(Exception):
    """Whatever hostkit itself raises."""


class ManifestError(HostkitError):
    """A manifest can't be read or says something that is not allowed."""


class ConfigError(HostkitError):
    """The operator's configuration is wrong, or an argument contradicts it."""


class DuplicatePlugin(HostkitError):
    """Two distributions offer the same plugin, so neither is trusted with the name."""


class PluginNotFound(HostkitError):
    """No plugin of that name was found, or the configuration disables it or keeps it out."""


class PluginLoadError(HostkitError):
    """The plugin was found and can't be loaded.

    ``kind`` is what went wrong in one word (``import``, ``attribute``, ``type``, ``contract``, ``config``, ``init``, ``hook``,
    ``start``); ``remote_type`` and ``remote_traceback`` are the plugin's own exception as text, where it raised one.
    """

    def __init__(
        self, message: str, *, plugin: str = "", kind: str = "", remote_type: str = "", remote_traceback: str = ""
    ) -> None:
        super().__init__(message)
        self.plugin = plugin
        self.kind = kind
        self.remote_type = remote_type
        self.remote_traceback = remote_traceback


class RequirementError(HostkitError):
    """Something that a manifest requires is not there, or what was to be taken away is required by others."""


class HostForkedError(HostkitError):
    """This process was forked from the one that owns the host: make a Host of its own here."""


class IntegrityError(HostkitError):
    """What would run is not what may be trusted."""


class SandboxUnavailable(HostkitError):
    """A limit or protection that was asked for can't be had here, so the plugin is not run without it."""


class CallError(HostkitError):
    """One call failed. ``phase`` is how far it had come: start, queue, request, execute, response, health, info or close."""

    def __init__(self, message: str, *, plugin: str = "", request_id: str = "", phase: str = "execute") -> None:
        super().__init__(message)
        self.plugin = plugin
        self.request_id = request_id
        self.phase = phase


class Rejected(CallError):
    """The call never reached the plugin: repeating it is safe."""


class InvalidRequest(Rejected):
    """The request is no data, or not what the plugin takes.

    ``errors`` is a list of ``{"path": ..., "expected": ..., "found": ...}``, all text.
    """

    def __init__(self, message: str, *, errors: Sequence[dict[str, str]] = (), **where: Any) -> None:
        where.setdefault("phase", "request")
        super().__init__(message, **where)
        self.errors = list(errors)


class Draining(Rejected):
    """The plugin takes no new calls: it is being drained, unloaded or closed."""


class PluginClosed(Rejected):
    """The plugin or its host is closed."""


class CircuitOpen(Rejected):
    """The plugin failed too often and is not called for now; the message says why and what clears it.

    ``retry_after`` is the seconds until it is tried again; 0 while it is being tried, and where only a reload helps.
    """

    def __init__(self, message: str, *, retry_after: float = 0.0, **where: Any) -> None:
        super().__init__(message, **where)
        self.retry_after = retry_after


class Busy(Rejected):
    """No worker or turn became free before the call's deadline."""


class RateLimited(Rejected):
    """More calls than the operator's rate allows; ``retry_after`` is in seconds."""

    def __init__(self, message: str, *, retry_after: float = 0.0, **where: Any) -> None:
        super().__init__(message, **where)
        self.retry_after = retry_after


class PluginFailed(CallError):
    """The plugin raised. What it raised is here as text and data; its class is never rebuilt.

    ``remote_type`` is the exception's qualified name, ``remote_message`` its text, ``remote_traceback`` the whole traceback
    with causes and notes, ``retryable`` whether the plugin raised ``RetryableError``.
    """

    def __init__(
        self,
        message: str,
        *,
        remote_type: str = "",
        remote_message: str = "",
        remote_traceback: str = "",
        retryable: bool = False,
        **where: Any,
    ) -> None:
        super().__init__(message, **where)
        self.remote_type = remote_type
        self.remote_message = remote_message
        self.remote_traceback = remote_traceback
        self.retryable = retryable


class InvalidResponse(CallError):
    """The plugin answered with something that is no data, or not the promised type. ``errors`` as in InvalidRequest."""

    def __init__(self, message: str, *, errors: Sequence[dict[str, str]] = (), **where: Any) -> None:
        where.setdefault("phase", "response")
        super().__init__(message, **where)
        self.errors = list(errors)


class CallTimeout(CallError):
    """No answer before the deadline. Not a ``TimeoutError``, which is an OSError and would be swallowed as one."""


class CallCancelled(CallError):
    """The caller gave the call up, or the host was closed under it."""


class WorkerLost(CallError):
    """The worker ended with the call unanswered.

    ``exit_code`` or ``signal`` is how it ended, ``stderr_tail`` the last 8 KiB that it wrote to stderr, ``fault_dump`` what
    faulthandler wrote when it crashed.
    """

    def __init__(
        self,
        message: str,
        *,
        exit_code: int | None = None,
        signal: int | None = None,
        stderr_tail: str = "",
        fault_dump: str = "",
        **where: Any,
    ) -> None:
        super().__init__(message, **where)
        self.exit_code = exit_code
        self.signal = signal
        self.stderr_tail = stderr_tail
        self.fault_dump = fault_dump


class WorkerCrashed(WorkerLost):
    """The worker died of a fatal signal of its own: a segmentation fault, an abort."""


class WorkerExited(WorkerLost):
    """The worker ended itself while it was needed; status 0 counts too."""


class WorkerKilled(WorkerLost):
    """Somebody else killed the worker."""


class WorkerHung(WorkerLost):
    """The worker no longer answered heartbeats and was replaced."""


class MemoryExceeded(WorkerLost):
    """The worker reached its memory limit.

    ``evidence`` says how that is known: ``MemoryError`` (the kernel gave it no more), ``watchdog`` (the host saw it above), ``cgroup``
    (the kernel killed it for that), or ``probable`` (it was killed when the machine ran out of memory, and was near its limit).
    """

    def __init__(self, message: str, *, evidence: str = "", **where: Any) -> None:
        super().__init__(message, **where)
        self.evidence = evidence


class CpuExceeded(WorkerLost):
    """The worker used up its CPU seconds."""


class ProcessesExceeded(WorkerLost):
    """The worker and what it started were more processes, or had more threads, than are allowed."""


class SandboxViolation(WorkerLost):
    """The worker was ended for a system call that it may not make, or because its temporary directory grew beyond its limit."""


class ProtocolError(WorkerLost):
    """The worker sent bytes that are no frame, or a frame out of turn, and was ended."""


class RetryableError(Exception):
    """Raised by a plugin to say that the same call may succeed if it is repeated."""
