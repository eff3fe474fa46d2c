from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hostkit
from hostkit import ConfigError, Manifest, ManifestError, _schemas
from hostkit._manifest import validated
from hostkit._names import checked_name, normalized

SCHEMA = jsonschema.Draft7Validator(_schemas.manifest())
P = "class P:\n    def execute(self, ctx, request):\n        return request\n"


@pytest.fixture
def host(new_host):
    return new_host("demo")


def refusal(data):
    """Return what is said of a manifest that is refused."""
    with pytest.raises(ManifestError) as caught:
        validated(data, None, "calc")
    return str(caught.value)


# A manifest as plugins of another host ship it.
CALCULATOR = {
    "name": "calculator",
    "version": "1.0.0",
    "description": "Simple calculator plugin for arithmetic operations",
    "author": "your-team@company.com",
    "capabilities": ["arithmetic", "basic-operations", "v1.0"],
    "transport": "subprocess",
    "endpoint": "./calculator-plugin",
    "requirements": {"min_go_version": "1.21", "required_plugins": [], "optional_plugins": ["logging-service"]},
    "resources": {"max_memory_mb": 256, "max_cpu_cores": 1},
    "metadata": {
        "team": "platform",
        "category": "utility",
        "operations": "add,subtract,multiply,divide",
        "precision": "float64",
    },
}


def test_a_manifest_of_another_host_loads_with_two_fields_replaced(install_demo, host):
    data = json.loads(json.dumps(CALCULATOR))
    requirements = data["requirements"]
    requirements["python"] = requirements.pop("min_go_version").replace("1.21", "3.11")
    del data["endpoint"]
    data["entry_point"] = "calculator:P"
    install_demo("calculator", P, manifest=json.dumps(data), manifest_name="plugin.json")
    spec = host.specs["calculator"]
    assert spec.error is None
    assert spec.manifest.wished_isolation == "process"
    assert spec.manifest.resources.max_memory_mb == 256
    assert spec.manifest.requirements.python == ">=3.11"
    assert host.execute("calculator", {"a": 1}) == {"a": 1}
    info = host.info("calculator")
    assert (info.version, info.author, info.capabilities) == (
        "1.0.0",
        "your-team@company.com",
        ("arithmetic", "basic-operations", "v1.0"),
    )
    assert info.metadata["team"] == "platform"
    assert info.metadata["hostkit"]["limits"] == {"memory_bytes": 256 << 20, "cpu_cores": 1}


def test_without_the_two_replaced_each_is_refused_by_name():
    assert "endpoint: endpoint names a running server or a program" in refusal(CALCULATOR)
    assert "requirements.min_go_version: unknown key" in refusal(CALCULATOR)


# Every field, with values that are taken as they are.
FIELDS = {
    "name": ["calc", "Calc_2.x-y"],
    "version": ["1.0.0", "2!1.0rc1.post2.dev3+local"],
    "description": ["", "Größe: 10 µm\nzwei 👩‍💻"],
    "author": ["somebody <a@b.example>"],
    "homepage": ["https://example.com/calc"],
    "license": ["MIT"],
    "capabilities": [[], ["add", "v1.0"]],
    "tags": [["math"]],
    "metadata": [{}, {"a": [1, {"b": None}], "c": 2.5}],
    "isolation": ["none", "process"],
    "transport": ["inprocess", "subprocess"],
    "entry_point": ["calc:Calc", "calc.sub_1:Outer.Inner", "calc"],
    "workers": [1, 64],
    "concurrency": [1, 64],
    "idempotent": [True, False],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in FIELDS.items() for value in values])
def test_a_field_is_what_was_written(field, value):
    assert getattr(validated({field: value}, None, "calc"), field) == value


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in FIELDS.items() for value in values])
def test_what_a_manifest_may_say_the_schema_takes(field, value):
    assert SCHEMA.is_valid({field: value})


@pytest.mark.parametrize(
    "asked",
    [
        {"network": True, "subprocess": True},
        {"network": False, "read": ["/data", "~/data"], "write": ["/var/lib/x"], "env": ["TOKEN"]},
        {"network": ["api.example.org:443", "[::1]:80", "127.0.0.1:*", "*:443"]},
    ],
)
def test_a_manifest_may_ask_for_permissions(asked):
    assert SCHEMA.is_valid({"permissions": asked})
    found = validated({"permissions": asked}, None, "calc").permissions
    assert found.any
    assert found.network == (asked.get("network") or [])
    assert found.read == [str(Path(path).expanduser()) for path in asked.get("read", [])]


