"""Exact selection against a brute-force sort by (-|s|, index): ties, zeros, denormal and huge scores, NaN, both scopes.

The implementations of `top`, for few and for many keys on the CPU and for a device, are all run here, on the CPU.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from popup.errors import UsageError
from popup.search import select
from popup.search.keys import Keys, magnitude_keys
from popup.search.select import Bracket, Ranked, top_globally, top_layerwise

LEAST, NORMAL, MOST = 2.0**-149, 2.0**-126, torch.finfo(torch.float32).max  # as float32 has them, for Python to tie them too
TIED = [0.0, -0.0, 1.0, -1.0, LEAST, -LEAST, NORMAL, MOST, -MOST, math.inf, -math.inf, 0.5]
SCORE = st.one_of(st.sampled_from(TIED), st.floats(width=32, allow_nan=False))
SCORES = st.lists(SCORE, min_size=1, max_size=60)
NAN_BITS = [0x7FC00000, 0x7FFFFFFF, -1, -0x400000, 0x7F800001]  # quiet, all ones, negative, signalling


def by_bracket(keys, count, bracket=None):
    chosen = np.empty(len(keys), dtype=bool)
    (bracket or Bracket()).top(keys.bits.numpy(), keys.of_bits, count, chosen)
    return torch.from_numpy(chosen)


IMPLEMENTATIONS = {"few": select.top, "many": by_bracket,
                   "device": lambda keys, count: select._top_on_device(keys.tensor(), [len(keys)], [count])}


def ranked(keys, counts, floors, places):
    """Layers that are asked about together."""
    return Ranked(Keys(torch.cat([layer.bits for layer in keys]), keys[0].of_bits), list(map(len, keys)), counts,
                  [Bracket() for _ in keys], floors, places)


def each_alone(keys, counts, floors):
    return [ranked([layer], [count], [floor], [place]) for place, (layer, count, floor) in enumerate(
        zip(keys, counts, floors, strict=True))]


def in_two(keys, counts, floors):
    """Every other layer with every other one."""
    return [ranked(keys[first::2], counts[first::2], floors[first::2], list(range(len(keys)))[first::2])
            for first in (0, 1) if keys[first::2]]


def by_layer(found, masks):
    """Each layer's mask in the network's order, of those of the groups."""
    of = {place: part for group, mask in zip(found, masks, strict=True)
          for place, part in zip(group.places, mask.split(group.sizes), strict=True)}
    return [of[place] for place in sorted(of)]


def brute_force(scores, count):
    """The places of the `count` best in a stable sort by falling |s|: ties go to the lower index."""
    return sorted(sorted(range(len(scores)), key=lambda place: -abs(scores[place]))[:count])


def brute_force_globally(layers, count):
    """Each layer's best first, then the best of all others, earlier layers and lower indices first."""
    first = {(place, brute_force(scores, 1)[0]) for place, scores in enumerate(layers) if scores}
    every = [(place, edge) for place, scores in enumerate(layers) for edge in range(len(scores))]
    rest = sorted((edge for edge in every if edge not in first), key=lambda edge: -abs(layers[edge[0]][edge[1]]))
    chosen = first | set(rest[:count - len(first)])
    return [[edge for edge in range(len(scores)) if (place, edge) in chosen] for place, scores in enumerate(layers)]


def keys_of(scores):
    return magnitude_keys(torch.tensor(scores, dtype=torch.float32))


