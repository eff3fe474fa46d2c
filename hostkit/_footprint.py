"""How much processes take up. Memory: what they have for themselves and their part of what they share, pages swapped out too.

Pages of files don't count, they can be read again. Neither does what the host has mapped itself: it gave it to them.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Collection

from ._proc import contents

_MEASURES = re.compile(rb"^(RssAnon|VmSwap|RssShmem|Pss_Anon|SwapPss|Pss_Shmem): *\t* *(\d+) kB$", re.MULTILINE)


def at_most(pids: Collection[int]) -> int:
    """Return bytes that these processes don't exceed: what several of them share is counted for each. Costs microseconds."""
    return sum(sum(_status(pid)) for pid in pids)


def exact(pids: Collection[int]) -> int:
    """Return the bytes that these processes take up. The kernel walks their page tables: about 15 ms for each GB."""
    own, shared = 0, 0
    for pid in pids:
        private, shm = _status(pid)
        if len(pids) > 1 or shm:
            found = _measures(f"/proc/{pid}/smaps_rollup")
            own += found.get(b"Pss_Anon", 0) + found.get(b"SwapPss", 0)
            shared += found.get(b"Pss_Shmem", 0)
        else:
            own += private
    return own + (max(0, shared - _given(pids)) if shared else 0)


def _status(pid: int) -> tuple[int, int]:
    """Return a process's private bytes, swapped ones too, and its shared ones; nothing for one that has ended."""
    found = _measures(f"/proc/{pid}/status")
    return found.get(b"RssAnon", 0) + found.get(b"VmSwap", 0), found.get(b"RssShmem", 0)


def _measures(path: str) -> dict[bytes, int]:
    return {name: int(count) * 1024 for name, count in _MEASURES.findall(_read(path))}


def _given(pids: Collection[int]) -> int:
    """Return these processes' part of the shared memory that this process has mapped, too."""
    mine = {inode for shared, inode in map(_mapping, _read("/proc/self/maps").split(b"\n")) if shared}
    total = 0
    for pid in pids:
        counts = False
        for line in _read(f"/proc/{pid}/smaps").split(b"\n"):
            shared, inode = _mapping(line)
            if inode:
                counts = shared and inode in mine
            elif counts and line.startswith(b"Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def _mapping(line: bytes) -> tuple[bool, bytes]:
    """Return whether a mapping is a shared one of a file, and device and inode of that; nothing for a line that is no mapping."""
    parts = line.split(None, 5)
    if len(parts) < 5 or b"-" not in parts[0]:
        return False, b""
    return b"s" in parts[1] and parts[4] != b"0", b" ".join(parts[3:5])


def _read(path: str) -> bytes:
    try:
        return contents(path)
    except OSError:
        return b""  # it has ended


# What an entry of a directory counts at least: many empty files are a burden, too, and looking for them takes time.
_ENTRY = 4096


def on_disk(place: str, most: int) -> int:
    """Return the bytes that the entries of a directory take up, at any depth: each 4 KiB at least. Looks no further once they are more
    than ``most``, which they also are where they lie too deep to be found."""
    total, ways = 0, [place]
    while ways and total <= most:
        try:
            with os.scandir(ways.pop()) as entries:
                for entry in entries:
                    total += max(_ENTRY, entry.stat(follow_symlinks=False).st_blocks * 512)
                    if total > most:
                        break
                    if entry.is_dir(follow_symlinks=False):
                        ways.append(entry.path)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return most + 1
            # Else it has gone meanwhile.
    return total
