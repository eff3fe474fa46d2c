from __future__ import annotations

import abc
import asyncio
import dataclasses
import functools
import inspect
import sys
import textwrap
import types
import typing
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

import hostkit
from hostkit import ExecutionContext, HealthStatus, Plugin, PluginInfo, Status, hookimpl
from hostkit._worker._data import DataError
from hostkit._worker._loaded import (
    ASYNC_GENERATOR,
    CALL,
    COROUTINE,
    GENERATOR,
    HOOKS_ONLY,
    LoadedPlugin,
    LoadFailure,
    construct,
    resolve,
)

SANDBOX = "standard"

CTX = ExecutionContext()


@pytest.fixture
def module(monkeypatch):
    """Make modules that can be imported by name."""

    def make(source, name="made_module"):
        made = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, made)
        exec(textwrap.dedent(source), made.__dict__)
        return made

    return make


def load(target, config=None):
    return LoadedPlugin(construct(target, config or {}))


def refused(action, kind):
    with pytest.raises(LoadFailure) as caught:
        action()
    assert caught.value.kind == kind
    text = str(caught.value)
    assert text
    text.encode("utf-8")
    return text


# The entry point.


def test_a_missing_attribute_is_named_with_the_nearest_one(module):
    module("class Calculator: pass\nclass _Hidden: pass")
    assert refused(lambda: resolve("made_module:Calculater"), "attribute") == (
        "made_module has no Calculater; did you mean Calculator?"
    )
    assert refused(lambda: resolve("made_module:Calculator.Inner"), "attribute") == "made_module has no Calculator.Inner"


def test_a_dotted_attribute_and_a_whole_module_are_found(module):
    made = module("class Outer:\n    class Inner: pass")
    assert resolve("made_module:Outer.Inner") is made.Outer.Inner
    assert resolve("made_module") is made
    assert resolve("made_module:") is made


@pytest.mark.parametrize("name", ["no_such_module_anywhere", "json.nothing", "", ".relative", "with space", "a\0b"])
def test_a_module_that_is_not_there_is_an_import_failure(name):
    assert f"importing {name} raised " in refused(lambda: resolve(f"{name}:P"), "import")


@pytest.mark.parametrize(
    "error", ["ValueError('x')", "SystemExit(3)", "KeyboardInterrupt()", "GeneratorExit()", "BaseException('x')"]
)
def test_whatever_an_import_raises_is_an_import_failure(error, site):
    (site / "raising_module.py").write_text(f"raise {error}\n")
    text = refused(lambda: resolve("raising_module:P"), "import")
    assert text.startswith(f"importing raising_module raised {error.partition('(')[0]}")


def test_a_module_that_removes_itself_is_an_import_failure(site):
    (site / "leaving_module.py").write_text("import sys\ndel sys.modules[__name__]\n")
    assert "KeyError" in refused(lambda: resolve("leaving_module:P"), "import")


@pytest.mark.parametrize("error", ["RuntimeError('odd')", "SystemExit('odd')", "KeyboardInterrupt('odd')"])
def test_a_module_whose_own_lookup_raises_is_an_attribute_failure(module, error):
    module(f"def __getattr__(name):\n    raise {error}")
    assert "odd" in refused(lambda: resolve("made_module:P"), "attribute")
    module("def __dir__():\n    raise RuntimeError('odd')")
    assert refused(lambda: resolve("made_module:P"), "attribute") == "made_module has no P"


@pytest.mark.parametrize("target", [5, None, "text", [], object(), len, lambda: None], ids=lambda target: type(target).__name__)
def test_an_entry_point_to_something_that_is_no_plugin_is_a_type_failure(target):
    text = refused(lambda: load(target), "type")
    assert f"names a {type(target).__name__}; expected a Plugin class" in text


# The class and its config.


class Echo:
    def execute(self, ctx, request):
        return request


def test_a_class_an_object_and_a_module_are_plugins(module):
    made = module("def execute(ctx, request):\n    return request")
    for target in (Echo, Echo(), made):
        loaded = load(target)
        assert loaded.kind == CALL
        assert loaded.execute(CTX, 5) == 5
    assert refused(lambda: load(Echo(), {"a": 1}), "config") == "only a class takes config, found a"
    assert refused(lambda: load(made, {"a": 1, "b": 2}), "config") == "only a class takes config, found a, b"


