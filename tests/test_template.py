"""Workers that are forked from the host's template: what they are, what they inherit, and what happens to the template."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import multiprocess
import pytest

import hostkit

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has what it takes")

ASKED = """
    import ctypes, os, random, signal, sys, threading, time
    class P:
        def execute(self, ctx, request):
            return eval(request)
"""


@pytest.fixture
def forked(install, new_host):
    """A host whose workers are forked, with the plugin "asked", which evaluates what it is asked."""

    def make(preload=("pydantic",), plugins=None, **settings):
        install("asked", ASKED)
        config = {
            "defaults": {"start": "template"},
            "template": {"preload": list(preload)},
            "plugins": {"asked": settings, **(plugins or {})},
        }
        host = new_host(config=config)
        host.load("asked", isolation="process")
        return host

    return make


def template_of(host):
    """The template's process id; the test needs one."""
    pid = host._loader._opener._template.pid
    assert pid is not None, "there is no template"
    return pid


def parent_of(pid):
    return int(status_of(pid)["PPid"])


def status_of(pid):
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())


def children_of(pid):
    """The states of a process's children, by id."""
    found = {}
    for entry in os.listdir("/proc"):
        try:
            status = status_of(entry) if entry.isdigit() else {}
        except (FileNotFoundError, ProcessLookupError):
            continue
        if status.get("PPid") == str(pid):
            found[int(entry)] = status["State"][0]
    return found


def warnings_in(log):
    return [record["text"] for record in log if record["level"] == "WARNING"]


# What a forked worker is.


def test_a_worker_of_the_template_is_the_hosts_own_child_and_a_multiprocess_process(forked):
    host = forked()
    (process,) = multiprocess.active_children()
    pid = host.execute("asked", "os.getpid()")
    assert process.pid == pid != template_of(host)
    assert parent_of(pid) == parent_of(template_of(host)) == os.getpid()
    assert host.execute("asked", "os.getppid()") == os.getpid()
    assert process.is_alive()
    os.kill(pid, signal.SIGTERM)
    process.join(10)
    assert process.exitcode == -signal.SIGTERM
    assert host.execute("asked", "os.getpid()", timeout=10) != pid


def test_its_thread_is_known_by_its_own_id_everywhere(forked):
    host = forked(concurrency=2)
    asked = "[os.getpid(), threading.get_native_id(), threading.main_thread().native_id, ctypes.CDLL(None).gettid()]"
    pid = host.execute("asked", "os.getpid()")
    ids = host.execute("asked", asked)
    assert ids[0] == ids[2] == pid
    assert ids[1] == ids[3]
    # raise(3) sends to the thread that the C library believes to be; SIGUSR1 without a handler ends the process.
    with pytest.raises(hostkit.WorkerCrashed) as caught:
        host.execute("asked", "ctypes.CDLL(None).abort()")
    assert caught.value.signal == signal.SIGABRT
    assert "Current thread" in caught.value.fault_dump


def test_threads_locks_and_finer_things_of_the_c_library_work_in_it(forked):
    host = forked()
    threads = "[[t.start(), t.join()] and None or t.ident for t in [threading.Thread(target=time.sleep, args=(0.001,)) for _ in range(50)]]"
    assert len(host.execute("asked", threads)) == 50
    assert (
        host.execute(
            "asked", "len({*map(__import__('concurrent.futures').futures.ThreadPoolExecutor(4).submit(os.getpid).result, [1])})"
        )
        == 1
    )


def test_it_forks_and_starts_processes_itself(forked):
    host = forked()
    child = "(lambda pid: os._exit(7) if pid == 0 else os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))(os.fork())"
    assert host.execute("asked", child) == 7
    run = "__import__('subprocess').run([sys.executable, '-c', 'print(6 * 7)'], capture_output=True, text=True).stdout"
    assert host.execute("asked", run) == "42\n"
    pooled = "__import__('multiprocessing').get_context('fork').Pool(1).apply(os.getppid) == os.getpid()"
    assert host.execute("asked", pooled) is True


def test_nobody_is_left_as_a_zombie(forked, until):
    host = forked(restarts={"budget": 100}, breaker=False)
    template = template_of(host)
    for _ in range(5):
        with pytest.raises(hostkit.WorkerExited):
            host.execute("asked", "os._exit(3)")
    host.execute("asked", "1")
    until(lambda: "Z" not in children_of(os.getpid()).values())
    assert children_of(template) == {}
    os.kill(template, signal.SIGKILL)
    until(lambda: template not in children_of(os.getpid()))


def test_workers_of_one_template_are_random_each_in_its_own_way(forked):
    host = forked(preload=["random"], plugins={"asked": {"workers": 4}})
    host.reload("asked")
    links = host._loader.record("asked").lane.backend.supervisor._links
    assert len({link.process.pid for link in links}) == 4
    taken = [host.submit("asked", "[os.getpid(), time.sleep(0.3), random.random()]") for _ in range(4)]
    drawn = {pid: number for pid, _, number in (call.result() for call in taken)}
    assert len(set(drawn.values())) == len(drawn) == 4


