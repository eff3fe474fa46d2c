from __future__ import annotations

import asyncio
import enum
import importlib
import math
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal, NewType, Optional, TypedDict

import pluggy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator

import hostkit
from hostkit import hookimpl, hookspec

SPECS = '''
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

from pydantic import BaseModel, Field, computed_field

from hostkit import hookspec


class Document(BaseModel):
    title: str = Field(alias="Title")
    words: list[str] = []

    @computed_field
    @property
    def length(self) -> int:
        return len(self.words)


@dataclass
class Point:
    x: int
    when: date


class Registry:
    pass


@hookspec
def each(text: str) -> str:
    """Called for all."""

@hookspec(firstresult=True)
def first(text: str, words: list[str]) -> float | None:
    """Called until one has a result."""

@hookspec(historic=True)
def configured(settings: dict[str, str]) -> list[str] | None:
    """Called for plugins that come later, too."""

@hookspec
def with_default(text: str, times: int = 2) -> str:
    """Has an argument that callers may leave out."""

@hookspec
def document(document: Document) -> Document:
    """Takes and gives a pydantic model."""

@hookspec
def points(points: list[Point]) -> list[Point]:
    """Takes and gives dataclasses in a list."""

@hookspec
def documents(documents: dict[str, Document]) -> list[Document]:
    """Takes and gives models in containers."""

@hookspec
def numbers(numbers: list[float]) -> list[float]:
    """Takes and gives numbers."""

@hookspec
def anything(value) -> Any:
    """Says nothing of its types."""

@hookspec
def register_types(registry: Registry, text: str) -> None:
    """Has an argument that is no data."""

@hookspec
def subscribe(callback: Callable[[str], None]) -> None:
    """Has an argument that is a function."""

@hookspec
def connect() -> Registry:
    """Has a result that is no data."""
'''


@pytest.fixture
def specs(site):
    (site / "app_specs.py").write_text(SPECS)
    return importlib.import_module("app_specs")


@pytest.fixture
def app(specs, new_host):
    return new_host("app", hookspecs=[specs])


@pytest.fixture
def offer(install):
    """Install a plugin of the application."""

    def make(name, source, **options):
        return install(name, f"from hostkit import Plugin, hookimpl\n{_dedent(source)}", group="app.plugins", **options)

    return make


def _dedent(source):
    import textwrap

    return textwrap.dedent(source)


def named(name, options=""):
    """A plugin that answers ``each`` with its name."""
    return f"""
        class P:
            @hookimpl{options}
            def each(self, text):
                return text + "{name}"
    """


# Order


def test_the_plugin_that_was_loaded_last_is_called_first(app, offer, isolation):
    for name in "abc":
        offer(name, named(name))
        app.load(name, isolation=isolation)
    assert app.hook.each(text="-") == ["-c", "-b", "-a"]


def test_tryfirst_goes_before_and_trylast_after_the_others(app, offer, isolation):
    for name, options in {
        "a": "(tryfirst=True)",
        "b": "(trylast=True)",
        "c": "",
        "d": "(trylast=True)",
        "e": "(tryfirst=True)",
    }.items():
        offer(name, named(name, options))
        app.load(name, isolation=isolation)
    assert app.hook.each(text="") == ["e", "a", "c", "b", "d"]


def test_the_first_result_is_the_result_and_the_rest_is_not_called(app, offer, isolation, tmp_path):
    for name, result in {"a": "1.0", "b": "2.5", "c": "None"}.items():
        offer(
            name,
            f"""
            class P:
                @hookimpl
                def first(self, words):
                    open({str(tmp_path)!r} + "/{name}", "w").close()
                    return {result}
            """,
        )
        app.load(name, isolation=isolation)
    assert app.hook.first(text="", words=["w"]) == 2.5
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["b", "c"]


def test_without_any_result_there_is_none(app, offer, isolation):
    assert app.hook.first(text="", words=[]) is None
    assert app.hook.each(text="") == []
    offer("quiet", "class P:\n    @hookimpl\n    def each(self): pass\n    @hookimpl\n    def first(self): return None")
    app.load("quiet", isolation=isolation)
    assert app.hook.first(text="", words=[]) is None
    assert app.hook.each(text="") == []


def test_the_functions_of_a_module_implement_hooks(app, offer, isolation):
    offer("module", "@hookimpl\ndef each(text):\n    return text.upper()\n", attribute="")
    app.load("module", isolation=isolation)
    assert app.hook.each(text="abc") == ["ABC"]


def test_specname_lets_a_function_have_any_name_and_several_implement_one_hook(app, offer, isolation):
    offer(
        "several",
        """
        class P:
            @hookimpl(specname="each")
            def shouted(self, text):
                return text.upper()

            @hookimpl(specname="each", tryfirst=True)
            def counted(self, text):
                return str(len(text))

            @hookimpl
            def each(self, text):
                return text
        """,
    )
    app.load("several", isolation=isolation)
    assert app.hook.each(text="ab") == ["2", "AB", "ab"]
    app.unload("several")
    assert app.hook.each(text="ab") == []


def test_implementations_take_the_arguments_they_want_as_python_lets_them(app, offer, isolation):
    offer(
        "free",
        """
        import functools

        def loud(function):
            @functools.wraps(function)
            def call(*args, **kwargs):
                return function(*args, **kwargs) + "!"
            return call

        class P:
            @hookimpl(specname="with_default", tryfirst=True)
            def a_swapped(self, times, text):
                return f"swapped {text} {times}"

            @hookimpl(specname="with_default")
            def b_none(self):
                return "none"

            @hookimpl(specname="with_default")
            def c_positional(self, text, /):
                return f"positional {text}"

            @hookimpl(specname="with_default")
            def d_keyword(self, *, times):
                return f"keyword {times}"

            @hookimpl(specname="with_default")
            def e_optional(self, text, times=7, other=8):
                return f"optional {text} {times} {other}"

            @hookimpl(specname="with_default")
            @staticmethod
            def f_static(text):
                return f"static {text}"

            @classmethod
            @hookimpl(specname="with_default")
            def g_class(cls, text):
                return f"class {text}"

            @hookimpl(specname="with_default")
            @loud
            def h_wrapped(self, text):
                return f"wrapped {text}"
        """,
    )
    app.load("free", isolation=isolation)
    assert app.hook.with_default(text="t") == [
        "swapped t 2",
        "wrapped t!",
        "class t",
        "static t",
        "optional t 2 8",
        "keyword 2",
        "positional t",
        "none",
    ]
    assert app.hook.with_default(text="t", times=3)[0] == "swapped t 3"


def test_a_function_that_an_instance_holds_implements_a_hook(app):
    class Holder:
        def __init__(self):
            self.each = hookimpl(lambda text: text + "held")

        @property
        def trap(self):
            raise AssertionError("a property was looked at")

        def execute(self, ctx, request):
            return request

    app.register(Holder(), name="holder")
    assert app.hook.each(text="") == ["held"]
    assert app.execute("holder", 1) == 1


def test_an_object_that_was_registered_keeps_its_hooks_in_a_worker(app, isolation):
    class Registered:
        def __init__(self):
            self.suffix = "!"

        @hookimpl(specname="each")
        def shouted(self, text: str) -> str:
            return text + self.suffix

    app.register(Registered, name="of-a-class", isolation=isolation)
    app.register(Registered(), name="of-an-object", isolation=isolation)
    assert app.hook.each(text="x") == ["x!", "x!"]


def test_a_wrong_call_is_a_type_error_with_a_remedy(app):
    with pytest.raises(TypeError, match="the hook each has no argument 'txet'; did you mean text?"):
        app.hook.each(txet="")
    with pytest.raises(TypeError, match=r"the hook first needs words; it takes \(text, words\)"):
        app.hook.first(text="")
    with pytest.raises(TypeError):
        app.hook.each("by position")
    with pytest.raises(AttributeError, match="app has no hook 'eahc'; did you mean each?"):
        app.hook.eahc(text="")
    assert not hasattr(app.hook, "names")


