"""Who is told of calls and events: one file an exporter, one line an exporter in this table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._errors import ConfigError
from ._base import Choosy, Exporter, Exposition, Source


def _loguru(config: Any, source: Source) -> Exporter:  # Any: each factory takes its own table of ExportersConfig
    from ._loguru import Loguru

    return Loguru(config, source)


def _otel(config: Any, source: Source) -> Exporter:
    try:
        from ._otel import Otel
    except ImportError as error:
        text = "[exporters.otel] needs OpenTelemetry's API, which isn't installed: pip install 'hostkit[otel]'"
        raise ConfigError(text) from error
    return Otel(config, source)


def _prometheus(config: Any, source: Source) -> Exporter:
    try:
        from ._prometheus import Prometheus
    except ModuleNotFoundError as error:
        raise ConfigError("[exporters.prometheus] needs prometheus_client: pip install 'hostkit[prometheus]'") from error
    return Prometheus(config, source)


# By the name of the table in ``[exporters]``. A factory raises ``ConfigError`` where what it needs isn't installed.
EXPORTERS: dict[str, Callable[[Any, Source], Exporter]] = {
    "loguru": _loguru,
    "otel": _otel,
    "prometheus": _prometheus,
}

__all__ = ["EXPORTERS", "Choosy", "Exporter", "Exposition", "Source"]
