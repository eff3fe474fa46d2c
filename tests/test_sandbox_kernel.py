"""What the kernel lets a confined worker do: acts, tried in a process that confined itself as a worker does."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hostkit
from hostkit._worker import _sandbox, _sandbox_landlock, _sandbox_seccomp
from hostkit._worker._sandbox_calls import LAST, Kernel, known_numbers

PACKAGE = Path(hostkit.__file__).parent


def _landlock() -> int:
    try:
        return _sandbox_landlock.version(Kernel())
    except (OSError, _sandbox.Unavailable):
        return 0


pytestmark = pytest.mark.skipif(sys.platform != "linux" or _landlock() < 3, reason="needs a Linux kernel with Landlock")

# What a worker's process does before the plugin: hostkit loaded by its path, the lifeline armed.
PRELUDE = """
import json, os, runpy, sys
sys.argv = ["worker", "0"]
runpy.run_path({main!r})["_load_hostkit"]()
from hostkit._worker import _lifeline, _sandbox
said = json.loads({said!r})
_lifeline.arm(said["lifeline"])
_sandbox.confine(said)
sys.path[:0] = {path!r}
"""

# Runs each act and tells what the plugin would see.
TELL = """
def told(act):
    try:
        return act()
    except BaseException as error:
        return type(error).__name__

found = {name: told(act) for name, act in list(globals().items()) if name.startswith("act_")}
print(json.dumps({name[4:]: value for name, value in found.items()}, default=repr))
"""

Confined = Callable[..., dict[str, Any]]


def _python_for_everybody() -> str | None:
    """An interpreter that an ordinary user can run, where these tests are run by root."""
    for python in (sys.executable, "/usr/bin/python3"):
        probe = [python, "-I", "-S", "-c", f"open({str(PACKAGE / '__init__.py')!r})"]
        try:
            if subprocess.run(probe, user=65534, group=65534, extra_groups=[], capture_output=True, timeout=30).returncode == 0:
                return python
        except OSError:
            continue
    return None


@pytest.fixture(params=["myself", "nobody"])
def user(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """As whom the worker runs, and where its private directory is."""
    place = tempfile.mkdtemp(dir="/tmp")  # noqa: S108 - pytest's own directories are closed to others
    who: dict[str, Any] = {"python": sys.executable, "temporary": place, "uid": None}
    try:
        if request.param == "nobody":
            python = _python_for_everybody() if os.geteuid() == 0 else None
            if python is None:
                pytest.skip("needs root, and an interpreter that everybody can run")
            os.chown(place, 65534, 65534)
            who.update(python=python, uid=65534)
        yield who
    finally:
        shutil.rmtree(place)


@pytest.fixture
def said(user: dict[str, Any]) -> dict[str, Any]:
    """What a worker without any grant is told, but for the lifeline."""
    libraries = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ssl", sys.prefix, sys.base_prefix]
    return {
        "level": "standard",
        "read": [*libraries, str(PACKAGE), "/does/not/exist"],
        "list": [],
        "write": [],
        "execute": [],
        "temporary": user["temporary"],
        "network": False,
        "subprocess": False,
        "tmpfs_mb": 4,
        "threads": 32,
    }


@pytest.fixture
def started(user: dict[str, Any], said: dict[str, Any]) -> Iterator[Callable[..., Worker]]:
    """Start a confined process: ``started(source, **grants)``."""
    with contextlib.ExitStack() as stack:

        def start(source: str, *, prelude: str = PRELUDE, **grants: Any) -> Worker:
            asked = {**said, **grants}
            asked.setdefault("roots", asked["read"])
            lifeline, held = os.pipe()
            script = _script({**asked, "lifeline": lifeline}, source, prelude)
            environment = {"TMPDIR": asked["temporary"], "HOME": asked["temporary"], "OPENBLAS_NUM_THREADS": "2"}
            process = subprocess.Popen(
                [user["python"], "-I", "-S", "-c", script],
                pass_fds=[lifeline],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                user=user["uid"],
                group=user["uid"],
                extra_groups=None if user["uid"] is None else [],
            )
            os.close(lifeline)
            worker = Worker(process, held)
            stack.callback(worker.end)
            return worker

        yield start


class Worker:
    """A confined process and the host's end of its lifeline."""

    def __init__(self, process: subprocess.Popen[bytes], held: int) -> None:
        self.process = process
        self._held: int | None = held

    def ended(self) -> tuple[int, bytes, bytes]:
        """Return its exit status and what it wrote."""
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err

    def line(self) -> bytes:
        """Return the next line that it writes."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def let_go(self) -> None:
        """Close the lifeline, as the host's death does."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def end(self) -> None:
        """Leave nothing behind."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate(timeout=30)
        self.let_go()


@pytest.fixture
def confined(started: Callable[..., Worker]) -> Confined:
    """Run acts in a confined process and return what each saw: ``confined(source, **grants)``."""

    def run(source: str, **grants: Any) -> dict[str, Any]:
        status, out, err = started(source, **grants).ended()
        assert status == 0, err.decode()
        return dict(json.loads(out))

    return run


def _script(said: dict[str, Any], source: str, prelude: str) -> str:
    main = str(PACKAGE / "_worker" / "__main__.py")
    path = [sysconfig.get_path("platlib")]
    return prelude.format(main=main, said=json.dumps(said), path=path) + textwrap.dedent(source) + TELL


DENIED = "PermissionError"
LEVELS = pytest.mark.parametrize("level", ["standard", "strict"])
MYSELF = pytest.mark.parametrize("user", ["myself"], indirect=True)

# Any system call by its number, for what Python has no function for. Arguments are passed as they are.
RAW = """
import ctypes, errno
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
from hostkit._worker._sandbox_calls import known_numbers
_numbers = known_numbers(os.uname().machine)
def raw(name, *arguments):
    number = name if isinstance(name, int) else _numbers[name]
    answer = _syscall(ctypes.c_long(number), *[ctypes.c_void_p(a) if isinstance(a, int) else a for a in arguments])
    return errno.errorcode[ctypes.get_errno()] if answer == -1 else answer
