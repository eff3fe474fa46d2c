"""Watch a host under load by every means there is, and check what they say: ``nox -s demo-ops [-- --stay]``.

Everything runs as a person would run it: ``python -m opshost``, ``hostkit top``, ``hostkit dashboard``, an HTTP client. The exit status is
1 where something isn't as it should be. What is started is in sessions of its own: Ctrl-C is for this process alone, which ends the
others in order.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

PLUGINS = ("calculator", "flaky", "leaky", "signer", "slow")
TOGGLES = 6

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]  # by name and labels


def main(arguments: list[str]) -> int:
    """Show everything; with ``--stay`` leave host and dashboard running until Ctrl-C."""
    demo = Demo()
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(KeyboardInterrupt):
        traces, log, port = Path(folder) / "traces.jsonl", Path(folder) / "log.jsonl", _free_port()
        with demo.host(port, traces, log) as host:
            demo.pause(3)
            demo.top(host.pid)
            demo.metrics(port)
            demo.trace(traces)
            with demo.dashboard(host.pid) as (address, token):
                demo.page(address, token)
                demo.toggle(address, token)
                demo.kill(host.pid, port)
                demo.record(log)
                demo.secret(address, token, log, traces)
                if "--stay" in arguments:
                    demo.stay(host.pid, port, f"{address}/#token={token}")
    _say(f"{len(demo.wrong)} of {demo.checks} checks failed" if demo.wrong else f"all {demo.checks} checks hold")
    for text in demo.wrong:
        print(f"  {text}")
    return 1 if demo.wrong else 0


class Demo:
    """What was looked at, and what was wrong."""

    def __init__(self) -> None:
        self.checks = 0
        self.wrong: list[str] = []

    def check(self, holds: object, text: str) -> None:
        """Note whether something holds that must, and say so."""
        self.checks += 1
        print(f"  {'ok   ' if holds else 'WRONG'} {text}", flush=True)
        if not holds:
            self.wrong.append(text)

    def pause(self, seconds: float) -> None:
        """Let the load do some work."""
        threading.Event().wait(seconds)

    @contextlib.contextmanager
    def host(self, port: int, traces: Path, log: Path) -> Iterator[subprocess.Popen[str]]:
        """Start the application with its load, and end it by SIGTERM."""
        command = [sys.executable, "-m", "opshost", "--metrics", f"127.0.0.1:{port}", "--traces", str(traces), "--log", str(log)]
        _say("$ " + " ".join(["python", *command[1:]]))
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        try:
            for line in _lines(process, until="metrics"):
                print(f"  {line}")
            yield process
        finally:
            _end(process)
            self.summary(process)

    def summary(self, host: subprocess.Popen[str]) -> None:
        """Show what the application says at its end."""
        _say("The application was asked to end, and says:")
        said = host.stdout.read() if host.stdout else ""
        print("".join(f"  {line}\n" for line in said.splitlines()), end="")
        self.check(host.returncode == 0, f"it ended in order, with status {host.returncode}")
        self.check("none lost" in said, "no call was lost")
        self.check("the same numbers" in said, "the host's metrics and the callers counted alike, call by call")
        calculator = re.search(r"calculator\s+(.*)", said)
        failed = {name for _, name in re.findall(r"(\d+) (\w+)", calculator[1] if calculator else "x")} - {"ok", "PluginFailed"}
        self.check(calculator and not failed, "the toggles cost no call: those of the calculator ended well or divided by zero")

    def top(self, pid: int) -> None:
        """Show one picture of ``hostkit top``."""
        done = _run("top", "--once", "--pid", str(pid))
        self.check(done.returncode == 0, "hostkit top --once")
        self.check(all(name in done.stdout for name in PLUGINS), "it shows all five plugins")

    def metrics(self, port: int) -> None:
        """Fetch the metrics twice and read them as Prometheus does."""
        url = f"http://127.0.0.1:{port}/metrics"
        _say(f"$ curl {url}")
        before = _samples(_got(url))
        self.pause(2)
        text = _got(url)
        after = _samples(text)
        told = ("hostkit_calls_total", "hostkit_breaker_state", "hostkit_worker", "hostkit_host_resident")
        for line in text.splitlines():
            if line.startswith(told) and not line.endswith(" 0.0"):
                print(f"  {line}")
        self.check(len(after) > 50, f"{len(after)} samples, read by prometheus_client's own parser")
        calls = "hostkit_calls_total"
        rates = {name: (_total(after, calls, name) - _total(before, calls, name)) / 2 for name in PLUGINS}
        print("  calls/s: " + ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items()))
        self.check(all(rates.values()), "calls of all five are counted")

    def trace(self, file: Path) -> None:
        """Show one trace that has a span of the host and one of the worker."""
        _say("A trace, as the application's span exporter got it:")
        spans = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        print(f"  {len(spans)} spans")
        below = {span["parent_id"]: span for span in spans if span["parent_id"]}
        pairs = [(span, below[_id(span)]) for span in spans if _id(span) in below]
        self.check(pairs, "a span of the host has one of its worker below it")
        for span, depth in ((span, depth) for pair in pairs[-1:] for depth, span in enumerate(pair)):
            print(f"  {'  ' * depth}{'└ ' if depth else ''}{span['name']}  trace {span['context']['trace_id']}")
            for key, value in sorted(span["attributes"].items()):
                print(f"  {'  ' * depth}      {key} = {value}")
        self.check(all(a["context"]["trace_id"] == b["context"]["trace_id"] for a, b in pairs), "both are of one trace")

    @contextlib.contextmanager
    def dashboard(self, pid: int) -> Iterator[tuple[str, str]]:
        """Start ``hostkit dashboard`` and end it by SIGTERM; give its address and its token."""
        command = [sys.executable, "-m", "hostkit", "dashboard", "--pid", str(pid), "--port", str(_free_port())]
        _say("$ hostkit " + " ".join(command[3:]))
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
        try:
            for line in _lines(process, until="http://"):
                print(f"  {line}")
            found = re.search(r"(http://\S+?)/?#(?:token=)?(\S+)", line)
            if found is None:
                raise SystemExit(f"no address with a token in {line!r}")
            yield found[1], found[2]
        finally:
            _end(process)
            told = f"hostkit dashboard ended in order, with status {process.returncode}"
            self.check(process.returncode == 128 + signal.SIGTERM, told)

    def page(self, address: str, token: str) -> None:
        """Fetch the page, what it shows, and the same without a token."""
        page = _got(address + "/")
        self.check("<html" in page, f"GET / is a page of {len(page)} characters")
        stream = urllib.request.Request(f"{address}/api/stream", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(stream, timeout=10) as events:
            told = [line for line in itertools.islice(events, 12) if line.startswith(b"data:")]
        self.check(
            all(name.encode() in told[-1] for name in PLUGINS),
            f"its stream tells of all five plugins, {len(told[-1])} bytes each time",
        )
        for what, headers in (("no token", {}), ("a wrong one", {"Authorization": "Bearer wrong"})):
            status = _status(f"{address}/api/stream", headers)
            self.check(status in (401, 403), f"with {what} it is refused: {status}")

    def toggle(self, address: str, token: str) -> None:
        """Move the calculator into a worker and back, some times, while it is called."""
        _say(f"The calculator changes places {TOGGLES} times, by the dashboard, under load:")
        for place in ["process", "none"] * (TOGGLES // 2):
            began = time.monotonic()
            _act(address, token, {"verb": "isolate", "name": "calculator", "place": place})
            print(f"  isolation = {place!r} after {1000 * (time.monotonic() - began):.0f} ms")
            self.pause(0.7)
        events = json.loads(_got(f"{address}/api/events", {"Authorization": f"Bearer {token}"}))["entries"]
        moves = [event for event in events if event["type"] == "IsolationChanged" and event["plugin"] == "calculator"]
        self.check(len(moves) == TOGGLES, f"{len(moves)} moves are among its events")

    def kill(self, pid: int, port: int) -> None:
        """Kill the signer's worker, and see that this is counted, and that calls go on."""
        _say("The signer's worker is killed:")
        url = f"http://127.0.0.1:{port}/metrics"
        before = _samples(_got(url))
        command = [sys.executable, "-m", "hostkit", "top", "--json", "--pid", str(pid)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        worker = next(plugin for plugin in json.loads(done.stdout)["plugins"] if plugin["name"] == "signer")["workers"][0]
        resident = _resident(worker["pid"])
        self.check(
            abs(worker["memory"] - resident) < resident / 10,
            f"top says {worker['memory']} bytes of process {worker['pid']}, /proc {resident}",
        )
        os.kill(worker["pid"], signal.SIGKILL)
        self.pause(2)
        after = _samples(_got(url))
        restarts = _total(after, "hostkit_worker_restarts_total", "signer") - _total(
            before, "hostkit_worker_restarts_total", "signer"
        )
        calls = _total(after, "hostkit_calls_total", "signer") - _total(before, "hostkit_calls_total", "signer")
        self.check(restarts == 1, f"{restarts:.0f} restart, and {calls:.0f} more calls of the signer")

    def record(self, file: Path) -> None:
        """Show what the log has of a call that failed."""
        _say("The last call that failed, as a record of the log:")
        records = [json.loads(line)["record"] for line in file.read_text().splitlines()]
        failed = [record for record in records if "outcome" in record["extra"]]
        for name, value in sorted(failed[-1]["extra"].items()) if failed else ():
            print(f"  {name} = {value}")
        self.check(failed, f"{len(failed)} failed calls are in the log")
        whole = all(
            record["extra"]["plugin"] and record["extra"]["request_id"] and record["extra"]["outcome"] != "ok" for record in failed
        )
        self.check(whole, "each with its plugin, its request id and its outcome")

    def stay(self, pid: int, port: int, address: str) -> None:
        """Leave all of it to a person."""
        _say("Host and dashboard stay until Ctrl-C. To look at:")
        print(f"  {address}")
        print(f"  http://127.0.0.1:{port}/metrics")
        print(f"  {Path(sys.executable).with_name('hostkit')} top --pid {pid}", flush=True)
        threading.Event().wait()

    def secret(self, address: str, token: str, *files: Path) -> None:
        """Look for the signer's key wherever something is shown."""
        _say("The signer's key is looked for in its page, the log and the traces:")
        page = _got(f"{address}/api/plugin?name=signer", {"Authorization": f"Bearer {token}"})
        print(f"  its configuration, as it is shown: {json.dumps(json.loads(page).get('config'))}")
        shown = [page, *(file.read_text() for file in files if file.exists())]
        self.check(
            not any(os.environ["OPSHOST_API_KEY"] in text for text in shown), f"it is in none of {sum(map(len, shown))} characters"
        )


def _say(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    _say("$ hostkit " + " ".join(arguments))
    done = subprocess.run([sys.executable, "-m", "hostkit", *arguments], capture_output=True, text=True, timeout=60, check=False)
    print("".join(f"  {line}\n" for line in (done.stdout + done.stderr).splitlines()), end="", flush=True)
    return done


def _lines(process: subprocess.Popen[str], *, until: str) -> Iterator[str]:
    """Yield what a process prints, up to a line that has these words."""
    assert process.stdout is not None
    for line in process.stdout:
        yield line.rstrip()
        if until in line:
            return
    raise SystemExit(f"{process.args!r} ended with status {process.wait()}")


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _got(url: str, headers: dict[str, str] | None = None) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=10) as answer:
        return answer.read().decode()


def _status(url: str, headers: dict[str, str]) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def _act(address: str, token: str, action: dict[str, Any]) -> None:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/api/act", data=json.dumps(action).encode(), headers=headers, method="POST")
    with urllib.request.urlopen(request, timeout=30):
        pass


def _samples(text: str) -> Samples:
    families = text_string_to_metric_families(text)
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for family in families for sample in family.samples}


def _total(samples: Samples, name: str, plugin: str) -> float:
    return sum(value for (found, labels), value in samples.items() if found == name and ("plugin", plugin) in labels)


def _resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _id(span: dict[str, Any]) -> str:
    return span["context"]["span_id"]


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


if __name__ == "__main__":
    os.environ.setdefault("OPSHOST_API_KEY", "the-key-of-this-demo-" + os.urandom(8).hex())
    sys.exit(main(sys.argv[1:]))
