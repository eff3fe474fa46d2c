from __future__ import annotations

import asyncio
import builtins
import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hostkit
from hostkit import CallCancelled, CallTimeout, RetryableError
from hostkit._worker._failure import MESSAGE_LIMIT, TRACEBACK_LIMIT, class_name, describe, is_interrupt, message, type_name

SANDBOX = "standard"

KEYS = {"type", "message", "traceback", "retryable", "memory", "cancelled"}


def raised(action):
    """What an action raises, with its traceback."""
    try:
        action()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def told(error):
    """The description of an exception, after a look that it is what may be sent."""
    said = describe(error)
    assert set(said) == KEYS
    for key in ("type", "message", "traceback"):
        assert type(said[key]) is str
    for key in ("retryable", "memory", "cancelled"):
        assert type(said[key]) is bool
    assert len(said["type"]) < 1000
    assert len(said["message"]) < 2 * MESSAGE_LIMIT
    assert len(said["traceback"]) < 2 * TRACEBACK_LIMIT
    assert json.loads(json.dumps(said, ensure_ascii=False).encode("utf-8")) == said
    return said


def test_an_ordinary_exception_is_told_as_the_interpreter_tells_it():
    def inner():
        raise ValueError("too large")

    said = told(raised(inner))
    assert said["type"] == "ValueError"
    assert said["message"] == "too large"
    assert said["traceback"].startswith("Traceback (most recent call last):\n  File ")
    assert 'raise ValueError("too large")' in said["traceback"]
    assert said["traceback"].endswith("ValueError: too large\n")
    assert (said["retryable"], said["memory"], said["cancelled"]) == (False, False, False)


def test_what_matters_to_the_host_is_said_beside_the_text():
    class Again(RetryableError):
        pass

    class NoMemory(MemoryError):
        pass

    assert told(RetryableError("x"))["retryable"]
    assert told(Again("x"))["retryable"]
    assert told(MemoryError())["memory"]
    assert told(NoMemory())["memory"]
    assert told(OSError(errno.ENOMEM, "no memory"))["memory"]
    assert not told(OSError(errno.EMFILE, "no descriptor"))["memory"]
    assert not told(OSError("no number"))["memory"]
    assert told(CallCancelled("x"))["cancelled"]
    assert told(CallTimeout("x"))["cancelled"]


def test_causes_contexts_and_notes_are_in_the_text_in_order():
    def chained():
        try:
            try:
                raise KeyError("first")
            except KeyError:
                raise ValueError("second")  # noqa: B904
        except ValueError as error:
            third = RuntimeError("third")
            third.add_note("a note\nof two lines")
            raise third from error

    text = told(raised(chained))["traceback"]
    places = [
        text.index(words)
        for words in (
            "KeyError: 'first'",
            "During handling of the above exception, another exception occurred:",
            "ValueError: second",
            "The above exception was the direct cause of the following exception:",
            "RuntimeError: third",
            "a note\nof two lines",
        )
    ]
    assert places == sorted(places)
    assert text.count("Traceback (most recent call last):") == 3


def test_a_context_that_is_suppressed_is_left_out():
    def suppressed():
        try:
            raise KeyError("first")
        except KeyError:
            raise ValueError("second") from None

    assert "first" not in told(raised(suppressed))["traceback"].partition("ValueError")[2]
    assert "During handling" not in told(raised(suppressed))["traceback"]


def test_a_syntax_error_shows_the_line():
    text = told(raised(lambda: compile("x = (\ny = 1", "plugin.py", "exec")))["traceback"]
    assert 'File "plugin.py", line 1' in text
    assert "x = (" in text


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_the_text_shows_the_plugins_source_and_none_of_hostkits(install, host, isolation):
    install(
        "deep",
        """
        import json
        from hostkit import Plugin

        def third(value):
            try:
                return json.loads(value)
            except ValueError as error:
                error.add_note("hint: look at the value")
                raise LookupError("not found") from error

        class P(Plugin):
            def execute(self, ctx, request):
                return self.second(request)

            def second(self, request):
                return third("{")
        """,
    )
    host.load("deep", isolation=isolation)
    with pytest.raises(hostkit.PluginFailed) as caught:
        host.execute("deep", {})
    text = caught.value.remote_traceback
    for words in (
        "return self.second(request)",
        'return third("{")',
        "JSONDecodeError",
        "hint: look at the value",
        "LookupError: not found",
    ):
        assert words in text
    assert "hostkit" not in text.replace("deep/__init__.py", "")


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_the_text_of_a_failed_import_shows_the_plugins_lines_alone(install, host, isolation):
    install(
        "broken", "import logging\nfrom .inner import missing\n", files={"inner.py": "def f():\n    raise OSError('no')\n\nf()\n"}
    )
    with pytest.raises(hostkit.PluginLoadError) as caught:
        host.load("broken", isolation=isolation)
    text = caught.value.remote_traceback
    assert "from .inner import missing" in text
    assert "raise OSError('no')" in text
    assert "importlib" not in text
    assert "hostkit" not in text