def test_a_hook_may_have_any_name(new_host):
    class Specs:
        @hookspec
        def register(self, names): ...

        @hookspec
        def check(self): ...

        @hookspec
        def _private(self, _relay, self_): ...

    class Taker:
        @hookimpl
        def register(self, names):
            return names

        @hookimpl
        def check(self):
            return "checked"

        @hookimpl
        def _private(self, _relay, self_):
            return _relay + self_

    host = new_host("app", hookspecs=[Specs])
    host.register(Taker(), name="taker")
    assert host.hook.register(names=["x"]) == [["x"]]
    assert host.hook.check() == ["checked"]
    assert host.hook._private(_relay=1, self_=2) == [3]


# Against pluggy itself


class Wanted:
    @pluggy.HookspecMarker("plain")
    @hookspec
    def each(self, text): ...

    @pluggy.HookspecMarker("plain")(firstresult=True)
    @hookspec(firstresult=True)
    def first(self, text): ...


def implementation(name, options, result):
    """A plugin for both relays."""

    def plain(self, text):
        return result and name

    def wrapping(self, text):
        inner = yield
        return [name, inner] if isinstance(inner, list) else (name, inner)

    def old(self, text):
        outcome = yield
        inner = outcome.get_result()
        outcome.force_result([name, inner] if isinstance(inner, list) else (name, inner))

    function = old if options.get("hookwrapper") else wrapping if options.get("wrapper") else plain
    members = {}
    for hook in ("each", "first"):
        made = type(function)(function.__code__, function.__globals__, hook, None, function.__closure__)
        members[hook] = hookimpl(**options)(pluggy.HookimplMarker("plain")(**options)(made))
    return type("Implementation", (), members)()


_OPTIONS = st.sampled_from(
    [
        {**kind, **order}
        for kind in ({}, {"wrapper": True}, {"hookwrapper": True})
        for order in ({}, {"tryfirst": True}, {"trylast": True})
    ]
)


@settings(max_examples=60)
@given(st.lists(st.tuples(_OPTIONS, st.booleans()), max_size=7))
def test_order_results_and_wrappers_are_pluggys_own(plugins):
    plain = pluggy.PluginManager("plain")
    plain.add_hookspecs(Wanted)
    with hostkit.Host("app", hookspecs=[Wanted]) as host:
        for number, (options, result) in enumerate(plugins):
            made = implementation(f"p{number}", options, result)
            plain.register(made, f"p{number}")
            host.register(made, name=f"p{number}")
        assert host.hook.each(text="") == plain.hook.each(text="")
        assert host.hook.first(text="") == plain.hook.first(text="")
        assert [impl.plugin_name for impl in host.hook.each.get_hookimpls()] == [
            impl.plugin_name for impl in plain.hook.each.get_hookimpls()
        ]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tryfirst": True},
        {"trylast": True, "specname": "each"},
        {"wrapper": True},
        {"hookwrapper": True, "optionalhook": True},
    ],
)
def test_a_mark_is_pluggys_own_mark(options):
    def ours(): ...

    def theirs(): ...

    hookimpl(**options)(ours)
    pluggy.HookimplMarker("hostkit")(**options)(theirs)
    assert ours.hostkit_impl == theirs.hostkit_impl
    assert hookimpl(theirs) is theirs
    assert theirs.hostkit_impl == ours.hostkit_impl if not options else theirs.hostkit_impl != ours.hostkit_impl


def test_a_wrong_option_is_refused_with_those_that_there_are():
    with pytest.raises(TypeError, match="hookimpl has no option 'tryfrist'; it has .*tryfirst"):
        hookimpl(tryfrist=True)
    with pytest.raises(TypeError):
        pluggy.HookimplMarker("hostkit")(tryfrist=True)


def test_a_plugin_that_uses_pluggys_marker_is_understood(app, offer, isolation):
    offer("marked", "import pluggy\nclass P:\n    @pluggy.HookimplMarker('hostkit')\n    def each(self, text): return text")
    app.load("marked", isolation=isolation)
    assert app.hook.each(text="x") == ["x"]


def test_call_extra_calls_more_functions_in_their_place(app, offer, isolation):
    for name, options in {"a": "", "b": "(tryfirst=True)"}.items():
        offer(name, named(name, options))
        app.load(name, isolation=isolation)
    assert app.hook.each.call_extra([lambda text: text + "extra", lambda: "more"], {"text": "-"}) == ["-b", "more", "-extra", "-a"]
    assert app.hook.each(text="-") == ["-b", "-a"]


def test_what_an_extra_function_raises_is_raised_as_it_is(app, offer, log):
    offer("a", "class P:\n    @hookimpl(tryfirst=True)\n    def each(self): raise OSError('own')")
    app.load("a")

    def extra():
        raise ZeroDivisionError("of the application")

    with pytest.raises(ZeroDivisionError, match="of the application"):
        app.hook.each.call_extra([extra], {"text": ""})
    assert [(record["plugin"], record["level"]) for record in log if "OSError: own" in record["text"]] == [("a", "WARNING")]


def test_the_implementations_can_be_listed(app, offer, isolation):
    for name in "ab":
        offer(name, named(name))
        app.load(name, isolation=isolation)
    assert [impl.plugin_name for impl in app.hook.each.get_hookimpls()] == ["a", "b"]
    assert app.hook.each.get_hookimpls()[0].function(text="x") == "xa"
    assert (repr(app.hook.each), "each, first" in repr(app.hook) or "first, each" in repr(app.hook)) == ("<hook each>", True)
    assert app.hook.each.name == "each"
    assert (app.hook.each.is_historic(), app.hook.configured.is_historic()) == (False, True)


# Both places together


MIXED = {
    "a": ("(trylast=True)", "none"),
    "b": ("", "process"),
    "c": ("", "none"),
    "d": ("(tryfirst=True)", "process"),
    "e": ("", "process"),
    "f": ("(wrapper=True)", "none"),
}


def test_a_mixed_relay_answers_as_one_that_is_all_in_process(specs, new_host, offer):
    for name, (options, _) in MIXED.items():
        body = "return (yield) + ['around']" if "wrapper" in options else f"return f'{{text}} {name}' if text != '{name}' else None"
        score = "return (yield)" if "wrapper" in options else f"return len(words) + {ord(name)} / 4 if text == '{name}' else None"
        offer(
            name,
            f"""
            class P:
                @hookimpl{options}
                def each(self, text):
                    {body}

                @hookimpl{options}
                def first(self, text, words):
                    {score}
            """,
        )
    mixed, alone = new_host("app", hookspecs=[specs]), new_host("app", hookspecs=[specs])
    for name, (_, isolation) in MIXED.items():
        mixed.load(name, isolation=isolation)
        alone.load(name)
    for text in ("a", "b", "f", "é\n"):
        assert mixed.hook.each(text=text) == alone.hook.each(text=text)
        assert mixed.hook.first(text=text, words=["w", "v"]) == alone.hook.first(text=text, words=["w", "v"])
    assert mixed.hook.each(text="-") == ["- d", "- e", "- c", "- b", "- a", "around"]


def test_a_plugin_keeps_its_place_when_it_is_reloaded_elsewhere(app, offer):
    for name in "abc":
        offer(name, named(name))
        app.load(name)
    app.reload("b", isolation="process")
    assert app.hook.each(text="") == ["c", "b", "a"]
    app.reload("a", isolation="process")
    app.reload("b", isolation="none")
    assert app.hook.each(text="") == ["c", "b", "a"]


def test_an_unloaded_plugin_is_not_called_and_comes_back_as_the_last_one_loaded(app, offer, isolation):
    for name in "abc":
        offer(name, named(name))
        app.load(name, isolation=isolation)
    each = app.hook.each
    app.unload("a")
    assert each(text="") == app.hook.each(text="") == ["c", "b"]
    app.load("a", isolation=isolation)
    assert each(text="") == app.hook.each(text="") == ["a", "c", "b"]


