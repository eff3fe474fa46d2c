"""``isolation = "auto"``: a plugin runs in the host's process until that doesn't go well."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings

import pytest

import hostkit

WHERE = """
    import os
    {first}

    class P:
        def __init__(self):
            {init}

        def execute(self, ctx, request):
            {body}
            return os.getpid()
"""


def plugin(first="", init="pass", body=""):
    return WHERE.format(first=first, init=init, body=body)


def moves(events):
    return [event for event in events if isinstance(event, hostkit.IsolationChanged)]


@pytest.fixture
def events(host):
    """What happens in the host."""
    found: list[hostkit.Event] = []
    host.subscribe(found.append)
    return found


def is_isolated(host, name="p"):
    return host.execute(name, None) != os.getpid()


@pytest.mark.parametrize("by", ["manifest", "operator", "application"])
def test_who_behaves_stays_in_the_hosts_process(install, new_host, by):
    install("p", plugin(), manifest='isolation = "auto"' if by == "manifest" else None)
    host = new_host(config={"defaults": {"isolation": "auto"}} if by == "operator" else None)
    host.load("p", isolation="auto" if by == "application" else None)
    assert not is_isolated(host)
    host.reload("p")
    assert not is_isolated(host)


IN_HOST = "import sys\nif 'pytest' in sys.modules: "


def test_a_plugin_that_cannot_be_imported_here_is_moved_and_the_log_says_why(install, host, events, log):
    install("p", plugin(first="import sys\n    if 'pytest' in sys.modules: raise ImportError('not beside pytest')"))
    host.load("p", isolation="auto")
    assert is_isolated(host)
    (move,) = moves(events)
    assert (move.before, move.after, move.asked) == ("none", "process", False)
    assert "it can't be loaded here" in move.why
    assert "not beside pytest" in move.why
    assert [record["level"] for record in log if record["text"] == str(move)] == ["WARNING"]


def test_a_plugin_that_can_be_imported_nowhere_is_the_error_of_its_worker(install, host, events):
    install("p", plugin(first="raise ImportError('broken')"))
    for _ in range(2):
        with pytest.raises(hostkit.PluginLoadError, match="broken"):
            host.load("p", isolation="auto")
    assert moves(events) == []


def test_a_plugin_whose_distribution_lacks_something_here_is_moved_before_it_is_imported(install, host, events, tmp_path):
    seen = tmp_path / "seen"
    source = plugin(first=f"open({str(seen)!r}, 'a').write(f'{{os.getpid()}} ')").replace("{{", "{").replace("}}", "}")
    install("p", source, requires=["click<1", "pluggy>=1", 'no-such-thing; extra == "x"'])
    host.load("p", isolation="auto")
    assert is_isolated(host)
    assert str(os.getpid()) not in seen.read_text().split()
    (move,) = moves(events)
    assert "p 1.0 requires click<1, and " in move.why


def test_a_plugin_without_auto_is_loaded_whatever_its_distribution_lacks(install, host):
    install("p", plugin(), requires=["click<1"])
    assert not is_isolated(host)


TAMPERING = {
    "sys.path": "import sys; sys.path.insert(0, '/nowhere')",
    "signal SIGUSR1": "import signal; signal.signal(signal.SIGUSR1, lambda *_: None)",
    "warnings": "import warnings; warnings.simplefilter('ignore')",
    "root logger": "import logging; logging.getLogger().addHandler(logging.NullHandler())",
    "cwd": "os.chdir('/')",
    "os.environ": "os.environ['HOSTKIT_TEST_SECRET'] = 'hunter2'",
    "sys.modules": "import sys; sys.modules['json'] = sys.modules['os']",
}


def state():
    return (
        list(sys.path),
        signal.getsignal(signal.SIGUSR1),
        list(warnings.filters),
        list(logging.getLogger().handlers),
        os.getcwd(),
        dict(os.environ),
        sys.modules["json"],
    )


@pytest.fixture
def restored():
    """The process as it is, put back afterwards."""
    path, handler, filters, handlers, cwd, environment, json = state()
    yield
    sys.path[:] = path
    signal.signal(signal.SIGUSR1, handler)
    warnings.filters[:] = filters
    logging.getLogger().handlers[:] = handlers
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.modules["json"] = json


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("when", ["first", "init"])
@pytest.mark.parametrize("what", TAMPERING)
def test_a_plugin_that_tampers_with_the_host_is_moved_and_the_host_put_right(install, host, events, what, when):
    install("p", plugin(**{when: TAMPERING[what]}))
    before = state()
    host.load("p", isolation="auto")
    assert is_isolated(host)
    assert state() == before
    (move,) = moves(events)
    assert "it changed the host's process while it was loaded" in move.why
    assert what in move.why
    assert "hunter2" not in move.why


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("what", TAMPERING)
def test_a_plugin_that_may_not_leave_is_told_of_and_stays(install, host, events, log, what):
    install("p", plugin(init=TAMPERING[what]))
    host.load("p")
    assert not is_isolated(host)
    assert moves(events) == []
    (tampered,) = [event for event in events if isinstance(event, hostkit.HostTampered)]
    assert what in " ".join(tampered.changes)
    assert [record["plugin"] for record in log if record["text"] == str(tampered) and record["level"] == "WARNING"] == ["p"]


def test_a_plugin_directory_is_no_tampering(new_host, tmp_path):
    place = tmp_path / "plugins" / "p"
    place.mkdir(parents=True)
    (place / "plugin.json").write_text('{"name": "p", "entry_point": "somewhere_of_p:P", "isolation": "auto"}')
    (place / "somewhere_of_p.py").write_text(
        "import os\nclass P:\n    def execute(self, ctx, request):\n        return os.getpid()\n"
    )
    host = new_host(config={"discovery": {"paths": [str(tmp_path / "plugins")]}})
    events: list[hostkit.Event] = []
    host.subscribe(events.append)
    assert not is_isolated(host)
    assert [type(event) for event in events] == [hostkit.PluginLoaded]
    sys.modules.pop("somewhere_of_p")


def slow_config(openings=1, **breaker):
    return {
        "plugins": {
            "p": {"isolation": "auto", "timeout": 0.02, "breaker": {"failures": 2, **breaker}, "auto": {"openings": openings}}
        }
    }


SLOW = "import time\n            if request: time.sleep(0.05)"


def overrun(host, times=2):
    for _ in range(times):
        with pytest.raises((hostkit.CallTimeout, hostkit.CircuitOpen)):
            host.execute("p", True)


def test_a_plugin_whose_circuit_opened_because_it_is_slow_is_moved_and_called_again(install, new_host):
    install("p", plugin(body=SLOW))
    host = new_host(config=slow_config())
    moved = threading.Event()
    events: list[hostkit.Event] = []

    def note(event):
        events.append(event)
        if isinstance(event, hostkit.IsolationChanged):
            moved.set()

    host.subscribe(note)
    overrun(host)
    assert moved.wait(20)
    (move,) = moves(events)
    assert "overran their time" in move.why
    assert not move.asked
    assert host.execute("p", False, timeout=20) != os.getpid()


def test_a_plugin_that_fails_otherwise_is_not_moved(install, new_host):
    install("p", plugin(body="raise ValueError"))
    host = new_host(config=slow_config())
    events: list[hostkit.Event] = []
    host.subscribe(events.append)
    for _ in range(2):
        with pytest.raises(hostkit.PluginFailed):
            host.execute("p", True)
    with pytest.raises(hostkit.CircuitOpen):
        host.execute("p", True)
    assert moves(events) == []
    assert host.info("p").metadata["hostkit"]["isolation"] == "none"


def test_a_plugin_that_was_moved_comes_back_by_the_applications_word_alone(install, host):
    install("p", plugin(init="os.environ['HOSTKIT_TEST_TAMPERED'] = '1'"))
    host.load("p", isolation="auto")
    assert is_isolated(host)
    host.reload("p")
    assert is_isolated(host)
    host.unload("p")
    assert is_isolated(host)
    try:
        host.reload("p", isolation="none")
        assert not is_isolated(host)
    finally:
        os.environ.pop("HOSTKIT_TEST_TAMPERED", None)


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("as_object", [False, True])
def test_what_is_registered_is_looked_at_as_what_is_installed(host, events, as_object):
    class P:
        def __init__(self):
            if not as_object:
                warnings.simplefilter("ignore")

        def execute(self, ctx, request):
            return 1

    host.register(P() if as_object else P, name="p", isolation="none")
    expected = ["PluginLoaded"] if as_object else ["HostTampered", "PluginLoaded"]
    assert [type(event).__name__ for event in events] == expected


def test_a_plugin_that_hangs_for_ever_is_moved_too_and_others_are_answered(install, new_host, tmp_path):
    release = tmp_path / "release"
    hang = f"import time, pathlib\n            while request and not pathlib.Path({str(release)!r}).exists(): time.sleep(0.01)"
    install("p", plugin(body=hang))
    config = slow_config()
    config["plugins"]["p"] |= {"breaker": {"failures": 1}, "health": {"interval": 0.05}}
    host = new_host(config=config)
    moved = threading.Event()
    host.subscribe(lambda event: isinstance(event, hostkit.IsolationChanged) and moved.set())
    hanging = host.submit("p", True)
    try:
        assert moved.wait(20)
        assert host.execute("p", False, timeout=20) != os.getpid()
    finally:
        release.touch()
    with pytest.raises(hostkit.CallTimeout):
        hanging.result(20)
