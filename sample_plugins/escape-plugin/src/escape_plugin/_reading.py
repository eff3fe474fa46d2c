"""Reading what belongs to others: files of the user, of the host, of other plugins."""

from __future__ import annotations

import ctypes
import os
import stat

from . import _own
from ._calls import call
from ._table import Target, act


@act()
def read_ssh_key(at: Target) -> str:
    """Read the user's SSH key."""
    return _content(os.path.join(at["home"], ".ssh", "id_ed25519"))


@act()
def list_home(at: Target) -> str:
    """List the user's home directory."""
    return f"listed {os.listdir(at['home'])}"


@act(needs="CAP_DAC_READ_SEARCH")
def read_shadow(at: Target) -> str:
    """Read the system's password hashes."""
    with open("/etc/shadow", "rb") as file:
        return f"read {len(file.read())} bytes"


@act()
def read_dotenv(at: Target) -> str:
    """Read .env in the host's working directory."""
    try:
        return _content(".env")
    except OSError:
        return _content(os.path.join(at["project"], ".env"))


@act()
def read_configuration(at: Target) -> str:
    """Read the host's configuration file."""
    return _content(at["configuration"])


@act()
def read_lock_file(at: Target) -> str:
    """Read the lock file."""
    return _content(os.path.join(at["project"], "hostkit.lock"))


@act()
def read_audit_log(at: Target) -> str:
    """Read the audit log."""
    return _content(os.path.join(at["project"], "audit.jsonl"))


@act()
def read_other_plugin(at: Target) -> str:
    """Read the module of another installed plugin."""
    return _content(at["other_module"])


@act()
def read_other_metadata(at: Target) -> str:
    """Read the metadata of another installed plugin's distribution."""
    return _content(os.path.join(at["other_metadata"], "METADATA"))


@act()
def read_host_module(at: Target) -> str:
    """Read a module of the host's own program, which lies on its import path."""
    return _content(at["host_module"])


@act()
def import_other_plugin(at: Target) -> str:
    """Import another installed plugin and read its secrets."""
    try:
        return f"imported {__import__(at['other_package']).SECRET!r}"
    except ImportError as error:
        raise PermissionError(13, str(error)) from error


@act()
def read_other_temporary(at: Target) -> str:
    """Read what another plugin's worker has in its temporary directory."""
    return _content(at["other_temporary"])


@act()
def read_by_symlink(at: Target) -> str:
    """Read a file of the host by a symbolic link in the own temporary directory."""
    link = _own.path("link")
    os.symlink(at["readable"], link)
    try:
        return _content(link)
    finally:
        os.unlink(link)


@act()
def read_by_hardlink(at: Target) -> str:
    """Read a file of the host by a hard link in the own temporary directory."""
    link = _own.path("link")
    os.link(at["readable"], link)
    try:
        return _content(link)
    finally:
        os.unlink(link)


@act()
def read_by_climbing(at: Target) -> str:
    """Read a file of the host by way of the own temporary directory's parents."""
    start = os.path.dirname(_own.path("x"))
    fd = os.open(start, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with open(os.open(os.path.relpath(at["readable"], start), os.O_RDONLY, dir_fd=fd), "rb") as file:
            return _told(file.read(256))
    finally:
        os.close(fd)


@act()
def read_by_path_descriptor(at: Target) -> str:
    """Open a file of the host for its path alone, and read it by reopening that."""
    fd = os.open(at["readable"], os.O_PATH)
    try:
        return _content(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


@act(needs="CAP_DAC_READ_SEARCH")
def read_by_handle(at: Target) -> str:
    """Read a file of the host by its handle (open_by_handle_at)."""
    handle = (ctypes.c_uint32 * 34)(128)
    mount = ctypes.c_int()
    call("name_to_handle_at", -100, at["readable"].encode(), handle, ctypes.byref(mount), 0)
    near = os.open(os.path.dirname(_own.path("x")), os.O_RDONLY | os.O_DIRECTORY)
    try:
        with open(call("open_by_handle_at", near, handle, os.O_RDONLY), "rb") as file:
            return _told(file.read(256))
    finally:
        os.close(near)


@act(needs="a disk that control groups leave alone")
def read_disk(at: Target) -> str:
    """Read a disk past its file system."""
    for name in ("sda", "vda", "nvme0n1", "xvda"):
        if os.path.exists(f"/dev/{name}"):
            with open(f"/dev/{name}", "rb", buffering=0) as disk:
                return f"read {len(disk.read(512))} bytes of {name}"
    return _of_device(stat.S_IFBLK, os.stat("/").st_dev)


@act(needs="CAP_SYS_RAWIO")
def read_physical_memory(at: Target) -> str:
    """Read the machine's memory (/dev/mem)."""
    if not os.path.exists("/dev/mem"):
        return _of_device(stat.S_IFCHR, os.makedev(1, 1))
    with open("/dev/mem", "rb", buffering=0) as memory:
        return f"read {len(memory.read(1))} byte"


@act(needs="CAP_SYSLOG")
def read_kernel_log(at: Target) -> str:
    """Read the kernel's log (/dev/kmsg)."""
    fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    try:
        return f"read {len(os.read(fd, 8192))} bytes"
    finally:
        os.close(fd)


@act()
def stat_file(at: Target) -> str:
    """Ask for the size and the times of a file of the host."""
    return f"{os.stat(at['readable']).st_size} bytes"


@act()
def read_link(at: Target) -> str:
    """Read where a symbolic link of the host leads."""
    return f"it leads to {os.readlink(at['link'])}"


@act()
def watch_file(at: Target) -> str:
    """Be told whenever a file of the host is used (inotify)."""
    fd = call("inotify_init1", os.O_CLOEXEC)
    try:
        call("inotify_add_watch", fd, at["readable"].encode(), 0xFFF)
        return "it is watched"
    finally:
        os.close(fd)


@act()
def read_host_environment_variable(at: Target) -> str:
    """Find a secret of the host's environment in the own one."""
    found = {name: value for name, value in os.environ.items() if name == at["variable"]}
    if not found:
        raise FileNotFoundError(2, at["variable"])
    return f"found {found}"


def _of_device(kind: int, number: int) -> str:
    """Make a device where there is none, and read from it."""
    path = _own.path("device")
    os.mknod(path, kind | 0o600, number)
    try:
        with open(path, "rb", buffering=0) as device:
            return f"read {len(device.read(512))} bytes"
    finally:
        os.unlink(path)


def _content(path: str) -> str:
    with open(path, "rb") as file:
        return _told(file.read(256))


def _told(data: bytes) -> str:
    return f"read {data.decode('utf-8', 'backslashreplace')!r}"
