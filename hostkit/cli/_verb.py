"""What all verbs share: the options that stand on either side of the verb, and the types of their arguments."""

from __future__ import annotations

import difflib
import importlib
import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from .._errors import HostkitError
from ._text import escaped

if TYPE_CHECKING:
    from ._session import Session

    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # no generic before click 8.4

# Only names that are one harmless word to a shell are offered for completion: a plugin may call itself $(reboot).
_WORD = re.compile(r"[\w.+-]+")


class Verb(click.Command):
    """One verb. Its callback takes the Session and its own arguments, and returns the exit status."""

    def __init__(self, name: str | None, **options: Any) -> None:
        options["params"] = [*(options.get("params") or ()), *shared_options()]
        super().__init__(name, **options)


class VerbTable(click.Group):
    """A table of verbs as a click group: a verb's module is imported only when that verb is used."""

    def __init__(self, name: str | None, *, table: Mapping[str, tuple[str, str]], **options: Any) -> None:
        super().__init__(name, **options)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.table:
            return None
        command: click.Command = importlib.import_module(f".{self.table[cmd_name][0]}", __package__).verb
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.table and not ctx.resilient_parsing:
            near = difflib.get_close_matches(args[0], self.table, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(self.table)}"
            ctx.fail(f"no verb {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, words) for verb, (_, words) in self.table.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        verbs = [CompletionItem(verb, help=words) for verb, (_, words) in self.table.items() if verb.startswith(incomplete)]
        return [*verbs, *click.Command.shell_complete(self, ctx, incomplete)]


def shared_options() -> list[click.Parameter]:
    """Return the options that stand before or after the verb; the Session keeps them."""
    return [
        click.Option(
            ["--app"],
            metavar="NAME",
            expose_value=False,
            callback=_keep("app"),
            help="The application whose plugins are meant: the entry points of group NAME.plugins.  [default: hostkit]",
        ),
        click.Option(
            ["--config", "config_file"],
            metavar="FILE",
            type=click.Path(),
            expose_value=False,
            callback=_keep("config_file"),
            help="The configuration.  [default: $HOSTKIT_CONFIG, else ./hostkit.toml, else [tool.hostkit] in ./pyproject.toml]",
        ),
        click.Option(
            ["--json"],
            is_flag=True,
            expose_value=False,
            callback=_keep("json"),
            help="Answer in JSON, and tell errors and the log as one JSON object a line on stderr.",
        ),
    ]


def verbose_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb that runs plugins its -v."""
    return click.option(
        "-v",
        "--verbose",
        count=True,
        expose_value=False,
        callback=_keep("verbose"),
        help="Show hostkit's log on stderr from INFO on (-vv: DEBUG; else WARNING), and a failing plugin's traceback.",
    )(function)


def _keep(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        # The same option may stand on the other side of the verb: one that is not given says nothing.
        if value is not None and value is not False and value != 0 and context.obj is not None:
            setattr(context.obj, name, value)

    return keep


class PluginName(_ParamType):
    """The name of an installed plugin; completed from the index."""

    name = "name"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        session: Session = ctx.obj
        try:
            found = session.specs
        except HostkitError:
            return []
        return [
            CompletionItem(name, help=_about(spec.manifest_data.get("description", "")))
            for name, spec in found.items()
            if spec.error is None and name.startswith(incomplete) and _WORD.fullmatch(name)
        ]


def _about(description: object) -> str:
    text = escaped(description)
    return text if len(text) <= 60 else text[:57] + "..."


class IsolationWord(_ParamType):
    """A word for where a plugin runs."""

    name = "isolation"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        words = _isolation_words()
        if value not in words:
            near = difflib.get_close_matches(value, words, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(words)}"
            self.fail(f"isolation {value!r} is unknown; {hint}", param, ctx)
        return value

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "|".join(_isolation_words())

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(word) for word in _isolation_words() if word.startswith(incomplete)]


def _isolation_words() -> list[str]:
    from .._decided import words  # asyncio and more, which most runs don't need at this point

    return words()


class Seconds(_ParamType):
    """A time: seconds, or a text like 500ms, 5s or 2m; ``unlimited`` where there may be no limit."""

    name = "duration"

    def __init__(self, *, unlimited: bool = False) -> None:
        self._unlimited = unlimited

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        if self._unlimited and value == "none":
            return math.inf
        match = _DURATION.fullmatch(value.strip())
        if match is None:
            none = ', or "none"' if self._unlimited else ""
            self.fail(f'expected seconds or a text like "500ms", "5s" or "2m"{none}; found {value!r}', param, ctx)
        seconds = float(match[1]) * _UNITS[match[2] or "s"]
        if seconds > _LONGEST:
            self.fail(f"expected at most a year; found {value!r}", param, ctx)
        return seconds


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)\s*(ms|s|m|h|d)?", re.ASCII)
_LONGEST = 366 * 86400.0


class Pair(_ParamType):
    """KEY=VALUE, both text."""

    name = "k=v"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        key, equals, text = value.partition("=")
        if not key or not equals:
            self.fail(f"expected KEY=VALUE, found {value!r}", param, ctx)
        return key, text
