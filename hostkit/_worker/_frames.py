"""The frames that host and worker exchange over socketpairs; both sides run this file.

    offset  size  field
    0       2     magic b"hk"
    2       1     version of the protocol
    3       1     kind
    4       2     flags
    6       2     reserved, zero
    8       8     call id
    16      8     timeout in seconds as a float, 0 where the call has none (CALL only)
    24      4     bytes of meta: JSON that hostkit itself reads
    28      4     bytes of payload: JSON of the request or response
    32      4     bytes of raw buffers behind the payload

Everything is big-endian and unsigned. A channel carries one call at a time:

    host                                       worker
    CALL id, timeout, meta, payload     ──►
                                        ◄──    RESULT id, payload  |  ERROR id, meta
    or, for a plugin that streams:      ◄──    ITEM id, payload … then END id | ERROR id

and the control socket, in any order:

    BOOT meta, buffers                  ──►
                                        ◄──    READY meta  |  ERROR meta
    PING | HEALTH | INFO | CLOSE, id    ──►
                                        ◄──    PONG | RESULT | ERROR, id
    CANCEL id of a call                 ──►    (no answer: the call's own channel answers)
                                        ◄──    GOODBYE after CLOSE, the last frame
"""

from __future__ import annotations

from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PROTOCOL = 1
MAGIC = b"hk"
HEADER = Struct(">2sBBHHQdIII")
HEADER_SIZE = HEADER.size

(BOOT, READY, CALL, RESULT, ERROR, ITEM, END, PING, PONG, HEALTH, INFO, CLOSE, GOODBYE, CANCEL) = range(1, 15)
_KINDS = frozenset(range(1, 15))

# CALL only: the caller wants a typed answer, so computed fields stay out of it.
ROUND_TRIP = 1
# CALL only: meta names the hook to call instead of execute.
HOOK = 2
_FLAGS = ROUND_TRIP | HOOK

# A frame above this is refused before a byte of it is allocated. The operator's max_message_mb moves it.
DEFAULT_CAP = 64 * 1024 * 1024

_ROOM = 64 * 1024
_FOR_EVER = float("inf")


class FrameError(Exception):
    """The bytes are no frame, or a frame that is not allowed here."""


class Truncated(FrameError):
    """The other side closed in the middle of a frame: it may have died."""


class Frame:
    """One frame, taken apart. ``meta``, ``payload`` and ``buffers`` are bytes of their own."""

    __slots__ = ("buffers", "call_id", "flags", "kind", "meta", "payload", "timeout")

    def __init__(self, kind: int, call_id: int, flags: int, timeout: float, meta: bytes, payload: bytes, buffers: bytes) -> None:
        self.kind = kind
        self.call_id = call_id
        self.flags = flags
        self.timeout = timeout
        self.meta = meta
        self.payload = payload
        self.buffers = buffers


def parts(
    kind: int,
    call_id: int = 0,
    payload: bytes = b"",
    *,
    meta: bytes = b"",
    buffers: bytes = b"",
    flags: int = 0,
    timeout: float = 0.0,
) -> list[bytes]:
    """Return the pieces of one frame, in order, for ``sendmsg``."""
    head = HEADER.pack(MAGIC, PROTOCOL, kind, flags, 0, call_id, timeout, len(meta), len(payload), len(buffers))
    return [head, meta, payload, buffers] if meta or buffers else [head, payload]