def test_a_reload_with_other_code_changes_the_implementations_in_their_place(app, offer, isolation):
    for name in "abc":
        offer(name, named(name))
        app.load(name, isolation=isolation)
    offer(
        "b",
        "class P:\n    @hookimpl\n    def first(self): return 1.0\n    @hookimpl(specname='each')\n    def other(self): return 'new'",
    )
    sys.modules.pop("b", None)
    importlib.invalidate_caches()
    app.reload("b")
    assert app.hook.each(text="") == ["c", "new", "a"]
    assert app.hook.first(text="", words=[]) == 1.0


def test_a_reload_that_fails_changes_nothing(app, offer, isolation):
    offer("a", named("a"))
    app.load("a", isolation=isolation)
    offer("a", "class P:\n    @hookimpl\n    def eahc(self): pass")
    sys.modules.pop("a", None)
    importlib.invalidate_caches()
    with pytest.raises(hostkit.PluginLoadError):
        app.reload("a")
    assert app.hook.each(text="") == ["a"]


def test_hooks_and_execute_live_in_one_plugin(app, offer, isolation):
    offer(
        "both",
        """
        class P(Plugin):
            def __init__(self):
                self.seen = []

            def execute(self, ctx, request):
                return self.seen

            @hookimpl
            def each(self, text):
                self.seen.append(text)
                return text
        """,
    )
    app.load("both", isolation=isolation)
    app.hook.each(text="x")
    assert app.execute("both", None) == ["x"]


def test_a_plugin_of_hooks_alone_refuses_execute(app, offer, isolation):
    offer("hooks", "class P(Plugin):\n    @hookimpl\n    def each(self): return 'x'")
    app.load("hooks", isolation=isolation)
    with pytest.raises(hostkit.InvalidRequest, match="plugin 'hooks' has no execute: it implements hooks only"):
        app.execute("hooks", {})
    with pytest.raises(hostkit.InvalidRequest):
        list(app.stream("hooks", {}))
    with pytest.raises(hostkit.InvalidRequest):
        asyncio.run(app.aexecute("hooks", {}))
    assert app.hook.each(text="") == ["x"]
    assert app.health("hooks").status is hostkit.Status.HEALTHY


# Wrappers


def wrapping(options, body):
    class Wrapping:
        each = hookimpl(**options)(body)

    return Wrapping()


def plain(result):
    class Plain:
        @hookimpl
        def each(self, text):
            return result

    return Plain()


def test_a_failing_wrapper_of_either_style_takes_nothing_from_the_hook(specs, new_host):
    def before(self):
        raise OSError("before")
        yield

    def after(self):
        yield
        raise OSError("after")

    def none(self):
        if False:
            yield

    def twice(self):
        yield
        yield

    def forced(self):
        outcome = yield
        if hasattr(outcome, "force_exception"):
            outcome.force_exception(OSError("forced"))
        else:
            raise OSError("forced")

    def spoiled(self):
        outcome = yield
        if hasattr(outcome, "force_result"):
            outcome.force_result("spoiled")
        raise OSError("spoiled")

    for body, what in {
        before: "OSError: before",
        after: "OSError: after",
        none: "RuntimeError: the wrapper did not yield",
        twice: "RuntimeError: the wrapper yielded twice",
        forced: "OSError: forced",
        spoiled: "OSError: spoiled",
    }.items():
        for style in ("wrapper", "hookwrapper"):
            for on_error in ("raise", "skip"):
                host = new_host("app", hookspecs=[specs], hook_errors=on_error)
                host.register(plain("inner"), name="inner")
                host.register(wrapping({style: True}, body), name="around")
                if on_error == "skip":
                    assert host.hook.each(text="") == ["inner"]
                    continue
                with pytest.raises(hostkit.PluginFailed, match=f"plugin 'around' raised {what}") as caught:
                    host.hook.each(text="")
                assert caught.value.plugin == "around"
                assert caught.value.__cause__ is not None


def test_a_wrapper_sees_what_an_extra_function_raises_and_may_turn_it_into_a_result(app):
    def rescue(self):
        try:
            return (yield)
        except ZeroDivisionError:
            return ["rescued"]

    def old_rescue(self):
        outcome = yield
        if outcome.exception is not None:
            outcome.force_result(["rescued"])

    def lets_go(self):
        return (yield)

    def extra():
        raise ZeroDivisionError

    app.register(wrapping({"wrapper": True}, lets_go), name="lets-go")
    with pytest.raises(ZeroDivisionError):
        app.hook.each.call_extra([extra], {"text": ""})
    for name, options, body in (("new", {"wrapper": True}, rescue), ("old", {"hookwrapper": True}, old_rescue)):
        app.register(wrapping(options, body), name=name)
        assert app.hook.each.call_extra([extra], {"text": ""}) == ["rescued"]
        app.unload(name)


def test_an_interrupt_in_a_wrapper_goes_through(app):
    def interrupted(self):
        import signal

        yield
        signal.raise_signal(signal.SIGINT)

    app.register(plain("inner"), name="inner")
    app.register(wrapping({"wrapper": True}, interrupted), name="interrupted")
    with pytest.raises(KeyboardInterrupt):
        app.hook.each(text="")


def test_a_wrapper_that_fails_over_an_inner_error_does_not_hide_it(app, log):
    def worse(self):
        try:
            yield
        finally:
            raise OSError("worse")

    def extra():
        raise ZeroDivisionError

    app.register(wrapping({"wrapper": True}, worse), name="worse")
    with pytest.raises(ZeroDivisionError):
        app.hook.each.call_extra([extra], {"text": ""})
    assert [record["plugin"] for record in log if "OSError: worse" in record["text"]] == ["worse"]


def test_a_wrapper_of_a_drained_plugin_is_left_out_and_reported(app):
    def around(self):
        return [*(yield), "around"]

    app.register(plain("inner"), name="inner")
    app.register(wrapping({"wrapper": True}, around), name="around")
    assert app.hook.each(text="") == ["inner", "around"]
    app.drain("around", 1.0)
    with pytest.raises(hostkit.Draining):
        app.hook.each(text="")
    app.reload("around")
    assert app.hook.each(text="") == ["inner", "around"]
    app.unload("around")
    assert app.hook.each(text="") == ["inner"]


def test_a_wrapper_keeps_its_plugin_open_until_it_has_ended(app):
    inside, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    class Around:
        @hookimpl(wrapper=True)
        def each(self):
            result = yield
            return [*result, "closed" if closed.is_set() else "open"]

        def close(self):
            closed.set()

    class Waiting:
        @hookimpl
        def each(self):
            inside.set()
            assert go_on.wait(10)
            return "inner"

    app.register(Waiting(), name="waiting")
    app.register(Around(), name="around")
    with ThreadPoolExecutor(2) as threads:
        answer = threads.submit(app.hook.each, text="")
        assert inside.wait(10)
        unloaded = threads.submit(app.unload, "around")
        assert not closed.wait(0.1)
        go_on.set()
        assert answer.result(10) == ["inner", "open"]
        unloaded.result(10)
    assert closed.is_set()


@pytest.mark.parametrize("style", ["wrapper", "hookwrapper"])
def test_a_wrapper_can_not_be_isolated(app, offer, style):
    offer("around", f"class P:\n    @hookimpl({style}=True)\n    def each(self):\n        return (yield)")
    with pytest.raises(
        hostkit.PluginLoadError, match="the hook each is refused: a wrapper runs around .* run it in-process"
    ) as caught:
        app.load("around", isolation="process")
    assert (caught.value.plugin, caught.value.kind) == ("around", "hook")
    app.load("around", isolation="none")
    with pytest.raises(hostkit.PluginLoadError):
        app.reload("around", isolation="process")
    assert app.hook.each(text="") == []


