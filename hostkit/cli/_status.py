"""What the process ends with: every status of the command line, in one place."""

from __future__ import annotations

from .._errors import CallError, CallTimeout, ConfigError, HostkitError, InvalidRequest, Rejected, WorkerLost

ANSWERED = 0
FAILED = 1  # the plugin failed; for health and doctor: something is not in order
USAGE = 2  # the command line, the configuration or the request is wrong
REFUSED = 3  # not found, can't be loaded, or may not run
TIMED_OUT = 4
LOST = 5  # the worker died
FAULT = 70  # hostkit itself is at fault, or stdout can't be written to (EX_SOFTWARE of sysexits.h)
PIPE = 141  # nobody reads stdout any more: what a shell says of SIGPIPE

# The first line that fits decides. 130 and 143, after Ctrl-C and SIGTERM, go before all of them.
_STATUSES: tuple[tuple[type[HostkitError], int], ...] = (
    (InvalidRequest, USAGE),
    (ConfigError, USAGE),
    (CallTimeout, TIMED_OUT),
    (WorkerLost, LOST),
    (Rejected, REFUSED),
    (CallError, FAILED),
    (HostkitError, REFUSED),
)


def status_of(error: HostkitError) -> int:
    """Return the exit status for an error."""
    return next(status for kind, status in _STATUSES if isinstance(error, kind))
