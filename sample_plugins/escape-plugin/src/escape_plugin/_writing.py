"""Changing what belongs to others, or what the own code is made of."""

from __future__ import annotations

import os
import sysconfig

from . import _own
from ._calls import call
from ._table import Held, Target, act

_PACKAGE = os.path.dirname(os.path.abspath(__file__))


@act()
def overwrite_file(at: Target) -> str:
    """Overwrite a file of the host."""
    return _appended(at["canary"])


@act()
def truncate_file(at: Target) -> str:
    """Truncate a file of the host by its path."""
    os.truncate(at["canary"], 1)
    return "truncated it"


@act()
def delete_file(at: Target) -> str:
    """Delete a file of the host."""
    os.unlink(at["canary"])
    return "deleted it"


@act()
def create_file(at: Target) -> str:
    """Create a file in a directory of the host."""
    with open(os.path.join(at["directory"], "created"), "xb"):
        return "created it"


@act()
def create_directory(at: Target) -> str:
    """Create a directory in one of the host."""
    os.mkdir(os.path.join(at["directory"], "made"))
    return "made it"


@act()
def create_fifo(at: Target) -> str:
    """Create a named pipe in a directory of the host."""
    os.mkfifo(os.path.join(at["directory"], "fifo"))
    return "made it"


@act(needs="CAP_MKNOD")
def create_device(at: Target) -> str:
    """Create a device of one's own, and with it read whatever disk it stands for."""
    device = _own.path("device")
    os.mknod(device, 0o600 | 0o020000, os.makedev(1, 3))
    os.unlink(device)
    return "made a character device"


@act()
def create_symlink(at: Target) -> str:
    """Create a symbolic link in a directory of the host."""
    os.symlink("/", os.path.join(at["directory"], "symlink"))
    return "made it"


@act()
def rename_out(at: Target) -> str:
    """Rename an own file over one of the host."""
    mine = _own.path("mine")
    with open(mine, "w", encoding="utf-8") as file:
        file.write("mine")
    try:
        os.rename(mine, at["canary"])
    except OSError:
        os.unlink(mine)
        raise
    return "renamed it"


@act()
def link_out(at: Target) -> str:
    """Link an own file into a directory of the host."""
    mine = _own.path("mine")
    with open(mine, "w", encoding="utf-8") as file:
        file.write("mine")
    try:
        os.link(mine, os.path.join(at["directory"], "linked"))
    finally:
        os.unlink(mine)
    return "linked it"


@act()
def write_by_symlink(at: Target) -> str:
    """Write a file of the host by a symbolic link in the own temporary directory."""
    link = _own.path("link")
    os.symlink(at["canary"], link)
    try:
        return _appended(link)
    finally:
        os.unlink(link)


@act(needs="the right to install")
def write_site_packages(at: Target) -> str:
    """Put a module where every program of this Python imports from."""
    return _made_without_name(sysconfig.get_paths()["purelib"])


@act()
def write_other_plugin(at: Target) -> str:
    """Change the module of another plugin."""
    return _appended(at["other_module"])


@act()
def write_own_package(at: Target) -> str:
    """Change the own package, for the time after the next start."""
    return _made_and_removed(os.path.join(_PACKAGE, f"escaped_{os.getpid()}.py"))


@act()
def write_own_bytecode(at: Target) -> str:
    """Put bytecode into the own package's __pycache__, which is run in place of what was verified."""
    cache = os.path.join(_PACKAGE, "__pycache__")
    os.makedirs(cache, exist_ok=True)
    return _made_and_removed(os.path.join(cache, f"escaped_{os.getpid()}.pyc"))


@act(needs="the right to install")
def write_hostkit(at: Target) -> str:
    """Change hostkit's own code, which runs unconfined in the host."""
    return _made_without_name(at["hostkit"])


@act()
def write_configuration(at: Target) -> str:
    """Change the host's configuration file."""
    return _appended(at["configuration"])


@act()
def write_lock_file(at: Target) -> str:
    """Change the lock file."""
    return _appended(os.path.join(at["project"], "hostkit.lock"))


