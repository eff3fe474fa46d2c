"""The JSON Schemas: current, true to the models, and agreed with by every example of the docs."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml

from hostkit import ConfigError, ManifestError, _schemas
from hostkit._config import DiscoveryConfig, HostConfig, TemplateConfig
from hostkit._manifest import Manifest, validated
from hostkit._parsing import SUFFIXES, read
from hostkit._reading import load

ROOT = Path(__file__).parents[1]
FILES = {"hostkit": _schemas.configuration, "plugin": _schemas.manifest}


def accepts(schema, data):
    return jsonschema.Draft7Validator(schema).is_valid(data)


@pytest.mark.parametrize("name", FILES)
def test_the_kept_schemas_are_current(name):
    file = ROOT / "docs" / "reference" / "schemas" / f"{name}.schema.json"
    if not file.parent.exists():
        pytest.skip("not in a checkout")
    option = " --manifest" if name == "plugin" else ""
    assert file.read_text() == _schemas.text(FILES[name]()) + "\n", f"hostkit config schema{option} > {file.relative_to(ROOT)}"


@pytest.mark.parametrize("name", FILES)
def test_they_are_schemas(name):
    jsonschema.Draft7Validator.check_schema(FILES[name]())


def test_every_key_is_in_the_schema_and_no_other():
    schema = _schemas.configuration()
    assert set(schema["properties"]) == {"$schema", *HostConfig.model_fields}
    assert set(_schemas.manifest()["properties"]) == {"$schema", *Manifest.model_fields}
    for data in (
        {"default": {}},
        {"defaults": {"time_out": 3}},
        {"plugins": {"calc": {"isolaton": "none"}}},
        {"plugins": {"a b": {}}},
    ):
        assert not accepts(schema, data)
    assert not accepts(_schemas.manifest(), {"isolatoin": "none"})
    for model, table in ((DiscoveryConfig, "discovery"), (TemplateConfig, "template")):
        for key in model.model_fields:
            assert accepts(schema, {table: {key: []}})
            assert not accepts(schema, {table: {key: 3}})


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"plugins": {"calculator": {"rate": {"per_second": 10, "burst": 20}, "retry": {"attempts": 3, "wait": "100ms"}}}},
        {"$schema": "hostkit.schema.json"},
        {"defaults": {"timeout": 0.25, "isolation": True}},
        {"defaults": {"timeout": "500ms", "isolation": "auto", "env": ["HOME", "${NAME:-X}"]}},
        {"defaults": {"timeout": "${TIMEOUT}", "isolation": "${ISOLATION:-none}", "start": "${START:-fresh}"}},
        {"defaults": {"breaker": False, "health": False, "rate": None, "bulkhead": False}},
        {"plugins": {"My.Plugin_2": {"enabled": False, "config": {"anything": [1, {"goes": None}]}}}},
    ],
)
def test_what_the_loader_takes_the_schema_takes(data, monkeypatch, tmp_path):
    for variable in ("TIMEOUT", "ISOLATION", "START", "NAME"):
        monkeypatch.setenv(variable, {"TIMEOUT": "5s", "ISOLATION": "none", "START": "fresh", "NAME": "N"}[variable])
    file = tmp_path / "hostkit.json"
    file.write_text(json.dumps(data))
    load(file)
    assert accepts(_schemas.configuration(), data)


@pytest.mark.parametrize(
    "version", ["1", "v1.0", "1.0RC1", "1!2.3.post4", "1.0-1", "1.0.dev3", "1.0a.1", "1.0+Ubuntu.1", "2.0-Beta-2"]
)
def test_versions_are_those_of_pep_440(version):
    assert accepts(_schemas.manifest(), {"version": version})
    validated({"version": version}, None, "calc")


# Examples of the docs.


def examples():
    for file in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for language, text in re.findall(r"^```(toml|ya?ml|json)\n(.*?)^```", file.read_text(), re.MULTILINE | re.DOTALL):
            parse = {"toml": tomllib.loads, "json": json.loads}.get(language, yaml.safe_load)
            data = parse(text)
            data = data.get("tool", {}).get("hostkit", data) if isinstance(data, dict) else {}
            if set(data) - {"$schema"} and set(data) <= {"$schema", *HostConfig.model_fields}:
                yield pytest.param("hostkit", data, id=f"{file.stem}-{'-'.join(data)}")
            elif set(data) - {"$schema"} and set(data) <= {"$schema", *Manifest.model_fields}:
                yield pytest.param("plugin", data, id=f"{file.stem}-{'-'.join(data)}")


@pytest.mark.parametrize("file", sorted((ROOT / "sample_plugins").rglob("plugin.*")), ids=lambda file: file.parent.name)
def test_the_manifests_of_the_samples_are_right(file):
    if file.suffix in SUFFIXES:
        assert accepts(_schemas.manifest(), dict(read(file)))


EXAMPLES = list(examples()) if (ROOT / "docs").exists() else []


@pytest.mark.parametrize(("name", "data"), EXAMPLES)
def test_the_examples_of_the_docs_are_right(name, data, monkeypatch, tmp_path):
    assert accepts(FILES[name](), data)
    monkeypatch.setenv("CALCULATOR_TOKEN", "x")
    data = {key: value for key, value in data.items() if key != "$schema"}
    try:
        if name == "plugin":
            validated(data, None, data.get("name", "calc"))
        else:
            file = tmp_path / "hostkit.json"
            file.write_text(json.dumps(data))
            load(file)
    except (ConfigError, ManifestError) as error:
        pytest.fail(str(error))


def test_there_are_examples_of_both():
    if not (ROOT / "docs").exists():
        pytest.skip("not in a checkout")
    kinds = [example.values[0] for example in EXAMPLES]
    assert kinds.count("hostkit") >= 4 and kinds.count("plugin") >= 2
