"""What the operator decides: ``hostkit.toml`` (or YAML, JSON, or ``[tool.hostkit]`` in pyproject.toml)."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from ._environment import Setting, read_settings
from ._errors import ConfigError
from ._fields import Count, Duration, Isolation, Model, Module, Name, Problem, Resources, Variable, problems_in, sentence
from ._lines import Keys
from ._names import normalized
from ._parsing import Document, Unreadable, read
from ._worker._data import found


def _or_none(value: object) -> object:
    """A file has no word for None."""
    return None if value is False else value


class _Off(BeforeValidator):
    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:  # Any: pydantic's own
        schema: dict[str, Any] = handler(core)
        return {**schema, "anyOf": [*schema["anyOf"], {"const": False}]}


# ``false`` in a table's place switches a policy off.
Off = _Off(_or_none)


class RateConfig(Model):
    """At most ``per_second`` calls on average, and ``burst`` at once."""

    per_second: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
    burst: Annotated[int, Field(ge=1, le=1 << 30)] = 1


class BulkheadConfig(Model):
    """At most ``calls`` at a time; up to ``queue`` more wait, for ``queue_timeout`` at the most, in order of arrival."""

    calls: Annotated[int, Field(ge=1, le=1_000_000)]
    queue: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    queue_timeout: Duration | None = None


class BreakerConfig(Model):
    """When a plugin that fails is left alone, and when it is tried again.

    It opens after ``failures`` in a row, or when of at least ``minimum`` calls within ``window`` a share of ``failure_rate`` failed.
    After ``recovery`` (and up to a fifth more) ``probes`` calls at a time are let through, and ``successes`` of them close it.
    """

    failures: Annotated[int, Field(ge=1, le=1_000_000)] = 5
    failure_rate: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    window: Duration = 60.0
    minimum: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    recovery: Duration = 30.0
    probes: Annotated[int, Field(ge=1, le=1000)] = 1
    successes: Annotated[int, Field(ge=1, le=1000)] = 2
    plugin_errors: bool = True


class RetryConfig(Model):
    """How often a call that may be repeated is repeated, and how long is waited before: full jitter below a doubling limit."""

    attempts: Annotated[int, Field(ge=1, le=100)] = 1
    wait: Duration = 0.1
    max_wait: Duration = 5.0


class HealthConfig(Model):
    """How often a loaded plugin is asked how it is doing, and what happens when it does badly.

    It counts as unhealthy after ``failures`` bad answers in a row, and as healthy again after ``recoveries`` good ones.
    """

    interval: Duration = 30.0
    timeout: Duration = 5.0
    failures: Annotated[int, Field(ge=1, le=1000)] = 3
    recoveries: Annotated[int, Field(ge=1, le=1000)] = 2
    action: Literal["report", "open-breaker", "restart", "isolate"] = "report"


class AutoConfig(Model):
    """When a plugin with ``isolation = "auto"`` is moved to a worker for being slow: its breaker opened ``openings`` times because
    calls overran their time."""

    openings: Annotated[int, Field(ge=1, le=1000)] = 1


class RestartConfig(Model):
    """How many workers may die within ``window`` before the plugin is given up."""

    budget: Annotated[int, Field(ge=0, le=1_000_000)] = 3
    window: Duration = 300.0


class HeartbeatConfig(Model):
    """A worker that misses ``misses`` heartbeats in a row is replaced."""

    interval: Duration = 5.0
    misses: Annotated[int, Field(ge=1, le=100)] = 3


class RecycleConfig(Model):
    """When a worker is replaced although nothing is wrong with it. Every limit is for one worker."""

    max_calls: Annotated[int, Field(ge=1, le=1 << 40)] | None = None
    max_age: Duration | None = None
    max_memory_mb: Annotated[int, Field(ge=1, le=1 << 24)] | None = None


class Defaults(Model):
    """What holds for every plugin that says nothing else. Times are seconds or texts like "500ms"."""

    isolation: Isolation = None
    timeout: Duration = 30.0
    start: Literal["fresh", "template"] = "fresh"
    start_timeout: Duration = 30.0
    close_timeout: Duration = 5.0
    cancel_grace: Duration = 1.0
    workers: Count | None = None
    concurrency: Count | None = None
    standby: Annotated[int, Field(ge=0, le=4096)] = 0
    max_message_mb: Annotated[int, Field(ge=1, le=1024)] = 64
    max_buffers_mb: Annotated[int, Field(ge=1, le=1 << 20)] = 1024
    resources: Resources = Resources()
    require_enforcement: bool = False
    env: list[Variable] = Field(default=[])
    rate: Annotated[RateConfig | None, Off] = None
    bulkhead: Annotated[BulkheadConfig | None, Off] = None
    breaker: Annotated[BreakerConfig | None, Off] = BreakerConfig()
    retry: RetryConfig = RetryConfig()
    health: Annotated[HealthConfig | None, Off] = HealthConfig()
    auto: AutoConfig = AutoConfig()
    restarts: RestartConfig = RestartConfig()
    recycle: RecycleConfig = RecycleConfig()
    heartbeat: HeartbeatConfig = HeartbeatConfig()


class PluginConfig(Defaults):
    """One plugin's table. ``config`` is the plugin's own, validated by the plugin's annotation."""

    enabled: bool = True
    config: dict[str, Any] = Field(default={})


