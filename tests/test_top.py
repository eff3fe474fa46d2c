"""``hostkit top``: what it makes of two snapshots, what it shows and does by keys, and what it does without its host."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostkit import HostkitError
from hostkit._meter import Meter
from hostkit._top import _words
from hostkit._top._columns import ALL, Order, fitting
from hostkit._top._once import table
from hostkit._top._rows import Past, look

textual = pytest.importorskip("textual")

from hostkit._top._app import Top  # noqa: E402 - only where textual is
from hostkit._top._plugin import Lines  # noqa: E402
from hostkit._top._plugins import Plugins  # noqa: E402

HOSTILE = "[red]x[/red]\x1b[31m\n\u202egnp 表" + "z" * 10_000


def plugin(name: str, **more: Any) -> dict[str, Any]:
    meter = Meter().reading()
    return {
        "name": name,
        "version": "1.0",
        "description": "",
        "state": "loaded",
        "isolation": "process",
        "sandbox": "standard",
        "moved": "",
        "in_flight": 0,
        "waiting": 0,
        "health": {"status": "healthy", "message": "", "since": None, "last_check": None},
        "breaker": "closed",
        "restarts": 0,
        "failed": "",
        "workers": [{"pid": 7, "state": "serving", "age": 61.0, "memory": 24_000_000, "cpu": 0.5, "threads": 3}],
        "memory": 24_000_000,
        "cpu": 0.5,
        "calls": {"outcomes": dict(meter.outcomes), "seconds": 0.0, "buckets": list(meter.buckets)},
        **more,
    }


def calls(*seconds: float, **outcomes: int) -> dict[str, Any]:
    meter = Meter()
    for each in seconds:
        meter.add("ok", each)
    reading = meter.reading()
    return {"outcomes": {**reading.outcomes, **outcomes}, "seconds": reading.seconds, "buckets": list(reading.buckets)}


def snapshot(*plugins: dict[str, Any], at: float = 1000.0, **more: Any) -> dict[str, Any]:
    return {
        "app": "demo",
        "pid": 4711,
        "version": "0.1.0",
        "python": "3.11",
        "at": at,
        "started": 900.0,
        "status": "healthy",
        "message": "",
        "host": {"memory": 50_000_000, "cpu": 1.0, "threads": 9},
        "plugins": list(plugins),
        "exporters": [],
        **more,
    }


# What two snapshots become


def test_rates_and_quantiles_are_of_the_time_between_two_snapshots():
    before = snapshot(plugin("calculator", calls=calls(10.0, 10.0, PluginFailed=3), cpu=1.0))
    after = snapshot(plugin("calculator", calls=calls(10.0, 10.0, *[0.001] * 98, 1.0, PluginFailed=5), cpu=2.0), at=1002.0)
    row = look(before, after).rows[0]
    assert (row.calls, row.errors, row.cpu) == (50.5, 1.0, 50.0)
    assert row.p50 == pytest.approx(0.001, rel=0.25)
    assert row.p99 == pytest.approx(1.0, rel=0.25)
    assert look(before, after).summary.calls == 50.5


def test_without_an_earlier_snapshot_of_the_same_host_there_are_no_rates():
    now = snapshot(plugin("calculator", calls=calls(0.1)), at=1001.0)
    for before in (None, snapshot(plugin("calculator"), pid=1), snapshot(plugin("calculator"), started=1.0), snapshot()):
        row = look(before, now).rows[0]
        assert (row.calls, row.errors, row.p50, row.cpu) == (None, None, None, None)
        assert row.memory == 24_000_000


def test_a_plugin_whose_counting_began_anew_shows_what_was_counted_since():
    before, after = (
        snapshot(plugin("calculator", calls=calls(*[1.0] * 9))),
        snapshot(plugin("calculator", calls=calls(1.0)), at=1001.0),
    )
    assert look(before, after).rows[0].calls == 1.0


def test_a_look_that_comes_too_soon_is_compared_with_the_one_before_the_last():
    past = Past(shortest=0.5)
    counts = [(1000.0, 0), (1001.0, 10), (1001.01, 11), (1002.0, 20)]
    rates = [past.see(snapshot(plugin("calculator", calls=calls(*[0.1] * count)), at=at)).rows[0] for at, count in counts]
    assert [round(row.calls or 0.0, 1) for row in rates] == [0.0, 10.0, 10.9, 10.0]
    assert rates[-1].trend == (10.0, 10.0)


def test_what_is_no_snapshot_is_one_error_that_says_so():
    for wrong in (
        {},
        {"plugins": 3},
        snapshot({"name": "x"}),
        snapshot(plugin("x", calls={"outcomes": {}, "seconds": 0, "buckets": None})),
    ):
        with pytest.raises(ValueError, match="not a snapshot"):
            Past().see(wrong)


def test_the_status_of_a_plugin_that_is_not_loaded_is_its_state():
    rows = look(
        None,
        snapshot(
            plugin("a", state="given up"), plugin("b", health={"status": "degraded", "message": "", "since": 0, "last_check": 0})
        ),
    ).rows
    assert [row.status for row in rows] == ["given up", "degraded"]


@given(
    st.text(st.sampled_from("ab \n\t\x00\x1b\x7f\x9b\u202e\u2066\u2028\ufeff\ud800é\u0301表😀[]"), max_size=60),
    st.integers(1, 20),
    st.booleans(),
)
def test_any_text_fits_its_cells_and_nothing_in_it_reaches_the_terminal(text, cells, right):
    shown = _words.fitted(text, cells, right=right)
    assert _words.width(shown) == cells
    assert not any(ord(letter) < 32 or 0x7F <= ord(letter) < 0xA0 or letter in "\u202e\u2066\u2028\ufeff\ud800" for letter in shown)


@given(st.floats(0, 1e5))
def test_numbers_take_five_cells_at_the_most(number):
    for words in (_words.rate(number), _words.time(min(number, 99.0)), _words.memory(number * 1e7)):
        assert _words.width(words) <= 5, words


def test_numbers_read_as_a_person_would_write_them():
    assert [_words.rate(number) for number in (None, 0, 0.25, 9.97, 1234.4, 12_345)] == ["-", "0", "0.2", "10", "1234", "12k"]
    assert [_words.time(seconds) for seconds in (8.2e-6, 820e-6, 0.0012, 0.9996, 12.3)] == [
        "8.2µs",
        "820µs",
        "1.2ms",
        "1.0s",
        "12s",
    ]
    assert [_words.memory(size) for size in (None, 900, 24_000_000, 1_300_000_000)] == ["-", "900B", "23M", "1.2G"]
    assert [_words.duration(seconds) for seconds in (5, 65, 7444, 200_000)] == ["5s", "1m05s", "2h04m", "2d07h"]
    assert _words.spark([0, 1, 2, 4], 6) == "  ▁▂▄█"


def test_columns_fit_every_width_and_eighty_cells_have_what_matters():
    rows = look(None, snapshot(plugin("a-plugin-with-a-name-longer-than-thirty-cells"))).rows
    for cells in range(20, 260):
        assert sum(column.gap + column.width for column in fitting(rows, cells)) <= cells
    narrow = "NAME MODE STATUS CALL/S ERR/S P50 P99 BREAK RST MEM CPU%"
    assert " ".join(column.heading for column in fitting(rows, 79)) == narrow
    assert {column.heading for column in fitting(rows, 200)} == {column.heading for column in ALL}


def test_rows_without_a_value_come_last_whichever_way_they_are_sorted():
    rows = look(None, snapshot(plugin("b", memory=2), plugin("c", memory=None), plugin("a", memory=1))).rows
    assert [row.name for row in Order("MEM").sort(rows)] == ["b", "a", "c"]
    assert [row.name for row in Order("MEM", turned=True).sort(rows)] == ["a", "b", "c"]
    assert [row.name for row in Order().sort(rows)] == ["a", "b", "c"]


def test_the_plain_table_has_as_many_cells_in_each_line_whatever_a_plugin_is_called():
    lines = list(table(look(None, snapshot(plugin("calculator"), plugin("b c\n\x1b[31m", state="not loaded", isolation="")))))
    assert {len(line.split()) for line in lines} == {18}
    assert lines[1].split()[:2] == ["b-c\\n\\x1b[31m", "1.0"]
    assert "not-loaded" in lines[1]


# What is on the screen


class Gone(HostkitError):
    """The host can't be asked."""


