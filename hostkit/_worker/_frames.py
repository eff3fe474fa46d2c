"""The frames that host and worker exchange over pipes and sockets; both sides run this file.

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
    MEMORY meta                         ◄─►    MEMORY meta: about shared memory, see _arena.py
"""

from __future__ import annotations

from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

PROTOCOL = 1
MAGIC = b"hk"
HEADER = Struct(">2sBBHHQdIII")
HEADER_SIZE = HEADER.size

(BOOT, READY, CALL, RESULT, ERROR, ITEM, END, PING, PONG, HEALTH, INFO, CLOSE, GOODBYE, CANCEL, MEMORY) = range(1, 16)
_KINDS = frozenset(range(1, 16))

# The bits of a call's id that are its number, by which the log knows it; the others are the host's, and nobody can guess them who hasn't
# read the call. So no answer lies ready for a call that hasn't come.
NUMBER = 1 << 62 | (1 << 40) - 1

# CALL only: the caller wants a typed answer, so computed fields stay out of it.
ROUND_TRIP = 1
# CALL only: meta names the hook to call instead of execute.
HOOK = 2
_FLAGS = ROUND_TRIP | HOOK

# A frame above this is refused before a byte of it is allocated. The operator's max_message_mb moves it.
DEFAULT_CAP = 64 * 1024 * 1024

# Bytes of one read: what a small frame needs, and the most that is worth asking for.
_SMALL, _LARGE = 4096, 1 << 20
_FOR_EVER = float("inf")
_PAGE = 4096


