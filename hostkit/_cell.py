"""What one confined worker has to itself: a private directory, and somebody who makes the connections that it was granted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._broker import Broker
from ._monitor import Monitor
from ._scratch import Scratch, remove

if TYPE_CHECKING:
    from ._confinement import Confinement


class Cell:
    """One worker's, from before its start to after its end. A constructor that raises leaves nothing behind."""

    def __init__(self, confinement: Confinement, scratch: Scratch, monitor: Monitor) -> None:
        self._confinement = confinement
        self.home = scratch.make()
        try:
            self._broker = Broker(confinement.brokered, monitor) if confinement.brokered else None
        except BaseException:
            remove(self.home)
            raise
        self.fds = [] if self._broker is None else [self._broker.theirs]

    def told(self, lifeline: int) -> dict[str, Any]:
        """Return what the worker is told: what it may reach, and how."""
        return self._confinement.told(self.home, lifeline, *self.fds)

    def hand_over(self) -> None:
        """Close the worker's descriptors here, once it has them. Idempotent."""
        if self._broker is not None:
            self._broker.hand_over()

    def watch(self) -> None:
        """Begin to make its connections. On the monitor's thread."""
        if self._broker is not None:
            self._broker.watch()

    def close(self) -> None:
        """Make no more connections, and remove the directory. Idempotent."""
        if self._broker is not None:
            self._broker.close()
        home, self.home = self.home, ""
        if home:
            remove(home)
