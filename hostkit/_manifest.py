"""What a plugin declares of itself in ``plugin.json``, ``plugin.toml`` or ``plugin.yaml``: a request, never a grant.

Every field here is enforced, shown, or refused with a sentence. What a later hostkit will enforce is refused by this one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, WithJsonSchema, model_validator

from ._errors import ManifestError
from ._fields import Duration, Isolation, Model, Name, Resources, Variable, problems_in, sentence
from ._parsing import Document
from ._permissions import Permissions

_PROGRAM = re.compile(r"[\w+.][\w+.-]{0,254}", re.ASCII)
_ENTRY_POINT = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*)?", re.ASCII)


def _text(text: str) -> str:
    if "\0" in text:
        raise ValueError("expected text without NUL characters")
    return text


Text = Annotated[str, Field(max_length=4096), AfterValidator(_text)]
Word = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_text)]
# More workers or turns at once than any plugin may ask for itself; the operator may allow more.
Wish = Annotated[int, Field(strict=True, ge=1, le=64)]


def _version(text: str) -> str:
    try:
        Version(text if text == text.strip() else "")
    except InvalidVersion as error:
        raise ValueError("expected a version as in PEP 440, like 1.2.0") from error
    return text


def _specifier(text: str) -> str:
    try:
        # A bare version is the smallest one, as min_go_version was in the manifests that this one follows.
        return str(SpecifierSet(text if not text[:1].isdigit() else f">={text}"))
    except InvalidSpecifier as error:
        raise ValueError("expected a version range as in PEP 440, like >=3.11") from error


def _requirement(text: str) -> str:
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise ValueError("expected a plugin's name with an optional version range, like logging-service>=1.2") from error
    if requirement.url or requirement.extras or requirement.marker:
        raise ValueError("expected a name and a version range only: no URL, extra or marker")
    return str(requirement)


def _entry_point(text: str) -> str:
    if not _ENTRY_POINT.fullmatch(text):
        raise ValueError("expected module:Class")
    return text


def _program(text: str) -> str:
    if not _PROGRAM.fullmatch(text):
        raise ValueError("expected the name of a program on PATH, without a path")
    return text


_LATER_TRANSPORT = {
    name: f'transport "{name}" needs another process or machine to connect to, which this version of hostkit does not do'
    for name in ("grpc", "grpc-tls", "http", "https", "unix", "go-plugin")
}


def _transport(value: object) -> object:
    if isinstance(value, str) and value in _LATER_TRANSPORT:
        raise ValueError(_LATER_TRANSPORT[value])
    return value


def _refused(sentence: str) -> Any:
    def refuse(value: object) -> object:
        if value in (None, "", {}, []):
            return None
        raise ValueError(sentence)

    return Annotated[None, BeforeValidator(refuse), WithJsonSchema({"enum": [None, "", {}, []], "description": sentence})]


def _or_nothing(value: object) -> object:
    """Take what other manifests say where they ask for nothing."""
    return {} if value in (None, "", []) else value


def _patterned(pattern: str, longest: int | None = None) -> WithJsonSchema:
    """Say in a schema what such a text looks like; what only a parser can tell gets by."""
    limit = {} if longest is None else {"maxLength": longest}
    return WithJsonSchema({"type": "string", "pattern": pattern, **limit})


def _any_case(*words: str) -> str:
    return "|".join("".join(f"[{letter}{letter.upper()}]" for letter in word) for word in words)


_VERSION_PATTERN = (
    r"^[vV]?([0-9]+!)?[0-9]+(\.[0-9]+)*"
    rf"([-_.]?({_any_case('alpha', 'beta', 'preview', 'pre', 'rc', 'a', 'b', 'c')})[-_.]?[0-9]*)?"
    rf"(-[0-9]+|[-_.]?({_any_case('post', 'rev', 'r')})[-_.]?[0-9]*)?"
    rf"([-_.]?({_any_case('dev')})[-_.]?[0-9]*)?(\+[A-Za-z0-9]+([-_.][A-Za-z0-9]+)*)?$"
)

VersionText = Annotated[str, Field(max_length=100), AfterValidator(_version), _patterned(_VERSION_PATTERN, 100)]
Range = Annotated[str, Field(max_length=200), AfterValidator(_specifier), _patterned(r"^\s*($|[0-9~=!<>])", 200)]
PluginRequirement = Annotated[
    str,
    Field(max_length=300),
    AfterValidator(_requirement),
    _patterned(r"^\s*[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\s*($|[(~=!<>])", 300),
]
Program = Annotated[str, AfterValidator(_program), _patterned(f"^{_PROGRAM.pattern}$")]
EntryPoint = Annotated[str, AfterValidator(_entry_point), _patterned(f"^{_ENTRY_POINT.pattern}$")]


class Requirements(Model):
    """What must be there before the plugin is loaded."""

    python: Range | None = None
    hostkit: Range | None = None
    required_plugins: list[PluginRequirement] = Field(default=[], max_length=256)
    optional_plugins: list[PluginRequirement] = Field(default=[], max_length=256)
    environment_vars: list[Variable] = Field(default=[], max_length=256)
    system_packages: list[Program] = Field(default=[], max_length=256)


class HealthCheck(Model):
    """How the plugin's health is to be asked."""

    interval: Duration | None = None
    timeout: Duration | None = None


class Manifest(Model):
    """A plugin's declaration. Immutable; all times in seconds."""

    name: Name = ""
    version: VersionText | None = None
    description: Text = ""
    author: Text = ""
    homepage: Text = ""
    license: Text = ""
    capabilities: list[Word] = Field(default=[])
    tags: list[Word] = Field(default=[])
    metadata: dict[str, Any] = Field(default={})
    isolation: Isolation = None
    transport: Annotated[Literal["inprocess", "subprocess"] | None, BeforeValidator(_transport)] = None
    entry_point: EntryPoint | None = None
    endpoint: _refused(  # type: ignore[valid-type]
        "endpoint names a running server or a program, which this version of hostkit does not connect to; "
        "name the plugin's class by entry_point"
    ) = None
    requirements: Requirements = Requirements()
    resources: Resources = Resources()
    permissions: Annotated[Permissions, BeforeValidator(_or_nothing)] = Permissions()
    workers: Wish | None = None
    concurrency: Wish | None = None
    idempotent: bool = False
    health_check: HealthCheck = HealthCheck()

    @model_validator(mode="after")
    def _one_isolation(self) -> Manifest:
        if self.isolation is not None and self.transport is not None and self.isolation != _SPELLINGS[self.transport]:
            raise ValueError(
                f'isolation "{self.isolation}" and transport "{self.transport}" contradict each other; keep one of them'
            )
        return self

    @property
    def wished_isolation(self) -> str | None:
        """What the plugin asks for: none, auto or process, or None where it leaves that to others."""
        return self.isolation or (None if self.transport is None else _SPELLINGS[self.transport])


_SPELLINGS = {"inprocess": "none", "subprocess": "process"}


def validated(data: Mapping[str, Any], path: Path | None, name: str) -> Manifest:
    """Return the manifest in ``data``, which was read from ``path``. Raises ``ManifestError``."""
    try:
        return Manifest.model_validate(dict(data))
    except ValidationError as error:
        where = "its manifest" if path is None else str(path)
        problems = problems_in(error, Manifest, where, data.line if isinstance(data, Document) else lambda _keys: None)
        raise ManifestError(f"plugin {name!r}: {sentence(problems)}") from None
