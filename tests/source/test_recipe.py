"""The recipe: what it refuses, how many edges it keeps, and that layers are drawn independently of each other."""

import json
from dataclasses import asdict
from decimal import Decimal
from math import inf, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from popup.errors import UsageError
from popup.source.layer_source import LayerSource, draw, draw_layer
from popup.source.layers import Layer
from popup.source.recipe import Recipe
from popup.source.weights import WEIGHTS

FRACTIONS = [0, 0.0, -0.1, 1.0000001, 2, nan, inf, -inf, "0.5", None, True, [0.5]]


@pytest.mark.parametrize("field", ["er_p", "k"])
@pytest.mark.parametrize("value", FRACTIONS)
def test_fractions_outside_0_to_1_are_refused_by_name_and_value(field, value):
    with pytest.raises(UsageError) as error:
        Recipe(**{field: value})
    assert str(error.value).startswith(f"{field} is {value!r}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize(("field", "value", "hint"), [
    ("density", "erkk", "'erk'"), ("mask", "bernouli", "'bernoulli'"), ("weights", "kaiming", "'kaiming_normal'"),
    ("scale", "finl", "'final'"), ("gain", 0, "number"), ("gain", inf, "number"), ("gain", nan, "number"),
    ("seed", -1, "whole"), ("seed", 1.5, "whole"), ("seed", True, "whole"), ("seed", "0", "whole"),
    ("connected", "no", "True or False"), ("connected", None, "True or False"), ("redistribute", 1, "True or False")])
def test_other_bad_values_are_refused_with_the_remedy(field, value, hint):
    with pytest.raises(UsageError, match=field) as error:
        Recipe(**{field: value})
    assert hint in str(error.value) and repr(value) in str(error.value)


def test_whole_numbers_are_the_same_recipe_and_the_same_bytes():
    one, other = Recipe(er_p=1, k=1, gain=1), Recipe(er_p=1.0, k=1.0, gain=1.0)
    assert one == other and json.dumps(asdict(one)) == json.dumps(asdict(other))


def test_a_given_density_needs_its_mapping():
    with pytest.raises(UsageError, match="mapping"):
        Recipe(density="given").densities([Layer("a", (2, 2))])


def test_the_record_gives_the_recipe_back():
    before = Recipe(er_p=0.3, k=0.7, density="erk", seed=12)
    later = Recipe(k=0.7, count="ceil", skip=("*.head",), only=("blocks.*",))
    assert before.record().keys() == {"er_p", "k", "density", "redistribute", "mask", "bias", "weights", "scale", "gain", "seed"}
    for recipe in (before, later):
        assert Recipe(**recipe.record()) == recipe and recipe.record().items() <= asdict(recipe).items()


@given(st.floats(1e-6, 1.0), st.integers(0, 10**6))
def test_kept_is_the_law_in_decimal_arithmetic(k, edges):
    source = LayerSource(Layer("a", (1, 1)), 1.0, np.zeros(edges), np.zeros(0))
    law = max(1, int(Decimal(repr(k)) * edges + Decimal("0.5")))
    assert source.kept_at(k) == (law if edges else 0)
    assert source.kept_at(k) <= edges


def test_a_source_without_any_edge_is_refused():
    with pytest.raises(UsageError, match=r"er_p 1e-09 leaves no edge in any of the 2 layers \(24 weights"):
        draw(Recipe(er_p=1e-9), [Layer("a", (3, 4)), Layer("b", (4, 3))], [1e-9, 1e-9])


def test_one_layer_without_an_edge_is_not_refused():
    source = draw(Recipe(), [Layer("a", (3, 4)), Layer("b", (4, 3))], [1e-9, 1.0])
    assert [len(layer.edges) for layer in source] == [0, 12]
    assert [layer.kept_at(0.5) for layer in source] == [0, 6]


@pytest.mark.parametrize("kind", WEIGHTS)
def test_a_layer_is_the_same_whatever_else_the_network_holds(kind):
    recipe = Recipe(weights=kind, seed=5)
    layers = [Layer("a", (30, 4)), Layer("b", (4, 30)), Layer("c", (4, 30))]
    alone = draw_layer(recipe, layers[1], 0.4)
    among = draw(recipe, layers, [0.1, 0.4, 0.4])
    assert np.array_equal(alone.edges, among[1].edges) and np.array_equal(alone.values, among[1].values)
    assert not np.array_equal(among[1].edges, among[2].edges), "the same shape under another name is another draw"


def test_sources_of_one_seed_at_two_densities_are_nested_and_agree_in_sign():
    small, large = (draw_layer(Recipe(), Layer("a", (50, 40)), p) for p in (0.2, 0.6))
    among = np.searchsorted(large.edges, small.edges)
    assert np.array_equal(large.edges[among], small.edges)
    assert np.array_equal(np.sign(large.values[among]), np.sign(small.values))


def test_an_edge_has_a_weight_that_is_given_and_not_zero():
    given = np.arange(12.0) - 5  # the sixth is 0
    recipe, layer = Recipe(weights="given"), Layer("a", (3, 4))
    with pytest.raises(UsageError, match="a has the weight 0 at 1 of its 12 edges"):
        draw_layer(recipe, layer, 1.0, given)
    edges = np.flatnonzero(given)
    assert np.array_equal(draw_layer(recipe, layer, 11 / 12, given, edges).values, given[edges].astype(np.float32))
    with pytest.raises(UsageError, match="a has the weight 0 at 11 of its 11 edges, and has no other weight"):
        draw_layer(recipe, layer, 11 / 12, np.full(12, 1e-60), edges)  # of float64: none that float32 has
