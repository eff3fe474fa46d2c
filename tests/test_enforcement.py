"""What a host does with a plugin that isn't what the lock has: nothing, tell, or refuse it before anything of it is imported."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import signal
import sys
from hashlib import sha256

import pytest

import hostkit
from hostkit import testing

ECHO = """
    import os

    class P:
        def execute(self, ctx, request):
            return [os.getpid(), request]
"""


@pytest.fixture
def locked(install_demo, cli, cli_place):
    """A plugin that is locked; returns the configuration's file."""
    install_demo("plugin", ECHO)
    file = cli_place / "hostkit.toml"
    file.write_text('[lock]\npolicy = "enforce"\n')
    result = cli("lock")
    assert result.exit_code == 0, result.stderr
    return file


def change(site):
    (site / "plugin" / "__init__.py").write_text("raise SystemExit('it was imported')\n")


def test_what_is_locked_is_loaded(locked, new_host, isolation):
    host = new_host("demo", config=locked)
    host.load("plugin", isolation=isolation)
    assert host.execute("plugin", 1)[1] == 1


def test_what_is_not_as_locked_is_refused_before_it_is_imported(locked, new_host, site, isolation):
    change(site)
    host = new_host("demo", config=locked)
    with pytest.raises(hostkit.IntegrityError) as error:
        host.load("plugin", isolation=isolation)
    for part in ("plugin 'plugin'", str(locked.with_name("hostkit.lock")), "modified: plugin/__init__.py", "reinstall plugin"):
        assert part in str(error.value)
    assert "plugin" not in sys.modules


def test_a_call_loads_nothing_that_is_not_as_locked(locked, new_host, site, isolation):
    change(site)
    with pytest.raises(hostkit.IntegrityError):
        new_host("demo", config=locked).execute("plugin", 1)
    failed = new_host("demo", config=locked).load_all(isolation=isolation)
    assert type(failed["plugin"]) is hostkit.IntegrityError


def test_audit_loads_it_and_tells(locked, new_host, site, isolation, log):
    (site / "plugin" / "more.py").write_text("")
    locked.write_text('[lock]\npolicy = "audit"\n')
    host = new_host("demo", config=locked)
    events = []
    host.subscribe(events.append)
    host.load("plugin", isolation=isolation)
    assert host.execute("plugin", 1)[1] == 1
    (told,) = [event for event in events if isinstance(event, hostkit.LockMismatch)]
    assert "extra: plugin/more.py" in told.findings[0]
    (line,) = [record for record in log if "is not what the lock" in record["text"]]
    assert (line["level"], line["plugin"]) == ("WARNING", "plugin")
    assert "is loaded all the same" in line["text"]


def test_off_looks_at_nothing(locked, new_host, site):
    (site / "plugin" / "more.py").write_text("")
    locked.write_text("")
    locked.with_name("hostkit.lock").write_text("nonsense")
    new_host("demo", config=locked).load("plugin")


@pytest.mark.parametrize(
    "spoil", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-100]), lambda path: path.write_text("")]
)
def test_without_a_lock_that_can_be_read_nothing_is_loaded(locked, new_host, spoil, isolation):
    spoil(locked.with_name("hostkit.lock"))
    with pytest.raises(hostkit.IntegrityError, match=r"plugin 'plugin' is not loaded: the lock .*hostkit\.lock:.*hostkit lock"):
        new_host("demo", config=locked).load("plugin", isolation=isolation)


def test_audit_without_a_lock_tells_and_loads(locked, new_host, log):
    locked.with_name("hostkit.lock").unlink()
    locked.write_text('[lock]\npolicy = "audit"\n')
    new_host("demo", config=locked).load("plugin")
    assert [record["level"] for record in log if "hostkit.lock" in record["text"]] == ["WARNING"]


def test_a_policy_that_is_none_is_an_error_and_not_off(locked, new_host):
    for wrong in ('policy = "enforced"', "policy = false", 'policy = ""', 'polcy = "enforce"'):
        locked.write_text(f"[lock]\n{wrong}\n")
        with pytest.raises(hostkit.ConfigError, match=r"lock\.pol"):
            new_host("demo", config=locked)


def test_the_policy_may_come_from_the_environment(locked, new_host, site, monkeypatch):
    change(site)
    locked.write_text("")
    monkeypatch.setenv("HOSTKIT_LOCK__POLICY", "enforce")
    with pytest.raises(hostkit.IntegrityError):
        new_host("demo", config=locked).load("plugin")
    monkeypatch.setenv("HOSTKIT_LOCK__POLICY", "of")
    with pytest.raises(hostkit.ConfigError, match="HOSTKIT_LOCK__POLICY"):
        new_host("demo", config=locked)


