"""Segments of shared memory between the host and one worker, as each side writes or reads them.

The host creates every segment (a memfd that nobody can resize), maps it and passes it to the worker once. One side writes into a
segment, the other one only reads it; it is used again when the reader has let go of it:

    writer                                                 reader
    pack(parts): a free segment, the bytes copied into it
      [[segment, offset, length], …] in the frame's meta  ──►  views(said, inline): read-only views, no copy
                                                               … the last view of them dies …
    released([segment])  ◄──  "freed" in the next frame's meta, or a MEMORY frame on the control socket

Segment 0 stands for the bytes behind the frame's payload: small buffers go there, and all of them where there is no shared memory.
"""

from __future__ import annotations

import mmap
import sys
import threading
import time

from ._frames import FrameError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

# Bytes of a message's buffers up to which they go through the channel. From here on shared memory is faster (16 KiB: 262 against
# 300 µs; 64 KiB, which a pipe doesn't take at once, 275 against 339; 256 KiB 329 against 857), and below it is as fast.
INLINE = 16 * 1024

_ALIGNMENT = 64
_SMALLEST = 256 * 1024
# Bytes that are copied at a time: other threads get their turn in between.
_PORTION = 4 * 1024 * 1024
# Segments that a reader keeps views of. What arrives beyond is copied, so that a reader which keeps everything it was ever given
# holds neither all descriptors nor all shared memory.
_MOST_KEPT = 64
# Seconds after which a free segment is given back to the system.
_IDLE = 10.0


class Segment:
    """A piece of shared memory, as one side has it mapped. The mapping lives as long as the last view of it."""

    __slots__ = ("allocated", "map", "number", "out", "size", "used")

    def __init__(self, number: int, size: int, mapped: mmap.mmap) -> None:
        self.number = number
        self.size = size
        self.map = mapped
        self.out = 0  # messages with it that the reader has not let go of
        self.allocated = 0  # bytes that somebody here writes by himself
        self.used = 0.0

    @property
    def held(self) -> bool:
        """Whether there are views of it in this process. Every view holds a reference to the mapping."""
        return self.references > _ALONE

    @property
    def references(self) -> int:
        """How many hold the mapping, as this interpreter counts."""
        return sys.getrefcount(self.map)


def _alone() -> int:
    made: Any = [object()]
    segment = Segment(0, 0, made.pop())
    return segment.references


# What is counted where nobody but the segment holds the mapping.
_ALONE = _alone()


def mapped(fd: int, size: int, *, writable: bool) -> mmap.mmap:
    """Map a segment. Raises ``OSError``."""
    protection = mmap.PROT_READ | mmap.PROT_WRITE if writable else mmap.PROT_READ
    if sys.version_info >= (3, 13):
        return mmap.mmap(fd, size, flags=mmap.MAP_SHARED, prot=protection, trackfd=False)
    return mmap.mmap(fd, size, flags=mmap.MAP_SHARED, prot=protection)


