"""What the command line is given and can't use: a typed sentence, status 2 or 3, and nothing is started."""

from __future__ import annotations

import json
import os
import re

import pytest

PLUGIN = """
    import pathlib
    pathlib.Path(__file__).with_name("imported").touch()

    class P:
        def execute(self, ctx, request):
            return request
"""


@pytest.fixture
def plugin(install_demo, site):
    """A plugin that must not be loaded."""
    install_demo("plugin", PLUGIN, manifest='isolation = "process"\n')
    yield
    assert not (site / "plugin" / "imported").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{"], "valid JSON"),
        (["{'a': 1}"], "valid JSON"),
        (["[1,]"], "valid JSON"),
        (['"a'], "valid JSON"),
        (['{"a": NaN}'], "NaN"),
        (["[1, -Infinity]"], "-Infinity"),
        (["NaN"], "NaN"),
        (["a=NaN"], 'a="NaN"'),
        (["a=-Infinity"], "-Infinity"),
        (["a=[NaN]"], "NaN"),
        (['{"a": 1e999}'], "finite"),
        (["a=1e999"], "finite"),
        (["1" * 310], "e308"),
        (["1" * 5000], "e308"),
        ([f"a={'1' * 5000}"], "e308"),
        ([f"a=[{'-' + '9' * 400}]"], "e308"),
        (['{"a": "\\ud800"}'], "surrogate"),
        (["a=\udcff"], "surrogate"),
        (["\udcff=1"], "surrogate"),
        (["[" * 100_000], "nested"),
        (["a=" + "[" * 100_000], "nested"),
        (["a=" + '{"a":' * 20_000], "nested"),
        (['{"a": 1, "a": 2}'], "each key once"),
        (['a={"b": 1, "b": 2}'], "each key once"),
        (["a=1", "a=2"], "each key once"),
        (["a=1", "b"], "key=value"),
        (["a=1", "=2"], "key=value"),
        (["=2"], "key=value"),
        (["a=1", "-"], "key=value"),
        (["{a:", "1}"], "key=value"),
        (["operation"], "JSON, key=value pairs, or - for stdin"),
        ([""], "JSON, key=value pairs, or - for stdin"),
        (["a=1", "--metadata", "[1]"], "a JSON object"),
        (["a=1", "--metadata", "{"], "valid JSON"),
        (["a=1", "--metadata", '{"a": "\\ud800"}'], "surrogate"),
        (["a=1", "--header", "a=\udcff"], "surrogate"),
        (["a=1", "--request-id", "a\nb"], "printable"),
        (["a=1", "--request-id", ""], "printable"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_bad_request_is_refused_before_anything_is_started(cli, plugin, words, said):
    result = cli("execute", "plugin", *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("hostkit: InvalidRequest: plugin 'plugin' can't take this request: ")
    assert said in result.stderr
    assert len(result.stderr) < 2000
    error = json.loads(cli("execute", "plugin", *words, "--json").stderr)["error"]
    assert (error["type"], error["status"]) == ("InvalidRequest", 2)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "nothing"),
        (b" \n", "nothing"),
        (b"{", "valid JSON"),
        (b"\xff\xfe", "UTF-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b"\0", "valid JSON"),
        (b"[" * 100_000, "nested"),
        (b"a=1", "valid JSON"),
        (b'{"a": 1} {"a": 1}', "valid JSON"),
        (b'"' + b"x" * (2 << 20) + b'"', "at most 1048576 bytes"),
        (b" " * (2 << 20), "at most 1048576 bytes"),
        (b'"' + "é".encode() * ((1 << 19) - 1) + b'"', None),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_bad_bytes_on_stdin_are_refused_before_anything_is_started(cli, install_demo, cli_place, site, data, said):
    install_demo("plugin", PLUGIN, manifest='isolation = "process"\n')
    (cli_place / "hostkit.toml").write_text("[defaults]\nmax_message_mb = 1\n")
    result = cli("execute", "plugin", "-", input=data)
    assert (site / "plugin" / "imported").exists() == (said is None)
    if said is None:
        assert result.exit_code == 0
        return
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("hostkit: InvalidRequest: ")
    assert said in result.stderr


def test_a_hundred_megabytes_on_stdin_are_not_read_to_their_end(cli_process, plugin):
    process = cli_process("execute", "plugin", "-", text=False)
    megabyte = b"x" * (1 << 20)
    with pytest.raises(BrokenPipeError):
        for sent in range(100):
            os.write(process.stdin.fileno(), megabyte)
    assert 60 < sent < 70
    assert process.wait() == 2
    told = process.stderr.read()
    assert told.startswith(b"hostkit: InvalidRequest: ")
    assert b"at most 67108864 bytes of JSON (max_message_mb), found more on stdin" in told


def test_a_closed_stdin_is_a_sentence(cli_process, plugin):
    process = cli_process("execute", "plugin", "-", preexec_fn=lambda: os.close(0))
    assert "stdin: it is closed" in process.stderr.read()
    assert process.wait() == 2


@pytest.mark.parametrize(
    "name",
    [
        "nothere",
        "../plugin",
        "plugin/",
        "/etc/passwd",
        "a\nb",
        "a\x1b[31mb",
        "",
        " ",
        "plugin\0"[:6] + "x",
        "\udcff",
        "x" * 5000,
        "plugin:P",
    ],
)
@pytest.mark.parametrize("verb", ["execute", "info", "health"])
def test_a_name_that_is_none_is_not_found(cli, plugin, verb, name):
    result = cli(verb, name)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith("hostkit: PluginNotFound: no plugin ")
    assert result.stderr.count("\n") == 1
    assert "\x1b" not in result.stderr


def test_a_name_that_is_nearly_one_has_a_did_you_mean(cli, plugin):
    assert "did you mean 'plugin'?" in cli("execute", "plugn").stderr
    assert "did you mean 'plugin'?" in cli("info", "--static", "plugn").stderr


def test_arguments_that_are_no_text_are_sentences(cli_process, plugin):
    for arguments, status in (
        ((b"execute", b"plug\xffin"), 3),
        ((b"execute", b"plugin", b"a=\xff"), 2),
        ((b"li\xffst",), 2),
        ((b"execute", b"plugin", b"--isolation", b"\xff"), 2),
    ):
        process = cli_process(*arguments)
        assert process.stderr.read().startswith("hostkit: ")
        assert process.wait() == status


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lst"], "did you mean 'list'?"),
        (["exxecute", "plugin"], "did you mean 'execute'?"),
        (["zzz"], "expected one of list, info, execute"),
        (["list", "--jsn"], "--json"),
        (["--confg", "x", "list"], "--config"),
        (["execute", "plugin", "--isolaton", "none"], "--isolation"),
        (["execute", "plugin", "--isolation", "procezz"], "did you mean 'process'?"),
        (["execute", "plugin", "--isolation", "zzz"], "expected one of none, auto, process"),
        (["info", "plugin", "--isolation", "none "], "did you mean 'none'?"),
        (["execute"], "NAME"),
        (["info"], "NAME"),
        (["info", "a", "b"], "unexpected extra argument"),
        (["list", "a"], "unexpected extra argument"),
        (["execute", "plugin", "--timeout"], "--timeout"),
        (["execute", "plugin", "--timeout", "-1"], "expected seconds"),
        (["execute", "plugin", "--timeout", "nan"], "expected seconds"),
        (["execute", "plugin", "--timeout", "1e9"], "expected seconds"),
        (["execute", "plugin", "--timeout", "5 parsecs"], "expected seconds"),
        (["execute", "plugin", "--timeout", "9" * 19], "at most a year"),
        (["execute", "plugin", "--grace", "none"], "expected seconds"),
        (["execute", "plugin", "--header", "a"], "expected KEY=VALUE"),
        (["execute", "plugin", "--header", "=a"], "expected KEY=VALUE"),
        (["execute", "plugin", "--header", "a=1", "--header", "a=2"], "each key may be given once"),
        (["execute", "plugin", "--max-retries", "-1"], "--max-retries"),
        (["execute", "plugin", "--max-retries", "1000"], "--max-retries"),
        (["execute", "plugin", "--max-retries", "x"], "--max-retries"),
        (["li\x1b[31mst"], "\\x1b[31m"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_wrong_usage_is_a_sentence_with_a_hint(cli, plugin, arguments, said):
    result = cli(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("hostkit: UsageError: ")
    assert said in result.stderr
    assert "\x1b" not in result.stderr
    error = json.loads(cli(*arguments, "--json").stderr)["error"]
    assert (error["type"], error["status"]) == ("UsageError", 2)


def test_without_a_verb_the_help_is_shown_on_stderr(cli):
    result = cli()
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Verbs:" in result.stderr


def test_a_fault_of_hostkit_is_a_sentence_too(cli, plugin, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("hostkit._index.Index.look", broken)
    result = cli("list")
    assert result.exit_code == 70
    assert re.fullmatch(r"hostkit: fault in hostkit at [\w.]*test_cli_input:\d+: ZeroDivisionError: oh\n", result.stderr)
    assert json.loads(cli("list", "--json").stderr)["error"]["status"] == 70
