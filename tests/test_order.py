"""Which plugins are loaded before which: large graphs, circles, and what the order may depend on."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostkit import PluginSpec, RequirementError
from hostkit._order import Order
from hostkit._requirements import There

MANY = 10_000


def spec(name, *required, optional=(), version="1.0"):
    needs = {"required_plugins": list(required), "optional_plugins": list(optional)}
    return PluginSpec(name, f"{name}:P", name, version, manifest_data={"requirements": needs} if required or optional else {})


def order_of(specs):
    return Order(There({each.name: each for each in specs}))


def before(specs, name):
    return [each.name for each in order_of(specs).before(name)]


def test_ten_thousand_plugins_in_a_chain_have_an_order():
    names = [f"p{number}" for number in range(MANY)]
    specs = [spec(name, *needed) for name, *needed in zip(names, names[1:])] + [spec(names[-1])]
    assert before(specs, "p0") == names[:0:-1]


def test_ten_thousand_optional_plugins_in_a_chain_have_an_order():
    names = [f"p{number}" for number in range(MANY)]
    specs = [spec(name, optional=needed) for name, *needed in zip(names, names[1:])] + [spec(names[-1])]
    assert before(specs, "p0") == names[:0:-1]


def test_ten_thousand_plugins_in_a_circle_are_told_in_short():
    names = [f"p{number}" for number in range(MANY)]
    specs = [spec(name, needed) for name, needed in zip(names, [*names[1:], names[0]], strict=True)]
    with pytest.raises(RequirementError, match="in a circle") as caught:
        before(specs, "p0")
    assert str(caught.value).endswith("circle: p0 → p1 → p2 → p3 → p4 → p5 → ... → p9996 → p9997 → p9998 → p9999 → p0")


def test_ten_thousand_plugins_above_a_missing_one_are_told_in_short():
    names = [f"p{number}" for number in range(MANY)]
    specs = [spec(name, *needed) for name, *needed in zip(names, [*names[1:], "nobody"], strict=True)]
    with pytest.raises(RequirementError) as caught:
        before(specs, "p0")
    assert "p5 → ... → p9996 → p9997 → p9998 → p9999 → nobody (not installed): plugin 'p9999' requires" in str(caught.value)


def test_ten_thousand_plugins_in_an_optional_circle_lose_one_edge():
    names = [f"p{number:05}" for number in range(MANY)]
    specs = [spec(name, optional=[other]) for name, other in zip(names, [*names[1:], names[0]], strict=True)]
    order = order_of(specs)
    assert [len(order.before(name)) for name in (names[0], names[1], names[-1])] == [MANY - 1, MANY - 2, 0]


def test_plugins_with_many_edges_at_random_have_an_order():
    chance = random.Random(1)
    many = 2_000
    names = [f"p{number}" for number in range(many)]
    specs = [
        spec(name, *chance.sample(names[place + 1 :], min(3, many - place - 1)), optional=chance.sample(names, 3))
        for place, name in enumerate(names)
    ]
    order = before(specs, "p0")
    places = {name: place for place, name in enumerate([*order, "p0"])}
    assert all(
        places[other] < places[name]
        for name in places
        for other in specs[int(name[1:])].manifest_data.get("requirements", {}).get("required_plugins", ())
    )


def test_diamonds_upon_diamonds_are_looked_at_once_each():
    layers = [[f"l{layer}-{side}" for side in "ab"] for layer in range(200)]  # 2 ** 200 ways from top to bottom
    specs = [spec("top", *layers[0]), *(spec(name) for name in layers[-1])]
    for upper, lower in itertools.pairwise(layers):
        specs += [spec(name, *lower) for name in upper]
    order = before(specs, "top")
    assert sorted(order) == sorted(name for layer in layers for name in layer)
    assert all(order.index(upper[0]) > order.index(lower[1]) for upper, lower in itertools.pairwise(layers))


def test_the_shortest_chain_is_drawn():
    specs = [spec("a", "b", "c"), spec("b", "c"), spec("c", "d"), spec("d", "nobody>=2")]
    with pytest.raises(RequirementError, match=r"plugin 'a': a → c → d → nobody>=2 \(not installed\): plugin 'd' requires"):
        before(specs, "a")


def test_a_circle_is_broken_where_it_is_optional():
    specs = [spec("a", optional=["b"]), spec("b", "c"), spec("c", "a")]
    assert [before(specs, name) for name in "abc"] == [[], ["a", "c"], ["a"]]


def test_of_plugins_that_name_each_other_as_optional_the_first_name_has_the_other_before_it():
    specs = [spec("b", optional=["a"]), spec("a", optional=["b"])]
    assert [before(specs, name) for name in "ab"] == [["b"], []]
    assert order_of(specs).without("b") == []


def test_an_optional_plugin_that_could_not_be_loaded_is_left_out_with_all_that_only_it_needs():
    specs = [spec("a", optional=["b", "e"]), spec("b", "c", "d"), spec("c"), spec("d", "nobody"), spec("e")]
    assert before(specs, "a") == ["e"]
    assert order_of(specs).without("a") == [
        "the optional plugin 'b' can't be loaded: plugin 'b': b → d → nobody (not installed): "
        "plugin 'd' requires the plugin nobody, found no plugin of that name; install it"
    ]


NAMES = [f"p{number}" for number in range(8)]


@given(
    st.fixed_dictionaries(
        {name: st.tuples(*[st.lists(st.sampled_from([*NAMES, "nobody"]), max_size=3, unique=True)] * 2) for name in NAMES}
    ),
    st.permutations(NAMES),
)
def test_the_order_holds_whatever_is_asked_for_first(wanted, asked):
    specs = [spec(name, *required, optional=optional) for name, (required, optional) in wanted.items()]
    order = order_of(specs)
    edges = {}
    for name in asked:
        try:
            earlier = order.before(name)
        except RequirementError:
            reached = {name}
            for _ in NAMES:
                reached |= {other for each in reached for other in wanted.get(each, ((), ()))[0]}
            circle = any(each in _reached(wanted, each) for each in reached)
            assert circle or "nobody" in reached
            continue
        names = [each.name for each in earlier]
        edges[name] = set(names)
        assert len(names) == len(set(names)) and name not in names
        assert {each.name for each in earlier if each.needed} == _reached(wanted, name)
        for place, each in enumerate(earlier):
            assert set(wanted[each.name][0]) <= set(names[:place])
    # Nobody waits for somebody who waits for him.
    assert not any(name in edges.get(other, ()) for name, others in edges.items() for other in others)
    assert {name: {each.name for each in order_of(specs).before(name)} for name in edges} == edges


def _reached(wanted, name):
    """Everything that a plugin requires, directly or not."""
    found, waiting = set(), [name]
    while waiting:
        for other in wanted.get(waiting.pop(), ((), ()))[0]:
            if other not in found:
                found.add(other)
                waiting.append(other)
    return found