def notes_size(channels: int) -> int:
    """Return the bytes at the beginning of the fault file that hold a note for each channel: the id of the call that it began last.

    By these notes the host knows, after a worker's death, which calls its plugin knows nothing of. What was written to a pipe and
    read from it doesn't tell: the kernel reads on behalf of a process that it is about to kill.
    """
    return -(-8 * channels // _PAGE) * _PAGE


class FrameError(Exception):
    """The bytes are no frame, or a frame that is not allowed here."""


class Truncated(FrameError):
    """The other side closed in the middle of a frame: it may have died."""


class Frame:
    """One frame, taken apart. ``meta``, ``payload`` and ``buffers`` are bytes of their own. In the host ``violated`` ends the worker
    that sent a frame with buffers, where those turn out to be none; and ``timed``, which most frames don't have, is what the worker
    says of a call's times, with its pid."""

    violated: Callable[[FrameError], Any]
    timed: tuple[Any, int]

    __slots__ = ("buffers", "call_id", "flags", "kind", "meta", "payload", "timed", "timeout", "views", "violated")

    def __init__(self, kind: int, call_id: int, flags: int, timeout: float, meta: bytes, payload: bytes, buffers: bytes) -> None:
        self.kind = kind
        self.call_id = call_id
        self.flags = flags
        self.timeout = timeout
        self.meta = meta
        self.payload = payload
        self.buffers = buffers
        self.views: Sequence[memoryview] = ()  # of the buffers, wherever they are


def packed(
    kind: int,
    call_id: int = 0,
    payload: bytes = b"",
    *,
    meta: bytes = b"",
    buffers: bytes = b"",
    flags: int = 0,
    timeout: float = 0.0,
) -> bytes:
    """Return one frame."""
    head = HEADER.pack(MAGIC, PROTOCOL, kind, flags, 0, call_id, timeout, len(meta), len(payload), len(buffers))
    return b"".join((head, meta, payload, buffers)) if meta or buffers else head + payload


class Assembler:
    """Put frames together from whatever arrives, and refuse a length before a byte of it is read.

    Not thread-safe. ``cap`` is the largest frame in bytes, header included, and ``buffers`` the most bytes of raw buffers beyond it.
    """

    __slots__ = ("_at", "_cap", "_data", "_most", "wants")

    def __init__(self, cap: int = DEFAULT_CAP, *, buffers: int = 0) -> None:
        self._cap = cap
        self._most = buffers
        # What has arrived and is in no frame yet: the bytes of _data from _at on.
        self._data: bytes | bytearray = b""
        self._at = 0
        self.wants = _SMALL  # how many bytes to read next

    @property
    def partial(self) -> int:
        """How many bytes of an unfinished frame are here."""
        return len(self._data) - self._at

    def receive(self, read: Callable[[int], bytes]) -> Frame | None:
        """Return the next frame, or None at a clean end. Raises what ``read`` raises, and ``FrameError``."""
        frame = self.pop() if self._data else None
        while frame is None:
            data = read(self.wants)
            if not data:
                if self.partial:
                    raise Truncated(f"truncated: the other side closed after {self.partial} bytes of a frame")
                return None
            frame = self.take(data)
        return frame

    def take(self, data: bytes) -> Frame | None:
        """``feed`` and ``pop`` in one."""
        if not self._data and len(data) >= HEADER_SIZE:
            # Nearly always what arrives is one whole frame with nothing but a payload.
            head, call_id, timeout, meta, payload, buffers = _AT_ONCE.unpack_from(data)
            usual = _USUAL.get(head)
            if usual is not None and not meta and not buffers and len(data) == HEADER_SIZE + payload <= self._cap:
                kind, flags = usual
                if not timeout or (kind == CALL and 0.0 < timeout < _FOR_EVER):
                    return Frame(kind, call_id, flags, timeout, b"", data[HEADER_SIZE:], b"")
        self.feed(data)
        return self.pop()

    def feed(self, data: bytes) -> None:
        """Take in what has arrived."""
        if self._at == len(self._data):
            self._data, self._at = data, 0
            return
        if self._at or not isinstance(self._data, bytearray):
            self._data, self._at = bytearray(memoryview(self._data)[self._at :]), 0
        self._data += data

    def pop(self) -> Frame | None:
        """Return the next whole frame that is here, else None."""
        data, start = self._data, self._at
        have = len(data) - start
        if have < HEADER_SIZE:
            # Somebody who sends a portion at a time is read in small portions, somebody who sends more than fits in large ones.
            self.wants = _SMALL
            return None
        magic, version, kind, flags, reserved, call_id, timeout, meta, payload, buffers = HEADER.unpack_from(data, start)
        if magic != MAGIC or version != PROTOCOL or kind not in _KINDS or flags & ~_FLAGS or reserved:
            raise FrameError(_what_is_wrong(magic, version, kind, flags, reserved))
        if (flags or timeout) and kind != CALL:
            raise FrameError(f"a frame of kind {kind} with flags or a timeout, which only a call has")
        if not 0.0 <= timeout < _FOR_EVER:
            raise FrameError(f"a timeout of {timeout!r} seconds")
        body = start + HEADER_SIZE
        end = body + meta + payload + buffers
        if end - start > self._cap and (end - start - buffers > self._cap or buffers > self._most):
            raise FrameError(f"a frame of {end - start} bytes is over the limit of {self._cap}")
        if end > start + have:
            self.wants = max(_SMALL, min(_LARGE, end - start - have))
            return None
        said = bytes(data[body : body + meta]) if meta else b""
        body += meta
        raw = bytes(data[end - buffers : end]) if buffers else b""
        frame = Frame(kind, call_id, flags, timeout, said, bytes(data[body : body + payload]), raw)
        if end == len(data):
            # A large frame has passed: don't keep its bytes for as long as the channel is idle.
            self._data, self._at, self.wants = b"", 0, _SMALL
        else:
            self._at = end
        return frame


# The beginnings of the usual frames, up to the call id, as one number.
_AT_ONCE = Struct(">QQdIII")
_USUAL = {
    _AT_ONCE.unpack(HEADER.pack(MAGIC, PROTOCOL, kind, flags, 0, 0, 0.0, 0, 0, 0))[0]: (kind, flags)
    for kind, flags in ((CALL, 0), (CALL, ROUND_TRIP), (RESULT, 0), (ITEM, 0))
}


def _what_is_wrong(magic: bytes, version: int, kind: int, flags: int, reserved: int) -> str:
    if magic != MAGIC:
        return f"not a frame: it begins with {magic!r} instead of {MAGIC!r}"
    if version != PROTOCOL:
        return f"protocol version {version}, expected {PROTOCOL}"
    if kind not in _KINDS:
        return f"unknown kind of frame {kind}"
    return f"reserved bits are set: flags {flags:#06x}, reserved {reserved:#06x}"


def send_all(send: Callable[[bytes | memoryview], int], data: bytes) -> None:
    """Send every byte of a frame by a callable that may take only some of them."""
    sent = send(data)
    while sent < len(data):
        sent += send(memoryview(data)[sent:])