def test_a_class_that_needs_arguments_is_a_contract_failure():
    class NeedsTwo(Echo):
        def __init__(self, database, retries=3):
            pass

    class NeedsKeyword(Echo):
        def __init__(self, *, database):
            pass

    class NeedsNew(Echo):
        def __new__(cls, database):
            return super().__new__(cls)

    for target in (NeedsTwo, NeedsKeyword, NeedsNew):
        assert "needs (database); __init__ may take nothing, or config" in refused(lambda target=target: load(target), "contract")


@pytest.mark.parametrize("error", [ValueError("odd"), SystemExit("odd"), KeyboardInterrupt("odd"), BaseException("odd")])
def test_a_constructor_that_raises_is_an_init_failure(error):
    class P(Echo):
        def __init__(self):
            raise error

    assert "P() raised" in refused(lambda: load(P), "init")


def test_an_abstract_class_is_an_init_failure_that_names_what_is_missing():
    class P(abc.ABC):
        @abc.abstractmethod
        def execute(self, ctx, request): ...

    assert "abstract" in refused(lambda: load(P), "init")


class ModelConfig(BaseModel):
    precision: int = Field(default=2, ge=0)


@dataclasses.dataclass
class DataConfig:
    precision: int = 2


class TableConfig(TypedDict, total=False):
    precision: int


def test_config_is_validated_by_its_annotation_whatever_kind_it_is():
    class Base(Echo):
        def __init__(self, config):
            self.config = config

    def taking(annotation):
        class P(Base):
            def __init__(self, config: annotation):
                super().__init__(config)

        P.__init__.__annotations__ = {"config": annotation}
        return P

    given_config = {"precision": 4}
    assert load(taking(ModelConfig), given_config).plugin.config == ModelConfig(precision=4)
    assert load(taking(DataConfig), given_config).plugin.config == DataConfig(4)
    assert load(taking(TableConfig), given_config).plugin.config == {"precision": 4}
    assert load(taking(dict), given_config).plugin.config == given_config
    assert load(taking(dict[str, int]), given_config).plugin.config == given_config
    assert load(Base, given_config).plugin.config == given_config
    for annotation in (ModelConfig, DataConfig, TableConfig, dict[str, int]):
        text = refused(lambda a=annotation: load(taking(a), {"precision": "four"}), "config")
        assert text.startswith("its config is wrong: precision: expected ")
        # Which keys a mapping has, and which of its values are secret, nobody says.
        assert text.endswith("found a text" if annotation == dict[str, int] else "found 'four'")
    for annotation in (ModelConfig, DataConfig, TableConfig):
        text = refused(lambda a=annotation: load(taking(a), {"precison": 4}), "config")
        assert "did you mean 'precision'?" in text
    assert "greater than or equal to 0" in refused(lambda: load(taking(ModelConfig), {"precision": -1}), "config")
    assert refused(lambda: load(taking(object()), given_config), "contract").startswith("the annotation of config can't be used")
    assert "Nowhere" in refused(lambda: load(taking("Nowhere"), given_config), "contract")
    assert "finite" in refused(lambda: load(Base, {"a": float("nan")}), "config")


@pytest.mark.parametrize("error", [RuntimeError("odd"), SystemExit("odd"), KeyboardInterrupt("odd")])
def test_a_config_whose_own_code_raises_is_a_failure_and_no_more(error):
    @dataclasses.dataclass
    class Odd:
        a: int

        def __post_init__(self):
            raise error

    class P(Echo):
        def __init__(self, config):
            pass

    P.__init__.__annotations__ = {"config": Odd}
    with pytest.raises(LoadFailure, match="odd"):
        load(P, {"a": 1})


