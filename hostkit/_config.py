"""What the operator decides: ``hostkit.toml`` (or YAML, JSON, or ``[tool.hostkit]`` in pyproject.toml)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from ._errors import ConfigError
from ._fields import Count, Duration, Model, Resources, all_fields, sentences
from ._manifest import _isolation, _variable, checked_name
from ._parsing import Unreadable, read


class RateConfig(Model):
    """At most ``per_second`` calls on average, and ``burst`` at once."""

    per_second: Annotated[float, Field(gt=0, le=1e9)]
    burst: Annotated[int, Field(ge=1, le=1 << 30)] = 1


class RetryConfig(Model):
    """How often a call that may be repeated is repeated, and how long is waited before: full jitter below a doubling limit."""

    attempts: Annotated[int, Field(ge=1, le=100)] = 1
    wait: Duration = 0.1
    max_wait: Duration = 5.0


class RestartConfig(Model):
    """How many workers may die within ``window`` before the plugin is given up."""

    budget: Annotated[int, Field(ge=0, le=1_000_000)] = 3
    window: Duration = 300.0


class HeartbeatConfig(Model):
    """A worker that misses ``misses`` heartbeats in a row is replaced."""

    interval: Duration = 5.0
    misses: Annotated[int, Field(ge=1, le=100)] = 3


class Defaults(Model):
    """What holds for every plugin that says nothing else. Times are seconds or texts like "500ms"."""

    isolation: Annotated[Literal["none", "process"] | None, BeforeValidator(_isolation)] = None
    timeout: Duration = 30.0
    start_timeout: Duration = 30.0
    close_timeout: Duration = 5.0
    health_timeout: Duration = 5.0
    cancel_grace: Duration = 1.0
    workers: Count | None = None
    concurrency: Count | None = None
    max_message_mb: Annotated[int, Field(ge=1, le=1024)] = 64
    resources: Resources = Resources()
    require_enforcement: bool = False
    env: list[Annotated[str, AfterValidator(_variable)]] = []
    rate: RateConfig | None = None
    retry: RetryConfig = RetryConfig()
    restarts: RestartConfig = RestartConfig()
    heartbeat: HeartbeatConfig = HeartbeatConfig()


class PluginConfig(Defaults):
    """One plugin's table. ``config`` is the plugin's own, validated by the plugin's annotation."""

    enabled: bool = True
    config: dict[str, Any] = {}


class DiscoveryConfig(Model):
    """Where plugins are looked for beside installed distributions: directories that hold plugin directories."""

    paths: list[Annotated[Path, Field(strict=False)]] = []


class HostConfig(Model):
    """The whole configuration. Immutable."""

    defaults: Defaults = Defaults()
    discovery: DiscoveryConfig = DiscoveryConfig()
    plugins: dict[Annotated[str, AfterValidator(checked_name)], PluginConfig] = {}

    def plugin(self, name: str) -> PluginConfig:
        """Return what holds for one plugin: its own table over the defaults, key by key."""
        own = self.plugins.get(name, PluginConfig())
        merged = {key: getattr(self.defaults, key) for key in self.defaults.model_fields_set}
        merged |= {key: getattr(own, key) for key in own.model_fields_set}
        return PluginConfig.model_construct(**{**_plain_defaults(), **merged})


def _plain_defaults() -> dict[str, Any]:
    return {key: getattr(_BARE, key) for key in PluginConfig.model_fields}


_BARE = PluginConfig()


def load(source: HostConfig | Mapping[str, Any] | str | Path | None) -> HostConfig:
    """Return a configuration from an object, a mapping or a file. Raises ``ConfigError``."""
    if source is None:
        return HostConfig()
    if isinstance(source, HostConfig):
        return source
    if isinstance(source, Mapping):
        return _validated(dict(source), "the configuration")
    return from_file(Path(source))


def from_file(path: Path) -> HostConfig:
    """Read a configuration file, with ``${VAR}`` expanded and relative paths taken from its folder. Raises ``ConfigError``."""
    try:
        data = read(path)
    except Unreadable as error:
        raise ConfigError(f"{path}: {error}") from None
    if path.name == "pyproject.toml":
        data = data.get("tool", {}).get("hostkit", {})
    config = _validated(_expanded(data, str(path), ""), str(path))
    paths = [path.parent / entry for entry in config.discovery.paths]
    return config.model_copy(update={"discovery": DiscoveryConfig(paths=paths)})


def _validated(data: dict[str, Any], where: str) -> HostConfig:
    try:
        return HostConfig.model_validate(data)
    except ValidationError as error:
        names = [*all_fields(HostConfig), *all_fields(PluginConfig)]
        raise ConfigError(f"{where}: {sentences(error, names)}") from None


_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def _expanded(value: Any, where: str, key: str) -> Any:  # Any: what a parser gave
    if isinstance(value, dict):
        return {name: _expanded(part, where, f"{key}.{name}" if key else name) for name, part in value.items()}
    if isinstance(value, list):
        return [_expanded(part, where, f"{key}.{index}") for index, part in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replacement(match: re.Match[str]) -> str:
        found = os.environ.get(match[1], match[2])
        if found is None:
            raise ConfigError(f"{where}: {key}: the environment variable {match[1]} is not set, and has no default (${{VAR:-...}})")
        return found

    return _REFERENCE.sub(replacement, value)
