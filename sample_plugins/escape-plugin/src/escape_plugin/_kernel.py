"""What the kernel gives to the privileged, and what has let the unprivileged in before."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import tempfile
import threading
from collections.abc import Callable

from ._calls import X86_64, call, forking, numbered, opened, permitted
from ._table import Held, Target, act

_NEWNS, _NEWUTS, _NEWUSER, _NEWPID, _NEWNET = 0x20000, 0x4000000, 0x10000000, 0x20000000, 0x40000000


@act(needs="CAP_SYS_ADMIN")
def mount(at: Target) -> str:
    """Mount a file system."""
    place = os.path.join(tempfile.gettempdir(), f"mounted-{os.getpid()}")
    os.mkdir(place)
    try:
        call("mount", b"none", place.encode(), b"tmpfs", 0, None)
        call("umount2", place.encode(), 2)
    finally:
        os.rmdir(place)
    return "mounted it, and back"


@act(needs="CAP_SYS_ADMIN")
def unmount(at: Target) -> str:
    """Unmount a file system."""
    return permitted("umount2", tempfile.gettempdir().encode(), 0, harmless=(errno.EINVAL,))


@act(needs="CAP_SYS_ADMIN")
def open_file_system(at: Target) -> str:
    """Mount by the newer calls (fsopen)."""
    return opened(call("fsopen", b"tmpfs", 1), "a file system")


@act(needs="CAP_SYS_ADMIN")
def copy_mounts(at: Target) -> str:
    """Take a copy of the tree of mounts (open_tree)."""
    return opened(call("open_tree", -100, b"/", 0x80001), "a copy")


@act(needs="CAP_SYS_ADMIN")
def change_root_mount(at: Target) -> str:
    """Put another root in place (pivot_root)."""
    place = tempfile.gettempdir().encode()
    return permitted("pivot_root", place, place, harmless=(errno.EINVAL, errno.EBUSY))


@act(needs="CAP_SYS_CHROOT")
def change_root(at: Target) -> str:
    """Change the root directory."""
    os.chroot("/")
    return "changed it, to what it was"


@act(needs="CAP_SYS_ADMIN")
def join_namespace(at: Target) -> str:
    """Join a namespace (setns)."""
    return permitted("setns", 0, _NEWNET, harmless=(errno.EINVAL,))


@act()
def new_user_namespace(at: Target) -> str:
    """Become root of a user namespace of one's own."""
    with_threads = _outcome(lambda: call("unshare", _NEWUSER))
    if with_threads not in (None, errno.EINVAL):
        raise OSError(with_threads, os.strerror(with_threads))
    return _cloned(_NEWUSER)


@act()
def new_namespaces_by_clone(at: Target) -> str:
    """Start a process in user, network and mount namespaces of its own."""
    return _cloned(_NEWUSER | _NEWNET | _NEWNS)


@act(needs="CAP_SYS_ADMIN")
def new_network_namespace(at: Target) -> str:
    """Get a network of one's own."""
    return _in_thread(lambda: call("unshare", _NEWNET))


@act(needs="CAP_SYS_ADMIN")
def new_process_namespace(at: Target) -> str:
    """Get process numbers of one's own."""
    return _in_thread(lambda: call("unshare", _NEWPID))


@act(needs="CAP_SYS_ADMIN")
def new_host_name_namespace(at: Target) -> str:
    """Get a host name of one's own."""
    return _in_thread(lambda: call("unshare", _NEWUTS))


@act()
def keep_key(at: Target) -> str:
    """Keep something in the kernel's key ring, which all processes of a user share."""
    key = call("add_key", b"user", b"escape", b"escaped", 7, -2)
    data = ctypes.create_string_buffer(7)
    call("keyctl", 11, key, data, 7)
    call("keyctl", 3, key)
    return f"kept {data.raw!r}"


@act()
def read_session_keys(at: Target) -> str:
    """Ask for the user's session key ring."""
    return f"it is {call('keyctl', 0, -3, 0)}"


@act(needs="CAP_BPF")
def load_bpf(at: Target) -> str:
    """Give the kernel a map for programs (bpf)."""
    attributes = (ctypes.c_uint32 * 12)(2, 4, 8, 1)
    return opened(call("bpf", 0, attributes, 48), "a map")


