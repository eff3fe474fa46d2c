"""What the options before and after the verb decided, and what every verb begins with: configuration, plugins, a host."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from .._errors import ConfigError
from .._names import checked_name
from ._output import Output, kept_from_plugins
from ._signals import Signals
from ._told import tell_log

if TYPE_CHECKING:
    from .._config import HostConfig
    from .._host import Host
    from .._offered import Glance, Offered
    from .._reading import Reading
    from .._spec import PluginSpec

# How long an interrupted host may take to close: a cancelled call gets the first second, the plugin's own close() the rest.
_HURRY = 2.0
# How long an answer may wait for the log lines of before to be on stderr.
_LOG_LIMIT = 1.0


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
        try:
            return f"{checked_name(self.app)}.plugins"
        except ValueError as error:
            raise ConfigError(f"--app: {error}") from None

    @cached_property
    def config(self) -> HostConfig:
        """The operator's configuration, from the file and the environment. Raises ``ConfigError``."""
        from .._reading import load  # pydantic, which a listing does without

        return load(self.config_path)

    @cached_property
    def reading(self) -> Reading:
        """The configuration with everything that is wrong with it, for verbs that go on all the same."""
        from .._reading import examine

        return examine(self.config_path)

    @cached_property
    def config_path(self) -> Path | None:
        """The file that --config or HOSTKIT_CONFIG names, else ./hostkit.toml, else ./pyproject.toml with [tool.hostkit]."""
        named = self.config_file if self.config_file is not None else os.environ.get("HOSTKIT_CONFIG")
        if named:
            return Path(named).absolute()
        if self.config_file is not None:
            raise ConfigError("--config: expected a file, found an empty name")
        if os.path.exists("hostkit.toml"):
            return Path("hostkit.toml").absolute()
        project = Path("pyproject.toml").absolute()
        return project if _configures_hostkit(project) else None

    @property
    def lock_file(self) -> Path:
        """Where the lock is: beside the configuration, else in the working directory, unless [lock] says something else."""
        folder = Path() if self.config_path is None else self.config_path.parent
        return (folder / self.config.lock.file).absolute()

    @cached_property
    def glance(self) -> Glance:
        """What a listing needs of the configuration. Raises ``ConfigError``."""
        from .._environment import settings
        from .._offered import Glance, glance_of
        from ._glance import glance

        if settings():  # what is remembered of a file knows nothing of them
            return glance_of(self.config)
        return Glance() if self.config_path is None else glance(self.config_path)

    @property
    def specs(self) -> Offered:
        """Name → what is installed and counts. Imports no plugin, and on an index hit hardly anything else."""
        from .._offered import Offered

        return Offered(self.specs_in([Path(place) for place in self.glance.paths]), self.glance)

    @property
    def nothing(self) -> str:
        """The words for an application without plugins."""
        kept_out = len(self.specs.kept_out)
        filtered = f"; [discovery] keeps {kept_out} out, and hostkit list --all says why" if kept_out else ""
        return f"no plugin is installed for {self.group}{filtered}"

    def specs_in(self, paths: Sequence[Path]) -> dict[str, PluginSpec]:
        """Return name → what is installed, whether it counts or not, with plugin directories in ``paths``."""
        from .._index import Index, default_file

        return Index(self.group, paths, file=default_file(self.group)).look()

    @property
    def found(self) -> dict[str, PluginSpec]:
        """What is installed, whether it counts or not, by as much of the configuration as can be understood."""
        reading = self.reading
        if reading.config is not None:
            return self.specs_in(reading.config.discovery.paths)
        discovery = reading.document.get("discovery")
        listed = discovery.get("paths") if isinstance(discovery, dict) else None
        folder = Path() if reading.path is None else reading.path.parent
        texts = [text for text in listed if isinstance(text, str)] if isinstance(listed, list) else []
        return self.specs_in([(folder / os.path.expanduser(text)).absolute() for text in texts])

    @property
    def output(self) -> Output:
        """Stdout, for verbs that run no plugin."""
        return Output(sys.stdout)

    @contextmanager
    def host(self) -> Iterator[tuple[Host, Output]]:
        """Open a host, with stdout for the answers alone; it is closed in a hurry after a signal."""
        from .._host import Host
        from .._sinks import flush

        with self.log_on_stderr(), kept_from_plugins(lambda: flush(_LOG_LIMIT)) as output:
            host = Host(self.app, config=self.config)
            try:
                yield host, output
            finally:
                with self.signals.closing():
                    host.close(_HURRY if self.signals.draining else None)

    @contextmanager
    def log_on_stderr(self) -> Iterator[None]:
        """Tell hostkit's log on stderr, as much of it as was asked for."""
        from loguru import logger

        from .._sinks import flush

        levels = ("WARNING", "INFO", "DEBUG")
        with suppress(ValueError):
            logger.remove(0)  # loguru's own, which escapes nothing
        handler = logger.add(
            lambda message: tell_log(message, as_json=self.json),
            level=levels[min(self.verbose, 2)],
            format="{message}",
            filter=lambda record: self._is_news(record["extra"]),
        )
        logger.enable("hostkit")
        try:
            yield
        finally:
            flush(_LOG_LIMIT)
            logger.disable("hostkit")
            logger.remove(handler)

    def _is_news(self, extra: Mapping[str, object]) -> bool:
        if "phase" in extra:
            return False  # a call's own error, which the command line tells itself
        return "source" in extra or self.verbose > 0 or not self.signals.draining  # what a signal does to workers is no news


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