def test_config_reaches_every_way_of_taking_it():
    class Keyword(Echo):
        def __init__(self, *, config):
            self.config = config

    class PositionalOnly(Echo):
        def __init__(self, config, /):
            self.config = config

    class Optional(Echo):
        def __init__(self, config=None):
            self.config = config

    class Second(Echo):
        def __init__(self, name="x", config=None):
            self.config = config

    class New(Echo):
        def __new__(cls, config):
            self = super().__new__(cls)
            self.config = config
            return self

    def kept(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function(*args, **kwargs)

        return wrapper

    class Decorated(Echo):
        @kept
        def __init__(self, config):
            self.config = config

    @dataclasses.dataclass
    class Generated(Echo):
        config: dict

    for target in (Keyword, PositionalOnly, Optional, Second, New, Decorated, Generated):
        assert load(target, {"a": 1}).plugin.config == {"a": 1}
    for target in (Optional, Second):
        assert load(target).plugin.config is None
    for target in (Keyword, PositionalOnly, New, Decorated, Generated):
        assert load(target).plugin.config == {}


def test_config_that_nobody_takes_is_refused():
    class Flexible(Echo):
        def __init__(self, *args, **kwargs):
            assert not args
            assert not kwargs

    for target in (Echo, Flexible):
        assert "takes no config, found precision" in refused(lambda target=target: load(target, {"precision": 4}), "config")
        load(target)


# The contract.


def test_half_a_contract_is_enough():
    loaded = load(Echo)
    assert loaded.health().status is Status.HEALTHY
    assert loaded.info() == {}
    loaded.close()
    assert loaded.hooks == {}


def test_a_plugin_without_execute_is_refused_unless_it_has_hooks():
    class Nothing:
        pass

    class Undefined(Plugin):
        pass

    class Hooked:
        @hookimpl
        def greet(self, name): ...

    class HookedPlugin(Plugin):
        @hookimpl
        def greet(self, name): ...

    class Attribute:
        execute = 5

    assert "has no execute(ctx, request) and no hook implementations" in refused(lambda: load(Nothing), "contract")
    assert "doesn't define execute(ctx, request)" in refused(lambda: load(Undefined), "contract")
    assert "is a int, expected a method" in refused(lambda: load(Attribute), "contract")
    for target in (Hooked, HookedPlugin):
        assert load(target).kind == HOOKS_ONLY
        assert list(load(target).hooks) == ["greet"]


@pytest.mark.parametrize(
    ("signature", "fits"),
    [
        ("ctx, request", True),
        ("context, anything", True),
        ("ctx, request, /", True),
        ("ctx, request, extra=1", True),
        ("ctx, request=None", True),
        ("ctx=None, request=None", True),
        ("ctx, *args", True),
        ("*args", True),
        ("*args, **kwargs", True),
        ("ctx, request, *, flag=False", True),
        ("ctx, request, **kwargs", True),
        ("", False),
        ("ctx", False),
        ("ctx, request, extra", False),
        ("ctx, request, *, flag", False),
        ("ctx, *, request", False),
        ("*, ctx, request", False),
        ("**kwargs", False),
        ("ctx, **kwargs", False),
        ("*args, flag", False),
    ],
)
def test_execute_must_take_the_context_and_the_request(signature, fits):
    space = {}
    exec(f"class P:\n    def execute(self, {signature}): return 1\n", space)
    exec(f"class S:\n    @staticmethod\n    def execute({signature}): return 1\n", space)
    exec(f"class C:\n    @classmethod\n    def execute(cls, {signature}): return 1\n", space)
    exec(f"class I:\n    def __call__(self, {signature}): return 1\nclass O:\n    execute = I()\n", space)
    for name in "PSCO":
        if fits:
            assert load(space[name]).execute(CTX, {}) == 1
        else:
            assert refused(lambda name=name: load(space[name]), "contract").startswith("execute must take (ctx, request), found (")


PARAMETER = st.sampled_from(["a", "b", "c", "d"])


@st.composite
def signatures(draw):
    names = draw(st.lists(PARAMETER, max_size=4, unique=True))
    kinds = [inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY]
    made = []
    for name in names:
        default = draw(st.sampled_from([inspect.Parameter.empty, None]))
        made.append(inspect.Parameter(name, draw(st.sampled_from(kinds)), default=default))
    if draw(st.booleans()):
        made.append(inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL))
    if draw(st.booleans()):
        made.append(inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD))
    made.sort(key=lambda parameter: (parameter.kind, parameter.kind < 2 and parameter.default is None))
    # A positional parameter without a default can't follow one with a default.
    seen = False
    for index, parameter in enumerate(made):
        if parameter.kind < 2:
            seen = seen or parameter.default is None
            made[index] = parameter.replace(default=None if seen else inspect.Parameter.empty)
    return inspect.Signature(made)