def test_a_wrapper_that_can_not_work_is_refused_when_it_is_loaded(app):
    class NoGenerator:
        @hookimpl(wrapper=True)
        def each(self):
            return 1

    class Both:
        @hookimpl(wrapper=True, hookwrapper=True)
        def each(self):
            yield

    class Historic:
        @hookimpl(wrapper=True)
        def configured(self):
            yield

    for plugin, why in (
        (NoGenerator, "a wrapper must be a generator function"),
        (Both, "wrapper and hookwrapper exclude each other"),
        (Historic, "a historic hook has no wrappers"),
    ):
        with pytest.raises(hostkit.PluginLoadError, match=why):
            app.register(plugin(), name="wrong")


# Historic hooks


CONFIGURED = """
    class P:
        def __init__(self):
            self.heard = []

        @hookimpl
        def configured(self, settings):
            self.heard.append(settings["key"])
            return list(self.heard)

        def execute(self, ctx, request):
            return self.heard
"""


def test_a_historic_call_reaches_the_plugins_before_it_and_those_after_it(app, offer, isolation):
    heard = []
    offer("before", CONFIGURED)
    offer("after", CONFIGURED)
    app.load("before", isolation=isolation)
    app.hook.configured.call_historic(heard.append, {"settings": {"key": "one"}})
    assert heard == [["one"]]
    app.load("after", isolation=isolation)
    assert heard == [["one"], ["one"]]
    app.hook.configured.call_historic(kwargs={"settings": {"key": "two"}})
    assert app.execute("before", None) == app.execute("after", None) == ["one", "two"]
    assert heard == [["one"], ["one"]]


HEARD = """
    import os
    import threading

    class P(Plugin):
        def __init__(self):
            self.heard = []

        @hookimpl
        def configured(self, settings):
            self.heard.append(settings["key"])
            if settings["key"] == "bad":
                raise OSError("bad")

        def execute(self, ctx, request):
            if request == "die":
                os._exit(3)
            threading.Event().wait(0.005)
            return [os.getpid(), self.heard]
"""


def test_a_worker_that_takes_the_place_of_a_dead_one_hears_everything_before_its_first_call(app, offer, log):
    offer("plugin", HEARD)
    app.load("plugin", isolation="process")
    for key in ("one", "two"):
        app.hook.configured.call_historic(kwargs={"settings": {"key": key}})
    with pytest.raises(hostkit.PluginFailed):
        app.hook.configured.call_historic(kwargs={"settings": {"key": "bad"}})
    before, heard = app.execute("plugin", None)
    assert heard == ["one", "two", "bad"]
    with pytest.raises(hostkit.WorkerExited):
        app.execute("plugin", "die")
    after, heard = app.execute("plugin", None)
    assert (after != before, heard) == (True, ["one", "two", "bad"])
    assert any(record["level"] == "ERROR" and "historic" in record["text"] and "bad" in record["text"] for record in log)
    with pytest.raises(hostkit.WorkerExited):
        app.execute("plugin", "die")
    assert asyncio.run(app.aexecute("plugin", None))[1] == ["one", "two", "bad"]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_every_worker_of_a_plugin_hears_every_historic_call_once_and_in_order(app, offer, concurrency):
    offer("plugin", HEARD, manifest=f"workers = 2\nconcurrency = {concurrency}")
    app.hook.configured.call_historic(kwargs={"settings": {"key": "0"}})
    app.load("plugin", isolation="process")

    told = ["0"]

    def ask(number):
        if number % 10 == 0:
            key = str(number // 10 + 1)
            app.hook.configured.call_historic(kwargs={"settings": {"key": key}})
            told.append(key)
        before = set(told)
        pid, heard = app.execute("plugin", None) if number % 3 else asyncio.run(app.aexecute("plugin", None))
        assert before <= set(heard)
        return pid, heard

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(ask, range(60)))
    assert len({pid for pid, _ in answers}) == 2
    longest = max((heard for _, heard in answers), key=len)
    assert sorted(longest) == sorted(told)
    for _, heard in answers:
        assert heard == longest[: len(heard)]


def test_a_cancelled_task_that_told_a_worker_of_history_leaves_the_worker_usable(app, offer, tmp_path):
    offer(
        "slow",
        f"""
        import os, time

        class P(Plugin):
            @hookimpl
            def configured(self, settings):
                if os.path.exists({str(tmp_path / "died")!r}):
                    open({str(tmp_path / "again")!r}, "w").close()
                    time.sleep(0.3)

            def execute(self, ctx, request):
                if request == "die":
                    open({str(tmp_path / "died")!r}, "w").close()
                    os._exit(3)
                return request
        """,
    )
    app.load("slow", isolation="process")
    app.hook.configured.call_historic(kwargs={"settings": {}})
    with pytest.raises(hostkit.WorkerExited):
        app.execute("slow", "die")

    async def give_up():
        task = asyncio.ensure_future(app.aexecute("slow", 1))
        assert await asyncio.to_thread(_until, (tmp_path / "again").exists)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(give_up())
    assert app.execute("slow", 2) == 2


WAITING = """
    import os
    import threading

    class P(Plugin):
        def __init__(self):
            self.heard = []

        @hookimpl
        def configured(self, settings):
            self.heard.append(settings["key"])
            self.wait_for(settings.get("until"))

        def execute(self, ctx, request):
            self.wait_for(request)
            return self.heard

        def wait_for(self, file):
            open(f"{file}.begun", "w").close() if file else None
            while file and not os.path.exists(file):
                threading.Event().wait(0.005)
"""


def test_a_historic_call_that_found_no_free_worker_is_heard_later_all_the_same(specs, new_host, offer, tmp_path):
    offer("plugin", WAITING)
    host = new_host("app", hookspecs=[specs], config={"plugins": {"plugin": {"timeout": "300ms"}}})
    host.load("plugin", isolation="process")
    go_on = tmp_path / "go-on"
    with ThreadPoolExecutor(1) as threads:
        held = threads.submit(host.execute, "plugin", str(go_on), timeout=20)
        try:
            assert _until((tmp_path / "go-on.begun").exists)
            with pytest.raises(hostkit.Busy):
                host.hook.configured.call_historic(kwargs={"settings": {"key": "one"}})
        finally:
            go_on.touch()
        assert held.result(20) == []
    assert host.execute("plugin", None, timeout=20) == ["one"]


def test_no_other_call_goes_before_the_historic_one_that_a_worker_is_hearing(app, offer, tmp_path):
    offer("plugin", WAITING, manifest="concurrency = 2")
    app.load("plugin", isolation="process")
    go_on = tmp_path / "go-on"
    with ThreadPoolExecutor(1) as threads:
        heard = threads.submit(app.hook.configured.call_historic, kwargs={"settings": {"key": "one", "until": str(go_on)}})
        try:
            assert _until((tmp_path / "go-on.begun").exists)
            with pytest.raises(hostkit.Busy):
                app.execute("plugin", None, timeout=0.1)
        finally:
            go_on.touch()
        heard.result(20)
    assert app.execute("plugin", None) == ["one"]


def test_a_reloaded_plugin_hears_everything_again_before_its_first_call(app, offer):
    offer("plugin", CONFIGURED)
    app.load("plugin")
    app.hook.configured.call_historic(kwargs={"settings": {"key": "one"}})
    app.hook.configured.call_historic(kwargs={"settings": {"key": "two"}})
    app.reload("plugin", isolation="process")
    assert app.execute("plugin", None) == ["one", "two"]
    app.unload("plugin")
    assert app.execute("plugin", None) == ["one", "two"]


def test_a_plugin_that_fails_over_history_is_loaded_and_the_error_logged(app, offer, isolation, log):
    offer(
        "bad",
        "class P:\n    @hookimpl\n    def configured(self): raise OSError('no')\n    @hookimpl\n    def each(self): return 'x'",
    )
    app.hook.configured.call_historic(kwargs={"settings": {}})
    app.load("bad", isolation=isolation)
    assert app.hook.each(text="") == ["x"]
    assert [
        (r["plugin"], r["level"]) for r in log if "hook configured: PluginFailed: plugin 'bad' raised OSError: no" in r["text"]
    ] == [("bad", "ERROR")]
    with pytest.raises(hostkit.PluginFailed, match="OSError: no"):
        app.hook.configured.call_historic(kwargs={"settings": {}})