class Fake:
    """A host that answers as the test wants it to."""

    def __init__(self, *plugins: dict[str, Any]) -> None:
        self.plugins = {
            each["name"]: each for each in (plugins or (plugin("calculator"), plugin("flaky"), plugin("slow", isolation="none")))
        }
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.fails: str = ""
        self.silent: threading.Event | None = None
        self.lines: list[dict[str, Any]] = []
        self.told: dict[str, Any] = {"config": {}, "runs": None, "errors": []}
        self.more: dict[str, Any] = {}

    def ask(self, verb: str, /, *, within: float, **arguments: Any) -> Any:
        if self.silent is not None:
            self.silent.wait(within)
        if self.fails:
            raise Gone(self.fails)
        if verb in ("snapshot", "log", "events", "plugin"):
            return getattr(self, f"_{verb}")(**arguments)
        self.asked.append((verb, arguments))
        if verb == "restart":
            raise Gone("it can't be [red]restarted[/red]: \x1b[31mno\nway " + "x" * 500 + " END")
        self.plugins[arguments["name"]]["state"] = "draining" if verb == "drain" else "loaded"
        return f"{verb} was done to [b]{arguments['name']}[/b]"

    def _snapshot(self) -> Any:
        return snapshot(*self.plugins.values(), **{"at": time.time(), **self.more})

    def _log(self, name: str, after: int) -> Any:
        return {"entries": self.lines[after:], "next": len(self.lines), "dropped": 0}

    def _events(self, after: int = 0) -> Any:
        return {"entries": [{"at": 1.0, "plugin": "flaky", "text": "the circuit opened"}], "next": 1, "dropped": 0}

    def _plugin(self, name: str) -> Any:
        return {"name": name, **self.told}


