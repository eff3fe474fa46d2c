"""Bring a worker up, in the order that safety asks for, before the first byte of the plugin runs:

signals → limits → lifeline → fault dump → output → paths → import the plugin → READY → serve until the channels close.
"""

from __future__ import annotations

import _socket
import json
import os
import sys

from .._contract import Caller
from . import _failure, _lifeline, _limits, _output
from ._arena import have
from ._control import Control
from ._frames import BOOT, ERROR, PROTOCOL, READY, Assembler, packed, send_all
from ._loaded import LoadedPlugin, LoadFailure, construct, resolve, settings_shown
from ._loop import Server
from ._offspring import let_see_packages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._frames import Frame


def main(control_fd: int, sited: list[str]) -> None:
    """Run this worker from its first frame to its end. ``sited`` are the directories whose .pth files have run here already."""
    os.set_inheritable(control_fd, False)
    control = _socket.socket(fileno=control_fd)
    assembler = Assembler(cap=1 << 31)  # what the host sends is trusted, and may hold a pickled class
    boot = assembler.receive(control.recv)
    if boot is None or boot.kind != BOOT:
        os._exit(70)  # EX_SOFTWARE: not a host on the other side
    said = json.loads(boot.meta)
    _shed_the_host(said)
    ballast = _limits.apply(said["limits"])
    _lifeline.arm(said["lifeline"])
    _dump_faults_to(said["faults"])
    _output.capture(said["log"])
    if said["sandbox"] is not None:
        _confine(said["sandbox"], control)
    let_see_packages()
    if said.get("verified") is None:
        see_what_the_host_sees(said, sited)
    else:
        from ._verified import import_verified_only

        import_verified_only(said)
    server = _load(said, boot, control, ballast)
    thread = Control(control, assembler, server)
    server.arena.ask = thread.ask_memory
    _answer(control, READY, _introduction(said, server.loaded))
    thread.start()
    have(server.arena)
    server.serve()
    _flush()


def _shed_the_host(said: dict[str, Any]) -> None:
    """Undo what crosses exec by itself: signal mask and ignored signals, inheritable descriptors, argv."""
    import signal

    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    # Nobody presses Ctrl-C in a session of its own: a stray SIGINT ends the worker like any other signal.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    channels = [fd for ends in said["channels"] for fd in ends]
    for fd in (*channels, said["lifeline"], said["faults"], said["log"]):
        os.set_inheritable(fd, False)
    sys.argv = [f"hostkit-worker:{said['plugin']}"]


def _confine(sandbox: dict[str, Any], control: _socket.socket) -> None:
    """Shut this process in, before anything of the plugin is here; or tell the host that it can't be done, and end."""
    from ._sandbox import Unavailable, confine

    try:
        confine(sandbox)
    except Unavailable as missing:
        _answer(control, ERROR, {"kind": "sandbox", "text": str(missing)})
        os._exit(1)


def _dump_faults_to(fd: int) -> None:
    import faulthandler

    faulthandler.enable(fd)
    if sys.platform == "linux":
        import signal

        # What the sandbox's filter sends for a call of a foreign kind; the process still dies of it.
        faulthandler.register(signal.SIGSYS, file=fd, all_threads=False, chain=True)


def see_what_the_host_sees(said: dict[str, Any], sited: list[str]) -> None:
    """Make importable here what is importable in the host: its path, and what its .pth files set up."""
    sys.path[:] = said["path"]
    directories = [directory for directory in said["site_dirs"] if directory not in sited]
    if directories:
        import site

        known = set(said["path"])
        for directory in directories:
            site.addsitedir(directory, known)
        sys.path[:] = said["path"]
    if said["directory"]:
        sys.path.append(said["directory"])


def _load(said: dict[str, Any], boot: Frame, control: _socket.socket, ballast: bytearray) -> Server:
    caller = Caller(said["plugin"], said["id_prefix"])
    server = Server(said, caller, ballast)
    try:
        target = _by_value(boot.buffers) if boot.buffers else resolve(said["entry_point"])
        config = _given(said)
        plugin, settings = construct(target, config), settings_shown(target, config)
        server.loaded = LoadedPlugin(plugin, settle=server.settle, settings=settings)
        return server
    except LoadFailure as failure:
        error = {**_failure.describe(failure.__cause__ or failure, inputs=False), "kind": failure.kind, "text": str(failure)}
        if said.get("verified") is not None:
            error.update(_integrity(failure))
    except BaseException as raised:  # nothing of the plugin may end the worker without a word
        error = {**_failure.describe(raised), "kind": "contract", "text": f"loading raised {_failure.message(raised)}"}
    _answer(control, ERROR, error)
    _flush()
    os._exit(1)


def _given(said: dict[str, Any]) -> Any:
    if not said.get("secrets"):
        return said["config"]
    from ._showable import Given

    return Given(said["config"], said["secrets"])


def _integrity(failure: LoadFailure) -> dict[str, str]:
    from ._verified_files import refusal_in

    why, text = _failure.clean(refusal_in(failure.__cause__)), str(failure)
    return {"kind": "integrity", "text": text if why in text else f"{text}: {why}"} if why else {}


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105 - contextlib costs a worker's start
            stream.flush()
        except BaseException:  # noqa: S110 - the plugin may have put anything there, and it is the end
            pass


def _by_value(pickled: bytes) -> Any:
    try:
        from ._byvalue import load

        return load(pickled)
    except BaseException as error:  # unpickling runs the plugin author's code
        text = f"it can't be made from its pickle: {_failure.type_name(error)}: {_failure.message(error)}"
        raise LoadFailure("import", text) from error


def _introduction(said: dict[str, Any], loaded: LoadedPlugin) -> dict[str, Any]:
    return {
        "cookie": said["cookie"],
        "protocol": PROTOCOL,
        "plugin": said["plugin"],
        "python": ".".join(map(str, sys.version_info[:3])),
        "kind": loaded.kind,
        "hooks": {name: hook.offer(isolated=True) for name, hook in loaded.hooks.items()},
        "settings": loaded.settings,
    }


def _answer(control: _socket.socket, kind: int, meta: dict[str, Any]) -> None:
    send_all(control.send, packed(kind, meta=json.dumps(meta).encode()))