def test_a_failing_callback_of_the_application_stops_the_load_and_leaves_nothing(app, offer, isolation):
    def callback(result):
        raise ZeroDivisionError

    app.hook.configured.call_historic(callback, {"settings": {"key": "one"}})
    offer("plugin", CONFIGURED)
    with pytest.raises(ZeroDivisionError):
        app.load("plugin", isolation=isolation)
    assert app.hook.configured.get_hookimpls() == []


def test_a_historic_hook_is_called_by_call_historic_and_no_other_is(app):
    with pytest.raises(TypeError, match=r"the hook configured is historic: call it as configured.call_historic\(kwargs=...\)"):
        app.hook.configured(settings={})
    with pytest.raises(TypeError, match="the hook configured is historic"):
        app.hook.configured.call_extra([], {"settings": {}})
    with pytest.raises(TypeError, match="the hook each is not historic"):
        app.hook.each.call_historic(kwargs={"text": ""})
    with pytest.raises(TypeError, match="the hook configured needs settings"):
        app.hook.configured.call_historic()


def test_a_plugin_loaded_by_a_hook_does_not_mix_its_errors_into_it(app, offer, log):
    class Loader:
        @hookimpl
        def each(self):
            app.load("bad")
            return "loaded"

    offer("bad", "class P:\n    @hookimpl\n    def configured(self): raise OSError('of history')")
    app.hook.configured.call_historic(kwargs={"settings": {}})
    app.register(Loader(), name="loader")
    assert app.hook.each(text="") == ["loaded"]
    assert any("of history" in record["text"] for record in log)


def test_plugins_loaded_during_historic_calls_hear_each_of_them_once(app, offer):
    offer("plugin", CONFIGURED)
    for number in range(8):
        offer(f"plugin{number}", CONFIGURED)
    calls = [str(number) for number in range(40)]

    def call():
        for key in calls:
            app.hook.configured.call_historic(kwargs={"settings": {"key": key}})

    with ThreadPoolExecutor(3) as threads:
        done = [threads.submit(call), *(threads.submit(app.load, f"plugin{number}") for number in range(8))]
        for each in done:
            each.result(20)
    for number in range(8):
        assert sorted(app.execute(f"plugin{number}", None), key=int) == calls


# What is refused at load


def test_an_unknown_hook_is_refused_with_the_one_that_was_meant(app, offer, isolation):
    offer("typo", "class P:\n    @hookimpl\n    def eahc(self): pass")
    with pytest.raises(
        hostkit.PluginLoadError, match="implementation of the hook eahc is refused: app has no hook .* did you mean each?"
    ) as caught:
        app.load("typo", isolation=isolation)
    assert (caught.value.plugin, caught.value.kind) == ("typo", "hook")


def test_an_optional_hook_that_the_application_does_not_have_is_left_alone(app, offer, isolation):
    offer(
        "optional",
        """
        class P:
            @hookimpl(optionalhook=True)
            def of_another_version(self, registry: "Unknown"): raise AssertionError

            @hookimpl
            def each(self): return "x"
        """,
    )
    app.load("optional", isolation=isolation)
    assert app.hook.each(text="") == ["x"]


def test_a_host_that_specifies_no_hooks_takes_no_notice_of_them(new_host, offer, isolation):
    offer("hooks", "class P:\n    @hookimpl\n    def each(self): pass\n    def execute(self, ctx, request): return request")
    host = new_host("app")
    host.load("hooks", isolation=isolation)
    assert host.execute("hooks", 1) == 1
    with pytest.raises(AttributeError, match="app has no hook 'each'"):
        host.hook.each(text="")


def test_an_argument_that_the_hook_does_not_have_is_refused(app, offer, isolation):
    offer("greedy", "class P:\n    @hookimpl\n    def each(self, txet): pass")
    with pytest.raises(hostkit.PluginLoadError, match="it takes 'txet', which the hook doesn't have; did you mean text?"):
        app.load("greedy", isolation=isolation)
    offer("greedier", "class P:\n    @hookimpl\n    def each(self, text, zzz): pass")
    with pytest.raises(hostkit.PluginLoadError, match=r"it takes 'zzz', which the hook doesn't have; it takes \(text\)"):
        app.load("greedier", isolation=isolation)


@pytest.mark.parametrize(
    ("hook", "arguments", "what"),
    [
        ("register_types", "registry", "its argument 'registry' is no data and can't cross to a worker: app_specs.Registry"),
        ("subscribe", "callback", "its argument 'callback' is no data"),
        ("connect", "", "its result is no data"),
    ],
)
def test_what_is_no_data_can_not_be_isolated(app, offer, hook, arguments, what):
    offer("plugin", f"class P:\n    @hookimpl\n    def {hook}(self, {arguments}): return {arguments or '[]'}")
    with pytest.raises(hostkit.PluginLoadError, match=what) as caught:
        app.load("plugin", isolation="process")
    assert "run it in-process" in str(caught.value)
    app.load("plugin", isolation="none")


def test_in_process_any_object_passes(app, specs, offer):
    offer(
        "plugin",
        """
        class P:
            @hookimpl
            def register_types(self, registry: "OnlyForTypeCheckers", text): return registry
            @hookimpl
            def subscribe(self, callback): return callback
            @hookimpl
            def numbers(self, numbers): return numbers
        """,
    )
    app.load("plugin")
    registry = specs.Registry()
    assert app.hook.register_types(registry=registry, text="")[0] is registry
    assert app.hook.subscribe(callback=print) == [print]
    numbers = [math.nan]
    assert app.hook.numbers(numbers=numbers)[0] is numbers


def test_an_implementation_may_leave_out_the_argument_that_can_not_cross(app, specs, offer):
    offer(
        "plugin",
        "class P:\n    @hookimpl\n    def register_types(self, text): return None\n    @hookimpl\n    def each(self): return 'x'",
    )
    app.load("plugin", isolation="process")
    assert app.hook.register_types(registry=specs.Registry(), text="t") == []


def test_an_isolated_implementation_must_say_what_it_takes_where_json_would_change_it(app, offer):
    source = """
        from app_specs import Document, Point

        class P:
            @hookimpl
            def {}: return None
    """
    for signature in ("document(self, document)", "points(self, points)", "documents(self, documents)"):
        offer("plugin", source.format(signature))
        with pytest.raises(hostkit.PluginLoadError, match="arrives as plain JSON data in a worker; annotate (document|points)"):
            app.load("plugin", isolation="process")
    for signature in (
        "document(self, document: Document)",
        "points(self, points: list)",
        "documents(self, documents: 'dict[str, dict]')",
    ):
        offer("plugin", source.format(signature))
        app.reload("plugin", isolation="process")


class Options(TypedDict, total=False):
    name: str
    more: list["Options"]


class Dated(TypedDict):
    when: date


class Colour(enum.Enum):
    RED = "red"


UserName = NewType("UserName", str)
PLAIN = [
    str,
    Any,
    float | None,
    Optional[int],
    list[dict[str, bool]],
    Mapping[str, Sequence[int]],
    dict,
    list,
    Literal["a", 1],
    Annotated[str, "a note"],
    Annotated[int, Field(gt=0)],
    UserName,
    Options,
]
CHANGED = [set[int], tuple[int, ...], date, dict[int, str], Colour, list[date], str | date, Dated, Annotated[date, "a note"]]


def hooks_with(annotations):
    """Hookspecs ``hook0``, ``hook1`` ..., each with an argument of one type."""
    members = {}
    for number, annotation in enumerate(annotations):

        def hook(self, value): ...

        hook.__name__ = f"hook{number}"
        hook.__annotations__ = {"value": annotation}
        members[hook.__name__] = hookspec(hook)
    return type("Specs", (), members)


