"""The dashboard as an operator sees it: a real browser, a real host under load."""

from __future__ import annotations

import http.server
import os
import re
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from hostkit._attach import Attached

LONG = "a-plugin-whose-name-is-longer-than-most-names-are-and-has-no-end-in-sight"


def row(page: Page, name: str) -> Any:
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))


def look_at(page: Page, name: str) -> None:
    page.get_by_role("link", name=name, exact=True).first.click()
    expect(page.locator("#p-name")).to_have_text(name)


def live(page: Page) -> None:
    expect(page.locator("#link")).to_have_text("live")


def fits(page: Page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def answer_of(page: Page, button: str, confirm: str) -> Any:
    page.get_by_role("button", name=button, exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name=confirm, exact=True).click()
    return page.locator("#act-answer")


def test_the_page_shows_all_plugins_with_numbers_that_move(shared: Any, opened: Callable[..., Page]) -> None:
    page = opened(shared)
    live(page)
    expect(page).to_have_title("demo – hostkit")
    assert "token" not in page.url
    expect(row(page, "steady").locator(".c-state")).to_have_text(re.compile("healthy|loaded"))
    expect(row(page, "steady").locator(".c-place")).to_have_text("in-process")
    expect(row(page, "flaky").locator(".c-errors")).to_have_text(re.compile(r"[1-9]"))
    expect(row(page, LONG).locator(".c-state")).to_have_text("○ not loaded")
    calls = page.locator("#totals dd").first
    expect(calls).to_have_text(re.compile(r"[1-9]"))
    before = calls.text_content()
    expect(calls).not_to_have_text(before)
    line = page.locator("#overview-plots .line.calls").last
    before = line.get_attribute("d")
    page.wait_for_function(
        "before => document.querySelectorAll('#overview-plots .line.calls')[1].getAttribute('d') !== before", arg=before
    )
    expect(
        page.get_by_role("img", name=re.compile("^Calls per second, the last 2 minutes. calls [0-9.,]+, at most"))
    ).to_be_visible()
    expect(page.locator("#overview-plots .label").first).to_have_text("0")


def test_an_error_shows_its_traceback_and_hostile_texts_stay_text(shared: Any, opened: Callable[..., Page]) -> None:
    page = opened(shared)
    look_at(page, "flaky")
    error = page.locator("#p-errors details").first
    error.locator("summary").click()
    expect(error.locator("pre.traceback")).to_contain_text("Traceback (most recent call last)")
    expect(error.locator("pre.traceback")).to_contain_text("raise ValueError")
    expect(error.locator("pre.message")).to_contain_text("<img src=x onerror=window.pwned=1>")
    expect(page.locator("#p-log .entry").first).to_contain_text("<script>window.pwned=1</script>")
    assert page.evaluate("window.pwned") is None
    assert page.locator("main img, main script").count() == 0
    shown = page.locator("main").inner_text()
    assert not set(shown) & {"\x1b", "\u202e"}
    expect(page.locator("#p-outcomes")).to_contain_text("PluginFailed")
    expect(page.locator("#p-errors-count")).to_contain_text("newer ones")
    read = error.locator("summary time").text_content()
    expect(error.locator("summary time")).to_have_text(read)
    error.locator("summary").click()
    expect(page.locator("#p-errors-count")).to_have_text(re.compile(r"the last \d+"))


def test_a_plugin_is_moved_to_a_worker_by_a_click_and_back(world: Any, opened: Callable[..., Page]) -> None:
    page = opened(world)
    look_at(page, "steady")
    assert world.pid() == world.host.pid
    expect(page.get_by_role("button", name="In-process")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Worker", exact=True).click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator("#act-answer")).to_have_text("")
    expect(answer_of(page, "Worker", "Run in a worker")).to_contain_text("done")
    expect(page.get_by_role("button", name="Worker")).to_have_attribute("aria-pressed", "true")
    worker = page.locator("#p-workers tbody th").first
    expect(worker).to_have_text(re.compile(r"\d+"))
    page.wait_for_function(f"Number(document.querySelector('#p-workers tbody th').textContent) !== {world.host.pid}")
    assert world.pid() == int(worker.text_content()) != world.host.pid
    expect(answer_of(page, "Drain", "Drain")).to_contain_text("takes no new calls")
    expect(page.locator("#p-chips")).to_contain_text("draining")
    expect(answer_of(page, "Resume", "Resume")).to_contain_text("done")
    expect(page.locator("#p-chips")).to_contain_text("loaded")
    expect(answer_of(page, "In-process", "Run in-process")).to_contain_text("done")
    expect(page.locator("#p-workers-none")).to_be_visible()
    expect(page.locator("#p-events")).to_contain_text("IsolationChanged")


@pytest.mark.complaints("503 ")
def test_a_host_that_stops_or_ends_is_told_and_its_successor_found(world: Any, opened: Callable[..., Page]) -> None:
    page = opened(world)
    live(page)
    os.kill(world.host.pid, signal.SIGSTOP)
    banner = page.get_by_role("alert")
    expect(banner).to_contain_text("The host doesn't answer")
    expect(banner).to_contain_text(re.compile(r"Its last answer was at \d"))
    os.kill(world.host.pid, signal.SIGCONT)
    live(page)
    expect(banner).to_be_hidden()
    world.host.kill()
    world.host.wait()
    expect(banner).to_contain_text("The host can't be reached")
    expect(banner).to_contain_text(re.compile(r"Its last answer was at \d"))
    look_at(page, "steady")
    expect(page.get_by_role("button", name="Restart")).to_be_disabled()
    world.begin_host()
    live(page)
    expect(page.locator("#facts")).to_contain_text(str(world.host.pid))
    expect(page.get_by_role("button", name="Restart")).to_be_enabled()


@pytest.mark.complaints("net::ERR_")
def test_a_dashboard_that_ends_is_told(world: Any, opened: Callable[..., Page]) -> None:
    page = opened(world)
    live(page)
    world.dashboard.send_signal(signal.SIGINT)
    assert world.dashboard.wait(5) == 130
    expect(page.get_by_role("alert")).to_contain_text("No connection to the dashboard")
    expect(page.locator("#link")).to_have_text("disconnected")


@pytest.mark.complaints("401 ")
def test_a_wrong_token_opens_nothing_and_the_right_one_does(shared: Any, opened: Callable[..., Page]) -> None:
    address, _, token = shared.address.partition("#token=")
    page = opened(shared)
    page.evaluate("sessionStorage.clear()")
    page.goto("about:blank")
    page.goto(address)
    expect(page.get_by_label("Token")).to_be_focused()
    expect(page.locator("#overview")).to_be_hidden()
    page.keyboard.type("not-the-token-at-all")
    page.keyboard.press("Enter")
    expect(page.locator("#gate-why")).to_contain_text("that is not the token")
    page.get_by_label("Token").fill(token)
    page.keyboard.press("Enter")
    live(page)
    expect(row(page, "steady")).to_be_visible()
    page.reload()  # the tab remembers it
    live(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_on_a_small_screen_in_the_colours_of_the_system(
    shared: Any, opened: Callable[..., Page], scheme: str
) -> None:
    page = opened(shared, width=400, color_scheme=scheme, reduced_motion="reduce")
    expect(row(page, "flaky").locator(".c-errors")).to_have_text(re.compile(r"[1-9]"))
    assert fits(page)
    assert contrast(page, "#totals dd", "#totals > div") >= 7
    assert contrast(page, "#totals dt", "#totals > div") >= 4.5
    assert contrast(page, "#plugins-table .c-errors.warn", ".plugins") >= 4.5
    assert (luminance(page.evaluate("getComputedStyle(document.body).backgroundColor")) < 0.1) == (scheme == "dark")
    assert page.evaluate("getComputedStyle(document.querySelector('#theme')).transitionDuration") == "0s"
    for _ in range(2):  # as the system has it, light, dark
        page.locator("#theme").click()
    page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    assert luminance(page.evaluate("getComputedStyle(document.body).backgroundColor")) < 0.1
    look_at(page, "flaky")
    page.locator("#p-errors details").first.locator("summary").click()
    expect(page.locator("#p-log .entry").first).to_be_visible()
    assert fits(page)
    page.get_by_role("link", name="All plugins", exact=True).first.click()
    look_at(page, LONG)
    expect(page.locator("#p-manifest")).not_to_be_empty()
    assert fits(page)


def contrast(page: Page, text: str, ground: str) -> float:
    """Return the contrast ratio of WCAG 2."""
    colours = page.evaluate(
        "([text, ground]) => [getComputedStyle(document.querySelector(text)).color, getComputedStyle(document.querySelector(ground)).backgroundColor]",
        [text, ground],
    )
    light, dark = sorted(map(luminance, colours), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_it_can_be_used_with_the_keyboard_alone(shared: Any, opened: Callable[..., Page]) -> None:
    page = opened(shared)
    expect(row(page, "steady").locator(".c-calls")).to_have_text(re.compile(r"[1-9]"))
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="To the content")).to_be_focused()
    page.keyboard.press("/")
    expect(page.locator("#filter")).to_be_focused()
    page.keyboard.type("stead")
    expect(page.locator("#plugins-table tbody tr")).to_have_count(1)
    expect(page.locator("#plugins-count")).to_contain_text("1 shown")
    plot = page.locator("#overview-plots svg[role=img]").first
    plot.focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#overview-plots .when").first).to_have_text(re.compile(r"\d+:\d\d:\d\d"))
    expect(page.locator("#overview-plots .cursor")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator("#overview-plots .when").first).to_have_text("now")
    page.get_by_role("button", name="calls/s").focus()
    page.keyboard.press("Enter")
    expect(page.locator("th[data-key=calls]")).to_have_attribute("aria-sort", "descending")
    page.get_by_role("link", name="steady", exact=True).first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#p-name")).to_have_text("steady")
    page.get_by_role("button", name="10 min").last.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#plugin-plots .label").filter(has_text="−10 min").first).to_be_visible()


@pytest.mark.complaints(".")
def test_another_page_can_neither_read_nor_act_even_with_the_token(shared: Any, opened: Callable[..., Page]) -> None:
    class Evil(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    address, _, token = shared.address.partition("#token=")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Evil)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        page = opened(shared)
        live(page)
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        for mode in ("cors", "no-cors"):
            for origin in (address, address.replace("127.0.0.1", "localhost")):
                assert "TypeError" in page.evaluate(ATTEMPT, [origin, token, mode])
        assert page.evaluate(FRAMED, address) is None
        with Attached(next((shared.place / "hostkit").glob("*.sock"))) as host:
            (steady,) = [plugin for plugin in host.ask("snapshot")["plugins"] if plugin["name"] == "steady"]
        assert steady["isolation"] == "none"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


ATTEMPT = """async ([address, token, mode]) => {
    const headers = mode === "cors" ? {Authorization: `Bearer ${token}`, "Content-Type": "application/json"} : {};
    const body = '{"verb": "isolate", "name": "steady", "place": "process"}';
    try { return String((await fetch(`${address}api/act`, {method: "POST", mode, headers, body})).status); }
    catch (error) { return String(error); }
}"""
FRAMED = """address => new Promise((resolve) => {
    const frame = document.createElement("iframe");
    frame.src = address;
    frame.onload = () => { try { resolve(frame.contentDocument?.body?.textContent || null); } catch { resolve(null); } };
    document.body.append(frame);
})"""