@act()
def write_audit_log(at: Target) -> str:
    """Write into the audit log."""
    return _appended(os.path.join(at["project"], "audit.jsonl"))


@act()
def write_other_temporary(at: Target) -> str:
    """Change what another plugin's worker has in its temporary directory."""
    return _appended(at["other_temporary"])


@act()
def write_shared_memory(at: Target) -> str:
    """Leave a file in /dev/shm."""
    return _made_and_removed(f"/dev/shm/escaped-{os.getpid()}")


@act()
def chmod(at: Target) -> str:
    """Change the mode of a file of the host."""
    os.chmod(at["canary"], 0o666)
    return "changed it"


@act()
def fchmod_of_what_may_be_read(at: Target) -> str:
    """Change the mode of the own package by a descriptor that was opened for reading."""
    fd = os.open(os.path.join(_PACKAGE, "__init__.py"), os.O_RDONLY)
    try:
        mode = os.fstat(fd).st_mode & 0o7777
        os.fchmod(fd, mode ^ 0o002)
        os.fchmod(fd, mode)
    finally:
        os.close(fd)
    return "changed it, and back"


@act()
def chmod_by_the_newest_call(at: Target) -> str:
    """Change the mode of a file of the host by fchmodat2, which older filters don't know."""
    call("fchmodat2", -100, at["canary"].encode(), 0o666, 0)
    return "changed it"


@act(needs="CAP_CHOWN")
def chown(at: Target) -> str:
    """Give a file of the host to somebody else."""
    os.chown(at["canary"], 54321, 54321)
    return "gave it away"


@act()
def set_times(at: Target) -> str:
    """Change the times of a file of the host."""
    os.utime(at["canary"], (1, 1))
    return "changed them"


@act()
def set_attribute(at: Target) -> str:
    """Set an extended attribute of a file of the host."""
    os.setxattr(at["canary"], "user.escaped", b"1")
    return "set it"


@act(needs="CAP_SYS_ADMIN")
def write_proc_sys(at: Target) -> str:
    """Change a setting of the kernel (/proc/sys)."""
    setting = "/proc/sys/kernel/domainname"
    with open(setting, "rb") as file:
        value = file.read()
    with open(setting, "wb", buffering=0) as file:
        file.write(value)
    return "wrote back what it was"


@act(needs="CAP_SYS_ADMIN", alone=True)
def leave_control_group(at: Target) -> str:
    """Move into a control group of one's choice, and out of the one that holds the limits."""
    for found in at["control_groups"]:
        if os.path.exists(found):
            with open(found, "wb", buffering=0) as file:
                file.write(b"0")
            return "moved, to where it was"
    raise Held("hidden: no control group is to be seen")


@act()
def fill_disk(at: Target) -> str:
    """Fill 320 MB of the own temporary directory."""
    path = _own.path("large")
    try:
        with open(path, "wb", buffering=0) as file:
            for block in range(20):
                os.posix_fallocate(file.fileno(), block << 24, 1 << 24)
    finally:
        if os.path.exists(path):
            os.unlink(path)
    return "filled 320 MB"


@act()
def many_files(at: Target) -> str:
    """Create thousands of files in the own temporary directory."""
    place, count = _own.path("many"), 0
    os.mkdir(place)
    try:
        for count in range(at["files"]):
            os.mknod(f"{place}/{count}")
    finally:
        for name in os.listdir(place):
            os.unlink(f"{place}/{name}")
        os.rmdir(place)
    return f"created {count + 1} files"


def _appended(path: str) -> str:
    with open(path, "ab", buffering=0) as file:
        file.write(b"escaped")
    return "wrote into it"


def _made_and_removed(path: str) -> str:
    with open(path, "xb"):
        pass
    os.unlink(path)
    return f"created {os.path.basename(path)}, and removed it"


def _made_without_name(place: str) -> str:
    """Make a file in a directory that others are using at the moment: one that only lacks its name."""
    os.close(os.open(place, os.O_TMPFILE | os.O_WRONLY, 0o600))
    return "made a file in there, without a name"
