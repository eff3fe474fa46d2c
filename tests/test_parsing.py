from __future__ import annotations

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hostkit._parsing import MANIFEST_LIMIT, SIZE_LIMIT, SUFFIXES, Unreadable, parse, read, value


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".json", '{"name": "calc", "limits": {"memory": 256}, "tags": ["a", "b"], "ratio": 0.5, "on": true}'),
        (".toml", 'name = "calc"\ntags = ["a", "b"]\nratio = 0.5\non = true\n[limits]\nmemory = 256\n'),
        (".yaml", "name: calc\nlimits:\n  memory: 256\ntags: [a, b]\nratio: 0.5\non_: 1\n'on': true\n"),
        (".yml", "{name: calc, limits: {memory: 256}, tags: [a, b], ratio: 0.5, 'on': true}"),
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_the_same_data_is_read_from_every_format_and_line_end(suffix, text, line_end):
    found = parse(text.replace("\n", line_end).encode(), suffix)
    found.pop("on_", None)
    assert found == {"name": "calc", "limits": {"memory": 256}, "tags": ["a", "b"], "ratio": 0.5, "on": True}


# What every parser must refuse: suffix, text, words of the reason.
HOSTILE = [
    (".json", "", "Expecting value"),
    (".json", "[]", "expected a mapping at the top, found a list"),
    (".json", "null", "found nothing"),
    (".json", '"text"', "found text"),
    (".json", '{"a": 1', "Expecting"),
    (".json", '{"a": 1, "a": 2}', "'a' twice"),
    (".json", '{"a": {"b": 1, "b": 2}}', "'b' twice"),
    (".json", '{"a": NaN}', "NaN is not JSON"),
    (".json", '{"a": Infinity}', "Infinity is not JSON"),
    (".json", '{"a": -Infinity}', "-Infinity is not JSON"),
    (".json", '{"a": 1e999}', "a: has the number inf"),
    (".json", '{"a": -1e999}', "a: has the number -inf"),
    (".json", '{"a": 1' + "0" * 400 + "}", "a: has a number beyond 64 bits"),
    (".json", '{"a": ' + "1" * 5000 + "}", "digits"),
    (".json", '{"a": {"b": [0, 18446744073709551616]}}', "a.b.1: has a number beyond 64 bits"),
    (".json", '{"a": "\\ud800"}', "a: has half a character"),
    (".json", '{"\\udfff": 1}', "half a character"),
    (".json", '{"a": ' + "[" * 10_000 + "]" * 10_000 + "}", "nested deeper than 32 levels"),
    (".json", '{"a": ' * 4_000 + "1" + "}" * 4_000, "nested deeper than 32 levels"),
    (".json", '{"a": ' + "[" * 33 + "]" * 33 + "}", "nested deeper than 32 levels"),
    (".json", "{'a': 1}", "Expecting property name"),
    (".json", '{"a": 1} // comment', "Extra data"),
    (".json", "{}\0", "NUL"),
    (".json", "\ufeff{}", "byte order mark"),
    (".toml", "\ufeffa = 1", "byte order mark"),
    (".toml", "a = 1\na = 2", "Cannot overwrite"),
    (".toml", "[a]\n[a]", "twice"),
    (".toml", "a = 2001-01-01", "a: has a date; write it as text"),
    (".toml", "a = 2001-01-01T01:01:01Z", "a: has a datetime; write it as text"),
    (".toml", "a = 01:01:01", "a: has a time; write it as text"),
    (".toml", "a = inf", "a: has the number inf"),
    (".toml", "a = nan", "a: has the number nan"),
    (".toml", "a = 1e400", "a: has the number inf"),
    (".toml", "a = 0x" + "f" * 20_000, "beyond 64 bits"),
    (".toml", "a = " + "9" * 20_000, "digits"),
    (".toml", "a" + ".a" * 10_000 + " = 1", "key of more than 32 parts"),
    (".toml", "[a" + ".a" * 10_000 + "]", "key of more than 32 parts"),
    (".toml", "x = { a" + " . a" * 6_000 + " = 1 }", "key of more than 32 parts"),
    (".toml", '"a"' + '."a"' * 5_000 + " = 1", "key of more than 32 parts"),
    (".toml", "a = " + "[" * 10_000 + "]" * 10_000, "nested deeper than 32 levels"),
    (".toml", "a = " + "{a=" * 8_000 + "1" + "}" * 8_000, "nested deeper than 32 levels"),
    (".toml", "a = 'unfinished", "Expected"),
    (".toml", "a =", "Invalid value"),
    (".toml", "a = 1\0", "NUL"),
    (".yaml", "", "found nothing"),
    (".yaml", "# nothing", "found nothing"),
    (".yaml", "text", "found text"),
    (".yaml", "- a", "found a list"),
    (".yaml", "a: &x [1]\nb: *x", "alias"),
    (".yaml", "a: &a [x]\n" + "".join(f"{k}: &{k} [*{p}, *{p}]\n" for p, k in zip("abcdefgh", "bcdefghi")), "alias"),
    (".yaml", "a: 1\na: 2", "'a' twice"),
    (".yaml", "a: {b: 1, 'b': 2}", "'b' twice"),
    (".yaml", "1: 2", "the key '1'; keys are text"),
    (".yaml", "true: 2", "keys are text"),
    (".yaml", "on: 2", "keys are text"),
    (".yaml", "? [a]\n: 1", "keys are text"),
    (".yaml", "<<: {a: 1}", "keys are text"),
    (
        ".yaml",
        "a: !!python/object/apply:os.system ['true']",
        "has the tag 'tag:yaml.org,2002:python/object/apply:os.system'",
    ),
    (".yaml", "!!python/object/new:type {}", "has the tag"),
    (".yaml", "a: !!python/name:os.system", "has the tag"),
    (".yaml", "a: !local x", "has the tag '!local'"),
    (".yaml", "a: !!binary aGk=", "has the tag"),
    (".yaml", "a: !!set {x, y}", "has the tag"),
    (".yaml", "a: !!omap [x: 1]", "has the tag"),
    (".yaml", "a: 2001-01-01", "a: has a date; write it as text"),
    (".yaml", "a: 2001-01-01 10:00:00", "a: has a datetime; write it as text"),
    (".yaml", "a: .inf", "a: has the number inf"),
    (".yaml", "a: [1, -.Inf]", "a.1: has the number -inf"),
    (".yaml", "a: .nan", "a: has the number nan"),
    (".yaml", "a: 1.0e+999", "a: has the number inf"),
    (".yaml", "a: 99999999999999999999", "beyond 64 bits"),
    (".yaml", "a: 1" + ":1" * 10_000, "a number of 20001 characters"),
    (".yaml", "a: 1" + ":1" * 10_000 + ".5", "a number of"),
    (".yaml", "a: " + "1" * 10_000, "a number of 10000 characters"),
    (".yaml", "a: 0x" + "f" * 10_000, "a number of"),
    (".yaml", "[" * 30_000, "nested deeper than 32 levels"),
    (".yaml", "{a: " * 8_000, "nested deeper than 32 levels"),
    (".yaml", "- " * 15_000, "nested deeper than 32 levels"),
    (".yaml", "? " * 15_000, "nested deeper than 32 levels"),
    (".yaml", "".join(" " * depth + "a:\n" for depth in range(200)), "nested deeper than 32 levels"),
    (".yaml", "a: [" + "b," * 16_000 + "b]", "more than 1024 values"),
    (".yaml", "a: 1\n---\nb: 2", "single document"),
    (".yaml", "a: b: c", "mapping values are not allowed"),
    (".yaml", "a: '", "quoted scalar"),
    (".yaml", "\ta: 1", "cannot start any token"),
    (".yaml", "a: \x07", "not allowed"),
    (".yaml", "%YAML 9.9\n---\na: 1", "incompatible YAML"),
    (".yaml", "a: 1\0", "NUL"),
]


