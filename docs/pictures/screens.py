"""top.svg and dashboard-*.png: what ``hostkit top`` and ``hostkit dashboard`` show of sample_plugins/ops-host under load."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

# The upstream of ops-host's plugin `flaky` is down for the last 10 of every 30 seconds, and its circuit is open for most of them.
PERIOD = 30
COLUMNS, ROWS = 136, 13
CHROMIUM = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def top(images: Path) -> None:
    """Make the picture that ``hostkit top`` makes of itself, in a terminal of its own."""
    with _application() as pid:
        _until_open(pid)
        asked = {
            "TEXTUAL_SCREENSHOT": str(PERIOD + 2),
            "TEXTUAL_SCREENSHOT_LOCATION": str(images),
            "TEXTUAL_SCREENSHOT_FILENAME": "top.svg",
        }
        _in_a_terminal(
            [sys.executable, "-m", "hostkit", "top", "--pid", str(pid)], {**os.environ, **asked, "TERM": "xterm-256color"}
        )
    file = images / "top.svg"
    text = file.read_text(encoding="utf-8")
    # A picture fetches nothing: the font is whatever the reader has.
    text = re.sub(r"@font-face\s*\{.*?\}", "", text, flags=re.DOTALL).replace("Fira Code", "DejaVu Sans Mono")
    file.write_text(text, encoding="utf-8")
    _tell(file)


def dashboard(images: Path) -> None:
    """Look at the dashboard by day and by night, at one plugin, and on a small screen, while a circuit is open."""
    with _application() as pid, _dashboard(pid) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM)
        pages = {
            "dashboard-light": _page(browser, address, (1200, 900), "light"),
            "dashboard-plugin": _page(browser, address, (1200, 1000), "light", "#/plugin/flaky"),
            "dashboard-dark": _page(browser, address, (1200, 900), "dark"),
            "dashboard-400": _page(browser, address, (400, 800), "light"),
        }
        _until_open(pid)
        _wait(3 * PERIOD + 5)
        for name, (page, wrong) in pages.items():
            if wrong:
                raise SystemExit(f"{name}: the page complains: {wrong}")
            _save(page, images / f"{name}.png")
        browser.close()


def _page(browser: Browser, address: str, size: tuple[int, int], scheme: str, where: str = "") -> tuple[Page, list[str]]:
    """Open the dashboard; return the page, and a list of what it will have complained of."""
    page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(address)
    page.get_by_text("calculator").first.wait_for()
    page.evaluate("where => { if (where) location.hash = where }", where)
    return page, wrong


def _until_open(pid: int) -> None:
    """Wait until the circuit of ``flaky`` opens."""
    command = [sys.executable, "-m", "hostkit", "top", "--json", "--pid", str(pid)]
    for _ in range(2 * PERIOD):
        snapshot = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=30).stdout)
        if any(plugin["breaker"] == "open" for plugin in snapshot["plugins"]):
            return
        _wait(0.5)
    raise SystemExit(f"no circuit opened within {PERIOD} s")


@contextmanager
def _application() -> Iterator[int]:
    """Start ops-host under its load; give its process id."""
    process = subprocess.Popen(
        [sys.executable, "-m", "opshost", "--metrics", "127.0.0.1:0", "--log", os.devnull], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise SystemExit("opshost didn't start")
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def _dashboard(pid: int) -> Iterator[str]:
    """Start the dashboard; give the address that it prints, token included."""
    command = [sys.executable, "-m", "hostkit", "dashboard", "--pid", str(pid), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"http://\S+#\S+", line):
                yield found[0]
                return
        raise SystemExit("hostkit dashboard printed no address")
    finally:
        process.terminate()
        process.wait(30)


def _in_a_terminal(command: list[str], environment: dict[str, str]) -> None:
    """Run a command to its end in a terminal of ``COLUMNS`` by ``ROWS`` that nobody looks at."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    try:
        process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment, start_new_session=True)
        threading.Thread(target=_read_on, args=(ours,), daemon=True).start()
        if process.wait(60):
            raise SystemExit(f"{command} ended with status {process.returncode}")
    finally:
        os.close(its)


def _read_on(descriptor: int) -> None:
    try:
        while os.read(descriptor, 1 << 16):
            pass
    except OSError:  # the other end was closed
        os.close(descriptor)


def _save(page: Page, file: Path) -> None:
    """Write what is to be seen now, in as many colours as a small file has."""
    with Image.open(io.BytesIO(page.screenshot())) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
    _tell(file)


def _wait(seconds: float) -> None:
    threading.Event().wait(seconds)


def _tell(file: Path) -> None:
    print(f"  {file.name}: {file.stat().st_size / 1000:.0f} kB")