class DiscoveryConfig(Model):
    """Which plugins are found. ``paths`` are directories that hold plugin directories, looked at beside installed distributions.

    Of what is there, only plugins count that match one of ``include`` and none of ``exclude`` (patterns as of a shell), have all
    ``required_capabilities``, and would run in a place among ``allowed_isolation``. An empty list asks for nothing.
    """

    paths: list[Annotated[Path, Field(strict=False)]] = Field(default=[])
    include: list[str] = Field(default=[])
    exclude: list[str] = Field(default=[])
    required_capabilities: list[str] = Field(default=[])
    allowed_isolation: list[Literal["none", "auto", "process"]] = Field(default=[])


class TemplateConfig(Model):
    """What the one process imports that workers with ``start = "template"`` are forked from."""

    preload: list[Module] = Field(default=["pydantic"])


class HostConfig(Model):
    """The whole configuration. Immutable."""

    defaults: Defaults = Defaults()
    discovery: DiscoveryConfig = DiscoveryConfig()
    template: TemplateConfig = TemplateConfig()
    plugins: dict[Name, PluginConfig] = Field(default={})

    @model_validator(mode="after")
    def _one_table_each(self) -> HostConfig:
        names: dict[str, str] = {}
        for name in self.plugins:
            other = names.setdefault(normalized(name), name)
            if other != name:
                raise ValueError(f"[plugins.{other}] and [plugins.{name}] are one plugin; keep one of them")
        return self

    def plugin(self, name: str) -> PluginConfig:
        """Return what holds for one plugin: its own table over the defaults, key by key, also inside of tables."""
        tables = (table for other, table in self.plugins.items() if normalized(other) == normalized(name))
        merged: PluginConfig = _over(self.defaults, next(tables, PluginConfig()))
        return merged


def _over(below: Model, above: Model) -> Any:  # Any: the class of ``above``
    """Return ``above``, with what it doesn't set taken from ``below``."""
    merged = {key: getattr(below, key) for key in below.model_fields_set}
    for key in above.model_fields_set:
        old, new = merged.get(key), getattr(above, key)
        merged[key] = _over(old, new) if isinstance(old, Model) and isinstance(new, Model) else new
    return type(above).model_construct(set(merged), **merged)


def load(source: HostConfig | Mapping[str, Any] | str | Path | None) -> HostConfig:
    """Return a configuration from a file, or from what the application says itself. Raises ``ConfigError``.

    A file, or None for none, is what an operator decides: ``HOSTKIT_*`` variables go before it. A ``HostConfig`` or a mapping is an
    argument, which goes before the environment: it is taken as it is.
    """
    if source is None or isinstance(source, (str, Path)):
        reading = examine(None if source is None else Path(source))
        if reading.config is None:
            raise ConfigError(sentence(reading.problems))
        return reading.config
    if isinstance(source, Mapping):
        try:
            return _anchored(HostConfig.model_validate({key: part for key, part in source.items() if key != "$schema"}), Path())
        except ValidationError as error:
            raise ConfigError(sentence(problems_in(error, HostConfig, _WHOLE))) from None
    if isinstance(source, HostConfig):
        return _anchored(source, Path())
    raise ConfigError(f"{_WHOLE}: expected a HostConfig, a mapping or the path of a file, found {found(source)}")


_WHOLE = "the configuration"


@dataclass(frozen=True, slots=True)
class Reading:
    """What an operator's file and environment say: ``document`` as the file has it, ``settings`` as the variables have it.

    ``config`` is what holds, None where there are problems. ``references`` are the keys whose text the environment had a part in,
    with that text.
    """

    path: Path | None
    document: Document
    settings: Sequence[Setting]
    references: Mapping[Keys, str]
    problems: Sequence[Problem]
    config: HostConfig | None


def examine(path: Path | None) -> Reading:
    """Read a configuration file, or none, and the environment; everything that is wrong with them is told at once."""
    if path is None:
        return examined(None, Document())
    try:
        return examined(path, read(path, table=table_of(path)))
    except Unreadable as error:
        settings, wrong = read_settings()
        problems = [Problem(str(path), (), str(error), error.line), *_wrong_variables(wrong)]
        return Reading(path, Document(), settings, {}, problems, None)


def table_of(path: Path) -> tuple[str, ...]:
    """Return the table of a file that is hostkit's; none for a file that is so as a whole."""
    return ("tool", "hostkit") if path.name == "pyproject.toml" else ()