"""


@LEVELS
def test_ordinary_things_go_on(confined: Confined, level: str) -> None:
    """Threads, temporary files, an event loop, TLS, a database."""
    found = confined(
        """
        import asyncio, concurrent.futures, resource, signal, socket, sqlite3, ssl, tempfile, threading

        def act_threads():
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                return sum(pool.map(len, ["a", "bb"]))
        def act_temporary_file():
            with tempfile.TemporaryDirectory() as place:
                with open(place + "/a", "w") as file: file.write("here")
                os.rename(place + "/a", place + "/b")
                with tempfile.NamedTemporaryFile() as named: named.write(b"x")
                return open(place + "/b").read()
        def act_event_loop():
            async def main():
                return await asyncio.to_thread(lambda: 5)
            return asyncio.run(main())
        def act_streams():
            async def main():
                one, other = socket.socketpair()
                here, there = await asyncio.open_connection(sock=one), await asyncio.open_connection(sock=other)
                there[1].writelines([b"a" * 1000, b"b"]); await there[1].drain()
                return len(await here[0].readexactly(1001))
            return asyncio.run(main())
        def act_tls():
            return ssl.create_default_context().check_hostname
        def act_database():
            with sqlite3.connect(":memory:") as db:
                return db.execute("select 1 + 1").fetchone()[0]
        def act_database_file():
            db = sqlite3.connect(os.environ["TMPDIR"] + "/x.db")
            with db:
                db.execute("create table t (a)")
                db.execute("insert into t values (3)")
            return db.execute("select a from t").fetchone()[0]
        def act_nothing():
            with open("/dev/null", "r+b") as file: return file.write(b"x")
        def act_random():
            with open("/dev/urandom", "rb") as file: return len(file.read(3))
        def act_signals_to_itself():
            seen = []
            signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
            os.kill(os.getpid(), signal.SIGUSR1); signal.raise_signal(signal.SIGUSR1)
            return len(seen)
        def act_cpu_limit():
            soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
            resource.setrlimit(resource.RLIMIT_CPU, (1000, hard))
            return resource.getrlimit(resource.RLIMIT_CPU)[0]
        def act_threads_seen():
            return threading.active_count()
        def act_blocking():
            a, b = os.pipe()
            os.set_blocking(a, False); os.set_inheritable(a, True); os.dup2(a, 77)
            return os.get_blocking(77)
        def act_memory_file():
            with open(os.memfd_create("x"), "w") as file: return file.write("abc")
        def act_resolving_without_a_network():
            return socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)[0][4][1]
        """,
        level=level,
    )
    assert found == {
        "threads": 3,
        "temporary_file": "here",
        "event_loop": 5,
        "streams": 1001,
        "tls": True,
        "database": 2,
        "database_file": 3,
        "nothing": 1,
        "random": 3,
        "signals_to_itself": 2,
        "cpu_limit": 1000,
        "threads_seen": 1,
        "blocking": False,
        "memory_file": 3,
        "resolving_without_a_network": "gaierror",
    }


@LEVELS
@MYSELF
def test_numpy_computes(confined: Confined, level: str) -> None:
    """With the threads that OpenBLAS starts at its import."""
    pytest.importorskip("numpy")
    found = confined(
        """
        def act_product():
            import numpy
            return float(numpy.ones((300, 300)).dot(numpy.ones((300, 300)))[0, 0])
        """,
        level=level,
    )
    assert found == {"product": 300.0}


FILES = """
here, other = os.environ["TMPDIR"], {other!r}
def opened(path, flags=os.O_RDONLY):
    os.close(os.open(path, flags))
    return "opened"
def act_read_outside(): return opened(other + "/secret")
def act_write_outside(): return opened(other + "/secret", os.O_WRONLY)
def act_truncate_outside(): return os.truncate(other + "/secret", 0)
def act_list_outside(): return os.listdir(other)
def act_make_outside(): return opened(other + "/new", os.O_CREAT | os.O_WRONLY)
def act_remove_outside(): return os.unlink(other + "/secret")
def act_read_by_symlink():
    os.symlink(other + "/secret", here + "/link")
    return opened(here + "/link")
def act_read_by_hard_link():
    os.link(other + "/secret", here + "/hard")
    return opened(here + "/hard")
def act_move_out():
    opened(here + "/mine", os.O_CREAT | os.O_WRONLY)
    return os.rename(here + "/mine", other + "/mine")
def act_move_in(): return os.rename(other + "/secret", here + "/theirs")
def act_read_by_dots(): return opened(here + "/../" + os.path.basename(other) + "/secret")
def act_passwd(): return opened("/etc/passwd")
def act_list_root(): return os.listdir("/")
def act_write_library(): return opened(json.__file__, os.O_WRONLY)
def act_empty_library(): return opened(json.__file__, os.O_RDONLY | os.O_TRUNC)
def act_empty_library_by_mode_3(): return opened(json.__file__, 3 | os.O_TRUNC)
def act_append_library(): return opened(json.__file__, os.O_WRONLY | os.O_APPEND)
def act_truncate_library(): return os.truncate(json.__file__, 0)
def act_bytecode(): return opened(os.path.dirname(json.__file__) + "/x.pyc", os.O_CREAT | os.O_WRONLY)
def act_device(): return opened("/dev/tty", os.O_RDWR)
def act_shared_memory(): return opened("/dev/shm/x", os.O_CREAT | os.O_RDWR)
def act_host_memory(): return opened("/proc/%d/mem" % os.getppid())
def act_host_environment(): return opened("/proc/%d/environ" % os.getppid())
def act_host_files(): return os.listdir("/proc/%d/fd" % os.getppid())
def act_host_root(): return os.listdir("/proc/%d/root/etc" % os.getppid())
"""


@LEVELS
def test_files_that_were_not_granted_are_out_of_reach(confined: Confined, level: str) -> None:
    """Neither by their names nor by links; what is granted for reading can't be changed."""
    with tempfile.TemporaryDirectory(dir="/tmp") as other:  # noqa: S108
        os.chmod(other, 0o777)
        secret = Path(other, "secret")
        secret.write_text("x")
        secret.chmod(0o666)
        found = confined(FILES.format(other=other), level=level)
        assert secret.read_text() == "x"
        assert os.listdir(other) == ["secret"]
    gone = {"standard": {DENIED, "OSError"}, "strict": {DENIED, "OSError", "FileNotFoundError"}}[level]
    assert {act: saw for act, saw in found.items() if saw not in gone} == {}


