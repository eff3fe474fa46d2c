"""The line of each key: in every format, whatever stands between the keys."""

from __future__ import annotations

import json

import pytest
import tomlkit
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hostkit._lines import lines, place

TOML = '''\
# [not.a.table]
[a."b.c".'d']
x = 1  # [y] = 2
s = """
[no]
no = 1
"quotes" \\""" and more"""""
m = \'\'\'
[[no.more]]
\'\'\'\'
z.y = [1,
  { q = 2 },  # ]
  "]", \'[\',
]
u = { v = 1, w = { p = "}" } }
[[k.l]]
m = 1
[k]
[[k.l]]
m = 2
[k.l.sub]
o = 1979-05-27T07:32:00Z
"q\\u0041".r = 1.5
\'literal\' = 3'''


def test_the_lines_of_a_toml_text():
    expected = {
        ("a",): 2,
        ("a", "b.c"): 2,
        ("a", "b.c", "d"): 2,
        ("a", "b.c", "d", "x"): 3,
        ("a", "b.c", "d", "s"): 4,
        ("a", "b.c", "d", "m"): 8,
        ("a", "b.c", "d", "z"): 11,
        ("a", "b.c", "d", "z", "y"): 11,
        ("a", "b.c", "d", "u"): 15,
        ("k",): 16,
        ("k", "l"): 16,
        ("k", "l", 0): 16,
        ("k", "l", 0, "m"): 17,
        ("k", "l", 1): 19,
        ("k", "l", 1, "m"): 20,
        ("k", "l", 1, "sub"): 21,
        ("k", "l", 1, "sub", "o"): 22,
        ("k", "l", 1, "sub", "qA"): 23,
        ("k", "l", 1, "sub", "qA", "r"): 23,
        ("k", "l", 1, "sub", "literal"): 24,
    }
    assert lines(TOML, ".toml") == expected
    assert lines(TOML.replace("\n", "\r\n"), ".toml") == expected


JSON = """{"a": {"b": [1, {"c": 2},
    [3,
     4], [], {}],
  "d": "x]}\\"y\\\\", "\\u0041": {} },
 "e": null,

 "f": [
   true
 ]}"""


def test_the_lines_of_a_json_text_are_those_that_a_yaml_parser_finds():
    found = lines(JSON, ".json")
    assert found == lines(JSON, ".yaml")
    assert (found["a", "b", 1, "c"], found["a", "b", 2, 1], found["a", "A"], found[("e",)], found["f", 0]) == (1, 3, 4, 5, 8)


@pytest.mark.parametrize("text", ["{}", "[]", "3", '"a"', " { } ", "\n[\n[]\n]"])
def test_json_without_keys_has_no_lines_of_keys(text):
    assert not [keys for keys in lines(text, ".json") if any(isinstance(key, str) for key in keys)]


def test_json_may_have_tabs_and_escapes_that_yaml_has_not():
    assert lines('{\n\t"a\\/b": 1,\n\t"\\ud83d\\ude00": 2}', ".json") == {("a/b",): 2, ("😀",): 3}


def test_a_place_is_what_editors_know():
    assert (place("a.toml", 3), place("a.toml", None)) == ("a.toml:3", "a.toml")


# Keys with whatever a format has to escape, and texts that look like the format's own marks.
KEYS = st.text(min_size=1, max_size=6, alphabet=st.sampled_from("ab1-_. #\"'[]{}=,:\\é\n\t")) | st.sampled_from(["config", "a.b"])
VALUES = st.recursive(
    st.integers(-5, 5) | st.booleans() | st.text(max_size=12, alphabet=st.sampled_from("a\"'#[]{}=\n\\ \t")),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(KEYS, inside, max_size=3),
    max_leaves=12,
)
TABLES = st.dictionaries(KEYS, VALUES, min_size=1, max_size=4)


@given(TABLES)
def test_the_line_found_in_toml_holds_the_key(data):
    text = tomlkit.dumps(data)
    check(lines(text, ".toml"), data, text.split("\n"), tomlkit_spellings, inline_tables_are_told=False)


@given(TABLES, st.sampled_from([None, 2, "\t"]), st.booleans())
def test_the_line_found_in_json_holds_the_key(data, indent, ascii_only):
    text = json.dumps(data, indent=indent, ensure_ascii=ascii_only)
    check(lines(text, ".json"), data, text.split("\n"), lambda key: [json.dumps(key, ensure_ascii=ascii_only)])


@given(TABLES, st.booleans())
def test_the_line_found_in_yaml_is_the_one_of_the_key(data, flow):
    text = yaml.safe_dump(data, default_flow_style=flow, allow_unicode=True, width=10_000)
    check(lines(text, ".yaml"), data, text.split("\n"), lambda key: [""])


def check(found, data, text, spellings, path=(), inline_tables_are_told=True):
    """Every key of ``data`` has a line that holds it; in TOML those of tables that stand in one line or list have that of the key there."""
    for key, value in data.items():
        keys = (*path, key)
        if keys not in found:
            assert not inline_tables_are_told
            continue
        line = text[found[keys] - 1]
        assert any(spelled in line for spelled in spellings(key)), (keys, line)
        if isinstance(value, dict):
            check(found, value, text, spellings, keys, inline_tables_are_told)
    if not path:
        assert {keys[0] for keys in found} == set(data)


def tomlkit_spellings(key):
    return [key, json.dumps(key), json.dumps(key, ensure_ascii=False), tomlkit.key(key).as_string()]