class Screen:
    """A terminal with ``hostkit top`` in it."""

    def __init__(self, app: Top, pilot: Any) -> None:
        self.app = app
        self.pilot = pilot

    @property
    def text(self) -> str:
        return "\n".join(strip.text.rstrip() for strip in self.app.screen._compositor.render_strips())

    async def shows(self, *words: str, within: float = 5.0) -> str:
        await self.comes(lambda: all(word in " ".join(self.text.split()) for word in words), within, words)
        return self.text

    async def comes(self, what: Callable[[], Any], within: float = 5.0, words: object = "") -> Any:
        end = time.monotonic() + within
        while not (found := what()):
            assert time.monotonic() < end, f"{words} never came:\n{self.text}"
            await self.pilot.pause(0.06)
        return found

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)


def on(host: Any, test: Callable[[Screen], Any], *, size: tuple[int, int] = (80, 24), interval: float = 0.2) -> Top:
    """Run a test in a terminal of that size."""

    async def run() -> Top:
        app = Top(host, interval=interval)
        async with app.run_test(size=size, notifications=True) as pilot:
            await test(Screen(app, pilot))
        return app

    return asyncio.run(run())


def test_the_screen_shows_the_host_and_its_plugins():
    host = Fake(
        plugin("calculator", isolation="none"), plugin("flaky", breaker="open", restarts=3), plugin("lost", state="given up")
    )
    host.more = {
        "status": "degraded",
        "message": "flaky is away",
        "exporters": [{"name": "otel", "sent": 1, "dropped": 7, "waiting": 0, "trouble": "refused"}],
    }

    async def test(screen: Screen) -> None:
        text = await screen.shows("calculator", "CPU%")
        assert "demo  pid 4711" in text
        assert "degraded: flaky is away" in text
        assert "3 plugins: 2 loaded, 1 given up" in text
        assert "exporter otel: 7 dropped, refused" in text
        rows = {line.split()[0]: line.split() for line in text.splitlines()[4:] if line.strip()}
        assert rows["flaky"][1:3] + rows["flaky"][7:9] == ["process", "healthy", "open", "3"]
        assert rows["lost"][2:4] == ["given", "up"]

    on(host, test)


def test_a_wide_terminal_has_all_columns_and_a_narrow_one_less():
    async def test(screen: Screen) -> None:
        await screen.shows("HEALTH SAYS", "SANDBOX", "TREND", "WAIT")
        await screen.pilot.resize_terminal(60, 20)
        await screen.comes(lambda: "HEALTH SAYS" not in screen.text and "CALL/S" in screen.text)
        await screen.pilot.resize_terminal(200, 50)
        await screen.shows("HEALTH SAYS", "calculator")

    on(Fake(), test, size=(200, 50))