@given(signatures(), st.sampled_from(["def", "static", "class", "async", "generator", "async generator", "wrapped", "instance"]))
def test_any_signature_loads_and_can_be_called_or_is_refused(signature, form):
    text = str(signature)[1:-1]
    inside = ", ".join(filter(None, ["self", text]))
    if text.startswith("/"):
        return
    head = {
        "static": f"@staticmethod\n    def execute({text})",
        "class": f"@classmethod\n    def execute({inside})",
        "async": f"async def execute({inside})",
        "async generator": f"async def execute({inside})",
        "wrapped": f"@wrap\n    def execute({inside})",
        "instance": f"def __call__({inside})",
    }.get(form, f"def execute({inside})")
    body = "yield 1" if "generator" in form else "return 1"
    space = {"wrap": lambda function: functools.wraps(function)(lambda *args, **kwargs: function(*args, **kwargs))}
    exec(f"class P:\n    {head}:\n        {body}\n", space)
    target = space["P"] if form != "instance" else types.SimpleNamespace(execute=space["P"]())
    try:
        loaded = load(target)
    except LoadFailure as failure:
        assert failure.kind == "contract"
        with pytest.raises(TypeError):
            signature.bind(CTX, {})
        return
    if form == "wrapped":  # what a wrapper of any arguments passes on is its own affair
        return
    signature.bind(CTX, {})
    answer = loaded.execute(CTX, {})
    if loaded.kind == GENERATOR:
        assert list(answer) == [1]
    elif loaded.kind == COROUTINE:
        assert asyncio.run(answer) == 1
    elif loaded.kind == ASYNC_GENERATOR:
        asyncio.run(answer.aclose())
    else:
        assert answer == 1


# What a call gives.


def passing_on(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def awaiting(function):
    @functools.wraps(function)
    async def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


async def coroutine(self, ctx, request):
    return request


def generator(self, ctx, request):
    yield request


async def async_generator(self, ctx, request):
    yield request


def plain(self, ctx, request):
    return request


@pytest.mark.parametrize(
    ("function", "kind"), [(plain, CALL), (coroutine, COROUTINE), (generator, GENERATOR), (async_generator, ASYNC_GENERATOR)]
)
def test_the_kind_of_execute_is_seen_through_decorators_and_other_wrappings(function, kind):
    class AnObject:
        __call__ = function

    static = type("P", (), {"execute": staticmethod(functools.partial(function, None))})
    for target in (
        type("P", (), {"execute": function}),
        type("P", (), {"execute": passing_on(function)}),
        type("P", (), {"execute": passing_on(passing_on(function))}),
        type("P", (), {"execute": classmethod(function)}),
        type("P", (), {"execute": AnObject()}),
        type("P", (), {"execute": functools.partialmethod(function)}),
        types.SimpleNamespace(execute=functools.partial(function, None)),
        static,
    ):
        loaded = load(target)
        assert loaded.kind == kind
        assert loaded.streams == ("generator" in kind)
        assert loaded.is_async == (kind in (COROUTINE, ASYNC_GENERATOR))
    assert load(type("P", (), {"execute": awaiting(function)})).kind == COROUTINE


@pytest.mark.skipif(sys.version_info < (3, 12), reason="inspect.markcoroutinefunction came with Python 3.12")
def test_a_function_that_is_marked_as_a_coroutine_is_one():
    class P:
        @inspect.markcoroutinefunction
        def execute(self, ctx, request):
            return coroutine(self, ctx, request)

    assert load(P).kind == COROUTINE


def test_a_ring_of_decorators_is_not_followed_for_ever():
    def execute(ctx, request):
        return 1

    execute.__wrapped__ = execute
    assert load(types.SimpleNamespace(execute=execute)).kind == CALL


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("async def later(): return 1\n        return later()", "what execute returns is awaited only where it is an async def"),
        ("return (item for item in ())", "what execute returns is a stream only where it is a generator function"),
        ("async def items():\n            yield 1\n        return items()", "a stream only where it is a generator function"),
    ],
)
@pytest.mark.parametrize("promise", ["", " -> int", " -> Answer"])
def test_what_only_an_async_def_or_a_generator_may_return_is_an_invalid_response(install, host, isolation, body, words, promise):
    install(
        "later",
        f"""
import warnings
from pydantic import BaseModel
warnings.simplefilter("error")

class Answer(BaseModel):
    a: int

class P:
    def execute(self, ctx, request){promise}:
        {body}
""",
    )
    host.load("later", isolation=isolation)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(hostkit.InvalidResponse, match=words):
            host.execute("later", {})


# Annotations.


class Request(BaseModel):
    a: int


class Response(BaseModel):
    b: int


def takes_model(loaded, model):
    """Whether requests become this type."""
    return loaded.request_codec.type is model