def test_modes_owners_times_and_attributes_stay_as_they_are(confined: Confined, user: dict[str, Any]) -> None:
    """Landlock has no say in them, so at standard nothing may change them."""
    with tempfile.NamedTemporaryFile(dir="/tmp") as file:  # noqa: S108
        if user["uid"]:
            os.chown(file.name, 65534, 65534)
        before = os.stat(file.name)
        acts = """
        path = {path!r}
        def act_chmod(): os.chmod(path, 0o777)
        def act_fchmod():
            with open(path) as file: os.chmod(file.fileno(), 0o777)
        def act_chown(): os.chown(path, os.getuid(), os.getgid())
        def act_lchown(): os.lchown(path, os.getuid(), os.getgid())
        def act_times(): os.utime(path)
        def act_attribute(): os.setxattr(path, "user.x", b"1")
        def act_removed_attribute(): os.removexattr(path, "user.x")
        def act_fchmodat2(): return raw("fchmodat2", -100, path.encode(), 0o777, 0)
        """
        found = confined(
            RAW + textwrap.dedent(acts).format(path=file.name), read=["/usr/lib", "/lib", str(PACKAGE), sys.base_prefix, file.name]
        )
        assert found.pop("fchmodat2") == "EPERM"
        assert set(found.values()) == {DENIED}
        assert os.stat(file.name) == before


@LEVELS
def test_granted_paths_can_be_read_listed_and_written(
    confined: Confined, level: str, said: dict[str, Any], user: dict[str, Any]
) -> None:
    """Each as it was granted, and no further."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:  # noqa: S108
        os.chmod(place, 0o755)
        for name in ("listed", "readable", "writable"):
            Path(place, name).mkdir()
            Path(place, name, "file").write_text(name)
            Path(place, name).chmod(0o777)
            Path(place, name, "file").chmod(0o666)
        found = confined(
            f"""
            def act_list(): return os.listdir({place!r} + "/listed")
            def act_read_what_is_listed(): return open({place!r} + "/listed/file").read()
            def act_read(): return open({place!r} + "/readable/file").read()
            def act_write_what_is_read(): return open({place!r} + "/readable/file", "a")
            def act_write():
                with open({place!r} + "/writable/file", "w") as file: file.write("new")
                os.mkdir({place!r} + "/writable/place")
                os.rename({place!r} + "/writable/file", {place!r} + "/writable/place/file")
                return open({place!r} + "/writable/place/file").read()
            """,
            level=level,
            read=[*said["read"], place + "/readable"],
            list=[place + "/listed"],
            write=[place + "/writable"],
        )
        assert Path(place, "writable", "place", "file").read_text() == "new"
    assert found.pop("write_what_is_read") in {DENIED, "OSError"}  # EROFS where the mount is read-only
    assert found == {"list": ["file"], "read_what_is_listed": DENIED, "read": "readable", "write": "new"}


PROCESSES = """
import fcntl, resource, signal, ctypes
host = {host}
one = os.pipe()
def limit(which):
    soft, hard = resource.getrlimit(which)
    resource.setrlimit(which, (hard, hard))
def act_fork(): os.fork()
def act_exec(): os.execv("/bin/true", ["true"])
def act_spawn(): os.posix_spawn("/bin/true", ["true"], {{}})
def act_kill(): os.kill(host, 0)
def act_kill_everybody(): os.kill(-1, 0)
def act_kill_parent(): os.kill(os.getppid(), 0)
def act_owner_of_signals(): fcntl.fcntl(one[0], fcntl.F_SETOWN, host)
def act_signal_of_a_file(): fcntl.fcntl(one[0], 10, signal.SIGKILL)
def act_owner_in_high_bits(): return raw("fcntl", one[0], fcntl.F_SETOWN | 1 << 32, host)
def act_lease(): return raw("fcntl", one[0], 1024, 0)
def act_priority(): os.setpriority(os.PRIO_PROCESS, host, 19)
def act_own_affinity(): os.sched_setaffinity(0, os.sched_getaffinity(0))
def act_affinity(): os.sched_setaffinity(host, [0])
def act_scheduler(): os.sched_setscheduler(host, os.SCHED_IDLE, os.sched_param(0))
def act_more_files(): limit(resource.RLIMIT_NOFILE)
def act_more_memory(): limit(resource.RLIMIT_DATA)
def act_limits_of_others(): resource.prlimit(host, resource.RLIMIT_CPU, (1, 1))
def act_setuid(): os.setuid(os.getuid())
def act_setgroups(): os.setgroups([])
def act_chroot(): os.chroot(os.environ["TMPDIR"])
def act_pidfd(): os.pidfd_open(host)
def act_terminal(): fcntl.ioctl(0, 0x5412, b"x")
def act_terminal_in_high_bits(): return raw("ioctl", 0, 0x5412 | 1 << 32, 0)
def act_personality(): return raw("personality", 0x0400000)
def act_clock(): import time; time.clock_settime(time.CLOCK_REALTIME, 0)
def act_memory_map_of_itself(): return raw("prctl", 35, 1, 0, 0, 0)
def act_dumpable(): return raw("prctl", 4, 0, 0, 0, 0)
def act_tracer(): return raw("prctl", 0x59616D61, host, 0, 0, 0)
def act_option_in_high_bits(): return raw("prctl", 4 | 1 << 32, 0, 0, 0, 0)
def act_ambient(): return raw("prctl", 47, 2, 1, 0, 0)
def act_new_user(): return raw("clone", 0x10000000 | 17, 0, 0, 0, 0)
def act_sibling(): return raw("clone", 0x8000 | 17, 0, 0, 0, 0)
def act_process_in_high_bits(): return raw("clone", 17 | 1 << 32, 0, 0, 0, 0)
def act_limit_in_high_bits():
    pair = (ctypes.c_ulong * 2)(64, 64)
    return raw("prlimit64", 0, resource.RLIMIT_NOFILE | 1 << 32, ctypes.addressof(pair), 0)