def test_json_types_need_no_annotation_in_an_isolated_implementation(new_host, offer):
    host = new_host("app", hookspecs=[hooks_with(PLAIN)])
    offer(
        "plugin",
        "class P:\n" + "".join(f"    @hookimpl\n    def hook{number}(self, value): return value\n" for number in range(len(PLAIN))),
    )
    host.load("plugin", isolation="process")
    assert host.hook.hook4(value=[{"a": True}]) == [[{"a": True}]]
    assert host.hook.hook12(value={"name": "n", "more": [{}]}) == [{"name": "n", "more": [{}]}]


@pytest.mark.parametrize("number", range(len(CHANGED)), ids=[str(each) for each in CHANGED])
def test_other_types_need_one(new_host, offer, number):
    host = new_host("app", hookspecs=[hooks_with(CHANGED)])
    offer("plugin", f"class P:\n    @hookimpl\n    def hook{number}(self, value): return None")
    with pytest.raises(hostkit.PluginLoadError, match="annotate value in the implementation"):
        host.load("plugin", isolation="process")


class Opaque:
    pass


class Holder(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    opaque: Opaque


class HandMade(BaseModel):
    when: Annotated[Any, PlainValidator(str), PlainSerializer(str)] = object()


def test_a_model_with_a_part_that_is_no_data_is_refused_and_one_that_knows_how_to_write_it_is_not(new_host, offer):
    annotations = [Holder, list[Holder], HandMade, list[HandMade]]
    host = new_host("app", hookspecs=[hooks_with(annotations)])
    for number, annotation in enumerate(annotations):
        offer(
            f"plugin{number}",
            f"class P:\n    @hookimpl\n    def hook{number}(self, value: {'dict' if number % 2 == 0 else 'list'}): return [value]",
        )
        if number < 2:
            with pytest.raises(hostkit.PluginLoadError, match="its argument 'value' is no data"):
                host.load(f"plugin{number}", isolation="process")
        else:
            host.load(f"plugin{number}", isolation="process")
    assert host.hook.hook2(value=HandMade(when=1)) == [[{"when": "1"}]]


def test_an_annotation_of_an_isolated_implementation_that_can_not_be_read_is_refused(app, offer):
    offer("unknown", "class P:\n    @hookimpl\n    def each(self, text: 'Unknown'): pass")
    with pytest.raises(hostkit.PluginLoadError, match="the annotation of its argument 'text' can't be resolved: NameError"):
        app.load("unknown", isolation="process")
    offer("function", "from collections.abc import Callable\nclass P:\n    @hookimpl\n    def each(self, text: Callable): pass")
    with pytest.raises(hostkit.PluginLoadError, match="its argument 'text' is no data"):
        app.load("function", isolation="process")


def test_wrong_hookspecs_are_refused_with_a_sentence(specs, new_host):
    class Empty:
        def each(self): ...

    class Again:
        @hookspec
        def each(self): ...

    for wrong, why in (
        ([Empty], "there is no hook in the class .*Empty; mark its functions with hostkit.hookspec"),
        ([specs, Again], "the hook each is specified in the module app_specs and in the class .*Again"),
        (specs, "expected a list of modules or classes, found the module app_specs"),
        ("app_specs", "expected a list of modules or classes, found str 'app_specs'"),
        (["app_specs"], "there is no hook in str 'app_specs'"),
    ):
        with pytest.raises(hostkit.ConfigError, match=why):
            new_host("app", hookspecs=wrong)
    with pytest.raises(hostkit.ConfigError, match="hook_errors: expected 'raise' or 'skip', found 'off'"):
        new_host("app", hookspecs=[specs], hook_errors="off")


def test_an_annotation_of_a_hookspec_that_can_not_be_read_matters_to_isolated_plugins_alone(new_host, offer):
    class Specs:
        @hookspec
        def each(self, text: "OnlyForTypeCheckers"): ...  # noqa: F821

    host = new_host("app", hookspecs=[Specs])
    offer("a", named("a"))
    host.load("a", isolation="none")
    assert host.hook.each(text="") == ["a"]
    with pytest.raises(hostkit.ConfigError, match=r"the hookspec .*Specs.each: an annotation can't be resolved: NameError"):
        host.reload("a", isolation="process")
    assert host.hook.each(text="") == ["a"]


def test_a_hookspec_can_warn_those_who_implement_it(new_host, isolation, offer):
    class Specs:
        @hookspec(warn_on_impl=DeprecationWarning("each goes away"))
        def each(self, text: str): ...

        @hookspec(warn_on_impl_args={"old": FutureWarning("old goes away")})
        def other(self, old: str, new: str): ...

    host = new_host("app", hookspecs=[Specs])
    offer("a", named("a"))
    offer("b", "class P:\n    @hookimpl\n    def other(self, new): pass")
    offer("c", "class P:\n    @hookimpl\n    def other(self, old): pass")
    with pytest.warns(DeprecationWarning, match="each goes away") as caught:
        host.load("a", isolation=isolation)
    assert "plugin a" in caught[0].filename
    host.load("b", isolation=isolation)
    with pytest.warns(FutureWarning, match="old goes away"):
        host.load("c", isolation=isolation)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        host.unload("b")


# Typed arguments and results


def test_models_and_dataclasses_cross_and_come_back_typed(app, specs, offer, isolation):
    offer(
        "typed",
        """
        from app_specs import Document, Point

        class P:
            @hookimpl
            def document(self, document: Document) -> Document:
                assert type(document) is Document
                return Document(Title=document.title.upper(), words=document.words + ["more"])

            @hookimpl
            def points(self, points: list[Point]) -> list[Point]:
                assert all(type(point) is Point for point in points)
                return [Point(point.x + 1, point.when.replace(year=2000)) for point in points]

            @hookimpl
            def documents(self, documents: dict[str, Document]):
                assert all(type(document) is Document for document in documents.values())
                return list(documents.values())
        """,
    )
    app.load("typed", isolation=isolation)
    sent = specs.Document(Title="t", words=["w"])
    [answer] = app.hook.document(document=sent)
    assert type(answer) is specs.Document
    assert (answer.title, answer.words, answer.length) == ("T", ["w", "more"], 2)
    when = specs.date(2024, 2, 29)
    assert app.hook.points(points=[specs.Point(1, when)]) == [[specs.Point(2, specs.date(2000, 2, 29))]]
    assert app.hook.documents(documents={"a": sent, "b": sent}) == [[sent, sent]]


def test_a_plugin_may_see_the_same_data_by_types_of_its_own(app, specs, offer):
    offer(
        "own",
        """
        from dataclasses import dataclass
        from typing import TypedDict
        from pydantic import BaseModel

        class Titled(BaseModel):
            Title: str

        class P:
            @hookimpl
            def document(self, document: Titled) -> dict:
                return {"Title": document.Title * 2, "words": ("x",)}

            @hookimpl
            def points(self, points: list):
                return [{"x": point["x"], "when": point["when"]} for point in points]
        """,
    )
    app.load("own", isolation="process")
    assert app.hook.document(document=specs.Document(Title="t", words=["w"])) == [specs.Document(Title="tt", words=["x"])]
    point = specs.Point(1, specs.date(2024, 2, 29))
    assert app.hook.points(points=[point]) == [[point]]


def test_an_answer_that_is_not_what_the_hook_promises_is_the_plugins_error(app, offer):
    offer(
        "wrong",
        """
        class P:
            @hookimpl
            def each(self, text): return 3
            @hookimpl
            def anything(self, value): return object()
            @hookimpl
            def numbers(self, numbers): return [float("nan")]
            @hookimpl
            def document(self): return {"Title": 1}
            @hookimpl
            def first(self) -> str: return 4
        """,
    )
    app.load("wrong", isolation="process")
    for call, path in (
        (lambda: app.hook.each(text=""), ""),
        (lambda: app.hook.anything(value=1), ""),
        (lambda: app.hook.numbers(numbers=[]), "0"),
        (lambda: app.hook.document(document={"Title": "t"}), "Title"),
        (lambda: app.hook.first(text="", words=[]), ""),
    ):
        with pytest.raises(hostkit.InvalidResponse, match="plugin 'wrong' answered with something else") as caught:
            call()
        assert caught.value.errors[0]["path"] == path
    assert app.hook.with_default(text="") == []


@pytest.mark.parametrize(
    ("hook", "value", "path", "found"),
    [
        ("numbers", [1.0, math.nan], "numbers.1", "nan"),
        ("numbers", "text", "numbers", "'text'"),
        ("anything", {"a": [object]}, "value.a.0", "object"),
        ("anything", math.inf, "value", "inf"),
        ("anything", "\ud800", "value", "ud800"),
    ],
)
def test_a_value_that_is_no_data_reaches_no_worker_and_all_others(app, offer, hook, value, path, found):
    name = "numbers" if hook == "numbers" else "value"
    for plugin, isolation in (("near", "none"), ("far", "process")):
        offer(
            plugin,
            f"class P:\n    @hookimpl\n    def {hook}(self, {name}):\n        global called\n        called = True\n        return None",
        )
        app.load(plugin, isolation=isolation)
    with pytest.raises(hostkit.InvalidRequest, match="plugin 'far' can't take this request") as caught:
        getattr(app.hook, hook)(**{name: value})
    assert caught.value.errors[0]["path"] == path
    assert found in caught.value.errors[0]["found"]
    assert sys.modules["near"].called


def test_text_arrives_as_it_was_sent(app, offer):
    offer(
        "echo",
        "class P:\n    @hookimpl\n    def each(self, text): return text\n    @hookimpl\n    def anything(self, value): return value",
    )
    app.load("echo", isolation="process")
    for text in ("", "\n", "a\nb\r\n\x00\u2028", '"\\', "é😀", "x" * 100_000):
        assert app.hook.each(text=text) == [text]
    value = {"a": [1, 2.5, True, None, {"\n": "\n"}], "": []}
    assert app.hook.anything(value=value) == [value]
    assert app.hook.anything(value=None) == []


# Async implementations


ASYNC = """
    import asyncio

    class P{base}:
        def __init__(self):
            self.lock = None

        @hookimpl
        async def each(self, text):
            loop = asyncio.get_running_loop()
            if self.lock is None:
                self.lock = (loop, asyncio.Event())
            assert self.lock[0] is loop
            await asyncio.sleep(0)
            return text + " awaited"

        @hookimpl
        def first(self, text): return 1.0

        {execute}
"""


@pytest.mark.parametrize(
    "execute", ["", "async def execute(self, ctx, request): return request", "def execute(self, ctx, request): return request"]
)
def test_an_async_implementation_is_awaited_on_one_loop(app, offer, isolation, execute):
    offer("plugin", ASYNC.format(base="", execute=execute))
    app.load("plugin", isolation=isolation)
    assert app.hook.each(text="x") == ["x awaited"]
    assert app.hook.each(text="y") == ["y awaited"]
    assert app.hook.first(text="", words=[]) == 1.0
    if execute:
        assert app.execute("plugin", 1) == 1


def test_an_async_implementation_fails_like_any_other(app, offer, isolation):
    offer("plugin", "class P:\n    @hookimpl\n    async def each(self): raise OSError('in a coroutine')")
    app.load("plugin", isolation=isolation)
    with pytest.raises(hostkit.PluginFailed, match="plugin 'plugin' raised OSError: in a coroutine"):
        app.hook.each(text="")


def test_an_async_implementation_is_stopped_at_its_deadline(specs, new_host, offer, isolation):
    offer("slow", "import asyncio\nclass P:\n    @hookimpl\n    async def each(self):\n        await asyncio.sleep(60)")
    host = new_host("app", hookspecs=[specs], config={"plugins": {"slow": {"timeout": "200ms", "cancel_grace": "100ms"}}})
    host.load("slow", isolation=isolation)
    with pytest.raises(hostkit.CallTimeout, match="plugin 'slow' did not answer within 0.2 s"):
        host.hook.each(text="")


# Errors


FAILING = {
    "a": ("return 'a'", ""),
    "b": ("raise ValueError('of b')", ""),
    "c": ("return 'c'", ""),
    "d": ("raise KeyError('of d')", "(tryfirst=True)"),
    "e": ("raise SystemExit(3)", "(trylast=True)"),
}


@pytest.fixture
def failing(offer):
    for name, (body, options) in FAILING.items():
        offer(name, f"class P:\n    @hookimpl{options}\n    def each(self, text):\n        {body}")
    return FAILING


def test_one_failing_implementation_does_not_silence_the_others(specs, new_host, failing, isolation, log):
    host = new_host("app", hookspecs=[specs], hook_errors="skip")
    for name in failing:
        host.load(name, isolation=isolation)
    assert host.hook.each(text="") == ["c", "a"]
    told = [(record["plugin"], record["level"], record["text"]) for record in log if record["text"].startswith("hook each")]
    assert [row[:2] for row in told] == [("d", "WARNING"), ("b", "WARNING"), ("e", "WARNING")]
    assert told[1][2] == "hook each: PluginFailed: plugin 'b' raised ValueError: of b"
    assert all(record["request_id"] for record in log if record["text"].startswith("hook each"))


def test_one_error_is_raised_as_itself_after_the_others_ran(app, failing, isolation, tmp_path):
    for name in "ab":
        app.load(name, isolation=isolation)
    with pytest.raises(hostkit.PluginFailed, match="plugin 'b' raised ValueError: of b") as caught:
        app.hook.each(text="")
    error = caught.value
    assert (error.plugin, error.remote_type, error.remote_message) == ("b", "ValueError", "of b")
    assert "raise ValueError('of b')" in error.remote_traceback
    assert "in its implementation of the hook each" in error.__notes__
    with pytest.raises(hostkit.PluginFailed, match="of b"):
        app.hook.each.get_hookimpls()[-1].function(text="")


def test_several_errors_are_raised_together(app, failing, isolation):
    for name in failing:
        app.load(name, isolation=isolation)
    with pytest.raises(ExceptionGroup, match="hook each: 3 implementations failed") as caught:
        app.hook.each(text="")
    assert [error.plugin for error in caught.value.exceptions] == ["d", "b", "e"]
    assert {type(error) for error in caught.value.exceptions} == {hostkit.PluginFailed}


def test_a_failing_implementation_lets_the_next_one_have_the_first_result(specs, new_host, offer, isolation):
    offer("good", "class P:\n    @hookimpl\n    def first(self): return 2.0")
    offer("bad", "class P:\n    @hookimpl\n    def first(self): raise OSError")
    host = new_host("app", hookspecs=[specs], hook_errors="skip")
    for name in ("good", "bad"):
        host.load(name, isolation=isolation)
    assert host.hook.first(text="", words=[]) == 2.0


def test_a_hanging_isolated_implementation_costs_its_own_time_limit_and_no_more(specs, new_host, offer):
    offer("a", named("a"))
    offer(
        "hanging",
        "import time\nclass P:\n    @hookimpl\n    def each(self, text):\n        while text == 'hang':\n            time.sleep(0.01)\n        return 'back'",
    )
    offer("c", named("c"))
    host = new_host(
        "app", hookspecs=[specs], config={"plugins": {"hanging": {"timeout": "300ms", "cancel_grace": "100ms"}}}, hook_errors="skip"
    )
    for name in ("a", "hanging", "c"):
        host.load(name, isolation="process")
    assert host.hook.each(text="hang") == ["hangc", "hanga"]
    assert _until(lambda: host.hook.each(text="") == ["c", "back", "a"])


def test_a_hook_that_hangs_in_an_async_worker_gets_it_replaced(specs, new_host, offer):
    offer(
        "hanging",
        """
        import os, time

        class P:
            async def execute(self, ctx, request):
                return os.getpid()

            @hookimpl
            def each(self, text):
                while True:
                    time.sleep(0.01)
        """,
    )
    host = new_host("app", hookspecs=[specs], config={"plugins": {"hanging": {"timeout": "200ms", "cancel_grace": "100ms"}}})
    host.load("hanging", isolation="process")
    before = host.execute("hanging", None, timeout=20)
    with pytest.raises(hostkit.CallTimeout):
        host.hook.each(text="")
    assert _until(lambda: host.execute("hanging", None, timeout=20) != before)


def test_an_in_process_implementation_that_is_late_is_reported_when_it_returns(specs, new_host, offer):
    offer("late", "import time\nclass P:\n    @hookimpl\n    def each(self):\n        time.sleep(0.05)\n        return 'late'")
    offer("a", named("a"))
    host = new_host("app", hookspecs=[specs], config={"plugins": {"late": {"timeout": "10ms"}}})
    for name in ("late", "a"):
        host.load(name, isolation="none")
    with pytest.raises(
        hostkit.CallTimeout, match="plugin 'late' did not answer within 0.01 s; in-process code can't be interrupted"
    ):
        host.hook.each(text="")


def _until(true, patience=200):
    """Try until it holds; each try takes a while of its own."""
    waiting = threading.Event()
    for _ in range(patience):
        try:
            if true():
                return True
        except hostkit.HostkitError:
            pass
        waiting.wait(0.05)
    return False


def test_a_worker_that_dies_within_a_hook_is_an_error_of_its_plugin_and_replaced(specs, new_host, offer, log):
    offer("a", named("a"))
    offer(
        "dying",
        "import os\nclass P:\n    @hookimpl\n    def each(self, text):\n        if text == 'die': os._exit(7)\n        return 'alive'",
    )
    offer("c", named("c"))
    host = new_host("app", hookspecs=[specs])
    for name in ("a", "dying", "c"):
        host.load(name, isolation="process")
    with pytest.raises(hostkit.WorkerExited, match="plugin 'dying'") as caught:
        host.hook.each(text="die")
    assert (caught.value.plugin, caught.value.exit_code) == ("dying", 7)
    assert any(record["plugin"] == "dying" and record["text"].startswith("hook each: WorkerExited") for record in log)
    assert _until(lambda: host.hook.each(text="") == ["c", "alive", "a"])


def test_a_drained_plugin_is_an_error_and_the_others_are_called(app, offer, isolation):
    for name in "ab":
        offer(name, named(name))
        app.load(name, isolation=isolation)
    app.drain("b", 1.0)
    with pytest.raises(hostkit.Draining, match="plugin 'b'"):
        app.hook.each(text="")


def test_a_closed_host_answers_no_hook(app, offer, isolation):
    offer("a", named("a"))
    app.load("a", isolation=isolation)
    app.close()
    with pytest.raises(hostkit.PluginClosed):
        app.hook.each(text="")


def test_a_fork_of_the_host_answers_no_hook(specs, new_host):
    app = new_host("app", hookspecs=[specs], config={"defaults": {"health": False}})  # its thread would not be in a fork
    app.register(plain("x"), name="plain")
    app.forget()
    with pytest.raises(hostkit.HostForkedError):
        app.hook.each(text="")
    app.unload("plain")


def test_hooks_take_the_turns_that_a_plugin_declares(app, offer, isolation):
    offer(
        "one",
        """
        import threading

        class P:
            inside = 0

            @hookimpl
            def each(self):
                P.inside += 1
                threading.Event().wait(0.01)
                most = P.inside
                P.inside -= 1
                return str(most)
        """,
        manifest="concurrency = 1",
    )
    app.load("one", isolation=isolation)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda number: app.hook.each(text=""), range(12)))
    assert answers == [["1"]] * 12


