"""What is secret in a plugin's settings reaches the plugin, and nothing that anybody reads."""

from __future__ import annotations

import json
import traceback
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, NewType, Optional, TypedDict, Union

import pydantic
import pytest
from loguru import logger
from pydantic import AliasPath, BaseModel, Field, RootModel, SecretBytes, SecretStr

import hostkit
from hostkit._attach import Attached
from hostkit._greeting import Introduction
from hostkit._shown import shown_config
from hostkit._sinks import flush
from hostkit._worker._showable import looks_secret, showable

CANARY = "c4n4ry-51ngs"
NUMBER = 918273645

PLUGIN = """
    from typing import Any
    from pydantic import BaseModel, SecretBytes, SecretStr

    class Database(BaseModel):
        host: str
        password: SecretStr

    class Settings(BaseModel):
        precision: int
        name: SecretStr
        data: SecretBytes
        database: Database
        mirrors: list[str] = []
        anything: Any = None
        headers: dict[str, str] = {}
        url: str = ""
        account: int = 0
        api_key: str = ""

    class P:
        def __init__(self, config: Settings):
            self.config = config

        def execute(self, ctx, request):
            config = self.config
            return [config.name.get_secret_value(), config.data.get_secret_value().decode(), config.database.password.get_secret_value()]
"""
CONFIG: dict[str, Any] = {
    "precision": 4,
    "name": CANARY,
    "data": CANARY,
    "database": {"host": "db.example", "password": CANARY},
    "mirrors": ["a.example", "b.example"],
    "anything": {"nested": [CANARY]},
    "headers": {"authorization": CANARY},
    "url": f"https://me:{CANARY}@example.org/",
    "api_key": CANARY,
}
MAY_BE_SHOWN = {
    "precision": 4,
    "name": "•••",
    "data": "•••",
    "database": {"host": "db.example", "password": "•••"},
    "mirrors": ["a.example", "b.example"],
    "anything": "•••",
    "headers": "•••",
    "url": "•••",
    "api_key": "•••",
}


