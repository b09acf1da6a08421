"""A layer drawn in blocks of rows is the layer drawn at once, bit for bit."""

import numpy as np
import pytest

from popup.source import blocks
from popup.source.layer_source import draw_layer
from popup.source.layers import Layer
from popup.source.recipe import Recipe
from popup.source.weights import BY_WORD
from popup.ticket.hashes import RunningHash, hash_array


@pytest.mark.parametrize("weights", BY_WORD)
@pytest.mark.parametrize("shape", [(9, 7), (5, 3, 3), (4, 4096)])
@pytest.mark.parametrize("entries", [1, 20, 10**9])
def test_blocks_are_the_whole_draw(weights, shape, entries):
    """Of odd rows a block begins in the middle of a raw word."""
    recipe = Recipe(er_p=0.4, k=1.0, weights=weights, scale="unit", gain=0.7, seed=3)
    layer = Layer("1.weight", shape)
    whole, parts = draw_layer(recipe, layer, 0.4), list(blocks.draw_blocks(recipe, layer, 0.4, entries))
    assert [row for rows, _ in parts for row in rows] == list(range(shape[0]))
    assert len(parts) == (1 if entries > 10**8 else -(-shape[0] // max(1, entries // np.prod(shape[1:]))))
    for name in ("edges", "values"):
        joined = np.concatenate([getattr(part, name) for _, part in parts])
        assert joined.dtype == getattr(whole, name).dtype and np.array_equal(joined, getattr(whole, name))
        running = RunningHash()
        for _, part in parts:
            running.add(getattr(part, name))
        assert running.hex() == hash_array(getattr(whole, name))


def test_what_cannot_be_drawn_in_blocks_comes_as_one():
    layer = Layer("1.weight", (6, 5))
    for recipe in (Recipe(er_p=0.5, mask="exact"), Recipe(er_p=0.5, weights="signed_constant")):
        ((rows, source),) = blocks.draw_blocks(recipe, layer, 0.5, 5)
        assert rows == range(6) and np.array_equal(source.edges, draw_layer(recipe, layer, 0.5).edges)


def test_weights_on_a_grid_are_whole_numbers_at_gain_15():
    recipe = Recipe(er_p=1.0, k=1.0, weights="grid", scale="unit", gain=15.0)
    values = draw_layer(recipe, Layer("1.weight", (100, 100)), 1.0).values
    found, counts = np.unique(values, return_counts=True)
    assert np.array_equal(found, np.arange(-25, 26, 2)) and np.abs(counts / 10_000 - 1 / 26).max() < 0.01