class Writer:
    """The segments into which this side writes. Thread-safe. ``limit`` is the most bytes of all of them together."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()  # guards _segments, and the out, allocated and used of each
        self._segments: dict[int, Segment] = {}

    def pack(self, parts: Sequence[Any], room: Callable[[int], Segment | None]) -> tuple[list[list[int]], bytes]:
        """Put a message's buffers where the reader finds them; return what to tell it, and the bytes that go with the frame.

        ``room`` makes a new segment where no free one is large enough, or returns None.
        """
        places = [self._own_place(part) for part in parts]
        size = sum(_aligned(part.nbytes) for part, place in zip(parts, places) if place is None)
        segment = (self.take(size) or room(size)) if size > INLINE else None
        number = 0 if segment is None else segment.number
        target = bytearray(size) if segment is None else segment.map
        try:
            found = _filled(number, target, parts, places)
        except BaseException:  # no memory is left, or a Ctrl-C
            if segment is not None:
                self.released([number])
            raise
        self._sent({place[0] for place in found} - {number, 0})
        return found, bytes(target) if segment is None else b""

    def take(self, size: int) -> Segment | None:
        """Return the smallest free segment of that size, as one that is out; None where there is none."""
        with self._lock:
            segment = self._free(size)
            if segment is not None:
                segment.out, segment.allocated = 1, 0
            return segment

    def allocate(self, size: int, room: Callable[[int], Segment | None]) -> memoryview | None:
        """Return writable memory of which the reader can be told without a copy; None where there is none."""
        while True:
            with self._lock:
                segment = self._free(size)
                if segment is not None:
                    segment.allocated = size
                    return memoryview(segment.map)[:size]
            made = room(size)
            if made is None:
                return None
            self.released([made.number])

    def add(self, segment: Segment, *, out: bool) -> None:
        """Have a new segment. ``out`` says that somebody waits for it."""
        with self._lock:
            segment.out, segment.used = int(out), time.monotonic()
            self._segments[segment.number] = segment

    def released(self, numbers: Any) -> None:  # Any: it may come from a worker
        """Take back what the reader has let go of. Raises ``FrameError`` for what it hasn't got."""
        with self._lock:
            for number in _numbers(numbers):
                segment = self._segments.get(number)
                if segment is None or not segment.out:
                    raise FrameError(f"segment {number} was released, which is not out")
                segment.out -= 1
                segment.used = time.monotonic()

    def room_for(self, size: int) -> tuple[bool, list[int]]:
        """Return whether a new segment of that size keeps the limit, and the free segments that were dropped for it."""
        with self._lock:
            dropped = []
            for segment in sorted(self._segments.values(), key=lambda segment: segment.size):
                if self._total + size <= self._limit:
                    break
                if self._is_free(segment):
                    dropped.append(segment.number)
                    del self._segments[segment.number]
            return self._total + size <= self._limit, dropped

    def trim(self, now: float) -> list[int]:
        """Drop what nobody has used for a while; return the numbers."""
        with self._lock:
            idle = [number for number, segment in self._segments.items() if self._is_free(segment) and now - segment.used > _IDLE]
            for number in idle:
                del self._segments[number]
            return idle

    @property
    def total(self) -> int:
        """Bytes of all segments."""
        with self._lock:
            return self._total

    @property
    def out(self) -> int:
        """How many segments the reader has not let go of."""
        with self._lock:
            return sum(1 for segment in self._segments.values() if segment.out)

    @property
    def _total(self) -> int:
        return sum(segment.size for segment in self._segments.values())

    def _free(self, size: int) -> Segment | None:
        fitting = [segment for segment in self._segments.values() if segment.size >= size and self._is_free(segment)]
        return min(fitting, key=lambda segment: segment.size, default=None)

    def _is_free(self, segment: Segment) -> bool:
        return not segment.out and not segment.held

    def _own_place(self, part: Any) -> list[int] | None:
        """Return where a part lies in a segment already. Of memory that was allocated only the whole is known for certain."""
        if part.nbytes <= INLINE or not self._segments:
            return None
        root = part
        while root is not None and not isinstance(root, mmap.mmap):
            root = root.obj if isinstance(root, memoryview) else getattr(root, "base", None)
        with self._lock:
            for segment in self._segments.values():
                if segment.map is root and segment.allocated == part.nbytes and isinstance(part, memoryview):
                    return [segment.number, 0, part.nbytes]
        return None

    def _sent(self, numbers: Iterable[int]) -> None:
        with self._lock:
            for number in numbers:
                self._segments[number].out += 1