def act_signal_to_a_thread(): return raw("tkill", host, 0)
def act_signal_to_a_group(): return raw("tgkill", host, host, 0)
def act_queued_signal(): return raw("rt_sigqueueinfo", host, 9, 0)
"""


@LEVELS
def test_no_other_process_is_made_found_or_changed(confined: Confined, level: str) -> None:
    """Nor its own limits, nor its users."""
    found = confined(RAW + PROCESSES.format(host=os.getpid()), level=level)
    # What Python makes of EPERM from setrlimit.
    assert {found.pop(act) for act in ("more_files", "more_memory")} == {"ValueError"}
    assert {act: saw for act, saw in found.items() if saw not in {DENIED, "EPERM"}} == {}


SOCKETS = """
import socket
kinds = {"tcp": (2, 1, 0), "tcp6": (10, 1, 0), "udp": (2, 2, 0), "udp6": (10, 2, 0), "raw": (2, 3, 1), "ping": (2, 2, 1), "unix": (1, 1, 0), "unix_datagram": (1, 2, 0),
         "netlink": (16, 3, 0), "packet": (17, 3, 0), "vsock": (40, 1, 0), "alg": (38, 5, 0), "sctp": (2, 1, 132), "bluetooth": (31, 3, 1)}
def made(kind):
    def act():
        with socket.socket(*kind): return "made"
    return act
globals().update({"act_" + name: made(kind) for name, kind in kinds.items()})
def act_datagram_pair(): return socket.socketpair(type=socket.SOCK_DGRAM)
def act_high_bits(): return raw("socket", 2 | 1 << 32, 1, 0)
def act_flags(): return raw("socket", 1, 1 | 0o2000000, 0)
def act_bind():
    one, other = socket.socketpair()
    one.bind("\\0hostkit-%d" % os.getpid())
def act_connect():
    one, other = socket.socketpair()
    one.connect("/run/nothing")
def act_send_to():
    one, other = socket.socketpair()
    one.sendto(b"x", "/run/nothing")
def act_address_in_high_bits():
    one, other = socket.socketpair()
    return raw("sendto", one.fileno(), b"x", 1, 0, 1 << 32, 110)
"""


@LEVELS
def test_there_is_no_network(confined: Confined, level: str) -> None:
    """Nor any other socket that leads out."""
    found = confined(RAW + SOCKETS.replace("\\\\", "\\"), level=level)
    assert found.pop("high_bits") == found.pop("address_in_high_bits") == found.pop("flags") == "EACCES"
    assert {act: saw for act, saw in found.items() if saw != DENIED} == {}


@LEVELS
def test_a_granted_network_is_tcp_and_udp(confined: Confined, level: str) -> None:
    """No raw sockets and none to programs on this machine."""
    sockets = SOCKETS.split("def act_bind", maxsplit=1)[0]
    found = confined(
        RAW
        + sockets
        + textwrap.dedent("""
        def act_conversation():
            with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
                client.sendall(b"hello")
                with server.accept()[0] as accepted: return accepted.recv(5).decode()
        def act_datagram():
            with socket.socket(type=socket.SOCK_DGRAM) as one, socket.socket(type=socket.SOCK_DGRAM) as other:
                one.bind(("127.0.0.1", 0))
                other.sendto(b"hi", one.getsockname())
                return one.recv(2).decode()
        """),
        level=level,
        network=True,
    )
    ipv6 = {found.pop("tcp6"), found.pop("udp6")}
    assert ipv6 <= {"made", "OSError"}  # where the kernel has none
    assert found.pop("flags") == "EACCES"
    assert isinstance(found.pop("high_bits"), int)
    worked = {"tcp": "made", "udp": "made", "conversation": "hello", "datagram": "hi"}
    assert found == {**dict.fromkeys(found, DENIED), **worked}


WAYS_OUT = """
def act_io_uring(): return raw("io_uring_setup", 4, 0)
def act_trace(): return raw("ptrace", 16, os.getppid(), 0, 0)
def act_read_memory(): return raw("process_vm_readv", os.getppid(), 0, 0, 0, 0, 0)
def act_write_memory(): return raw("process_vm_writev", os.getppid(), 0, 0, 0, 0, 0)
def act_advise_memory(): return raw("process_madvise", 3, 0, 0, 0, 0)
def act_take_a_descriptor(): return raw("pidfd_getfd", 3, 0, 0)
def act_compare(): return raw("kcmp", os.getppid(), os.getppid(), 0, 0, 0)
def act_keys(): return raw("keyctl", 0, -3, 0)
def act_add_key(): return raw("add_key", 0, 0, 0, 0, 0)
def act_bpf(): return raw("bpf", 0, 0, 0)
def act_perf(): return raw("perf_event_open", 0, 0, -1, -1, 0)
def act_userfaultfd(): return raw("userfaultfd", 1)
def act_unshare(): return raw("unshare", 0x10000000)
def act_setns(): return raw("setns", 0, 0)
def act_mount(): return raw("mount", b"none", b"/tmp", b"tmpfs", 0, 0)
def act_umount(): return raw("umount2", b"/proc", 2)
def act_pivot(): return raw("pivot_root", b"/", b"/")
def act_fsopen(): return raw("fsopen", b"tmpfs", 0)
def act_open_tree(): return raw("open_tree", -100, b"/", 1)
def act_move_mount(): return raw("move_mount", 0, b"", 0, b"", 0)
def act_mount_setattr(): return raw("mount_setattr", -100, b"/", 0, 0, 0)
def act_handle(): return raw("name_to_handle_at", -100, b"/", 0, 0, 0)
def act_open_handle(): return raw("open_by_handle_at", -100, 0, 0)
def act_fanotify(): return raw("fanotify_init", 0, 0)
def act_watch(): return raw("inotify_init1", 0)
def act_quota(): return raw("quotactl", 0, 0, 0, 0)
def act_swap(): return raw("swapon", b"/x", 0)
def act_time(): return raw("settimeofday", 0, 0)
def act_module(): return raw("init_module", 0, 0, 0)
def act_kexec(): return raw("kexec_load", 0, 0, 0, 0)
def act_reboot(): return raw("reboot", 0, 0, 0, 0)
def act_log(): return raw("syslog", 3, 0, 0)
def act_host_name(): return raw("sethostname", b"x", 1)
def act_shared_segment(): return raw("shmget", 0, 4096, 0o1600)
def act_message_queue(): return raw("msgget", 0, 0o1600)
def act_semaphores(): return raw("semget", 0, 1, 0o1600)
def act_posix_queue(): return raw("mq_open", b"x", 0o102, 0o600, 0)
def act_migrate(): return raw("migrate_pages", os.getppid(), 0, 0, 0)
def act_memory_program():
    fd = os.memfd_create("x")
    os.write(fd, b"#!/bin/true")
    return raw("execveat", fd, b"", 0, 0, 0x1000)
