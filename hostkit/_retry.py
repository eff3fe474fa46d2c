"""Which failed calls are repeated, and after how long.

A repeat is made only where it is safe: the call never reached the plugin and what refused it can clear, the plugin said so, or
the plugin declares itself idempotent.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from ._config import RetryConfig
from ._errors import Busy, CallError, CallTimeout, PluginFailed, RateLimited, WorkerLost


def may_repeat(error: CallError, *, idempotent: bool) -> bool:
    """Whether repeating the call is safe and can help."""
    if isinstance(error, (Busy, RateLimited)):
        return True
    if isinstance(error, PluginFailed):
        return error.retryable
    return idempotent and isinstance(error, (WorkerLost, CallTimeout))


def pause(config: RetryConfig, attempt: int, jitter: Callable[[], float] = random.random) -> float:
    """Return the seconds to wait after the ``attempt``-th try: anything below a limit that doubles."""
    limit: float = min(config.max_wait, config.wait * 2.0 ** min(attempt - 1, 64))
    return limit * jitter()
