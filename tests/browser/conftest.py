"""A real host under load in a process of its own, a real dashboard that looks at it, and a real browser that looks at that."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hostkit import testing

if TYPE_CHECKING:  # the other tests' collection comes by here, where there is no Playwright
    from playwright.sync_api import Browser, BrowserContext, Page

# Chromium's. Without the fourth it keeps asking hosts that a closed network refuses; without the first, root can't start it.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

# Texts of a plugin that would run, paint or reorder if they were taken for anything but text.
HOSTILE = "<img src=x onerror=window.pwned=1><script>window.pwned=1</script>"
PLUGINS = {
    "steady": """
        import os
        class P:
            def execute(self, ctx, request):
                return os.getpid()
    """,
    "flaky": f"""
        class P:
            def execute(self, ctx, request):
                ctx.logger.warning("about to fail: {HOSTILE} \\x1b[31m \\u202e " + "x" * 500)
                raise ValueError("{HOSTILE} \\x1b[31m \\u202eabc " + "y" * 500)
    """,
    "a-plugin-whose-name-is-longer-than-most-names-are-and-has-no-end-in-sight": """
        class P:
            def execute(self, ctx, request): ...
    """,
}
HOST = """
    import os, sys, time
    import hostkit
    with hostkit.Host("demo", admin=True, config={"defaults": {"sandbox": "off", "breaker": False}}) as host:
        host.load("steady", isolation="none")
        while True:
            for name in ("steady", "flaky"):
                try:
                    answer = host.execute(name, {})
                except hostkit.CallError:
                    continue
                with open(sys.argv[1] + ".new", "w") as file:
                    file.write(str(answer))
                os.replace(sys.argv[1] + ".new", sys.argv[1])
            time.sleep(0.01)
"""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "complaints(pattern): what the browser's console may say")


def until(what: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait for something that no page shows."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)
    return found


class World:
    """The processes, and where the browser finds them."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.answer = place / "answer"
        self._environment = {**os.environ, "XDG_RUNTIME_DIR": str(place), "XDG_CACHE_HOME": str(place / "cache")}
        self._environment["PYTHONPATH"] = os.pathsep.join([str(place / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._environment.pop("HOSTKIT_CONFIG", None)
        self.started: list[subprocess.Popen[str]] = []
        self.host = self.dashboard = None
        self.address = ""

    def begin_host(self) -> subprocess.Popen[str]:
        self.answer.unlink(missing_ok=True)
        self.host = self._start(str(self.place / "host.py"), str(self.answer))
        return self.host

    def begin_dashboard(self, *options: str) -> subprocess.Popen[str]:
        self.dashboard = self._start(
            "-m", "hostkit", "--app", "demo", "dashboard", *(options or ("--port", "0")), stdout=subprocess.PIPE
        )
        self.address = self.dashboard.stdout.readline().strip()
        assert self.address, "the dashboard has not begun"
        return self.dashboard

    def pid(self) -> int:
        """Return the process in which the plugin ``steady`` answered last."""
        with suppress(FileNotFoundError, ValueError):
            return int(self.answer.read_text())
        return 0

    def _start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=self.place, env=self._environment, text=True, start_new_session=True, **options
        )
        self.started.append(process)
        return process

    def close(self) -> None:
        for process in self.started:
            for number in (signal.SIGCONT, signal.SIGTERM):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
        for process in self.started:
            try:
                process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()


@pytest.fixture(scope="session")
def new_world(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Any]:
    """Make a host and a dashboard: ``with new_world() as world``."""

    @contextmanager
    def make() -> Iterator[World]:
        place = tmp_path_factory.mktemp("world")
        (place / "site").mkdir()
        (place / "host.py").write_text(textwrap.dedent(HOST))
        for name, source in PLUGINS.items():
            testing.install(place / "site", name, source, group="demo.plugins")
        world = World(place)
        try:
            world.begin_host()
            until(world.pid)
            world.begin_dashboard()
            yield world
        finally:
            world.close()

    return make


@pytest.fixture(scope="session")
def shared(new_world: Callable[[], Any]) -> Iterator[World]:
    """One for all tests that only look."""
    with new_world() as world:
        yield world


@pytest.fixture
def world(new_world: Callable[[], Any]) -> Iterator[World]:
    """One that a test may change and end."""
    with new_world() as world:
        yield world


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    from playwright.sync_api import expect, sync_playwright

    # Whoever waits longer than this on a loaded machine waits in vain.
    expect.set_options(timeout=20_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("HOSTKIT_TEST_CHROMIUM") or shutil.which("chromium"), args=ARGUMENTS
        )
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Callable[..., Page]]:
    """Open the dashboard of a world: ``opened(world, width=400, color_scheme="dark")``. A test whose pages complain fails, but for what
    matches its marker ``complaints``."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def open_(world: World, *, width: int = 1280, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("dialog", lambda dialog: complaints.append(f"dialog {dialog.message}"))
        page.goto(world.address)
        return page

    yield open_
    for context in contexts:
        context.close()
    marker = request.node.get_closest_marker("complaints")
    assert [text for text in complaints if marker is None or not re.search(marker.args[0], text)] == []
