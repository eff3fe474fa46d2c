"""What the acts are done to: secrets, canaries, victims and listeners in the host's process, which see from outside what happened."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import pty
import select
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import current_process
from pathlib import Path
from secrets import randbelow, token_hex
from typing import Any, NamedTuple

from multiprocess.process import active_children

import hostkit
from hostkit import testing

from ._calls import call, libc
from ._table import Held

GROUP = "escapes"
PLUGIN = "escapee"
VARIABLE = "ESCAPE_SECRET"
_NEIGHBOUR = '''
import os, tempfile
SECRET = {secret!r}
class P:
    """Keeps a secret in its temporary directory."""
    def __init__(self):
        handle, self.path = tempfile.mkstemp(prefix="neighbour-")
        os.write(handle, SECRET.encode())
        os.close(handle)
    def execute(self, ctx, request):
        return {{"temporary": self.path}}
    def close(self):
        os.unlink(self.path)
'''


class Stage:
    """Everything that acts reach for. ``open`` it in an empty directory of a short name; whatever it made is gone afterwards."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.secret = f"secret-{token_hex(8)}"
        self.site = place / "site"
        self.records: list[dict[str, Any]] = []  # Any: loguru's own values
        self.target: dict[str, Any] = {}  # Any: JSON data
        self.exit_code: int | None = None  # of the worker that ended last
        self._memory = ctypes.create_string_buffer(b"untouched", 16)
        self._hidden = ctypes.create_string_buffer(self.secret.encode())
        self._victim: subprocess.Popen[bytes] | None = None
        self._sockets: dict[str, socket.socket] = {}
        self._before: dict[str, object] = {}
        self._told = self._open = 0
        self._master = self._named_queue = -1

    @contextmanager
    def open(self) -> Iterator[Stage]:
        """Put everything up, and take it down in the end."""
        with ExitStack() as stack:
            parts = (self._files(), self._package(), self._process(stack), self._network(stack), self._shared(stack))
            self.target = {name: value for part in parts for name, value in part.items()}
            self.records = stack.enter_context(testing.hear())
            stack.callback(self._end_victim)
            stack.callback(_clear)
            yield self

    def configuration(self, level: str, permissions: str = "") -> str:
        """Write the configuration of a host at this level into the directory that it works in, and return its path.

        ``permissions`` is what the plugin is granted, as lines of TOML; it asks for everything.
        """
        text = f"# {self.secret}\n[defaults]\nhealth = false\nbreaker = false\nrestarts = {{ budget = 1000 }}\n"
        text += "".join(f'[plugins.{name}]\nsandbox = "{level}"\n' for name in (PLUGIN, "neighbour"))
        text += f"[plugins.{PLUGIN}.permissions]\n{permissions}\n" if permissions else ""
        # One limit is on the number of files, and it takes a while to get there.
        self.target["files"] = 70_000 if level == "strict" else 2_000
        path = Path(self.target["configuration"])
        path.write_text(text, encoding="utf-8")
        return str(path)

    def meet(self, host: hostkit.Host) -> None:
        """Learn where the neighbour is, and remember how everything looks before an act."""
        answer = host.execute("neighbour", {}, timeout=10)
        if (left := self.target.get("other_temporary")) not in (None, answer["temporary"]):
            Path(left).unlink(missing_ok=True)  # by a neighbour that was killed
        self.target.update(other_worker=_worker("neighbour"), other_temporary=answer["temporary"], victim=self._living())
        self._before = self._look()
        self._told = len(self.records)
        self._open = len(os.listdir("/proc/self/fd"))

    def saw(self, name: str, how: str, claimed: bool) -> bool | None:  # noqa: FBT001 - what the act says
        """Return whether an act was seen to succeed, or None for one that shows nowhere outside of its own process."""
        for names, seen in _EYES.items():
            if name in names:
                return _soon(functools.partial(seen, self, how), (0.2 if name in QUIET else 2.0) if claimed else 0.0)
        return None

    def mend(self) -> None:
        """Make everything as it was before the act."""
        for made in Path(self.target["directory"]).iterdir():  # itself it must stay: it may be granted
            shutil.rmtree(made) if made.is_dir() and not made.is_symlink() else made.unlink()
        for path in self._watched():
            before = self._before.get(path)
            if isinstance(before, _Look) and before != _of_file(path):
                with suppress(FileNotFoundError):  # what the neighbour had is gone with it
                    os.unlink(path)
                    Path(path).write_bytes(before.content)
                    os.chmod(path, before.mode)
        ctypes.memmove(self._memory, b"untouched", 9)
        for path in (self.target["ran"], self.target["unpickled"]):
            with suppress(FileNotFoundError, NotADirectoryError):
                os.rmdir(path) if os.path.isdir(path) else os.unlink(path)
        self._heard_on("tcp", "tcp6", "udp", "unix", "abstract", "unix_datagram")
        self._typed()
        self._shared_was_used("")

    # What is put up.

    def _files(self) -> dict[str, Any]:
        home, project, outside = self.place / "home", self.place / "project", self.place / "outside"
        for directory in (home / ".ssh", project, outside / "directory"):
            directory.mkdir(parents=True)
        (outside / "directory").chmod(0o777)  # where it is granted, a worker may be another user
        secret = {
            "key": home / ".ssh" / "id_ed25519",
            "dotenv": project / ".env",
            "lock": project / "hostkit.lock",
            "audit": project / "audit.jsonl",
            "readable": outside / "readable",
            "open": outside / "open",
            "canary": outside / "canary",
            "name": home / self.secret,
        }
        for path in secret.values():
            path.write_text(self.secret + " " * randbelow(50), encoding="utf-8")
            path.chmod(0o600)
        (outside / "link").symlink_to(self.secret)
        return {
            "home": str(home),
            "project": str(project),
            "configuration": str(project / "hostkit.toml"),
            "readable": str(secret["readable"]),
            "canary": str(secret["canary"]),
            "link": str(outside / "link"),
            "directory": str(outside / "directory"),
            "ran": str(outside / "ran"),
            "unpickled": str(outside / "unpickled"),
            "opened": str(secret["open"]),
            "hostkit": os.path.dirname(os.path.abspath(hostkit.__file__)),
        }

    def _package(self) -> dict[str, Any]:
        """Install the plugin and its neighbour side by side, as pip would, so that the acts may try to change them."""
        self.site.mkdir()
        # Under another name: the package itself has been imported here, from where it must not be changed.
        mine = testing.install(self.site, PLUGIN, "", group=f"{GROUP}.plugins", attribute="Escape")
        left_out = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(__file__).parent, self.site / mine, dirs_exist_ok=True, ignore=left_out)
        module = self.site / "settings_of_the_host.py"
        module.write_text(f"PASSWORD = {self.secret!r}\n", encoding="utf-8")
        package = testing.install(self.site, "neighbour", _NEIGHBOUR.format(secret=self.secret), group=f"{GROUP}.plugins")
        metadata = self.site / f"{package}-1.0.dist-info"
        with (metadata / "METADATA").open("a", encoding="utf-8") as file:
            file.write(f"Summary: {self.secret}\n")
        return {
            "other_module": str(self.site / package / "__init__.py"),
            "other_metadata": str(metadata),
            "other_package": package,
            "host_module": str(module),
        }

    def _process(self, stack: ExitStack) -> dict[str, Any]:
        opened, inherited = (os.open(self.place / "outside" / "open", os.O_RDONLY) for _ in range(2))
        os.set_inheritable(inherited, True)
        for fd in (opened, inherited):
            stack.callback(os.close, fd)
        os.environ[VARIABLE] = self.secret
        stack.callback(os.environ.pop, VARIABLE)
        self._master, slave = pty.openpty()
        stack.callback(os.close, self._master)
        stack.callback(os.close, slave)
        return {
            "host": os.getpid(),
            "open_secret": opened,
            "secret_address": ctypes.addressof(self._hidden),
            "secret_size": len(self.secret),
            "memory_address": ctypes.addressof(self._memory),
            "variable": VARIABLE,
            "argument": _argument(),
            "authkey": current_process().authkey.hex(),
            "terminal": os.ttyname(slave),
            "control_groups": _control_groups(),
        }

    def _network(self, stack: ExitStack) -> dict[str, Any]:
        self._sockets = {
            "tcp": socket.socket(),
            "udp": socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
            "unix": socket.socket(socket.AF_UNIX),
            "abstract": socket.socket(socket.AF_UNIX),
            "unix_datagram": socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
        }
        path, datagram, abstract = str(self.place / "s"), str(self.place / "d"), f"escape-{token_hex(8)}"
        addresses: dict[str, Any] = {"unix": path, "abstract": "\0" + abstract, "unix_datagram": datagram}
        if socket.has_ipv6:
            with suppress(OSError):
                self._sockets["tcp6"] = socket.socket(socket.AF_INET6)
        for name, one in self._sockets.items():
            stack.callback(one.close)
            one.bind(addresses.get(name, ("::1" if name == "tcp6" else "127.0.0.1", 0)))
            if one.type is socket.SOCK_STREAM:
                one.listen(16)
            one.setblocking(False)
        ports = {name: one.getsockname()[1] for name, one in self._sockets.items() if name in ("tcp", "tcp6", "udp")}
        return {"tcp6": 0, **ports, "unix": path, "abstract": abstract, "unix_datagram": datagram}

    def _shared(self, stack: ExitStack) -> dict[str, Any]:
        libc.shmat.restype = ctypes.c_void_p
        segment = libc.shmget(0, ctypes.c_size_t(4096), 0o1600)
        stack.callback(libc.shmctl, segment, 0, None)
        address = libc.shmat(segment, None, 0)
        ctypes.memmove(address, self.secret.encode(), len(self.secret))
        libc.shmdt(ctypes.c_void_p(address))
        queue, semaphore = libc.msgget(0, 0o1600), libc.semget(0, 1, 0o1600)
        stack.callback(libc.msgctl, queue, 0, None)
        stack.callback(libc.semctl, semaphore, 0, 0)
        memory = Path("/dev/shm") / self.secret
        memory.write_text(self.secret, encoding="utf-8")
        stack.callback(memory.unlink)
        name = f"escape-{token_hex(8)}"
        attributes = (ctypes.c_long * 8)(0, 4, 64, 0)
        with suppress(OSError, Held):
            self._named_queue = call("mq_open", name.encode(), os.O_CREAT | os.O_RDWR | os.O_NONBLOCK, 0o600, attributes)
            stack.callback(libc.mq_unlink, f"/{name}".encode())
            stack.callback(os.close, self._named_queue)
        return {"segment": segment, "queue": queue, "semaphore": semaphore, "named_memory": f"/{self.secret}", "named_queue": name}

    def _living(self) -> int:
        if self._victim is None or self._victim.poll() is not None:
            self._end_victim()
            self._victim = subprocess.Popen(["/bin/sleep", "60"], start_new_session=True)
        return self._victim.pid

    def _end_victim(self) -> None:
        if self._victim is not None:
            self._victim.kill()
            self._victim.wait()

    # What is seen.

    def _watched(self) -> list[str]:
        names = ("canary", "other_module", "configuration", "other_temporary")
        in_project = [os.path.join(self.target["project"], name) for name in ("hostkit.lock", "audit.jsonl")]
        return [*(self.target[name] for name in names), *in_project]

    def _look(self) -> dict[str, object]:
        return {**{path: _of_file(path) for path in self._watched()}, "": sorted(os.listdir(self.target["directory"]))}

    def _tells_secret(self, how: str) -> bool:
        return self.secret in how

    def _tells_descriptor(self, how: str) -> bool:
        return self.target["opened"] in how

    def _tells_size(self, how: str) -> bool:
        return how == f"{os.path.getsize(self.target['readable'])} bytes"

    def _tells_shadow(self, how: str) -> bool:
        return how == f"read {os.path.getsize('/etc/shadow')} bytes"

    def _is_changed(self, _: str) -> bool:
        return self._look() != self._before

    def _memory_is_changed(self, _: str) -> bool:
        return self._memory.raw[:7] == b"escaped"

    def _victim_is_dead(self, _: str) -> bool:
        return self._victim is not None and self._victim.poll() in (-signal.SIGKILL, -signal.SIGUSR1)

    def _neighbour_is_dead(self, _: str) -> bool:
        try:
            return (
                Path(f"/proc/{self.target['other_worker']}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] in "ZX"
            )
        except FileNotFoundError:
            return True

    def _program_ran(self, _: str) -> bool:
        return os.path.exists(self.target["ran"]) or self.exit_code == 42

    def _was_unpickled(self, _: str) -> bool:
        return os.path.exists(self.target["unpickled"])

    def _was_connected(self, _: str) -> bool:
        return self._heard_on("tcp", "tcp6")

    def _got_packet(self, _: str) -> bool:
        return self._heard_on("udp")

    def _got_unix(self, _: str) -> bool:
        return self._heard_on("unix", "abstract", "unix_datagram")

    def _heard_on(self, *names: str) -> bool:
        heard = False
        for one in (self._sockets[name] for name in names if name in self._sockets):
            with suppress(BlockingIOError):
                while True:
                    one.accept()[0].close() if one.type is socket.SOCK_STREAM else one.recv(65536)
                    heard = True
        return heard

    def _was_typed(self, _: str) -> bool:
        return self._typed()

    def _typed(self) -> bool:
        heard = False
        while select.select([self._master], [], [], 0)[0]:
            heard = bool(os.read(self._master, 4096))
        return heard

    def _shared_was_used(self, _: str) -> bool:
        used = libc.msgrcv(self.target["queue"], (ctypes.c_long * 16)(), 64, 0, 0o4000) >= 0
        used = libc.semctl(self.target["semaphore"], 0, 12, 0) != 0 or used
        libc.semctl(self.target["semaphore"], 0, 16, 0)
        if self._named_queue >= 0:
            got = ctypes.create_string_buffer(64)
            used = libc.mq_receive(self._named_queue, got, ctypes.c_size_t(64), None) >= 0 or used
        return bool(used)

    def _host_has_more_open(self, _: str) -> bool:
        return len(os.listdir("/proc/self/fd")) > self._open + 100

    def _log_was_forged(self, _: str) -> bool:
        forged = [record for record in self.records[self._told :] if "forged" in record["text"] or "escaped" in record["text"]]
        return any(record.get("plugin") != PLUGIN or "\n" in record["text"] or "\x1b" in record["text"] for record in forged)

    def _log_was_flooded(self, _: str) -> bool:
        return len(self.records) - self._told > 2500


Eye = Callable[[Stage, str], bool]

_EYES: dict[tuple[str, ...], Eye] = {
    (
        "read-ssh-key",
        "list-home",
        "read-dotenv",
        "read-configuration",
        "read-lock-file",
        "read-audit-log",
        "read-other-plugin",
        "read-host-module",
        "read-other-metadata",
        "import-other-plugin",
        "read-other-temporary",
        "read-by-symlink",
        "read-by-hardlink",
        "read-by-climbing",
        "read-by-path-descriptor",
        "read-by-handle",
        "read-link",
        "read-host-environment-variable",
        "read-host-memory",
        "open-host-descriptor",
        "read-through-host-root",
        "copy-from-host",
        "take-descriptor-of-host",
        "attach-segment",
        "open-named-memory",
        "read-inherited-descriptors",
    ): Stage._tells_secret,
    ("list-host-descriptors",): Stage._tells_descriptor,
    ("stat-file",): Stage._tells_size,
    ("read-shadow",): Stage._tells_shadow,
    (
        "overwrite-file",
        "truncate-file",
        "delete-file",
        "create-file",
        "create-directory",
        "create-fifo",
        "create-symlink",
        "rename-out",
        "link-out",
        "write-by-symlink",
        "write-other-plugin",
        "write-configuration",
        "write-lock-file",
        "write-audit-log",
        "write-other-temporary",
        "chmod",
        "chmod-by-the-newest-call",
        "chown",
        "set-times",
        "set-attribute",
    ): Stage._is_changed,
    ("write-host-memory", "copy-to-host"): Stage._memory_is_changed,
    (
        "kill-process",
        "kill-group",
        "signal-thread",
        "signal-thread-of-any-process",
        "signal-with-forged-sender",
        "signal-by-descriptor",
        "signal-by-ownership",
        "signal-by-ownership-of-socket",
        "signal-by-timer",
    ): Stage._victim_is_dead,
    ("kill-other-worker",): Stage._neighbour_is_dead,
    (
        "outlive-the-worker",
        "run-shell",
        "become-program",
        "become-own-file",
        "become-memory-file",
    ): Stage._program_ran,
    ("answer-with-pickle", "return-pickle"): Stage._was_unpickled,
    ("connect-tcp", "connect-tcp6", "connect-fast-open", "connect-multipath"): Stage._was_connected,
    ("send-udp", "ask-name-server"): Stage._got_packet,
    ("connect-unix", "connect-abstract", "send-unix", "turn-socket-pair", "send-messages-unix"): Stage._got_unix,
    ("write-to-terminal", "type-into-terminal"): Stage._was_typed,
    ("send-to-queue", "set-semaphore", "open-named-queue"): Stage._shared_was_used,
    ("send-descriptors-to-host",): Stage._host_has_more_open,
    ("forge-log",): Stage._log_was_forged,
    ("flood-log", "flood-output"): Stage._log_was_flooded,
}

# Whoever does these isn't told that nothing came of it: the kernel drops them, or the host does.
QUIET = frozenset(
    {
        "outlive-the-worker",
        "signal-by-ownership",
        "signal-by-ownership-of-socket",
        "return-pickle",
        "forge-log",
        "flood-log",
        "flood-output",
        "send-descriptors-to-host",
    }
)


def _soon(seen: Callable[[], bool], patience: float) -> bool:
    end = time.monotonic() + patience
    while not seen():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)  # a death, and a grandchild, tell nobody here
    return True