def test_there_is_no_field_without_a_test_of_it():
    elsewhere = {"endpoint", "requirements", "resources", "permissions", "health_check"}
    assert set(Manifest.model_fields) == set(FIELDS) | elsewhere


def test_true_and_false_are_isolations():
    assert validated({"isolation": True}, None, "calc").wished_isolation == "process"
    assert validated({"isolation": False}, None, "calc").wished_isolation == "none"
    assert validated({"transport": "subprocess", "isolation": True}, None, "calc").wished_isolation == "process"
    assert validated({"transport": "inprocess"}, None, "calc").wished_isolation == "none"
    assert validated({}, None, "calc").wished_isolation is None


def test_isolation_and_transport_must_agree():
    assert 'isolation "none" and transport "subprocess" contradict each other' in refusal(
        {"isolation": "none", "transport": "subprocess"}
    )


NO_TEXT = [None, 1, True, 1.5, [], {}]
NO_COUNT = [0, -1, 65, 10**30, 1.0, 1.5, True, "1", [1], math.inf, math.nan, 1e308]
NO_LIMIT = [0, -1, -256, 1.5, True, "256", [256], {}, math.inf, -math.inf, math.nan, 1e308, 10**30]

WRONG = {
    "name": ["", *NO_TEXT],
    "version": [*NO_TEXT[1:], "", "latest", "1.0 beta", "v", "1..0", "1.0.0.x", "=1.0", "1.0\n", "１", "9" * 5000, "1." * 60],
    "description": ["x" * 4097, "a\0b", *NO_TEXT],
    "author": ["x" * 4097, *NO_TEXT],
    "homepage": ["x" * 4097, *NO_TEXT],
    "license": ["x" * 4097, *NO_TEXT],
    "capabilities": [None, "add", {"add": 1}, [""], [1], [None], ["x" * 201], [["add"]], [True], ["a\0"]],
    "tags": [None, "math", [1], [""]],
    "metadata": [None, "text", [], 3],
    "isolation": ["", "None", "PROCESS", "thread", "off", 0, 1, [], {}, 1.0, "process "],
    "transport": ["", "tcp", "inproc", True, 1, [], "Subprocess"],
    "entry_point": ["", *NO_TEXT[1:]],
    "workers": NO_COUNT,
    "concurrency": NO_COUNT,
    "idempotent": [0, 1, "true", "yes", None, [], 1.0],
    "requirements": [None, [], "python", 3],
    "resources": [None, [], "256", 3],
    "health_check": [None, [], "5s", 3],
    "permissions": [["network"], "all", True, 1],
    "permissions.network": ["yes", 1, None, ["api.example.org"], ["http://a:80"], ["a:0"], ["a:65536"], ["a:b"], [1], ["a:1"] * 257],
    "permissions.read": [None, "/data", ["data"], ["../data"], [""], [1], ["/a\0"], ["/a"] * 257],
    "permissions.write": [None, "/data", ["data"], ["./data"], [1]],
    "permissions.subprocess": [0, 1, "true", None, []],
    "permissions.env": [None, "HOME", [1], [""], ["A B"], ["A=1"]],
    "requirements.python": [1, 3.11, True, [], {}, "three", ">=", "3.11 or later", ">=3.11;", "=3.11", ">= 3.x", "x" * 201, "~=3"],
    "requirements.hostkit": [1, "newest", [], ">=0.1 <"],
    "requirements.required_plugins": [None, "a", [1], [""], ["a b"], ["a>=x"], ["a[extra]"], ["a @ https://example.com/a"], ["a; python_version > '3'"], ["-a"], ["../a"], ["a" * 301], ["a"] * 257],
    "requirements.optional_plugins": [None, "a", [1], [""], ["a=1"], {"a": "1"}],
    "requirements.environment_vars": [None, "HOME", [1], [""], ["A B"], ["A=1"], ["1A"], ["A\0"], ["Ä"], ["A\n"]],
    "requirements.system_packages": [None, "git", [1], [""], ["/bin/sh"], ["../sh"], ["a\\b"], ["a\0"], ["-rf"], ["a b"], ["x" * 256], ["git\n"]],
    "resources.max_memory_mb": [*NO_LIMIT, 31, (1 << 24) + 1],
    "resources.max_cpu_cores": NO_LIMIT,
    "resources.max_cpu_seconds": [0, -1, 0.0, True, "5", [5], math.inf, -math.inf, math.nan, 1e308, 10**400],
    "resources.max_open_files": [*NO_LIMIT, 31],
    "resources.max_processes": NO_LIMIT,
    "resources.max_threads": NO_LIMIT,
    "resources.max_temporary_mb": NO_LIMIT,
    "health_check.timeout": [0, -1, True, "", "5", "5 parsecs", "-5s", "5s5s", "inf", [5], {}, math.inf, math.nan, 1e308, 10**400, "9" * 400 + "s", "367d"],
    "health_check.interval": [0, True, "", "5", [5], {}, math.inf, "367d"],
}  # fmt: skip


