"""What an isolated plugin may reach beyond its own files: asked for by its manifest, allowed by the operator, granted where both say so.

manifest: permissions ─┐
                       ├─► granted(asked, allowed) ─► Grants: what is granted, and of each wish why it is or isn't
configuration: permissions ─┘
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from ._fields import Model, Variable

_ENDPOINT = re.compile(
    r"(?P<host>\*|[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\]):(?P<port>\*|[0-9]{1,5})", re.ASCII
)
_EXPECTED = "expected host:port, like api.example.org:443, [::1]:8080 or *:443"


def _endpoint(text: str) -> str:
    match = _ENDPOINT.fullmatch(text)
    if match is None or (match["port"] != "*" and not 1 <= int(match["port"]) <= 65535):
        raise ValueError(_EXPECTED)
    return text.lower()


def _path(text: str) -> str:
    expanded = os.path.expanduser(text)
    if "\0" in text or not os.path.isabs(expanded):
        raise ValueError("expected an absolute path")
    return os.path.normpath(expanded)


def _network(value: object) -> object:
    """Take a list as it is, and nothing for what a file may say in its place."""
    return [] if value is False else value


Endpoint = Annotated[
    str,
    AfterValidator(_endpoint),
    WithJsonSchema({"type": "string", "pattern": r"^([A-Za-z0-9_.*-]+|\[[0-9A-Fa-f:.]+\]):(\*|[0-9]{1,5})$"}),
]
Place = Annotated[
    str, Field(max_length=4096), AfterValidator(_path), WithJsonSchema({"type": "string", "pattern": "^[/~]", "maxLength": 4096})
]
_NETWORK_SCHEMA = WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "array", "maxItems": 256, "items": {"type": "string"}}]})


Endpoints = Annotated[list[Endpoint], Field(max_length=256)]


class Permissions(Model):
    """In a manifest what the plugin asks for, in the configuration what the operator allows.

    ``network`` is true or a list of ``host:port``; ``read`` and ``write`` are absolute paths, with all that lies below; ``env`` are
    names of variables.
    """

    network: Annotated[bool | Endpoints, BeforeValidator(_network), _NETWORK_SCHEMA] = Field(default=[])
    read: list[Place] = Field(default=[], max_length=256)
    write: list[Place] = Field(default=[], max_length=256)
    subprocess: bool = False
    env: list[Variable] = Field(default=[], max_length=256)

    @property
    def any(self) -> bool:
        """Whether anything is asked for, or allowed."""
        return bool(self.network or self.read or self.write or self.subprocess or self.env)


@dataclass(frozen=True, slots=True)
class Grant:
    """One wish. ``why`` says whose word granted it, or what is missing."""

    wish: str
    granted: bool
    why: str


@dataclass(frozen=True, slots=True)
class Grants:
    """What a plugin got of what it asked for. ``network`` is True for everything, else the endpoints."""

    network: bool | tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    subprocess: bool = False
    env: tuple[str, ...] = ()
    wishes: tuple[Grant, ...] = ()

    def as_data(self) -> dict[str, Any]:
        """Return what is granted as JSON data: only what there is."""
        found: dict[str, Any] = {
            "network": self.network if self.network is True else list(self.network or ()),
            "read": list(self.read),
            "write": list(self.write),
            "subprocess": self.subprocess,
            "env": list(self.env),
        }
        return {name: value for name, value in found.items() if value}


def granted(asked: Permissions, allowed: Permissions) -> Grants:
    """Bring a manifest's wishes and the operator's word together: nothing is granted that not both have."""
    read, write = _paths(asked.read, [*allowed.read, *allowed.write]), _paths(asked.write, allowed.write)
    network, endpoints = _reached(asked, allowed)
    env = {name: name in allowed.env for name in asked.env}
    wishes = [
        *(_grant("network", wish, got) for wish, got in network),
        *(_grant("read", wish, got) for wish, got in read),
        *(_grant("write", wish, got) for wish, got in write),
        *([_grant("subprocess", "", allowed.subprocess)] if asked.subprocess else []),
        *(_grant("env", name, got) for name, got in env.items()),
    ]
    return Grants(
        network=endpoints,
        read=_each(path for _, found in read for path in found),
        write=_each(path for _, found in write for path in found),
        subprocess=asked.subprocess and allowed.subprocess,
        env=tuple(name for name, got in env.items() if got),
        wishes=tuple(wishes),
    )


def _reached(asked: Permissions, allowed: Permissions) -> tuple[list[tuple[str, Any]], bool | tuple[str, ...]]:
    if asked.network is True:
        if allowed.network is True:
            return [("everything", ["everything"])], True
        found = list(allowed.network or ())
        return [("everything", found)], tuple(found)
    rows = [(wish, _endpoints(wish, allowed)) for wish in asked.network or ()]
    return rows, _each(endpoint for _, got in rows for endpoint in got)


def _endpoints(wish: str, allowed: Permissions) -> list[str]:
    if allowed.network is True:
        return [wish]
    host, _, port = wish.rpartition(":")
    found = []
    for cap in allowed.network or ():
        cap_host, _, cap_port = cap.rpartition(":")
        if (host in (cap_host, "*") or cap_host == "*") and (port in (cap_port, "*") or cap_port == "*"):
            found.append(f"{cap_host if host == '*' else host}:{cap_port if port == '*' else port}")
    return found


def _paths(wishes: list[str], caps: list[str]) -> list[tuple[str, list[str]]]:
    """Return each wish with what is granted of it: all of it, or those parts that are allowed."""
    real = [os.path.realpath(cap) for cap in caps]
    rows = []
    for wish in wishes:
        path = os.path.realpath(wish)
        whole = any(_within(path, cap) for cap in real)
        rows.append((wish, [path] if whole else [cap for cap in real if _within(cap, path)]))
    return rows


def _within(path: str, place: str) -> bool:
    return path == place or path.startswith(place.rstrip("/") + "/")


def _grant(kind: str, wish: str, got: Any) -> Grant:
    words = f"{kind} {wish}".rstrip()
    if not got:
        return Grant(words, granted=False, why=f"the operator's permissions.{kind} doesn't have it")
    if isinstance(got, list) and kind in ("read", "write", "network") and got != [wish]:
        return Grant(words, granted=True, why=f"the operator allows of it {', '.join(got)}")
    return Grant(words, granted=True, why="the operator allows it")


def _each(found: Iterator[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(found))