class _Look(NamedTuple):
    """How a file looks."""

    content: bytes
    mode: int
    others: tuple[int, ...]
    attributes: list[str]


def _of_file(path: str) -> _Look | None:
    try:
        status = os.lstat(path)
        others = (status.st_uid, status.st_gid, status.st_mtime_ns, status.st_ino)
        return _Look(Path(path).read_bytes(), stat.S_IMODE(status.st_mode), others, _attributes(path))
    except FileNotFoundError:
        return None


def _attributes(path: str) -> list[str]:
    try:
        return os.listxattr(path)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return []


def _clear() -> None:
    """Remove what an act could not, because it became another program."""
    for path in Path(tempfile.gettempdir()).glob("escape-*-program"):
        path.unlink(missing_ok=True)


def _worker(plugin: str) -> int:
    """Return the process of a plugin's worker, by the number that it has here."""
    found: list[int] = [child.pid for child in active_children() if child.name.endswith(f"-{plugin}")]
    return found[0]


def _argument() -> str:
    """Return the longest of this process's own arguments: it is in no other's."""
    with open("/proc/self/cmdline", encoding="utf-8", errors="replace") as file:
        return max(file.read().split("\0")[1:], key=len, default="") or "no argument"


def _control_groups() -> list[str]:
    """Return where a process is moved into the control groups of this one."""
    found: list[str] = []
    with suppress(OSError), open("/proc/self/cgroup", encoding="utf-8") as file:
        for line in file:
            _, kinds, path = line.rstrip("\n").split(":", 2)
            roots = [kinds] if kinds else ["unified", ""]
            found += [os.path.join("/sys/fs/cgroup", root, path.lstrip("/"), "cgroup.procs") for root in roots]
    return _existing(found)


def _existing(paths: Iterable[str]) -> list[str]:
    return [path for path in paths if os.path.exists(path)]