def nested(field, value):
    for part in reversed(field.split(".")):
        value = {part: value}
    return value


@pytest.mark.parametrize("field", WRONG)
def test_a_wrong_value_is_refused_with_the_name_of_its_field(field):
    for value in WRONG[field]:
        assert f"{field}" in refusal(nested(field, value)), value


@pytest.mark.parametrize("field", WRONG)
def test_wrong_values_are_refused_by_the_schema_too(field):
    # Some of them only a parser can tell.
    assert not all(SCHEMA.is_valid(nested(field, value)) for value in WRONG[field])


@pytest.mark.parametrize(
    ("manifest", "name", "words"),
    [
        ('name = "calc"\n\n[resources]\nmax_memory_mb = 3\n', "plugin.toml", "4: resources.max_memory_mb: expected"),
        ('isolation = "none"\nisolatoin = 3\n', "plugin.toml", "2: isolatoin: unknown key; did you mean 'isolation'?"),
        ("a = 1\n[b\n", "plugin.toml", "2: Expected ']'"),
        ("resources:\n  max_memory_mb: 64\n  max_open_files: 3\n", "plugin.yaml", "3: resources.max_open_files: expected"),
        (
            '{"workers": 2,\n "requirements": {"required_plugins": ["a",\n "b c"]}}',
            "plugin.json",
            "3: requirements.required_plugins.1: ",
        ),
        ('workers = 2\nname = "other"\n', "plugin.toml", "2: name: expected 'calc' as its entry point, found 'other'"),
        ('workers = 2\nentry_point = "calc:Q"\n', "plugin.toml", "2: entry_point: expected 'calc:P' as installed, found 'calc:Q'"),
        ('{"workers": 2,\n "workers": 2}', "plugin.json", "2: has the key 'workers' twice"),
    ],
)
def test_an_error_names_file_line_and_key(install_demo, host, site, manifest, name, words):
    install_demo("calc", P, manifest=manifest, manifest_name=name)
    assert str(host.specs["calc"].error).startswith(f"plugin 'calc': {site / 'calc' / name}:{words}")


def test_a_schema_for_editors_may_be_named(install_demo, host):
    install_demo("calc", P, manifest='{"$schema": "plugin.schema.json", "workers": 2}', manifest_name="plugin.json")
    assert host.specs["calc"].manifest.workers == 2


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("isolation", "venv", 'isolation "venv" is not enforced by this version'),
        ("transport", "grpc", 'transport "grpc" needs another process or machine'),
        ("transport", "go-plugin", 'transport "go-plugin" needs another process or machine'),
        ("transport", "unix", 'transport "unix" needs another process or machine'),
    ],
)
def test_what_this_version_does_not_enforce_is_refused_with_a_sentence(field, value, sentence):
    assert sentence in refusal(nested(field, value))


@pytest.mark.parametrize("field", ["endpoint", "permissions"])
@pytest.mark.parametrize("nothing", [None, "", {}, []])
def test_a_refused_field_that_says_nothing_is_no_request(field, nothing):
    assert validated(nested(field, nothing), None, "calc") == Manifest()


PLACES = [
    "./calculator",
    "../calculator",
    "../../etc/passwd",
    "%2e%2e/etc/passwd",
    "..\\..\\windows",
    "\\\\server\\share",
    "file:///etc/passwd",
    "/etc/passwd",
    "C:\\plugins\\calc.exe",
    "http://example.com",
    "localhost:50051",
    "unix:///run/calc.sock",
    "calc\0.so",
    "CON",
    "nul",
    "LPT1:",
    "~/calc",
    "$HOME/calc",
    "`id`",
    "$(id)",
    "; rm -rf /",
    "|id",
    "a\nb",
    "\u202egnp.exe",
    "calc/../../x",
    ".",
    "..",
    "...",
]


