"""Which system calls a confined worker may make: a list of those allowed, some of them with some arguments only.

What isn't listed fails with EPERM, a call newer than this list with ENOSYS, as on an older kernel. Files are Landlock's: a call
that names one is allowed here where Landlock has its say on it, and denied where it has none (modes, owners, times, attributes).
Nothing here may let a process act on another one of the same user, or pass by this filter (io_uring).
"""

from __future__ import annotations

import errno
import struct

from ._sandbox_bpf import ALLOW, KILL, assembled, by_number, fail, if_null, if_one_of
from ._sandbox_calls import LAST, Unavailable, address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._sandbox_bpf import Program
    from ._sandbox_calls import Kernel

_DENY = fail(errno.EPERM)
_DENY_NETWORK = fail(errno.EACCES)
_UNKNOWN = fail(errno.ENOSYS)

_ALLOWED = """
read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek close close_range dup dup2 dup3 pipe pipe2
open openat openat2 creat access faccessat faccessat2 stat fstat lstat newfstatat statx statfs fstatfs readlink readlinkat
getdents getdents64 getcwd chdir fchdir mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat
mknod mknodat truncate ftruncate fallocate fadvise64 readahead umask flock fsync fdatasync sync_file_range sendfile
copy_file_range splice memfd_create
poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd eventfd2
timerfd_create timerfd_settime timerfd_gettime signalfd signalfd4
mmap munmap mprotect mremap msync mincore madvise brk mlock mlock2 munlock mlockall munlockall mseal map_shadow_stack
pkey_mprotect pkey_alloc pkey_free mbind set_mempolicy get_mempolicy set_mempolicy_home_node membarrier
futex futex_waitv futex_wake futex_wait futex_requeue set_robust_list set_tid_address rseq gettid exit exit_group
restart_syscall sched_yield getcpu arch_prctl
rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack pause wait4 waitid
nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times alarm getitimer setitimer
timer_create timer_settime timer_gettime timer_getoverrun timer_delete
getpid getppid getuid geteuid getgid getegid getresuid getresgid getgroups getpgrp getpgid getsid getpriority ioprio_get
sched_getaffinity sched_getparam sched_getscheduler sched_getattr sched_get_priority_max sched_get_priority_min
sched_rr_get_interval getrlimit getrusage sysinfo uname getrandom capget
socketpair recvfrom recvmsg recvmmsg sendmsg sendmmsg shutdown getsockname getpeername getsockopt setsockopt
seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self
"""
# What Landlock doesn't see: these change files that may be read only, as far as their owner is the worker's user.
_ATTRIBUTES = """
chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes futimesat utimensat setxattr lsetxattr fsetxattr
setxattrat removexattr lremovexattr fremovexattr removexattrat
"""
_READING_ATTRIBUTES = "getxattr lgetxattr fgetxattr getxattrat listxattr llistxattr flistxattr listxattrat"
_WITH_NETWORK = "connect bind listen accept accept4"
_WITH_SUBPROCESS = "fork vfork execve setsid setpgid"
_WITH_SIGNALS = "kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_open pidfd_send_signal"

# With getpid, because the C library has every thread take part in a setuid, and waits for it.
_FOR_WAITING = "futex restart_syscall rt_sigreturn getpid mmap munmap mprotect madvise brk"

# Every command but those that choose who gets a signal (F_SETOWN, F_SETOWN_EX, F_SETSIG: the kernel sends it, and to anybody of the
# same user), leases and directory notes.
_FCNTL = [0, 1, 2, 3, 4, 5, 6, 7, 9, 16, 36, 37, 38, 1030, 1031, 1032, 1033, 1034]
# What a terminal, a pipe and a socket are asked: TCGETS, TIOCGPGRP, TIOCOUTQ, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX, TCGETS2.
_IOCTL = [0x5401, 0x540F, 0x5411, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451, 0x802C542A]
# SIOCATMARK, SIOCGIFNAME, SIOCGIFCONF, SIOCGIFFLAGS, SIOCGIFADDR, SIOCGIFNETMASK, SIOCGIFMTU, SIOCGIFINDEX.
_IOCTL_NETWORK = [0x8905, 0x8910, 0x8912, 0x8913, 0x8915, 0x891B, 0x8921, 0x8933]
# What a thread says of itself: its name, PDEATHSIG, SECCOMP, TIMERSLACK, NO_NEW_PRIVS, THP_DISABLE, names of memory (PR_SET_VMA); and
# what it asks: DUMPABLE, CAPBSET_READ, CHILD_SUBREAPER, SPECULATION_CTRL, the auxiliary vector.
_PRCTL = [1, 2, 3, 15, 16, 21, 22, 23, 29, 30, 37, 38, 39, 41, 42, 52, 0x53564D41, 0x41555856]
_PR_SET_CHILD_SUBREAPER = 36
_CLONE_THREAD = 0x00010000
# CLONE_PARENT, and every namespace.
_CLONE_NEVER = 0x00008000 | 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_STREAM, _DGRAM, _SEQPACKET, _SOCKET_TYPE = 1, 2, 5, 0xF
_PROTOCOLS = [0, 6, 17]  # the usual one, TCP, UDP
_MSG_FASTOPEN = 0x20000000
_RLIMIT_CPU = 0
_ASK_PERSONALITY = 0xFFFFFFFF
_MFD_NOEXEC_SEAL = 8
_O_ACCMODE, _O_TRUNC = 0o3, 0o1000