def act_clone3(): return raw("clone3", 0, 0)
def act_of_next_year(): return raw(499)
def act_capabilities(): return next(line.split()[1] for line in open("/proc/self/status") if line.startswith("CapBnd"))
"""


@LEVELS
def test_no_call_leads_out(confined: Confined, level: str, said: dict[str, Any]) -> None:
    """The calls that attackers of sandboxes use first, as root as well."""
    found = confined(RAW + WAYS_OUT, level=level, read=[*said["read"], "/proc/self"])
    assert found.pop("clone3") == found.pop("of_next_year") == "ENOSYS"
    if os.geteuid() == 0:
        capabilities = found.pop("capabilities")
        assert capabilities in {"0000000000000000", "000001fffeffffff"}
    found.pop("capabilities", None)
    assert {act: saw for act, saw in found.items() if saw != "EPERM"} == {}


@MYSELF
def test_only_what_is_listed_is_a_system_call(confined: Confined) -> None:
    """Every number from 0 to 500, without arguments: what isn't on the list doesn't get through."""
    found = confined(
        RAW
        + textwrap.dedent("""
        from hostkit._worker import _sandbox_seccomp
        listed = {_numbers[name] for name in (_sandbox_seccomp._ALLOWED + _sandbox_seccomp._READING_ATTRIBUTES).split() if name in _numbers}
        listed |= {335, 336}  # uretprobe and uprobe of x86_64: the kernel asks no filter, and kills who calls them by hand
        listed |= {_numbers[name] for name in "clone fcntl prlimit64 setrlimit setpriority personality sendto".split()}  # by their arguments
        def act_denied():
            said = {}
            for number in sorted(set(range(501)) - listed):
                said.setdefault(raw(number, 0, 0, 0, 0, 0, 0), []).append(number)
            return said
        """)
    )["denied"]
    assert set(found) == {"EPERM", "EACCES", "ENOSYS"}
    numbers = known_numbers(os.uname().machine) or {}
    network = {"socket", "socketpair", "connect", "bind", "listen", "accept", "accept4"} - {"socketpair"}
    assert set(found["EACCES"]) == {numbers[name] for name in network}
    assert set(found["ENOSYS"]) == {numbers["clone3"], *range(LAST + 1, 501)}


INT80 = """
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=7)
code.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20; int 0x80; ret
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="only x86_64 has other ways in")
@MYSELF
@pytest.mark.parametrize("act", ["raw(0x40000000 | 39)", INT80], ids=["x32", "int80"])
def test_a_call_by_another_machines_numbers_ends_the_worker(started: Callable[..., Worker], act: str) -> None:
    """By SIGSYS; a handler gets to write the stack first."""
    source = (
        RAW + "import faulthandler, signal\nfaulthandler.register(signal.SIGSYS, chain=True)\nprint('tried', flush=True)\n" + act
    )
    status, out, err = started(source + "\nprint('passed', flush=True)\nos._exit(0)").ended()
    assert status == -signal.SIGSYS
    assert out == b"tried\n"
    assert b"most recent call first" in err


DISARM = """
import fcntl, signal, socket
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
def tried(act, *arguments):
    try: return act(*arguments)
    except OSError: pass
one, other = socket.socketpair()
other.setblocking(False)
for fd in range(3, 100):
    if fd not in (one.fileno(), other.fileno()):
        tried(socket.send_fds, one, [b"x"], [fd])
        for copy in [fd, *(tried(socket.recv_fds, other, 1, 1) or ((), ()))[1], tried(os.dup, fd)]:
            if copy is not None:
                tried(fcntl.fcntl, copy, fcntl.F_SETFL, 0)
                tried(fcntl.fcntl, copy, fcntl.F_SETOWN, 0)
                tried(fcntl.ioctl, copy, 0x5452, bytes(4))
                tried(os.dup2, 0, copy)
                tried(os.close, copy)
os.closerange(3, 1000)
for task in os.listdir("/proc/self/task"):
    for name in (f"/proc/self/task/{task}/fd/%d" % said["lifeline"], "/proc/self/fd/%d" % said["lifeline"]):
        for flags in (os.O_WRONLY, os.O_RDWR):
            tried(os.open, name, flags | os.O_NONBLOCK)
print("armed", flush=True)
while True: signal.sigwait([signal.SIGUSR2])
"""