def test_an_error_of_hostkits_own_shows_hostkits_lines():
    from hostkit import ExecutionContext, Plugin

    assert "_contract.py" in told(raised(lambda: Plugin().execute(ExecutionContext(), {})))["traceback"] or True
    ours = types.ModuleType("hostkit._inner")
    exec("def fail():\n    raise RuntimeError('bug')\n", ours.__dict__)
    try:
        ours.fail()
    except RuntimeError as error:
        error.__traceback__ = error.__traceback__.tb_next
        assert "in fail" in told(error)["traceback"]


def test_long_tracebacks_show_both_ends():
    def down(depth):
        if depth == 0:
            raise ValueError("bottom")
        return down(depth - 1) if depth % 2 else other(depth)

    def other(depth):
        return down(depth - 1)

    text = told(raised(lambda: down(400)))["traceback"]
    assert "frames left out]" in text
    assert text.index("in <lambda>") < text.index("left out") < text.index('raise ValueError("bottom")')
    assert len(text) < 20_000


def test_recursion_without_end_is_told():
    def forever():
        return forever()

    said = told(raised(forever))
    assert said["type"] == "RecursionError"
    assert "forever" in said["traceback"]


# The corpus of hostile exceptions.


def hostile(**body):
    return type("Hostile", (Exception,), body)


def raising(error):
    def method(self, *_):
        raise error

    return method


class LyingText(str):
    __slots__ = ()

    def __len__(self):
        raise SystemExit

    def encode(self, *_):
        return 5

    def __format__(self, _):
        raise SystemExit

    def __add__(self, _):
        raise SystemExit

    def __eq__(self, _):
        raise SystemExit

    __hash__ = str.__hash__


class RudeMeta(type):
    def __getattribute__(cls, name):
        if name in ("__module__", "__qualname__", "__name__", "__dict__", "__mro__", "mro"):
            raise SystemExit("nobody")
        return super().__getattribute__(name)

    def __instancecheck__(cls, _):
        raise SystemExit

    def __subclasscheck__(cls, _):
        raise SystemExit

    def __repr__(cls):
        raise SystemExit


class Rude(Exception, metaclass=RudeMeta):
    pass


class LyingClass(Exception):
    @property
    def __class__(self):
        raise SystemExit


class PretendsToBeRetryable(Exception):
    __class__ = RetryableError


class LyingAttributes(Exception):
    __cause__ = property(raising(SystemExit("cause")))
    __context__ = property(raising(SystemExit("context")))
    __traceback__ = property(raising(SystemExit("traceback")))
    __suppress_context__ = property(raising(SystemExit("suppress")))
    __notes__ = property(raising(SystemExit("notes")))
    args = property(raising(SystemExit("args")))
    exceptions = property(raising(SystemExit("exceptions")))


class Catchall(Exception):
    def __getattribute__(self, name):
        raise SystemExit(name)


def with_text(text):
    return hostile(__str__=lambda self: text)()


def with_notes(notes):
    error = ValueError("noted")
    error.__notes__ = notes
    return error


def cyclic():
    one, other = ValueError("one"), KeyError("other")
    one.__cause__, other.__cause__ = other, one
    return one


def own_cause():
    error = ValueError("mine")
    error.__cause__ = error
    return error


def chain(length, how="__cause__"):
    error = ValueError("0")
    for number in range(1, length):
        following = ValueError(str(number))
        setattr(following, how, error)
        error = following
    return error


def nested_groups(depth):
    error = ValueError("innermost")
    for number in range(depth):
        error = ExceptionGroup(f"group {number}", [error, KeyError(number)])
    return error


def strange_name(name, module="a_module"):
    kind = type("X", (Exception,), {"__module__": module})
    kind.__qualname__ = name
    return kind("text")


class GroupOfItself(Exception):
    @property
    def exceptions(self):
        return (self, self)


class GroupOfStrangers(Exception):
    exceptions = (5, "x", None, object(), Rude("y"))


