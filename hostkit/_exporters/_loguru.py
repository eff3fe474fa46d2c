"""Tell of calls in the log: one structured record each."""

from __future__ import annotations

from .._config import LoguruConfig
from .._events import Event
from .._log import tell
from .._observing import Call
from ._base import Source


class Loguru:
    """Writes to loguru, where the application's sinks are. Events are in the log already."""

    wants_calls = True

    def __init__(self, config: LoguruConfig, source: Source) -> None:
        del config, source

    def began(self, call: Call) -> None:
        del call

    def ended(self, call: Call) -> None:
        del call

    def call(self, call: Call) -> None:
        level = "DEBUG" if call.failure is None else "WARNING"
        text = f"plugin {call.plugin!r}: {call.verb} {call.outcome} in {call.seconds:.6f} s"
        more = {"outcome": call.outcome, "seconds": call.seconds, "verb": call.verb, "isolation": call.isolation}
        tell(level, text, plugin=call.plugin, request_id=call.context.request_id, **more)

    def event(self, event: Event) -> None:
        del event

    def close(self, timeout: float) -> None:
        del timeout
