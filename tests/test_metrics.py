"""What Prometheus reads: families made from a snapshot, and the server that it scrapes."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from hostkit import ConfigError, PluginFailed
from hostkit._attach import Attached
from hostkit._exporters._families import families
from hostkit._exporters._scrapes import Scrapes
from hostkit._meter import BOUNDS, Meter

NASTY = 'a"b\\c\nd\x1b[31m<script>alert(1)</script>\u202e\ud800' + "x" * 10_000


def snapshot(*plugins, **changes):
    return {
        "app": "demo",
        "pid": 1,
        "version": "0.1",
        "python": "3.11.7",
        "at": 1010.0,
        "started": 1000.0,
        "status": "healthy",
        "message": "",
        "plugins": list(plugins),
        "exporters": [{"name": "loguru", "sent": 7, "dropped": 2, "waiting": 1, "trouble": "disk full"}],
        "host": {"memory": 50_000_000, "cpu": 1.5, "threads": 4},
        **changes,
    }


def plugin(name="calc", *, calls=(), **changes):
    meter = Meter()
    for outcome, seconds in calls:
        meter.add(outcome, seconds)
    reading = meter.reading()
    return {
        "name": name,
        "version": "1.0",
        "description": "",
        "state": "loaded",
        "isolation": "process",
        "sandbox": "standard",
        "moved": "",
        "in_flight": 2,
        "waiting": 3,
        "health": {"status": "healthy", "message": "", "since": 0.0, "last_check": 0.0},
        "breaker": "open",
        "workers": [{"pid": 11, "state": "serving", "age": 1.0, "memory": 1000, "cpu": 0.5, "threads": 1}],
        "memory": 1000,
        "cpu": 2.5,
        "restarts": 4,
        "failed": "",
        "calls": {"outcomes": reading.outcomes, "seconds": reading.seconds, "buckets": list(reading.buckets)},
        **changes,
    }


class Fixed:
    def __init__(self, *plugins, **changes):
        self.snapshot = snapshot(*plugins, **changes)

    def collect(self):
        return families(self.snapshot)


def registry(*plugins, **changes):
    found = CollectorRegistry()
    found.register(Fixed(*plugins, **changes))
    return found


def samples(text):
    return {(sample.name, frozenset(sample.labels.items())): sample.value for family in parse(text) for sample in family.samples}


def value(text, name, **labels):
    return samples(text)[name, frozenset({"app": "demo", **labels}.items())]


def lint(text):
    """What ``promtool check metrics`` finds fault with (client_golang's promlint), and what it needs to read the text at all."""
    families, problems = {}, []
    for line in text.splitlines():
        word, _, rest = line.removeprefix("# ").partition(" ")
        if word in ("HELP", "TYPE") and line.startswith("#"):
            name, _, said = rest.partition(" ")
            if word in families.setdefault(name, {}):
                problems.append(f"{name}: a second {word}")
            families[name][word] = said
    seen = set()
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        found = re.fullmatch(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*",?)*\})? (\S+)', line)
        if found is None:
            problems.append(f"can't be read: {line!r}")
            continue
        if (found[1], found[2]) in seen:
            problems.append(f"twice: {line}")
        seen.add((found[1], found[2]))
        name = re.sub("_(bucket|count|sum)$", "", found[1])
        if families.get(name, {}).get("TYPE") != "histogram":
            name = found[1]
            if "le=" in (found[2] or "").replace("role=", ""):
                problems.append(f"{name}: le outside of a histogram")
        if name not in families:
            problems.append(f"{found[1]}: no HELP and TYPE")
        if re.search("[a-z][A-Z]", re.sub('"(?:[^"\\\\]|\\\\.)*"', "", found[2] or "")):
            problems.append(f"{name}: a label in camelCase")
    for name, said in families.items():
        kind = said.get("TYPE")
        words = name.split("_")
        if not said.get("HELP"):
            problems.append(f"{name}: no help text")
        if (kind == "counter") is not name.endswith("_total"):
            problems.append(f"{name}: _total is for counters, and all of them")
        if kind != "histogram" and words[-1] in ("bucket", "count", "sum"):
            problems.append(f"{name}: a histogram's suffix")
        if set(words) & {"counter", "gauge", "histogram", "summary"}:
            problems.append(f"{name}: its type in its name")
        if ":" in name or re.search("[a-z][A-Z]", name):
            problems.append(f"{name}: not in snake_case")
        if set(words) & {"s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d"}:
            problems.append(f"{name}: an abbreviated unit")
        if any(
            re.fullmatch("(minutes|hours|days|weeks|bits|(kilo|mega|giga|milli|micro|nano|kibi|gibi)(bytes|seconds))", word)
            for word in words
        ):
            problems.append(f"{name}: not in a base unit")
        if not name.startswith("hostkit_"):
            problems.append(f"{name}: not ours")
    return problems


def test_the_text_is_what_promtool_wants():
    text = generate_latest(registry(plugin(calls=[("ok", 0.001), ("Busy", 2.0)]), plugin("other", isolation="none"))).decode()
    assert lint(text) == []
    assert lint("# HELP x_ms X.\n# TYPE x_ms counter\nx_ms 1\n")  # the check itself


def test_every_family_has_samples_when_a_plugin_runs_isolated():
    assert [family.name for family in families(snapshot(plugin())) if not family.samples] == []


def test_calls_are_counted_by_outcome_and_begin_at_nothing():
    text = generate_latest(registry(plugin(calls=[("ok", 0.1), ("ok", 0.2), ("WorkerCrashed", 0.1)]))).decode()
    assert value(text, "hostkit_calls_total", plugin="calc", outcome="ok") == 2
    assert value(text, "hostkit_calls_total", plugin="calc", outcome="WorkerCrashed") == 1
    assert value(text, "hostkit_calls_total", plugin="calc", outcome="PluginFailed") == 0


def test_the_histogram_counts_each_call_at_and_above_its_own_bound():
    times = [0.0000001, 0.001, 0.00100001, 0.0024, 0.0025, 4.9, 79.0, 500.0]
    text = generate_latest(registry(plugin(calls=[("ok", each) for each in times]))).decode()
    buckets = {
        float(dict(labels)["le"]): count
        for (name, labels), count in samples(text).items()
        if name == "hostkit_call_duration_seconds_bucket"
    }
    assert sorted(buckets) == [*(float(f"{digit}e{power}") for power in range(-6, 2) for digit in (1, 2.5, 5)), float("inf")]
    assert {le: sum(each <= le for each in times) for le in buckets} == buckets
    assert value(text, "hostkit_call_duration_seconds_count", plugin="calc") == len(times)
    assert value(text, "hostkit_call_duration_seconds_sum", plugin="calc") == pytest.approx(sum(times))
    assert set(buckets) - {float("inf")} <= set(BOUNDS)


def test_of_an_enumeration_exactly_one_word_holds():
    text = generate_latest(registry(plugin(breaker="half-open", state="odd"))).decode()
    held = {name: [] for name in ("hostkit_breaker_state", "hostkit_plugin_health", "hostkit_plugin_state", "hostkit_host_health")}
    for (name, labels), found in samples(text).items():
        if name in held and found:
            held[name].append(dict(labels).get("state") or dict(labels)["status"])
    assert held == {
        "hostkit_breaker_state": ["half-open"],
        "hostkit_plugin_health": ["healthy"],
        "hostkit_plugin_state": ["odd"],
        "hostkit_host_health": ["healthy"],
    }


def test_a_plugin_that_is_not_loaded_and_never_was_has_only_its_state():
    idle = plugin(state="not loaded", isolation="", sandbox="", breaker="closed", workers=[], memory=None, cpu=None, restarts=0)
    text = generate_latest(registry(idle)).decode()
    names = {name for name, labels in samples(text) if ("plugin", "calc") in labels}
    assert names == {"hostkit_plugin_info", "hostkit_plugin_state"}


def test_an_unloaded_plugin_keeps_its_counters():
    gone = plugin(state="not loaded", isolation="", workers=[], memory=None, cpu=2.5, calls=[("ok", 0.1)])
    text = generate_latest(registry(gone)).decode()
    assert value(text, "hostkit_calls_total", plugin="calc", outcome="ok") == 1
    assert value(text, "hostkit_worker_restarts_total", plugin="calc") == 4
    assert value(text, "hostkit_workers_cpu_seconds_total", plugin="calc") == 2.5


@pytest.mark.parametrize(("generate", "read"), [(generate_latest, parse), (generate_openmetrics, parse_openmetrics)])
def test_hostile_names_arrive_escaped_cut_and_apart(generate, read):
    text = generate(registry(plugin(NASTY, version=NASTY, state=NASTY), plugin(NASTY + "y"), app=NASTY)).decode()
    found = [sample for family in read(text) for sample in family.samples]
    assert lint(text) == [] or generate is generate_openmetrics
    values = {value for sample in found for value in sample.labels.values()}
    assert all(len(each) <= 200 and each.isprintable() for each in values)
    names = {sample.labels["plugin"] for sample in found if "plugin" in sample.labels}
    assert len(names) == 2
    assert all(name.startswith('a"b\\c\\x0ad\\x1b[31m<script>') for name in names)


def test_no_label_is_taken_from_what_grows():
    nasty = plugin(
        failed="gave up: pid 123",
        moved="because",
        health={"status": "degraded", "message": "pid 4711", "since": 1, "last_check": 2},
    )
    keys = {key for family in families(snapshot(nasty)) for sample in family.samples for key in sample.labels}
    assert keys == {"app", "plugin", "outcome", "le", "state", "status", "version", "isolation", "sandbox", "python", "exporter"}
    assert "4711" not in generate_latest(registry(nasty)).decode()


def test_the_page_of_metrics_has_every_metric_and_no_other():
    page = (Path(__file__).parents[1] / "docs" / "reference" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(hostkit_\w+)` \| (\w+) \| (.+?) \| (.+?) \| (.+?) \|$", page, re.MULTILINE)
    suffixes = {"counter": "_total", "info": "_info"}
    found = []
    for family in families(snapshot(plugin(calls=[("ok", 0.1)]))):
        labels = set(family.samples[0].labels) - {"app"}
        found.append((family.name + suffixes.get(family.type, ""), family.type, labels, family.unit or "–", family.documentation))
    assert [(name, kind, set(re.findall(r"`(\w+)`", labels)), unit, text) for name, kind, labels, unit, text in rows] == found


# --- the server ---


@pytest.fixture
def scrapes():
    with ExitStack() as stack:

        def start(collected=None, **options):
            server = Scrapes("127.0.0.1", 0, collected or registry(plugin()), **options)
            stack.callback(server.close)
            return server

        yield start


def get(server, path="/metrics", **headers):
    request = urllib.request.Request(server.address.replace("/metrics", path), headers=headers)
    with urllib.request.urlopen(request, timeout=5) as answer:
        return answer.headers, answer.read().decode()


def connected(server):
    return socket.create_connection(server.server_address[:2], timeout=5)


def test_curl_gets_text_that_the_parser_reads(scrapes):
    server = scrapes()
    done = subprocess.run(["curl", "-sSi", server.address], capture_output=True, text=True, timeout=10, check=True)
    head, _, text = done.stdout.partition("\r\n\r\n") if "\r\n\r\n" in done.stdout else done.stdout.partition("\n\n")
    assert "Content-Type: text/plain; version=0.0.4; charset=utf-8" in head
    assert lint(text) == []
    assert value(text, "hostkit_calls_in_flight", plugin="calc") == 2


def test_openmetrics_is_answered_where_it_is_asked_for(scrapes):
    headers, text = get(scrapes(), Accept="application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5")
    assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    found = {family.name: family for family in parse_openmetrics(text)}
    assert found["hostkit_call_duration_seconds"].unit == "seconds"
    assert found["hostkit_plugin"].type == "info"
    assert text.endswith("# EOF\n")


def test_other_pages_are_not_there(scrapes):
    with pytest.raises(urllib.error.HTTPError, match="404.*/metrics") as told:
        get(scrapes(), "/etc/passwd")
    told.value.close()


def test_what_cannot_be_collected_is_told_to_both_sides_and_the_next_scrape_is_answered(scrapes, log, capfd):
    class Broken:
        fails = True

        def collect(self):
            if self.fails:
                raise RuntimeError("no\nsnapshot")
            return []

    collector = Broken()
    broken = CollectorRegistry()
    broken.register(collector)
    server = scrapes(broken)
    with pytest.raises(urllib.error.HTTPError, match="500") as told:
        get(server)
    told.value.close()
    assert [record["text"] for record in log] == ["metrics can't be collected: RuntimeError: no\n  | snapshot"]
    collector.fails = False
    assert get(server)[1] == ""
    assert capfd.readouterr().err == ""


def test_clients_that_send_or_read_nothing_are_closed_with_the_server(scrapes):
    class Long:
        def collect(self):
            return [GaugeMetricFamily("long", "x" * 10_000_000)]

    long = CollectorRegistry()
    long.register(Long())
    server = scrapes(long)
    with ExitStack() as clients:
        silent = [clients.enter_context(connected(server)) for _ in range(3)]
        deaf = clients.enter_context(connected(server))
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        half = clients.enter_context(connected(server))
        half.sendall(b"GET /met")
        assert deaf.recv(1) == b"H"
        assert get(server)[1]  # nobody else is held up
        began = time.monotonic()
        server.close()
        assert time.monotonic() - began < 0.5
        assert [each.recv(1) for each in (*silent, half)] == [b""] * 4


def test_the_connection_that_has_been_there_longest_makes_room(scrapes):
    server = scrapes()
    with ExitStack() as clients:
        silent = [clients.enter_context(connected(server)) for _ in range(16)]
        for _ in range(3):
            assert get(server)[1]
        assert silent[0].recv(1) == b""
        assert threading.active_count() < 40


def test_a_connection_that_lasts_too_long_is_cut_off(scrapes):
    now = [0.0]
    server = scrapes(clock=lambda: now[0])
    with connected(server) as silent:
        silent.sendall(b"GET /metrics HTTP/1.0\r\n")
        assert get(server)[1]
        now[0] = 11.0
        assert get(server)[1]  # the server looks after each connection, too
        assert silent.recv(1) == b""


def test_closing_frees_the_port_and_may_be_repeated(scrapes):
    server = scrapes()
    port = server.server_address[1]
    with pytest.raises(OSError, match="in use"):
        Scrapes("127.0.0.1", port, CollectorRegistry())
    server.close()
    server.close()
    again = Scrapes("127.0.0.1", port, CollectorRegistry())
    again.close()


# --- a host ---

SOURCE = """
class P:
    def execute(self, ctx, request):
        if request.get("fails"):
            raise ValueError("no")
        if request.get("begun"):
            open(request["begun"], "w").close()
            import time
            while not ctx.cancelled:
                time.sleep(0.005)
        return request
"""


@pytest.fixture
def watched(install, new_host):
    def make(app="hostkit", **options):
        install("calc", SOURCE, version="1.2.3")
        return new_host(app, config={"exporters": {"prometheus": options}})

    return make


def read(host, name, **labels):
    return samples(host.metrics()).get((name, frozenset({"app": host.app, **labels}.items())))


def test_a_host_tells_of_its_calls_wherever_they_run(watched, isolation):
    host = watched()
    assert read(host, "hostkit_plugin_state", plugin="calc", state="not loaded") == 1
    host.load("calc", isolation=isolation)
    for _ in range(3):
        host.execute("calc", {})
    with pytest.raises(PluginFailed):
        host.execute("calc", {"fails": True})
    text = host.metrics()
    assert lint(text) == []
    assert read(host, "hostkit_calls_total", plugin="calc", outcome="ok") == 3
    assert read(host, "hostkit_calls_total", plugin="calc", outcome="PluginFailed") == 1
    assert read(host, "hostkit_call_duration_seconds_count", plugin="calc") == 4
    assert read(host, "hostkit_plugin_state", plugin="calc", state="loaded") == 1
    assert read(host, "hostkit_breaker_state", plugin="calc", state="closed") == 1
    assert 'version="1.2.3"' in next(line for line in text.splitlines() if line.startswith("hostkit_plugin_info"))
    isolated = isolation != "none"
    assert (read(host, "hostkit_workers", plugin="calc", state="serving") == 1) is isolated
    assert ((read(host, "hostkit_workers_resident_memory_bytes", plugin="calc") or 0) > 1_000_000) is isolated
    assert read(host, "hostkit_host_resident_memory_bytes") > 1_000_000


def test_calls_in_flight_and_calls_that_wait_are_told_apart(watched, tmp_path, until):
    host = watched()
    host.load("calc", isolation="process")
    begun = tmp_path / "begun"
    running = host.submit("calc", {"begun": str(begun)})
    until(begun.exists)
    waiting = host.submit("calc", {})
    until(lambda: read(host, "hostkit_calls_waiting", plugin="calc") == 1)
    assert read(host, "hostkit_calls_in_flight", plugin="calc") == 2
    running.cancel()
    assert waiting.result(10) == {}
    until(lambda: read(host, "hostkit_calls_in_flight", plugin="calc") == 0)
    assert read(host, "hostkit_calls_waiting", plugin="calc") == 0


def test_counters_never_go_back_when_a_worker_dies_or_the_plugin_moves(watched, until):
    host = watched()
    host.load("calc", isolation="process")

    def counters():
        return {
            key: value for key, value in samples(host.metrics()).items() if key[0].endswith(("_total", "_count", "_sum", "_bucket"))
        }

    before = counters()
    for step in ("kill", "reload", "none", "unload", "process"):
        if step == "kill":
            pid = host._loader.telemetry._source.snapshot()["plugins"][0]["workers"][0]["pid"]
            os.kill(pid, signal.SIGKILL)
            until(lambda: read(host, "hostkit_worker_restarts_total", plugin="calc") == 1)
        elif step == "reload":
            host.reload("calc")
        elif step == "unload":
            host.unload("calc")
        else:
            host.load("calc", isolation=step) if step == "process" else host.reload("calc", isolation=step)
        for _ in range(20):
            if step != "unload":
                host.execute("calc", {})
            after = counters()
            back = {key: (value, after.get(key)) for key, value in before.items() if value and after.get(key, 0) < value}
            assert not back, (step, back)
            before = after


def test_a_port_that_is_taken_is_a_configuration_error_and_leaves_nothing_behind(watched):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"listen: 127.0.0.1:{port} can't be listened on: Address already in use"):
            watched(listen=f"127.0.0.1:{port}")


@pytest.mark.parametrize("listen", [":9464", "host:99999", "::1:9464", "a b:1", "http://127.0.0.1:9464", "", -1, 1.5])
def test_an_address_that_is_none_is_a_configuration_error(watched, listen):
    with pytest.raises(ConfigError, match="exporters.prometheus.listen"):
        watched(listen=listen)


def test_a_port_alone_is_on_loopback(watched):
    host = watched(listen=0)
    assert served(host).startswith("http://127.0.0.1:")


def served(host):
    (delivery,) = host._loader.telemetry.deliveries
    return delivery.exporter.scrapes.address


def test_hosts_of_one_process_have_their_own_metrics(watched):
    from prometheus_client import REGISTRY

    class P:
        def execute(self, ctx, request):
            return request

    hosts = [watched("one", listen="127.0.0.1:0"), watched("two", listen="127.0.0.1:0")]
    for host, calls in zip(hosts, (1, 2), strict=True):
        host.register(P, name="calc", isolation="none")
        for _ in range(calls):
            host.execute("calc", {})
    for host, calls in zip(hosts, (1, 2), strict=True):
        with urllib.request.urlopen(served(host), timeout=5) as answer:
            found = samples(answer.read().decode())
        assert found["hostkit_calls_total", frozenset({"app": host.app, "plugin": "calc", "outcome": "ok"}.items())] == calls
        assert {dict(labels)["app"] for _, labels in found} == {host.app}
    assert not [family for family in REGISTRY.collect() if family.name.startswith("hostkit")]


def test_calls_go_on_beside_clients_of_every_kind_and_the_host_closes_at_once(watched):
    host = watched(listen="127.0.0.1:0")
    host.load("calc", isolation="none")
    address = served(host)
    port = int(address.rpartition(":")[2].partition("/")[0])
    done = threading.Event()
    texts = []

    def scrape():
        while not done.is_set():
            with urllib.request.urlopen(address, timeout=5) as answer:
                texts.append(answer.read().decode())

    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        scrapers = [threading.Thread(target=scrape) for _ in range(2)]
        for thread in scrapers:
            thread.start()
        for _ in range(500):
            host.execute("calc", {})
        done.set()
        for thread in scrapers:
            thread.join()
        assert texts and lint(texts[-1]) == []
        assert read(host, "hostkit_calls_total", plugin="calc", outcome="ok") == 500
        began = time.monotonic()
        host.close()
        assert time.monotonic() - began < 1.0
    with pytest.raises(ConfigError, match="exporters.prometheus"):
        host.metrics()


def test_a_fork_holds_no_port_of_its_parent(script):
    program = """
        import socket
        from prometheus_client.parser import text_string_to_metric_families
        port = host._loader.telemetry.deliveries[0].exporter.scrapes.server_address[1]
        client = socket.create_connection(("127.0.0.1", port))
        ready, release = os.pipe(), os.pipe()
        if os.fork() == 0:
            host.close()
            os.write(ready[1], b"x")
            os.read(release[0], 1)
            os._exit(0)
        os.read(ready[0], 1)
        assert b" 200 " in (client.sendall(b"GET /metrics HTTP/1.0\\r\\n\\r\\n"), client.recv(99))[1]
        host.close()
        client.settimeout(5)
        while client.recv(65536):
            pass
        socket.create_server(("127.0.0.1", port)).close()
        os.write(release[1], b"x")
        os.wait()
        told("free")
    """
    load = "import warnings\nwarnings.simplefilter('ignore')\nhost = hostkit.Host(config={'exporters': {'prometheus': {'listen': '127.0.0.1:0'}}})\n"
    process = script(program, load=load)
    out, err = process.communicate(timeout=30)
    assert (out, err) == ("free\n", "")


def test_without_the_package_the_error_names_the_command(watched, monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    for name in [name for name in sys.modules if name.startswith(("prometheus_client.", "hostkit._exporters._"))]:
        if not name.endswith(("_base", "_loguru")):
            monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError, match=r"pip install 'hostkit\[prometheus\]'"):
        watched()


def test_an_operator_gets_the_same_text(new_host, tmp_path):
    host = new_host(config={"exporters": {"prometheus": {}}}, admin=tmp_path / "admin.sock")
    with Attached(tmp_path / "admin.sock") as attached:
        text = attached.ask("metrics")["text"]
    assert lint(text) == []
    assert samples(text).keys() == samples(host.metrics()).keys()


def test_without_a_table_there_are_no_metrics_and_the_error_says_why(host):
    with pytest.raises(ConfigError, match=r"no metrics: \[exporters.prometheus\] isn't in the configuration"):
        host.metrics()


def test_a_configuration_that_changes_opens_and_closes_the_port(install, new_host, tmp_path):
    install("calc", SOURCE)
    file = tmp_path / "hostkit.toml"
    file.write_text('[exporters.prometheus]\nlisten = "127.0.0.1:0"\n')
    host = new_host(config=file)
    first = served(host)
    host.execute("calc", {})
    file.write_text("[exporters.prometheus]\n")
    assert host.reload_config() == ("exporters.prometheus {listen = 127.0.0.1:0} → {}",)
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(first, timeout=5)
    assert read(host, "hostkit_calls_total", plugin="calc", outcome="ok") == 1
    file.write_text("")
    host.reload_config()
    with pytest.raises(ConfigError):
        host.metrics()
