"""What a verification finds, by kind, each with what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ._names import printable

_REINSTALL = "reinstall {distribution}; if the change is meant, lock it anew"
_UNINSTALL = "uninstall it, or lock it if it is meant"

# Kind → remedy; {file}, {distribution} and {plugin} are the finding's own.
KINDS = {
    "modified": _REINSTALL,
    "missing": _REINSTALL,
    "extra": "delete the file; if it is meant, lock anew",
    "sourceless-pyc": "delete the file: it would run without a source that anybody can read",
    "foreign-pyc": "delete the file: Python makes a new one from the source",
    "pth": "delete the file; if it is meant, lock anew: what it says runs in every interpreter",
    "sitecustomize": "delete the file; if it is meant, lock anew: it runs in every interpreter",
    "unlisted": _UNINSTALL,
    "duplicate": "uninstall all but one of them",
    "escape": "replace it by what it leads to: only what lies inside is verified",
    "case-collision": "keep one of them: on some file systems they are the same file",
    "editable": "install it as a package; to lock a working tree all the same: hostkit lock --editable",
    "shared-namespace": "delete the file; if it is meant, lock anew: it is in a directory that several distributions share",
    "entry-point": "reinstall {distribution}; if the change is meant, lock it anew",
    "drift": "install what is locked; if the change is meant, lock anew",
    "permission": "take it back in the manifest or the configuration; if it is meant, lock anew",
    "look-alike": "make sure that it isn't taken for the other one; uninstall it, or lock it if it is meant",
    "shadow": "delete or rename it: it would be imported instead",
    "world-writable": "take that permission away: chmod o-w",
}


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing that isn't as it was locked. ``plugin`` is empty for what concerns all of them; ``text`` is what was found."""

    plugin: str
    kind: str
    file: str
    text: str
    distribution: str = ""

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return KINDS[self.kind].format(distribution=printable(self.distribution) or "it")

    def __str__(self) -> str:
        where = f"{printable(self.file, 1000)}: " if self.file else ""
        return f"{self.kind}: {where}{printable(self.text, 1000)}; {self.remedy}"


def sentence(findings: Sequence[Finding], most: int = 5) -> str:
    """Return findings as one clause each, as many as somebody will read."""
    more = [f"and {len(findings) - most} more (hostkit verify shows all)"] if len(findings) > most else []
    return " | ".join([*(str(finding) for finding in findings[:most]), *more])
