"""Measure peers in turn: in every round each of them gets one turn, so that a noisy moment of the machine meets all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._cpu import Meter

# Calls before each turn that aren't counted: the turn before has filled the caches with somebody else's data.
_WARM_UP = 3


@dataclass(frozen=True, slots=True)
class Peer:
    """One way to do the same thing. ``run(n)`` does it n times and returns the seconds that counted.

    ``number`` fixes n for what is done once by nature, such as a start; such a turn has no warm-up.
    """

    name: str
    run: Callable[[int], float]
    number: int | None = None


def interleave(peers: Sequence[Peer], *, rounds: int, turn: float, meter: Meter | None = None) -> dict[str, list[float]]:
    """Return name → seconds for each repetition, one figure a round. A turn takes about ``turn`` seconds."""
    numbers = {peer.name: peer.number or _fitting(peer, turn) for peer in peers}
    found: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for number in range(rounds):
        # Nobody always follows the same neighbour's end of the list.
        first = number % len(peers)
        for peer in (*peers[first:], *peers[:first]):
            if peer.number is None:
                peer.run(_WARM_UP)
            if meter is not None:
                meter.begin()
            found[peer.name].append(peer.run(numbers[peer.name]) / numbers[peer.name])
            if meter is not None:
                meter.end(peer.name, numbers[peer.name])
    return found


def _fitting(peer: Peer, turn: float) -> int:
    """Return how often it can be done in one turn."""
    peer.run(_WARM_UP)  # its process may only be starting
    number = 1
    while True:
        seconds = peer.run(number)
        if seconds >= turn / 4:
            return max(1, round(number * turn / seconds))
        number *= 4