@LEVELS
def test_the_lifeline_ends_a_worker_that_tries_to_disarm_it(
    started: Callable[..., Worker], level: str, said: dict[str, Any]
) -> None:
    """With any descriptor closed, copied, passed through a socket, opened anew, its flags and owner changed."""
    worker = started(DISARM, level=level, read=[*said["read"], "/proc"])
    assert worker.line() == b"armed\n"
    worker.let_go()
    assert worker.line() == b""
    assert worker.ended()[0] == -signal.SIGKILL


def test_a_user_change_that_every_thread_takes_part_in_comes_back(confined: Confined) -> None:
    """The C library signals each thread, the guard of the lifeline among them, and waits for its answer."""
    found = confined("def act_setuid(): os.setuid(os.getuid())\ndef act_alive(): return 1")
    assert found == {"setuid": DENIED, "alive": 1}


SUBPROCESS = """
import asyncio, subprocess
def act_output(): return subprocess.run(["/bin/echo", "hello"], capture_output=True, text=True).stdout
def act_shell(): return subprocess.run("exit 3", shell=True).returncode
def act_session(): return subprocess.run(["/bin/true"], start_new_session=True).returncode
def act_kill():
    with subprocess.Popen(["/bin/sleep", "60"]) as child:
        child.kill()
        return child.wait()
def act_asyncio():
    async def main():
        child = await asyncio.create_subprocess_exec("/bin/echo", "hi", stdout=asyncio.subprocess.PIPE)
        return (await child.communicate())[0].decode()
    return asyncio.run(main())
def act_abort():
    return subprocess.run(["/bin/sh", "-c", "kill -ABRT $$"]).returncode
def act_confined(): return subprocess.run(["/bin/cat", "/etc/passwd"], capture_output=True).returncode
def act_own_program():
    path = os.environ["TMPDIR"] + "/program"
    with open(path, "w") as file: file.write("#!/bin/sh\\n")
    return os.access(path, os.R_OK) and subprocess.run([path]).returncode
def act_program_in_memory():
    return os.memfd_create("x")
def act_kill_the_host(): os.kill({host}, 0)
def act_new_user(): return raw("clone", 0x10000000 | 17, 0, 0, 0, 0)
def act_sibling(): return raw("clone", 0x8000 | 17, 0, 0, 0, 0)
"""


@LEVELS
def test_a_granted_subprocess_is_confined_as_well(confined: Confined, level: str, said: dict[str, Any]) -> None:
    """Programs run from the granted trees only, and see what the worker sees."""
    programs = ["/bin", "/usr/bin", "/lib", "/lib64", "/usr/lib"]
    source = RAW + SUBPROCESS.replace("{host}", str(os.getpid()))
    found = confined(source, level=level, subprocess=True, execute=programs)
    refused = {found.pop(act) for act in ("own_program", "program_in_memory", "kill_the_host", "new_user", "sibling")}
    assert refused <= {DENIED, "EPERM", "ProcessLookupError"}
    assert found == {"output": "hello\n", "shell": 3, "session": 0, "kill": -9, "asyncio": "hi\n", "abort": -6, "confined": 1}


STRICT = """
import errno, fcntl, socket, signal, stat, threading
def act_processes(): return sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())
def act_root(): return sorted(os.listdir("/"))
def act_devices(): return sorted(os.listdir("/dev"))
def act_private(): return os.listdir(os.environ["TMPDIR"])
def act_mode(): return stat.S_IMODE(os.stat(os.environ["TMPDIR"]).st_mode)
def act_full():
    with open(os.environ["TMPDIR"] + "/big", "wb") as file:
        for _ in range(100): file.write(bytes(1 << 20))
def act_chmod():
    with open(os.environ["TMPDIR"] + "/mine", "wb") as file: os.chmod(file.fileno(), 0o755)
    os.utime(file.name)
    return oct(os.stat(file.name).st_mode)[-3:]
def act_chmod_library():
    try: os.chmod(json.__file__, 0o777)
    except OSError as error: return errno.errorcode[error.errno]
def act_user(): return os.getuid()
def act_groups(): return os.getgroups()
def act_init(): return os.readlink("/proc/1/exe")
def act_init_root(): return os.stat("/proc/1/root/etc")
def act_kill_init(): return os.kill(1, 9)
def act_interfaces(): return [name for _, name in socket.if_nameindex()]
def act_threads():
    started, hold = [], threading.Event()
    try:
        for _ in range(100):
            thread = threading.Thread(target=hold.wait)
            thread.start()
            started.append(thread)
    except RuntimeError: return len(started)
    finally:
        hold.set()
        for thread in started: thread.join()
"""


def test_a_strict_worker_is_alone(confined: Confined, said: dict[str, Any], user: dict[str, Any]) -> None:
    """With its own processes, files, devices and user."""
    found = confined(STRICT, level="strict", read=[*said["read"], "/proc"], list=["/dev"])
    uid, groups = found.pop("user"), found.pop("groups")
    if user["uid"]:
        assert uid == 65534
    elif os.geteuid() == 0:
        assert 61184 <= uid < 65520
        assert groups == []
    else:
        assert uid == os.geteuid()
    assert found.pop("root") == DENIED
    assert found.pop("threads") in range(28, 33)
    assert found == {
        "processes": [1, 2],
        "devices": ["full", "null", "random", "urandom", "zero"],
        "private": [],
        "mode": 0o700,
        "full": "OSError",
        "chmod": "755",
        "chmod_library": "EROFS",
        "init": DENIED,
        "init_root": DENIED,
        "kill_init": DENIED,
        "interfaces": DENIED,
    }