def test_no_place_is_an_endpoint_or_an_entry_point():
    for place in PLACES:
        assert "endpoint" in refusal({"endpoint": place}), place
    for place in set(PLACES) - {"CON", "nul"}:  # modules may be called so where there is no Windows
        assert "entry_point: expected module:Class" in refusal({"entry_point": place}), place


@pytest.mark.parametrize("text", ["calc:", ":Calc", "calc::Calc", "calc:Calc:x", "calc.:C", ".calc:C", "1calc:C", "calc:1C", "calc:C()", "cälc:C", "calc:C [x]", "calc :C", "a-b:C", "calc:C\n"])  # fmt: skip
def test_what_names_no_class_is_no_entry_point(text):
    assert "entry_point: expected module:Class" in refusal({"entry_point": text})


NO_NAMES = [
    "calc ulator",
    " calc",
    "calc\n",
    "calc\0",
    "calc\x1b[31m",
    ".calc",
    "-calc",
    "calc-",
    "_calc",
    "calc.",
    "a/b",
    "a\\b",
    "a:b",
    "../calc",
    "..",
    "cаlculator",  # a Cyrillic а
    "calculatоr",  # a Cyrillic о
    "ϲalc",  # a Greek lunate sigma
    "ｃａｌｃ",  # fullwidth
    "ﬁle",  # a ligature
    "calc\u200b",  # a zero-width space
    "calc\u202e",  # right to left from here
    "\u202dcalc",
    "מחשבון",
    "حاسبة",
    "calc\u0301",
    "🧮",
    "calc😀",
    "\ud800",
    "x" * 129,
    "x" * 100_000,
    "con",
    "NUL",
    "aux.py",
    "Com1",
    "lpt9.tar.gz",
    "PRN",
]


@pytest.mark.parametrize("name", NO_NAMES, ids=lambda name: f"{name!a:.30}")
def test_a_name_that_deceives_or_cannot_be_written_is_refused(name):
    said = refusal({"name": name})
    assert "name: " in said
    assert name.isascii() or ascii(name) in said


@pytest.mark.parametrize("name", ["a", "7", "calc", "Calc", "a.b-c_d", "a--b", "x" * 128, "console", "com10", "nully"])
def test_a_name_of_plain_letters_is_a_name(name):
    assert checked_name(name) == name


@pytest.mark.parametrize("name", [None, 3, b"calc", ["calc"], "", "a b"])
def test_an_application_must_have_a_name_too(name):
    with pytest.raises(ConfigError, match="app: "):
        hostkit.Host(name)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Calc", "calc"),
        ("a_b", "a-b"),
        ("a.b", "a-b"),
        ("a-_.b", "a-b"),
        ("ﬁle", "FILE"),
        ("ｃalc", "calc"),
        ("straße", "STRASSE"),
        ("K", "k"),
    ],
)
def test_names_that_differ_in_case_width_or_separators_are_one(one, other):
    assert normalized(one) == normalized(other)


@given(st.text())
def test_a_normalized_name_is_its_own_normal_form(name):
    assert normalized(normalized(name)) == normalized(name)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"capabilites": []}, "capabilites: unknown key; did you mean 'capabilities'?"),
        ({"resource": {}}, "resource: unknown key; did you mean 'resources'?"),
        ({"resources": {"max_memory": 5}}, "resources.max_memory: unknown key; did you mean 'max_memory_mb'?"),
        ({"max_memory_mb": 5}, "max_memory_mb: unknown key; did you mean 'resources.max_memory_mb'?"),
        ({"python": ">=3"}, "python: unknown key; did you mean 'requirements.python'?"),
        ({"requirements": {"environment_var": []}}, "requirements.environment_var: unknown key; did you mean 'environment_vars'?"),
        ({"zzzzzz": 1}, "zzzzzz: unknown key"),
        ({"": 1}, "unknown key"),
        ({"a\x1b[31m\n": 1}, "a\\x1b[31m\\n: unknown key"),
        ({"__class__": 1}, "__class__: unknown key"),
        ({"model_config": 1}, "model_config: unknown key"),
    ],
)
def test_an_unknown_key_is_told_with_what_was_probably_meant(data, words):
    assert words in refusal(data)


