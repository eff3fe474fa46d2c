"""What a confined worker gives up for good: every capability, and any way to gain one by executing something."""

from __future__ import annotations

import errno
import os
import struct

from ._sandbox_calls import Unavailable, address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._sandbox_calls import Kernel

_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_GET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 24, 38, 39, 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_SETPCAP = 8


def renounce(kernel: Kernel, *, uid: int | None = None) -> None:
    """Drop what privileges this thread has. With ``uid``, as root, it goes on as that user and group, in no other group."""
    try:
        kernel.call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if kernel.call("prctl", _PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1:
            raise Unavailable("no_new_privs", "it was set and isn't there")
    except OSError as error:
        raise Unavailable("no_new_privs", str(error.strerror)) from error
    try:
        _drop_capabilities(kernel, uid)
    except OSError as error:
        raise Unavailable("capabilities", f"they can't be dropped: {error.strerror}") from error


def _drop_capabilities(kernel: Kernel, uid: int | None) -> None:
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    held = bytearray(24)
    kernel.call("capget", header, address(held))
    if struct.unpack_from("=I", held)[0] & 1 << _CAP_SETPCAP:
        # Without it there is nothing to empty the bounding set with, and with no_new_privs nothing to gain from it.
        _empty_bounding_set(kernel)
        kernel.call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    kernel.call("capset", header, bytes(24))


def _empty_bounding_set(kernel: Kernel) -> None:
    for capability in range(64):
        try:
            kernel.call("prctl", _PR_CAPBSET_DROP, capability, 0, 0, 0)
        except OSError as error:
            if error.errno == errno.EINVAL:  # past the last one that this kernel knows
                return
            raise
