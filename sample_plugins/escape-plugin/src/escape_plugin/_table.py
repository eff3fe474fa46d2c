"""The table of acts: a name, what it would mean, and the function that tries it."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

# What the stage has put up for the acts, by name: paths, process ids, ports.
Target = Mapping[str, Any]
Does = Callable[[Target], str]


class Held(Exception):
    """The act was stopped by something that raises no OSError: its message begins with "limited", "hidden" or "absent"."""


class Act(NamedTuple):
    """One act.

    ``does`` is one line. ``do`` returns its evidence where it succeeded, and raises ``OSError`` or ``Held`` where it was stopped.
    ``needs`` names the capability without which an unconfined process may be stopped, too. ``alone`` says that it ends the worker,
    or leaves it so that it must not be used again.
    """

    name: str
    family: str
    does: str
    do: Does
    needs: str
    alone: bool


ACTS: dict[str, Act] = {}


def act(*, needs: str = "", alone: bool = False) -> Callable[[Does], Does]:
    """Enter a function into the table, under its own name with hyphens, in the family of its module."""

    def enter(do: Does) -> Does:
        name = do.__name__.replace("_", "-")
        does = " ".join((do.__doc__ or "").split()).rstrip(".")
        ACTS[name] = Act(name, do.__module__.rpartition("._")[2], does, do, needs, alone)
        return do

    return enter


def found(name: object) -> Act:
    """Return an act by its name. Raises ``LookupError`` with the nearest name."""
    one = ACTS.get(str(name))
    if one is None:
        near = difflib.get_close_matches(str(name), ACTS, 1)
        raise LookupError(f"no act {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    return one


def tried(one: Act, target: Target) -> dict[str, Any]:
    """Try an act and return its name, whether it was blocked, and how, or the evidence that it was not."""
    try:
        evidence = one.do(target)
    except Held as held:
        return {"act": one.name, "blocked": True, "how": str(held)}
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, "?")
        return {"act": one.name, "blocked": True, "how": f"{type(error).__name__} {code}"}
    except MemoryError:
        return {"act": one.name, "blocked": True, "how": "limited: MemoryError"}
    return {"act": one.name, "blocked": False, "how": evidence}
