"""A plugin that misbehaves on demand; ``tests/conftest.py`` installs it under the name "bad"."""

import ctypes
import os
import signal
import sys
import threading
import time

from hostkit._worker._frames import RESULT, packed


def control():
    """Return the descriptor of the worker's control socket, however the worker was started."""
    frame = sys._current_frames()[threading.main_thread().ident]
    while "control_fd" not in frame.f_locals:
        frame = frame.f_back
    return frame.f_locals["control_fd"]


def channels():
    """Return the descriptors on which the worker writes answers."""
    return [frame.f_locals["answers"] for frame in sys._current_frames().values() for frame in _outward(frame) if _serves(frame)]


def _outward(frame):
    while frame is not None:
        yield frame
        frame = frame.f_back


def _serves(frame):
    return frame.f_code.co_name == "_serve" and frame.f_code.co_filename.endswith("_loop.py")


class Unprintable(BaseException):
    def __str__(self):
        raise SystemExit(9)


class Weird(BaseException):
    pass


RAISED = {
    "value": ValueError("bad value"),
    "weird": Weird("not an Exception"),
    "unprintable": Unprintable(),
    "generator-exit": GeneratorExit(),
    "keyboard": KeyboardInterrupt(),
    "stop": StopIteration(3),
    "exit-0": SystemExit(0),
    "exit-3": SystemExit(3),
    "exit-text": SystemExit("out of here"),
    "exit-none": SystemExit(None),
    "exit-object": SystemExit({"code": 1}),
}


class P:
    def execute(self, ctx, request):
        arguments = dict(request)
        begun = arguments.pop("begun", None)
        if begun is not None:
            with open(begun, "w"):
                pass
        return getattr(self, arguments.pop("op"))(ctx, **arguments)

    def fine(self, ctx):
        return "fine"

    def pid(self, ctx):
        return os.getpid()

    def raise_(self, ctx, what):
        raise RAISED[what]

    def sys_exit(self, ctx, code):
        sys.exit(code)

    def exit(self, ctx, code):
        os._exit(code)

    def exit_in_thread(self, ctx, code):
        threading.Thread(target=os._exit, args=(code,)).start()
        time.sleep(60)

    def segfault(self, ctx):
        ctypes.string_at(0)

    def abort(self, ctx):
        os.abort()

    def signal(self, ctx, number):
        os.kill(os.getpid(), number)
        time.sleep(60)

    def overflow_c_stack(self, ctx):
        sys.setrecursionlimit(10**9)

        def deeper(n):
            return [*map(deeper, [n + 1])]

        deeper(0)

    def recurse(self, ctx):
        def deeper():
            return deeper()

        deeper()

    def sleep(self, ctx, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.02)
        return "slept"

    def sleep_ignoring_sigterm(self, ctx, seconds):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return self.sleep(ctx, seconds)

    def wait_for_cancel(self, ctx, seconds, then="raise"):
        end = time.monotonic() + seconds
        while time.monotonic() < end and not ctx.cancelled:
            time.sleep(0.005)
        if then == "raise":
            ctx.raise_if_cancelled()
        return "x" * (then if isinstance(then, int) else 1)

    def remaining(self, ctx):
        return ctx.remaining()

    def spin(self, ctx):
        while True:
            pass

    def hold_the_gil(self, ctx, seconds):
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))

    def deadlock(self, ctx):
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()

    def join_itself(self, ctx):
        thread = threading.Thread(target=lambda: thread.join(), daemon=True)
        thread.start()
        thread.join(60)
        return "joined"

    def leak_threads(self, ctx, count):
        resource = __import__("resource")
        event = threading.Event()
        started = 0
        resource.setrlimit(resource.RLIMIT_NPROC, (1, resource.getrlimit(resource.RLIMIT_NPROC)[1]))
        try:
            for _ in range(count):
                threading.Thread(target=event.wait, daemon=True).start()
                started += 1
        finally:
            event.set()
        return started

    def fork_and_exit(self, ctx, code):
        """Leave a process behind that has a copy of every descriptor, in a session of its own."""
        child = os.fork()
        if child == 0:
            os.setsid()
            time.sleep(10)
            os._exit(0)
        os._exit(code)

    def close_fd(self, ctx, fd):
        os.close(fd)
        return "closed"

    def close_standard(self, ctx):
        for fd in (0, 1, 2):
            os.close(fd)
        return "closed"

    def dup_over_standard(self, ctx):
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        return "dupped"

    def close_channel(self, ctx):
        os.close(channels()[0])
        time.sleep(60)

    def close_control(self, ctx, seconds):
        os.close(control())
        time.sleep(seconds)
        return "still here"

    def write_channel(self, ctx, data, then="sleep"):
        os.write(channels()[0], bytes.fromhex(data))
        self.after(then)

    def write_control(self, ctx, data, then="sleep"):
        os.write(control(), bytes.fromhex(data))
        self.after(then)

    def answer_twice(self, ctx):
        """Answer by hand, two times, and once more in order."""
        for word in ("first", "second"):
            os.write(channels()[0], packed(RESULT, ctx._request_id, f'"{word}"'.encode()))
        return "third"

    def answer_with(self, ctx, kind, meta, then):
        """Answer by hand with a frame of any kind."""
        os.write(channels()[0], packed(kind, ctx._request_id, b"", meta=bytes.fromhex(meta)))
        self.after(then)

    def after(self, then):
        if then == "exit":
            os._exit(0)
        elif then == "close":
            os.close(channels()[0])
        elif then == "return":
            return
        time.sleep(60)

    def trickle(self, ctx, data, pause):
        for byte in bytes.fromhex(data):
            os.write(channels()[0], bytes([byte]))
            time.sleep(pause)
        time.sleep(60)

    def print_(self, ctx, text, stream):
        print(text, file=getattr(sys, stream))
        return "printed"

    def flood(self, ctx, fd, megabytes, chunk):
        unit = bytes.fromhex(chunk)
        data = unit * max(1, (1 << 16) // len(unit))
        left = megabytes << 20
        while left > 0:
            left -= os.write(fd, data)
        return "flooded"

    def answer(self, ctx, what):
        return eval(what)