def test_types_are_found_wherever_they_are_said():
    class Generic(Plugin[Request, Response]):
        def execute(self, ctx, request):
            return Response(b=request.a)

    class Inherited(Generic):
        pass

    class Quoted(Plugin["Request", "Response"]):
        execute = Generic.execute

    class Annotated(Plugin):
        def execute(self, ctx: ExecutionContext, request: Request) -> Response: ...

    class Duck:
        def execute(self, ctx, request: Request) -> Response: ...

    class Decorated:
        @passing_on
        def execute(self, ctx, request: Request) -> Response: ...

    class Static:
        @staticmethod
        def execute(ctx, request: Request) -> Response: ...

    class Callable:
        def __call__(self, ctx, request: Request) -> Response: ...

    for target in (Generic, Inherited, Quoted, Annotated, Duck, Decorated, Static, types.SimpleNamespace(execute=Callable())):
        loaded = load(target)
        assert loaded.request_codec.type is Request, target
        assert loaded.response_codec.type is Response, target


def test_type_variables_of_a_base_class_leave_the_word_to_who_knows():
    one, other = typing.TypeVar("one"), typing.TypeVar("other")

    class Base(Plugin[one, other]):
        def execute(self, ctx, request):
            return request

    class Bound(Base[Request, Response]):
        pass

    class Annotated(Base):
        def execute(self, ctx, request: Request) -> Response: ...

    for target in (Bound, Annotated):
        loaded = load(target)
        assert (loaded.request_codec.type, loaded.response_codec.type) == (Request, Response)
    assert load(Base).request_codec.type is None


def test_the_type_of_a_stream_is_its_items_type():
    class P:
        def execute(self, ctx, request) -> typing.Iterator[Response]:
            yield Response(b=1)

    class Q:
        async def execute(self, ctx, request) -> typing.AsyncIterator[Response]:
            yield Response(b=1)

    class R(Plugin[Request, Response]):
        def execute(self, ctx, request):
            yield Response(b=1)

    class Bare:
        def execute(self, ctx, request) -> typing.Iterator:
            yield 1

    for target in (P, Q, R):
        assert load(target).response_codec.type is Response
    assert load(Bare).response_codec.type is None


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ("Nowhere", "can't be resolved: name 'Nowhere' is not defined"),
        ("'Nowhere'", "can't be resolved: name 'Nowhere' is not defined"),
        ("list['Nowhere']", "can't be resolved: name 'Nowhere' is not defined"),
        ("sys.nothing", "can't be resolved"),
        ("'1 +'", "can't be resolved"),
        ("'1 / 0'", "ZeroDivisionError"),
        ("complex", "can't cross as data: builtins.complex is nothing that JSON data can be"),
        ("list[complex]", "can't cross as data"),
        ("bytes", "can't cross as data"),
    ],
)
@pytest.mark.parametrize("place", ["request: {}", "request", ""])
def test_an_annotation_that_is_no_data_is_a_contract_failure(module, annotation, words, place):
    source = "class P:\n    def execute(self, ctx, {}){}: return 1".format(
        place.format(annotation) or "request", "" if place == "request: {}" else f" -> {annotation}"
    )
    made = module("from __future__ import annotations\nimport sys\n" + source)
    assert words in refused(lambda: load(made.P), "contract")


def test_looking_at_a_hostile_object_is_a_contract_failure():
    for error in (RuntimeError("odd"), SystemExit("odd"), KeyboardInterrupt("odd")):

        class Property:
            @property
            def execute(self):
                raise error

        class Health(Echo):
            @property
            def health(self):
                raise error

        class Catching(Echo):
            def __getattr__(self, name):
                raise error

        for target in (Property, Property(), Health, Catching):
            assert "odd" in refused(lambda target=target: load(target), "contract")


# The other methods.


@pytest.mark.parametrize("name", ["health", "info", "close"])
def test_the_other_methods_must_take_nothing(name):
    wrong = type("P", (Echo,), {name: lambda self, extra: None})
    keyword = type("P", (Echo,), {name: lambda self, *, extra: None})
    number = type("P", (Echo,), {name: 5})
    fine = type("P", (Echo,), {name: lambda self, extra=1, *more, **options: None})
    for target in (wrong, keyword):
        assert refused(lambda target=target: load(target), "contract") == f"{name} must take nothing, found (extra)"
    assert f"{name} of P is a int, expected a method" in refused(lambda: load(number), "contract")
    load(fine)
    load(type("P", (Echo,), {name: None}))


