"""Who watches a host: the meters of its plugins, the exporters, and the history that an operator looks at.

call  ─► Observed (_observing.py) ─► meter
                                  └► history, and each exporter: its queue (_outlet.py) ─► its thread
event ─► history, and each exporter's queue

Nothing of it is there until ``start`` is told of somebody who watches; then calls go by ``Observed`` from their next one on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ._config import ExportersConfig
from ._errors import ConfigError
from ._events import Event, Events
from ._exporters import EXPORTERS, Choosy, Exporter, Exposition, Source
from ._log import tell
from ._meter import Meter
from ._observing import Call, Observed, OnFailure
from ._outlet import Outlet
from ._worker._failure import is_interrupt, message, type_name

if TYPE_CHECKING:
    from ._history import History
    from ._record import Record

# Seconds that one exporter may take to tell what is left when it is closed.
_GRACE = 1.0


class Telemetry:
    """What watches one host. Thread-safe."""

    def __init__(self, events: Events) -> None:
        self.started = time.time()
        self.history: History | None = None
        self._events = events
        self._source: Source | None = None
        self._lock = threading.Lock()  # guards everything below
        self._records: list[Record] = []
        self._config = ExportersConfig()
        self._deliveries: dict[str, Delivery] = {}
        self._unsubscribe: Callable[[], None] | None = None

    def start(self, source: Source, config: ExportersConfig, *, history: History | None) -> None:
        """Begin to watch what is asked for. Raises ``ConfigError``; then nothing is left behind."""
        self._source = source
        self.history = history
        try:
            self.configure(config)
        except BaseException:
            self.close()
            raise

    def configure(self, config: ExportersConfig) -> None:
        """Go by another configuration from now on. Exporters whose table is the same stay as they are. Raises ``ConfigError``; then what
        held before still holds."""
        assert self._source is not None
        with self._lock:
            before, made = self._config, {}
            try:
                for name, factory in EXPORTERS.items():
                    table = getattr(config, name)
                    if table is not None and (name not in self._deliveries or table != getattr(before, name)):
                        made[name] = Delivery(name, factory(table, self._source))
            except BaseException:
                for delivery in made.values():
                    delivery.close(0.0)
                raise
            kept = {name: made.get(name) or self._deliveries.get(name) for name in EXPORTERS if getattr(config, name) is not None}
            gone = [delivery for name, delivery in self._deliveries.items() if kept.get(name) is not delivery]
            self._deliveries = {name: delivery for name, delivery in kept.items() if delivery is not None}
            self._config = config
            self._put_in_front(self._records)
            self._listen()
        for delivery in gone:
            delivery.close(_GRACE)

    def watch(self, record: Record) -> None:
        """Watch the calls of one more plugin."""
        with self._lock:
            self._records.append(record)
            self._put_in_front([record])

    @property
    def on(self) -> bool:
        """Whether anybody watches."""
        return self.history is not None or bool(self._deliveries)

    @property
    def deliveries(self) -> list[Delivery]:
        """The exporters that there are."""
        return list(self._deliveries.values())

    def metrics(self) -> str:
        """Return the metrics in Prometheus' text format. Raises ``ConfigError`` where nobody asked for them."""
        for delivery in self.deliveries:
            if isinstance(delivery.exporter, Exposition):
                return delivery.exporter.text()
        raise ConfigError("there are no metrics: [exporters.prometheus] isn't in the configuration (or this host is closed)")

    def _put_in_front(self, records: Iterable[Record]) -> None:
        """Let calls of these plugins go by their observers, or by nobody. What a meter has counted it keeps. The caller holds the lock."""
        told = [delivery for delivery in self._deliveries.values() if delivery.told]
        observers = [delivery for delivery in told if not delivery.only_failed]
        on_failure: list[OnFailure] = [delivery.ended for delivery in told if delivery.only_failed]
        if self.history is not None:
            on_failure.append(self.history.failed)
        for record in records:
            meter = record.front.meter if isinstance(record.front, Observed) else Meter()
            record.front = Observed(record, meter, observers, on_failure) if self.on else record
            record.tells = "loguru" not in self._deliveries

    def _listen(self) -> None:
        if self._unsubscribe is None and self.on:
            self._unsubscribe = self._events.subscribe(self._happened)

    def _happened(self, event: Event) -> None:
        if self.history is not None:
            self.history.event(event)
        for delivery in self._deliveries.values():
            if delivery.told:
                delivery.event(event)

    def close(self) -> None:
        """Tell what is left, and watch nothing any more. Idempotent."""
        with self._lock:
            deliveries, self._deliveries = self._deliveries, {}
            history, self.history = self.history, None
            unsubscribe, self._unsubscribe = self._unsubscribe, None
        if unsubscribe is not None:
            unsubscribe()
        if history is not None:
            history.close()
        for delivery in deliveries.values():
            delivery.close(_GRACE)

    def forget(self) -> None:
        """Begin anew in a fork: what waits is the parent's to tell."""
        self._lock = threading.Lock()
        for delivery in self._deliveries.values():
            delivery.forget()


class Delivery:
    """An exporter with the queue before it. An observer of calls that never blocks and never raises, whatever the exporter does."""

    def __init__(self, name: str, exporter: Exporter) -> None:
        self.name = name
        self.exporter = exporter
        self.told = not isinstance(exporter, Exposition)  # that one is asked
        self.only_failed = isinstance(exporter, Choosy) and exporter.only_failed
        self._wants_calls = exporter.wants_calls
        self._outlet: Outlet[Call | Event] = Outlet(f"export-{name}", self._tell)
        self._complained = False

    def began(self, call: Call) -> None:
        try:
            self.exporter.began(call)
        except BaseException as error:
            self._failed(error)

    def ended(self, call: Call) -> None:
        try:
            self.exporter.ended(call)
        except BaseException as error:
            self._failed(error)
        if self._wants_calls:
            self._outlet.offer(call)

    def event(self, event: Event) -> None:
        self._outlet.offer(event)

    def _tell(self, item: Call | Event) -> None:
        if isinstance(item, Event):
            self.exporter.event(item)
        else:
            self.exporter.call(item)

    def _failed(self, error: BaseException) -> None:
        if is_interrupt(error):
            raise error
        if not self._complained:
            self._complained = True  # once: it may be so with every call
            tell("ERROR", f"the exporter {self.name!r} raised {type_name(error)}: {message(error)}")

    def state(self) -> dict[str, Any]:
        """Return how it is doing, as JSON data: how many calls and events it has told, dropped and has waiting, and what is wrong."""
        asked = {"sent": self.exporter.asked} if isinstance(self.exporter, Exposition) else {}
        return {"name": self.name, **self._outlet.state(), **asked}

    def close(self, timeout: float) -> None:
        """Tell what waits, and let go of the exporter. Idempotent."""
        self._outlet.close(timeout)
        try:
            self.exporter.close(timeout)
        except BaseException as error:
            self._failed(error)

    def forget(self) -> None:
        """Begin anew in a fork."""
        self._outlet.forget()
