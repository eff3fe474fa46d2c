"""Frames in arbitrary pieces, compared with a parser that was written from the table alone."""

from __future__ import annotations

import math
import random
import struct
import zlib

from hostkit._worker._frames import Assembler, Frame, FrameError, Truncated

CAP = 4096


def check(data: bytes) -> None:
    expected = expect(data, CAP)
    chance = random.Random(zlib.crc32(data))
    some = [chance.choice((1, 2, 35, 36, 37, chance.randrange(1, 300))) for _ in range(30)]
    for sizes in ([], some, [1] * len(data) if len(data) < 200 else [37] * len(data)):
        assert assembled(data, sizes, CAP) == expected
    assert pushed(data, some, CAP) == expected


def assembled(stream: bytes, sizes: list[int], cap: int) -> tuple[list[tuple], str]:
    """Return the frames and the verdict, as a reader that waits for the next frame sees them."""
    assembler, left, sizes = Assembler(cap), stream, list(sizes)
    frames: list[tuple] = []

    def read(most: int) -> bytes:
        nonlocal left
        assert 0 < most <= 1 << 20
        assert assembler.partial <= cap
        size = min(most, max(1, sizes.pop(0))) if sizes else most
        piece, left = left[:size], left[size:]
        return piece

    try:
        while (frame := assembler.receive(read)) is not None:
            frames.append(told(frame))
    except Truncated:
        return frames, "truncated"
    except FrameError:
        return frames, "refused"
    assert not assembler.partial
    return frames, "clean"


def pushed(stream: bytes, sizes: list[int], cap: int) -> tuple[list[tuple], str]:
    """The same as somebody sees it who takes in what is there."""
    assembler, frames = Assembler(cap), []
    try:
        while stream:
            size = max(1, sizes.pop(0)) if sizes else len(stream)
            assembler.feed(stream[:size])
            stream = stream[size:]
            while (frame := assembler.pop()) is not None:
                frames.append(told(frame))
    except FrameError:
        return frames, "refused"
    return frames, "truncated" if assembler.partial else "clean"


def told(frame: Frame) -> tuple:
    return frame.kind, frame.call_id, frame.flags, frame.timeout, frame.meta, frame.payload, frame.buffers


def expect(stream: bytes, cap: int) -> tuple[list[tuple], str]:
    """Return what a stream holds. Slow and simple on purpose, and without a line of the code that it checks."""
    frames = []
    while stream:
        if len(stream) < 36:
            return frames, "truncated"
        number = lambda start, end: int.from_bytes(stream[start:end], "big")  # noqa: E731
        kind, flags, (timeout,) = stream[3], number(4, 6), struct.unpack(">d", stream[16:24])
        call_id, lengths = number(8, 16), (number(24, 28), number(28, 32), number(32, 36))
        right = (
            stream[0:2] == b"hk"
            and stream[2] == 1
            and 1 <= kind <= 15
            and flags in (0, 1, 2, 3)
            and number(6, 8) == 0
            and (kind == 3 or (flags == 0 and timeout == 0))
            and timeout >= 0
            and not math.isinf(timeout)
            and 36 + sum(lengths) <= cap
        )
        if not right:
            return frames, "refused"
        body, stream = stream[36:], stream[36 + sum(lengths) :]
        if len(body) < sum(lengths):
            return frames, "truncated"
        meta, payload, buffers = lengths
        parts = body[:meta], body[meta : meta + payload], body[meta + payload : meta + payload + buffers]
        frames.append((kind, call_id, flags, timeout, *parts))
    return frames, "clean"
