"""Workers as processes: what ``multiprocess`` sees of them, from what kinds of program they can be started, and what they inherit."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import textwrap
import time
from multiprocessing.connection import wait

import multiprocess
import pytest

import hostkit
from hostkit import _launch

ECHO = """
    class P:
        def execute(self, ctx, request):
            return request
"""


@pytest.fixture
def worker(faulty_worker):
    """A loaded plugin and its one worker's process."""
    bad = faulty_worker()
    (found,) = [child for child in multiprocess.active_children() if child.name == "hostkit-worker-bad"]
    return bad, found


def test_a_worker_is_a_multiprocess_process(worker):
    bad, process = worker
    assert isinstance(process, multiprocess.process.BaseProcess)
    assert process.is_alive()
    assert process.exitcode is None
    assert process.daemon
    assert process.pid == process.ident == bad.pid
    assert "hostkit-worker-bad" in repr(process)
    assert wait([process.sentinel], 0) == []


@pytest.mark.parametrize(("end", "code"), [("terminate", -signal.SIGTERM), ("kill", -signal.SIGKILL)])
def test_a_worker_can_be_ended_as_a_multiprocess_process(worker, end, code):
    bad, process = worker
    sentinel = os.dup(process.sentinel)
    getattr(process, end)()
    started = time.monotonic()
    process.join(10)
    assert time.monotonic() - started < 5.0
    assert process.exitcode == code
    assert not process.is_alive()
    assert wait([sentinel], 5) == [sentinel]
    os.close(sentinel)
    assert process not in multiprocess.active_children()
    process.terminate()
    process.kill()
    process.join()
    assert bad.call("fine") == "fine"


def test_joining_a_worker_that_lives_ends_with_its_timeout(worker):
    _, process = worker
    started = time.monotonic()
    process.join(0.1)
    assert 0.1 <= time.monotonic() - started < 2.0
    assert process.exitcode is None


def test_a_closed_hosts_workers_are_no_children_any_more(worker):
    bad, process = worker
    bad.host.close()
    assert process.exitcode == 0
    assert not process.is_alive()
    with pytest.raises(ValueError, match="its end was seen"):
        process.sentinel  # noqa: B018 - reading it is the test
    assert process not in multiprocess.active_children()


def test_a_worker_process_cannot_be_sent_elsewhere(worker):
    with pytest.raises(TypeError, match="belongs to the host"):
        __import__("pickle").dumps(worker[1])


@pytest.mark.parametrize("missing", ["sys.executable", "pidfd"])
def test_a_worker_that_cannot_be_started_leaves_nothing_behind(install, host, monkeypatch, missing):
    install("echo", ECHO)
    if missing == "sys.executable":
        monkeypatch.setattr(sys, "executable", "/no/such/python")
        expected = FileNotFoundError
    else:

        def refuse(pid, flags=0):
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(os, "pidfd_open", refuse)
        expected = OSError
    with pytest.raises((expected, hostkit.HostkitError)):
        host.load("echo", isolation="process")
    assert not multiprocess.active_children()
    monkeypatch.undo()


def test_workers_live_and_die_on_a_system_without_pidfd(monkeypatch, faulty_worker):
    monkeypatch.delattr(os, "pidfd_open")
    bad = faulty_worker()
    pid = bad.pid
    os.kill(pid, signal.SIGKILL)
    assert bad.call("fine", timeout=5) == "fine"
    assert bad.pid != pid
    with pytest.raises(hostkit.WorkerExited):
        bad.call("exit", code=3)
    (process,) = [child for child in multiprocess.active_children() if child.name == "hostkit-worker-bad"][:1] or [None]
    if process is not None:
        process.join(0.05)
    bad.host.close()
    assert not multiprocess.active_children()


# Programs.

PROGRAM = """
import sys
{before}
import hostkit
host = hostkit.Host()
host.load("echo", isolation="process")
print(host.execute("echo", [1, 2]))
host.close()
"""


