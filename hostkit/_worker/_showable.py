"""Which of a plugin's settings may be shown to whoever operates its host, and how one that is wrong is told of.

The plugin's own annotation says it: what is plain and typed may be shown. What isn't known to be harmless isn't: pydantic's secrets,
values of any type, mappings with any keys, fields that their author keeps out of texts, names that look like secrets.

A path is the keys that lead to a value; ``*`` is any item of a list.
"""

from __future__ import annotations

from ._annotations import form_of, hints_of, home_of, is_missing
from ._data import DataError
from ._failure import is_interrupt
from ._scalars import PARSED
from ._structure import MAPPINGS, QUALIFIERS, SEQUENCES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    Path = tuple[str, ...]

ITEM = "*"
HIDDEN = "•••"
# What a worker tells at most: paths, keys in one, characters of a key.
MOST_PATHS, MOST_KEYS, MOST_CHARACTERS = 256, 8, 200
# Parts of an annotation that are looked at: it may be recursive, or made to be large.
_MOST_PARTS = 2000

# Words of a name, and parts of one whatever words it has. No regular expressions: a worker may have none.
_NAMES = "auth bearer cookie cookies creds dsn key keys otp pass pat pin private pw pwd salt session sid signature signing webhook"
_WORDS = frozenset(_NAMES.split())
_PARTS = (
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credential",
    "authoriz",
    "apikey",
    "accesskey",
    "connectionstr",
    "connstr",
)


class Given(dict):  # type: ignore[type-arg]  # JSON data; 3.9 knows it without arguments alone
    """A plugin's settings, of which some were given as secrets: their paths."""

    def __init__(self, config: Mapping[str, Any], secrets: Iterable[Iterable[str]]) -> None:
        super().__init__(config)
        self.secrets = frozenset(map(tuple, secrets))


def looks_secret(name: str) -> bool:
    """Whether a setting of that name is probably a secret."""
    before, text = "", ""
    for letter in name[:MOST_CHARACTERS]:
        text += f" {letter}" if letter.isupper() and not before.isupper() else letter if letter.isalpha() else " "
        before = letter
    words = text.lower().split()
    joined = "".join(words)
    return not _WORDS.isdisjoint(words) or any(part in joined for part in _PARTS)


def holds_secret(text: str) -> bool:
    """Whether a text that may be shown has a secret in it all the same: a URL with a user, or a key."""
    return "@" in text.partition("://")[2] or "-----BEGIN " in text


def showable(annotation: Any) -> list[Path]:
    """Return the paths of what may be shown of data for an annotation. Never raises: its parts are foreign code."""
    return _seen(annotation)[0]


def without_values(error: DataError, annotation: Any, config: Mapping[str, Any]) -> DataError:
    """Return an error about a plugin's settings that says what was expected, and nothing that may not be shown."""
    paths, names = _seen(annotation)
    if isinstance(config, Given):
        paths = [path for path in paths if path not in config.secrets]
    hidden = [text for path, text in _texts(config, ()) if path not in set(paths)]
    return DataError.of(_row(row, paths, names, hidden) for row in error.rows)


def _seen(annotation: Any) -> tuple[list[Path], set[str]]:
    """Return the paths, and the names of all fields, shown or not."""
    look = _Look()
    try:
        found = dict.fromkeys(look.paths(annotation, ()))
    except BaseException as error:  # attributes of the plugin's classes
        if is_interrupt(error):
            raise
        return [], look.names
    fit = (path for path in found if 0 < len(path) <= MOST_KEYS and all(len(key) <= MOST_CHARACTERS for key in path))
    return list(fit)[:MOST_PATHS], look.names


