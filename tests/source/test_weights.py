"""Frozen weights: their scale and distribution, and that an entry's weight depends on seed, name and place alone."""

from math import sqrt

import numpy as np
import pytest
from scipy import stats

from popup.errors import UsageError
from popup.source import weights
from popup.source.layer_source import draw_layer, draw_values
from popup.source.layers import Layer
from popup.source.recipe import Recipe
from popup.source.streams import Stream
from popup.source.weights import SCALES, WEIGHTS, standard_deviation

LAYER = Layer("a.weight", (64, 32, 3, 3))
ALL = np.arange(LAYER.entries)
RARE = 1e-4


def normal(edges, entries=LAYER.entries):
    """Standard normal weights of some edges, from a stream of their own each time."""
    return WEIGHTS["kaiming_normal"](Stream(0, "weights", LAYER.name), entries, edges)


@pytest.mark.parametrize(("scale", "density"), [("final", 0.2 * 0.5), ("edges", 0.2), ("none", 1.0),
                                                ("unit", 1 / (32 * 9))])
def test_the_standard_deviation_is_gain_over_root_of_fan_in_times_density(scale, density):
    assert standard_deviation(LAYER, 0.2, 0.5, scale, 1.5) == pytest.approx(1.5 / sqrt(32 * 9 * density), rel=1e-15)


def test_the_standard_deviation_counts_on_one_entry_at_least():
    for p_l, k in ((1e-300, 1e-300), (1.0, 5e-324), (5e-324, 1.0)):
        assert standard_deviation(LAYER, p_l, k, "final", 1.0) == pytest.approx(sqrt(LAYER.entries / LAYER.fan_in))


@pytest.mark.parametrize("gain", [1e-60, 5e-324, 1e60, 1e308])
def test_a_gain_that_float32_cannot_hold_is_refused(gain):
    with pytest.raises(UsageError, match=r"gain is .* a\.weight"):
        draw_layer(Recipe(gain=gain), LAYER, 0.2)


def test_the_same_fan_in_for_linear_and_grouped_convolution():
    assert [Layer("a", shape).fan_in for shape in ((5, 7), (8, 2, 3, 3), (4, 1, 5), (2, 3, 1, 2, 2))] == [7, 18, 5, 12]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind", WEIGHTS)
def test_drawn_weights_have_the_deviation_that_was_asked_for(kind, scale):
    recipe = Recipe(weights=kind, scale=scale, k=0.5)
    values = draw_layer(recipe, LAYER, 0.7).values
    assert values.dtype == np.float32 and (values != 0).all() and np.isfinite(values).all()
    wanted = standard_deviation(LAYER, 0.7, 0.5, scale, recipe.gain)
    assert np.sqrt(np.mean(values.astype(float) ** 2)) == pytest.approx(wanted, rel=0.02)


def test_signed_constant_is_two_values_as_likely():
    values = weights.signed_constant(Stream(0, "weights", LAYER.name), LAYER.entries, ALL)
    assert set(values.tolist()) == {-1.0, 1.0}
    assert stats.binomtest(int((values > 0).sum()), len(values)).pvalue > RARE


def test_kaiming_normal_is_normal():
    values = normal(ALL).astype(float)
    assert stats.kstest(values, "norm").pvalue > RARE


def test_uniform_is_uniform_and_in_unit_scale_between_minus_one_and_one():
    recipe = Recipe(weights="uniform", scale="unit", gain=1 / sqrt(3))
    values = draw_layer(recipe, LAYER, 1.0).values.astype(float)
    assert stats.kstest(values, "uniform", (-1, 2)).pvalue > RARE
    assert 0.999 < np.abs(values).max() <= 1 + 1e-7


@pytest.mark.parametrize("word", [0, 2**31 - 1, 2**31, 2**32 - 1])
def test_uniform_is_never_zero_at_the_extreme_words(monkeypatch, word):
    monkeypatch.setattr(Stream, "words32", lambda self, count: np.full(count, word, dtype="<u4"))
    values = WEIGHTS["uniform"](Stream(0, "weights", LAYER.name), 6, np.arange(6))
    assert (values != 0).all() and np.abs(values[0]) <= np.float32(sqrt(3))


@pytest.mark.parametrize("word", [0, 2**31 - 1, 2**31, 2**32 - 1])
def test_kaiming_normal_is_finite_and_never_zero_at_the_extreme_words(monkeypatch, word):
    monkeypatch.setattr(Stream, "words32", lambda self, count: np.full(count, word, dtype="<u4"))
    values = normal(np.arange(6), 6)
    assert np.isfinite(values).all() and (values != 0).all()
    assert values[0] == pytest.approx(stats.norm.ppf((word + 0.5) / 2**32), rel=1e-6)


@pytest.mark.parametrize("kind", WEIGHTS)
def test_an_entry_has_the_same_weight_whichever_others_are_edges(kind):
    recipe, some = Recipe(weights=kind), ALL[ALL % 7 == 2]
    assert np.array_equal(draw_values(recipe, LAYER, 0.2, some), draw_values(recipe, LAYER, 0.2, ALL)[some])
    assert len(draw_values(recipe, LAYER, 0.2, ALL[:0])) == 0


@pytest.mark.parametrize("kind", WEIGHTS)
def test_another_purpose_is_an_independent_draw(kind):
    recipe = Recipe(weights=kind)
    source, other = draw_values(recipe, LAYER, 0.2, ALL), draw_values(recipe, LAYER, 0.2, ALL, "other")
    assert np.array_equal(source, draw_values(recipe, LAYER, 0.2, ALL, "weights"))
    assert stats.binomtest(int((source * other > 0).sum()), len(ALL)).pvalue > RARE


def test_chunks_do_not_show(monkeypatch):
    some = ALL[ALL % 3 == 0]
    whole = normal(some)
    monkeypatch.setattr(weights, "CHUNK", 100)
    assert np.array_equal(normal(some), whole)


@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights_do_not_follow_the_mask(kind):
    """Edges and weights come from streams of their own: knowing an entry is an edge says nothing of its sign."""
    source = draw_layer(Recipe(weights=kind), LAYER, 0.5)
    assert stats.binomtest(int((source.values > 0).sum()), len(source.values)).pvalue > RARE
