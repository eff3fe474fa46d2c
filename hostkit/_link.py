"""The host's side of one running worker: its process, sockets and outputs, from the first fork to the last descriptor.

start()      process, BOOT ──► …                      any thread
READY ◄──    ``introduced`` resolves                  monitor thread
channels     used by callers directly                 any thread
death        ``ended`` is set, then ``on_end`` runs   monitor thread
"""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from ._arena import Arena
from ._channel import Channel
from ._deadline import Deadline
from ._ending import Ending, Reason
from ._errors import CallCancelled, CallTimeout, PluginClosed, ProtocolError, WorkerHung
from ._family import Family
from ._fence import Fence
from ._greeting import Greeting, Introduction
from ._importable import Target
from ._launch import WorkerProcess, environment
from ._lifetimes import close_in_forks, starting
from ._log import OutputPipe
from ._opening import Opening
from ._questions import Full, Questions, spoken
from ._raised import denied_by_sandbox, load_error, refused_by_system
from ._strays import VARIABLE, end_marked_soon, new_mark
from ._vitals import WorkerVitals, resident
from ._wires import Wires
from ._worker._frames import CANCEL, CLOSE, ERROR, GOODBYE, MEMORY, PING, PONG, READY, Frame, FrameError, packed

if TYPE_CHECKING:
    from ._cell import Cell
    from ._recycling import Term

# Seconds between the end of a worker's sockets and its own end, where it dies in order.
_SILENCE = 0.5
# Bytes of output that are still read from a worker that has died.
_LAST_WORDS = 1 << 20


