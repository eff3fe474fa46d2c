"""Loading several plugins at once: their workers start at the same time, and everything else in order."""

from __future__ import annotations

import os
import threading

import pytest

from hostkit import ConfigError, ManifestError, PluginLoadError, PluginNotFound, RequirementError, WorkerExited, hookspec

ECHO = """
    import os
    class P:
        def execute(self, ctx, request):
            return os.getpid()
"""


@pytest.fixture
def install(install_demo):
    """Only what a test installs is there."""
    return install_demo


@pytest.fixture
def host(new_host, site):
    return new_host("demo")


def loaded(host):
    return [record.name for record in host._loader.loaded]


def test_every_installed_plugin_is_loaded_unless_it_is_disabled(install, new_host, isolation):
    for name in ("one", "two", "three"):
        install(name, ECHO)
    host = new_host("demo", config={"plugins": {"two": {"enabled": False}}})
    assert host.load_all(isolation=isolation) == {}
    assert loaded(host) == ["one", "three"]
    assert (host.execute("one", {}) == os.getpid()) is (isolation == "none")


def test_named_plugins_are_loaded_in_the_order_of_their_names_and_others_are_not(install, host, isolation):
    for name in ("one", "two", "three"):
        install(name, ECHO)
    assert host.load_all("two", "one", "two", isolation=isolation) == {}
    assert loaded(host) == ["two", "one"]


def test_one_that_cannot_be_loaded_keeps_no_other_from_it(install, host):
    install("raises", "raise ValueError('no')")
    install("ends", "import os\nos._exit(3)")
    install("broken", ECHO, manifest="no toml")
    install("wants", ECHO, manifest="[requirements]\nsystem_packages = ['no-such-program']\n")
    install("fine", ECHO)
    failed = host.load_all("raises", "ends", "absent", "broken", "wants", "fine", isolation="process")
    assert {name: type(error) for name, error in failed.items()} == {
        "raises": PluginLoadError,
        "ends": WorkerExited,
        "absent": PluginNotFound,
        "broken": ManifestError,
        "wants": RequirementError,
    }
    assert loaded(host) == ["fine"]


def test_workers_start_at_the_same_time(install, host, tmp_path):
    # Each waits in its import for the other: one after the other they would never get there.
    source = """
        import pathlib, time
        place = pathlib.Path({place!r})
        (place / __name__).touch()
        while len(list(place.iterdir())) < 2:
            time.sleep(0.005)
        class P:
            def execute(self, ctx, request): ...
    """
    place = tmp_path / "here"
    place.mkdir()
    for name in ("one", "two"):
        install(name, source.format(place=str(place)))
    assert host.load_all(isolation="process") == {}
    assert loaded(host) == ["one", "two"]


def test_in_process_a_plugin_is_imported_on_the_applications_thread(install, host):
    install(
        "here",
        "import threading\nname = threading.current_thread().name\nclass P:\n    def execute(self, ctx, request):\n        return name",
    )
    install("there", ECHO, manifest="isolation = 'process'\n")
    assert host.load_all() == {}
    assert host.execute("here", {}) == threading.current_thread().name


def test_what_a_plugin_requires_is_loaded_before_it_and_started_before_it(install, host, tmp_path):
    order = tmp_path / "order"
    source = f"""
        with open({str(order)!r}, "a") as file:
            file.write(__name__ + " ")
        class P:
            def execute(self, ctx, request): ...
    """
    install("asks", source, manifest="[requirements]\nrequired_plugins = ['base>=1']\n")
    install("base", source)
    install("other", source)
    assert host.load_all("asks", "other", isolation="process") == {}
    assert loaded(host) == ["base", "asks", "other"]
    # Nobody said where "base" runs, so it is here.
    assert host._loader.record("base").lane.decided.isolation == "none"
    host.unload("asks")
    host.unload("base")
    order.unlink()
    assert host.load_all("asks", "base", isolation="process") == {}
    written = order.read_text().split()
    assert written.index("base") < written.index("asks")


def test_what_fails_takes_along_what_requires_it(install, host):
    install("asks", ECHO, manifest="[requirements]\nrequired_plugins = ['base']\n")
    install("base", "raise ValueError('no')", manifest="isolation = 'process'\n")
    failed = host.load_all("asks", "base", isolation="process")
    assert {name: type(error) for name, error in failed.items()} == {"asks": PluginLoadError, "base": PluginLoadError}
    assert loaded(host) == []


def test_hooks_are_called_as_if_each_had_been_loaded_by_itself(install, new_host):
    class Specs:
        @hookspec
        def name(self) -> str: ...

    names = [f"plugin-{number}" for number in range(5)]
    for number, name in enumerate(names):
        # The first ones take longest to start.
        install(
            name,
            f"import time\ntime.sleep({0.1 * (4 - number)})\nfrom hostkit import hookimpl\n@hookimpl\ndef name():\n    return {name!r}\n",
            attribute="",
        )
    host = new_host("demo", hookspecs=[Specs])
    assert host.load_all(*names, isolation="process") == {}
    assert host.hook.name() == names[::-1]


def test_a_plugin_that_is_loaded_stays_as_it_is(install, host):
    install("one", ECHO)
    install("two", ECHO)
    host.load("one", isolation="process")
    assert host.load_all("one", isolation="process") == {}
    pid = host.execute("one", {})
    assert host.load_all("one") == {}
    assert host.execute("one", {}) == pid
    failed = host.load_all("one", "two", isolation="none")
    assert list(failed) == ["one"]
    assert isinstance(failed["one"], ConfigError)


def test_the_wish_of_a_plugin_that_could_not_be_loaded_is_forgotten(install, host, site):
    package = install("one", "raise ValueError('no')")
    assert list(host.load_all("one", isolation="process")) == ["one"]
    (site / package / "__init__.py").write_text(
        "import os\nclass P:\n    def execute(self, ctx, request):\n        return os.getpid()\n"
    )
    assert host.execute("one", {}) == os.getpid()


def test_an_interrupt_leaves_nothing_behind(install, host, monkeypatch):
    for number in range(4):
        install(f"plugin-{number}", ECHO)
    admit = host._loader.hooks.admit

    def interrupted(record, lane):
        if record.name == "plugin-1":
            raise KeyboardInterrupt
        admit(record, lane)

    monkeypatch.setattr(host._loader.hooks, "admit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        host.load_all(isolation="process")
    assert loaded(host) == ["plugin-0"]
    assert host.execute("plugin-0", {})


def test_a_closed_host_loads_none(install, host):
    install("one", ECHO)
    host.close()
    failed = host.load_all("one", isolation="process")
    assert "closed" in str(failed["one"])


def test_other_threads_may_call_the_plugins_meanwhile(install, host):
    names = [f"plugin-{number}" for number in range(6)]
    for name in names:
        install(name, ECHO, manifest="isolation = 'process'\n")
    calls = [host.submit(name, {}) for name in reversed(names)]
    assert host.load_all() == {}
    assert [call.result(20) for call in calls] == [host.execute(name, {}) for name in reversed(names)]
