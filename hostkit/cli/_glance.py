"""Remember what a listing needs of the configuration from its last validation.

pydantic takes a quarter of a second, which is too long for a TAB. A file that was valid and is byte for byte the same is not
validated again; one that looks at the environment always is. Nothing that runs a plugin uses this.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, fields
from pathlib import Path

from .. import __version__
from .._errors import ConfigError
from .._index import _is_ours, default_file
from .._offered import Glance, glance_of


def glance(path: Path) -> Glance:
    """Return what holds by the configuration in ``path``. Raises ``ConfigError``."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    file = _file(path)
    digest = hashlib.sha256(f"{__version__}\0{path}\0".encode("utf-8", "surrogateescape") + data).hexdigest()
    found = _load(file, digest)
    if found is None:
        from .._reading import load

        found = glance_of(load(path))
        if b"${" not in data:
            _save(file, digest, found)
    return found


def _file(path: Path) -> Path | None:
    beside = default_file("")
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:24]
    return None if beside is None else beside.with_name(f"config-{name}.json")


def _load(file: Path | None, digest: str) -> Glance | None:
    try:
        if file is None or not _is_ours(file.parent) or not _is_ours(file):
            return None
        kept = json.loads(file.read_bytes())
        known = kept["digest"] == digest and kept["glance"].keys() == {field.name for field in fields(Glance)}
        return Glance(**kept["glance"]) if known else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _save(file: Path | None, digest: str, found: Glance) -> None:
    if file is None:
        return
    partial = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _is_ours(file.parent):
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
            with open(descriptor, "w", encoding="ascii") as out:
                json.dump({"digest": digest, "glance": asdict(found)}, out)
            os.replace(partial, file)
    except OSError:
        partial.unlink(missing_ok=True)  # without it the next listing is only slower