def test_the_lock_is_beside_the_configuration_whatever_the_working_directory_is(locked, new_host, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    new_host("demo", config=locked).load("plugin")
    assert new_host("demo", config=locked).config.lock.file == locked.with_name("hostkit.lock")
    assert new_host("demo", config={"lock": {"policy": "audit"}}).config.lock.file == tmp_path / "hostkit.lock"


def test_a_lock_of_another_name_is_relative_to_the_configuration(locked, new_host, tmp_path, monkeypatch):
    locked.with_name("hostkit.lock").rename(locked.with_name("plugins.lock"))
    locked.write_text('[lock]\npolicy = "enforce"\nfile = "plugins.lock"\n')
    monkeypatch.chdir(tmp_path)
    new_host("demo", config=locked).load("plugin")
    monkeypatch.setenv("HOSTKIT_LOCK__POLICY", "enforce")
    new_host("demo", config=locked).load("plugin")


def test_a_changed_lock_holds_for_the_next_load(locked, new_host, site, cli):
    host = new_host("demo", config=locked)
    host.load("plugin")
    (site / "plugin" / "more.py").write_text("")
    with pytest.raises(hostkit.IntegrityError):
        host.reload("plugin", isolation="process")
    assert host.execute("plugin", 1)[1] == 1, "the one that was loaded goes on"
    assert cli("lock").exit_code == 0
    host.reload("plugin", isolation="process")
    locked.with_name("hostkit.lock").write_text("")
    with pytest.raises(hostkit.IntegrityError):
        host.reload("plugin", isolation="process")


def test_a_policy_that_is_switched_on_holds_for_the_next_load(locked, new_host, site):
    locked.write_text("")
    host = new_host("demo", config=locked)
    host.load("plugin")
    change(site)
    locked.write_text('[lock]\npolicy = "enforce"\n')
    assert host.reload_config() == ("lock.policy off → enforce",)
    assert host.execute("plugin", 1)[1] == 1
    with pytest.raises(hostkit.IntegrityError):
        host.reload("plugin", isolation="process")


def test_a_configuration_that_says_the_same_reloads_nothing(locked, new_host):
    host = new_host("demo", config=locked)
    host.load("plugin", isolation="process")
    before = host.execute("plugin", 1)[0]
    locked.write_text('[lock]\npolicy = "enforce"\n[defaults]\ntimeout = "9s"\n')
    host.reload_config()
    assert host.execute("plugin", 1)[0] == before


def test_a_worker_is_told_all_that_it_may_import(locked, new_host, site):
    host = new_host("demo", config=locked)
    host.load("plugin", isolation="process")
    settings = host._loader.record("plugin").lane.decided.settings
    data = (site / "plugin/__init__.py").read_bytes()
    assert settings.verified[str(site / "plugin/__init__.py")] == (len(data), sha256(data).hexdigest())
    assert {str(path) for path in (site / "plugin-1.0.dist-info").iterdir()} < settings.verified.keys()
    assert len(settings.locked) == 64
    locked.write_text("")
    host = new_host("demo", config=locked)
    host.load("plugin", isolation="process")
    assert host._loader.record("plugin").lane.decided.settings.verified is None


def test_what_the_application_registers_is_its_own(locked, new_host):
    class Own:
        def execute(self, ctx, request):
            return request

    host = new_host("demo", config=locked)
    host.register(Own(), name="own")
    assert host.execute("own", 1) == 1


def test_a_plugin_directory_is_held_against_the_lock(cli, cli_place, new_host, isolation):
    made = cli_place / "plugins" / "folder"
    made.mkdir(parents=True)
    (made / "plugin.toml").write_text('entry_point = "folder_plugin:P"\n')
    (made / "folder_plugin.py").write_text("class P:\n    def execute(self, ctx, request):\n        return request\n")
    file = cli_place / "hostkit.toml"
    file.write_text('[lock]\npolicy = "enforce"\n[discovery]\npaths = ["plugins"]\n')
    assert cli("lock").exit_code == 0
    host = new_host("demo", config=file)
    host.load("folder", isolation=isolation)
    assert host.execute("folder", 1) == 1
    if isolation != "none":
        assert str(made / "folder_plugin.py") in host._loader.record("folder").lane.decided.settings.verified
    (made / "folder_plugin.py").write_text("evil = 1\n")
    with pytest.raises(hostkit.IntegrityError, match="modified: folder_plugin.py"):
        new_host("demo", config=file).load("folder", isolation=isolation)


def test_a_file_with_its_times_set_back_is_hashed_anew(locked, new_host, site, cli):
    file = site / "plugin/__init__.py"
    assert cli("verify").exit_code == 0
    before = file.stat()
    with file.open("r+") as opened:  # the same inode and size
        text = opened.read()
        opened.seek(0)
        opened.write(text.replace("request]", "'evil!!']"[: len("request]")]))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    with pytest.raises(hostkit.IntegrityError, match="modified: plugin/__init__.py"):
        new_host("demo", config=locked).load("plugin")
    assert cli("verify").exit_code == 1, "the time of change gives it away"


def test_text_of_a_plugin_is_escaped_in_what_is_told(locked, new_host, site, log):
    (site / "plugin" / "evil\x1b[31m\nname.txt").write_text("")
    with pytest.raises(hostkit.IntegrityError) as error:
        new_host("demo", config=locked).load("plugin")
    assert "\x1b" not in str(error.value)
    assert "\n" not in str(error.value)
    assert not [record for record in log if "\x1b" in record["text"]]


def test_a_distribution_that_every_plugin_may_import_is_locked_with_each(locked, cli, site, new_host, cli_place):
    testing.install(site, "library", "", group="none")
    locked.write_text('[lock]\npolicy = "enforce"\ninclude = ["Library"]\n')
    assert cli("lock").exit_code == 0
    host = new_host("demo", config=locked)
    host.load("plugin", isolation="process")
    assert str(site / "library/__init__.py") in host._loader.record("plugin").lane.decided.settings.verified


def test_a_lock_that_everybody_may_write_is_none(locked, new_host):
    path = locked.with_name("hostkit.lock")
    path.chmod(0o666)
    with pytest.raises(hostkit.IntegrityError, match="can be written by everybody"):
        new_host("demo", config=locked).load("plugin")


def test_a_host_for_development_tells_and_refuses_nothing(locked, site, log):
    (site / "plugin" / "more.py").write_text("")
    with hostkit.Host.development("demo", config=locked) as host:
        host.load("plugin")
    assert any("is loaded all the same" in record["text"] for record in log)


def test_bytecode_that_is_its_sources_is_among_what_a_worker_may_import(locked, new_host, site):
    py_compile.compile(str(site / "plugin/__init__.py"))
    host = new_host("demo", config=locked)
    host.load("plugin", isolation="process")
    verified = host._loader.record("plugin").lane.decided.settings.verified
    assert {path for path in verified if path.endswith(".pyc")} == {
        importlib.util.cache_from_source(str(site / "plugin/__init__.py"))
    }


def test_a_worker_imports_nothing_that_is_not_locked(install_demo, cli, cli_place, new_host, site):
    testing.install(site, "stranger", "SEEN = True\n", group="none")
    install_demo(
        "plugin",
        """
        try:
            import stranger
        except ImportError as error:
            stranger = error

        class P:
            def execute(self, ctx, request):
                return repr(stranger)
        """,
    )
    file = cli_place / "hostkit.toml"
    file.write_text('[lock]\npolicy = "enforce"\n')
    assert cli("lock").exit_code == 0
    host = new_host("demo", config=file)
    host.load("plugin", isolation="process")
    assert "nothing is loaded from it" in host.execute("plugin", 1)
    file.write_text('[lock]\npolicy = "enforce"\ninclude = ["stranger"]\n')
    assert cli("lock").exit_code == 0
    host.reload("plugin", isolation="process")
    assert "module 'stranger'" in host.execute("plugin", 1)


def test_a_file_that_is_swapped_after_the_check_runs_in_no_worker(locked, new_host, site, until):
    host = new_host("demo", config=locked)
    host.load("plugin", isolation="process")
    pid = host.execute("plugin", 1)[0]
    (site / "plugin" / "__init__.py").write_text("class P:\n    def execute(self, ctx, request):\n        return 'evil'\n")
    os.kill(pid, signal.SIGKILL)

    def refused():
        try:
            found = host.execute("plugin", 1, timeout=5.0)
        except hostkit.HostkitError as error:
            return error if "verif" in str(error) else None
        assert found != "evil"
        return None

    assert "plugin/__init__.py" in str(until(refused))
