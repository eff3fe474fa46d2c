"""Whatever text comes from a plugin, it forges no line and paints no terminal: not on the command line, not in the log, not in events."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from loguru import logger

import hostkit
from hostkit._events import Events
from hostkit._log import tell
from hostkit._sinks import flush

# Line breaks of every kind, a colour, a title, letters that turn the writing round, markup of rich and loguru, a record in JSON.
BAD = 'a\nFORGED b\r\x1b[31mred\x1b]0;title\x07\u202eeltit\u2066\u2028FORGED\x85FORGED\x0bFORGED\x00[bold red]x[/bold red]<red>y</red>{"seq":1}'
WORD = BAD.replace("\0", "")  # where there can be no NUL
HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]")

PLUGIN = f"""
    import sys
    from hostkit import HealthStatus, PluginInfo, Status
    BAD = {BAD!r}

    class P:
        def execute(self, ctx, request):
            if request in ("log", "print"):
                ctx.logger.warning(BAD)
                if request == "print":
                    print(BAD)
                    print(BAD, file=sys.stderr)
                return BAD
            if request == "group":
                raise ExceptionGroup(BAD, [type(BAD, (ValueError,), {{"__module__": BAD}})(BAD + "\\ud800")])
            error = type(BAD.replace(chr(0), ""), (Exception,), {{}})(BAD)
            error.add_note(BAD)
            raise error

        def health(self):
            return HealthStatus(Status.UNHEALTHY, message=BAD, metadata={{BAD: BAD}})

        def info(self):
            return PluginInfo(name=BAD, version=BAD, description=BAD, author=BAD, capabilities=(BAD,), metadata={{BAD: BAD, "x": [BAD]}})

        def close(self):
            raise RuntimeError(BAD)
"""

MANIFEST = json.dumps(
    {
        "description": WORD,
        "author": WORD,
        "homepage": WORD,
        "license": WORD,
        "tags": [WORD],
        "capabilities": [WORD],
        "metadata": {WORD: WORD, "list": [WORD]},
    }
)


def harmless(text, *, lines=None):
    """Fail where a text has in it what a terminal or a reader of lines would take for something else."""
    found = HARMFUL.search(text.replace("\r\n", "\n"))
    assert found is None, f"{found[0]!r} in {text[max(0, found.start() - 60) : found.start() + 60]!r}"
    forged = [line for line in text.split("\n") if line.startswith("FORGED")]
    assert not forged, text
    if lines is not None:
        assert len(text.splitlines()) == lines


@pytest.fixture
def hostile(install_demo, site, cli_place):
    """Plugins whose every word is hostile: one that runs, one that can't be loaded, ones that are broken or must not be found."""
    install_demo("p", PLUGIN, manifest=MANIFEST, manifest_name="plugin.json")
    install_demo("raises", f"raise type({BAD!r}.replace(chr(0), ''), (BaseException,), {{}})({BAD!r})\n")
    install_demo("broken", "x = 1\n", manifest=json.dumps({BAD: BAD, "version": [BAD]}), manifest_name="plugin.json")
    install_demo(
        "needy",
        "x = 1\n",
        manifest=json.dumps({"requirements": {"environment_vars": [WORD], "required_plugins": [WORD]}}),
        manifest_name="plugin.json",
    )
    install_demo("missing", "x = 1\n", attribute="y")
    install_demo("spoken", "x = 1\n", version="1.0")
    metadata = next(site.glob("spoken*.dist-info"))
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: spo\x1b[31mken\u202e\nVersion: 1.0\x1b[31m\u202e\x85x\nSummary: {BAD}\n"
    )
    (metadata / "entry_points.txt").write_text("[demo.plugins]\nspo\x1b[31mken\u202e[bold] = spo\x1b[31mken:P\u202e\n")
    place = site.parent / "plugins" / "dir\x1b[31m\u202e"
    place.mkdir(parents=True)
    (place / "plugin.json").write_text(MANIFEST)
    (cli_place / "hostkit.toml").write_text(
        f'[discovery]\npaths = [{json.dumps(str(place.parent))}]\n[audit]\nfile = "audit.jsonl"\n[plugins.p]\nclose_timeout = 1\n'
    )


VERBS = [
    ("list",),
    ("list", "--all"),
    ("info", "p"),
    ("info", "p", "--static"),
    ("info", "broken"),
    ("info", "needy"),
    ("info", "spo\x1b[31mken\u202e[bold]"),
    ("info", WORD),
    ("health",),
    ("health", "-v", "p"),
    ("doctor",),
    ("config", "show"),
    ("config", "show", "p"),
    ("config", "check"),
    ("execute", "p", '"log"'),
    ("execute", "p", '"print"', "--isolation", "process"),  # in-process it would write to the terminal itself
    ("execute", "p", '"fail"'),
    ("execute", "p", '"fail"', "-v", "--isolation", "process"),
    ("execute", "p", '"group"', "-vv"),
    ("execute", "raises", "-v"),
    ("execute", "raises", "-v", "--isolation", "process"),
    ("execute", "broken"),
    ("execute", "missing"),
    ("execute", WORD),
    ("isolate", "p", WORD),
    ("isolate", WORD, "process"),
    ("audit", "show"),
    ("audit", "verify"),
    ("audit", "verify", WORD),
    ("audit", "verify", "--head", WORD),
]


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: " ".join(part[:9] for part in verb).encode("unicode_escape").decode())
def test_no_verb_prints_what_it_was_given_by_a_plugin_as_it_is(cli, hostile, verb, as_json):
    if verb[0] == "audit":
        write_hostile_log(Path("audit.jsonl"))
    result = cli(*verb, *(["--json"] if as_json else []))
    assert result.exit_code in (0, 1, 2, 3), result.output
    assert "fault in hostkit" not in result.stderr
    harmless(result.stdout)
    harmless(result.stderr)
    if as_json:
        for line in [*result.stderr.splitlines(), *([result.stdout] if result.stdout else [])]:
            json.loads(line)


