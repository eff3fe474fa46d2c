"""The network, and every other kind of socket."""

from __future__ import annotations

import os
import socket

from . import _own
from ._table import Target, act

_MPTCP = 262


@act()
def connect_tcp(at: Target) -> str:
    """Connect by TCP."""
    with socket.create_connection(("127.0.0.1", at["tcp"]), timeout=5):
        return "connected"


@act()
def connect_tcp6(at: Target) -> str:
    """Connect by TCP over IPv6."""
    with socket.create_connection(("::1", at["tcp6"]), timeout=5):
        return "connected"


@act()
def connect_fast_open(at: Target) -> str:
    """Connect by TCP without connect (MSG_FASTOPEN)."""
    with socket.socket() as mine:
        mine.sendto(b"escaped", 0x20000000, ("127.0.0.1", at["tcp"]))
    return "connected"


@act()
def connect_multipath(at: Target) -> str:
    """Connect by multipath TCP, which Landlock doesn't hold."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, _MPTCP) as mine:
        mine.settimeout(5)
        mine.connect(("127.0.0.1", at["tcp"]))
    return "connected"


@act()
def bind_tcp(at: Target) -> str:
    """Bind a TCP port."""
    with socket.socket() as mine:
        mine.bind(("127.0.0.1", 0))
        return f"bound {mine.getsockname()[1]}"


@act()
def listen_tcp(at: Target) -> str:
    """Wait for TCP connections, on whatever port the kernel gives."""
    with socket.socket() as mine:
        mine.listen(1)
        return f"listening on {mine.getsockname()[1]}"


@act()
def send_udp(at: Target) -> str:
    """Send a UDP packet."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mine:
        mine.sendto(b"escaped", ("127.0.0.1", at["udp"]))
    return "sent"


@act()
def ask_name_server(at: Target) -> str:
    """Ask a name server for a name, whose letters carry the secret."""
    query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x06secret\x07invalid\x00\x00\x01\x00\x01"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mine:
        mine.connect(("127.0.0.1", at["udp"]))
        mine.send(query)
    return "asked"


@act()
def receive_udp(at: Target) -> str:
    """Wait for UDP packets."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mine:
        mine.bind(("127.0.0.1", 0))
        return f"bound {mine.getsockname()[1]}"


@act(needs="CAP_NET_RAW")
def send_raw(at: Target) -> str:
    """Send packets of one's own making (a raw socket)."""
    return _had(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)


@act(needs="CAP_NET_RAW")
def ping(at: Target) -> str:
    """Send an ICMP echo request."""
    return _had(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)


@act(needs="CAP_NET_RAW")
def listen_to_wire(at: Target) -> str:
    """Read every packet of the machine (a packet socket)."""
    return _had(socket.AF_PACKET, socket.SOCK_RAW, 0)


@act()
def connect_unix(at: Target) -> str:
    """Connect to a Unix socket of the host by its path."""
    with socket.socket(socket.AF_UNIX) as mine:
        mine.connect(at["unix"])
    return "connected"


@act()
def connect_abstract(at: Target) -> str:
    """Connect to a Unix socket of the host by its abstract name."""
    with socket.socket(socket.AF_UNIX) as mine:
        mine.connect("\0" + at["abstract"])
    return "connected"


@act()
def send_unix(at: Target) -> str:
    """Send a datagram to a Unix socket of the host from a socket pair, which is had without asking for a socket."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        one.sendto(b"escaped", at["unix_datagram"])
    return "sent"


@act()
def turn_socket_pair(at: Target) -> str:
    """Turn one end of a datagram socket pair towards the host."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        one.connect(at["unix_datagram"])
        one.send(b"escaped")
    return "sent"


@act()
def send_messages_unix(at: Target) -> str:
    """Send a message to a Unix socket of the host by sendmsg, from a socket pair of any kind."""
    refused: OSError | None = None
    for kind, to in ((socket.SOCK_STREAM, "unix"), (socket.SOCK_SEQPACKET, "unix"), (socket.SOCK_DGRAM, "unix_datagram")):
        try:
            one, other = socket.socketpair(socket.AF_UNIX, kind)
            with one, other:
                one.sendmsg([b"escaped"], [], 0, at[to])
                other.setblocking(False)
                other.recv(64)  # where it went nowhere else
        except BlockingIOError:
            return "sent"
        except OSError as error:
            refused = error
    raise refused or PermissionError(13, "all of it came back")


@act()
def serve_unix(at: Target) -> str:
    """Offer a Unix socket to others."""
    path = _own.path("socket")
    with socket.socket(socket.AF_UNIX) as mine:
        mine.bind(path)
        mine.listen(1)
    os.unlink(path)
    return "it listened"


@act()
def ask_netlink(at: Target) -> str:
    """Ask the kernel for its interfaces and routes (netlink)."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as mine:
        mine.send(bytes.fromhex("14000000120001030000000000000000") + b"\0\0\0\0")
        mine.settimeout(5)
        return f"{len(mine.recv(65536))} bytes"


@act()
def talk_to_hypervisor(at: Target) -> str:
    """Get a socket to the hypervisor (vsock)."""
    return _had(40, socket.SOCK_STREAM, 0)


@act()
def use_kernel_crypto(at: Target) -> str:
    """Get a socket to the kernel's ciphers (AF_ALG), which has had many holes."""
    return _had(38, socket.SOCK_SEQPACKET, 0)


def _had(family: int, kind: int, protocol: int) -> str:
    with socket.socket(family, kind, protocol):
        return "got the socket"
