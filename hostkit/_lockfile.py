"""``hostkit.lock``: what was installed when somebody looked at it and found it good. PEP 751, with hostkit's own in ``[tool.hostkit]``.

    [[packages]]                          every distribution, once, as any reader of PEP 751 understands it
    [tool.hostkit.plugins.NAME]           entry point, digest of the manifest, permissions, where it runs, what it needs
    [tool.hostkit.distributions.NAME]     every file's size and SHA-256
    [tool.hostkit.startup]                what runs in every interpreter: .pth files, sitecustomize, usercustomize

The same installation gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from packaging.pylock import Package, PackageDirectory, Pylock, PylockUnsupportedVersionError, PylockValidationError
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, ConfigDict, Field, PlainSerializer, PlainValidator, ValidationError

from ._digests import Digest
from ._errors import IntegrityError
from ._fields import Model, Name, problems_in, sentence
from ._names import normalized, printable
from ._parsing import Unreadable, contents, parse

SIZE_LIMIT = 64 * 1024 * 1024
_ZEROS = "0" * 64
_KEYS = {"lock-version", "created-by", "requires-python", "packages", "tool"}


def _inside(name: str) -> str:
    parts = name.split("/")
    if not name or "\\" in name or "\0" in name or re.match(r"[A-Za-z]:", name) or any(part in ("", ".", "..") for part in parts):
        raise ValueError("expected the name of a file inside, with slashes, without . and ..")
    return name


_HEX = re.compile(r"[0-9a-f]{64}")


def _digest(value: Any) -> Digest:  # Any: what a parser gave
    if isinstance(value, (list, tuple)) and len(value) == 2:
        size, digest = value
        if type(size) is int and size >= 0 and isinstance(digest, str) and _HEX.fullmatch(digest):
            return Digest(size, digest)
    raise ValueError("expected [size, SHA-256]")


_Hex = Annotated[str, Field(pattern=f"^{_HEX.pattern}$")]
_Digest = Annotated[Digest, PlainValidator(_digest), PlainSerializer(list)]
_Files = dict[Annotated[str, AfterValidator(_inside)], _Digest]
_Words = Annotated[str, Field(max_length=1000)]


class _Part(Model):
    model_config = ConfigDict(alias_generator=lambda key: key.replace("_", "-"), populate_by_name=True)


class LockedPlugin(_Part):
    """One plugin. ``distribution`` ships it; for a plugin directory that is empty and ``files`` has what is in it.

    ``requires`` are all distributions that it may import, its own included; ``permissions`` what it was granted, ``isolation`` the
    least isolated place where it may run, and ``sandbox`` the weakest one.
    """

    entry_point: _Words
    distribution: _Words = ""
    manifest: _Hex | None = None
    requires: list[_Words] = Field(default=[])
    permissions: dict[_Words, bool | list[_Words]] = Field(default={})
    isolation: _Words = "none"
    sandbox: _Words = "off"
    files: _Files = Field(default={})


class LockedDistribution(_Part):
    """One distribution. ``data`` are its scripts and data outside of the import path, relative to the environment's directory."""

    version: _Words
    editable: bool = False
    shared: list[Annotated[str, AfterValidator(_inside)]] = Field(default=[])
    tops: list[Annotated[str, AfterValidator(_inside)]] = Field(default=[])
    files: _Files = Field(default={})
    data: _Files = Field(default={})


class Lock(_Part):
    """All that was locked, for the plugins of one application. ``digest`` is that of the file, with zeros in its own place."""

    version: Literal[1] = 1
    digest: _Hex = _ZEROS
    group: _Words
    plugins: dict[Name, LockedPlugin] = Field(default={})
    distributions: dict[_Words, LockedDistribution] = Field(default={})
    startup: dict[Annotated[str, AfterValidator(_inside)], list[_Hex]] = Field(default={})

    def plugin(self, name: str) -> LockedPlugin | None:
        """Return what was locked of a plugin."""
        return next((each for other, each in self.plugins.items() if normalized(other) == normalized(name)), None)


def read(path: Path, group: str) -> Lock:
    """Return what a lock says. Raises ``IntegrityError`` for one that is missing, half-written, wrong, or another application's."""
    return parsed(raw(path), path, group)


def raw(path: Path) -> bytes:
    """Return a lock's bytes. Raises ``IntegrityError``."""
    try:
        data = contents(path, limit=SIZE_LIMIT)
        everybodys = os.name == "posix" and os.stat(path).st_mode & stat.S_IWOTH
    except (Unreadable, OSError) as error:
        remedy = "" if path.exists() else "; write it: hostkit lock"
        raise IntegrityError(f"the lock {path}: {getattr(error, 'strerror', None) or error}{remedy}") from None
    if everybodys:
        raise IntegrityError(f"the lock {path} can be written by everybody, so nothing in it is trusted: chmod o-w")
    return data


