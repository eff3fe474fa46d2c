"""Compare what is installed with what was locked: every difference is a finding, by kind.

plugin ─► in the lock? ─► entry point, manifest, permissions ─► what it requires ─► each distribution's files, caches, names
                                                                                 └► what runs whenever Python starts
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

from . import _startup
from ._closure import Installed
from ._content import Content, of_directory
from ._digests import Digest
from ._errors import IntegrityError
from ._finding import Finding
from ._lockfile import Lock, LockedDistribution, LockedPlugin
from ._lookalikes import like
from ._names import normalized
from ._survey import Standing, Survey, source_root

# From the least to the most: what runs further up than it was locked gives away what it was locked with.
_ISOLATIONS = ("none", "auto", "process")
_SANDBOXES = ("off", "standard", "strict")


_MORE = ("extra", "shared-namespace", "sourceless-pyc")


class Verification:
    """One comparison of an installation with a lock. Not thread-safe; every distribution is looked at once."""

    def __init__(self, lock: Lock, survey: Survey) -> None:
        self.lock = lock
        self._survey = survey
        self._distributions: dict[str, list[Finding]] = {}
        self._contents: dict[str, Content] = {}
        self._everywhere: list[Finding] | None = None

    def plugin(self, name: str, now: Standing | None) -> list[Finding]:
        """Return what is wrong with one plugin, and with everything that runs beside it. None: it isn't there."""
        findings = [*self.plugin_alone(name, now), *self.everywhere]
        return sorted(dict.fromkeys(findings))

    def plugin_alone(self, name: str, now: Standing | None) -> Iterator[Finding]:
        """Yield what is wrong with one plugin and what it requires."""
        for finding in self._of_plugin(name, now):
            yield dataclasses.replace(finding, plugin=name)

    @cached_property
    def _all_files(self) -> frozenset[str]:
        """Where the files of all distributions that are locked lie: a RECORD that claims another's files makes them no news."""
        found: set[str] = set()
        for name, locked in self.lock.distributions.items():
            for installed in self._survey.there.all(name)[:1]:
                found.update(os.path.join(installed.place, file) for file in locked.files)
        return frozenset(found)

    @property
    def everywhere(self) -> list[Finding]:
        """What is wrong for every plugin."""
        if self._everywhere is None:
            path, digests = self._survey.there.path, self._survey.digests
            started = _startup.startup_findings(path, digests, self.lock.startup)
            self._everywhere = [*started, *_startup.stdlib_shadows(path)]
        return self._everywhere

    def verified(self, name: str) -> dict[str, tuple[int, str]]:
        """Return what a worker may import for a plugin that has no findings: absolute path → size and SHA-256, as locked.

        Bytecode that is what its source compiles to is among it.
        """
        plugin = self.lock.plugin(name)
        if plugin is None:
            return {}
        found = self._absolute(f"plugin {name}", plugin.files)
        for each in plugin.requires:
            found |= self._absolute(each, self.lock.distributions[each].files)
        return found

    def _absolute(self, key: str, files: Mapping[str, Digest]) -> dict[str, tuple[int, str]]:
        content = self._contents.get(key)
        if content is None:
            return {}
        found = {content.files[name]: digest for name, digest in files.items() if name in content.files}
        return {path: (digest.size, digest.sha256) for path, digest in {**found, **self._survey.bytecode(content)}.items()}

    def _of_plugin(self, name: str, now: Standing | None) -> Iterator[Finding]:
        locked = self.lock.plugin(name)
        if locked is None:
            yield from self._unlisted(name, now)
            return
        if now is None:
            yield Finding("", "missing", "", "the plugin is locked, and not installed or kept out", locked.distribution)
            return
        if now.wrong:
            kind = "duplicate" if now.duplicate else "modified"
            yield Finding("", kind, now.manifest, now.wrong, locked.distribution)
        elif now.entry_point != locked.entry_point or normalized(now.distribution) != locked.distribution:
            was = f"{locked.entry_point} of {locked.distribution or 'a plugin directory'} was locked"
            is_now = f"{now.entry_point} of {now.distribution or 'a plugin directory'}"
            yield Finding("", "entry-point", "", f"its entry point is {is_now}, {was}", now.distribution)
        yield from _escalations(locked, now)
        files = list(_or_unreadable(itertools.chain(self._directory(name, locked, now), self._required(locked))))
        yield from files
        if not any(finding.kind in ("modified", "missing", "extra", "drift", "editable") for finding in files) and not now.wrong:
            yield from self._manifest(locked, now)

    def _unlisted(self, name: str, now: Standing | None) -> Iterator[Finding]:
        distribution = "" if now is None else normalized(now.distribution)
        if now is None:
            yield Finding("", "missing", "", "the plugin is neither installed nor locked")
            return
        if now.duplicate:
            yield Finding("", "duplicate", now.manifest, now.wrong, distribution)
        if distribution in self.lock.distributions:
            yield Finding("", "entry-point", "", f"{distribution} is locked and had no such entry point then", distribution)
        elif not now.wrong:  # what can't be loaded in any case is no news
            shipped = f"distribution {distribution}" if distribution else f"directory {now.directory}"
            yield Finding("", "unlisted", "", f"the plugin of {shipped} is not in the lock", distribution)
        if distribution not in self.lock.distributions:
            yield from self._alike(distribution, self.lock.distributions, distribution)
        yield from self._alike(name, self.lock.plugins, distribution)

    def _alike(self, name: str, others: Iterable[str], distribution: str) -> Iterator[Finding]:
        other = like(name, others)
        if other is not None:
            yield Finding("", "look-alike", "", f"{name} can be taken for {other}, which is locked", distribution)

    def _manifest(self, locked: LockedPlugin, now: Standing) -> Iterator[Finding]:
        found = None
        if now.manifest:
            place = now.directory or os.path.dirname(now.manifest)
            found = self._survey.digests.of(now.manifest, place).sha256
        if found != locked.manifest:
            yield Finding("", "modified", now.manifest, "its manifest is not the one that was locked", now.distribution)

    def _directory(self, name: str, locked: LockedPlugin, now: Standing) -> Iterator[Finding]:
        if locked.distribution or not now.directory:
            return
        content = self._contents[f"plugin {name}"] = of_directory(now.directory)
        yield from self._compared(content, locked.files, {})

    def _required(self, locked: LockedPlugin) -> Iterator[Finding]:
        for name in locked.requires:
            yield from self.distribution(name)
        now, _ = self._survey.closure(*locked.requires)
        for name in now.keys() - set(locked.requires):
            yield Finding("", "drift", "", f"{name} {now[name].version} is required now, and is not in the lock", name)
            yield from self._alike(name, self.lock.distributions, name)

    def distribution(self, name: str) -> list[Finding]:
        """Return what is wrong with a distribution that is locked."""
        if name not in self._distributions:
            self._distributions[name] = [dataclasses.replace(finding, distribution=name) for finding in self._of_distribution(name)]
        return self._distributions[name]

    def _of_distribution(self, name: str) -> Iterator[Finding]:
        locked = self.lock.distributions[name]
        found = self._survey.there.all(name)
        if not found:
            yield Finding("", "drift", "", f"{name} {locked.version} is locked, and not installed")
            return
        if len(found) > 1:
            places = ", ".join(each.path for each in found)
            yield Finding("", "duplicate", "", f"{name} is installed {len(found)} times: {places}")
        first = found[0]
        if first.version != locked.version or first.name != name:
            yield Finding("", "drift", "", f"{name} {locked.version} is locked, {first.name} {first.version} is installed")
        elif first.editable and not locked.editable:
            yield Finding("", "editable", first.path, f"{name} was locked as a package, and is a working tree now")
        else:
            yield from self._same_distribution(name, locked, first)

    def _same_distribution(self, name: str, locked: LockedDistribution, found: Installed) -> Iterator[Finding]:
        content = self._contents[name] = found.content(locked.tops)
        content.shared.update(locked.shared)
        yield from self._compared(content, locked.files, locked.data)
        yield from _startup.shadows(content, source_root(found, content))

    def _compared(self, content: Content, files: Mapping[str, Digest], data: Mapping[str, Digest]) -> Iterator[Finding]:
        yield from content.findings
        now, now_data, unread = self._survey.digested(content)
        yield from unread
        told = {finding.file for finding in (*content.findings, *unread)}
        changed = []
        for kind, finding in _differences(files, now, content):
            if finding.file not in told and not (kind in _MORE and content.files[finding.file] in self._all_files):
                changed.append(finding.file)
                yield dataclasses.replace(finding, kind=kind)
        for kind, finding in _differences(data, now_data, content):
            if finding.file not in told and kind != "extra":
                yield dataclasses.replace(finding, kind=kind)
        yield from self._survey.caches(content, [*changed, *told])


