"""What the kernel lets a confined worker do: acts, tried in a process that confined itself as a worker does."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hostkit
from hostkit._worker import _sandbox, _sandbox_landlock
from hostkit._worker._sandbox_calls import Kernel

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


@pytest.fixture
def said(tmp_path: Path) -> dict[str, Any]:
    """What a worker without any grant is told, but for the lifeline."""
    temporary = tmp_path / "private"
    temporary.mkdir(mode=0o700)
    libraries = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ssl", sys.prefix, sys.base_prefix]
    return {
        "level": "standard",
        "read": [*libraries, str(PACKAGE), "/does/not/exist"],
        "list": [],
        "write": [],
        "execute": [],
        "temporary": str(temporary),
        "network": False,
        "subprocess": False,
        "tmpfs_mb": 16,
        "threads": 64,
    }


@pytest.fixture
def confined(said: dict[str, Any]) -> Confined:
    """Run acts in a confined process and return what each saw: ``confined(source, **grants)``."""

    def run(source: str, *, python: str = sys.executable, ended: int = 0, **grants: Any) -> dict[str, Any]:
        asked = {**said, **grants}
        lifeline, held = os.pipe()
        script = _script({**asked, "lifeline": lifeline}, source)
        command = [python, "-I", "-S", "-c", script]
        done = subprocess.run(
            command,
            pass_fds=[lifeline],
            env=_environment(asked),
            text=True,
            capture_output=True,
            timeout=30,
            start_new_session=True,
        )
        os.close(lifeline)
        os.close(held)
        assert done.returncode == ended, done.stderr
        return dict(json.loads(done.stdout)) if done.stdout else {"stderr": done.stderr}

    return run


def _script(said: dict[str, Any], source: str) -> str:
    main = str(PACKAGE / "_worker" / "__main__.py")
    path = [sysconfig.get_path("platlib")]
    return PRELUDE.format(main=main, said=json.dumps(said), path=path) + textwrap.dedent(source) + TELL


def _environment(said: dict[str, Any]) -> dict[str, str]:
    return {"TMPDIR": said["temporary"], "HOME": said["temporary"], "OPENBLAS_NUM_THREADS": "2"}


DENIED = "PermissionError"


def test_ordinary_things_go_on(confined: Confined) -> None:
    """Threads, temporary files, an event loop, TLS, a database, an array."""
    found = confined("""
        import asyncio, concurrent.futures, socket, sqlite3, ssl, tempfile, threading

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
        def act_numpy():
            import numpy
            return float(numpy.ones((200, 200)).dot(numpy.ones((200, 200)))[0, 0])
        def act_nothing():
            with open("/dev/null", "r+b") as file: return file.write(b"x")
        def act_random():
            with open("/dev/urandom", "rb") as file: return len(file.read(3))
        def act_abort_itself():
            import signal
            seen = []
            signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
            os.kill(os.getpid(), signal.SIGUSR1); signal.raise_signal(signal.SIGUSR1)
            return len(seen)
        def act_cpu_limit():
            import resource
            soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
            resource.setrlimit(resource.RLIMIT_CPU, (1000, hard))
            return resource.getrlimit(resource.RLIMIT_CPU)[0]
        def act_threads_seen():
            return threading.active_count()
        def act_blocking():
            a, b = os.pipe()
            os.set_blocking(a, False); os.set_inheritable(a, True); os.dup2(a, 77)
            return os.get_blocking(77)
        def act_no_localhost_for_want_of_a_network():
            return socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)[0][4][1]
    """)
    assert found == {
        "threads": 3,
        "temporary_file": "here",
        "event_loop": 5,
        "streams": 1001,
        "tls": True,
        "database": 2,
        "database_file": 3,
        "numpy": 200.0,
        "nothing": 1,
        "random": 3,
        "abort_itself": 2,
        "cpu_limit": 1000,
        "threads_seen": 1,
        "blocking": False,
        "no_localhost_for_want_of_a_network": "gaierror",
    }


def test_the_lifeline_kills_a_confined_worker(said: dict[str, Any]) -> None:
    """Whatever the plugin does to descriptors."""
    lifeline, held = os.pipe()
    script = _script(
        {**said, "lifeline": lifeline},
        """
        import fcntl, signal, _thread
        assert os.getpid() == os.getpgrp()
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        for fd in range(3, 100):
            for act in (lambda: fcntl.fcntl(fd, fcntl.F_SETFL, 0), lambda: os.dup2(0, fd), lambda: os.close(fd)):
                try: act()
                except OSError: pass
        for task in range(os.getpid(), os.getpid() + 5):
            for flags in (os.O_WRONLY, os.O_RDWR):
                try: os.open(f"/proc/self/task/{task}/fd/%d" % said["lifeline"], flags)
                except OSError: pass
        os.closerange(3, 1000)
        print("armed", flush=True)
        while True: signal.sigwait([signal.SIGUSR2])
    """,
    )
    worker = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", script], pass_fds=[lifeline], stdout=subprocess.PIPE, start_new_session=True
    )
    os.close(lifeline)
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"armed\n"
    os.close(held)
    gone, _, _ = select.select([worker.stdout], [], [], 10)
    assert gone
    worker.stdout.close()
    assert worker.wait(10) == -signal.SIGKILL