# Threads and tasks


BY_TEXT = """
    class P:
        @hookimpl
        def each(self, text):
            if text.endswith("{name}"):
                raise ValueError(text)
            return text
"""


@pytest.fixture
def picky(app, offer):
    """Two plugins, each of which fails for texts that end in its name."""
    for name, isolation in (("x", "none"), ("y", "process"), ("z", "none")):
        offer(name, BY_TEXT.format(name=name))
        app.load(name, isolation=isolation)
    return app


def _ask(host, text):
    try:
        return host.hook.each(text=text)
    except hostkit.PluginFailed as error:
        return error.plugin, error.remote_message


def _expected(text):
    return (text[-1], text) if text[-1] in "xyz" else [text] * 3


def test_errors_of_calls_on_several_threads_do_not_mix(picky):
    texts = [f"{number}{'xyzabc'[number % 6]}" for number in range(240)]
    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(lambda text: _ask(picky, text), texts)) == [_expected(text) for text in texts]


def test_errors_of_calls_of_several_tasks_do_not_mix(picky):
    texts = [f"{number}{'xyzabc'[number % 6]}" for number in range(120)]

    async def ask(text):
        await asyncio.sleep(0)
        here = _ask(picky, text)
        return here if len(text) % 2 else await asyncio.to_thread(_ask, picky, text)

    async def all_of_them():
        return await asyncio.gather(*map(ask, texts))

    assert asyncio.run(all_of_them()) == [_expected(text) for text in texts]


