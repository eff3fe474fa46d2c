"""What every test gets: a clean place to install plugins into, a host that is closed, and a look for leaks afterwards."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from loguru import logger

import hostkit
from hostkit import testing

settings.register_profile(
    "hostkit", deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
settings.load_profile("hostkit")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the index of the user who runs it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def _no_leaks() -> Iterator[None]:
    """A test that leaves descriptors, threads or workers behind fails."""
    with testing.no_leaks():
        yield


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty directory on sys.path; what is imported from it is forgotten after the test."""
    place = tmp_path / "site"
    place.mkdir()
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(place))
    yield place
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and file.startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def install(site: Path) -> Callable[..., str]:
    """Install a plugin from its source: ``install("name", source, **options of hostkit.testing.install)``."""

    def make(name: str, source: str, **options: Any) -> str:
        return testing.install(site, name, source, **options)

    return make


@pytest.fixture
def new_host() -> Iterator[Callable[..., hostkit.Host]]:
    """Make hosts that are closed after the test."""
    made: list[hostkit.Host] = []

    def make(*arguments: Any, **options: Any) -> hostkit.Host:
        host = hostkit.Host(*arguments, **options)
        made.append(host)
        return host

    yield make
    for host in made:
        host.close(2.0)


@pytest.fixture
def host(new_host: Callable[..., hostkit.Host], site: Path) -> hostkit.Host:
    """A host of the group hostkit.plugins, without configuration."""
    return new_host()


@pytest.fixture(params=testing.isolations())
def isolation(request: pytest.FixtureRequest) -> str:
    """Every place where a plugin can run."""
    word: str = request.param
    return word


@pytest.fixture
def log() -> Iterator[list[dict[str, Any]]]:
    """Hostkit's log records of this test, as dictionaries with text, level, plugin and request_id."""
    records: list[dict[str, Any]] = []

    def sink(message: Any) -> None:
        record = message.record
        records.append({"text": record["message"], "level": record["level"].name, **record["extra"]})

    logger.enable("hostkit")
    handler = logger.add(sink, level=0, format="{message}")
    yield records
    logger.remove(handler)
    logger.disable("hostkit")
