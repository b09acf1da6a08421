"""Layerwise densities against values worked out here another way, on the paper's CIFAR ResNet-18 and on random networks.

The references use exact fractions: closed forms by sorting for what is proportional, bisection for the pyramid's root.
"""

from fractions import Fraction
from itertools import pairwise
from math import inf, nan, prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

import models
from popup.errors import UsageError
from popup.source.densities import DENSITIES, layer_densities, total_density
from popup.source.layers import Layer, find_layers

DENSITIES_P = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9]
PROPORTIONAL = ["uniform", "erk", "erk_sum", "balanced"]


def stage(wide, channels):
    """The weights of two basic blocks: two 3x3 convolutions each, and a 1x1 shortcut where the width changes."""
    shortcut = [(channels, wide, 1, 1)] if wide != channels else []
    return [(channels, wide, 3, 3), (channels, channels, 3, 3), *shortcut, *[(channels, channels, 3, 3)] * 2]


SHAPES = [(64, 3, 3, 3), *stage(64, 64), *stage(64, 128), *stage(128, 256), *stage(256, 512), (10, 512)]
RESNET = [Layer(f"layer{place}.weight", shape) for place, shape in enumerate(SHAPES)]


def ratio(name, shape):
    """What p_l is in proportion to, as the paper and Evci et al. write it."""
    wide, high, *kernel = shape
    if name == "uniform":
        return Fraction(1)
    if name == "balanced":
        return Fraction(1, prod(shape))
    size = 0 if not kernel else prod(kernel) if name == "erk" else sum(kernel)
    return Fraction(wide + high + size, wide * high * prod(kernel))


def proportional(name, shapes, p):
    """p_l = scale * ratio, before any is cut at 1."""
    ratios, sizes = [ratio(name, shape) for shape in shapes], [prod(shape) for shape in shapes]
    scale = Fraction(p) * sum(sizes) / sum(r * m for r, m in zip(ratios, sizes, strict=True))
    return [scale * r for r in ratios]


def filled(name, shapes, p):
    """min(1, level * ratio) with the total p: try full sets from none to all, by falling ratio; one level is consistent."""
    ratios, sizes = [ratio(name, shape) for shape in shapes], [prod(shape) for shape in shapes]
    order = sorted(range(len(shapes)), key=lambda place: -ratios[place])
    for full in range(len(order)):
        free = order[full:]
        budget = Fraction(p) * sum(sizes) - sum(sizes[place] for place in order[:full])
        level = budget / sum(ratios[place] * sizes[place] for place in free)
        if level * ratios[free[0]] <= 1:
            return [min(Fraction(1), level * r) for r in ratios]
    return [Fraction(1)] * len(shapes)


def pyramid(shapes, p):
    """r^l with r from 50 exact bisections: two rationals 2^-50 apart enclose the root of sum(r^l m_l) = p sum(m_l)."""
    sizes = [prod(shape) for shape in shapes]
    low, high = Fraction(0), Fraction(1)
    for _ in range(50):
        middle = (low + high) / 2
        total = sum(m * middle**depth for depth, m in enumerate(sizes, 1))
        low, high = (low, middle) if total > Fraction(p) * sum(sizes) else (middle, high)
    return [low**depth for depth in range(1, len(sizes) + 1)]


def test_the_shapes_are_those_of_the_paper_and_of_the_model():
    assert len(SHAPES) == 21 and sum(map(prod, SHAPES)) == 11_164_352
    assert [layer.shape for layer in find_layers(models.resnet18((3, 32, 32), 10))] == SHAPES


@pytest.mark.parametrize("p", DENSITIES_P)
@pytest.mark.parametrize("name", PROPORTIONAL)
def test_resnet_proportional_densities_with_redistribution(name, p):
    assert layer_densities(RESNET, p, name) == pytest.approx([float(v) for v in filled(name, SHAPES, p)], rel=1e-12)


@pytest.mark.parametrize("p", DENSITIES_P)
@pytest.mark.parametrize("name", PROPORTIONAL)
def test_resnet_proportional_densities_with_plain_clipping(name, p):
    wanted = [float(min(Fraction(1), value)) for value in proportional(name, SHAPES, p)]
    assert layer_densities(RESNET, p, name, redistribute=False) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("p", DENSITIES_P)
@pytest.mark.parametrize("redistribute", [True, False])
def test_resnet_pyramidal_densities(p, redistribute):
    wanted = [float(value) for value in pyramid(SHAPES, p)]
    assert layer_densities(RESNET, p, "pyramidal", redistribute) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("p", [1e-6, 1e-3, *DENSITIES_P, 0.999, 1.0])
@pytest.mark.parametrize("name", DENSITIES)
def test_resnet_totals_are_p(name, p):
    p_l = layer_densities(RESNET, p, name)
    assert abs(total_density(RESNET, p_l) - p) < 1e-9
    assert all(0 < value <= 1 for value in p_l)


@pytest.mark.parametrize(("name", "total"), [("erk", 0.39), ("balanced", 0.27), ("uniform", 0.5)])
def test_plain_clipping_at_one_half_leaves_what_design_says(name, total):
    wanted = [min(Fraction(1), value) for value in proportional(name, SHAPES, 0.5)]
    exact = sum(value * prod(shape) for value, shape in zip(wanted, SHAPES, strict=True)) / sum(map(prod, SHAPES))
    assert float(exact) == pytest.approx(total, abs=0.005)
    assert total_density(RESNET, layer_densities(RESNET, 0.5, name, redistribute=False)) == pytest.approx(float(exact))