def test_a_hook_called_within_a_hook_keeps_its_errors_to_itself(app):
    seen = []

    class Inner:
        @hookimpl
        def first(self):
            raise OSError("inner")

    class Outer:
        @hookimpl
        def each(self):
            try:
                app.hook.first(text="", words=[])
            except hostkit.PluginFailed as error:
                seen.append(error.plugin)
            with ThreadPoolExecutor(1) as threads:
                seen.append(threads.submit(_ask_first, app).result())
            return "outer"

    app.register(Inner(), name="inner")
    app.register(Outer(), name="outer")
    assert app.hook.each(text="") == ["outer"]
    assert seen == ["inner", "inner"]


def _ask_first(app):
    with pytest.raises(hostkit.PluginFailed) as caught:
        app.hook.first(text="", words=[])
    return caught.value.plugin


def test_hooks_go_on_while_plugins_come_go_and_change_places(app, offer):
    for name in ("stays", "moves", "goes"):
        offer(name, named(name))
        app.load(name)
    stop, wrong = threading.Event(), []

    def call():
        while not stop.is_set():
            answer = app.hook.each(text="")
            if "stays" not in answer or answer.count("moves") != 1 or len(answer) != len(set(answer)):
                wrong.append(answer)

    with ThreadPoolExecutor(2) as threads:
        callers = [threads.submit(call) for _ in range(2)]
        try:
            for number in range(6):
                app.reload("moves", isolation="process" if number % 2 else "none")
                app.unload("goes")
                app.load("goes")
        finally:
            stop.set()
        for caller in callers:
            caller.result(10)
    assert wrong == []
    assert app.hook.each(text="") == ["goes", "moves", "stays"]


def test_an_interrupt_from_the_keyboard_goes_through(app):
    class Interrupted:
        @hookimpl
        def each(self):
            import signal

            signal.raise_signal(signal.SIGINT)

    app.register(Interrupted(), name="interrupted")
    with pytest.raises(KeyboardInterrupt):
        app.hook.each(text="")


@dataclass
class Shape:
    sides: int


class ShapeSpecs:
    """Hookspecs as methods of a class."""

    @hookspec
    def shaped(self, shape: Shape, *, colour: str) -> Shape:
        """Has a keyword-only argument."""

    @hookspec
    @staticmethod
    def made(sides: int = 3) -> Shape:
        """Has no self."""


def test_hookspecs_may_be_methods_of_a_class(new_host, offer, isolation):
    offer(
        "shapes",
        """
        class P:
            @hookimpl
            def shaped(self, shape: dict, colour):
                return {"sides": shape["sides"] + len(colour)} if isinstance(shape, dict) else type(shape)(shape.sides + len(colour))

            @hookimpl(specname="made")
            def none(self, sides): return None
        """,
    )
    host = new_host("app", hookspecs=[ShapeSpecs])
    host.load("shapes", isolation=isolation)
    assert host.hook.shaped(shape=Shape(1), colour="red") == [Shape(4)]
    assert host.hook.made() == []
