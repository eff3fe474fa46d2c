"""``python -m opshost [--seconds N] [--config FILE] [--metrics HOST:PORT] [--log FILE] [--traces FILE]``"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from loguru import logger

import hostkit

from . import CONFIG, Load, Tally, configured, open_host
from ._traces import traced_to


def main(arguments: list[str] | None = None) -> int:
    """Drive the load until somebody ends it; return 1 where a plugin can't be loaded or a call was lost."""
    asked = _parser().parse_args(arguments)
    _log_to(asked.log)
    ended = _until_told()
    config = configured(asked.config, metrics=asked.metrics)
    with traced_to(asked.traces), open_host(config) as host:
        host.load("calculator", isolation="none")  # fast and trusted; the others go where their manifests say
        errors = host.load_all()
        for error in errors.values():
            print(f"opshost: {error}", file=sys.stderr)
        began = time.monotonic()
        with Load(host) as load:
            print(_welcome(config), flush=True)
            ended.wait(asked.seconds)
        seconds = time.monotonic() - began
        counted = _counted(host) if "prometheus" in config["exporters"] else None
    print(_summary(load.tally, seconds), flush=True)
    if counted is not None:
        print(f"the host's metrics have {'the same numbers' if counted == load.tally.outcomes() else f'other numbers: {counted}'}")
    return 1 if errors or load.tally.lost or counted not in (None, load.tally.outcomes()) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("opshost", description="Five plugins under load, to be watched.")
    parser.add_argument("--seconds", type=float, help="end by itself after so long; without it, at Ctrl-C or SIGTERM")
    parser.add_argument("--config", type=Path, default=CONFIG, help="a configuration instead of the sample's own")
    parser.add_argument(
        "--metrics", metavar="HOST:PORT", default="127.0.0.1:9464", help="where Prometheus may ask (127.0.0.1:9464)"
    )
    parser.add_argument(
        "--log", type=Path, help="write hostkit's log there, a line of JSON a record; without it, errors go to stderr"
    )
    parser.add_argument(
        "--traces", type=Path, help="write a tenth of the spans there, a line of JSON each; needs opentelemetry-sdk"
    )
    return parser


def _log_to(file: Path | None) -> None:
    logger.remove()
    if file is None:
        logger.add(sys.stderr, level="ERROR", format="{time:HH:mm:ss} {message}")
    else:
        logger.add(file, level="INFO", serialize=True)
    logger.enable("hostkit")


def _until_told() -> threading.Event:
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    return ended


def _welcome(config: dict[str, Any]) -> str:  # Any: what TOML has
    metrics = config["exporters"].get("prometheus")
    lines = [
        f"opshost runs as process {os.getpid()}: five plugins under load, until Ctrl-C. In another terminal:",
        f"  hostkit top --pid {os.getpid()}           # in the terminal; needs hostkit[top]",
        f"  hostkit dashboard --pid {os.getpid()}     # in a browser; needs hostkit[web]",
    ]
    if metrics:
        lines.append(f"  curl http://{metrics['listen']}/metrics    # as Prometheus sees it")
    return "\n".join(lines)


def _counted(host: hostkit.Host) -> dict[str, dict[str, int]]:
    """Return what the host's metrics say of how calls ended: by plugin, then by outcome."""
    from prometheus_client.parser import text_string_to_metric_families

    counted: dict[str, dict[str, int]] = {}
    for family in text_string_to_metric_families(host.metrics()):
        for sample in family.samples:
            if sample.name == "hostkit_calls_total" and sample.value:
                counted.setdefault(sample.labels["plugin"], {})[sample.labels["outcome"]] = int(sample.value)
    return counted


def _summary(tally: Tally, seconds: float) -> str:
    lines = [f"{tally.begun} calls in {seconds:.1f} s, {tally.begun / seconds:.0f} a second; {tally.lost or 'none'} lost"]
    for plugin, outcomes in tally.outcomes().items():
        lines.append(f"  {plugin:<12}" + ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