def places(mask):
    return mask.nonzero().flatten().tolist()


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=2))
def test_keys_sort_as_the_magnitudes_do(pair):
    first, second = keys_of(pair).tensor().tolist()
    assert (first < second) == (abs(pair[0]) < abs(pair[1])) and (first == second) == (abs(pair[0]) == abs(pair[1]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_scores_of_another_dtype_are_refused_and_not_reread_as_other_numbers(dtype):
    with pytest.raises(UsageError, match="scores have dtype"):
        magnitude_keys(torch.ones(4, dtype=dtype))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@given(scores=SCORES, data=st.data())
def test_top_is_the_brute_force_sort(implementation, scores, data):
    count = data.draw(st.integers(1, len(scores)))
    keys = keys_of(scores)
    before = keys.bits.clone()
    assert places(IMPLEMENTATIONS[implementation](keys, count)) == brute_force(scores, count)
    assert places(select.top(keys, count)) == brute_force(scores, count)
    assert torch.equal(keys.bits, before)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("count", [1, 499, 500, 501, 999, 1000])
def test_a_constant_layer_keeps_its_first_edges(implementation, count):
    assert places(IMPLEMENTATIONS[implementation](keys_of([-0.5] * 1000), count)) == list(range(count))


@pytest.mark.parametrize("seed", range(5))
def test_large_layers_with_many_ties(seed):
    scores = (torch.randn(20000, generator=torch.Generator().manual_seed(seed)) * 8).round() / 8
    for count in (1, 7777, 10000, 19999):
        expected = brute_force(scores.tolist(), count)
        for implementation in IMPLEMENTATIONS.values():
            assert places(implementation(magnitude_keys(scores), count)) == expected


@given(st.lists(SCORES, min_size=2, max_size=8), st.data())
def test_a_bracket_from_other_scores_changes_nothing(history, data):
    bracket = Bracket()
    for scores in history:
        count = data.draw(st.integers(1, len(scores)))
        assert places(by_bracket(keys_of(scores), count, bracket)) == brute_force(scores, count)


@pytest.mark.parametrize("step", [0.0, 1e-4, 0.01, 1.0, 100.0])
def test_a_bracket_follows_scores_that_drift_slowly_or_jump(step):
    generator, bracket = torch.Generator().manual_seed(0), Bracket()
    scores, thin = torch.randn(5000, generator=generator) * 0.02, 0
    for _ in range(30):
        keys = magnitude_keys(scores)
        assert places(by_bracket(keys, 2500, bracket)) == brute_force(scores.tolist(), 2500)
        thin += int(((keys.tensor() - bracket.middle).abs() <= bracket.reach).sum()) < 500
        scores = scores + step * 0.02 * torch.randn(5000, generator=generator)
    if step < 0.1:
        assert thin >= 15, "a slow drift is followed by a band of less than a tenth of the scores"


@pytest.mark.parametrize("count", [0, 3])
def test_none_or_all_need_no_ranking(count):
    assert places(select.top(keys_of([1.0, 2.0, 3.0]), count)) == list(range(count))
    assert select.top(Keys(torch.zeros(0, dtype=torch.int32)), 0).shape == (0,)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@given(bits=st.lists(st.one_of(st.sampled_from(NAN_BITS), st.integers(-2**31, 2**31 - 1)), min_size=1, max_size=40),
       data=st.data())
def test_nan_of_any_bits_changes_neither_the_count_nor_the_order_of_the_rest(implementation, bits, data):
    scores = torch.tensor(bits, dtype=torch.int32).view(torch.float32)
    count = data.draw(st.integers(1, len(bits)))
    mask = IMPLEMENTATIONS[implementation](magnitude_keys(scores), count)
    assert int(mask.sum()) == count
    numbers = [place for place in range(len(bits)) if not scores[place].isnan()]
    kept = [place for place in numbers if mask[place]]
    best = brute_force([scores[place].item() for place in numbers], len(kept))
    assert kept == [numbers[place] for place in best]


@given(st.lists(st.lists(SCORE, max_size=20), min_size=1, max_size=5).filter(any), st.data())
def test_layerwise_treats_each_layer_alone(layers, data):
    counts = [data.draw(st.integers(min(1, len(scores)), len(scores))) for scores in layers]
    keys, expected = [keys_of(scores) for scores in layers], [brute_force(*pair) for pair in zip(layers, counts, strict=True)]
    for divided in (each_alone, in_two):
        found = divided(keys, counts, [1] * len(layers))
        assert [places(mask) for mask in by_layer(found, top_layerwise(found))] == expected


@given(st.lists(st.lists(SCORE, min_size=1, max_size=20), min_size=2, max_size=5), st.data())
def test_layers_together_on_a_device_are_each_ranked_alone(layers, data):
    counts = [data.draw(st.integers(1, len(scores))) for scores in layers]
    sizes = list(map(len, layers))
    mask = select._top_on_device(torch.cat([keys_of(scores).tensor() for scores in layers]), sizes, counts)
    assert [places(part) for part in mask.split(sizes)] == [brute_force(*pair) for pair in zip(layers, counts, strict=True)]


def test_many_keys_together_take_each_layers_bracket(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    layers = [(torch.randn(size, generator=generator) * 4).round() / 4 for size in (300, 500, 7, 200)]
    found = ranked([magnitude_keys(layer) for layer in layers], [100, 500, 0, 150], [1] * 4, [0, 1, 2, 3])
    expected = select.top_layerwise([found])[0]
    monkeypatch.setattr(select, "FEW", 0)
    for _ in range(3):
        assert torch.equal(top_layerwise([found])[0], expected)
    assert [bracket.reach >= 0 for bracket in found.brackets] == [True, False, False, True]


@given(st.lists(st.lists(SCORE, max_size=20), min_size=1, max_size=5).filter(any), st.data())
def test_globally_keeps_the_best_of_the_whole_and_each_layers_best(layers, data):
    counts = [data.draw(st.integers(min(1, len(scores)), len(scores))) for scores in layers]
    keys = [keys_of(scores) for scores in layers]
    before = [layer.bits.clone() for layer in keys]
    for divided in (each_alone, in_two):
        found = divided(keys, counts, [min(1, count) for count in counts])
        assert [places(mask) for mask in by_layer(found, top_globally(found))] == brute_force_globally(layers, sum(counts))
    assert all(map(torch.equal, [layer.bits for layer in keys], before)), "the keys that were handed in are not written to"


@pytest.mark.parametrize("bits", NAN_BITS)
def test_globally_each_layer_keeps_one_edge_though_another_is_all_nan(bits):
    broken = torch.full((10,), bits, dtype=torch.int32).view(torch.float32)
    masks = top_globally(each_alone([magnitude_keys(broken), keys_of([1.0, -2.0]), keys_of([0.0])], [5, 1, 1], [1] * 3))
    assert [int(mask.sum()) for mask in masks] == [5, 1, 1]
    assert places(masks[1]) == [1]


def test_globally_a_layer_without_edges_keeps_none():
    masks = top_globally(each_alone([keys_of([]), keys_of([1.0, 3.0, 2.0])], [0, 2], [0, 1]))
    assert [places(mask) for mask in masks] == [[], [1, 2]]