def write_hostile_log(path):
    host = hostkit.Host("demo", config={"audit": {"file": str(path)}})
    for event in every_event():
        host._loader.audit.heard(event)
    host.close()
    with path.open("ab") as file:
        file.write(BAD.encode() + b"\n")


def every_event():
    return [
        hostkit.PluginLoaded(BAD, BAD, {BAD: BAD, "list": [BAD]}),
        hostkit.PluginRefused(BAD, BAD, BAD),
        hostkit.PluginUnloaded(BAD, BAD),
        hostkit.IsolationChanged(BAD, BAD, BAD, BAD),
        hostkit.BreakerChanged(BAD, BAD, BAD, BAD),
        hostkit.HealthChanged(BAD, BAD, BAD, BAD),
        hostkit.HostTampered(BAD, (BAD,)),
        hostkit.SandboxDenied(BAD, BAD, BAD),
        hostkit.SandboxViolated(BAD, BAD),
        hostkit.LockChanged(BAD, BAD, BAD, BAD),
        hostkit.ConfigApplied(BAD, BAD, (BAD,)),
        hostkit.ConfigRefused(BAD, BAD, BAD),
    ]


@pytest.mark.parametrize("event", every_event(), ids=lambda event: type(event).__name__)
def test_no_event_says_what_it_quotes_as_it_is(event):
    harmless(str(event), lines=1)


@pytest.mark.parametrize("verb", ["list", "health"])
def test_no_table_on_a_terminal_does(cli_terminal, hostile, verb, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")  # for which rich has no colours of its own
    shown = cli_terminal(verb, status=1 if verb == "health" else 0)
    harmless(shown)
    assert "[bold red]x" in re.sub(r"\s*\n\s*", "", shown)  # no markup either


def everything(host, isolation):
    """Let a plugin say all that it can, and its errors be told."""
    for request in ("log", "print", "fail", "group"):
        try:
            host.execute("p", request)
        except hostkit.HostkitError:
            pass
    host.health()
    host.info("p")
    for name in ("raises", "broken", "needy", "missing", "spo\x1b[31mken\u202e[bold]"):
        try:
            host.load(name, isolation=isolation)
        except hostkit.HostkitError:
            pass
    host.close()


def test_no_record_of_the_log_has_it(hostile, new_host, isolation, tmp_path):
    records, lines = [], []
    host = new_host("demo", config="hostkit.toml")
    events = []
    host.subscribe(events.append)
    sinks = [
        logger.add(lambda message: records.append(message.record), level=0),
        logger.add(lines.append, format="{level} {extra[plugin]} {message}", level=0, colorize=True),
        logger.add(tmp_path / "log", serialize=True, level=0),
    ]
    logger.enable("hostkit")
    try:
        host.load("p", isolation=isolation)
        everything(host, isolation)
        assert flush(5)
    finally:
        logger.disable("hostkit")
        for sink in sinks:
            logger.remove(sink)
    assert len(records) > 5
    for record in records:
        # What a worker prints is a record for each of its lines, so each begins as the plugin likes.
        printed = record["extra"].get("source") in ("stdout", "stderr")
        harmless(("> " if printed else "") + record["message"])
        harmless(" ".join(map(str, record["extra"].values())), lines=None)
    for line in (tmp_path / "log").read_text().splitlines():
        json.loads(line)
    for event in events:
        harmless(str(event), lines=1)
    harmless(Path("audit.jsonl").read_text())
    assert all(len(json.loads(line)["hash"]) == 64 for line in Path("audit.jsonl").read_text().splitlines())


@pytest.mark.parametrize("event", every_event(), ids=lambda event: type(event).__name__)
def test_neither_does_the_record_of_an_event(event):
    records = []
    sink = logger.add(lambda message: records.append(message.record), level=0)
    logger.enable("hostkit")
    try:
        Events().emit(event)
        tell("INFO", BAD, plugin=BAD, request_id=BAD)
        assert flush(5)
    finally:
        logger.disable("hostkit")
        logger.remove(sink)
    assert len(records) == 2
    for record in records:
        harmless(record["message"])
        harmless(record["extra"]["plugin"], lines=1)
        harmless(record["extra"]["request_id"])
