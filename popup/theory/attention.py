"""Attention at toy size: a ticket of a random head whose products of query and key, and of value and output, are a target's.

A head computes softmax(x A x') x B with A = W_q W_k' and B = W_v W_o, of a source whose four weights are random and whose key and
value dimension n is large. There is no activation between the two weights of a product, so each of the n inner neurons is a
univariate copy: of the edges to it, from the first weight, one is kept, and so it has w x_i. A[i, j] is then a sum over the edges
between the copies of input i and output j, as any parameter is (subset_sum.py). That the key and value dimension plays the part
of the hidden width is what arXiv 2511.04217 shows (abstract read); the construction is this project's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from popup.source.layer_source import draw_layer
from popup.source.layers import Layer
from popup.source.recipe import Recipe
from popup.source.streams import Stream
from popup.theory.copies import NONE, deal
from popup.theory.kept import MOST_SPARE
from popup.theory.sums import solve
from popup.ticket.hashes import hash_array
from popup.ticket.layer import TicketLayer

DIMENSIONS, FEATURES = (24, 48, 72, 96, 144, 192, 288), 4  # of keys and values, and of tokens, that are measured
FINE = 1e-5   # tolerance of the sums then
CONSTANT = 1  # a column that `deal` has for a constant, which no head has


@dataclass(frozen=True)
class BuiltProduct:
    """The two layers of a product as a ticket has them, for either some edges of inner neurons that nothing uses, and how far
    each entry of the product is from the target's [in, out]."""

    layers: tuple[TicketLayer, TicketLayer]
    spare: tuple[np.ndarray, np.ndarray]
    error: np.ndarray


def build_product(goal: np.ndarray, recipe: Recipe, layers: Sequence[Layer], p_l: Sequence[float], transposed: bool,
                  tolerance: float) -> BuiltProduct:
    """x -> x @ goal [in, out] by two linear layers with no activation between: the first [n, in], the second [out, n]; or, of
    query and key, which meet in a scalar product, [n, out] (`transposed`)."""
    first, second = (draw_layer(recipe, layer, density) for layer, density in zip(layers, p_l, strict=True))
    inner, inputs = layers[0].shape
    weights = [np.zeros(layer.entries, dtype=np.float32) for layer in layers]
    for full, source in zip(weights, (first, second), strict=True):
        full[source.edges] = source.values
    below = np.concatenate([weights[0].reshape(inner, inputs), np.zeros((inner, CONSTANT), dtype=np.float32)], axis=1)
    copies, kept = deal(below, [1], signed=True)
    above = weights[1].reshape(layers[1].shape)
    above = np.ascontiguousarray(above.T) if transposed else above  # [out, n]
    columns = [copies.of(unit) for unit in range(inputs)]
    chosen, sums = solve(above, copies, columns, np.arange(len(above)), np.ascontiguousarray(goal.T), tolerance, 1)
    used = chosen.any(0) & (copies.unit != NONE)
    masks = [(kept[:, :inputs] & used[:, None]).reshape(-1), (chosen.T if transposed else chosen).reshape(-1)]
    made = [TicketLayer(source.spec, source.p_l, mask[source.edges], hash_array(source.edges), hash_array(source.values))
            for mask, source in zip(masks, (first, second), strict=True)]
    idle = np.repeat(~used, inputs)[first.edges]
    return BuiltProduct((made[0], made[1]), (np.flatnonzero(idle)[:MOST_SPARE], np.zeros(0, dtype=np.int64)), sums.error.T)


def head_error(p: float, inner: int, seed: int) -> float:
    """The largest error of an entry of query times key, of a random target with entries in [-1, 1] and a source of that key
    dimension. (Of value times output it is another draw of the same.)"""
    goal = 2 * Stream(seed, "head").uniform(FEATURES**2).reshape(FEATURES, FEATURES) - 1
    recipe = Recipe(er_p=p, k=1.0, weights="uniform", scale="unit", gain=1 / sqrt(3), seed=seed)
    layers = [Layer(f"{name}.weight", (inner, FEATURES)) for name in ("query", "key")]
    return float(np.abs(build_product(goal, recipe, layers, (p, p), True, FINE).error).max())
