"""What the operator decides: ``hostkit.toml`` (or YAML, JSON, or ``[tool.hostkit]`` in pyproject.toml)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ._fields import Address, Count, Duration, Isolation, Model, Module, Name, Resources, Variable
from ._names import normalized
from ._permissions import Permissions
from ._shown import Unshown


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
    sandbox: Literal["off", "standard", "strict"] | None = None
    permissions: Permissions = Permissions()
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
    config: Annotated[dict[str, Any], AfterValidator(Unshown)] = Field(default={})


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


class AuditConfig(Model):
    """Where it is written down what was loaded, refused and changed; nowhere, if no ``file`` is named."""

    file: Annotated[Annotated[Path, Field(strict=False)] | None, Off] = None


class LockConfig(Model):
    """What happens to a plugin that is not what ``file`` has: nothing is looked at, it is told, or the plugin is not loaded.

    ``include`` are distributions that every plugin may import, whether it says that it requires them or not.
    """

    policy: Literal["off", "audit", "enforce"] = "off"
    file: Annotated[Path, Field(strict=False)] = Path("hostkit.lock")
    include: list[Name] = Field(default=[])


Level = Literal["TRACE", "DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR", "CRITICAL"]


class LevelsConfig(Model):
    """The level of a call's record: of one that was answered; of one that was ``refused`` before it reached its plugin, or given up by its
    caller; of one that the plugin ``failed``; and of one that was ``lost`` with its worker, or ended in what nobody expected."""

    ok: Level = "DEBUG"
    refused: Level = "DEBUG"
    failed: Level = "WARNING"
    lost: Level = "ERROR"


class LoguruConfig(Model):
    """Each call as one record of the log, with its plugin, request id, outcome and seconds bound to it."""

    calls: Literal["all", "failed"] = "all"
    levels: LevelsConfig = LevelsConfig()


class PrometheusConfig(Model):
    """Metrics in Prometheus' format: the text of ``host.metrics()``, and at an address if one is named."""

    listen: Annotated[Address | None, Off] = None


class OtelConfig(Model):
    """What OpenTelemetry's global providers are told: a span for each call, metrics, and each event as a log record. Where all that goes
    is the application's to say, and ``OTEL_*`` variables'."""

    traces: bool = True
    metrics: bool = True
    logs: bool = True


class ExportersConfig(Model):
    """Who is told of calls, beside the log and the subscribers of events. Nobody, unless a table is there."""

    loguru: Annotated[LoguruConfig | None, Off] = None
    otel: Annotated[OtelConfig | None, Off] = None
    prometheus: Annotated[PrometheusConfig | None, Off] = None


class HostConfig(Model):
    """The whole configuration. Immutable."""

    defaults: Defaults = Defaults()
    discovery: DiscoveryConfig = DiscoveryConfig()
    template: TemplateConfig = TemplateConfig()
    audit: AuditConfig = AuditConfig()
    lock: LockConfig = LockConfig()
    exporters: ExportersConfig = ExportersConfig()
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
        merged: PluginConfig = _over(self.defaults, self._table(name))
        return merged

    def enables(self, name: str) -> bool:
        """Whether a plugin may be loaded; what ``plugin`` says too, for less."""
        return self._table(name).enabled

    def _table(self, name: str) -> PluginConfig:
        tables = (table for other, table in self.plugins.items() if normalized(other) == normalized(name))
        return next(tables, _NOTHING)


_NOTHING = PluginConfig()


def _over(below: Model, above: Model) -> Any:  # Any: the class of ``above``
    """Return ``above``, with what it doesn't set taken from ``below``."""
    merged = {key: getattr(below, key) for key in below.model_fields_set}
    for key in above.model_fields_set:
        old, new = merged.get(key), getattr(above, key)
        merged[key] = _over(old, new) if isinstance(old, Model) and isinstance(new, Model) else new
    return type(above).model_construct(set(merged), **merged)
