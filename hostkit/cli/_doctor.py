"""``hostkit doctor``: what this machine offers, whether the configuration is valid, and what of the installed plugins is broken."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import __version__
from .._cgroup import delegated
from .._contract import Caller, ExecutionContext
from .._environment import settings
from .._errors import DuplicatePlugin, HostkitError, ManifestError, PluginLoadError
from .._names import normalized
from .._offered import matches
from . import _status
from ._probe import Probe
from ._session import Session
from ._text import block, escaped
from ._verb import Verb, verbose_option

if TYPE_CHECKING:
    from .._backends import Backend
    from .._config import HostConfig
    from .._offered import Offered
    from .._spec import PluginSpec


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. ``state`` is ok, note (works without, or merely told) or broken; ``remedy`` says what to do."""

    section: str
    name: str
    state: str
    text: str
    remedy: str = ""


@click.command("doctor", cls=Verb)
@verbose_option
@click.pass_obj
def verb(session: Session) -> int:
    """Check what this machine offers (a worker is really started), the configuration, and every installed plugin.

    Plugins are not loaded: hostkit health does that. Exit status 1 if anything is broken.
    """
    with session.log_on_stderr():
        findings = [*_machine(), *_workers(), *_configuration(session), *_lock(session), *_plugins(session)]
    broken = [finding for finding in findings if finding.state == "broken"]
    output = session.output
    if session.json:
        output.json({"broken": len(broken), "findings": [asdict(finding) for finding in findings]})
    else:
        for line in _lines(findings):
            output.line(line)
        output.line(f"\n{len(broken)} broken" if broken else "\nnothing is broken")
    return _status.FAILED if broken else _status.ANSWERED


def _lines(findings: list[Finding]) -> Iterator[str]:
    section = ""
    for finding in findings:
        if finding.section != section:
            yield f"\n{finding.section}" if section else finding.section
            section = finding.section
        yield f"  {finding.state:<6}  {escaped(finding.name)}: {block(finding.text, ' ' * 12)}"
        if finding.remedy:
            yield f"          → {block(finding.remedy, ' ' * 12)}"


# What this machine offers.


def _machine() -> Iterator[Finding]:
    def note(name: str, text: str, *, ok: bool = True) -> Finding:
        return Finding("machine", name, "ok" if ok else "note", text)

    yield note("hostkit", f"{__version__} in {Path(__file__).parents[1]}")
    yield note("python", f"{platform.python_implementation()} {platform.python_version()}, {sys.executable}")
    yield note("platform", f"{platform.platform()}, {os.cpu_count()} CPUs")
    for name, what, try_it in _FEATURES:
        try:
            yield note(name, try_it())
        except (OSError, AttributeError, ImportError, ValueError) as error:
            yield note(name, f"not here ({error}); {what}", ok=False)
    yield note("cgroups", _cgroups())