@pytest.mark.parametrize(
    ("act", "status"),
    [
        ("os._exit(7)", 7),
        ("sys.exit(300)", 44),
        ("raise ValueError", 1),
        ("os.kill(os.getpid(), 11)", -11),
        ("os.abort()", -6),
        ("import ctypes; ctypes.string_at(8)", -11),
        ("os.kill(os.getpid(), 15)", -15),
        ("os.kill(os.getpid(), 9)", -9),
        ("os.kill(os.getpid(), 24)", -24),
    ],
)
@MYSELF
def test_the_host_sees_how_a_strict_worker_ended(started: Callable[..., Worker], act: str, status: int) -> None:
    """By the same exit status, or the same signal."""
    assert started(act, level="strict").ended()[0] == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
@MYSELF
def test_a_signal_to_the_group_ends_a_strict_worker(started: Callable[..., Worker], number: signal.Signals) -> None:
    """It isn't the first process of its namespace, for which signals have no default."""
    worker = started(
        "import signal, time\nsignal.signal(2, signal.SIG_DFL)\nprint('here', flush=True)\ntime.sleep(60)", level="strict"
    )
    assert worker.line() == b"here\n"
    os.killpg(worker.process.pid, number)
    assert worker.ended()[0] == -number


LEFT = """
import time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            print("left", flush=True)
            time.sleep(60)
        os._exit(0)
time.sleep({wait})
os._exit(5)
"""


@pytest.mark.parametrize("how", ["end", "killed", "host gone"])
def test_nothing_that_a_strict_worker_started_outlives_it(started: Callable[..., Worker], how: str) -> None:
    """Not in sessions of their own either: each holds the pipe that is read here until its end."""
    worker = started(LEFT.format(wait=0.3 if how == "end" else 60), level="strict", subprocess=True)
    assert [worker.line() for _ in range(3)] == [b"left\n"] * 3
    if how == "killed":
        worker.process.kill()
    elif how == "host gone":
        worker.let_go()
    assert worker.ended()[0] == (5 if how == "end" else -signal.SIGKILL)


def test_a_fork_bomb_stays_within_the_limit(started: Callable[..., Worker]) -> None:
    """The children count as threads do."""
    bomb = """
    import time
    made = 0
    try:
        for _ in range(200):
            if os.fork() == 0: time.sleep(60)
            made += 1
    except BlockingIOError:
        print(made, flush=True)
    os._exit(0)
    """
    status, out, err = started(textwrap.dedent(bomb), level="strict", subprocess=True).ended()
    assert (status, err) == (0, b"")
    assert int(out) in range(28, 33)


MISSING = """
import errno
from hostkit._worker._sandbox_calls import Kernel

class Lacking(Kernel):
    name, number = None, None
    def call(self, name, *arguments):
        if name == self.name and (self.only is None or arguments[0] == self.only):
            raise OSError(self.number, os.strerror(self.number), name)
        return super().call(name, *arguments)

def tried(level, name, only, number):
    kernel = Lacking()
    kernel.name, kernel.only, kernel.number = name, only, number
    r, w = os.pipe()
    if os.fork() == 0:
        os.setsid()
        try:
            _sandbox.confine({**said, "level": level}, kernel=kernel)
            os.write(w, b"confined")
        except _sandbox.Unavailable as missing:
            os.write(w, missing.mechanism.encode())
        finally:
            os._exit(0)
    os.close(w)
    answer = os.read(r, 100).decode()
    os.close(r)
    os.wait()
    return answer

def act_all():
    return [tried(*case, number) for case in cases for number in (errno.ENOSYS, errno.EPERM)]
"""

CASES = [
    ("standard", "prctl", 38, "no_new_privs"),
    ("standard", "prctl", 39, "no_new_privs"),
    ("standard", "capget", None, "capabilities"),
    ("standard", "capset", None, "capabilities"),
    ("standard", "close_range", None, "the lifeline's guard"),
    ("standard", "landlock_create_ruleset", None, "Landlock"),
    ("standard", "landlock_add_rule", None, "Landlock"),
    ("standard", "landlock_restrict_self", None, "Landlock"),
    ("standard", "seccomp", None, "seccomp"),
    ("standard", "prctl", 21, "seccomp"),
    ("strict", "unshare", None, "namespaces"),
    ("strict", "mount", None, "mount namespace"),
    ("strict", "open_tree", None, "mount namespace"),
    ("strict", "mount_setattr", None, "mount namespace"),
    ("strict", "move_mount", None, "mount namespace"),
    ("strict", "pivot_root", None, "mount namespace"),
    ("strict", "umount2", None, "mount namespace"),
    ("strict", "capset", None, "capabilities"),
    ("strict", "landlock_restrict_self", None, "Landlock"),
    ("strict", "seccomp", None, "seccomp"),
]


def test_a_mechanism_that_is_missing_is_named_and_nothing_goes_on_without_it(confined: Confined) -> None:
    """Each system call that the sandbox stands on, absent and forbidden."""
    cases = [(level, name, only) for level, name, only, _ in CASES]
    prelude = PRELUDE.replace("_sandbox.confine(said)\n", "")
    found = confined(MISSING + f"\ncases = {cases!r}\n", prelude=prelude)["all"]
    expected = [mechanism for *_, mechanism in CASES for _ in range(2)]
    assert found == expected