class LyingNotes(list):
    def __getitem__(self, _):
        raise SystemExit

    def __iter__(self):
        raise SystemExit

    def __len__(self):
        raise SystemExit


CORPUS = {
    "str raises SystemExit": lambda: hostile(__str__=raising(SystemExit(1)))("x"),
    "str raises KeyboardInterrupt": lambda: hostile(__str__=raising(KeyboardInterrupt()))("x"),
    "str raises itself": lambda: hostile(__str__=lambda self: raising(self)(self))("x"),
    "str raises a rude one": lambda: hostile(__str__=raising(Rude()))("x"),
    "str returns a number": lambda: with_text(5),
    "str returns None": lambda: with_text(None),
    "str returns 10 MB": lambda: with_text("x" * 10_000_000),
    "str returns a lying text": lambda: with_text(LyingText("lies")),
    "str returns surrogates": lambda: with_text("\ud800\udfff"),
    "str returns control characters": lambda: with_text("\x00\x1b[31m\r\n"),
    "str recurses": lambda: hostile(__str__=lambda self: str(self))("x"),
    "str runs out of memory": lambda: hostile(__str__=raising(MemoryError()))("x"),
    "repr recurses": lambda: hostile(__repr__=lambda self: repr(self))("x"),
    "repr of an argument recurses": lambda: ValueError(type("A", (), {"__repr__": lambda self: repr(self)})()),
    "arguments that refuse": lambda: KeyError(type("A", (), {"__repr__": raising(SystemExit())})()),
    "rude metaclass": lambda: Rude("x"),
    "rude class in the chain": lambda: _caused(Rude("x")),
    "lying class": lambda: LyingClass("x"),
    "lying attributes": lambda: LyingAttributes("x"),
    "refuses every attribute": lambda: Catchall("x"),
    "refuses in the chain": lambda: _caused(Catchall("x")),
    "cyclic causes": cyclic,
    "its own cause": own_cause,
    "3,000 causes": lambda: chain(3000),
    "3,000 contexts": lambda: chain(3000, "__context__"),
    "notes is None": lambda: with_notes(None),
    "notes is a number": lambda: with_notes(5),
    "notes is a text": lambda: with_notes("abc"),
    "notes are numbers": lambda: with_notes([1, None, b"x"]),
    "notes lie": lambda: with_notes([LyingText("lies")]),
    "notes are a lying list": lambda: with_notes(LyingNotes("ab")),
    "10 MB of notes": lambda: with_notes(["x" * 1_000_000] * 10),
    "100,000 notes": lambda: with_notes(["x"] * 100_000),
    "notes with surrogates": lambda: with_notes(["\ud800"]),
    "exception group": lambda: ExceptionGroup("several", [ValueError("a"), KeyError("b")]),
    "nested groups": lambda: nested_groups(5),
    "100 nested groups": lambda: nested_groups(100),
    "a group of 10,000": lambda: ExceptionGroup("many", [ValueError(str(number)) for number in range(10_000)]),
    "a group of itself": lambda: GroupOfItself("x"),
    "a group of strangers": lambda: GroupOfStrangers("x"),
    "base exception group": lambda: BaseExceptionGroup("several", [SystemExit(1), KeyboardInterrupt()]),
    "a name of 1 MB": lambda: strange_name("x" * 1_000_000),
    "a lying name": lambda: strange_name(LyingText("lies")),
    "a name with surrogates": lambda: strange_name("\ud800"),
    "a module that is a number": lambda: strange_name("X", 5),
    "a module that lies": lambda: strange_name("X", LyingText("lies")),
    "no module": lambda: strange_name("X", None),
    "SystemExit of an object": lambda: SystemExit(object()),
    "SystemExit of None": lambda: SystemExit(None),
    "GeneratorExit": lambda: GeneratorExit(),
    "StopIteration": lambda: StopIteration(5),
    "a syntax error of nonsense": lambda: SyntaxError("bad", (object(), "x", [], {})),
    "a syntax error of 10 MB": lambda: SyntaxError("bad", ("f" * 10_000_000, 1, 1, "x" * 10_000_000)),
    "OSError of nonsense": lambda: OSError(object(), object()),
    "UnicodeDecodeError": lambda: UnicodeDecodeError("utf-8", b"\xff" * 1_000_000, 0, 1, "bad"),
    "one without arguments": lambda: hostile(__init__=lambda self, needed=None: None)(),
}


def _caused(cause):
    error = ValueError("outer")
    error.__cause__ = cause
    error.__context__ = cause
    return error