def examined(path: Path | None, document: Document) -> Reading:
    """Return what comes of a file's text, which may not be in the file yet."""
    where, folder = (_WHOLE, Path()) if path is None else (str(path), path.parent)
    expansion = _Expansion(where, document)
    data = expansion.of(document, ())
    config, wrong = _validated(data, where, document, expansion.references)
    # What is wrong with a text that could not be expanded has been told.
    untold = [
        problem for problem in wrong if not any(problem.keys[: len(known.keys)] == known.keys for known in expansion.problems)
    ]
    settings, unread = read_settings()
    problems = sorted([*expansion.problems, *untold], key=lambda problem: problem.line or 0)
    config = None if problems or config is None else _anchored(config, folder)
    if settings:
        config, overridden = _with_settings(data, config, settings)
        problems += overridden
    problems += _wrong_variables(unread)
    return Reading(path, document, settings, expansion.references, problems, None if problems else config)


def _wrong_variables(wrong: Mapping[str, str]) -> list[Problem]:
    return [Problem(variable, (), words) for variable, words in wrong.items()]


def _validated(
    data: dict[str, Any], where: str, document: Document, references: Mapping[Keys, str]
) -> tuple[HostConfig | None, list[Problem]]:
    try:
        return HostConfig.model_validate(data), []
    except ValidationError as error:
        return None, problems_in(error, HostConfig, where, document.line, references.get)


def _with_settings(
    data: dict[str, Any], config: HostConfig | None, settings: Sequence[Setting]
) -> tuple[HostConfig | None, list[Problem]]:
    """Return what holds with the environment's settings, and what is wrong with those; ``config`` is what holds without them."""
    paths = [] if config is None else [str(path) for path in config.discovery.paths]
    merged = {} if config is None else {**data, "discovery": {**data.get("discovery", {}), "paths": paths}}
    problems = [problem for setting in settings if (problem := _put(merged, setting)) is not None]
    try:
        found = HostConfig.model_validate(merged)
        return (None if problems else _anchored(found, Path())), problems
    except ValidationError as error:
        told = problems_in(error, HostConfig, "")
        # Beside a file that is wrong itself, what is missing may stand in that.
        certain = [problem for problem in told if config is not None or problem.words != "is missing"]
        problems += [dataclasses.replace(problem, where=_blamed(problem.keys, settings)) for problem in certain]
        return None, problems


def _put(data: dict[str, Any], setting: Setting) -> Problem | None:
    *tables, last = spelled(data, setting.keys)
    for depth, key in enumerate(tables, 1):
        inside = data.get(key, {})
        if not isinstance(inside, dict):
            return Problem(setting.variable, (), f"{'.'.join(tables[:depth])} is no table, found {found(inside)}")
        data[key] = dict(inside)
        data = data[key]
    data[last] = _merged(data.get(last), setting.value)
    return None


def spelled(data: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``keys`` with a plugin's name as the configuration spells it."""
    tables = data.get("plugins")
    if keys[0] != "plugins" or not isinstance(tables, dict):
        return keys
    names = (name for name in tables if normalized(name) == normalized(keys[1]))
    return (keys[0], next(names, keys[1]), *keys[2:])


def _merged(old: Any, new: Any) -> Any:  # Any: JSON data
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}


def _blamed(keys: Keys, settings: Sequence[Setting]) -> str:
    def shared(setting: Setting) -> int:
        pairs = zip(setting.keys, keys, strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == normalized(str(pair[1])) or pair[0] == pair[1], pairs))

    return max(settings, key=shared).variable


def _anchored(config: HostConfig, folder: Path) -> HostConfig:
    """Return a configuration whose paths stay what they are when the working directory changes."""
    paths = [(folder / os.path.expanduser(path)).absolute() for path in config.discovery.paths]
    if paths == config.discovery.paths:
        return config
    return config.model_copy(update={"discovery": config.discovery.model_copy(update={"paths": paths})})


# Two dollars are one, for a text that has such a thing in it.
_REFERENCE = re.compile(r"\$?\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^{}]*))?\})?")


class _Expansion:
    """Expands ``${VAR}`` in the texts of one document, and remembers where."""

    def __init__(self, where: str, document: Document) -> None:
        self._where = where
        self._document = document
        self.references: dict[Keys, str] = {}
        self.problems: list[Problem] = []

    def of(self, value: Any, keys: Keys) -> Any:  # Any: what a parser gave
        if isinstance(value, dict):
            return {name: self.of(part, (*keys, name)) for name, part in value.items()}
        if isinstance(value, list):
            return [self.of(part, (*keys, index)) for index, part in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        return _REFERENCE.sub(lambda match: self._replacement(match, value, keys), value)

    def _replacement(self, match: re.Match[str], text: str, keys: Keys) -> str:
        if match[0].startswith("$$"):
            return match[0][1:]
        if match[1] is None:
            # What a plugin's own table has may be a secret.
            seen = type(text).__name__ if "config" in keys else found(text)
            self._tell(keys, f"expected ${{VAR}} or ${{VAR:-default}}, or $${{ for the text itself; found {seen}")
            return match[0]
        self.references[keys] = text
        value: str | None = os.environ.get(match[1], match[2])
        if value is None:
            self._tell(keys, f"the environment variable {match[1]} is not set, and has no default (${{VAR:-...}})", unset=True)
            return match[0]
        return value

    def _tell(self, keys: Keys, words: str, *, unset: bool = False) -> None:
        self.problems.append(Problem(self._where, keys, words, self._document.line(keys), unset))
