"""What plugins use every day goes on in the sandbox: each library does a little real work in a worker at every level."""

from __future__ import annotations

import textwrap
import tomllib

import pytest

import hostkit

# Where a test doesn't say: as for a user.
SANDBOX = "standard"
RUNNER = """
class P:
    def execute(self, ctx, request):
        names = {}
        exec(request["code"], names)
        return names["answer"]
"""
# Code that must leave `answer`, and what that must be.
WORKS = {
    "numpy": (
        """
        import numpy as np
        square = np.arange(250_000.0).reshape(500, 500) % 7 + np.eye(500) * 1000
        answer = [float((square @ np.linalg.inv(square)).trace().round(3)), int(np.linalg.matrix_rank(square))]
        """,
        [500.0, 500],
    ),
    "numpy random and files": (
        """
        import io, numpy as np
        file = io.BytesIO()
        np.save(file, np.random.default_rng(1).integers(0, 9, 5))
        answer = len(np.load(io.BytesIO(file.getvalue())))
        """,
        5,
    ),
    "pydantic": (
        """
        from pydantic import BaseModel
        class Point(BaseModel):
            x: int
            y: int = 2
        answer = Point.model_validate_json('{"x": "1"}').model_dump()
        """,
        {"x": 1, "y": 2},
    ),
    "pillow": (
        """
        import io
        from PIL import Image
        file = io.BytesIO()
        Image.new("RGB", (40, 30), "red").resize((4, 3)).save(file, "png")
        answer = list(Image.open(io.BytesIO(file.getvalue())).size)
        """,
        [4, 3],
    ),
    "sqlite in memory": (
        """
        import sqlite3
        with sqlite3.connect(":memory:") as db:
            db.execute("create table t (x)")
            db.executemany("insert into t values (?)", [(1,), (2,)])
            answer = db.execute("select sum(x) from t").fetchone()[0]
        db.close()
        """,
        3,
    ),
    "sqlite in a temporary file": (
        """
        import sqlite3, tempfile, os
        with tempfile.TemporaryDirectory() as place:
            for mode in ("delete", "wal"):
                db = sqlite3.connect(os.path.join(place, mode))
                db.execute(f"pragma journal_mode={mode}")
                with db:
                    db.execute("create table t (x)")
                    db.execute("insert into t values (5)")
                answer = db.execute("select x from t").fetchone()[0]
                db.close()
        """,
        5,
    ),
    "ssl": (
        """
        import ssl
        context = ssl.create_default_context()
        answer = context.verify_mode == ssl.CERT_REQUIRED and len(context.get_ciphers()) > 0
        """,
        True,
    ),
    "asyncio": (
        """
        import asyncio
        async def one(n):
            await asyncio.sleep(0.001)
            return await asyncio.to_thread(lambda: n * 2)
        async def all_of_them():
            return await asyncio.wait_for(asyncio.gather(one(1), one(2)), 5)
        answer = asyncio.run(all_of_them())
        """,
        [2, 4],
    ),
    "threads": (
        """
        import threading
        answer = []
        threads = [threading.Thread(target=answer.append, args=(1,)) for _ in range(20)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        """,
        [1] * 20,
    ),
    "a pool of threads": (
        """
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(8) as pool:
            answer = list(pool.map(lambda n: n * n, range(5)))
        """,
        [0, 1, 4, 9, 16],
    ),
    "temporary files": (
        """
        import os, tempfile
        with tempfile.NamedTemporaryFile("w+") as one, tempfile.TemporaryFile() as two, tempfile.SpooledTemporaryFile(4) as three:
            one.write("x"); two.write(b"y"); three.write(b"more than four")
            named = one.name
        place = tempfile.mkdtemp()
        os.makedirs(os.path.join(place, "a", "b"))
        open(os.path.join(place, "a", "b", "c"), "w").close()
        import shutil; shutil.rmtree(place)
        answer = [os.path.exists(named), os.path.exists(place)]
        """,
        [False, False],
    ),
    "copying files": (
        """
        import pathlib, shutil, tempfile
        with tempfile.TemporaryDirectory() as place:
            one, two = pathlib.Path(place, "one"), pathlib.Path(place, "two")
            one.write_text("text")
            shutil.copyfile(one, two)
            two.rename(two.with_suffix(".txt"))
            answer = sorted(path.name for path in pathlib.Path(place).iterdir()) + [two.with_suffix(".txt").read_text()]
        """,
        ["one", "two.txt", "text"],
    ),
    "a home directory": (
        """
        import pathlib
        cache = pathlib.Path.home() / ".cache" / "plugin"
        cache.mkdir(parents=True, exist_ok=True)
        (cache / "file").write_text("kept")
        answer = (cache / "file").read_text()
        """,
        "kept",
    ),
    "logging": (
        """
        import logging
        logging.getLogger("plugin").warning("said")
        print("printed")
        answer = logging.getLogger("plugin").isEnabledFor(logging.WARNING)
        """,
        True,
    ),
    "time zones": (
        """
        import datetime, zoneinfo
        noon = datetime.datetime(2024, 7, 1, 12, tzinfo=zoneinfo.ZoneInfo("Europe/Vienna"))
        answer = [noon.astimezone(datetime.timezone.utc).hour, datetime.datetime.now().astimezone().tzinfo is not None]
        """,
        [10, True],
    ),
    "decimal and fractions": (
        "import decimal, fractions; answer = str(decimal.Decimal(1) / 7 + int(fractions.Fraction(4, 2)))",
        "2.142857142857142857142857143",
    ),
    "compression": (
        """
        import bz2, gzip, lzma, zlib
        answer = [kind.decompress(kind.compress(b"text" * 99)) == b"text" * 99 for kind in (bz2, gzip, lzma, zlib)]
        """,
        [True] * 4,
    ),
    "json and hashes": (
        """
        import hashlib, hmac, json, secrets, uuid
        answer = [json.loads(json.dumps({"a": [1.5]})), hashlib.sha256(b"").hexdigest()[:8], len(secrets.token_hex(4)), uuid.uuid4().version]
        """,
        [{"a": [1.5]}, "e3b0c442", 8, 4],
    ),
    "libraries by ctypes": (
        """
        import ctypes
        answer = ctypes.CDLL(None).abs(-5)
        """,
        5,
    ),
    "its own distribution": (
        """
        import importlib.metadata, importlib.resources
        answer = [importlib.metadata.version("libraries"), (importlib.resources.files("libraries") / "data.txt").read_text()]
        """,
        ["1.0", "data"],
    ),
    "names of users": (
        """
        import getpass, os, platform, locale
        answer = [isinstance(platform.platform(), str), isinstance(os.cpu_count(), int), isinstance(locale.getlocale(), tuple)]
        """,
        [True, True, True],
    ),
    "big numbers and expressions": (
        "import re, statistics; answer = [re.sub('a+', 'b', 'caat'), statistics.mean([1, 3]), len(str(3**999))]",
        ["cbt", 2, 477],
    ),
    "memory maps": (
        """
        import mmap, tempfile
        with tempfile.TemporaryFile() as file:
            file.write(bytes(8192)); file.flush()
            with mmap.mmap(file.fileno(), 8192) as mapped:
                mapped[:4] = b"seen"
                answer = mapped[:4].decode()
        """,
        "seen",
    ),
    "signals to oneself": (
        """
        import os, signal
        heard = []
        try:
            signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
        except ValueError:  # not on the main thread
            heard.append(1)
        else:
            os.kill(os.getpid(), signal.SIGUSR1)
        answer = heard
        """,
        [1],
    ),
}
# What is refused where nothing was granted: as an error that a library understands.
REFUSED = {
    "subprocess": "import subprocess; subprocess.run(['true'], timeout=5)",
    "fork": "import os; os.fork()",
    "a process pool": "import multiprocessing; multiprocessing.get_context('spawn').Process(target=print).start()",
    "shared memory": "from multiprocessing import shared_memory; shared_memory.SharedMemory(create=True, size=8)",
    "a connection": "import socket; socket.create_connection(('127.0.0.1', 9), timeout=1)",
    "an http request": "import urllib.request as r; r.urlopen('http://127.0.0.1:9/', timeout=1)",
    "a server": "import socketserver; socketserver.TCPServer(('127.0.0.1', 0), None)",
    "a file elsewhere": "open('/etc/hostname.of.nobody', 'w')",
    "the user's files": "import os; os.listdir('/root' if os.getuid() == 0 else '/home')",
    "a lower priority for others": "import os; os.setpriority(os.PRIO_PROCESS, os.getppid(), 0)",
}


