"""The edges of units, counted from flat indices, against a mask that is looked at."""

import numpy as np
import pytest
import torch

from popup.source.degrees import count_degrees
from popup.source.layers import Layer
from popup.source.masks import bernoulli


@pytest.mark.parametrize("shape", [(7, 5), (6, 4, 3), (8, 3, 3, 2), (4, 1, 3, 3)])
def test_degrees_are_the_masks_sums(shape):
    layer = Layer("a", shape)
    edges = bernoulli(1, "a", layer.entries, 0.2)
    mask = torch.zeros(layer.entries)
    mask[edges] = 1
    mask = mask.view(shape)
    found = count_degrees(layer, 0.2, edges)
    assert found.into.tolist() == mask.flatten(1).sum(1).tolist()
    assert found.out.tolist() == mask.transpose(0, 1).flatten(1).sum(1).tolist()
    assert found.unfed == int((mask.flatten(1).sum(1) == 0).sum()) and found.edges == len(edges) and not found.cut
    assert found.unheard == int((mask.transpose(0, 1).flatten(1).sum(1) == 0).sum())


def test_what_is_expected_is_the_mean_over_seeds():
    layer = Layer("a", (20, 6, 2, 2))
    seen = [count_degrees(layer, 0.07, bernoulli(seed, "a", layer.entries, 0.07)) for seed in range(400)]
    for name in ("unfed", "unheard"):
        counts = [getattr(one, name) for one in seen]
        spread = np.std(counts) / len(counts) ** 0.5
        assert abs(np.mean(counts) - getattr(seen[0], f"expected_{name}")) < 4 * spread + 1e-9
    for name in ("into", "out"):
        means = [getattr(one, name).mean() for one in seen]
        assert np.mean(means) == pytest.approx(getattr(seen[0], f"expected_{name}"), rel=0.05)


def test_a_layer_without_an_edge_is_cut():
    found = count_degrees(Layer("a", (3, 4)), 0.01, np.array([], dtype=np.int64))
    assert found.cut and found.unfed == 3 and found.unheard == 4