@pytest.mark.parametrize(("suffix", "text", "reason"), HOSTILE, ids=[f"{each[0][1:]}-{each[1][:24]!a}" for each in HOSTILE])
def test_what_is_no_plain_data_is_refused_with_a_reason(suffix, text, reason):
    with pytest.raises(Unreadable) as caught:
        parse(text.encode(), suffix, limit=MANIFEST_LIMIT)
    assert reason.lower() in str(caught.value).lower()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("suffix", "text", "line"),
    [
        (".toml", "a = 1\n[b\n", 2),
        (".toml", "\na = 'x", 2),
        (".toml", "a = 1\n\na = 2\n", 3),
        (".toml", "\n[t]\nd = 2001-01-01", 3),
        (".toml", "\na" + ".a" * 40 + " = 1", 2),
        (".json", '{"a": 1,\nb}', 2),
        (".json", '{"a": {"q": 1},\n"b": {"q": 2,\n"q": 3}}', 3),
        (".json", '{"a": [1,\n1e999]}', 2),
        (".json", "[\n]", None),
        (".yaml", "a: 1\nb: c: d", 2),
        (".yaml", "a: 1\nb: 2\na: 3", 3),
        (".yaml", "a: 1\n\nb: *a", 3),
        (".yaml", "a: 1\nb: !x 1", 2),
        (".yaml", "a: 1\n2: b", 2),
        (".yaml", "a: 1\nb: \x07", 2),
        (".yaml", "a: 1\nb:\n- 1\n- .inf", 4),
        (".yaml", "a: 1\n\0", 2),
        (".json", "{\n\udcff}", 2),
    ],
)
def test_the_line_is_told_where_it_is_known(suffix, text, line):
    with pytest.raises(Unreadable) as caught:
        parse(text.encode("utf-8", "surrogateescape"), suffix)
    assert caught.value.line == line
    assert "line" not in str(caught.value)
    assert caught.value.at("file").startswith("file: " if line is None else f"file:{line}: ")


