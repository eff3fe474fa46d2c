"""``hostkit execute``: answers, statuses, and what is told where; in every place where a plugin can run."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest

import hostkit
from hostkit.cli._status import status_of

PLUGIN = """
    import dataclasses
    import os
    import pathlib
    import subprocess
    import sys
    import time

    import hostkit

    pathlib.Path(__file__).with_name("imported").touch()

    class P:
        def execute(self, ctx, request):
            return getattr(self, request.pop("do", "echo"))(ctx, request)

        def echo(self, ctx, request):
            return request

        def context(self, ctx, request):
            return [ctx.request_id, dict(ctx.headers), dict(ctx.metadata), ctx.max_retries, ctx.timeout]

        def prints(self, ctx, request):
            print("printed")
            os.write(1, b"written\\n")
            subprocess.run([sys.executable, "-c", "print('by a child')"])
            return "answer"

        def raises(self, ctx, request):
            raise ValueError(request["text"])

        def sleeps(self, ctx, request):
            time.sleep(request["seconds"])

        def nonsense(self, ctx, request):
            return float("nan")

        def dies(self, ctx, request):
            os._exit(7)

        def flaky(self, ctx, request):
            if ctx.attempt < 3:
                raise hostkit.RetryableError("not yet")
            return ctx.attempt

        def logs(self, ctx, request):
            ctx.logger.warning("care")
            ctx.logger.info("more")
            ctx.logger.debug("most")

        def c1(self, ctx, request):
            return {"k\\x9b": "a\\x1b[31m\\x7f\\u202e\\u2028é"}
"""

STREAM = """
    class P:
        def execute(self, ctx, request):
            for index in range(request["count"]):
                if index == request.get("fails_at"):
                    raise ValueError("enough")
                yield {"index": index}
"""

TYPED = """
    import dataclasses

    @dataclasses.dataclass
    class Request:
        operation: str
        a: float = 0.0

    class P:
        def execute(self, ctx, request: Request):
            return [request.operation, request.a]