def test_nothing_is_done_before_somebody_says_yes_and_what_the_host_answered_is_shown():
    host = Fake()

    async def test(screen: Screen) -> None:
        await screen.shows("calculator")
        await screen.press("i")
        await screen.shows("Move 'calculator' from process to none?", "inside the host's own process")
        await screen.press("n")
        await screen.press("down", "i")
        await screen.shows("Move 'flaky'")
        await screen.press("y")
        await screen.shows("done: moving flaky to none", "isolate was done to [b]flaky[/b]")
        assert host.asked == [("isolate", {"name": "flaky", "place": "none"})]

    on(host, test)


def test_a_plugin_is_drained_and_resumed_by_the_same_key():
    host = Fake()

    async def test(screen: Screen) -> None:
        await screen.shows("calculator")
        await screen.press("d")
        await screen.shows("Drain 'calculator'?", "New calls are refused")
        await screen.press("y")
        await screen.shows("draining")
        await screen.press("d")
        await screen.shows("Resume 'calculator'?")
        await screen.press("y")
        await screen.comes(lambda: len(host.asked) == 2)
        assert host.asked == [("drain", {"name": "calculator"}), ("resume", {"name": "calculator"})]

    on(host, test)


def test_an_error_of_the_host_is_shown_whole_and_is_no_markup():
    async def test(screen: Screen) -> None:
        await screen.shows("calculator")
        await screen.press("r")
        await screen.shows("Restart 'calculator'?")
        await screen.press("y")
        await screen.shows("not done: restarting calculator", "[red]restarted[/red]", "\\x1b[31mno\\nway", "END")

    on(Fake(), test, size=(100, 40))


def test_texts_of_plugins_are_neither_markup_nor_escape_sequences_anywhere():
    host = Fake(
        plugin(
            HOSTILE,
            version=HOSTILE,
            sandbox=HOSTILE,
            health={"status": "unhealthy", "message": HOSTILE, "since": 1, "last_check": 1},
        )
    )
    host.more = {
        "message": HOSTILE,
        "app": HOSTILE,
        "exporters": [{"name": HOSTILE, "sent": 0, "dropped": 0, "waiting": 0, "trouble": HOSTILE}],
    }
    host.lines = [{"at": 1.0, "level": "INFO", "text": HOSTILE, "request_id": HOSTILE, "source": HOSTILE}]
    host.told = {
        "config": {HOSTILE: HOSTILE},
        "errors": [{"at": 1.0, "type": HOSTILE, "message": HOSTILE, "remote_traceback": HOSTILE}],
        "runs": {"limits": {HOSTILE: HOSTILE}},
    }
    escaped = "[red]x[/red]\\x1b[31m"

    async def test(screen: Screen) -> None:
        for keys, words in (((), "CALL/S"), (("i",), "Move '"), (("n", "l"), "log, 1 lines"), (("enter",), "state loaded")):
            await screen.press(*keys)
            text = await screen.shows(words, escaped)
            assert not set(text) & {"\x1b", "\u202e"}
            assert all(len(line) <= 200 for line in text.splitlines())

    on(host, test, size=(200, 30))


def test_rows_are_filtered_and_sorted_and_the_cursor_stays_on_its_plugin():
    host = Fake(*(plugin(name, memory=memory) for name, memory in (("alpha", 1), ("beta", 3), ("gamma", 2))))

    async def test(screen: Screen) -> None:
        await screen.shows("alpha")
        plugins = screen.app.screen.query_one(Plugins)
        await screen.press("down")
        assert plugins.selected_name == "beta"
        plugins.turn(Order("MEM"))
        await screen.shows("sorted by MEM")
        assert plugins.get_row_at(0)[0].plain.split() == ["beta"]
        assert plugins.selected_name == "beta"
        await screen.press("s")
        await screen.shows("sorted by CPU%")
        await screen.press("S")
        await screen.shows("turned round")
        await screen.pilot.click(Plugins, offset=(23, 0))
        await screen.shows("sorted by STATUS")
        await screen.press("end")
        await screen.comes(lambda: plugins.selected_name == "gamma")
        await screen.press("slash", *"ALP", "enter")
        await screen.comes(lambda: plugins.row_count == 1)
        assert plugins.selected_name == "alpha"
        await screen.press("escape")
        await screen.comes(lambda: plugins.row_count == 3)

    on(host, test)


