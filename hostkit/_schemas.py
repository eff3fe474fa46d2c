"""JSON Schemas of configuration and manifest, made from their models, for editors and for whoever writes such files by program.

Draft 7, which every editor knows. A schema lets pass what it has no words for (a name of a device, a version range that is none); the
models don't.
"""

from __future__ import annotations

import json
from typing import Any

from ._config import HostConfig
from ._manifest import Manifest

_DRAFT = "http://json-schema.org/draft-07/schema#"
_REFERENCE = r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^{}]*)?\}"


def configuration() -> dict[str, Any]:
    """Return the schema of ``hostkit.toml`` in all its formats, where any text may have ``${VAR}`` in it."""
    found = _schema(HostConfig, "hostkit configuration")
    return {key: _with_references(part) if key in ("properties", "$defs") else part for key, part in found.items()}


def manifest() -> dict[str, Any]:
    """Return the schema of ``plugin.toml``, ``plugin.json`` and ``plugin.yaml``."""
    return _schema(Manifest, "hostkit plugin manifest")


def text(schema: dict[str, Any]) -> str:
    """Return a schema as the file that is kept of it."""
    return json.dumps(schema, indent=2, ensure_ascii=True)


def _schema(model: type[HostConfig | Manifest], title: str) -> dict[str, Any]:
    found = _without_noise(model.model_json_schema())
    properties = {
        "$schema": {"type": "string", "description": "Ignored; tells an editor of this schema."},
        **found.pop("properties"),
    }
    return {"$schema": _DRAFT, **found, "title": title, "properties": properties}


def _without_noise(schema: Any) -> Any:  # Any: a part of a schema
    """Leave out the titles that pydantic makes of names, and the defaults of tables, which their own keys have."""
    if isinstance(schema, list):
        return [_without_noise(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    noise = {
        key for key, part in schema.items() if (key == "title" and isinstance(part, str)) or (key == "default" and part is None)
    }
    if "$ref" in schema or any("$ref" in choice for choice in schema.get("anyOf", ())):
        noise.add("default")
    kept = {key: _without_noise(part) for key, part in schema.items() if key not in noise}
    return {**kept, "additionalProperties": False} if "patternProperties" in kept else kept


def _with_references(schema: Any) -> Any:  # Any: a part of a schema
    if isinstance(schema, list):
        return [_with_references(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    inside = {key: part if key == "propertyNames" else _with_references(part) for key, part in schema.items()}
    words = [word for word in inside.get("enum", ()) if isinstance(word, str)]
    if not words and not (inside.get("type") == "string" and "pattern" in inside):
        return inside
    told = {key: inside.pop(key) for key in ("default", "description", "title") if key in inside}
    return {**told, "anyOf": [inside, {"type": "string", "pattern": _REFERENCE}]}