class Link:
    """One worker. ``introduced`` becomes its Introduction, or the error that kept it from starting."""

    def __init__(self, opening: Opening, target: Target, on_end: Callable[[Link], None]) -> None:
        self.opening = opening
        self.introduced: Future[Introduction] = Future()
        self.ended = threading.Event()
        self.ending: Ending | None = None
        self.offered = False  # its channels are the callers' now
        self.replaced = False  # another one was started in its place
        self.over = False  # no call may begin here any more: it has ended, or is replaced or retired
        self.retired = False  # its calls may end, and then it closes its plugin and ends in order
        self.dismissed = False  # it was asked for that
        self.term: Term | None = None
        self.successor_of: Link | None = None
        self.hearing = threading.Lock()  # guards heard, and is held while the worker is told of historic hook calls
        self.heard = 0
        self.mark = new_mark()
        self._on_end = on_end
        self._monitor = opening.monitor
        self._lock = threading.Lock()  # guards _reason, and the end of _wires
        self._reason: Reason | None = None
        self._begun: tuple[int, ...] = ()
        self._unanswered = 0
        self._owed = 0
        self._asked_to_close = False
        self._said_goodbye = False
        self._since = time.monotonic()
        self._looking = threading.Lock()  # guards _family
        self._greeting = Greeting(opening, target)
        # What it has imported, nobody has verified.
        self._template = opening.template if opening.settings.verified is None else None
        self._cell: Cell | None = None
        try:
            self._acquire()
        except (OSError, RuntimeError, MemoryError) as error:
            raise refused_by_system(error, plugin=opening.name) from error
        self._monitor.run(self._watch)
        try:
            self._boot()
        except BaseException:  # a Ctrl-C; the monitor sees to the rest
            self.end(CLOSED)
            raise

    def _acquire(self) -> None:
        """Get all that the system has to give: the monitor's thread, descriptors, the process."""
        if self._template is not None:
            self._template.warm()
        if not self._monitor.hold():
            name = self.opening.name
            raise PluginClosed(f"plugin {name!r}: the host is closed", plugin=name, phase="start")
        try:
            with starting:
                self._start()
        except BaseException:
            if self._cell is not None:
                self._cell.close()
            self._monitor.let_go()
            raise

    def _start(self) -> None:
        settings = self.opening.settings
        cores = (settings.limits or {}).get("cpu_cores")
        self._cell = cell = _cell(self.opening)
        self._wires = wires = Wires(self.opening.name, settings.concurrency or 1)
        close_in_forks(wires)
        theirs = wires.theirs
        try:
            self.process = WorkerProcess(
                self.opening.name,
                control=theirs.control,
                fds=[*theirs.all, wires.faults, *([] if cell is None else cell.fds)],
                streams=(theirs.stdout, theirs.stderr),
                environment={
                    **environment(
                        settings.environment, None if cores is None else int(cores), home="" if cell is None else cell.home
                    ),
                    VARIABLE: self.mark,
                },
                template=self._template,
            )
            self.process.start()
        except BaseException:
            wires.close()
            for mine in wires.ends:
                mine.close()
            raise
        finally:
            wires.hand_over()
            if cell is not None:
                cell.hand_over()
        self._popen = self.process._popen
        self._family = Family(self.pid)
        self._fence = Fence(
            self.opening, self.pid, home="" if cell is None else cell.home, running=lambda: self.running, end=self.end
        )
        assert wires.control is not None
        self._control = wires.control.fileno()
        self._questions = Questions(wires.control)
        self.arena = Arena(settings.max_buffers, self._tell)
        # Beside each other buffers lie aligned, which makes many small ones up to twice as large.
        most = {"cap": settings.max_message, "buffers": 2 * settings.max_buffers}
        self.channels = [Channel(self, number, mine, **most) for number, mine in enumerate(wires.ends)]

    def _boot(self) -> None:
        try:
            self._questions.send(
                self._greeting.boot(self._wires, self._cell),
                Deadline.after(self.opening.settings.start_timeout),
            )
        except Full:
            self._too_slow()

    # What other threads ask for.

    @property
    def ready(self) -> bool:
        """Whether it has loaded the plugin, and lives or has lived."""
        return self.introduced.done() and self.introduced.exception() is None

    @property
    def pid(self) -> int:
        """The worker's process id."""
        pid: int = self._popen.pid
        return pid

    @property
    def state(self) -> str:
        """Where it stands between its start and its end."""
        if self.over or self.retired:
            return "leaving"
        return "serving" if self.offered else "standby" if self.ready else "starting"

    @property
    def spent(self) -> float:
        """The CPU seconds that it had used up by its end, with those of the children that it has waited for."""
        usage = self._popen.usage
        return 0.0 if usage is None else float(usage.ru_utime + usage.ru_stime)

    def vitals(self) -> WorkerVitals:
        """Return how it is doing, with all that it has started."""
        with self._looking:
            members = self._family.look(everywhere=False)
            cpu, threads = sum(found.cpu for found in members.values()), sum(found.threads for found in members.values())
        return WorkerVitals(self.pid, self.state, time.monotonic() - self._since, resident(members), cpu, threads)

    @property
    def running(self) -> list[int]:
        """The ids of the calls that it runs. Only where the plugin has limits or recycles its workers."""
        return [channel.call_id for channel in self.channels if channel.call_id and not channel.closed]

    def end(self, reason: Reason) -> None:
        """Kill the worker; the first reason given is the one that its callers are told, unless it had ended by itself by then."""
        if self._popen.poll() is None:
            self._because(reason)
        self._popen.kill()

    def terminate(self, reason: Reason) -> None:
        """Ask the worker's process group to end, by SIGTERM."""
        self._because(reason)
        self._popen.terminate()

    def death(self, *, patience: float = _SILENCE) -> Ending:
        """Return how the worker ended, after its end was seen. One that closed its sockets and lives on is killed."""
        if not self.ended.wait(patience):
            self.end(Reason(ProtocolError, "its worker closed a channel and lived on"))
            if not self.ended.wait(5.0):
                return Ending(255, Reason(ProtocolError, "its worker closed a channel and can't be killed"), "", "", 0, None)
        assert self.ending is not None
        return self.ending

    def began(self, channel: Channel, call_id: int) -> bool:
        """Whether a worker that has ended had begun a call, so that its plugin may know of it. The call must be the last one sent."""
        return not (channel.number < len(self._begun) and self._begun[channel.number] != call_id)

    def violation(self, error: FrameError) -> Ending:
        """End a worker that sent something else than frames, and return its ending."""
        self.end(broken(error))
        return self.death()

    def ask(self, kind: int, deadline: Deadline | None = None) -> Future[Frame]:
        """Send a question on the control socket, or share one that is open within its ``deadline``; the future gets the answer's
        frame, or is cancelled when the worker ends."""
        self._asked_to_close = self._asked_to_close or kind == CLOSE
        try:
            return self._questions.ask(kind, deadline)
        except Full:
            self._deaf()
            cancelled: Future[Frame] = Future()
            cancelled.cancel()
            return cancelled

    def cancel(self, call_id: int) -> None:
        """Tell the worker that nobody waits for a call any more."""
        self._tell(packed(CANCEL, call_id))

    def hang_up(self, reason: Reason) -> None:
        """End the channels for whoever uses them. A worker without a call in it ends by itself then."""
        self._because(reason)
        for channel in self.channels:
            channel.hang_up()
        with self._lock:
            self._wires.hang_up()

    def _because(self, reason: Reason) -> None:
        with self._lock:
            self._reason = self._reason or reason

    def _tell(self, frame: bytes, fd: int | None = None) -> None:
        try:
            self._questions.send(frame, Deadline.after(0.0), fd)
        except Full:
            self._deaf()

    def _deaf(self) -> None:
        self.end(Reason(WorkerHung, "its worker stopped reading its control socket"))

    # What happens on the monitor's thread.

    def _watch(self) -> None:
        self._monitor.watch(self._control, self._on_control)
        for pipe in self._wires.outputs.values():
            self._monitor.watch(pipe.fd, functools.partial(self._on_output, pipe))
        self._start_timer = self._monitor.later(self.opening.settings.start_timeout, self._too_slow)
        self._fence.watch()
        if self._cell is not None:
            self._cell.watch()
        self._sentinel = self._popen.sentinel
        if self._sentinel >= 0:
            self._monitor.watch(self._sentinel, self._on_death)
        else:
            self._look_for_death()

    def _look_for_death(self) -> None:
        # No pidfd on this system.
        self._on_death()
        if not self.ended.is_set():
            self._monitor.later(0.02, self._look_for_death)

    def _too_slow(self) -> None:
        if not self.introduced.done():
            seconds = self.opening.settings.start_timeout
            self.end(Reason(CallTimeout, f"its worker was not ready after {seconds:g} s and was ended"))

    def _on_control(self) -> bool:
        """Take one portion of what the worker says; return whether there was one."""
        count = self._questions.receive()
        try:
            for frame in self._questions.frames():
                self._take(frame)
        except FrameError as error:
            self._monitor.unwatch(self._control)
            self.end(broken(error))
            return False
        if count == 0:
            self._monitor.unwatch(self._control)
            self._monitor.later(_SILENCE, self._on_silence)
        return bool(count)

    def _on_silence(self) -> None:
        if not self.ended.is_set():
            self.end(Reason(ProtocolError, "its worker closed its control socket and lived on"))

    def _take(self, frame: Frame) -> None:
        self._unanswered = 0
        starts = not self.introduced.done()
        if frame.kind == READY and starts:
            self._introduce(frame)
        elif frame.kind == ERROR and starts:
            said = spoken(frame.meta)
            error = load_error(said, plugin=self.opening.name)
            if self.opening.denied is not None and "denied" in said:
                self.opening.denied(self.opening.name, said)
                denied_by_sandbox(error, plugin=self.opening.name)
            self.introduced.set_exception(error)
        elif frame.kind == GOODBYE and self._asked_to_close and not self._said_goodbye:
            self._said_goodbye = True
        elif frame.kind == MEMORY and not starts:
            self.arena.hear(frame.call_id, spoken(frame.meta))
        elif frame.kind == PONG:
            self._pong()
        else:
            self._questions.take(frame)

    def _pong(self) -> None:
        if not self._owed:
            raise FrameError("an answer to a heartbeat that nobody sent")
        self._owed -= 1

    def _introduce(self, frame: Frame) -> None:
        self.introduced.set_result(self._greeting.answered(frame))
        self._monitor.later(self.opening.settings.heartbeat, self._beat)

    def _beat(self) -> None:
        if self.ended.is_set():
            return
        settings = self.opening.settings
        if self._unanswered >= settings.heartbeat_misses:
            seconds = settings.heartbeat * settings.heartbeat_misses
            self.end(Reason(WorkerHung, f"its worker answered no heartbeat for {seconds:g} s"))
            return
        self._unanswered += 1
        self._owed += 1
        self._tell(packed(PING))
        self.arena.tidy()
        self._monitor.later(settings.heartbeat, self._beat)

    def _on_output(self, pipe: OutputPipe) -> None:
        if not pipe.read():
            self._monitor.unwatch(pipe.fd)

    def _on_death(self) -> None:
        code = self._popen.poll()
        if code is None:
            return
        self._monitor.unwatch(self._sentinel)
        if self._start_timer is not None:
            self._start_timer.cancel()
        try:
            self._hear_the_rest()
            self.ending = self._describe(code)
        finally:
            self._let_go(code)

    def _hear_the_rest(self) -> None:
        """Take what the worker still said before it died, above all why it couldn't load."""
        while self._on_control():
            pass
        self._monitor.unwatch(self._control)
        for pipe in self._wires.outputs.values():
            self._monitor.unwatch(pipe.fd)
            pipe.read(most=_LAST_WORDS)

    def _describe(self, code: int) -> Ending:
        self._begun = self._wires.notes()
        dump = self._wires.fault_dump()
        tail = "".join(self._wires.outputs[source].tail for source in ("stderr", "log"))[-8 * 1024 :]
        limit = (self.opening.settings.limits or {}).get("memory_bytes")
        usage = self._popen.usage
        reason = self._reason
        if reason is None and code == 0 and self._said_goodbye:
            reason = CLOSED
        return Ending(
            code,
            reason,
            tail,
            dump,
            0 if usage is None else usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
            None if limit is None else int(limit),
            self._fence.oom_kills(),
        )

    def _let_go(self, code: int) -> None:
        self.ending = self.ending or Ending(code, self._reason, "", "", 0, None)
        self.over = True
        self._questions.close()
        with self._lock:
            self._wires.close()
        self._fence.stop()
        if self._cell is not None:
            self._cell.close()
        self.process.join(0)  # takes it off multiprocess's list of children
        self._popen.close()
        self.ended.set()
        self._questions.end()
        # A process that the plugin left behind may hold the other ends, and callers would wait for it.
        with self._lock:
            self._wires.hang_up()
        if not self.introduced.done():
            self.introduced.set_exception(self.ending.error(plugin=self.opening.name, phase="start"))
        self._on_end(self)
        if self.dismissed or not self._asked_to_close:  # else whoever asked sees to it
            end_marked_soon(self.mark)
        self._fence.remove(self._monitor.let_go)


def _cell(opening: Opening) -> Cell | None:
    if opening.confinement is None or opening.scratch is None:
        return None
    from ._cell import Cell  # what it locks with is not on every system

    return Cell(opening.confinement, opening.scratch, opening.monitor)


# Calls that still run when their plugin is closed have reached it: that isn't a rejection.
CLOSED = Reason(CallCancelled, "the plugin was closed under the call, and its worker ended")


def broken(error: FrameError) -> Reason:
    """Return the reason to end a worker that sent something else than frames."""
    return Reason(ProtocolError, f"its worker broke the protocol: {error}")
