"""Where the calls of a plugin go now: one backend, with the gate before it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ._backends import Backend
from ._contract import ExecutionContext
from ._decided import Decided
from ._gate import Gate
from ._shape import Shape
from ._worker._loaded import HOOKS_ONLY


@dataclass(slots=True, eq=False)
class Lane:
    """One backend with the gate before it; a reload makes a new one."""

    backend: Backend
    decided: Decided
    gate: Gate = field(default_factory=Gate)
    streams: bool = field(init=False)
    hooks_only: bool = field(init=False)
    special: bool = field(init=False)  # one of the two: there is no plain answer
    call: Callable[[ExecutionContext, object, Shape], Any] = field(init=False)
    ending: threading.Lock = field(default_factory=threading.Lock, init=False)  # taken for good by whoever closes the backend
    ended: threading.Event = field(default_factory=threading.Event, init=False)

    def __post_init__(self) -> None:
        self.streams = "generator" in self.backend.kind
        self.hooks_only = self.backend.kind == HOOKS_ONLY
        self.special = self.streams or self.hooks_only
        self.call = self.backend.call
