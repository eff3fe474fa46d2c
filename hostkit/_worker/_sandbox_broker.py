"""Let the host make this worker's connections: the kernel holds every ``connect`` and asks the host (seccomp_unotify(2)).

    confine: connect is asked about ─► the kernel's end goes to the host ─► 1 byte ◄─ the filter for all the rest
    later:   connect((name, port)) ─► the host's answer: connected, or PermissionError

A name that was granted stands for an address that leads nowhere but through the host, which resolves the name itself: so no name
server is needed here. That is for the plugin's convenience, and nothing rests on it.
"""

from __future__ import annotations

import _socket
import struct

from ._sandbox_bpf import ALLOW, assembled, by_number
from ._sandbox_calls import LAST, Unavailable, address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._sandbox_calls import Kernel

_SET_MODE_FILTER, _NEW_LISTENER = 1, 8
_ASK = [(0x06, 0, 0, 0x7FC00000)]  # SECCOMP_RET_USER_NOTIF


def hand_to_host(kernel: Kernel, fd: int) -> None:
    """Have the host asked about every ``connect`` of this thread and what it starts; ``fd`` is a socket to the host."""
    code = assembled(by_number(kernel.machine, {kernel.numbers["connect"]: _ASK}, otherwise=ALLOW, last=LAST, later=ALLOW))
    host = _socket.socket(fileno=fd)
    try:
        program = struct.pack("@HP", len(code) // 8, address(code))
        listener = kernel.call("seccomp", _SET_MODE_FILTER, _NEW_LISTENER, program)
        host.sendmsg([b"\x01"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("@i", listener))])
        kernel.call("close", listener)
        if not host.recv(1):
            raise Unavailable("network", "the host doesn't answer")
    except OSError as error:
        raise Unavailable(
            "network", f"connections can't be left to the host: {error.strerror}; grant network = true, or none"
        ) from error
    finally:
        host.close()


def know(names: dict[str, str]) -> None:
    """Take each of ``names`` for its address, wherever Python resolves a name."""
    import sys

    from ._output import _ImportWatch

    def change(module: Any, _: object = None) -> None:
        resolve = module.getaddrinfo

        def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
            name = host.decode("ascii", "replace") if isinstance(host, (bytes, bytearray)) else host
            return resolve(names.get(name.rstrip(".").lower(), host) if isinstance(name, str) else host, *arguments, **options)

        module.getaddrinfo = getaddrinfo

    if "socket" in sys.modules:
        change(sys.modules["socket"])
    else:
        sys.meta_path.insert(0, _ImportWatch({"socket": change}, None))