@pytest.fixture(params=["standard", "strict"])
def level(request):
    """Every level that confines."""
    return request.param


@pytest.fixture
def start(level, install, new_host):
    """Start a plugin that runs code, with what is asked for and granted: ``start(permissions)`` returns how to run it."""

    def make(permissions=None):
        asked = f"[permissions]\n{permissions}" if permissions else None
        install("libraries", RUNNER, files={"data.txt": "data"}, manifest=asked)
        granted = tomllib.loads(permissions or "")
        host = new_host(config={"plugins": {"libraries": {"sandbox": level, "breaker": False, "permissions": granted}}})
        try:
            host.load("libraries", isolation="process")
        except hostkit.SandboxUnavailable as error:
            pytest.skip(f"this machine doesn't reach the level: {error}")
        return lambda code: host.execute("libraries", {"code": textwrap.dedent(code)}, timeout=20)

    return make


def test_libraries_work(start):
    run = start()
    failed = {}
    for name, (code, answer) in WORKS.items():
        try:
            if (found := run(code)) != answer:
                failed[name] = found
        except hostkit.CallError as error:
            failed[name] = error
    assert not failed


def test_what_was_not_granted_is_a_permission_error(start, level):
    run = start()
    # What lies outside of a root of its own isn't there at all.
    refusals = {"PermissionError"} if level == "standard" else {"PermissionError", "FileNotFoundError"}
    failed = {}
    for name, code in REFUSED.items():
        with pytest.raises(hostkit.PluginFailed) as caught:
            run(f"{code}\nanswer = None")
        words = ("Permission denied", "Read-only file system")
        if caught.value.remote_type not in refusals and not any(word in str(caught.value) for word in words):
            failed[name] = caught.value
    assert not failed
    assert run("answer = 'fine'") == "fine"


