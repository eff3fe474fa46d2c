"""Ctrl-C in a terminal, and SIGTERM: a running call is ended in order, a second signal forces it, and no worker is left.

The plugin of these tests connects to the test and says its process id. That tells when the call is running, and, when the connection
ends, that the process is gone.
"""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys

import pytest

CALLS_HOME = """
    import os
    import signal
    import socket
    import subprocess
    import sys
    import threading
    import time

    class P:
        def execute(self, ctx, request):
            self.line = socket.create_connection(("127.0.0.1", request["port"]), timeout=20)
            return getattr(self, request["do"])(ctx)

        def say(self, word):
            self.line.sendall(f"{word}\\n".encode())

        def lingers(self, ctx):
            threading.Thread(target=self.line.recv, args=(1,)).start()
            self.say(os.getpid())

        def waits(self, ctx):
            try:
                self.say(os.getpid())
                self.line.recv(1)
            except KeyboardInterrupt:
                self.say("interrupted")
                raise
            return "answer"

        def ignores(self, ctx):
            word = os.getpid()
            while True:
                try:
                    self.say(word)
                    time.sleep(60)
                except KeyboardInterrupt:
                    word = "interrupted"

        def clings(self, ctx):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.set_inheritable(self.line.fileno(), True)
            child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"], close_fds=False)
            self.say(os.getpid())
            time.sleep(60)
"""


@pytest.fixture
def home():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        yield server


class Line:
    """The other end of a plugin's connection; made when the plugin has said its process id."""

    def __init__(self, server):
        self.socket, _ = server.accept()
        self.socket.settimeout(20)
        self.words = self.socket.makefile("r")
        self.pid = int(self.word())

    def word(self):
        """Wait for the next word; empty when every process that holds the connection is gone."""
        try:
            return self.words.readline().strip()
        except ConnectionResetError:
            return ""

    def close(self):
        self.words.close()
        self.socket.close()


@pytest.fixture
def terminal(cli_place):
    """Run ``hostkit ...`` as the foreground job of a terminal; yields a function that returns (process, keyboard)."""
    started = []

    def run(*arguments):
        ours, theirs = pty.openpty()
        keyboard = os.fdopen(ours, "r+b", buffering=0)
        command = [sys.executable, "-m", "hostkit", "--app", "demo", *arguments]
        process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=theirs,
            preexec_fn=lambda: take_terminal(theirs),
            start_new_session=True,
        )
        os.close(theirs)
        started.append((process, keyboard))
        return process, keyboard

    yield run
    for process, keyboard in started:
        process.kill()
        process.communicate()
        keyboard.close()


def take_terminal(fd):
    import fcntl
    import termios

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)


def shown(keyboard):
    """Return all that the terminal has shown, once the process is gone."""
    data = b""
    try:
        while part := keyboard.read(65536):
            data += part
    except OSError:  # how a terminal says that nobody is left on the other side
        pass
    return data.decode()


def read_until(keyboard, words):
    """Return what the terminal shows up to the words that are waited for."""
    data = ""
    while words not in data:
        data += keyboard.read(65536).decode()
    return data


CTRL_C = b"\x03"


def test_ctrl_c_ends_the_call_and_its_worker(install_demo, terminal, home, isolation):
    install_demo("plugin", CALLS_HOME)
    process, keyboard = terminal("execute", "plugin", "do=waits", f"port={home.getsockname()[1]}", "--isolation", isolation)
    line = Line(home)
    assert (line.pid == process.pid) == (isolation == "none")
    keyboard.write(CTRL_C)
    # In-process it is the plugin's own Ctrl-C; a worker doesn't get it, is asked to end and says nothing.
    assert line.word() == ("interrupted" if isolation == "none" else "")
    assert line.word() == ""
    line.close()
    assert process.wait(20) == 130
    assert process.stdout.read() == b""
    told = shown(keyboard)
    assert "hostkit: SIGINT: ending what runs" in told
    assert "Traceback" not in told
    assert "WARNING" not in told


def test_a_second_ctrl_c_forces_what_ignores_the_first_in_process(install_demo, terminal, home):
    install_demo("plugin", CALLS_HOME)
    process, keyboard = terminal("execute", "plugin", "do=ignores", f"port={home.getsockname()[1]}", "--isolation", "none")
    line = Line(home)
    keyboard.write(CTRL_C)
    assert line.word() == "interrupted"
    keyboard.write(CTRL_C)
    assert line.word() == ""
    line.close()
    assert process.wait(20) == 130
    assert "hostkit: forced" in shown(keyboard)


def test_a_second_ctrl_c_forces_a_worker_and_its_children(install_demo, terminal, home):
    install_demo("plugin", CALLS_HOME)
    process, keyboard = terminal("execute", "plugin", "do=clings", f"port={home.getsockname()[1]}", "--isolation", "process")
    line = Line(home)
    keyboard.write(CTRL_C)
    told = read_until(keyboard, "once more to force it")
    keyboard.write(CTRL_C)
    assert line.word() == ""  # also the worker's child is gone, which holds the connection too
    line.close()
    assert process.wait(20) == 130
    told += shown(keyboard)
    assert "hostkit: forced" in told
    assert "Traceback" not in told