def test_the_details_have_errors_with_tracebacks_limits_and_what_the_host_shows_of_the_configuration():
    host = Fake()
    host.told = {
        "config": {"url": "https://example.org", "password": "•••"},
        "runs": {
            "limits": {"max_memory_mb": 64},
            "held_by": {"max_memory_mb": "the kernel"},
            "granted": {"network": ["db:5432"]},
            "not_granted": ["env HOME"],
        },
        "errors": [
            {
                "at": 1.0,
                "type": "PluginFailed",
                "message": "it raised",
                "phase": "execute",
                "request_id": "r-1",
                "remote_traceback": "Traceback\n  1/0\nZeroDivisionError",
            }
        ],
    }

    async def test(screen: Screen) -> None:
        await screen.shows("calculator")
        await screen.press("down", "enter")
        text = await screen.shows("flaky details", "ZeroDivisionError", "the circuit opened")
        for words in (
            "max_memory_mb = 64, held by the kernel",
            "network = db:5432",
            "env HOME",
            "password = •••",
            "it raised",
            "pid 7  serving  1m01s old  23M",
        ):
            assert words in text
        await screen.press("escape")
        await screen.shows("CALL/S")

    on(host, test, size=(120, 60))


def test_the_log_follows_until_one_scrolls_up_and_again_at_its_end():
    host = Fake()

    def write(count: int) -> None:
        at = len(host.lines)
        host.lines += [
            {"at": 1.0, "level": "INFO", "text": f"line {at + number}", "request_id": "", "source": "stdout"}
            for number in range(count)
        ]

    async def test(screen: Screen) -> None:
        write(100)
        await screen.shows("calculator")
        await screen.press("l")
        await screen.shows("line 99", "following")
        write(1)
        await screen.shows("line 100")
        await screen.press("pageup")
        await screen.shows("not following")
        lines = screen.app.screen.query_one(Lines)
        await screen.comes(lambda: lines.scroll_y == lines.scroll_target_y)
        top = lines.scroll_y
        write(50)
        await screen.comes(lambda: lines.count == 151)
        assert lines.scroll_y == top
        await screen.press("end")
        await screen.shows("line 150")
        write(1)
        await screen.shows("line 151")

    on(host, test)


def test_a_host_that_is_gone_leaves_its_last_numbers_and_is_found_again():
    host = Fake()

    async def test(screen: Screen) -> None:
        await screen.shows("calculator")
        host.fails = "the host is gone: [red]refused[/red]"
        text = await screen.shows("LOST, last answer", "the host is gone: [red]refused[/red]")
        assert "calculator" in text
        assert screen.app.screen.query_one(Plugins).has_class("lost")
        await screen.press("question_mark")
        await screen.shows("Columns; where the terminal is too narrow")
        await screen.press("escape")
        host.fails = ""
        await screen.comes(lambda: "LOST" not in screen.text and "calculator" in screen.text)
        assert not screen.app.screen.query_one(Plugins).has_class("lost")

    on(host, test)


def test_an_answer_that_is_no_snapshot_is_said_and_does_no_harm():
    host = Fake()

    async def test(screen: Screen) -> None:
        host.more = {"plugins": [{"name": "strange"}]}
        await screen.shows("LOST", "not a snapshot as this hostkit reads it")
        host.more = {}
        await screen.shows("calculator")

    on(host, test)


def test_keys_work_at_once_while_the_host_does_not_answer():
    host = Fake()
    released = threading.Event()

    async def test(screen: Screen) -> None:
        await screen.shows("calculator")
        host.silent = released
        await screen.shows("LOST", "it is stopped, or very busy", within=10)
        began = time.monotonic()
        await screen.press("i")
        await screen.shows("Move 'calculator'")
        await screen.press("y")
        await screen.press("q")
        await screen.comes(lambda: not screen.app.is_running)
        assert time.monotonic() - began < 2.0

    try:
        on(host, test, interval=0.3)
    finally:
        released.set()


# With a real host