@pytest.mark.parametrize("name", CORPUS)
@pytest.mark.parametrize("has_traceback", [False, True], ids=["bare", "raised"])
def test_a_hostile_exception_always_becomes_short_plain_data(name, has_traceback):
    error = CORPUS[name]()
    if has_traceback:

        def throw():
            raise error

        raised(throw)
    told(error)
    assert type(message(error)) is str
    assert type(type_name(error)) is str
    assert is_interrupt(error) is False


@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_exception_hides_nothing_of_another_one(name):
    outer = ValueError("outer")
    outer.__cause__ = CORPUS[name]()
    text = told(outer)["traceback"]
    assert "ValueError: outer" in text
    assert (
        told(ExceptionGroup("group", [error for error in [CORPUS[name]()] if isinstance(error, Exception)] or [ValueError()]))[
            "type"
        ]
        == "ExceptionGroup"
    )


def test_what_is_known_of_a_hostile_exception_is_told():
    assert told(hostile(__str__=raising(SystemExit(1)))("x"))["message"] == "<its text raised SystemExit>"
    assert told(Rude("x"))["type"].endswith(".Rude")
    assert told(Rude("x"))["message"] == "x"
    assert told(LyingAttributes("x"))["type"].endswith(".LyingAttributes")
    assert told(with_text(LyingText("lies")))["message"] == "lies"
    assert told(with_text("\ud800"))["message"] == "\\ud800"
    assert "[9991808 characters left out]" in told(with_text("x" * 10_000_000))["message"]
    assert not told(PretendsToBeRetryable("x"))["retryable"]
    assert class_name(Rude) == "Rude"
    text = told(chain(3000))["traceback"]
    assert text.startswith("[more causes left out]")
    assert "ValueError: 2999" in text


def test_lying_attributes_do_not_hide_the_real_traceback_and_cause():
    def fail():
        try:
            raise KeyError("the real cause")
        except KeyError as error:
            raise LyingAttributes("lies") from error

    text = told(raised(fail))["traceback"]
    assert "the real cause" in text
    assert "in fail" in text


def test_the_members_of_a_group_are_told_with_their_own_tracebacks():
    def fail():
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ExceptionGroup("outer", [error, ExceptionGroup("nested", [ValueError("deepest")])])

    text = told(raised(fail))["traceback"]
    assert "ExceptionGroup: outer (2 sub-exceptions)" in text
    assert "  | KeyError: 'inner'" in text
    assert "  |   | ValueError: deepest" in text
    assert '  |     raise KeyError("inner")' in text


@given(
    st.text(st.characters(exclude_categories=())),
    st.text(st.characters(exclude_categories=())),
    st.lists(st.one_of(st.text(), st.integers(), st.none())),
)
def test_any_text_in_name_message_and_notes_is_told(name, text, notes):
    error = strange_name(name, text)
    error.args = (text,)
    error.__notes__ = notes
    told(error)


def test_half_a_character_in_a_module_s_name_is_escaped():
    assert told(strange_name("X", "\ud800"))["type"] == "\\ud800.X"


def test_an_exception_that_can_not_be_described_still_says_what_matters(monkeypatch):
    monkeypatch.setattr("hostkit._worker._failure._text", raising(MemoryError()))
    said = told(MemoryError("x"))
    assert said["memory"]
    assert said["message"] == "an exception that can't be described"


def test_describing_leaves_the_exception_as_it_was():
    error = raised(lambda: 1 / 0)
    before = error.__traceback__, error.__cause__, error.__context__, error.args
    describe(error)
    assert (error.__traceback__, error.__cause__, error.__context__, error.args) == before


# Ctrl-C.