def answering(name, answer):
    return load(type("P", (Echo,), {name: lambda self: answer}))


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (HealthStatus(Status.DEGRADED, "slow"), Status.DEGRADED),
        (Status.UNHEALTHY, Status.UNHEALTHY),
        ("healthy", Status.HEALTHY),
        ({"status": "degraded", "message": "m", "metadata": {"a": 1}}, Status.DEGRADED),
        ({}, Status.HEALTHY),
        (None, Status.UNKNOWN),
        (True, Status.UNKNOWN),
        ("fine", Status.UNKNOWN),
        (5, Status.UNKNOWN),
        ([], Status.UNKNOWN),
        ({"statos": "healthy"}, Status.UNKNOWN),
        ({"status": "fine"}, Status.UNKNOWN),
        ({"message": 5}, Status.UNKNOWN),
        ({"last_check": "now"}, Status.UNKNOWN),
        ({"response_time": float("nan")}, Status.UNKNOWN),
        ({"metadata": 5}, Status.UNKNOWN),
        ({"metadata": {"a": object()}}, Status.UNKNOWN),
        (HealthStatus(message=b"bytes"), Status.UNKNOWN),
        (HealthStatus(message="\ud800"), Status.UNKNOWN),
        (object(), Status.UNKNOWN),
    ],
    ids=[str(number) for number in range(20)],
)
def test_a_health_answer_of_any_kind_becomes_a_status_that_is_data(answer, status):
    told = answering("health", answer).health()
    assert told.status is status
    if status is Status.UNKNOWN:
        assert "health() returned " in told.message
        assert "expected a HealthStatus" in told.message
    assert isinstance(told.message, str)


def test_what_health_raises_is_the_plugins():
    class P(Echo):
        def health(self):
            raise LookupError("gone")

    with pytest.raises(LookupError):
        load(P).health()


def test_a_hostile_health_answer_is_an_unknown_status():
    class Hostile:
        def __hash__(self):
            raise RuntimeError

        def __eq__(self, other):
            raise RuntimeError

        def __repr__(self):
            raise SystemExit

    assert answering("health", Hostile()).health().status is Status.UNKNOWN


def test_info_may_be_a_record_a_dict_or_nothing():
    fields = {"name": "n", "version": "1", "description": "", "author": "", "capabilities": ["a"], "metadata": {"k": [1]}}
    assert answering("info", PluginInfo("n", "1", capabilities=["a"], metadata={"k": (1,)})).info() == fields
    assert answering("info", {"name": "n", "version": "1", "capabilities": ("a",), "metadata": {"k": [1]}}).info() == fields
    assert answering("info", {"version": "1"}).info()["version"] == "1"
    assert answering("info", None).info() == {}


@pytest.mark.parametrize(
    "answer",
    [
        5,
        "text",
        {"nmae": "x"},
        {"name": 5},
        {"name": "n", "capabilities": "abc"},
        {"name": "n", "capabilities": [1]},
        {"name": "n", "metadata": {"a": object()}},
        {"name": "n", "metadata": 5},
        PluginInfo("n", metadata={"a": float("nan")}),
        object(),
    ],
    ids=[str(number) for number in range(10)],
)
def test_an_info_of_another_kind_is_said(answer):
    with pytest.raises(TypeError, match=r"info\(\) returned .*, expected a PluginInfo: "):
        answering("info", answer).info()


def test_async_methods_of_a_sync_plugin_are_finished():
    class P(Echo):
        closed = False

        async def health(self):
            await asyncio.sleep(0)
            return "degraded"

        async def info(self):
            return {"version": "2"}

        async def close(self):
            self.closed = True

    loaded = load(P)
    assert loaded.health().status is Status.DEGRADED
    assert loaded.info()["version"] == "2"
    loaded.close()
    assert loaded.plugin.closed


def test_closing_a_module_closes_nothing_else(module):
    made = module("def execute(ctx, request): return 1\ndef close(): raise RuntimeError")
    load(made).close()


def test_a_failure_to_load_keeps_what_the_plugin_raised():
    class P(Echo):
        def __init__(self):
            raise ValueError("reason")

    with pytest.raises(LoadFailure) as caught:
        load(P)
    assert isinstance(caught.value.__cause__, ValueError)


@given(st.one_of(st.none(), st.integers(), st.text(), st.lists(st.integers()), st.dictionaries(st.text(), st.integers())))
def test_any_object_is_a_plugin_or_a_load_failure(target):
    with pytest.raises(LoadFailure):
        load(target)


def test_a_request_that_is_wrong_is_a_data_error_and_not_the_plugins():
    class P:
        def execute(self, ctx, request: Request): ...

    with pytest.raises(DataError):
        load(P).request_codec.decode(b'{"a": "x"}')
