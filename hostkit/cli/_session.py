"""What the options before and after the verb decided, and what every verb begins with: configuration, plugins, a host."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from .._errors import ConfigError
from ._output import Output, kept_from_plugins
from ._signals import Signals
from ._told import tell_log

if TYPE_CHECKING:
    from .._config import HostConfig
    from .._host import Host
    from .._spec import PluginSpec

# How long an interrupted host may take to close.
_HURRY = 1.0


class Session:
    """One run of the command line. Not thread-safe; what it finds is kept."""

    def __init__(self, signals: Signals, *, json: bool) -> None:
        self.signals = signals
        self.app = "hostkit"
        self.config_file: str | None = None
        self.json = json
        self.verbose = 0
        signals.quiet = json

    @property
    def group(self) -> str:
        """The entry-point group of the application. Raises ``ConfigError``."""
        if not self.app.replace("-", "_").isidentifier():
            from .._manifest import checked_name  # pydantic, which a plain name doesn't need

            try:
                checked_name(self.app)
            except ValueError as error:
                raise ConfigError(f"--app: {error}") from None
        return f"{self.app}.plugins"

    @cached_property
    def config(self) -> HostConfig | None:
        """The operator's configuration, or None where there is no file. Raises ``ConfigError``."""
        path = self.config_path
        if path is None:
            return None
        from .._config import load  # pydantic, which a machine without configuration doesn't need

        return load(path)

    @cached_property
    def config_path(self) -> Path | None:
        """The file that --config or HOSTKIT_CONFIG names, else ./hostkit.toml, else ./pyproject.toml with [tool.hostkit]."""
        named = self.config_file if self.config_file is not None else os.environ.get("HOSTKIT_CONFIG")
        if named:
            return Path(named)
        if self.config_file is not None:
            raise ConfigError("--config: expected a file, found an empty name")
        if os.path.exists("hostkit.toml"):
            return Path("hostkit.toml")
        return Path("pyproject.toml") if _configures_hostkit(Path("pyproject.toml")) else None

    @property
    def specs(self) -> dict[str, PluginSpec]:
        """Name → what is installed. Imports no plugin, and on an index hit hardly anything else."""
        from .._index import Index, default_file

        paths = [] if self.config is None else self.config.discovery.paths
        return Index(self.group, paths, file=default_file(self.group)).look()

    @property
    def output(self) -> Output:
        """Stdout, for verbs that run no plugin."""
        return Output(sys.stdout)

    @contextmanager
    def host(self) -> Iterator[tuple[Host, Output]]:
        """Open a host, with stdout for the answers alone; it is closed in a hurry after a signal."""
        from .._host import Host

        self.hear_log()
        with kept_from_plugins() as output:
            host = Host(self.app, config=self.config)
            try:
                yield host, output
            finally:
                with self.signals.closing():
                    host.close(_HURRY if self.signals.draining else None)

    def hear_log(self) -> None:
        """Send hostkit's log to stderr, as much of it as was asked for."""
        from loguru import logger

        levels = ("WARNING", "INFO", "DEBUG")
        logger.remove()
        # A call's own error, which has a phase, is told by the command line itself.
        logger.add(
            lambda message: tell_log(message, as_json=self.json),
            level=levels[min(self.verbose, 2)],
            format="{message}",
            filter=lambda record: "phase" not in record["extra"],
        )
        logger.enable("hostkit")


def _configures_hostkit(path: Path) -> bool:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if b"hostkit" not in data:
        return False
    import tomllib

    try:
        tool = tomllib.loads(data.decode("utf-8")).get("tool", {})
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    return isinstance(tool, dict) and "hostkit" in tool