def _or_unreadable(findings: Iterator[Finding]) -> Iterator[Finding]:
    """Yield findings, and one more where what comes next can't be read."""
    try:
        yield from findings
    except IntegrityError as error:
        yield Finding("", "modified", "", str(error))


def _differences(locked: Mapping[str, Digest], now: Mapping[str, Digest], content: Content) -> Iterator[tuple[str, Finding]]:
    for name in sorted(locked.keys() | now.keys()):
        if name not in now:
            yield "missing", Finding("", "", name, "it is locked, and not there")
        elif name not in locked:
            yield _kind_of_extra(name, now, content), Finding("", "", name, "it is not in the lock")
        elif now[name] != locked[name]:
            yield "modified", Finding("", "", name, f"sha256 {now[name].sha256[:16]}…, locked {locked[name].sha256[:16]}…")


def _kind_of_extra(name: str, now: Mapping[str, Digest], content: Content) -> str:
    if name.endswith(".pyc") and f"{name[:-1]}" not in now:
        return "sourceless-pyc"
    return "shared-namespace" if name.rpartition("/")[0] in content.shared else "extra"


def _escalations(locked: LockedPlugin, now: Standing) -> Iterator[Finding]:
    for words, was, is_now in ((_ISOLATIONS, locked.isolation, now.isolation), (_SANDBOXES, locked.sandbox, now.sandbox)):
        if _rank(words, is_now) < _rank(words, was):
            what = "isolation" if words is _ISOLATIONS else "sandbox"
            yield Finding("", "permission", now.manifest, f"{what} {is_now!r} is less than {was!r}, which was locked")
    for key, granted in now.permissions.items():
        if more := _beyond(granted, locked.permissions.get(key, False)):
            yield Finding("", "permission", now.manifest, f"{key} is granted {more}, which was not locked")


def _rank(words: tuple[str, ...], word: str) -> int:
    return words.index(word) if word in words else len(words)


def _beyond(granted: bool | list[str], locked: bool | list[str]) -> str:  # noqa: FBT001 - a permission is one or the other
    """Return what is granted and wasn't locked, as words; "" for nothing."""
    if locked is True or not granted:
        return ""
    if granted is True:
        return "as a whole"
    more = [each for each in granted if not locked or each not in locked]
    return ", ".join(map(repr, more))
