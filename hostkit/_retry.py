"""Which failed calls are repeated, and after how long.

A repeat is made only where it is safe: the call never reached the plugin and what refused it can clear, the plugin said so, or
the plugin declares itself idempotent. An open circuit is not among what can clear: that is why it is open.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from ._config import RetryConfig
from ._errors import Busy, CallError, CallTimeout, PluginFailed, RateLimited, WorkerLost

if TYPE_CHECKING:
    from tenacity import RetryCallState
    from tenacity.wait import wait_base


def may_repeat(error: CallError, *, idempotent: bool) -> bool:
    """Whether repeating the call is safe and can help."""
    if isinstance(error, (Busy, RateLimited)):
        return True
    if isinstance(error, PluginFailed):
        return error.retryable
    return idempotent and isinstance(error, (WorkerLost, CallTimeout))


def pause(config: RetryConfig, attempt: int, error: CallError) -> float:
    """Return the seconds to wait after the ``attempt``-th try: full jitter, anything below a limit that doubles; and no less than a
    rate says after which there is a turn."""
    backoff, state = _backoff(config.wait, config.max_wait), _state()
    state.attempt_number = attempt
    least = error.retry_after if isinstance(error, RateLimited) else 0.0
    return max(least, float(backoff(state)))


@functools.lru_cache(maxsize=64)
def _backoff(wait: float, most: float) -> wait_base:
    from tenacity import wait_random_exponential  # 7 ms, which a program without repeats doesn't need

    return wait_random_exponential(multiplier=wait, max=most)


def _state() -> RetryCallState:
    """Make what tenacity passes to its own: the attempt's number is all that a back-off looks at."""
    from tenacity import RetryCallState, Retrying

    return RetryCallState(Retrying(), None, (), {})