def test_a_document_knows_the_line_of_its_keys():
    document = parse(b"[tool.other]\na = 1\n[tool.hostkit]\nb.c = 3\n", ".toml", table=("tool", "hostkit"))
    assert (document.line(("b", "c")), document.line(("b", "x", "y")), document.line(("z",)), document.line(())) == (4, 4, 3, 3)
    assert parse(b"{}", ".json").line(("a",)) is None


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("{}".encode("utf-16"), "expected UTF-8 text"),
        ("{}".encode("utf-16-le"), "NUL"),
        ("{}".encode("utf-32"), "expected UTF-8 text"),
        ("{}".encode("utf-8-sig"), "byte order mark"),
        (b"\xc0\x80", "expected UTF-8 text"),
        (b"a = '\xff'", "expected UTF-8 text"),
        (b" " * (MANIFEST_LIMIT + 1), f"longer than the {MANIFEST_LIMIT} bytes"),
        (b"#" * 10_000_000, f"longer than the {MANIFEST_LIMIT} bytes"),
        (bytes(range(256)), "expected UTF-8 text"),
    ],
)
def test_bytes_that_are_no_such_text_are_refused_in_every_format(suffix, data, reason):
    with pytest.raises(Unreadable, match=reason):
        parse(data, suffix, limit=MANIFEST_LIMIT)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(), inside, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), plain, max_size=4))
def test_json_data_comes_back_as_it_was(data):
    import json

    try:
        assert parse(json.dumps(data).encode(), ".json") == data
    except Unreadable as refused:
        assert "half a character" in str(refused)


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(data=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))))
@example(data=b"a: 0_1:_")
@example(data=b"? !!str")
@example(data=b"a: 0b")
@example(data=b"a: +_")
@example(data=b"a: 1__0.e")
@example(data=b"a: 0.0.0")
@example(data=b"a: -0x_")
@example(data=b"a: 2001-13-45")
def test_any_bytes_are_a_mapping_or_a_reason(suffix, data):
    try:
        assert isinstance(parse(data, suffix), dict)
    except Unreadable as refused:
        assert str(refused)


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(text=st.lists(st.sampled_from(list("{}[]:,-?&*!|>'\"%@`#=. \n\tab1_0xe+~") + ["\n  ", "<<", ".inf", "true"]), max_size=60))
def test_any_marks_of_the_formats_are_a_mapping_or_a_reason(suffix, text):
    try:
        assert isinstance(parse("".join(text).encode(), suffix), dict)
    except Unreadable as refused:
        assert str(refused)