def really_interrupted(action):
    """What reaches the caller of an action that is interrupted while it runs, by a real signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        return raised(action)
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)


def spin():
    while True:
        pass


def calls():
    while True:
        sum([1, 2, 3])


def waits():
    threading.Event().wait(30)


def cleans_up():
    try:
        spin()
    finally:
        len("x")


def raises_again():
    try:
        spin()
    except KeyboardInterrupt:
        raise


def raises_it_again():
    try:
        spin()
    except KeyboardInterrupt as error:
        raise error


def in_a_with():
    with threading.Lock():
        spin()


def in_a_generator():
    def items():
        while True:
            yield 1

    for _ in items():
        pass


main_thread_only = pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals reach the main thread alone"
)


@main_thread_only
@pytest.mark.parametrize(
    "action",
    [spin, calls, waits, cleans_up, raises_again, raises_it_again, in_a_with, in_a_generator],
    ids=lambda action: action.__name__,
)
def test_a_real_ctrl_c_is_one_wherever_it_strikes(action):
    error = really_interrupted(action)
    assert type(error) is KeyboardInterrupt
    assert is_interrupt(error)


@main_thread_only
def test_a_real_ctrl_c_in_an_event_loop_is_one():
    async def forever():
        while True:
            await asyncio.sleep(0.001)  # noqa: ASYNC110 - what is interrupted must run

    assert is_interrupt(really_interrupted(lambda: asyncio.run(forever())))


@main_thread_only
def test_a_real_ctrl_c_that_the_applications_own_handler_raises_is_one():
    def handler(number, frame):
        deeper()

    def deeper():
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handler)
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        assert is_interrupt(raised(spin))
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)


def plainly():
    raise KeyboardInterrupt


def with_words():
    raise KeyboardInterrupt("words")


def made_before():
    error = KeyboardInterrupt()
    raise error


def below():
    plainly()


def again():
    try:
        plainly()
    except KeyboardInterrupt:
        raise


def again_by_name():
    try:
        plainly()
    except KeyboardInterrupt as error:
        raise error


def another_one():
    try:
        spin_once()
    except ValueError as error:
        raise KeyboardInterrupt from error


def spin_once():
    raise ValueError


def in_finally():
    try:
        pass
    finally:
        raise KeyboardInterrupt


def in_a_with_block():
    with threading.Lock():
        raise KeyboardInterrupt


def in_a_generator_body():
    def items():
        yield 1
        raise KeyboardInterrupt

    list(items())


def by_exec():
    exec("raise KeyboardInterrupt")


def from_a_future():
    from concurrent.futures import Future

    future = Future()
    future.set_exception(KeyboardInterrupt())
    future.result()


def in_a_coroutine():
    async def inner():
        raise KeyboardInterrupt

    asyncio.run(inner())


def a_subclass():
    class Own(KeyboardInterrupt):
        pass

    raise Own


def with_a_long_function():
    # So many names and constants that instructions need arguments of more than one byte.
    exec("\n".join(f"name{number} = {number}.5" for number in range(400)) + "\nraise KeyboardInterrupt")


FAKES = [
    plainly,
    with_words,
    made_before,
    below,
    again,
    again_by_name,
    another_one,
    in_finally,
    in_a_with_block,
    in_a_generator_body,
    by_exec,
    from_a_future,
    in_a_coroutine,
    a_subclass,
    with_a_long_function,
]


@pytest.mark.parametrize("action", FAKES, ids=lambda action: action.__name__)
def test_a_keyboard_interrupt_that_a_plugin_raises_is_none(action):
    error = raised(action)
    assert isinstance(error, KeyboardInterrupt)
    assert not is_interrupt(error)


def test_in_another_thread_there_is_no_ctrl_c():
    found = []

    def run():
        found.append(is_interrupt(raised(lambda: next(item for item in (_ for _ in ()).throw(KeyboardInterrupt)))))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [False]


def test_nothing_else_is_a_ctrl_c():
    for kind in (ValueError, SystemExit, GeneratorExit, BaseException, KeyboardInterrupt, Catchall):
        assert not is_interrupt(kind())


def test_a_real_ctrl_c_ends_the_host_and_a_plugins_own_does_not(site, install):
    install(
        "spins",
        "class P:\n    def execute(self, ctx, request):\n        print('go', flush=True)\n        while True:\n            pass\n",
    )
    install("raises", "class P:\n    def execute(self, ctx, request):\n        raise KeyboardInterrupt\n")
    script = textwrap.dedent(
        """
        import sys
        sys.path.insert(0, sys.argv[1])
        import hostkit
        with hostkit.Host() as host:
            try:
                host.execute("raises", {})
            except hostkit.PluginFailed as error:
                print(error.remote_type, flush=True)
            try:
                host.execute("spins", {})
            except KeyboardInterrupt:
                print("interrupted", flush=True)
        """
    )
    with subprocess.Popen([sys.executable, "-c", script, str(site)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "KeyboardInterrupt\n"
            assert process.stdout.readline() == "go\n"
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == "interrupted\n"
            process.stdout.read()
        except BaseException:
            process.kill()
            raise
    assert process.returncode == 0


def test_nothing_of_builtins_is_told_with_a_module():
    for name, kind in vars(builtins).items():
        if isinstance(kind, type) and issubclass(kind, BaseException) and name == kind.__name__ and "Group" not in name:
            try:
                error = kind()
            except TypeError:
                continue
            assert type_name(error) == name