@act(needs="CAP_PERFMON")
def watch_performance(at: Target) -> str:
    """Count what the kernel does (perf_event_open)."""
    attributes = (ctypes.c_uint32 * 16)(1, 64)
    attributes[10] = 0x60  # neither kernel nor hypervisor
    return opened(call("perf_event_open", attributes, 0, -1, -1, 8), "a counter")


@act()
def handle_page_faults(at: Target) -> str:
    """Stop the kernel at one's page faults (userfaultfd)."""
    return opened(call("userfaultfd", os.O_CLOEXEC | 1), "page faults")


@act()
def use_io_uring(at: Target) -> str:
    """Hand system calls over in a ring that no filter reads (io_uring)."""
    return opened(call("io_uring_setup", 1, ctypes.create_string_buffer(120)), "a ring")


@act()
def change_personality(at: Target) -> str:
    """Switch the randomizing of addresses off (personality)."""
    before = call("personality", 0xFFFFFFFF)
    call("personality", before | 0x0040000)
    found = call("personality", 0xFFFFFFFF)
    call("personality", before)
    if not found & 0x0040000:
        raise Held("limited: it stayed on")
    return "switched it off"


@act()
def become_dumpable(at: Target) -> str:
    """Let others of the user look into this process, or not (PR_SET_DUMPABLE)."""
    before = call("prctl", 3, 0, 0, 0, 0)
    call("prctl", 4, 1 - min(before, 1), 0, 0, 0)
    found = call("prctl", 3, 0, 0, 0, 0)
    call("prctl", 4, min(before, 1), 0, 0, 0)
    return f"changed from {before} to {found}"


@act()
def invite_tracers(at: Target) -> str:
    """Let any process trace this one (PR_SET_PTRACER)."""
    return permitted("prctl", 0x59616D61, -1, 0, 0, 0, harmless=(errno.EINVAL,))  # EINVAL where there is no Yama


@act()
def adopt_orphans(at: Target) -> str:
    """Take the init process's place for what is left behind (PR_SET_CHILD_SUBREAPER)."""
    call("prctl", 36, 1, 0, 0, 0)
    call("prctl", 36, 0, 0, 0, 0)
    return "took it, and back"


@act(needs="CAP_SETPCAP")
def set_capabilities(at: Target) -> str:
    """Have every capability of the machine (capset)."""
    head = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    call("capget", head, data)
    if not data[1] | data[4]:
        data[0] = data[1] = 1 << 21  # CAP_SYS_ADMIN
    call("capset", head, data)
    return f"has {data[4] << 32 | data[1]:x}"


@act(needs="CAP_SETUID")
def become_another_user(at: Target) -> str:
    """Become another user."""
    # By its number, for this thread alone: the C library would do it for all of them, one after the other.
    before = os.geteuid()
    call("setresuid", -1, 12345 if before != 12345 else 0, -1)
    call("setresuid", -1, before, -1)
    return "became one, and back"


@act(needs="CAP_SYS_TIME")
def set_clock(at: Target) -> str:
    """Set the machine's clock (its time zone, to what it is)."""
    zone = (ctypes.c_int * 2)(0, 0)
    call("settimeofday", None, zone)
    return "set it"


@act(needs="CAP_SYS_ADMIN")
def set_host_name(at: Target) -> str:
    """Set the machine's name, to what it is."""
    name = os.uname().nodename.encode()
    call("sethostname", name, len(name))
    return "set it"


@act(needs="CAP_SYS_BOOT")
def reboot(at: Target) -> str:
    """Restart the machine, with the wrong word."""
    return permitted("reboot", 0xDEAD, 0xDEAD, 0, None, harmless=(errno.EINVAL,))


@act(needs="CAP_SYS_BOOT")
def load_kernel(at: Target) -> str:
    """Load another kernel, of no segments and with wrong flags."""
    return permitted("kexec_load", 0, 0, None, 0xFFFF, harmless=(errno.EINVAL,))


@act(needs="CAP_SYS_MODULE")
def load_module(at: Target) -> str:
    """Load a module into the kernel that is none."""
    return permitted("init_module", b"no module" * 8, 64, b"", harmless=(errno.ENOEXEC, errno.EINVAL))


@act(needs="CAP_SYS_MODULE")
def unload_module(at: Target) -> str:
    """Unload a module of the kernel that isn't there."""
    return permitted("delete_module", b"escape_no_such_module", 0x800, harmless=(errno.ENOENT,))