def parsed(data: bytes, path: Path, group: str) -> Lock:
    """Return what a lock's bytes say. Raises ``IntegrityError``."""
    try:
        document = parse(data, ".toml", limit=SIZE_LIMIT)
        if unknown := sorted(document.keys() - _KEYS):
            raise _Wrong(f"unknown key {printable(unknown[0])!r}")
        pylock = Pylock.from_dict(document)
        tool = dict(pylock.tool or {})
        if tool.keys() != {"hostkit"}:
            raise _Wrong(f"expected [tool.hostkit] and no other tool, found {printable(', '.join(sorted(tool)) or 'none')}")
        lock = Lock.model_validate(tool["hostkit"])
        if _digest_of(data.replace(lock.digest.encode(), _ZEROS.encode(), 1)) != lock.digest:
            raise _Wrong("it is cut, or was edited")
        _check_whole(lock, pylock)
    except Unreadable as error:
        raise IntegrityError(f"the lock {error.at(path)}; write it anew: hostkit lock") from None
    except (PylockValidationError, PylockUnsupportedVersionError, _Wrong) as error:
        raise IntegrityError(f"the lock {path}: {printable(str(error))}; write it anew: hostkit lock") from None
    except ValidationError as error:
        problems = problems_in(error, Lock, f"the lock {path}")
        raise IntegrityError(f"{printable(sentence(problems), 1000)}; write it anew: hostkit lock") from None
    if lock.group != group:
        raise IntegrityError(f"the lock {path} is for {printable(lock.group)!r}, expected {group!r}; write it anew: hostkit lock")
    return lock


class _Wrong(Exception):
    """A lock contradicts itself."""


def _check_whole(lock: Lock, pylock: Pylock) -> None:
    packages = {str(package.name): str(package.version or "") for package in pylock.packages}
    versions = {name: _public(each.version) for name, each in lock.distributions.items()}
    if len(packages) != len(pylock.packages) or packages != versions:
        raise _Wrong("[[packages]] and [tool.hostkit.distributions] don't name the same distributions")
    names: dict[str, str] = {}
    for name, plugin in lock.plugins.items():
        if names.setdefault(normalized(name), name) != name:
            raise _Wrong(f"plugins.{name}: is there twice")
        missing = [each for each in (*plugin.requires, plugin.distribution) if each and each not in lock.distributions]
        if missing:
            raise _Wrong(f"plugins.{name}: requires {missing[0]!r}, which is not in the lock")
        if plugin.distribution and plugin.distribution not in plugin.requires:
            raise _Wrong(f"plugins.{name}: its own distribution is not among what it requires")
        if bool(plugin.distribution) == bool(plugin.files):
            raise _Wrong(f"plugins.{name}: expected a distribution or files")


def _public(version: str) -> str:
    try:
        return str(Version(version))
    except InvalidVersion:
        return ""


def text(lock: Lock, places: Mapping[str, str], needs: Mapping[str, Iterable[str]], beside: Path) -> str:
    """Return a lock as it is written; ``places`` says where each distribution lies, ``needs`` what it requires, ``beside`` where the
    lock will be."""
    packages = [
        Package(
            name=canonicalize_name(name),
            version=Version(each.version) if _public(each.version) else None,
            directory=PackageDirectory(path=_from(beside, places[name]), editable=each.editable or None),
            dependencies=[{"name": other} for other in sorted(needs[name])] or None,
        )
        for name, each in sorted(lock.distributions.items())
    ]
    pylock = Pylock(
        lock_version=Version("1.0"),
        requires_python=SpecifierSet(f"=={sys.version_info[0]}.{sys.version_info[1]}.*"),
        created_by="hostkit",
        packages=packages,
    )
    pylock.validate()
    own = {"version": lock.version, "digest": _ZEROS, **lock.model_dump(mode="json", by_alias=True, exclude_defaults=True)}
    lines = ["# Written by hostkit lock, and for nobody to edit.", *_lines({**pylock.to_dict(), "tool": {"hostkit": own}}, ()), ""]
    found = "\n".join(lines)
    return found.replace(_ZEROS, _digest_of(found.encode()), 1)


def _digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _from(beside: Path, place: str) -> str:
    return os.path.relpath(place, beside.parent).replace(os.sep, "/")


def _lines(table: Mapping[str, Any], keys: tuple[str, ...]) -> Iterable[str]:
    """Yield a table's own values, then the tables in it; files, permissions and the like are one line each."""
    inner = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    arrays = {key: value for key, value in table.items() if _is_tables(value) and not keys}
    own = {key: value for key, value in table.items() if key not in inner and key not in arrays}
    yield from (f"{_key(key)} = {_value(value)}" for key, value in own.items())
    for key, rows in arrays.items():
        for row in rows:
            yield f"\n[[{_key(key)}]]"
            yield from (f"{_key(name)} = {_value(value)}" for name, value in row.items())
    for key, value in inner.items():
        path = (*keys, key)
        if any(not isinstance(part, Mapping) for part in value.values()) or not value:
            yield f"\n[{'.'.join(map(_key, path))}]"
        yield from _lines(value, path)


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, Mapping) for each in value)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key, re.ASCII) else _value(key)


def _value(value: Any) -> str:  # Any: what a lock consists of
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_value(part)}" for key, part in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    return str(value)


def digest_of(name: str, lock: Lock) -> str:
    """Return one digest for a plugin that is locked, with all that it requires."""
    plugin = lock.plugin(name)
    parts = [] if plugin is None else [plugin, *(lock.distributions[each] for each in sorted(plugin.requires))]
    return _digest_of("\n".join(part.model_dump_json() for part in parts).encode())
