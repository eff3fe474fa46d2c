"""A Chromium to test with: the one that is on the PATH, else Debian's, which root installs here. ``python chromium.py COMMAND ...`` runs
the command if there is one, and otherwise says why not and ends well: a machine without a browser fails nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


def found() -> str | None:
    """Return the path of a Chromium."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


def installed() -> str:
    """Install Debian's, and return '' or why that can't be done."""
    if shutil.which("apt-get") is None:
        return "this is no Debian, which would have one to install"
    if os.geteuid() != 0:
        return "only root could install Debian's"
    for command in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
        # Another installation may be under way: wait for its lock.
        done = subprocess.run(
            ["apt-get", "--quiet=2", "--option=DPkg::Lock::Timeout=300", *command],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdout=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode:
            return f"apt-get {command[0]} ended with {done.returncode}"
    return ""


def main(command: list[str]) -> int:
    """Run a command where there is a Chromium."""
    why = "" if found() else installed()
    path = found()
    if path is None:
        print(
            f"SKIPPED: the tests in a browser need chromium on the PATH, and there is none: {why or 'it was installed and is not there'}"
        )
        return 0
    return subprocess.run(command, env={**os.environ, "HOSTKIT_TEST_CHROMIUM": path}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