@pytest.fixture
def run(install, site, tmp_path):
    """Run a Python program in which the plugin "echo" is installed, and return what it printed."""
    install("echo", ECHO)
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]

    def go(*arguments, stdin="", cwd=None):
        done = subprocess.run(
            [sys.executable, *arguments],
            input=stdin,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            timeout=60,
            cwd=cwd or tmp_path,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done

    return go


def test_a_script_without_a_main_guard_starts_workers_and_runs_once(run, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(PROGRAM.format(before=f"open({str(tmp_path / 'ran')!r}, 'a').write('x')"))
    assert run(str(script)).stdout == "[1, 2]\n"
    assert (tmp_path / "ran").read_text() == "x"


def test_a_program_given_as_text_starts_workers(run):
    done = run("-c", PROGRAM.format(before=""))
    assert (done.stdout, done.stderr) == ("[1, 2]\n", "")


def test_a_program_read_from_standard_input_starts_workers(run):
    assert run("-", stdin=PROGRAM.format(before="")).stdout == "[1, 2]\n"


def test_an_interactive_interpreter_starts_workers(run):
    done = run("-i", "-q", stdin=PROGRAM.format(before=""))
    assert "[1, 2]" in done.stdout


def test_a_module_run_by_name_starts_workers(run, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM.format(before=""))
    assert run("-m", "program").stdout == "[1, 2]\n"


def test_a_zipped_program_starts_workers(run, tmp_path):
    zipfile = __import__("zipfile")
    with zipfile.ZipFile(tmp_path / "program.zip", "w") as file:
        file.writestr("__main__.py", PROGRAM.format(before=""))
    assert run(str(tmp_path / "program.zip")).stdout == "[1, 2]\n"


def test_a_thread_starts_workers_that_outlive_it(run):
    program = """
import threading, hostkit
host = hostkit.Host()
def load():
    host.load("echo", isolation="process")
thread = threading.Thread(target=load)
thread.start()
thread.join()
for _ in range(3):
    print(host.execute("echo", 1), end="")
host.close()
"""
    assert run("-c", program).stdout == "111"


def test_a_daemon_process_of_multiprocess_starts_workers(run, tmp_path):
    program = """
import multiprocess, hostkit
def work():
    with hostkit.Host() as host:
        host.load("echo", isolation="process")
        print(host.execute("echo", 5), flush=True)
process = multiprocess.get_context("fork").Process(target=work, daemon=True)
process.start()
process.join()
"""
    assert run("-c", program).stdout == "5\n"


def test_an_optimized_interpreter_has_optimized_workers(run):
    program = "import hostkit\nclass P:\n    def execute(self, ctx, request):\n        return __debug__\nhost = hostkit.Host()\n"
    program += "host.register(P, name='x', isolation='process')\nprint(host.execute('x', 1))\nhost.close()\n"
    assert run("-O", "-c", program).stdout == "False\n"
    assert run("-c", program).stdout == "True\n"


def test_ctrl_c_at_the_terminal_reaches_the_host_and_no_worker(install, site, tmp_path):
    install("echo", ECHO)
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import time, hostkit
            with hostkit.Host() as host:
                host.load("echo", isolation="process")
                try:
                    print("ready", flush=True)
                    time.sleep(30)
                except KeyboardInterrupt:
                    print("answer", host.execute("echo", 7), flush=True)
            """
        )
    )
    pid, terminal = pty.fork()
    if pid == 0:
        paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.execve(sys.executable, [sys.executable, str(script)], {**os.environ, "PYTHONPATH": os.pathsep.join(paths)})
    try:
        seen = b""
        while b"ready" not in seen:
            seen += os.read(terminal, 1000)
        os.write(terminal, b"\x03")
        while b"answer 7" not in seen:
            seen += os.read(terminal, 1000)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        os.close(terminal)


# What a worker inherits.


def test_only_what_is_allowed_of_the_environment_reaches_the_worker(make_faulty, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.setenv("LC_TIME", "C")
    monkeypatch.setenv("WANTED", "yes")
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    bad = make_faulty("process", env=["WANTED"])
    seen = bad.call("answer", what="dict(os.environ)")
    assert seen["WANTED"] == "yes"
    assert seen["LANG"] == "C.UTF-8"
    assert seen["LC_TIME"] == "C"
    assert seen["PATH"] == os.environ["PATH"]
    allowed = {
        "HOME",
        "LANG",
        "LANGUAGE",
        "LOGNAME",
        "PATH",
        "SHELL",
        "TMPDIR",
        "TZ",
        "USER",
        "WANTED",
        "PYDANTIC_DISABLE_PLUGINS",
        "HOSTKIT_WORKER",
        "LC_CTYPE",
    }
    assert {name for name in seen if name not in allowed and not name.startswith("LC_")} == set()
    raw = bad.call("answer", what="open('/proc/self/environ').read()")
    assert "hunter2" not in raw
    assert "SECRET_TOKEN" not in raw


def test_a_worker_sees_nothing_of_the_hosts_arguments(worker):
    bad, _ = worker
    assert bad.call("answer", what="sys.argv") == ["hostkit-worker:bad"]
    line = bad.call("answer", what="open('/proc/self/cmdline').read().split('\\0')")
    assert not set(sys.argv[1:]) & set(line)
    assert line[-2].isdigit()


def test_a_worker_has_only_the_descriptors_that_it_needs(make_faulty, tmp_path):
    with open(tmp_path / "host's own", "w") as mine:
        os.set_inheritable(mine.fileno(), True)
        bad = make_faulty("process", concurrency=2)
        fds = "sorted((int(n), os.readlink('/proc/self/fd/' + n)) for n in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + n))"
        seen = dict(bad.call("answer", what=fds))
    targets = list(seen.values())
    assert seen[0] == "/dev/null"
    assert not [target for target in targets if str(tmp_path) in target]
    # stdout, stderr, the log and the lifeline, and two for each channel; control; the fault file and its mapping.
    assert len([target for target in targets if target.startswith("pipe:")]) == 4 + 2 * 2
    assert len([target for target in targets if target.startswith("socket:")]) == 1
    assert len([target for target in targets if "hostkit-faults" in target]) == 2
    assert len(targets) == 12


def test_what_a_worker_starts_inherits_neither_its_control_socket_nor_its_channels(worker):
    bad, _ = worker
    what = "__import__('subprocess').run(['ls', '-l', '/proc/self/fd'], close_fds=False, capture_output=True, text=True).stdout"
    seen = bad.call("answer", what=what)
    assert "socket:" not in seen
    # The child's own stdout, to which it writes the listing, and the worker's stderr.
    assert seen.count("pipe:") == 2


def test_signals_that_the_host_blocks_or_ignores_work_in_the_worker(make_faulty):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        bad = make_faulty("process")
        assert bad.call("answer", what="list(signal.pthread_sigmask(signal.SIG_BLOCK, []))") == []
        assert bad.call("answer", what="signal.getsignal(signal.SIGHUP) == signal.SIG_DFL") is True
        assert bad.call("answer", what="signal.getsignal(signal.SIGINT) == signal.SIG_DFL") is True
        with open(f"/proc/{bad.pid}/status") as file:
            masks = dict(line.split(":\t", 1) for line in file if line.startswith("Sig"))
        assert int(masks["SigBlk"], 16) == 0
        ignored_there = {number for number in signal.valid_signals() if int(masks["SigIgn"], 16) >> (number - 1) & 1}
        assert ignored_there <= {signal.SIGPIPE, signal.SIGXFSZ}
    finally:
        signal.signal(signal.SIGHUP, ignored)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_the_working_directory_and_the_umask_are_the_hosts(make_faulty, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = os.umask(0o027)
    try:
        bad = make_faulty("process")
        assert bad.call("answer", what="os.getcwd()") == str(tmp_path)
        assert bad.call("answer", what="[mask := os.umask(0), os.umask(mask)][0]") == 0o027
    finally:
        os.umask(before)


def test_a_worker_has_a_session_of_its_own(worker):
    bad, process = worker
    assert os.getsid(process.pid) == process.pid != os.getsid(0)
    assert bad.call("answer", what="os.getpgid(0) == os.getpid()") is True


def test_a_worker_writes_no_core_file(worker):
    assert worker[0].call("answer", what="__import__('resource').getrlimit(__import__('resource').RLIMIT_CORE)") == [0, 0]


def test_the_hosts_main_module_is_not_run_again(worker):
    assert worker[0].call("answer", what="sys.modules['__main__'].__file__").endswith("_worker/__main__.py")


def test_a_threads_worth_of_numeric_threads_is_what_a_limited_worker_gets():
    seen = _launch.environment((), 2)
    assert {seen[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")} == {"2"}
