"""hostkit: plugins that run in-process or isolated, behind one contract.

Everything below is imported on first use (PEP 562): a plugin author's ``from hostkit import Plugin`` loads the standard
library only, in the host and in every worker.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._audit import AuditState as AuditState
    from ._condition import Condition as Condition
    from ._condition import HostHealth as HostHealth
    from ._config import HostConfig as HostConfig
    from ._config import PluginConfig as PluginConfig
    from ._contract import ExecutionContext as ExecutionContext
    from ._contract import HealthStatus as HealthStatus
    from ._contract import Plugin as Plugin
    from ._contract import PluginInfo as PluginInfo
    from ._contract import Status as Status
    from ._contract import hookimpl as hookimpl
    from ._errors import Busy as Busy
    from ._errors import CallCancelled as CallCancelled
    from ._errors import CallError as CallError
    from ._errors import CallTimeout as CallTimeout
    from ._errors import CircuitOpen as CircuitOpen
    from ._errors import ConfigError as ConfigError
    from ._errors import CpuExceeded as CpuExceeded
    from ._errors import Draining as Draining
    from ._errors import DuplicatePlugin as DuplicatePlugin
    from ._errors import HostForkedError as HostForkedError
    from ._errors import HostkitError as HostkitError
    from ._errors import IntegrityError as IntegrityError
    from ._errors import InvalidRequest as InvalidRequest
    from ._errors import InvalidResponse as InvalidResponse
    from ._errors import ManifestError as ManifestError
    from ._errors import MemoryExceeded as MemoryExceeded
    from ._errors import PluginClosed as PluginClosed
    from ._errors import PluginFailed as PluginFailed
    from ._errors import PluginLoadError as PluginLoadError
    from ._errors import PluginNotFound as PluginNotFound
    from ._errors import ProcessesExceeded as ProcessesExceeded
    from ._errors import ProtocolError as ProtocolError
    from ._errors import RateLimited as RateLimited
    from ._errors import Rejected as Rejected
    from ._errors import RequirementError as RequirementError
    from ._errors import RetryableError as RetryableError
    from ._errors import SandboxUnavailable as SandboxUnavailable
    from ._errors import SandboxViolation as SandboxViolation
    from ._errors import WorkerCrashed as WorkerCrashed
    from ._errors import WorkerExited as WorkerExited
    from ._errors import WorkerHung as WorkerHung
    from ._errors import WorkerKilled as WorkerKilled
    from ._errors import WorkerLost as WorkerLost
    from ._events import BreakerChanged as BreakerChanged
    from ._events import ConfigApplied as ConfigApplied
    from ._events import ConfigRefused as ConfigRefused
    from ._events import Event as Event
    from ._events import HealthChanged as HealthChanged
    from ._events import HostTampered as HostTampered
    from ._events import IsolationChanged as IsolationChanged
    from ._events import LockChanged as LockChanged
    from ._events import LockMismatch as LockMismatch
    from ._events import PluginGivenUp as PluginGivenUp
    from ._events import PluginLoaded as PluginLoaded
    from ._events import PluginRefused as PluginRefused
    from ._events import PluginUnloaded as PluginUnloaded
    from ._events import SandboxDenied as SandboxDenied
    from ._events import SandboxViolated as SandboxViolated
    from ._events import WorkerEnded as WorkerEnded
    from ._events import WorkerReplaced as WorkerReplaced
    from ._events import WorkerStarted as WorkerStarted
    from ._handle import PluginHandle as PluginHandle
    from ._hooks import hookspec as hookspec
    from ._host import Host as Host
    from ._manifest import Manifest as Manifest
    from ._spec import PluginSpec as PluginSpec
    from ._types import Array as Array
    from ._types import Blob as Blob
    from ._types import empty_array as empty_array
    from ._types import empty_blob as empty_blob

__version__ = "0.1.0"

_HOMES = {
    "_audit": ("AuditState",),
    "_condition": ("Condition", "HostHealth"),
    "_config": ("HostConfig", "PluginConfig"),
    "_contract": ("ExecutionContext", "HealthStatus", "Plugin", "PluginInfo", "Status", "hookimpl"),
    "_errors": (
        "Busy",
        "CallCancelled",
        "CallError",
        "CallTimeout",
        "CircuitOpen",
        "ConfigError",
        "CpuExceeded",
        "Draining",
        "DuplicatePlugin",
        "HostForkedError",
        "HostkitError",
        "IntegrityError",
        "InvalidRequest",
        "InvalidResponse",
        "ManifestError",
        "MemoryExceeded",
        "PluginClosed",
        "PluginFailed",
        "PluginLoadError",
        "PluginNotFound",
        "ProcessesExceeded",
        "ProtocolError",
        "RateLimited",
        "Rejected",
        "RequirementError",
        "RetryableError",
        "SandboxUnavailable",
        "SandboxViolation",
        "WorkerCrashed",
        "WorkerExited",
        "WorkerHung",
        "WorkerKilled",
        "WorkerLost",
    ),
    "_events": (
        "BreakerChanged",
        "ConfigApplied",
        "ConfigRefused",
        "Event",
        "HealthChanged",
        "HostTampered",
        "IsolationChanged",
        "LockChanged",
        "LockMismatch",
        "PluginGivenUp",
        "PluginLoaded",
        "PluginRefused",
        "PluginUnloaded",
        "SandboxDenied",
        "SandboxViolated",
        "WorkerEnded",
        "WorkerReplaced",
        "WorkerStarted",
    ),
    "_handle": ("PluginHandle",),
    "_hooks": ("hookspec",),
    "_host": ("Host",),
    "_manifest": ("Manifest",),
    "_spec": ("PluginSpec",),
    "_types": ("Array", "Blob", "empty_array", "empty_blob"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Array",
    "AuditState",
    "Blob",
    "BreakerChanged",
    "Busy",
    "CallCancelled",
    "CallError",
    "CallTimeout",
    "CircuitOpen",
    "Condition",
    "ConfigApplied",
    "ConfigError",
    "ConfigRefused",
    "CpuExceeded",
    "Draining",
    "DuplicatePlugin",
    "Event",
    "ExecutionContext",
    "HealthChanged",
    "HealthStatus",
    "Host",
    "HostConfig",
    "HostForkedError",
    "HostHealth",
    "HostTampered",
    "HostkitError",
    "IntegrityError",
    "InvalidRequest",
    "InvalidResponse",
    "IsolationChanged",
    "LockChanged",
    "LockMismatch",
    "Manifest",
    "ManifestError",
    "MemoryExceeded",
    "Plugin",
    "PluginClosed",
    "PluginConfig",
    "PluginFailed",
    "PluginGivenUp",
    "PluginHandle",
    "PluginInfo",
    "PluginLoadError",
    "PluginLoaded",
    "PluginNotFound",
    "PluginRefused",
    "PluginSpec",
    "PluginUnloaded",
    "ProcessesExceeded",
    "ProtocolError",
    "RateLimited",
    "Rejected",
    "RequirementError",
    "RetryableError",
    "SandboxDenied",
    "SandboxUnavailable",
    "SandboxViolated",
    "SandboxViolation",
    "Status",
    "WorkerCrashed",
    "WorkerEnded",
    "WorkerExited",
    "WorkerHung",
    "WorkerKilled",
    "WorkerLost",
    "WorkerReplaced",
    "WorkerStarted",
    "empty_array",
    "empty_blob",
    "hookimpl",
    "hookspec",
]


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = __import__(f"{__name__}.{home}", fromlist=[name])
    value: object = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> "list[str]":
    return [*__all__, "__version__"]