@act(needs="CAP_SYS_ADMIN")
def swap(at: Target) -> str:
    """Have the kernel swap to a file that isn't there."""
    return permitted("swapon", b"/nonexistent/escape", 0, harmless=(errno.ENOENT,))


@act()
def use_quotas(at: Target) -> str:
    """Have the kernel write its quotas (quotactl)."""
    return permitted("quotactl", 0x800001 << 8, None, 0, None, harmless=(errno.EINVAL, errno.ESRCH))


@act(needs="CAP_SYS_PACCT")
def account_processes(at: Target) -> str:
    """Have the kernel write down every process, into a file that isn't there."""
    return permitted("acct", b"/nonexistent/escape", harmless=(errno.ENOENT,))


@act(needs="CAP_SYSLOG")
def read_kernel_messages(at: Target) -> str:
    """Read what the kernel said (syslog)."""
    return f"{call('syslog', 3, ctypes.create_string_buffer(4096), 4096)} bytes"


@act(needs="CAP_SYS_ADMIN")
def watch_file_system(at: Target) -> str:
    """Be told of everything that happens to files (fanotify)."""
    return opened(call("fanotify_init", 1, 0), "what happens")


@act(needs="CAP_SYS_RAWIO")
def use_ports(at: Target) -> str:
    """Use the machine's ports (ioperm)."""
    call("ioperm", 0x80, 1, 1)
    call("ioperm", 0x80, 1, 0)
    return "could have"


@act(needs="CAP_SYS_RAWIO")
def use_all_ports(at: Target) -> str:
    """Use all of the machine's ports (iopl)."""
    call("iopl", 3)
    call("iopl", 0)
    return "could have"


@act()
def read_segments(at: Target) -> str:
    """Use the processor's old segments (modify_ldt), which has had many holes."""
    return f"{call('modify_ldt', 0, ctypes.create_string_buffer(16), 16)} bytes"


@act(alone=True)
def call_in_x32(at: Target) -> str:
    """Make a system call of the x32 kind, whose numbers a filter may not know."""
    if not X86_64:
        raise Held("absent: only x86_64 has x32")
    return f"process {numbered(0x40000000 | 39)}"


@act(needs="a kernel that runs 32-bit programs", alone=True)
def call_in_32_bits(at: Target) -> str:
    """Make a system call of the 32-bit kind, where the same number is another call."""
    if not X86_64:
        raise Held("absent: needs code for this machine")
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(bytes.fromhex("5389d3b814000000cd805bc3"))  # getpid, by int 0x80
    start = ctypes.c_char.from_buffer(page)
    found: int = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(start))()
    if found != os.getpid():
        raise OSError(-found if -found in errno.errorcode else errno.ENOSYS, "no such call")
    return f"process {found}"


@act()
def write_to_terminal(at: Target) -> str:
    """Write to somebody else's terminal."""
    fd = os.open(at["terminal"], os.O_WRONLY | os.O_NOCTTY)
    try:
        os.write(fd, b"escaped")
    finally:
        os.close(fd)
    return "wrote"


@act(needs="CAP_SYS_ADMIN")
def type_into_terminal(at: Target) -> str:
    """Type into somebody else's terminal (TIOCSTI)."""
    import fcntl
    import termios

    fd = os.open(at["terminal"], os.O_RDWR | os.O_NOCTTY)
    try:
        fcntl.ioctl(fd, termios.TIOCSTI, b"x")
    finally:
        os.close(fd)
    return "typed"


@act()
def configure_interface(at: Target) -> str:
    """Ask for a network interface's settings by a socket that is no network's (ioctl)."""
    import fcntl

    one, other = socket.socketpair()
    with one, other:
        return f"flags {fcntl.ioctl(one, 0x8913, b'lo'.ljust(40, bytes(1)))[16:18].hex()}"


def _outcome(do: Callable[[], object]) -> int | None:
    try:
        do()
    except OSError as error:
        return error.errno
    return None


def _in_thread(do: Callable[[], object]) -> str:
    """Do it on a thread of its own, which takes along what it has got."""
    found: list[OSError | Held] = []

    def run() -> None:
        try:
            do()
        except (OSError, Held) as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if found:
        raise found[0]
    return "got it"


def _cloned(flags: int) -> str:
    pid = forking("clone", flags | 17, 0, 0, 0, 0)
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    return f"process {pid}"