def test_the_shape_of_each_density():
    uniform, erk, pyramidal, balanced = (layer_densities(RESNET, 0.01, name)
                                         for name in ("uniform", "erk", "pyramidal", "balanced"))
    assert set(uniform) == {0.01}
    largest = [value for value, shape in zip(erk, SHAPES, strict=True) if shape == (512, 512, 3, 3)]
    assert erk[-1] == 1 and erk[0] > 0.5 and set(largest) == {min(erk)}, "small layers are dense, large ones sparse"
    assert all(later / earlier == pytest.approx(pyramidal[0]) for earlier, later in pairwise(pyramidal))
    free = [value * layer.entries for value, layer in zip(balanced, RESNET, strict=True) if value < 1]
    assert free == pytest.approx([free[0]] * len(free))


def test_erk_forms_differ_by_the_filter_alone():
    linear = [Layer("a", (10, 20)), Layer("b", (30, 10))]
    assert layer_densities(linear, 0.1, "erk") == layer_densities(linear, 0.1, "erk_sum")
    assert layer_densities(RESNET, 0.1, "erk") != layer_densities(RESNET, 0.1, "erk_sum")


def test_a_small_example_by_hand():
    """m = (4, 8, 12). Balanced at p = 1/2: x = 12/3 = 4 fills layer a. Pyramidal at p = 7/24: 4/2 + 8/4 + 12/8 is 5.5."""
    layers = [Layer("a", (2, 2)), Layer("b", (4, 2)), Layer("c", (3, 4))]
    assert layer_densities(layers, 0.5, "balanced") == pytest.approx([1, 1 / 2, 1 / 3])
    assert layer_densities(layers, 0.75, "balanced") == pytest.approx([1, 7 / 8, 7 / 12])
    assert layer_densities(layers, 0.75, "balanced", redistribute=False) == pytest.approx([1, 3 / 4, 1 / 2])
    assert layer_densities(layers, 5.5 / 24, "pyramidal") == pytest.approx([1 / 2, 1 / 4, 1 / 8])


SHAPE = st.one_of(st.tuples(st.integers(1, 200), st.integers(1, 200)),
                  st.tuples(st.integers(1, 99), st.integers(1, 99), st.integers(1, 7)),
                  st.tuples(st.integers(1, 99), st.integers(1, 99), st.integers(1, 5), st.integers(1, 5)))


@given(shapes=st.lists(SHAPE, min_size=1, max_size=12), p=st.floats(1e-6, 1.0), name=st.sampled_from(PROPORTIONAL))
def test_any_network_redistributed_is_the_water_filling(shapes, p, name):
    layers = [Layer(str(place), shape) for place, shape in enumerate(shapes)]
    p_l = layer_densities(layers, p, name)
    assert p_l == pytest.approx([float(v) for v in filled(name, shapes, p)], rel=1e-9, abs=1e-12)


@given(shapes=st.lists(SHAPE, min_size=1, max_size=30), p=st.one_of(st.just(1.0), st.floats(1e-6, 1.0)),
       name=st.sampled_from(sorted(DENSITIES)))
def test_any_network_keeps_its_total_and_clipping_never_exceeds_it(shapes, p, name):
    layers = [Layer(str(place), shape) for place, shape in enumerate(shapes)]
    spread, clipped = (layer_densities(layers, p, name, redistribute) for redistribute in (True, False))
    assert abs(total_density(layers, spread) - p) < 1e-9
    assert total_density(layers, clipped) < p + 1e-9
    assert all(0 <= low <= high * (1 + 1e-9) <= 1 + 1e-9 for low, high in zip(clipped, spread, strict=True))
    assert max(spread) <= 1


@given(shapes=st.lists(SHAPE, min_size=1, max_size=8), pair=st.tuples(st.floats(1e-4, 1.0), st.floats(1e-4, 1.0)),
       name=st.sampled_from(sorted(DENSITIES)))
def test_every_density_grows_with_p(shapes, pair, name):
    layers = [Layer(str(place), shape) for place, shape in enumerate(shapes)]
    low, high = (layer_densities(layers, p, name) for p in sorted(pair))
    assert all(a <= b * (1 + 1e-9) for a, b in zip(low, high, strict=True))


def test_a_mapping_gives_each_layer_its_own():
    layers = [Layer("a", (2, 2)), Layer("b", (2, 2))]
    assert layer_densities(layers, None, {"b": 0.25, "a": 1}) == [1.0, 0.25]
    assert total_density(layers, [1.0, 0.25]) == 0.625


@pytest.mark.parametrize(("mapping", "words"), [
    ({"a": 0.5}, "no p_l for 'b'"), ({"a": 0.5, "b": 0.5, "bb": 0.5}, "'bb'"), ({}, "no p_l for 'a'"),
    ({"a": 0, "b": 1}, "p_l of a is 0"), ({"a": 1, "b": 1.5}, "p_l of b is 1.5"), ({"a": nan, "b": 1}, "p_l of a is nan"),
    ({"a": "x", "b": 1}, "p_l of a is 'x'")])
def test_a_mapping_that_does_not_fit_is_refused_by_name(mapping, words):
    with pytest.raises(UsageError, match=words):
        layer_densities([Layer("a", (2, 2)), Layer("b", (2, 2))], None, mapping)


@pytest.mark.parametrize("p", [0, -1, 1.1, nan, inf, None, "0.2"])
def test_a_p_outside_0_to_1_is_refused(p):
    with pytest.raises(UsageError, match="er_p is"):
        layer_densities(RESNET, p, "erk")


def test_an_unknown_density_offers_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'pyramidal'"):
        layer_densities(RESNET, 0.1, "pyramid")