class Assembler:
    """Put frames together from whatever arrives, without ever allocating more than a checked length.

    Not thread-safe. ``cap`` is the largest frame in bytes, header included.
    """

    __slots__ = ("_buffer", "_cap", "_end", "_start")

    def __init__(self, cap: int = DEFAULT_CAP) -> None:
        self._cap = cap
        self._buffer = bytearray(_ROOM)
        # What has arrived and is in no frame yet lies between these two.
        self._start = 0
        self._end = 0

    @property
    def partial(self) -> int:
        """How many bytes of an unfinished frame are here."""
        return self._end - self._start

    def receive(self, recv_into: Callable[[memoryview], int]) -> Frame | None:
        """Return the next frame, or None at a clean end. Raises what ``recv_into`` raises, and ``FrameError``."""
        while True:
            frame = self.pop()
            if frame is not None:
                return frame
            count = recv_into(self.room())
            if count == 0:
                if self.partial:
                    raise Truncated(f"truncated: the other side closed after {self.partial} bytes of a frame")
                return None
            self._end += count

    def room(self) -> memoryview:
        """Return where the next bytes go, never nothing; say how many came by ``arrived``. Only after ``pop`` gave None."""
        return memoryview(self._buffer)[self._end :]

    def arrived(self, count: int) -> None:
        """Note that ``count`` bytes have been written to ``room``."""
        self._end += count

    def pop(self) -> Frame | None:
        """Return the next whole frame that is here, else None."""
        start = self._start
        have = self._end - start
        if have < HEADER_SIZE:
            if start or len(self._buffer) != _ROOM:
                self._make_room(HEADER_SIZE)
            return None
        magic, version, kind, flags, reserved, call_id, timeout, meta, payload, buffers = HEADER.unpack_from(self._buffer, start)
        total = HEADER_SIZE + meta + payload + buffers
        if magic != MAGIC or version != PROTOCOL or kind not in _KINDS or flags & ~_FLAGS or reserved:
            raise FrameError(_what_is_wrong(magic, version, kind, flags, reserved))
        if kind != CALL and (flags or timeout):
            raise FrameError(f"a frame of kind {kind} with flags or a timeout, which only a call has")
        if not 0.0 <= timeout < _FOR_EVER:
            raise FrameError(f"a timeout of {timeout!r} seconds")
        if total > self._cap:
            raise FrameError(f"a frame of {total} bytes is over the limit of {self._cap}")
        if have < total:
            self._make_room(total)
            return None
        body = start + HEADER_SIZE + meta
        with memoryview(self._buffer) as view:
            frame = Frame(
                kind,
                call_id,
                flags,
                timeout,
                bytes(view[body - meta : body]) if meta else b"",
                bytes(view[body : body + payload]),
                bytes(view[body + payload : start + total]) if buffers else b"",
            )
        self._cut(start + total)
        return frame

    def _cut(self, end: int) -> None:
        if end < self._end:
            self._start = end
            return
        self._start = self._end = 0
        if len(self._buffer) > _ROOM:
            # A large frame has passed: don't keep its room for as long as the channel is idle.
            self._buffer = bytearray(_ROOM)

    def _make_room(self, total: int) -> None:
        """See to it that an unfinished frame of ``total`` bytes has room, in a buffer no larger than it needs to be."""
        size = max(total, _ROOM)
        if len(self._buffer) != size:
            # A new one: the old one can't be resized while anybody, a traceback for one, still holds a view of it.
            fresh = bytearray(size)
            fresh[: self.partial] = self._buffer[self._start : self._end]
            self._buffer = fresh
        elif self._start:
            self._buffer[: self.partial] = self._buffer[self._start : self._end]
        self._end -= self._start
        self._start = 0


def _what_is_wrong(magic: bytes, version: int, kind: int, flags: int, reserved: int) -> str:
    if magic != MAGIC:
        return f"not a frame: it begins with {magic!r} instead of {MAGIC!r}"
    if version != PROTOCOL:
        return f"protocol version {version}, expected {PROTOCOL}"
    if kind not in _KINDS:
        return f"unknown kind of frame {kind}"
    return f"reserved bits are set: flags {flags:#06x}, reserved {reserved:#06x}"


def send_all(send: Callable[[list[memoryview]], int], pieces: list[bytes]) -> None:
    """Send every byte of a frame through a ``sendmsg``-like callable that may take only some of them."""
    left = [memoryview(piece) for piece in pieces if piece]
    while left:
        sent = send(left)
        while left and sent >= len(left[0]):
            sent -= len(left.pop(0))
        if sent:
            left[0] = left[0][sent:]