def loaded(new_host: Callable[..., Any], install: Callable[..., str], path: Any) -> Any:
    install("calculator", "class P:\n    def execute(self, ctx, request):\n        return request\n", group="demo.plugins")
    host = new_host("demo", admin=path)
    host.load("calculator", isolation="none")
    return host


def test_numbers_of_a_real_host_move_and_a_key_moves_its_plugin(new_host, install, tmp_path, until):
    from hostkit._attach import Attached

    host = loaded(new_host, install, tmp_path / "admin.sock")
    ended = threading.Event()

    def traffic() -> None:
        while not ended.wait(0.005):
            host.execute("calculator", 1)

    caller = threading.Thread(target=traffic)
    caller.start()

    async def test(screen: Screen) -> None:
        await screen.shows("calculator")

        def cells() -> list[str]:
            return next(line.split() for line in screen.text.splitlines() if line.startswith("calculator"))

        await screen.comes(lambda: cells()[3] not in ("-", "0"), within=10)
        assert cells()[1] == "none"
        await screen.press("i")
        await screen.shows("from none to process")
        await screen.press("y")
        await screen.comes(lambda: cells()[1] == "process", within=20)
        await screen.shows("done: moving calculator to process", "calculator runs with isolation")
        await screen.press("enter")
        await screen.shows("serving", "pid ")

    try:
        with Attached(tmp_path / "admin.sock") as attached:
            on(attached, test, interval=0.2)
            assert attached.ask("snapshot")["plugins"][0]["isolation"] == "process"
    finally:
        ended.set()
        caller.join()


def test_once_prints_a_plain_table_and_json_the_snapshot(cli, new_host, install, tmp_path):
    path = tmp_path / "admin.sock"
    host = loaded(new_host, install, path)
    host.execute("calculator", 1)
    shown = cli("top", "--socket", str(path), "--once", "--interval", "0.1")
    assert shown.exit_code == 0, shown.stderr
    heading, row = shown.stdout.splitlines()
    assert dict(zip(heading.split(), row.split(), strict=False))["STATE"] == "loaded"
    assert json.loads(cli("top", "--socket", str(path), "--json").stdout)["plugins"][0]["calls"]["outcomes"] == {"ok": 1}
    # Not a terminal: the same as --once.
    assert cli("top", "--socket", str(path), "--interval", "0.1").stdout.splitlines()[0] == heading


def test_without_textual_the_view_is_refused_with_the_command_that_installs_it(cli, monkeypatch):
    monkeypatch.setattr("hostkit.cli._top._is_terminal", lambda: True)
    monkeypatch.setitem(sys.modules, "textual", None)
    refused = cli("top")
    assert refused.exit_code == 2
    assert "pip install 'hostkit[top]'" in refused.stderr


def test_a_host_that_is_not_there_is_one_sentence(cli, tmp_path):
    refused = cli("top", "--socket", str(tmp_path / "none.sock"), "--once")
    assert refused.exit_code == 3
    assert "no host listens there" in refused.stderr


def test_a_terminal_is_itself_again_after_sigterm(cli_place, new_host, install, tmp_path):
    loaded(new_host, install, tmp_path / "admin.sock")
    with _terminal() as (ours, theirs):
        modes = termios.tcgetattr(theirs)
        command = [sys.executable, "-m", "hostkit", "top", "--socket", str(tmp_path / "admin.sock"), "--interval", "0.2"]
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
        with subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
        ) as process:
            shown = _read(ours, until=lambda shown: b"calculator" in shown)
            process.send_signal(signal.SIGTERM)
            shown += _read(ours, until=lambda _: process.poll() is not None)
        restored = termios.tcgetattr(theirs)
    assert process.returncode == 143
    assert restored == modes
    assert b"\x1b[?1049l" in shown
    assert b"\x1b[?25h" in shown


@contextmanager
def _terminal() -> Iterator[tuple[int, int]]:
    ends = pty.openpty()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


def _read(terminal: int, *, until: Callable[[bytes], Any]) -> bytes:
    shown, end = b"", time.monotonic() + 20
    while not until(shown):
        assert time.monotonic() < end, shown
        if select.select([terminal], [], [], 0.02)[0]:
            shown += os.read(terminal, 65536)
    while select.select([terminal], [], [], 0)[0]:
        shown += os.read(terminal, 65536)
    return shown