"""


@pytest.fixture
def plugin(install_demo):
    install_demo("plugin", PLUGIN)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (['{"a": 1, "b": [1.5, null, "é"]}'], {"a": 1, "b": [1.5, None, "é"]}),
        (
            ["a=1", "b=[1.5, null]", "c=text", "d=", "e=a=b", 'f="2"', "é=ü"],
            {"a": 1, "b": [1.5, None], "c": "text", "d": "", "e": "a=b", "f": "2", "é": "ü"},
        ),
        (["text=true story", "flag=true"], {"text": "true story", "flag": True}),
        (["a=1"], {"a": 1}),
        ([' {"a=b": 1}'], {"a=b": 1}),
        ([], {}),
    ],
)
def test_the_request_is_json_or_pairs(cli, install_demo, words, answer):
    install_demo("plugin", PLUGIN)
    result = cli("execute", "plugin", *words)
    assert (json.loads(result.stdout), result.stderr, result.exit_code) == (answer, "", 0)


@pytest.mark.parametrize("text", ['"text"', "17", "null", "[1, 2]", '"a=b"'])
def test_a_request_can_be_any_json(cli, install_demo, text):
    install_demo("plugin", "class P:\n    def execute(self, ctx, request):\n        return request\n")
    assert json.loads(cli("execute", "plugin", text).stdout) == json.loads(text)


def test_the_request_can_come_on_stdin(cli, plugin, isolation):
    result = cli("execute", "plugin", "-", "--isolation", isolation, input='{"a": "é"}\n'.encode())
    assert result.stdout == '{"a":"é"}\n'


def test_the_answer_is_one_line_on_a_pipe_and_stands_there_alone(cli_process, plugin, isolation):
    process = cli_process("execute", "plugin", "do=prints", "--isolation", isolation, "-v")
    out, err = process.communicate()
    assert (out, process.returncode) == ('"answer"\n', 0)
    assert "printed" in err
    assert "written" in err
    assert "by a child" in err


def test_the_answer_is_indented_on_a_terminal_and_cannot_paint_it(cli_process, plugin):
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        process = cli_process("execute", "plugin", "do=c1", stdout=theirs)
        os.close(theirs)
        assert process.communicate()[1] == ""
        shown = terminal.read(65536).decode().replace("\r\n", "\n")
    assert shown == '{\n  "k\\u009b": "a\\u001b[31m\\u007f\\u202e\\u2028é"\n}\n'
    assert json.loads(shown) == {"k\x9b": "a\x1b[31m\x7f\u202e\u2028é"}


def test_an_output_that_is_not_utf8_gets_ascii(plugin, cli_place):
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    command = [sys.executable, "-m", "hostkit", "--app", "demo", "execute", "plugin", "a=€"]
    assert subprocess.run(command, env=environment, capture_output=True, check=True).stdout == b'{"a":"\\u20ac"}\n'


def test_a_stream_is_a_line_an_item(cli, install_demo, isolation):
    install_demo("counter", STREAM)
    result = cli("execute", "counter", "count=3", "--isolation", isolation)
    assert result.stdout == '{"index":0}\n{"index":1}\n{"index":2}\n'
    assert cli("execute", "counter", "count=0", "--isolation", isolation).stdout == ""


def test_a_stream_that_fails_keeps_the_items_before(cli, install_demo, isolation):
    install_demo("counter", STREAM)
    result = cli("execute", "counter", "count=3", "fails_at=2", "--isolation", isolation)
    assert result.stdout == '{"index":0}\n{"index":1}\n'
    assert "ValueError: enough" in result.stderr
    assert result.exit_code == 1


def test_the_items_of_a_stream_come_as_they_are_made(cli_process, install_demo, isolation):
    install_demo(
        "endless",
        "import itertools\nclass P:\n    def execute(self, ctx, request):\n        yield 1\n        ctx._caller and __import__('threading').Event().wait()\n",
    )
    process = cli_process("execute", "endless", "--isolation", isolation)
    assert process.stdout.readline() == "1\n"


def test_a_reader_that_goes_away_ends_a_stream_quietly(cli_process, install_demo, isolation):
    install_demo(
        "endless", "import itertools\nclass P:\n    def execute(self, ctx, request):\n        yield from itertools.count()\n"
    )
    process = cli_process("execute", "endless", "--isolation", isolation)
    assert process.stdout.readline() == "0\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141


@pytest.mark.parametrize(
    "arguments", [["list"], ["--help"], ["--version"], ["list", "--help"], ["info", "plugin", "--static"], ["execute", "plugin"]]
)
def test_a_reader_that_was_never_there_is_no_fault(cli_process, plugin, arguments):
    process = cli_process(*arguments)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141


def test_an_output_that_takes_nothing_is_a_sentence(cli_process, plugin):
    with open("/dev/full", "w") as full:
        process = cli_process("execute", "plugin", stdout=full)
    assert process.stderr.read() == "hostkit: OutputFailed: stdout can't be written to: No space left on device\n"
    assert process.wait() == 70


def test_a_closed_stdout_is_a_sentence(cli_process, plugin):
    process = cli_process("execute", "plugin", preexec_fn=lambda: os.close(1))
    assert process.stderr.read() == "hostkit: OutputFailed: stdout is closed\n"
    assert process.wait() == 70


def test_options_of_the_call_reach_the_plugin(cli, plugin, isolation):
    options = [
        "--header",
        "a=1",
        "--header",
        "b=x=y",
        "--metadata",
        '{"tenant": [1]}',
        "--request-id",
        "r-1",
        "--max-retries",
        "2",
        "--timeout",
        "20s",
    ]
    result = cli("execute", "plugin", "do=context", "--isolation", isolation, *options)
    request_id, headers, metadata, retries, timeout = json.loads(result.stdout)
    assert (request_id, headers, metadata, retries) == ("r-1", {"a": "1", "b": "x=y"}, {"tenant": [1]}, 2)
    assert 19 < timeout <= 20


@pytest.mark.parametrize(("text", "seconds"), [("90", 90.0), ("1.5s", 1.5), ("5000ms", 5.0), ("2m", 120.0), ("none", None)])
def test_a_timeout_is_seconds_or_a_text(cli, plugin, text, seconds):
    assert json.loads(cli("execute", "plugin", "do=context", "--timeout", text).stdout)[4] == seconds


def test_a_call_that_may_be_repeated_is(cli, plugin, isolation):
    assert cli("execute", "plugin", "do=flaky", "--max-retries", "2", "--isolation", isolation).stdout == "3\n"
    assert cli("execute", "plugin", "do=flaky", "--isolation", isolation).exit_code == 1


@pytest.mark.parametrize(
    ("words", "status", "kind"),
    [
        (["do=raises", "text=boom"], 1, "PluginFailed"),
        (["do=nonsense"], 1, "InvalidResponse"),
        (["do=sleeps", "seconds=0.3", "--timeout", "100ms"], 4, "CallTimeout"),
        (["--timeout", "0"], 4, "CallTimeout"),
    ],
)
def test_how_a_call_ends_is_the_exit_status(cli, plugin, isolation, words, status, kind):
    result = cli("execute", "plugin", *words, "--isolation", isolation)
    assert (result.exit_code, result.stdout) == (status, "")
    assert result.stderr.startswith(f"hostkit: {kind}: plugin 'plugin'")
    as_json = cli("execute", "plugin", *words, "--isolation", isolation, "--json")
    error = json.loads(as_json.stderr)["error"]
    assert (error["type"], error["status"], error["plugin"]) == (kind, status, "plugin")
    assert as_json.exit_code == status


def test_every_error_has_its_status():
    expected = {
        2: {"InvalidRequest", "ConfigError"},
        4: {"CallTimeout"},
        5: {
            "WorkerLost",
            "WorkerCrashed",
            "WorkerExited",
            "WorkerKilled",
            "WorkerHung",
            "MemoryExceeded",
            "CpuExceeded",
            "ProcessesExceeded",
            "SandboxViolation",
            "ProtocolError",
        },
        1: {"PluginFailed", "InvalidResponse", "CallCancelled", "CallError"},
    }
    errors = [
        value
        for name in hostkit.__all__
        if isinstance(value := getattr(hostkit, name), type) and issubclass(value, hostkit.HostkitError)
    ]
    for error in errors:
        status = next((status for status, names in expected.items() if error.__name__ in names), 3)
        assert status_of(error("words")) == status, error


def test_a_lost_worker_is_a_status_of_its_own(cli, plugin):
    result = cli("execute", "plugin", "do=dies", "--isolation", "process")
    assert result.exit_code == 5
    assert "hostkit: WorkerExited: plugin 'plugin': its worker exited with status 7" in result.stderr
    told = [
        json.loads(line) for line in cli("execute", "plugin", "do=dies", "--isolation", "process", "--json").stderr.splitlines()
    ]
    assert (told[-1]["error"]["type"], told[-1]["error"]["exit_code"]) == ("WorkerExited", 7)


@pytest.mark.parametrize(
    ("source", "options", "kind"),
    [
        ("raise ImportError('no such thing')", {}, "PluginLoadError"),
        ("import sys; sys.exit(3)", {}, "PluginLoadError"),
        ("class Q: pass", {}, "PluginLoadError"),
        ("class P: pass", {"manifest": "nonsense\n"}, "ManifestError"),
        ("class P: pass", {"manifest": "[requirements]\npython = '<3'\n"}, "RequirementError"),
    ],
)
def test_what_cannot_be_loaded_is_refused(cli, install_demo, isolation, source, options, kind):
    install_demo("plugin", source, **options)
    result = cli("execute", "plugin", "--isolation", isolation)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith(f"hostkit: {kind}: ")
    assert "Traceback" not in result.stderr


def test_what_the_operator_forbids_is_refused(cli, plugin, cli_place):
    (cli_place / "hostkit.toml").write_text("[plugins.plugin]\nenabled = false\n")
    disabled = cli("execute", "plugin")
    assert (disabled.exit_code, "disabled" in disabled.stderr) == (3, True)
    (cli_place / "hostkit.toml").write_text('[plugins.plugin]\nisolation = "process"\n')
    below = cli("execute", "plugin", "--isolation", "none")
    assert below.exit_code == 2
    assert below.stderr.startswith("hostkit: ConfigError: ")


def test_more_calls_than_allowed_is_refused(cli, plugin, cli_place):
    (cli_place / "hostkit.toml").write_text("[plugins.plugin]\nmax_message_mb = 1\nrate = { per_second = 0.001, burst = 1 }\n")
    assert cli("execute", "plugin", "-", input=b'"' + b"x" * (1 << 20) + b'"').exit_code == 2
    assert cli("execute", "plugin").exit_code == 0


def test_a_wrong_field_has_a_did_you_mean(cli, install_demo, isolation):
    install_demo("typed", TYPED)
    result = cli("execute", "typed", "operatoin=add", "--isolation", isolation)
    assert result.exit_code == 2
    assert result.stderr.startswith("hostkit: InvalidRequest: ")
    assert "operation" in result.stderr
    errors = json.loads(cli("execute", "typed", "operation=add", "a=x", "--isolation", isolation, "--json").stderr)["error"][
        "errors"
    ]
    assert [row["path"] for row in errors] == ["a"]


def test_the_plugins_traceback_is_shown_to_those_who_ask(cli, plugin, isolation):
    arguments = ("execute", "plugin", "do=raises", "text=boom", "--isolation", isolation)
    short = cli(*arguments).stderr
    assert short.splitlines()[0] == "hostkit: PluginFailed: plugin 'plugin' raised ValueError: boom"
    assert "Traceback" not in short
    assert "-v" in short
    long = cli(*arguments, "-v").stderr
    assert "Traceback (most recent call last):" in long
    assert 'raise ValueError(request["text"])' in long
    error = json.loads(cli(*arguments, "--json").stderr)["error"]
    assert (error["remote_type"], error["remote_message"], error["retryable"]) == ("ValueError", "boom", False)
    assert "Traceback" in error["remote_traceback"]


def test_what_a_plugin_says_in_an_error_cannot_paint_or_forge(cli, plugin, isolation):
    text = "\x1b[2Ja\nhostkit: all is well\r\x9b31m\u202e"
    request = json.dumps({"do": "raises", "text": text})
    for more in ((), ("-v",)):
        told = cli("execute", "plugin", request, "--isolation", isolation, *more).stderr
        assert set(told) & {"\x1b", "\x9b", "\r", "\u202e"} == set()
        assert len([line for line in told.split("\n") if line.startswith("hostkit:")]) == 1


def test_the_log_is_as_long_as_asked_for(cli, plugin, isolation):
    arguments = ("execute", "plugin", "do=logs", "--isolation", isolation)
    for more, expected in (((), {"care"}), (("-v",), {"care", "more"}), (("-vv",), {"care", "more", "most"})):
        told = cli(*arguments, *more)
        assert told.stdout == "null\n"
        assert {word for word in ("care", "more", "most") if word in told.stderr} == expected
        lines = [json.loads(line)["log"] for line in cli(*arguments, *more, "--json").stderr.splitlines()]
        assert {line["message"] for line in lines} & {"care", "more", "most"} == expected


def test_an_error_is_told_once(cli, plugin, isolation):
    assert cli("execute", "plugin", "do=raises", "text=boom", "--isolation", isolation).stderr.count("boom") == 1


def test_bytes_and_arrays_are_base64_and_nested_lists(cli, install_demo):
    numpy = pytest.importorskip("numpy")
    assert numpy
    source = """
        from dataclasses import dataclass
        import numpy
        from hostkit import Blob
        @dataclass
        class Request:
            data: Blob
        class P:
            def execute(self, ctx, request: Request) -> dict:
                numbers = numpy.array([[1.5, float("nan")]])
                return {"back": request.data, "numbers": numbers, "complex": numpy.array([1j])}
    """
    install_demo("p", source)
    told = cli("execute", "p", '{"data": "/wA="}')
    assert told.exit_code == 0, told.stderr
    assert json.loads(told.stdout) == {"back": "/wA=", "numbers": [[1.5, None]], "complex": [[0.0, 1.0]]}
