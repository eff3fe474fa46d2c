"""What every test gets: a clean place to install plugins into, a host that is closed, and a look for leaks afterwards."""

from __future__ import annotations

import functools
import itertools
import os
import pty
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, settings

import hostkit
from hostkit import testing

# Examples of each property; more of them by HOSTKIT_TEST_EXAMPLES=1000.
EXAMPLES = int(os.environ.get("HOSTKIT_TEST_EXAMPLES", "50"))
settings.register_profile(
    "hostkit",
    deadline=None,
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("hostkit")

# A shell starts background jobs with SIGINT ignored, and children inherit that: the tests of Ctrl-C need what a terminal gives.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the index of the user who runs it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def _no_leaks(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test that leaves descriptors, threads, workers or temporary files behind fails."""
    place = tmp_path_factory.mktemp("tmp")
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with testing.no_leaks():
        yield
    # multiprocess clears its own directory at the interpreter's exit.
    left = [found.name for found in place.iterdir() if not found.name.startswith("pymp-")]
    assert not left, f"left behind in the temporary directory: {left}"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty directory on sys.path; what is imported from it is forgotten after the test."""
    place = tmp_path / "site"
    place.mkdir()
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(place))
    yield place
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and file.startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def install(site: Path) -> Callable[..., str]:
    """Install a plugin from its source: ``install("name", source, **options of hostkit.testing.install)``."""

    def make(name: str, source: str, **options: Any) -> str:
        return testing.install(site, name, source, **options)

    return make


# How workers start where a test doesn't say: HOSTKIT_TEST_START=template runs the suite over forked ones.
START = os.environ.get("HOSTKIT_TEST_START", "fresh")
# To what they are confined there. Most tests have plugins that leave traces where the test looks, die in every way and start others,
# which is about crash isolation; a module about what a plugin sees of its user has ``SANDBOX = "standard"``.
SANDBOX = os.environ.get("HOSTKIT_TEST_SANDBOX", "off")


@pytest.fixture
def worker_defaults(request: pytest.FixtureRequest) -> dict[str, str]:
    """How workers start, and what they are confined to, where a test doesn't say; nothing where that is as for a user."""
    sandbox = getattr(request.module, "SANDBOX", SANDBOX)
    return {**({} if START == "fresh" else {"start": START}), **({} if sandbox == "standard" else {"sandbox": sandbox})}


@pytest.fixture(autouse=True)
def _start(monkeypatch: pytest.MonkeyPatch, worker_defaults: dict[str, str]) -> None:
    """Let programs that tests run start their workers the same way."""
    for key, value in worker_defaults.items():
        monkeypatch.setenv(f"HOSTKIT_DEFAULTS__{key.upper()}", value)


def _over(defaults: dict[str, str], config: Any) -> Any:
    """Return a host's configuration with those in it."""
    if not defaults or not isinstance(config, dict):
        return config  # without one, the environment has them
    return {**config, "defaults": {**defaults, **config.get("defaults", {})}}


@pytest.fixture
def new_host(worker_defaults: dict[str, str]) -> Iterator[Callable[..., hostkit.Host]]:
    """Make hosts that are closed after the test."""
    made: list[hostkit.Host] = []

    def make(*arguments: Any, **options: Any) -> hostkit.Host:
        host = hostkit.Host(*arguments, **{**options, "config": _over(worker_defaults, options.get("config"))})
        made.append(host)
        return host

    yield make
    for host in made:
        host.close(2.0)


@pytest.fixture
def host(new_host: Callable[..., hostkit.Host], site: Path) -> hostkit.Host:
    """A host of the group hostkit.plugins, without configuration."""
    return new_host()


@pytest.fixture(params=testing.isolations())
def isolation(request: pytest.FixtureRequest) -> str:
    """Every place where a plugin can run."""
    word: str = request.param
    return word


@pytest.fixture
def log() -> Iterator[list[dict[str, Any]]]:
    """Hostkit's log records of this test, as dictionaries with text, level, plugin and request_id."""
    with testing.hear() as records:
        yield records


@pytest.fixture
def cli_place(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory for the command line, which finds what is installed in ``site`` and no configuration."""
    place = tmp_path / "cwd"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.delenv("HOSTKIT_CONFIG", raising=False)
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    return place


@pytest.fixture
def install_demo(install: Callable[..., str]) -> Callable[..., str]:
    """Install a plugin for the application ``demo``, which has no others."""
    return functools.partial(install, group="demo.plugins")


@pytest.fixture
def cli(cli_place: Path) -> Callable[..., Result]:
    """Run ``hostkit --app demo ...`` in this process, without its signals: ``cli("list", "--json").stdout``."""
    from hostkit.cli._group import hostkit as group

    def run(*arguments: str, **options: Any) -> Result:
        return CliRunner().invoke(group, ["--app", "demo", *arguments], **options)

    return run


@pytest.fixture
def cli_process(cli_place: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start ``hostkit --app demo ...`` as a process of its own, as a user does; with text on pipes unless it is told otherwise."""
    started: list[subprocess.Popen[str]] = []
    command = [sys.executable, "-m", "hostkit", "--app", "demo"]

    def start(*arguments: str | bytes, **options: Any) -> subprocess.Popen[str]:
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process = subprocess.Popen([*command, *arguments], **{**streams, "text": True, **options})
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def cli_terminal(cli_place: Path) -> Callable[..., str]:
    """Run ``hostkit --app demo ...`` with a terminal of 200 columns as stdout, and return what it shows."""

    def run(*arguments: str, status: int = 0) -> str:
        ours, theirs = pty.openpty()
        environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
        with subprocess.Popen(
            [sys.executable, "-m", "hostkit", "--app", "demo", *arguments], stdout=theirs, stderr=theirs, env=environment
        ) as process:
            os.close(theirs)
            shown = b""
            with suppress(OSError):  # how a terminal says that nobody is left on the other side
                while data := os.read(ours, 65536):
                    shown += data
            os.close(ours)
        assert process.returncode == status, shown
        return shown.decode().replace("\r\n", "\n")

    return run


@pytest.fixture
def script(install: Callable[..., str], site: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a program that has the plugin "bad" loaded as ``host``: ``script(lines, ...)``. It is killed after the test. In it
    ``begin(op, ...)`` submits a call and returns once the plugin has begun with it."""
    install("bad", (Path(__file__).parent / "bad_plugin.py").read_text())
    started = []
    head = """
        import multiprocess, os, signal, sys, threading, time
        import hostkit
        def told(*words):
            print(*words, flush=True)
        def pids():
            return sorted(child.pid for child in multiprocess.active_children())
        def begin(op, *, plugin="bad", other=None, **arguments):
            begun = f"{sys.argv[0]}.{time.monotonic_ns()}"
            call = (other or host).submit(plugin, {"op": op, "begun": begun, **arguments})
            while not os.path.exists(begun):
                time.sleep(0.005)
            return call
    """

    def start(lines, *, python=(), load="host = hostkit.Host()\nhost.load('bad', isolation='process')\n", stdin=None):
        file = tmp_path / f"script{len(started)}.py"
        file.write_text(textwrap.dedent(head) + load + textwrap.dedent(lines))
        paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
        process = subprocess.Popen(
            [sys.executable, *python, str(file)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=stdin or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its forks, too: they have the other ends of the pipes
        process.communicate()


@pytest.fixture
def until() -> Callable[..., Any]:
    """Wait for something that no event tells of, and return it: ``until(lambda: ...)``."""
    return _until


def _until(what: Callable[[], Any], seconds: float = 10.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)
    return found


@pytest.fixture
def gone() -> Callable[[int], bool]:
    """Whether a process, of whomever, has ended: ``gone(pid)``."""
    return _gone


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


@pytest.fixture
def assert_gone() -> Callable[..., None]:
    """Fail unless these processes end soon: ``assert_gone(pids)``."""

    def check(pids: Iterable[int], within: float = 1.0) -> None:
        left = list(pids)
        end = time.monotonic() + within
        while left := [pid for pid in left if not _gone(pid)]:
            assert time.monotonic() < end, f"still there: {left}"
            time.sleep(0.005)

    return check


class Faulty:
    """A host with a plugin that misbehaves on demand (``bad_plugin.py``), and a neighbour that must not notice."""

    def __init__(self, host: hostkit.Host, isolation: str, log: list[dict[str, Any]], place: Path) -> None:
        self.host = host
        self.isolation = isolation
        self._place = place
        self._log = log
        self._numbers = itertools.count(1)

    def call(self, op: str, *, timeout: float | None = None, **arguments: Any) -> Any:
        return self.host.execute("bad", {"op": op, **arguments}, timeout=timeout)

    def begin(self, op: str, *, request_id: str | None = None, **arguments: Any) -> Future[Any]:
        """Submit a call and return when the plugin has begun with it."""
        begun = self._place / f"begun-{next(self._numbers)}"
        call = self.host.submit("bad", {"op": op, "begun": str(begun), **arguments}, request_id=request_id)
        _until(lambda: begun.exists() or call.done())
        assert begun.exists(), call.exception()
        return call

    @property
    def pid(self) -> int:
        """The process of the plugin's only worker, or this one."""
        pid: int = self.call("pid")
        return pid

    def fails(
        self, error: type[hostkit.CallError], op: str, *, timeout: float | None = None, stays: bool | None = None, **arguments: Any
    ) -> Any:
        """Call it and check everything that holds for every fault: one typed error, told once, nobody else disturbed, and the next
        call answered. ``stays`` says whether the worker that had the fault must still be there, or must not."""
        before = self.pid if stays is not None else 0
        request = {"op": op, **arguments}
        told, following = testing.survives(
            self.host,
            "bad",
            request,
            next_request={"op": "fine"},
            timeout=timeout,
            neighbour=self.neighbour_answers,
            log=self._log,
        )
        assert told.error is not None, told.answer
        assert type(told.error) is error, repr(told.error)
        assert following.answer == "fine"
        if stays is not None:
            assert (self.pid == before) is stays
        return told.error

    def neighbour_answers(self) -> None:
        """Another plugin answers within a second, whatever this one does."""
        assert self.host.execute("neighbour", "hello", timeout=1.0) == "hello"


@pytest.fixture
def make_faulty(
    install: Callable[..., str], new_host: Callable[..., hostkit.Host], log: list[dict[str, Any]], tmp_path: Path
) -> Callable[..., Faulty]:
    """Install and load the plugin "bad" and its neighbour, with the operator's settings of the bad one."""

    def make(isolation: str, **settings: Any) -> Faulty:
        install("bad", (Path(__file__).parent / "bad_plugin.py").read_text())
        install("neighbour", "class P:\n    def execute(self, ctx, request):\n        return request\n")
        host = new_host(config={"plugins": {"bad": settings}})
        host.load("neighbour", isolation=isolation)
        host.load("bad", isolation=isolation)
        return Faulty(host, isolation, log, tmp_path)

    return make


@pytest.fixture
def faulty(make_faulty: Callable[..., Faulty], isolation: str) -> Callable[..., Faulty]:
    """Make a faulty plugin in every place where it can run: ``faulty(concurrency=2)``."""
    return functools.partial(make_faulty, isolation)


@pytest.fixture
def faulty_worker(make_faulty: Callable[..., Faulty]) -> Callable[..., Faulty]:
    """Make a faulty plugin in a worker, for what only a process of its own survives: ``faulty_worker(workers=2)``."""
    return functools.partial(make_faulty, "process")
