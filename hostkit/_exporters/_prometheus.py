"""Show Prometheus how the host is doing: what it fetches is made from a snapshot when it comes for it, so calls pay for nothing more."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import CollectorRegistry

from .._config import PrometheusConfig
from .._errors import ConfigError
from .._events import Event
from .._log import tell
from .._observing import Call
from ._base import Source
from ._families import families
from ._scrapes import Scrapes


class Prometheus:
    """A registry of its own for each host, and a server for it if the operator names an address."""

    wants_calls = False

    def __init__(self, config: PrometheusConfig, source: Source) -> None:
        self.asked = 0
        self._source = source
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self.scrapes = None if config.listen is None else _serving(config.listen, self._registry)

    def collect(self) -> Iterable[Metric]:
        """Return every metric as it is now."""
        found = families(self._source.snapshot())
        self.asked += 1
        return found

    def text(self) -> str:
        """Return every metric in Prometheus' text format."""
        return generate_latest(self._registry).decode()

    def began(self, call: Call) -> None:
        """Do nothing: the meters count."""

    def ended(self, call: Call) -> None:
        """Do nothing."""

    def call(self, call: Call) -> None:
        """Do nothing."""

    def event(self, event: Event) -> None:
        """Do nothing."""

    def close(self, timeout: float) -> None:
        """Take no more scrapes."""
        del timeout
        if self.scrapes is not None:
            self.scrapes.close()


def _serving(listen: str, registry: CollectorRegistry) -> Scrapes:
    host, _, port = listen.rpartition(":")
    try:
        scrapes = Scrapes(host.strip("[]"), int(port), registry)
    except OSError as error:
        why = error.strerror or error
        raise ConfigError(f"[exporters.prometheus] listen: {listen} can't be listened on: {why}; choose another address") from error
    tell("INFO", f"metrics are at {scrapes.address}")
    return scrapes
