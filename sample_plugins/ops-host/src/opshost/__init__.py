"""An application under load, with five plugins that keep an operator busy: something for ``hostkit top`` and its siblings to show."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from typing import Any

import hostkit

from ._load import STREAMS, Load, Stream, Tally

__all__ = ["CONFIG", "STREAMS", "Load", "Stream", "Tally", "configured", "open_host"]

CONFIG = Path(__file__).with_name("hostkit.toml")


def open_host(config: dict[str, Any]) -> hostkit.Host:  # Any: what TOML has
    """Return the application's host, which lets ``hostkit top`` and ``hostkit dashboard`` in; no plugin is loaded."""
    return hostkit.Host("opshost", config=config, admin=True)


def configured(file: Path, *, metrics: str) -> dict[str, Any]:  # Any: what TOML has
    """Return what the file says, and the exporters that are installed here: ``metrics`` is where Prometheus may ask for them."""
    config = tomllib.loads(file.read_text(encoding="utf-8"))
    found: dict[str, dict[str, Any]] = {"loguru": {"calls": "failed"}}
    if importlib.util.find_spec("prometheus_client"):
        found["prometheus"] = {"listen": metrics}
    if importlib.util.find_spec("opentelemetry"):
        found["otel"] = {"metrics": False, "logs": False}
    config["exporters"] = found | config.get("exporters", {})
    return config