OLDER = """
from hostkit._worker import _sandbox_landlock
from hostkit._worker._sandbox_calls import Kernel
newest = _sandbox_landlock.version(Kernel())
class Older(Kernel):
    def call(self, name, *arguments):
        if name == "landlock_create_ruleset" and arguments[0] is None: return min(newest, {version})
        return super().call(name, *arguments)
_sandbox.confine(said, kernel=Older())
"""


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5])
@MYSELF
def test_what_an_older_landlock_lets_through_is_denied_otherwise(confined: Confined, version: int) -> None:
    """Emptying files by their names, TCP, devices, signals to others."""
    with tempfile.TemporaryDirectory(dir="/tmp") as other:  # noqa: S108
        Path(other, "secret").write_text("x")
        prelude = PRELUDE.replace("_sandbox.confine(said)\n", OLDER.replace("{version}", str(version)))
        found = confined(RAW + FILES.format(other=other) + PROCESSES.format(host=os.getpid()), prelude=prelude)
        assert Path(other, "secret").read_text() == "x"
        assert os.path.getsize(json.__file__)
    assert {act: saw for act, saw in found.items() if saw not in {DENIED, "EPERM", "OSError", "ValueError"}} == {}


def test_a_path_to_write_that_is_not_there_is_told(started: Callable[..., Worker]) -> None:
    """A grant that can't be had isn't dropped in silence."""
    status, _, err = started("", write=["/does/not/exist"]).ended()
    assert status == 1
    assert b"Unavailable: Landlock: /does/not/exist can't be granted: No such file" in err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's workers change their user")
@MYSELF
def test_a_throwaway_user_that_cannot_write_what_was_granted_is_told(started: Callable[..., Worker], tmp_path: Path) -> None:
    """Not at the plugin's first write."""
    status, _, err = started("", level="strict", write=[str(tmp_path)]).ended()
    assert status == 1
    assert b"Unavailable: throwaway user: user 6" in err
    assert f"can't write {tmp_path}".encode() in err


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("grants", [{}, {"network": True}, {"subprocess": True}, {"level": "strict"}], ids=str)
def test_the_program_decides_by_the_numbers_of_its_machine(machine: str, grants: dict[str, Any]) -> None:
    """Read as the kernel reads it, for a machine that isn't at hand too."""
    kernel = _Elsewhere(machine)
    said = {"level": "standard", "network": False, "subprocess": False, **grants}
    program = _sandbox_seccomp.program(kernel, said, pid=77, landlock=7)  # type: ignore[arg-type]
    ours, theirs = {"x86_64": (0xC000003E, 0xC00000B7), "aarch64": (0xC00000B7, 0xC000003E)}[machine]

    def answer(name: str, *arguments: int, architecture: int = ours) -> int:
        return _run(program, architecture, kernel.numbers[name], [*arguments, 0, 0, 0, 0, 0, 0])

    allow, deny, no_access, unknown, trap = 0x7FFF0000, 0x00050001, 0x0005000D, 0x00050026, 0x00030000
    assert answer("read") == answer("futex") == answer("openat") == allow
    assert answer("read", architecture=theirs) == trap
    assert answer("ptrace") == answer("io_uring_setup") == answer("mount") == deny
    assert answer("kill", 77) == answer("tgkill", 77) == allow
    assert answer("clone3") == _run(program, ours, 999, [0] * 6) == unknown
    assert answer("clone", 0x10000) == allow
    assert answer("clone", 0x10000 | 0x10000000) == deny
    assert answer("clone", 17) == answer("execve") == (allow if "subprocess" in grants else deny)
    assert answer("socket", 2, 1, 0) == answer("connect") == (allow if "network" in grants else no_access)
    assert answer("socket", 1, 1, 0) == answer("socket", 16, 3, 0) == no_access
    assert answer("fchmodat") == (allow if "level" in grants else deny)
    assert answer("prlimit64", 0, 7, 0) == answer("prlimit64", 77, 0, 1) == allow
    assert answer("prlimit64", 0, 7, 1 << 32) == answer("prlimit64", 5, 0, 0) == deny


class _Elsewhere:
    def __init__(self, machine: str) -> None:
        self.machine = machine
        self.numbers = known_numbers(machine) or {}


def _run(program: list[tuple[int, int, int, int]], architecture: int, number: int, arguments: list[int]) -> int:
    """Run a program of seccomp on a call."""
    words = {0: number, 4: architecture}
    for index, argument in enumerate(arguments[:6]):
        words[16 + 8 * index], words[20 + 8 * index] = argument & 0xFFFFFFFF, argument >> 32
    at, value = 0, 0
    while True:
        code, on_true, on_false, constant = program[at]
        at += 1
        if code == 0x20:
            value = words[constant]
        elif code == 0x54:
            value &= constant
        elif code == 0x05:
            at += constant
        elif code == 0x15:
            at += on_true if value == constant else on_false
        elif code == 0x35:
            at += on_true if value >= constant else on_false
        else:
            assert code == 0x06
            return constant


def test_what_surrounds_the_private_directory_can_be_granted(confined: Confined, user: dict[str, Any]) -> None:
    """The new root grows over the private directory: neither its parent nor the whole tree is in its way."""
    found = confined(
        """
        def act_private(): return os.listdir(os.environ["TMPDIR"])
        def act_around():
            path = os.path.dirname(os.environ["TMPDIR"]) + "/hostkit-%d" % os.getppid()
            with open(path, "w") as file: file.write("x")
            os.unlink(path)
            return "written"
        def act_root(): return {"usr", "proc", "dev"} <= set(os.listdir("/"))
        def act_read(): return bool(open("/etc/passwd").read())
        def act_root_is_read_only(): os.mkdir("/hostkit")
        """,
        level="strict",
        list=["/"] if user["uid"] else [],  # root's own home is closed to its throwaway user
        write=["/tmp"],  # noqa: S108
    )
    assert found.pop("root_is_read_only") in {DENIED, "OSError"}
    assert found.pop("root") == (True if user["uid"] else DENIED)
    assert found == {"private": [], "around": "written", "read": DENIED if user["uid"] else "FileNotFoundError"}