_SET_MODE_FILTER = 1
_PR_GET_SECCOMP, _SECCOMP_MODE_FILTER = 21, 2


def confine(kernel: Kernel, said: dict[str, Any], *, pid: int, landlock: int) -> None:
    """Install the filter for this thread and what it starts. ``landlock`` is the version of Landlock that is in force."""
    install(kernel, program(kernel, said, pid=pid, landlock=landlock))


def install(kernel: Kernel, filter_program: Program) -> None:
    """Put this thread under ``filter_program`` for good."""
    code = assembled(filter_program)
    try:
        kernel.call("seccomp", _SET_MODE_FILTER, 0, struct.pack("@HP", len(code) // 8, address(code)))
        mode = kernel.call("prctl", _PR_GET_SECCOMP)
    except OSError as error:
        raise Unavailable("seccomp", f"{error.strerror} (this kernel or container has no seccomp filters)") from error
    if mode != _SECCOMP_MODE_FILTER:
        raise Unavailable("seccomp", "the filter was taken and isn't there")


def program(kernel: Kernel, said: dict[str, Any], *, pid: int, landlock: int) -> Program:
    """Return the filter for a worker that was granted what is ``said``."""
    allowed = _ALLOWED + _READING_ATTRIBUTES
    if said["level"] == "strict":
        allowed += _ATTRIBUTES  # every file that may be read only lies on a mount that is read-only
    answers = {
        **dict.fromkeys(allowed.split(), ALLOW),
        **_anywhere(pid),
        **_network(said["network"]),
        **_processes(said, pid, landlock),
        **(_truncation() if landlock < _LANDLOCK_TRUNCATES else {}),
    }
    numbers = kernel.numbers
    by = {numbers[name]: answer for name, answer in answers.items() if name in numbers}
    return by_number(kernel.machine, by, otherwise=_DENY, last=LAST, later=_UNKNOWN)


def only_waiting(kernel: Kernel) -> Program:
    """Return the filter for a thread that waits on a lock for ever, whoever writes into its memory."""
    answers = {
        **dict.fromkeys(_FOR_WAITING.split(), ALLOW),
        "prctl": if_one_of(0, [_PR_GET_SECCOMP], ALLOW, _DENY),
        "exit": KILL,  # it would close what the thread is there to keep
    }
    by = {kernel.numbers[name]: answer for name, answer in answers.items()}
    return by_number(kernel.machine, by, otherwise=_DENY, last=LAST, later=_DENY)


def _anywhere(pid: int) -> dict[str, Program]:
    change_limit = if_one_of(1, [_RLIMIT_CPU], ALLOW, _DENY)
    return {
        "clone3": _UNKNOWN,  # its arguments lie in memory; the C library goes on with clone
        "fcntl": if_one_of(1, _FCNTL, ALLOW, _DENY),
        # The worker itself moves its limit of CPU time with each call.
        "prlimit64": if_one_of(0, [0, pid], if_null(2, ALLOW, change_limit), _DENY),
        "setrlimit": if_one_of(0, [_RLIMIT_CPU], ALLOW, _DENY),
        "setpriority": if_one_of(0, [0], if_one_of(1, [0], ALLOW, _DENY), _DENY),
        "personality": if_one_of(0, [_ASK_PERSONALITY], ALLOW, _DENY),
        # Datagrams could be sent to any socket that has a name.
        "socketpair": if_one_of(
            0, [_AF_UNIX], if_one_of(1, [_STREAM, _SEQPACKET], ALLOW, _DENY_NETWORK, mask=_SOCKET_TYPE), _DENY_NETWORK
        ),
    }


def _network(granted: object) -> dict[str, Program]:
    if not granted:
        answers = dict.fromkeys([*_WITH_NETWORK.split(), "socket"], _DENY_NETWORK)
        return {**answers, "sendto": if_null(4, ALLOW, _DENY_NETWORK), "ioctl": if_one_of(1, _IOCTL, ALLOW, _DENY)}
    if granted == "brokered":
        return _brokered()
    protocol = if_one_of(2, _PROTOCOLS, ALLOW, _DENY_NETWORK)
    kind = if_one_of(1, [_STREAM, _DGRAM], protocol, _DENY_NETWORK, mask=_SOCKET_TYPE)
    answers = dict.fromkeys([*_WITH_NETWORK.split(), "sendto"], ALLOW)
    answers["socket"] = if_one_of(0, [_AF_INET, _AF_INET6], kind, _DENY_NETWORK)
    answers["ioctl"] = if_one_of(1, _IOCTL + _IOCTL_NETWORK, ALLOW, _DENY)
    return answers


def _brokered() -> dict[str, Program]:
    """Leave nothing but a connection by TCP, which the host is asked about, and makes."""
    answers = dict.fromkeys(_WITH_NETWORK.split(), _DENY_NETWORK)
    protocol = if_one_of(2, _PROTOCOLS[:2], ALLOW, _DENY_NETWORK)
    kind = if_one_of(1, [_STREAM], protocol, _DENY_NETWORK, mask=_SOCKET_TYPE)
    return {
        **answers,
        "connect": ALLOW,
        "socket": if_one_of(0, [_AF_INET, _AF_INET6], kind, _DENY_NETWORK),
        "sendto": if_null(4, ALLOW, _DENY_NETWORK),
        # It connects as well, to an address that lies in memory.
        "sendmsg": if_one_of(2, [_MSG_FASTOPEN], _DENY_NETWORK, ALLOW, mask=_MSG_FASTOPEN),
        "sendmmsg": if_one_of(3, [_MSG_FASTOPEN], _DENY_NETWORK, ALLOW, mask=_MSG_FASTOPEN),
        "ioctl": if_one_of(1, _IOCTL + _IOCTL_NETWORK, ALLOW, _DENY),
    }


def _processes(said: dict[str, Any], pid: int, landlock: int) -> dict[str, Program]:
    to_itself = if_one_of(0, [pid], ALLOW, _DENY)
    answers: dict[str, Program] = {name: to_itself for name in _WITH_SIGNALS.split() if not name.startswith("pidfd")}
    options = _PRCTL
    if said["subprocess"]:
        answers.update((name, ALLOW) for name in _WITH_SUBPROCESS.split())
        # The file would be on no mount, and so none of Landlock's to keep from being executed.
        answers["memfd_create"] = if_one_of(1, [_MFD_NOEXEC_SEAL], ALLOW, _DENY, mask=_MFD_NOEXEC_SEAL)
        answers["clone"] = if_one_of(0, [0], ALLOW, _DENY, mask=_CLONE_NEVER)
        options = [*_PRCTL, _PR_SET_CHILD_SUBREAPER]
        # Who can't be reached anyway needs no protection here, and a child has a process id that isn't known yet.
        if said["level"] == "strict" or landlock >= _LANDLOCK_HOLDS_SIGNALS:
            answers.update((name, ALLOW) for name in _WITH_SIGNALS.split())
    else:
        answers["clone"] = if_one_of(0, [_CLONE_THREAD], ALLOW, _DENY, mask=_CLONE_NEVER | _CLONE_THREAD)
    return {**answers, "prctl": if_one_of(0, options, ALLOW, _DENY)}


def _truncation() -> dict[str, Program]:
    """Where Landlock doesn't know the right to truncate, a file that may be read could be emptied by its name."""
    # Not with O_WRONLY or O_RDWR: those need Landlock's right to write. Access mode 3 is for ioctl only, and truncates as well.
    emptying = [_O_TRUNC, _O_TRUNC | _O_ACCMODE]
    return {
        "truncate": _DENY,
        "open": if_one_of(1, emptying, _DENY, ALLOW, mask=_O_TRUNC | _O_ACCMODE),
        "openat": if_one_of(2, emptying, _DENY, ALLOW, mask=_O_TRUNC | _O_ACCMODE),
        "openat2": _UNKNOWN,  # its flags lie in memory
    }


_LANDLOCK_TRUNCATES = 3
_LANDLOCK_HOLDS_SIGNALS = 6