def _memfd() -> str:
    import fcntl

    fd = os.memfd_create("hostkit-doctor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    finally:
        os.close(fd)
    return "works, with seals"


def _pidfd() -> str:
    os.close(os.pidfd_open(os.getpid()))
    return "works"


def _lifeline() -> str:
    import fcntl
    import signal

    read, write = os.pipe()
    try:
        # Any signal will do: this pipe gets no O_ASYNC, so none is ever sent.
        fcntl.fcntl(read, getattr(fcntl, "F_SETSIG", 10) if sys.platform == "linux" else fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(read, fcntl.F_SETOWN, os.getpid())
    finally:
        os.close(read)
        os.close(write)
    return "the kernel ends a worker whose host is gone"


def _rlimits() -> str:
    import resource

    def shown(value: int) -> str:
        return "unlimited" if value == resource.RLIM_INFINITY else str(value)

    found = []
    for name in ("RLIMIT_DATA", "RLIMIT_CPU", "RLIMIT_NOFILE"):
        soft, hard = resource.getrlimit(getattr(resource, name))
        resource.setrlimit(getattr(resource, name), (soft, hard))
        found.append(f"{name} {shown(soft)} of {shown(hard)}")
    return ", ".join(found)


def _affinity() -> str:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, allowed)
    return f"works; this process may use {len(allowed)} CPUs"


_FEATURES: tuple[tuple[str, str, Callable[[], str]], ...] = (
    ("memfd", "crash dumps and big data go through files", _memfd),
    ("pidfd", "the end of a worker is found by asking", _pidfd),
    ("lifeline signal", "a thread in each worker watches for the end of its host", _lifeline),
    ("rlimits", "plugins with limits are refused", _rlimits),
    ("CPU affinity", "plugins with max_cpu_cores are refused", _affinity),
)


def _cgroups() -> str:
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").is_file():
        kind = f"v2, controllers {_read(root / 'cgroup.controllers') or 'none'}"
    elif (root / "unified").is_dir():
        kind = "v1 and v2 (hybrid)"
    elif (root / "memory").is_dir():
        kind = "v1"
    else:
        return "none to be seen (hostkit doesn't need any)"
    place = delegated()
    return (
        f"{kind}; {'none is delegated to this process, limits hold without' if place is None else f'workers get theirs in {place}'}"
    )


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


# Whether a worker can be started, and how far it can be confined.


def _workers() -> Iterator[Finding]:
    try:
        yield Finding("machine", "worker", "ok", _started("off"))
    except (HostkitError, OSError) as error:
        yield Finding("machine", "worker", "broken", f"can't be started: {error}", "hostkit doctor -vv says more")
        return
    for level in ("standard", "strict"):
        name = f"sandbox {level}"
        try:
            yield Finding("machine", name, "ok", _started(level))
        except (HostkitError, OSError) as error:
            yield Finding(
                "machine", name, "note", f"not here: {error}", f"plugins with sandbox = {level!r} are refused on this machine"
            )


def _started(level: str) -> str:
    from .._backends._process import Process
    from .._confinement import Ground
    from .._deadline import Deadline
    from .._monitor import Monitor
    from .._opening import Opening, Settings
    from .._scratch import Scratch

    monitor, scratch, settings = Monitor(), Scratch(), Settings(sandbox=level)
    opening = Opening(
        "doctor",
        f"{Probe.__module__}:Probe",
        {},
        settings,
        Caller("doctor", ""),
        monitor,
        confinement=None if level == "off" else Ground({}).confinement(settings, None),
        scratch=None if level == "off" else scratch,
    )
    try:
        started = time.perf_counter()
        backend = Process(opening)
        try:
            return _timed(backend, started)
        finally:
            backend.close(Deadline.after(1.0))
    finally:
        monitor.stop()
        scratch.close()


def _timed(backend: Backend, started: float) -> str:
    from .._shape import UNTYPED

    ready = time.perf_counter()
    for _ in range(_CALLS):
        backend.call(ExecutionContext("doctor", 5.0), {"a": 1}, UNTYPED)
    each = (time.perf_counter() - ready) / _CALLS
    return f"ready in {(ready - started) * 1e3:.0f} ms, a small call in {each * 1e6:.0f} µs"


_CALLS = 200


# The configuration.


def _configuration(session: Session) -> Iterator[Finding]:
    try:
        path, config = session.config_path, session.config
        yield Finding("configuration", "file", "ok", "none" if path is None else f"{path} is valid")
        for setting in settings():
            yield Finding("configuration", setting.variable, "ok", f"sets {'.'.join(setting.keys)}")
        installed = session.specs.installed
        known = {normalized(name) for name in installed}
        for name in config.plugins:
            if normalized(name) not in known:
                yield Finding("configuration", f"plugins.{name}", "note", f"no plugin of that name in {session.group}")
        for word in ("include", "exclude"):
            for pattern in getattr(config.discovery, word):
                if not any(matches(name, pattern) for name in installed):
                    yield Finding("configuration", f"discovery.{word}", "note", f"{pattern!r} matches no plugin in {session.group}")
    except HostkitError as error:
        yield Finding("configuration", "file", "broken", str(error), "mend it; nothing runs with a wrong configuration")


def _lock(session: Session) -> Iterator[Finding]:
    try:
        policy, file = session.config.lock.policy, session.lock_file
    except HostkitError:
        return  # told already
    if policy == "off":
        return
    from .. import _lockfile

    try:
        count = len(_lockfile.read(file, session.group).plugins)
        yield Finding("configuration", "lock", "ok", f"{file} has {count} plugins; policy {policy}")
    except HostkitError as error:
        state, remedy = (
            ("broken", "no plugin is loaded; hostkit lock writes it") if policy == "enforce" else ("note", "hostkit lock writes it")
        )
        yield Finding("configuration", "lock", state, f"{error}; policy {policy}", remedy)


# What is installed.


def _plugins(session: Session) -> Iterator[Finding]:
    try:
        specs, config = session.specs, session.config
    except HostkitError as error:
        yield Finding("plugins", "all", "note", f"not looked at: {error}")
        return
    if not specs.installed:
        yield Finding("plugins", session.group, "note", "none is installed")
    if specs.kept_out:
        text = f"{len(specs.kept_out)} of {len(specs.installed)} are kept out by [discovery]: {', '.join(specs.kept_out)}"
        yield Finding("plugins", "filters", "note", text, "hostkit list --all says why")
    for spec in specs.values():
        yield _plugin(spec, specs, config, session.group)


def _plugin(spec: PluginSpec, specs: Offered, config: HostConfig, group: str) -> Finding:
    from .. import _requirements
    from .._decided import decide
    from .._discovery import reread

    own = config.plugin(spec.name)
    if not own.enabled:
        return Finding("plugins", spec.name, "note", "disabled in the configuration")
    try:
        manifest = reread(spec, group, config.discovery.paths).manifest
        decided = decide(spec.name, manifest, own, None)
        seen = _requirements.seen_by_plugin(decided.isolation, decided.settings.environment)
        _requirements.check(spec.name, manifest, seen)
        specs.there.check(spec.name, manifest)
        specs.order.before(spec.name)
        without = specs.order.without(spec.name)
    except HostkitError as error:
        return Finding("plugins", spec.name, "broken", f"{type(error).__name__}: {error}", _remedy(error, spec))
    text = f"{spec.version or 'no version'}, isolation {decided.isolation}"
    if decided.unheld:
        text += f"; nothing holds its limits there ({', '.join(decided.unheld)})"
    text = "; ".join([text, *without])
    return Finding("plugins", spec.name, "note" if decided.unheld or without else "ok", text)


def _remedy(error: HostkitError, spec: PluginSpec) -> str:
    if isinstance(error, PluginLoadError):
        return f"install {spec.distribution or 'its distribution'} anew"
    if isinstance(error, DuplicatePlugin):
        return "uninstall all but one of them"
    if isinstance(error, ManifestError):
        return "mend its manifest, or tell its author"
    return ""  # the message itself says it
