"""What was expected of every act at every level, how a run differs from it, and the run as a document."""

from __future__ import annotations

import collections
import functools
import platform
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from ._run import ABSENT, LEVELS, REACHED, Row
from ._table import ACTS, Act

Rows = Mapping[str, Mapping[str, Row]]  # by level and act

_FAMILIES = {
    "reading": "Reading what belongs to others",
    "writing": "Changing what belongs to others",
    "proc": "Other processes by /proc",
    "others": "Other processes by system calls",
    "signals": "Signals",
    "programs": "Processes and programs of its own",
    "network": "Sockets",
    "sharing": "Memory, queues and semaphores with a name",
    "kernel": "The kernel",
    "limits": "Limits",
    "lifeline": "The lifeline",
    "channel": "The channel to the host",
}
# Capabilities by their bits, as /proc/self/status has them.
_CAPABILITIES = {
    "CAP_CHOWN": 0,
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_NET_RAW": 13,
    "CAP_SYS_MODULE": 16,
    "CAP_SYS_RAWIO": 17,
    "CAP_SYS_CHROOT": 18,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_PACCT": 20,
    "CAP_SYS_ADMIN": 21,
    "CAP_SYS_BOOT": 22,
    "CAP_SYS_NICE": 23,
    "CAP_SYS_RESOURCE": 24,
    "CAP_SYS_TIME": 25,
    "CAP_MKNOD": 27,
    "CAP_SYSLOG": 34,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}


@functools.cache
def expected() -> dict[str, tuple[str, ...]]:
    """Return for every act its word at each level."""
    return {name: tuple(words) for name, words in _file()["acts"].items()}


@functools.cache
def reasons() -> dict[str, str]:
    """Return for the acts that are reached in the sandbox why they are."""
    return dict(_file()["why"])


def _file() -> dict[str, dict[str, str]]:
    return tomllib.loads((Path(__file__).parent / "expected.toml").read_text(encoding="utf-8"))


def differences(rows: Rows) -> list[str]:
    """Return a line for every act that didn't come out as expected."""
    return [
        f"{level}: {name} is {row.word} ({row.how}), expected was {_word(level, name)}"
        for level, found in rows.items()
        for name, row in found.items()
        if not _as_expected(level, ACTS[name], row)
    ]


def document(rows: Rows) -> str:
    """Return a run of all acts as a page of Markdown."""
    return "\n".join(_lines(rows)) + "\n"


def _as_expected(level: str, act: Act, row: Row) -> bool:
    if row.word == _word(level, act.name):
        return True
    if level == LEVELS[0]:  # nothing holds it there but the machine and its user
        return row.word == ABSENT or (bool(act.needs) and not _has(act.needs))
    return row.word == ABSENT and platform.machine() != "x86_64"


def _word(level: str, name: str) -> str:
    return expected()[name][LEVELS.index(level)]


@functools.cache
def _has(needs: str) -> bool:
    """Return whether this process has a capability. What else an act needs is not looked at."""
    with open("/proc/self/status", encoding="utf-8") as file:
        mask = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff"))
    return needs in _CAPABILITIES and bool(mask >> _CAPABILITIES[needs] & 1)


def _lines(rows: Rows) -> Iterator[str]:
    yield from _HEAD.format(count=len(ACTS)).splitlines()
    words = [*dict.fromkeys(word for found in expected().values() for word in found)]
    yield f"| level | {' | '.join(words)} |"
    yield f"|---|{'---|' * len(words)}"
    for level in rows:
        counts = collections.Counter(_cell(level, ACTS[name], row) for name, row in rows[level].items())
        yield f"| `{level}` | {' | '.join(str(counts[word] or '-') for word in words)} |"
    for level in LEVELS[1:]:
        yield from _reached(rows, level)
    for family, title in _FAMILIES.items():
        yield from ("", f"## {title}", "", f"| act | {' | '.join(f'`{level}`' for level in rows)} |", f"|---|{'---|' * len(rows)}")
        for act in (act for act in ACTS.values() if act.family == family):
            cells = [_cell(level, act, rows[level][act.name]) for level in rows]
            if act.needs and cells[0] == REACHED:
                cells[0] += f" with {act.needs}"
            yield f"| **{act.name}**: {act.does} | {' | '.join(cells)} |"


def _reached(rows: Rows, level: str) -> Iterator[str]:
    found = rows.get(level, {})
    names = [name for name in expected() if name in found and found[name].word == REACHED]
    if names:
        yield from ("", f"## Not blocked at `{level}`", "")
        yield from (f"- **{name}**: {reasons().get(name, 'nobody said why')}" for name in names)


def _cell(level: str, act: Act, row: Row) -> str:
    """Return a word that is the same on every machine where the act came out as expected there."""
    return _word(level, act.name) if _as_expected(level, act, row) else row.word


_HEAD = """\
# What is contained

<!-- Made by `python -m escape_plugin --markdown` from a run; a test compares it. -->

A plugin that tries {count} acts, one a call, at each level of the [sandbox](configuration.md#the-sandbox): `sample_plugins/escape-plugin`.
This page is what a run of it gave; the tests run it again and compare. Where an act shows outside of the worker, the test's own
eyes decide: the canary that changed, the victim that died, the listener that was reached. `off` is what any process of the
same user can do, and shows that the acts are real.

| word | |
|---|---|
| reached | it was done |
| denied | the kernel refused it |
| hidden | what it reaches for isn't there |
| limited | it was done as far as a limit goes, or nothing came of it |
| ended | it cost the plugin its worker, and nobody else anything |

"""
