"""Hold what is about to be loaded against the lock, before anything of it is imported.

off ─► nothing            audit ─► told, loaded all the same            enforce ─► IntegrityError, or what a worker may import
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ._config import LockConfig
from ._decided import Decided
from ._errors import IntegrityError
from ._events import Events, LockMismatch
from ._finding import Finding, sentence
from ._spec import PluginSpec

if TYPE_CHECKING:
    from ._lockfile import Lock


class Enforcement:
    """Holds one host's plugins against its lock. Thread-safe: whoever reads the lock twice reads the same."""

    def __init__(self, group: str, events: Events) -> None:
        self._group = group
        self._events = events
        self._read: tuple[bytes, Lock] | None = None  # the digest of its bytes, and what they say

    def checked(self, spec: PluginSpec, decided: Decided, config: LockConfig) -> Decided:
        """Return a decision with what was locked and what a worker may import. Raises ``IntegrityError`` for what isn't as locked."""
        if config.policy == "off":
            return decided
        try:
            return self._verified(spec, decided, config)
        except _Mismatch as error:
            if config.policy == "enforce":
                raise IntegrityError(str(error)) from None
            self._tell(spec.name, error.findings, config)
        except IntegrityError as error:
            # No lock that can be read is as good as one in which nothing is.
            if config.policy == "enforce":
                raise IntegrityError(f"plugin {spec.name!r} is not loaded: {error}") from None
            self._tell(spec.name, [str(error)], config)
        return decided

    def _verified(self, spec: PluginSpec, decided: Decided, config: LockConfig) -> Decided:
        from ._lockfile import digest_of
        from ._locking import standing_as  # packaging.pylock and more, which a host without a lock doesn't need
        from ._survey import Survey
        from ._verification import Verification

        survey = Survey(anew=config.policy == "enforce")
        verification = Verification(self._lock(config), survey)
        findings = verification.plugin(spec.name, standing_as(spec, decided))
        survey.save()
        if findings:
            raise _Mismatch(spec.name, config, findings)
        held = config.policy == "enforce" and decided.isolation != "none"
        verified = verification.verified(spec.name) if held else None
        locked = digest_of(spec.name, verification.lock)
        return dataclasses.replace(decided, settings=dataclasses.replace(decided.settings, verified=verified, locked=locked))

    def _lock(self, config: LockConfig) -> Lock:
        from . import _lockfile

        data = _lockfile.raw(config.file)
        digest = hashlib.sha256(data).digest()
        known = self._read
        if known is None or known[0] != digest:
            known = self._read = (digest, _lockfile.parsed(data, config.file, self._group))
        return known[1]

    def check(self, data: bytes, config: LockConfig) -> None:
        """Raise ``IntegrityError`` where the bytes are no lock of this application."""
        from . import _lockfile

        _lockfile.parsed(data, config.file, self._group)

    def _tell(self, plugin: str, findings: Iterable[object], config: LockConfig) -> None:
        self._events.emit(LockMismatch(plugin, str(config.file), tuple(map(str, findings))))


class _Mismatch(Exception):
    """A plugin isn't what the lock has."""

    def __init__(self, plugin: str, config: LockConfig, findings: Sequence[Finding]) -> None:
        super().__init__(f"plugin {plugin!r} is not what the lock {config.file} has: {sentence(findings)}")
        self.findings = findings