def test_dots_in_a_text_are_no_parts_of_a_key():
    assert parse(("a = '" + "." * 100 + "'").encode(), ".toml") == {"a": "." * 100}
    assert parse(("a = '''\n" + "." * 100 + "\n'''").encode(), ".toml") == {"a": "." * 100 + "\n"}
    assert parse(("[t]\na = [" + "0.5, " * 100 + "]").encode(), ".toml") == {"t": {"a": [0.5] * 100}}


def test_a_long_text_is_no_number():
    assert parse(("a: " + "word " * 1000).encode(), ".yaml") == {"a": ("word " * 1000).strip()}
    assert parse(("a: '" + "1" * 5000 + "'").encode(), ".yaml") == {"a": "1" * 5000}


def test_a_file_is_read_by_its_suffix(tmp_path):
    path = tmp_path / "plugin.yaml"
    path.write_text("name: calc")
    assert read(path) == {"name": "calc"}
    with pytest.raises(Unreadable, match=r"suffix '\.txt'; expected one of \.json, \.toml, \.yaml, \.yml"):
        read(tmp_path / "plugin.txt")


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "directory.json").mkdir()
    (tmp_path / "dangling.json").symlink_to(tmp_path / "nowhere")
    (tmp_path / "circle.json").symlink_to(tmp_path / "circle.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    for name, reason in [
        ("pipe", "no regular file"),
        ("directory", "no regular file"),
        ("dangling", "No such file"),
        ("circle", "symbolic links"),
        ("zero", "no regular file"),
        ("missing", "No such file"),
        ("nul\0", "null"),
    ]:
        with pytest.raises(Unreadable, match=reason):
            read(tmp_path / f"{name}.json")


def test_no_more_of_a_file_is_read_than_its_limit(tmp_path):
    path = tmp_path / "big.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse: nobody could read it
    with pytest.raises(Unreadable, match=f"longer than the {SIZE_LIMIT} bytes"):
        read(path)


def test_a_table_of_a_file_is_read_and_the_rest_is_not_its_business():
    data = b"[tool.other]\nday = 2001-01-01\n[tool.hostkit.defaults]\ntimeout = 3\n"
    assert parse(data, ".toml", table=("tool", "hostkit")) == {"defaults": {"timeout": 3}}
    with pytest.raises(Unreadable, match=r"has no table \[tool\.hostkit\]"):
        parse(b"[tool.other]", ".toml", table=("tool", "hostkit"))
    with pytest.raises(Unreadable, match=r"has no table \[tool\.hostkit\]"):
        parse(b"", ".toml", table=("tool", "hostkit"))
    with pytest.raises(Unreadable, match="expected a mapping at tool, found a int"):
        parse(b"tool = 3", ".toml", table=("tool", "hostkit"))
    with pytest.raises(Unreadable, match=r"expected a mapping at tool\.hostkit, found text"):
        parse(b"[tool]\nhostkit = 'x'", ".toml", table=("tool", "hostkit"))


@pytest.mark.parametrize(
    ("word", "meaning"),
    [
        ("5s", "5s"),
        ("5", 5),
        ("true", True),
        ("null", None),
        ('["a"]', ["a"]),
        ("", ""),
        ("[", "["),
        ("NaN", "NaN"),
        ('{"a": 1}', {"a": 1}),
    ],
)
def test_a_word_of_the_environment_is_json_or_text(word, meaning):
    assert value(word) == meaning


@pytest.mark.parametrize("word", ["[" * 20_000, "1e999", "9" * 400, "\udc80", "[" * 40 + "]" * 40])
def test_a_word_that_is_no_plain_data_is_refused(word):
    with pytest.raises(Unreadable):
        value(word)