def test_many_mistakes_are_told_in_one_sentence_of_bounded_length():
    said = refusal({f"key{number}": "x" * 10_000 for number in range(1000)})
    assert "key0: unknown key" in said
    assert "and 990 more" in said
    assert len(said) < 5_000


def test_a_huge_value_is_told_in_short():
    assert len(refusal({"isolation": "x" * 100_000})) < 500
    assert len(refusal({"workers": list(range(100_000))})) < 500


def test_a_bare_version_is_the_smallest_one():
    assert validated({"requirements": {"python": "3.11", "hostkit": "0.1"}}, None, "calc").requirements.python == ">=3.11"


def test_a_manifest_cannot_be_changed():
    manifest = validated({"name": "calc"}, None, "calc")
    with pytest.raises(ValueError, match="frozen"):
        manifest.name = "other"


keys = st.sampled_from([*Manifest.model_fields, *(field.split(".")[-1] for field in WRONG)]) | st.text(max_size=8)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["none", "calc:P", "1.0", ">=3", "5s"]),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(keys, inside, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(keys, values, max_size=6))
def test_any_data_is_a_manifest_or_a_manifest_error(data):
    try:
        assert isinstance(validated(data, None, "calc"), Manifest)
    except ManifestError as refused:
        assert str(refused).startswith("plugin 'calc': its manifest: ")


HOSTILE_FILES = [
    ("plugin.json", b"", "Expecting value"),
    ("plugin.json", b"[" * 10_000, "nested deeper"),
    ("plugin.json", b" " * 10_000_000, "longer than"),
    ("plugin.json", b'{"isolation": "process", "isolation": "none"}', "'isolation' twice"),
    ("plugin.json", b'{"resources": {"max_memory_mb": 1e999}}', "the number inf"),
    ("plugin.json", b'{"name": "p\\u0000"}', "name: "),
    ("plugin.json", '{"name": "cаlc"}'.encode(), "name: "),
    ("plugin.json", "{}".encode("utf-16"), "UTF-8"),
    ("plugin.toml", b"isolation = 'process'\nisolation = 'none'", "overwrite"),
    ("plugin.toml", b"version = 2001-01-01", "has a date"),
    ("plugin.toml", b"a" + b".a" * 15_000 + b" = 1", "key of more than"),
    ("plugin.yaml", b"metadata: !!python/object/apply:os.system ['touch CANARY']", "has the tag"),
    ("plugin.yaml", b"a: &a [1]\nb: *a", "alias"),
    ("plugin.yaml", b"[" * 30_000, "nested deeper"),
    ("plugin.yml", b"isolation: yes\nisolation: no", "'isolation' twice"),
    ("plugin.json", b'{"requirements": {"required_plugins": ["../evil"]}}', "requirements.required_plugins.0"),
    ("plugin.json", b'{"endpoint": "http://localhost:1"}', "endpoint"),
]


@pytest.fixture
def watched(tmp_path):
    """What this process does that a look at manifests must not: run code, start programs, use the network."""
    seen = []
    watching = [True]
    forbidden = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "ctypes.", "urllib.", "exec")

    def hook(event, arguments):
        if watching and event.startswith(forbidden):
            seen.append((event, arguments))

    sys.addaudithook(hook)
    yield seen
    watching.clear()


@pytest.mark.parametrize(("name", "data", "reason"), HOSTILE_FILES, ids=[f"{each[0]}-{each[1][:20]!a}" for each in HOSTILE_FILES])
def test_a_plugin_with_a_hostile_manifest_is_a_row_with_path_and_reason(install_demo, host, site, watched, name, data, reason):
    for other in ("toml", "yaml", "json"):
        install_demo(f"other-{other}", P, manifest="{}" if other != "toml" else "", manifest_name=f"plugin.{other}")
    assert all(spec.error is None for spec in host.specs.values())  # and imports what a look needs
    install_demo("calc", "raise SystemExit('imported')")
    (site / "calc" / name).write_bytes(data)
    watched.clear()
    specs = host.specs
    assert watched == []
    error = specs["calc"].error
    assert isinstance(error, ManifestError)
    assert str(site / "calc" / name) in str(error)
    assert "plugin 'calc'" in str(error)
    assert reason in str(error)
    assert [name for name, spec in specs.items() if spec.error is None] == ["other-json", "other-toml", "other-yaml"]
    with pytest.raises(ManifestError, match="calc"):
        host.load("calc")