def test_sqlite_works_in_a_granted_path_and_nowhere_beside_it(start, tmp_path):
    granted = tmp_path / "granted"
    granted.mkdir()
    granted.chmod(0o777)  # at strict, as root, a worker is somebody else
    run = start(f'write = ["{granted}"]')
    code = """
        import sqlite3
        answer = []
        for mode in ("delete", "wal"):
            db = sqlite3.connect({place!r} + mode)
            db.execute("pragma journal_mode=" + mode)
            with db:
                db.execute("create table t (x)")
                db.execute("insert into t values (5)")
            answer += db.execute("select x from t").fetchone()
            db.close()
    """
    assert run(code.format(place=f"{granted}/db-")) == [5, 5]
    assert {"db-delete", "db-wal"} <= {path.name for path in granted.iterdir()}
    with pytest.raises(hostkit.PluginFailed, match="unable to open database file"):
        run(code.format(place=f"{tmp_path}/db-"))
    assert [path.name for path in tmp_path.glob("db-*")] == []


def test_programs_run_where_they_are_granted(start):
    run = start("subprocess = true")
    code = """
        import subprocess, sys
        answer = [
            subprocess.run(["echo", "ran"], capture_output=True, text=True, timeout=10).stdout,
            subprocess.run([sys.executable, "-c", "print(6 * 7)"], capture_output=True, text=True, timeout=10).stdout,
            subprocess.run(["cat", "/etc/shadow"], capture_output=True, timeout=10).returncode,
        ]
    """
    assert run(code) == ["ran\n", "42\n", 1]