def segment_size(size: int) -> int:
    """Return the size of a segment for so many bytes: one of a few, so that it fits the next message, too."""
    step = max(_SMALLEST, 1 << max(0, size.bit_length() - 3))
    return -(-size // step) * step


def _filled(number: int, target: Any, parts: Sequence[Any], places: Sequence[list[int] | None]) -> list[list[int]]:
    """Copy those parts that have no place yet into a segment; return the places of all."""
    found = []
    offset = 0
    # Views of the target are released before anybody asks whether the segment is held.
    with memoryview(target) as view:
        for part, place in zip(parts, places):
            if place is None:
                _copy(view[offset : offset + part.nbytes], part)
                found.append([number, offset, part.nbytes])
                offset += _aligned(part.nbytes)
            else:
                found.append(place)
    return found


def _copy(target: memoryview, part: Any) -> None:
    if not isinstance(part, memoryview):
        from . import _arrays

        _arrays.fill(target, part)
        return
    for start in range(0, part.nbytes, _PORTION):
        target[start : start + _PORTION] = part[start : start + _PORTION]


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _numbers(said: Any) -> list[int]:
    if type(said) is not list or not all(type(number) is int for number in said):
        raise FrameError("segments that are no list of numbers")
    return said


class Reader:
    """The segments that the other side writes. Thread-safe. ``limit`` is the most bytes of one message's buffers."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()  # guards _segments and arrived
        self._segments: dict[int, Segment] = {}
        self.arrived: dict[int, int] = {}  # messages with a segment that have not been given back

    def add(self, segment: Segment) -> None:
        """Have a new segment."""
        with self._lock:
            self._segments[segment.number] = segment

    def views(self, said: Any, inline: bytes) -> list[memoryview]:
        """Return the buffers of a message. Raises ``FrameError`` for what can't be."""
        places = self._checked(said, len(inline))
        behind = memoryview(inline)
        with self._lock:
            numbers = {number for number, _, _ in places} - {0}
            for number in numbers:
                self.arrived[number] = self.arrived.get(number, 0) + 1
            # Under the lock, so that nobody sees a segment that has arrived and has no views.
            bases = {number: memoryview(self._segments[number].map) for number in numbers}
            copies = self._keeps_too_much()
        bases[0] = behind
        views = [bases[number][offset : offset + length] for number, offset, length in places]
        return [memoryview(bytes(view)) for view in views] if copies else views

    def freed(self) -> list[int]:
        """Return the segments that have no views any more, each as often as it arrived, to tell the other side."""
        if not self.arrived:
            return []
        with self._lock:
            gone = {number: count for number, count in self.arrived.items() if not self._segments[number].held}
            for number in gone:
                del self.arrived[number]
        return [number for number, count in gone.items() for _ in range(count)]

    def drop(self, numbers: Any) -> None:
        """Forget segments that the other side has dropped. Raises ``FrameError`` for one that it can't have got back."""
        with self._lock:
            for number in _numbers(numbers):
                if number in self.arrived or self._segments.pop(number, None) is None:
                    raise FrameError(f"segment {number} was dropped, which is not free")

    @property
    def total(self) -> int:
        """Bytes of all segments."""
        with self._lock:
            return sum(segment.size for segment in self._segments.values())

    def size_of(self, number: int) -> int:
        """Return the bytes of a segment."""
        return self._segments[number].size

    def knows(self, number: object) -> bool:
        """Whether there is such a segment."""
        return number in self._segments

    def _checked(self, said: Any, inline: int) -> list[tuple[int, int, int]]:
        if type(said) is not list:
            raise FrameError(f"buffers in a {type(said).__name__} instead of a list")
        places, size = [], 0
        for place in said:
            if type(place) is not list or len(place) != 3 or not all(type(number) is int and number >= 0 for number in place):
                raise FrameError("a buffer's place is not a segment, an offset and a length")
            number, offset, length = place
            known = self._segments.get(number)
            if number and known is None:
                raise FrameError(f"a buffer in segment {number}, which there isn't")
            end = inline if known is None else known.size
            if offset + length > end:
                raise FrameError(f"a buffer of {length} bytes at {offset} in {end} bytes")
            size += length
            places.append((number, offset, length))
        if size > self._limit:
            raise FrameError(f"buffers of {size} bytes are over the limit of {self._limit}")
        return places

    def _keeps_too_much(self) -> bool:
        kept = sum(self._segments[number].size for number in self.arrived)
        return len(self.arrived) > _MOST_KEPT or kept > 2 * self._limit