def test_what_ignores_everything_is_gone_after_one_ctrl_c_too(install_demo, terminal, home):
    install_demo("plugin", CALLS_HOME)
    process, keyboard = terminal("execute", "plugin", "do=clings", f"port={home.getsockname()[1]}", "--isolation", "process")
    line = Line(home)
    keyboard.write(CTRL_C)
    assert line.word() == ""
    line.close()
    assert process.wait(20) == 130
    assert "forced" not in shown(keyboard)


def test_ctrl_c_while_a_plugin_loads_ends_it(install_demo, terminal, home, isolation):
    source = f"""
        import os, socket
        line = socket.create_connection(("127.0.0.1", {home.getsockname()[1]}), timeout=20)
        line.sendall(f"{{os.getpid()}}\\n".encode())
        line.recv(1)
    """
    install_demo("plugin", source)
    process, keyboard = terminal("execute", "plugin", "--isolation", isolation)
    line = Line(home)
    keyboard.write(CTRL_C)
    assert line.word() == ""
    line.close()
    assert process.wait(20) == 130
    assert "Traceback" not in shown(keyboard)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_without_a_call_in_flight_ends_it_at_once(install_demo, cli_process, number):
    install_demo("plugin", "class P:\n    def execute(self, ctx, request):\n        return request\n")
    process = cli_process("execute", "plugin", "-", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    process.stdin.write(" " * (1 << 20))  # more than a pipe holds: it returns when most of it has been read
    process.stdin.flush()
    process.send_signal(number)
    assert process.wait(20) == 128 + number
    assert process.stderr.read() == f"hostkit: {number.name}: ending what runs; once more to force it\n"


def started(cli_process, home, isolation, *arguments):
    process = cli_process(
        "execute",
        "plugin",
        f"port={home.getsockname()[1]}",
        "--isolation",
        isolation,
        *arguments,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    return process, Line(home)


def test_sigterm_lets_the_call_in_flight_end(install_demo, cli_process, home, isolation):
    install_demo("plugin", CALLS_HOME)
    process, line = started(cli_process, home, isolation, "do=waits")
    process.send_signal(signal.SIGTERM)
    assert process.stderr.readline() == "hostkit: SIGTERM: the call in flight may end within 5 s\n"
    line.socket.sendall(b"x")
    assert line.word() == ""
    line.close()
    assert process.stdout.read() == '"answer"\n'
    assert process.wait(20) == 143
    assert process.stderr.read() == ""


def test_after_the_grace_the_call_is_ended(install_demo, cli_process, home, isolation):
    install_demo("plugin", CALLS_HOME)
    process, line = started(cli_process, home, isolation, "do=waits", "--grace", "200ms")
    process.send_signal(signal.SIGTERM)
    assert line.word() == ("interrupted" if isolation == "none" else "")
    assert line.word() == ""
    line.close()
    assert process.wait(20) == 143
    assert process.stdout.read() == ""
    assert (
        process.stderr.read()
        == "hostkit: SIGTERM: the call in flight may end within 0.2 s\nhostkit: SIGTERM: ending what runs; once more to force it\n"
    )


def test_ctrl_c_cuts_the_grace_short(install_demo, cli_process, home, isolation):
    install_demo("plugin", CALLS_HOME)
    process, line = started(cli_process, home, isolation, "do=waits", "--grace", "1h")
    process.send_signal(signal.SIGTERM)
    assert process.stderr.readline().startswith("hostkit: SIGTERM")
    process.send_signal(signal.SIGINT)
    assert line.word() == ("interrupted" if isolation == "none" else "")
    line.close()
    assert process.wait(20) == 143


def test_ctrl_c_ends_a_process_that_a_plugins_thread_keeps_alive(install_demo, cli_process, home):
    install_demo("plugin", CALLS_HOME)
    process, line = started(cli_process, home, "none", "do=lingers", "-v")
    assert any("closed" in told for told in process.stderr)
    process.send_signal(signal.SIGINT)
    assert line.word() == ""
    line.close()
    assert process.wait(20) == 130
    assert (process.stdout.read(), process.stderr.read()) == ("null\n", "hostkit: forced\n")


def test_programs_are_told_as_json(install_demo, cli_process, home):
    install_demo("plugin", CALLS_HOME)
    process, line = started(cli_process, home, "process", "do=waits", "--json")
    process.send_signal(signal.SIGINT)
    assert line.word() == ""
    line.close()
    assert process.wait(20) == 130
    assert process.stderr.read() == '{"error":{"type":"Interrupted","message":"interrupted by Ctrl-C","status":130}}\n'


def test_a_job_that_ignores_ctrl_c_goes_on_ignoring_it(install_demo, cli_process, home):
    install_demo("plugin", CALLS_HOME)
    process = cli_process(
        "execute",
        "plugin",
        "do=waits",
        f"port={home.getsockname()[1]}",
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    line = Line(home)
    process.send_signal(signal.SIGINT)
    line.socket.sendall(b"x")
    assert process.stdout.read() == '"answer"\n'
    assert process.wait(20) == 0
    line.close()