class _Look:
    """One look at an annotation and what is in it. ``names`` are those of the fields that were met."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self._left = _MOST_PARTS

    def paths(self, annotation: Any, around: tuple[Any, ...]) -> list[Path]:
        """Return the paths from here on, an empty one for the value itself; none where nothing may be shown. ``around`` is what the
        annotation is a part of."""
        self._left -= 1
        if self._left < 0 or len(around) > 4 * MOST_KEYS or any(annotation is other for other in around) or is_missing(annotation):
            return []
        inside = (*around, annotation)
        if type(annotation).__name__ == "TypeAliasType":
            return self.paths(annotation.__value__, inside)
        if hasattr(annotation, "__supertype__"):  # NewType
            return self.paths(annotation.__supertype__, inside)
        if hasattr(annotation, "__metadata__"):  # Annotated
            paths = self.paths(annotation.__origin__, inside)
            return [] if any(_is_kept_back(part) for part in annotation.__metadata__) else paths
        return self._special(annotation, inside)

    def _special(self, annotation: Any, inside: tuple[Any, ...]) -> list[Path]:
        origin = getattr(annotation, "__origin__", None)
        form = form_of(origin if origin is not None else annotation)
        arguments: tuple[Any, ...] = getattr(annotation, "__args__", ())
        if form == "Literal":
            return [()]
        if form == "Union":
            return self._same([choice for choice in arguments if choice is not type(None)], inside)
        if form in QUALIFIERS:
            return self.paths(arguments[0], inside)
        kind = origin or annotation
        return self._class(kind, arguments, inside) if isinstance(kind, type) else []

    def _class(self, kind: type, arguments: tuple[Any, ...], inside: tuple[Any, ...]) -> list[Path]:
        home = (home_of(kind), kind.__name__)
        if kind in (str, int, float, bool) or home in PARSED or _is_enumeration(kind):
            return [()]
        fields = list(_fields(kind))
        if getattr(kind, "__pydantic_root_model__", False):
            return self.paths(fields[0][2], inside)
        if fields:
            return self._of_fields(fields, inside)
        if home in MAPPINGS:
            self._same(list(arguments), inside)  # for the names in it
        if home in SEQUENCES or kind is tuple:
            items = [argument for argument in arguments if argument is not Ellipsis]
            return [(ITEM, *path) for path in self._same(items, inside)]
        return []

    def _of_fields(self, fields: list[tuple[list[str], bool, Any]], inside: tuple[Any, ...]) -> list[Path]:
        found: list[Path] = []
        hidden: set[str] = set()
        for names, kept_back, annotation in fields:
            self.names.update(names)
            paths = self.paths(annotation, inside)
            if paths and not kept_back and not any(map(looks_secret, names)):
                found += [(name, *path) for name in names for path in paths]
            else:
                hidden.update(names)
        return [path for path in found if path[0] not in hidden]

    def _same(self, choices: list[Any], inside: tuple[Any, ...]) -> list[Path]:
        """Return what may be shown whichever of these it is."""
        found = [self.paths(choice, inside) for choice in choices]
        return found[0] if found and all(paths == found[0] for paths in found) else []


def _fields(kind: Any) -> Iterator[tuple[list[str], bool, Any]]:
    """Yield the fields of a class: the names by which each may be given, whether its author keeps it back, its annotation."""
    models = getattr(kind, "__pydantic_fields__", None) or getattr(kind, "model_fields", None)
    if isinstance(models, dict):
        for name, field in models.items():
            yield [name, *_aliases(field)], _is_kept_back(field), field.annotation
    elif hasattr(kind, "__dataclass_fields__"):
        fields = kind.__dataclass_fields__
        for name, hint in hints_of(kind).items():
            if name in fields:
                yield [name], not fields[name].repr, hint
    elif hasattr(kind, "__required_keys__"):
        for name, hint in hints_of(kind).items():
            yield [name], False, hint


def _aliases(field: Any) -> list[str]:
    """Return the keys by which pydantic takes a field, beside its name; of a path of keys the first one."""
    found: list[str] = []
    for alias in (field.alias, field.validation_alias):
        for choice in getattr(alias, "choices", [alias]):
            key = next(iter(getattr(choice, "path", [choice])), None)
            if isinstance(key, str) and key not in found:
                found.append(key)
    return found


def _is_kept_back(field: Any) -> bool:
    """Whether one of pydantic's FieldInfo says that its value is not to be shown, or is read from deep within something else."""
    if type(field).__name__ != "FieldInfo":
        return False
    extra = field.json_schema_extra
    said = extra if isinstance(extra, dict) else {}
    aliases = getattr(field.validation_alias, "choices", [field.validation_alias])
    hidden = callable(extra) or said.get("writeOnly") is True or said.get("format") == "password"
    return hidden or field.repr is False or field.exclude is True or any(hasattr(alias, "path") for alias in aliases)


def _is_enumeration(kind: type) -> bool:
    return ("enum", "Enum") in {(base.__module__, base.__name__) for base in kind.__mro__}


def _texts(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """Yield the texts and numbers of a configuration that are long enough to be told from other words."""
    if isinstance(value, dict) or (not path and hasattr(value, "items")):
        for key, part in value.items():
            yield from _texts(part, (*path, str(key)))
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _texts(part, (*path, ITEM))
    elif type(value) in (str, int, float) and len(str(value)) > 3:
        yield path, str(value)


def _row(row: dict[str, str], paths: Iterable[Path], names: set[str], hidden: list[str]) -> dict[str, str]:
    parts = row["path"].split(".")
    known = any(_matches(parts, path) for path in paths)
    found = row["found"] if known and not _quotes(row["found"], hidden) and not holds_secret(row["found"]) else _kind(row["found"])
    if not known and row["expected"].startswith("what ") and not _quotes(row["found"], hidden):
        found = row["found"]  # the plugin's own words for what is wrong
    expected = "another value" if _quotes(row["expected"], hidden) else row["expected"]
    unknown = expected.startswith("a known field")
    shown = [
        part
        if index == 0 or part.isdigit() or part in names or part in _CHOICES or (unknown and index == len(parts) - 1)
        else HIDDEN
        for index, part in enumerate(parts)
    ]
    return {"path": ".".join(shown), "expected": expected, "found": found}


# How pydantic names the choices of a union in a path.
_CHOICES = frozenset(("str", "int", "float", "bool", "none"))


def _matches(parts: list[str], path: Path) -> bool:
    keys = [key for name in path for key in name.split(".")]
    return len(keys) == len(parts) and all(key == part or (key == ITEM and part.isdigit()) for key, part in zip(keys, parts))


def _quotes(words: str, hidden: list[str]) -> bool:
    """Whether words quote a value that may not be shown, or as much of it as a text keeps that is cut."""
    return any(text[:8] in words or repr(text)[1:9] in words for text in hidden)


def _kind(found: str) -> str:
    """Return what kind of value a text is of that was made by ``found``."""
    first = found[:1]
    if found in ("nothing", "None"):
        return found
    if first in "'\"":
        return "a text"
    return "a number" if first.isdigit() or first == "-" else {"[": "a list", "{": "an object"}.get(first, "something else")
