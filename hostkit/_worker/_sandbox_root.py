"""Give a worker a root directory of its own: what it was granted, bound at the same places, and nothing else.

    /                    a tmpfs, read-only
    roots, list, execute bound read-only          write  bound writable, nothing in it can be executed
    temporary            a tmpfs of limited size  /dev   null, zero, full, urandom, random       /proc  of its own namespace

Symbolic links on the way to a path are there as well. Landlock narrows all of this further.
"""

from __future__ import annotations

import errno
import os
import struct
from stat import S_ISDIR, S_ISLNK

from ._sandbox_calls import Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ._sandbox_calls import Kernel

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 2, 4, 8, 1 << 14, 1 << 18
_RDONLY, _NOSUID, _NODEV, _NOEXEC = 1, 2, 4, 8  # MOUNT_ATTR_*
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH = 1, 4
_MNT_DETACH = 2
# So many symbolic links a path may have on its way, as in the kernel.
_MOST_LINKS = 40
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/urandom", "/dev/random")
_INODES_PER_MB = 256


def change(kernel: Kernel, said: dict[str, Any], *, uid: int, gid: int) -> None:
    """Make the root and go there. The mount namespace must be this process's own; ``uid`` and ``gid`` own the private directory."""
    try:
        _Root(kernel, os.path.realpath(said["temporary"])).make(said, f"uid={uid},gid={gid}")
    except OSError as error:
        raise Unavailable("mount namespace", f"{error.filename or 'its root'}: {error.strerror}") from error


class _Root:
    """A new root that grows over the directory ``place``, which exists anyway and is nobody else's."""

    def __init__(self, kernel: Kernel, place: str) -> None:
        self._kernel = kernel
        self._place = place
        self._bound: dict[str, bool] = {}  # what is there already, and whether it can be written

    def make(self, said: dict[str, Any], owner: str) -> None:
        self._kernel.call("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
        self._mount("tmpfs", "", _MS_NOSUID | _MS_NODEV, "mode=755,size=1m,nr_inodes=8192")
        readable = dict.fromkeys((*said["roots"], *said["execute"]), False)
        readable.update((path, False) for path in said["list"] if not _shows_by_itself(path, readable))
        for path, writable in sorted({**readable, **dict.fromkeys(said["write"], True)}.items()):
            # The root itself can't be bound over the new one.
            for each in [f"/{name}" for name in sorted(os.listdir("/"))] if path == "/" else [path]:
                self._grant(each, writable=writable)
        for path in _DEVICES:
            self._bind(self._arrive(path), _RDONLY | _NOSUID | _NOEXEC)
        self._make_proc()
        size = said["tmpfs_mb"]
        options = f"mode=700,size={size}m,nr_inodes={size * _INODES_PER_MB},{owner}"
        self._mount("tmpfs", self._arrive(said["temporary"]), _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, options)
        self._enter()

    def _grant(self, path: str, *, writable: bool) -> None:
        if path in ("/dev", "/proc") or path.startswith("/proc/") or not os.path.exists(path):
            return  # the new root has its own
        real = self._arrive(path)
        if real in _DEVICES or self._has(real, writable=writable):
            return
        self._bind(real, _NOSUID | _NODEV | (_NOEXEC if writable else _RDONLY))
        self._bound[real] = writable

    def _has(self, real: str, *, writable: bool) -> bool:
        while real:
            if real in self._bound and (self._bound[real] or not writable):
                return True
            real = real.rpartition("/")[0]
        return False

    def _arrive(self, path: str) -> str:
        """Make what leads to ``path`` and something to bind it over, and return where it really lies."""
        real, links, ahead = "", 0, path.split("/")[::-1]
        while ahead:
            part = ahead.pop()
            if part in ("", "."):
                continue
            if part == "..":
                real = real.rpartition("/")[0]
                continue
            here = f"{real}/{part}"
            mode = os.lstat(here).st_mode
            if not S_ISLNK(mode):
                real = here
                self._make(here, directory=S_ISDIR(mode))
                continue
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = os.readlink(here)
            if not os.path.lexists(self._place + here):
                os.symlink(target, self._place + here)
            if target.startswith("/"):
                real = ""
            ahead += target.split("/")[::-1]
        return real

    def _make(self, path: str, *, directory: bool) -> None:
        there = self._place + path
        if os.path.lexists(there):
            return
        if directory:
            os.mkdir(there, 0o755)
        else:
            os.close(os.open(there, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))

    def _bind(self, path: str, attributes: int) -> None:
        call, flags = self._kernel.call, _OPEN_TREE_CLONE | _AT_RECURSIVE | os.O_CLOEXEC
        tree = call("open_tree", _AT_FDCWD, os.fsencode(path), flags)
        try:
            set_them = struct.pack("@QQQQ", attributes, 0, 0, 0)
            call("mount_setattr", tree, b"", _AT_EMPTY_PATH | _AT_RECURSIVE, set_them, len(set_them))
            call("move_mount", tree, b"", _AT_FDCWD, os.fsencode(self._place + path), _MOVE_MOUNT_F_EMPTY_PATH)
        finally:
            os.close(tree)

    def _mount(self, kind: str, path: str, flags: int, options: str) -> None:
        named = kind.encode()
        self._kernel.call("mount", named, os.fsencode(self._place + path), named, flags, options.encode())

    def _make_proc(self) -> None:
        self._make("/proc", directory=True)
        try:
            self._mount("proc", "/proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "")
        except OSError as error:
            if error.errno != errno.EPERM:  # in a container that hides parts of its own, there is none
                raise

    def _enter(self) -> None:
        call = self._kernel.call
        os.chdir(self._place)
        # The old root then lies over the new one, and is taken away (man 2 pivot_root).
        call("pivot_root", b".", b".")
        call("umount2", b".", _MNT_DETACH)
        os.chdir("/")
        read_only = struct.pack("@QQQQ", _RDONLY | _NOSUID | _NODEV, 0, 0, 0)
        call("mount_setattr", _AT_FDCWD, b"/", 0, read_only, len(read_only))


def _shows_by_itself(path: str, granted: Iterable[str]) -> bool:
    """Whether something in a directory is granted, so that the directory is there, with that in it."""
    return any(each.startswith(f"{path}/") for each in granted)
