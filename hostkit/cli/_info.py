"""``hostkit info``: what a plugin declares, what it says of itself, where it runs and what it is held to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from .._config import PluginConfig
from .._decided import Decided, decide
from .._discovery import reread
from .._errors import PluginNotFound
from .._host import Host
from .._manifest import Manifest
from .._offered import kept_out, not_found
from .._permissions import Grant
from .._spec import PluginSpec
from . import _status
from ._output import Output
from ._session import Session
from ._text import block, escaped
from ._verb import IsolationWord, PluginName, Verb, verbose_option


@click.command("info", cls=Verb)
@click.argument("name", type=PluginName())
@click.option("--isolation", type=IsolationWord(), help="Where to run it; never below what the operator demands.")
@click.option("--static", is_flag=True, help="Don't load the plugin: only what manifest, distribution and configuration say.")
@verbose_option
@click.pass_obj
def verb(session: Session, name: str, isolation: str | None, static: bool) -> int:
    """Show all that is known of the plugin NAME: what it says of itself (it is loaded for that), its manifest and
    distribution, where it runs, what it is held to, and which of its limits nothing holds there.
    """
    if static:
        _show(session.output, _static(session, name, isolation), as_json=session.json)
        return _status.ANSWERED
    with session.host() as (host, output):
        host.load(name, isolation=isolation)
        _show(output, _loaded(host, name), as_json=session.json)
    return _status.ANSWERED


def _static(session: Session, name: str, isolation: str | None) -> dict[str, Any]:
    specs = session.specs
    if name not in specs:
        raise PluginNotFound(not_found(name, specs, session.group))
    spec = reread(specs[name], session.group, session.config.discovery.paths)
    if why := specs.glance.why_not(spec):
        raise PluginNotFound(kept_out(name, why))
    manifest, config = spec.manifest, session.config.plugin(name)
    return _described(spec, manifest, config, decide(name, manifest, config, isolation), {})


def _loaded(host: Host, name: str) -> dict[str, Any]:
    said = host.info(name)
    record = host._loader.record(name)
    assert record.lane is not None
    assert record.spec is not None
    words = {field: getattr(said, field) for field in ("name", "version", "description", "author")}
    own = {key: value for key, value in said.metadata.items() if key != "hostkit"}
    words |= {"capabilities": list(said.capabilities), "metadata": own, "execute": record.lane.backend.kind}
    return _described(record.spec, record.manifest, record.config, record.lane.decided, words)


def _described(
    spec: PluginSpec, manifest: Manifest, config: PluginConfig, decided: Decided, says: dict[str, Any]
) -> dict[str, Any]:
    settings = decided.settings
    return {
        "name": spec.name,
        "says": says or None,
        "distribution": {"name": spec.distribution, "version": spec.version} if spec.distribution else None,
        "directory": None if spec.directory is None else str(spec.directory),
        "entry_point": spec.entry_point,
        "manifest_path": None if spec.manifest_path is None else str(spec.manifest_path),
        "manifest": manifest.model_dump(mode="json") if spec.manifest_path is not None else None,
        "enabled": config.enabled,
        "runs": {
            "isolation": decided.isolation,
            "workers": settings.workers if decided.isolation != "none" else None,
            "concurrency": settings.concurrency,
            "timeout": config.timeout,
            "limits": manifest.resources.capped(config.resources).model_dump(exclude_none=True),
            "recycle": config.recycle.model_dump(exclude_none=True),
            "sandbox": settings.sandbox,
            "permissions": {grant.wish: _granted(grant) for grant in settings.grants.wishes},
            "held_by": dict(decided.held),
            "not_held": list(decided.unheld),
        },
    }


def _granted(grant: Grant) -> str:
    return f"{'granted' if grant.granted else 'not granted'}: {grant.why}"


def _show(output: Output, found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.json(found)
        return
    for line in _lines(found, ""):
        output.line(line)
    if found["runs"]["not_held"]:
        output.line(
            "nothing can hold the limits under runs.not_held where it runs; isolate the plugin, with a sandbox, to enforce them"
        )


def _lines(found: Mapping[str, Any], path: str) -> Iterator[str]:
    """Return one line for each leaf that says something, headed by the path that the JSON form has it under."""
    for key, value in found.items():
        where = f"{path}.{key}" if path else key
        if isinstance(value, Mapping) and value:
            yield from _lines(value, where)
        elif value not in (None, "", [], {}, ()):
            shown = ", ".join(map(escaped, value)) if isinstance(value, list) else block(value)
            yield f"{escaped(where)}: {shown}"
