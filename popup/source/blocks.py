"""A layer of the source drawn a block of rows at a time, so that a large one never has all its edges in memory.

Each word of a stream belongs to one entry, so what a block holds is what the whole draw has there, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from popup.source.layer_source import LayerSource, draw_layer
from popup.source.layers import Layer
from popup.source.masks import words_below
from popup.source.recipe import Recipe
from popup.source.streams import Stream
from popup.source.weights import BY_WORD, by_word, deviations

BLOCK = 1 << 25  # entries of a block, about


def drawn_by_block(recipe: Recipe, layer: Layer) -> bool:
    """Whether a block can be drawn without the rest: edges and weights are of one 32-bit word an entry."""
    return recipe.mask == "bernoulli" and not recipe.connected and recipe.weights in BY_WORD and not layer.further


def draw_blocks(recipe: Recipe, layer: Layer, p_l: float, entries: int = BLOCK) -> Iterator[tuple[range, LayerSource]]:
    """The layer in blocks of whole rows of about that many entries: the rows, and their edges (flat in the whole layer) and
    weights. A source that cannot be drawn in blocks comes as one."""
    size, count = prod(layer.shape[1:]), layer.shape[0]
    if not drawn_by_block(recipe, layer):
        yield range(count), draw_layer(recipe, layer, p_l)
        return
    together = max(1, entries // size)
    for first in range(0, count, together):
        rows = range(first, min(first + together, count))
        yield rows, _block(recipe, layer, p_l, rows.start * size, rows.stop * size)


def _block(recipe: Recipe, layer: Layer, p_l: float, start: int, stop: int) -> LayerSource:
    """The edges among the entries from `start` to `stop`, with their weights."""
    even = start - start % 2  # a raw word has two entries
    edges, weights = (Stream(recipe.seed, purpose, layer.name).skip(even // 2) for purpose in ("edges", "weights"))
    found = words_below(edges, stop - even, p_l)
    values = by_word(weights, stop - even, found, BY_WORD[recipe.weights])
    values *= deviations(layer, found, p_l, recipe.k, recipe.scale, recipe.gain)
    found += even
    first = np.searchsorted(found, start)
    return LayerSource(layer, p_l, found[first:], values[first:])