# What it inherits.


def test_it_sees_exactly_the_environment_that_an_executed_worker_sees(forked, install, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    monkeypatch.setenv("WANTED", "yes")
    host = forked(env=["WANTED"], plugins={"fresh": {"start": "fresh", "env": ["WANTED"]}})
    install("fresh", ASKED)
    host.load("fresh", isolation="process")
    here, there = (host.execute(name, "dict(os.environ)") for name in ("asked", "fresh"))
    # Each has a mark of its own, by which what it leaves behind is found.
    assert here.pop("HOSTKIT_WORKER") != there.pop("HOSTKIT_WORKER")
    assert here == there
    getenv = "[(ctypes.CDLL(None).getenv.__setattr__('restype', ctypes.c_char_p), (f := ctypes.CDLL(None).getenv).__setattr__('restype', ctypes.c_char_p), (f(b'WANTED') or b'').decode())[2] for _ in '1'][0]"
    assert host.execute("asked", getenv) == "yes"
    assert "hunter2" not in host.execute("asked", "open('/proc/self/environ').read()")
    monkeypatch.setenv("WANTED", "no more")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    host.reload("asked")
    assert host.execute("asked", "[os.environ['WANTED'], os.environ['TZ'], time.timezone]") == ["no more", "Asia/Tokyo", -9 * 3600]
    monkeypatch.delenv("TZ")
    monkeypatch.delenv("WANTED")
    host.reload("asked")
    assert host.execute("asked", "[os.environ.get('WANTED'), os.environ.get('TZ')]") == [None, None]


def test_working_directory_umask_and_cpus_are_the_hosts_at_the_launch(forked, tmp_path, monkeypatch):
    host = forked()
    template = template_of(host)
    monkeypatch.chdir(tmp_path)
    before, cpus = os.umask(0o027), os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    try:
        host.reload("asked")
        asked = "[os.getcwd(), [mask := os.umask(0), os.umask(mask)][0], sorted(os.sched_getaffinity(0))]"
        assert host.execute("asked", asked) == [str(tmp_path), 0o027, [min(cpus)]]
    finally:
        os.umask(before)
        os.sched_setaffinity(0, cpus)
    assert template_of(host) == template
    assert os.readlink(f"/proc/{template}/cwd") == "/"


@pytest.mark.parametrize("changed", ["limit", "locale"])
def test_what_a_fork_would_have_from_the_template_is_a_new_template_when_it_changes(forked, monkeypatch, changed):
    host = forked()
    template = template_of(host)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if changed == "limit":
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[0] - 1, before[1]))
    else:
        monkeypatch.setenv("LC_TIME", "C.UTF-8")
    try:
        host.reload("asked")
        assert template_of(host) != template
        seen = host.execute(
            "asked", "[__import__('resource').getrlimit(__import__('resource').RLIMIT_NOFILE)[0], os.environ.get('LC_TIME')]"
        )
        assert seen[0] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert seen[1] == os.environ.get("LC_TIME")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_plugin_that_was_installed_after_the_template_began_is_found(forked, install):
    host = forked()
    for number in range(5):
        install(f"later-{number}", ASKED)
        host.load(f"later-{number}", isolation="process")
        assert host.execute(f"later-{number}", "__name__") == f"later_{number}"


def test_what_is_preloaded_is_there_and_nothing_of_a_plugin_is(forked, log, until):
    host = forked(preload=["pydantic", "loguru", "logging"])
    assert host.execute("asked", "[name in sys.modules for name in ('pydantic', 'loguru', 'asked')]") == [True] * 3
    host.execute("asked", "__import__('logging').getLogger('mine').warning('by logging')")
    host.execute("asked", "__import__('loguru').logger.warning('by loguru')")
    until(lambda: {"by logging", "by loguru"} <= {record["text"] for record in log if record.get("plugin") == "asked"})
    maps = Path(f"/proc/{template_of(host)}/maps").read_text()
    assert "pydantic_core" in maps
    assert "asked" not in Path(f"/proc/{template_of(host)}/environ").read_text()


# The template itself.


def test_the_template_keeps_no_descriptor_of_its_workers(forked):
    host = forked()
    template = template_of(host)
    before = sorted(os.listdir(f"/proc/{template}/fd"))
    for _ in range(3):
        host.reload("asked")
    assert sorted(os.listdir(f"/proc/{template}/fd")) == before
    assert os.getsid(template) == template
    assert len(os.listdir(f"/proc/{template}/task")) == 1


def test_a_template_that_dies_is_started_again_and_its_workers_live_on(forked, log, until):
    host = forked()
    template = template_of(host)
    pid = host.execute("asked", "os.getpid()")
    os.kill(template, signal.SIGKILL)
    until(lambda: template not in children_of(os.getpid()))
    assert host.execute("asked", "os.getpid()") == pid
    host.reload("asked")
    assert template_of(host) != template
    assert parent_of(host.execute("asked", "os.getpid()")) == os.getpid()
    assert [text for text in warnings_in(log) if "template" in text] == [
        "the template ended by itself (-9); another one is started"
    ]


