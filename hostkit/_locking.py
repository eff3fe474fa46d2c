"""Make a lock of what is installed, and say how a plugin stands now.

specs ─► how each stands ─► what it requires ─► files and digests, once for each distribution ─► Lock
                                            └► what should not be locked: findings
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from . import _lockfile, _startup
from ._config import PluginConfig
from ._content import Content, of_directory
from ._decided import Decided, decide
from ._digests import Digest
from ._errors import DuplicatePlugin, HostkitError
from ._finding import Finding
from ._lockfile import Lock, LockedDistribution, LockedPlugin
from ._names import normalized
from ._opening import Settings
from ._spec import PluginSpec
from ._survey import Standing, Survey, source_root

# What is told when a lock is written, and locked all the same: somebody changed a file or lives with another version on purpose.
TOLERATED = frozenset({"modified", "missing", "drift"})


def standing(spec: PluginSpec, config: PluginConfig) -> Standing:
    """Return how a plugin that was found stands now, by the operator's word and its own."""
    if spec.error is not None:
        return _broken(spec, spec.error)
    try:
        return standing_as(spec, decide(spec.name, spec.manifest, config, None))
    except HostkitError as error:
        return _broken(spec, error)


def standing_as(spec: PluginSpec, decided: Decided) -> Standing:
    """Return how a plugin stands that is about to be opened as was decided."""
    settings = decided.settings
    return dataclasses.replace(_found(spec), permissions=_granted(settings), isolation=decided.word, sandbox=settings.sandbox)


def _found(spec: PluginSpec) -> Standing:
    return Standing(
        spec.name,
        spec.entry_point,
        normalized(spec.distribution),
        "" if spec.directory is None else str(spec.directory),
        "" if spec.manifest_path is None else str(spec.manifest_path),
    )


def _broken(spec: PluginSpec, error: HostkitError) -> Standing:
    return dataclasses.replace(_found(spec), wrong=str(error), duplicate=isinstance(error, DuplicatePlugin))


def _granted(settings: Settings) -> dict[str, bool | list[str]]:
    environment = sorted({*settings.environment, *settings.grants.env})
    return {**settings.grants.as_data(), **({"env": environment} if environment else {})}


@dataclass(frozen=True, slots=True)
class Locked:
    """A lock, the text of its file, and what was found while it was made."""

    lock: Lock
    text: str
    findings: tuple[Finding, ...]

    @property
    def refused(self) -> list[Finding]:
        """What must not be locked."""
        return [finding for finding in self.findings if finding.kind not in TOLERATED]


def lock_of(
    group: str,
    standings: Iterable[Standing],
    survey: Survey,
    *,
    beside: Path,
    include: Iterable[str] = (),
    editable: bool = False,
) -> Locked:
    """Lock these plugins as they are installed now; ``beside`` is where the lock will be, ``include`` what all of them may import.

    Raises ``IntegrityError`` for what can't be read.
    """
    making = _Making(survey, include, editable=editable)
    plugins = {each.name: making.plugin(each) for each in standings}
    started, unread = _startup.startup(survey.there.path, survey.digests)
    startup = {name: sorted(digests) for name, digests in sorted(started.items())}
    findings = [*making.findings, *unread, *_startup.stdlib_shadows(survey.there.path)]
    lock = Lock(
        group=group,
        plugins=dict(sorted(plugins.items())),
        distributions=dict(sorted(making.distributions.items())),
        startup=startup,
    )
    text = _lockfile.text(lock, making.places, making.needs, beside)
    return Locked(lock, text, tuple(sorted(dict.fromkeys(findings))))


class _Making:
    """The parts of one lock."""

    def __init__(self, survey: Survey, include: Iterable[str], *, editable: bool) -> None:
        self._survey = survey
        self._include = sorted({normalized(name) for name in include})
        self._editable = editable
        self.distributions: dict[str, LockedDistribution] = {}
        self.places: dict[str, str] = {}
        self.needs: dict[str, list[str]] = {}
        self.findings: list[Finding] = []

    def plugin(self, now: Standing) -> LockedPlugin:
        """Return one plugin as it is to be locked, and take in what it requires."""
        manifest = None
        if now.manifest:
            manifest = self._survey.digests.of(now.manifest, now.directory or os.path.dirname(now.manifest)).sha256
        return LockedPlugin(
            entry_point=now.entry_point,
            distribution=now.distribution,
            manifest=manifest,
            requires=self._required(now),
            permissions=dict(sorted(now.permissions.items())),
            isolation=now.isolation,
            sandbox=now.sandbox,
            files={} if now.distribution else self._files(of_directory(now.directory), {}, now.name, "")[0],
        )

    def _required(self, now: Standing) -> list[str]:
        found, lacks = self._survey.closure(*filter(None, [now.distribution, *self._include]))
        self.findings += [Finding(now.name, "drift", "", lack.text, lack.name) for lack in lacks]
        for name in found:
            self._take(name)
        return list(found)

    def _take(self, name: str) -> None:
        if name in self.distributions:
            return
        several = self._survey.there.all(name)
        first = several[0]
        if len(several) > 1:
            places = ", ".join(each.path for each in several)
            self.findings.append(Finding("", "duplicate", "", f"{name} is installed {len(several)} times: {places}", name))
        if first.editable and not self._editable:
            self.findings.append(Finding("", "editable", first.path, "it is a working tree, which changes", name))
        content = first.content()
        # RECORD of a working tree has the file that leads there, which is among what runs at every start.
        files, data = self._files(content, {} if first.editable else first.claims, "", name)
        self.distributions[name] = LockedDistribution(
            version=first.version,
            editable=first.editable,
            shared=sorted(content.shared),
            tops=sorted(content.tops),
            files=files,
            data=data,
        )
        self.places[name] = source_root(first, content)
        required, _ = self._survey.closure(name)
        direct = {normalized(each.name) for each in first.requirements}
        self.needs[name] = sorted(direct & required.keys())
        shadows = _startup.shadows(content, self.places[name])
        self.findings += [dataclasses.replace(finding, distribution=name) for finding in shadows]

    def _files(
        self, content: Content, claims: Mapping[str, Digest | None], plugin: str, distribution: str
    ) -> tuple[dict[str, Digest], dict[str, Digest]]:
        files, data, unread = self._survey.digested(content)
        told = [*content.findings, *unread, *self._survey.caches(content, ()), *_beside_record(files, claims)]
        self.findings += [dataclasses.replace(finding, plugin=plugin, distribution=distribution) for finding in told]
        return dict(sorted(files.items())), dict(sorted(data.items()))


def _beside_record(files: Mapping[str, Digest], claims: Mapping[str, Digest | None]) -> Iterator[Finding]:
    for name, claim in claims.items():
        if claim is not None and name in files and files[name] != claim:
            yield Finding("", "modified", name, "it is not what RECORD says")
        elif claim is not None and name not in files and not name.startswith(("../", "/")) and not name.endswith(_NOT_TAKEN):
            yield Finding("", "missing", name, "RECORD has it, and it is not there")


_NOT_TAKEN = ("/RECORD", "/INSTALLER", "/REQUESTED", "/direct_url.json", ".pyc")