class Seen:
    """Everything that is said of a host from now on, in whatever way."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self.texts: list[str] = []
        self.audit = place / "audit.jsonl"

    def all(self) -> str:
        assert flush(10)
        return "\n".join([*self.texts, self.audit.read_text() if self.audit.exists() else ""])

    def hears(self, host: hostkit.Host) -> None:
        host.subscribe(lambda event: self.texts.append(f"{event} {event!r} {getattr(event, 'facts', '')}"))

    def error(self, error: BaseException) -> None:
        carried = [str(value) for value in vars(error).values()]
        self.texts += ["".join(traceback.format_exception(error)), repr(error), str(error), *carried]


@pytest.fixture
def seen(tmp_path):
    seen = Seen(tmp_path)
    sinks = [
        logger.add(lambda message: seen.texts.append(f"{message} {message.record}"), level=0, serialize=serialize, diagnose=True)
        for serialize in (False, True)
    ]
    logger.enable("hostkit")
    yield seen
    flush(5)
    for sink in sinks:
        logger.remove(sink)
    logger.disable("hostkit")


@pytest.fixture(params=["none", "process", "process, forked"])
def place(request):
    """Where plugins run, and how their workers start."""
    isolation, _, forked = request.param.partition(", ")
    return {"isolation": isolation, "start": "template" if forked else "fresh"}


def configured(seen, place, config, name="p"):
    return {"audit": {"file": str(seen.audit)}, "plugins": {name: {**place, "config": config}}}


def test_a_secret_reaches_the_plugin_and_nothing_that_anybody_reads(install, new_host, place, seen, tmp_path):
    install("p", PLUGIN)
    host = new_host(config=configured(seen, place, CONFIG), admin=tmp_path / "s")
    seen.hears(host)
    host.load("p")
    assert host.execute("p", None) == [CANARY] * 3
    with Attached(tmp_path / "s") as attached:
        answer = attached.ask("plugin", name="p")
        assert answer["config"] == MAY_BE_SHOWN
        others = [attached.ask("snapshot"), attached.ask("events"), attached.ask("log", name=""), attached.ask("log", name="p")]
        seen.texts += [json.dumps(told, ensure_ascii=False) for told in (answer, *others)]
        host.unload("p")
        assert set(attached.ask("plugin", name="p")["config"].values()) == {"•••"}
    seen.texts += [repr(host), repr(host.config), str(host.config), f"{host.config.plugins['p'].config}", str(host.info("p"))]
    host.close()
    assert "loaded" in seen.all()
    assert '"plugin"' in seen.audit.read_text()
    assert CANARY not in seen.all()


def test_another_secret_reaches_the_plugin_and_is_not_told(install, new_host, place, seen, tmp_path):
    install("p", PLUGIN)
    file = tmp_path / "hostkit.json"
    file.write_text(json.dumps(configured(seen, place, CONFIG)))
    host = new_host(config=file)
    seen.hears(host)
    host.load("p")
    another = CANARY.upper()
    file.write_text(json.dumps(configured(seen, place, json.loads(json.dumps(CONFIG).replace(CANARY, another)))))
    assert host.reload_config() == ("p: config",)
    assert host.execute("p", None) == [another] * 3
    assert "p: config" in seen.all()
    assert CANARY not in seen.all()
    assert another not in seen.all()


def test_an_application_may_pass_secrets_as_such(install, new_host, place, seen):
    install("p", PLUGIN)
    wrapped = {
        **CONFIG,
        "name": SecretStr(CANARY),
        "data": SecretBytes(CANARY.encode()),
        "database": {"host": SecretStr(CANARY), "password": SecretStr(CANARY)},
        "mirrors": ["a.example", SecretStr(CANARY)],
    }
    host = new_host(config=configured(seen, place, wrapped))
    host.load("p")
    assert host.execute("p", None) == [CANARY] * 3
    lane = host._loader.record("p").lane
    shown = shown_config(host.config.plugins["p"].config, lane.backend.settings_shown)
    assert shown == {**MAY_BE_SHOWN, "database": "•••", "mirrors": "•••"}
    assert CANARY not in seen.all() + repr(host.config)


def test_one_that_was_passed_as_a_secret_is_none_of_the_plain_ones(install, new_host, isolation, seen):
    install("p", PLUGIN)
    host = new_host(config=configured(seen, {"isolation": isolation}, {**CONFIG, "precision": SecretStr(CANARY)}))
    with pytest.raises(hostkit.PluginLoadError, match=r"precision: expected .*, found a text$") as raised:
        host.load("p")
    seen.error(raised.value)
    assert CANARY not in seen.all()


KINDS = {
    "model": PLUGIN,
    "dataclass": """
        from dataclasses import dataclass
        from typing import Optional
        from pydantic import SecretStr

        @dataclass
        class Settings:
            precision: int
            name: SecretStr
            other: Optional[SecretStr] = None
            pin: int = 0

            def __post_init__(self):
                if self.precision > 9:
                    raise ValueError(f"precision is at most 9, name is {self.name}, pin is {self.pin}")

        class P:
            def __init__(self, config: Settings): ...
            def execute(self, ctx, request): ...
    """,
    "typed dict": """
        from typing import Annotated, TypedDict
        from pydantic import Field, SecretStr

        class Settings(TypedDict, total=False):
            precision: int
            name: Annotated[SecretStr, Field(max_length=4)]
            names: list[SecretStr]
            keys: dict[str, int]

        class P:
            def __init__(self, config: Settings): ...
            def execute(self, ctx, request): ...
    """,
    "validators": """
        from pydantic import BaseModel, SecretStr, field_validator, model_validator

        class Settings(BaseModel):
            name: SecretStr
            other: str = ""

            @field_validator("other", mode="before")
            @classmethod
            def careless(cls, value):
                raise ValueError(f"no good: {value!r}")

            @model_validator(mode="before")
            @classmethod
            def more_careless(cls, values):
                if "all" in values:
                    raise ValueError(f"no good: {values}")
                return values

        class P:
            def __init__(self, config: Settings): ...
            def execute(self, ctx, request): ...
    """,
    "by itself": """
        from pydantic import BaseModel, SecretStr

        class Settings(BaseModel):
            name: SecretStr
            precision: int

        class P:
            def __init__(self, config: dict):
                try:
                    self.settings = Settings(**config)
                except ValueError as error:
                    if "chain" in config:
                        raise RuntimeError("these settings are wrong") from error
                    raise
            def execute(self, ctx, request): ...
    """,
}
LONG = CANARY + "x" * 300
WRONG = {
    "a list for a secret": ("model", {**CONFIG, "name": [CANARY]}, ["name: expected a valid string, found a list"]),
    "a number for a secret": ("model", {**CONFIG, "name": NUMBER}, ["name: expected a valid string, found a number"]),
    "a secret deep within": (
        "model",
        {**CONFIG, "database": {"host": "h", "password": {"a": CANARY}}},
        ["database.password: expected a valid string, found an object"],
    ),
    "bytes": ("model", {**CONFIG, "data": {"a": CANARY}}, ["data: expected", "found an object"]),
    "a key that is mistyped": (
        "model",
        {**CONFIG, "nmae": CANARY},
        ["nmae: expected a known field (did you mean 'name'?), found a text"],
    ),
    "a key deep within": (
        "model",
        {**CONFIG, "database": {"host": "h", "password": "p", "pasword": CANARY}},
        ["database.pasword: expected a known field (did you mean 'password'?), found a text"],
    ),
    "what is not there": ("model", {"api_key": CANARY}, ["name: expected this field, found nothing"]),
    "a value in a mapping": (
        "model",
        {**CONFIG, "headers": {CANARY: [CANARY]}},
        ["headers.•••: expected a valid string, found a list"],
    ),
    "a plain one beside it": ("model", {**CONFIG, "precision": "many"}, ["precision: expected", "found 'many'"]),
    "a URL for a number": ("model", {**CONFIG, "account": f"https://me:{CANARY}@h"}, ["account: expected", "found a text"]),
    "a name that looks like one": ("model", {**CONFIG, "api_key": [CANARY]}, ["api_key: expected a valid string, found a list"]),
    "a dataclass": ("dataclass", {"precision": 2, "name": [CANARY]}, ["name: expected a valid string, found a list"]),
    "a dataclass's number": ("dataclass", {"precision": 2, "name": "x", "pin": str(NUMBER)}, ["pin: expected", "found a text"]),
    "a choice": ("dataclass", {"precision": 2, "name": "x", "other": [CANARY]}, ["other: expected", "found a list"]),
    "a dataclass's own check": ("dataclass", {"precision": 10, "name": CANARY}, ["precision is at most 9, name is ***"]),
    "a dataclass's careless check": (
        "dataclass",
        {"precision": 10, "name": CANARY, "pin": NUMBER},
        ["expected what Settings takes"],
    ),
    "a limit": ("typed dict", {"precision": 2, "name": CANARY}, ["name: expected", "at most 4", "found a text"]),
    "one of several": ("typed dict", {"names": ["x", {"a": CANARY}]}, ["names.1: expected a valid string, found an object"]),
    "a key of a mapping": ("typed dict", {"keys": {CANARY: CANARY}}, ["keys.•••: expected", "found a text"]),
    "a careless validator": ("validators", {"name": CANARY, "other": CANARY}, ["other: expected another value, found a text"]),
    "a careless validator of all": ("validators", {"name": CANARY, "all": 1}, ["expected another value, found an object"]),
    "a long one": ("validators", {"name": LONG, "all": 1}, ["expected another value, found an object"]),
    "a plugin that looks itself": ("by itself", {"name": [CANARY], "precision": CANARY}, ["name: Input should be a valid string"]),
    "a long one that a plugin looks at itself": ("by itself", {"name": [LONG], "precision": LONG}, ["ValidationError"]),
    "a plugin that looks itself and wraps it": ("by itself", {"name": [CANARY], "chain": 1}, ["these settings are wrong"]),
}


# A worker runs the same code: some of them show that.
ISOLATED = ("a secret deep within", "a careless validator", "a plugin that looks itself and wraps it")


@pytest.mark.parametrize(
    ("isolation", "wrong"), [*(("none", wrong) for wrong in WRONG), *(("process", wrong) for wrong in ISOLATED)]
)
def test_what_is_said_of_a_wrong_setting_has_no_secret(install, new_host, isolation, seen, wrong):
    kind, config, words = WRONG[wrong]
    install("p", KINDS[kind])
    host = new_host(config=configured(seen, {"isolation": isolation}, config))
    seen.hears(host)
    with pytest.raises(hostkit.PluginLoadError) as raised:
        host.execute("p", None)
    seen.error(raised.value)
    logger.opt(exception=raised.value).error("an application's own words")
    for word in words:
        assert word in str(raised.value)
    assert "PluginLoadError" in seen.audit.read_text()
    for secret in (CANARY, CANARY[-6:], str(NUMBER)):
        assert secret not in seen.all()


def test_a_setting_that_is_no_data_is_not_told_either(install, new_host, isolation, seen):
    install("p", PLUGIN)
    host = new_host(config=configured(seen, {"isolation": isolation}, {**CONFIG, "anything": {1: CANARY.encode()}}))
    with pytest.raises(hostkit.PluginLoadError) as raised:
        host.load("p")
    seen.error(raised.value)
    assert "expected" in str(raised.value)
    assert CANARY not in seen.all()


BAD_FILES = {
    "no table": f'[plugins.p]\nconfig = "{CANARY}"',
    "no tables": f'[plugins]\np = "{CANARY}"',
    "a list of tables": f'[[plugins]]\nconfig = {{ name = "{CANARY}" }}',
    "a list of one": f'[[plugins.p]]\nconfig = {{ name = "{CANARY}" }}',
    "one plugin twice": f'[plugins.p-q.config]\nname = "{CANARY}"\n[plugins.p_q.config]\nname = "x"',
    "a reference that is none": f'[plugins.p.config]\nname = "{CANARY}${{"',
    "no end": f'[plugins.p.config]\nname = "{CANARY}',
    "twice": f'[plugins.p.config]\nname = "{CANARY}"\nname = "{CANARY}"',
    "a wrong name": f'[plugins."p q".config]\nname = "{CANARY}"',
    "something else is wrong": f'[plugins.p]\ntimeout = "never"\nconfig = {{ name = "{CANARY}" }}',
}


@pytest.mark.parametrize("text", BAD_FILES.values(), ids=BAD_FILES)
def test_a_configuration_that_is_wrong_is_told_of_without_secrets(cli, tmp_path, text):
    file = tmp_path / "hostkit.toml"
    file.write_text(text)
    with pytest.raises(hostkit.ConfigError) as raised:
        hostkit.Host(config=file)
    told = cli("config", "check", str(file))
    assert told.exit_code == 2
    assert CANARY not in told.output + "".join(traceback.format_exception(raised.value))


def test_neither_are_those_of_the_environment(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("HOSTKIT_PLUGINS__P__CONFIG__NAME__KEY", CANARY)
    (tmp_path / "hostkit.toml").write_text(f'[plugins.p.config]\nname = "{CANARY}"')
    told = cli("config", "check", str(tmp_path / "hostkit.toml"))
    assert (told.exit_code, "is no table" in told.output) == (2, True)
    assert CANARY not in told.output


def test_the_command_line_shows_no_secret_unless_it_is_asked_to(cli, cli_place, install_demo, monkeypatch):
    install_demo("p", PLUGIN)
    config = {**CONFIG, "name": "${NAME}"}
    (cli_place / "hostkit.json").write_text(json.dumps({"defaults": {"health": False}, "plugins": {"p": {"config": config}}}))
    monkeypatch.setenv("HOSTKIT_CONFIG", "hostkit.json")
    monkeypatch.setenv("NAME", CANARY[::-1])
    monkeypatch.setenv("HOSTKIT_PLUGINS__P__CONFIG__API_KEY", CANARY)
    show, info = ["config", "show", "p"], ["info", "p"]
    for words in (
        show,
        [*show, "--origin"],
        ["config", "check"],
        info,
        [*info, "--static"],
        [*info, "--isolation", "process"],
        ["health"],
    ):
        for as_json in ([], ["--json"]):
            told = cli(*as_json, *words)
            assert told.exit_code == 0, told.output
            assert CANARY not in told.output
            assert CANARY[::-1] not in told.output
    assert "plugins.p.timeout = 30.0" in cli(*show).output
    asked = cli(*show, "--show-config").output
    assert f'plugins.p.config.database.password = "{CANARY}"' in asked
    assert CANARY[::-1] not in asked
    assert 'plugins.p.config.name = "${NAME}"' in asked


# What may be shown.


class Inner(BaseModel):
    host: str
    port: Optional[int] = None
    password: SecretStr


@dataclass
class Data:
    level: Literal["low", "high"]
    ratio: float
    tokens: list[str]
    quiet: str = field(default="", repr=False)


class Typed(TypedDict, total=False):
    path: Path
    inner: Inner
    anything: Any


class Aliased(BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True)
    size: int = Field(alias="Size")
    plain: str = Field(alias="swapped", default="")
    swapped: SecretStr = Field(alias="plain", default=SecretStr(""))
    deep: str = Field(validation_alias=AliasPath("a", "b"), default="")
    login: str = Field(alias="password", default="")


class KeptBack(BaseModel):
    shown: int
    no_repr: str = Field(repr=False)
    excluded: str = Field(exclude=True)
    written: str = Field(json_schema_extra={"writeOnly": True})
    typed: str = Field(json_schema_extra={"format": "password"})
    annotated: Annotated[str, Field(repr=False)]
    raw: SecretBytes
    url: pydantic.AnyUrl
    secret: pydantic.Secret[int]


class Tree(BaseModel):
    name: str
    children: list["Tree"] = []


class Color(Enum):
    RED = "red"


class Root(RootModel[Inner]): ...


@pydantic.dataclasses.dataclass
class Checked:
    size: int
    word: SecretStr


class Endless(BaseModel):
    pass


UserId = NewType("UserId", int)
PATHS = [
    (Any, []),
    (None, []),
    (dict, []),
    (dict[str, int], []),
    (str, []),
    (SecretStr, []),
    (Inner, [("host",), ("port",)]),
    (Optional[Inner], [("host",), ("port",)]),
    (Union[Inner, Data], []),
    (Root, [("host",), ("port",)]),
    (Data, [("level",), ("ratio",)]),
    (Typed, [("path",), ("inner", "host"), ("inner", "port")]),
    (Aliased, [("size",), ("Size",)]),
    (KeptBack, [("shown",)]),
    (Tree, [("name",)]),
    (Checked, [("size",)]),
    (
        TypedDict(
            "T", {"a": Color, "b": UserId, "c": "list[Inner]", "d": tuple[int, str], "e": tuple[int, ...], "f": set[SecretStr]}
        ),
        [("a",), ("b",), ("c", "*", "host"), ("c", "*", "port"), ("d", "*"), ("e", "*")],
    ),
]


@pytest.mark.parametrize(("annotation", "paths"), PATHS)
def test_an_annotation_says_what_may_be_shown(annotation, paths):
    assert showable(annotation) == paths


def test_an_annotation_of_a_thousand_fields_tells_of_some():
    many = pydantic.create_model("Many", **{f"field_{number}": (int, 0) for number in range(1000)})
    assert len(showable(many)) == 256


def test_an_annotation_that_raises_has_nothing_to_show():
    class Bad(type):
        def __getattr__(cls, name):
            raise RuntimeError(name)

    assert showable(Bad("Worse", (), {})) == []


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "Password",
        "db_password",
        "dbPassword",
        "API_KEY",
        "apikey",
        "api-key",
        "accessToken",
        "client_secret",
        "key",
        "signing.key",
        "credentials",
        "auth",
        "authorization",
        "dsn",
        "pin",
        "connection_string",
        "passwd",
        "AWS_SECRET_ACCESS_KEY",
        "privateKey",
        "sessionId",
    ],
)
def test_a_name_that_looks_like_a_secret_is_taken_for_one(name):
    assert looks_secret(name)


@pytest.mark.parametrize(
    "name", ["precision", "host", "path", "author", "monkey", "compass", "keyboard", "spinner", "size", "timeout", "", "*"]
)
def test_other_names_are_not(name):
    assert not looks_secret(name)


def test_what_is_shown_is_what_was_allowed_and_looks_harmless():
    config = {
        "a": 1,
        "b": {"c": "x", "d": "y"},
        "e": ["x", {"f": 1}],
        "g": "postgres://u:p@h/d",
        "h": "-----BEGIN PRIVATE KEY-----",
        "api_key": "x",
        "i": b"x",
        "j": None,
        "k": "x" * 5000,
        "l": {"*": "x"},
        "m": {"token": "x"},
    }
    allowed = {("a",), ("b", "c"), ("e", "*"), ("g",), ("h",), ("api_key",), ("i",), ("j",), ("k",), ("m", "token")}
    shown = shown_config(config, allowed)
    assert shown["b"] == {"c": "x", "d": "•••"}
    assert shown["e"] == ["x", {"f": "•••"}] or shown["e"] == ["x", "•••"]
    assert (shown["a"], shown["j"], len(shown["k"])) == (1, None, 1001)
    assert {key for key, value in shown.items() if value == "•••"} == {"g", "h", "api_key", "i", "l"}
    assert shown["m"] == {"token": "•••"}
    assert set(shown_config(config).values()) == {"•••"}
    json.dumps(shown)


@pytest.mark.parametrize("settings", [[["a"]] * 257, [["a"] * 9], [["a" * 201]], [[]], [[1]], {"a": 1}, [["a", None]]])
def test_a_worker_tells_of_a_limited_number_of_settings(settings):
    said = {"cookie": "", "protocol": 1, "plugin": "p", "python": "3", "kind": "call"}
    Introduction.model_validate({**said, "settings": [["a", "*", "b"]] * 256})
    with pytest.raises(pydantic.ValidationError):
        Introduction.model_validate({**said, "settings": settings})