def test_a_template_that_dies_again_and_again_is_left_at_that(forked, log, until):
    host = forked()
    for _ in range(4):
        template = template_of(host)
        os.kill(template, signal.SIGKILL)
        until(lambda: template not in children_of(os.getpid()))
        host.reload("asked")
    assert host._loader._opener._template.pid is None
    assert host.execute("asked", "sys.orig_argv[-2]").endswith("__main__.py")
    assert "workers start fresh from now on" in warnings_in(log)[-1]


@pytest.mark.parametrize(
    ("module", "source", "said"),
    [
        ("no_such_module", None, "the template can't preload no_such_module: ModuleNotFoundError"),
        ("raises", "raise SystemExit(3)", "the template can't preload raises: SystemExit: 3"),
        (
            "starts",
            "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()",
            "preload starts: threads were started",
        ),
        ("opens", "import os\nfd = os.open('/', os.O_RDONLY)", "preload opens: descriptors were left open"),
    ],
)
def test_what_cannot_be_preloaded_is_told_once_and_left_out(forked, site, log, module, source, said):
    if source is not None:
        (site / f"{module}.py").write_text(source)
    host = forked(preload=[module, "random"])
    host.reload("asked")
    assert template_of(host)
    (told,) = warnings_in(log)
    assert said in told
    assert host.execute("asked", f"[name in sys.modules for name in ('random', {module!r})]") == [True, False]


def test_where_no_template_can_be_had_workers_start_fresh_with_one_warning(forked, site, log):
    (site / "ends.py").write_text("import os\nos._exit(3)")
    host = forked(preload=["ends"])
    host.reload("asked")
    assert host._loader._opener._template.pid is None
    assert host.execute("asked", "sys.orig_argv[-2]").endswith("__main__.py")
    (told,) = warnings_in(log)
    assert "workers start fresh from now on, without a template" in told


def test_a_template_that_stops_answering_costs_a_worker_some_seconds_and_nothing_else(forked, log, monkeypatch, until):
    monkeypatch.setattr("hostkit._template._FORKING", 0.3)
    host = forked()
    template = template_of(host)
    os.kill(template, signal.SIGSTOP)
    host.reload("asked")
    assert host.execute("asked", "sys.orig_argv[-2]").endswith("__main__.py")
    until(lambda: template not in children_of(os.getpid()))
    host.reload("asked")
    assert host.execute("asked", "sys.orig_argv[-2]") == "template"


def test_more_channels_than_one_message_takes_are_had_by_a_fresh_start(forked):
    host = forked(concurrency=130)
    assert host.execute("asked", "sys.orig_argv[-2]").endswith("__main__.py")
    assert host.execute("asked", "1 + 1") == 2


def test_the_template_ends_with_its_host_and_with_its_hosts_death(forked, install, site, until):
    host = forked()
    template = template_of(host)
    host.close()
    assert template not in children_of(os.getpid())
    program = """
        import os, signal, hostkit
        host = hostkit.Host(config={"defaults": {"start": "template", "sandbox": "off"}})
        host.load("asked", isolation="process")
        print(host._loader._opener._template.pid, host.execute("asked", "os.getpid()"), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    for pid in map(int, done.stdout.split()):
        until(lambda pid=pid: not os.path.exists(f"/proc/{pid}") or status_of(pid)["State"][0] == "Z")


def test_closing_a_host_does_not_wait_for_a_template_that_warms_up(install, new_host, site, tmp_path, log, until):
    install("asked", ASKED)
    (site / "slow.py").write_text(f"open({str(tmp_path / 'begun')!r}, 'w').close()\nimport time\ntime.sleep(60)")
    host = new_host(config={"defaults": {"start": "template", "isolation": "process"}, "template": {"preload": ["slow"]}})
    call = host.submit("asked", "1")
    until((tmp_path / "begun").exists)
    started = time.monotonic()
    host.close(0.0)
    with pytest.raises(hostkit.CallError):
        call.result(10)
    assert time.monotonic() - started < 5.0
    assert warnings_in(log) == []


def test_a_fork_of_the_host_has_nothing_of_the_template(forked):
    host = forked()
    template = host._loader._opener._template
    sockets = {os.readlink(f"/proc/self/fd/{template._running._socket.fileno()}")}
    child = os.fork()
    if child == 0:
        found = {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")}
        os._exit(1 if found & sockets or template.pid is not None else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    host.reload("asked")
    assert host.execute("asked", "sys.orig_argv[-2]") == "template"


def test_each_plugin_starts_as_the_operator_says(forked, install):
    install("fresh", ASKED)
    host = forked(plugins={"fresh": {"start": "fresh"}})
    host.load("fresh", isolation="process")
    assert host.execute("asked", "sys.orig_argv[-2]") == "template"
    assert host.execute("fresh", "sys.orig_argv[-2]").endswith("__main__.py")


def test_a_host_that_forks_no_workers_has_no_template(new_host, install):
    install("asked", ASKED)
    host = new_host(config={"defaults": {"start": "fresh"}})
    host.load("asked", isolation="process")
    assert host._loader._opener._template is None
