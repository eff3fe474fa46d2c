"""A filter that mutes a library's own warnings is told from one that decides about everybody's."""

import re
import sys
import types
import warnings

import pytest

from hostkit._filters import is_narrow, told

OTHERS = {"builtins", "warnings", "os", "json", "json.decoder", "numpy_financial"}


class Own(UserWarning):
    """As if a plugin had defined it."""


Own.__module__ = "calculator_plugin.warned"


def made(*arguments, how=warnings.filterwarnings, **options):
    with warnings.catch_warnings():
        warnings.resetwarnings()
        how(*arguments, **options)
        return warnings.filters[0]


@pytest.mark.parametrize(
    "row",
    [
        made("ignore", Own, how=warnings.simplefilter),
        made("error", category=Own),
        made("always", category=DeprecationWarning, module=r"^sklearn\."),
        made("ignore", module="sklearn"),
        made("ignore", module=re.escape("scikit-learn.x")),
        made("ignore", message="numpy.ndarray size changed"),
        made("ignore", message="^the matrix subclass is not"),
        made("ignore", message=".*did not receive the expected"),
    ],
    ids=told,
)
def test_a_filter_for_what_is_new_is_narrow(row):
    assert is_narrow(row, OTHERS)


@pytest.mark.parametrize(
    "row",
    [
        made("ignore", how=warnings.simplefilter),
        made("error", DeprecationWarning, how=warnings.simplefilter),
        made("ignore", message=".*"),
        made("ignore", message="The"),
        made("ignore", message="(unlikely to be seen)?"),
        made("ignore", message="unlikely to be seen|"),
        made("ignore", message=r"\w+ \w+ \w+ is deprecated"),
        made("ignore", module="json"),
        made("ignore", module="numpy"),
        made("ignore", module="numpy_financialx?"),
        made("ignore", module="sklearn|json"),
        made("ignore", module=".*"),
        made("ignore", module="(a+)+$"),
        ("ignore", re.compile("u n l i k e l y", re.VERBOSE), Warning, None, 0),
        ("ignore", re.compile(b"unlikely to be seen"), Warning, None, 0),
        ("ignore", "text as C code has it", Warning, "json", 0),
        ("ignore", None, "no class", None, 0),
        ("ignore",),
        object(),
    ],
    ids=told,
)
def test_a_filter_that_may_concern_others_is_not(row):
    assert not is_narrow(row, OTHERS)


def test_a_pattern_that_would_take_for_ever_is_never_run():
    row = ("ignore", re.compile("(a+)+$"), Warning, re.compile(r"(\w+)+\.$"), 0)
    assert not is_narrow(row, {"builtins", "a" * 60})


def test_a_category_is_not_asked_what_it_is():
    class Meta(type):
        def __getattribute__(cls, name):
            raise SystemExit

    category = Meta("Category", (Warning,), {"__module__": "calculator_plugin"})
    assert is_narrow(("ignore", None, category, None, 0), OTHERS)
    assert told(("ignore", None, category, None, 0)) == "(ignore, Category)"


def test_every_module_loaded_here_is_somebody_elses():
    others = {name for name in sys.modules if isinstance(sys.modules[name], types.ModuleType)}
    assert not is_narrow(made("ignore", module=re.escape("hostkit._filters")), others)
