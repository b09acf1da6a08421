"""The frozen random weights W: one value an edge, drawn once from the layer's own stream.

The word of an entry does not depend on p_l, so two sources of one seed agree (up to their scale) wherever both
have an edge.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import sqrt

import numpy as np
from scipy.special import ndtri

from popup.errors import UsageError, check_name
from popup.source.gains import gain_of
from popup.source.layers import Layer
from popup.source.masks import CHUNK
from popup.source.streams import Stream

SMALLEST, LARGEST = 1e-27, 1e37  # of deviations: normal values, from 3e-10 to 6.2 of them, stay normal float32 numbers


def signed_constant(stream: Stream, entries: int, edges: np.ndarray) -> np.ndarray:
    """+1 or -1 with equal probability, one raw bit an entry (Ramanujan et al., 2020: signed Kaiming constant)."""
    signs = stream.bits(entries)[edges]
    return np.where(signs, np.float32(1), np.float32(-1))


def grid_quantile(share: np.ndarray) -> np.ndarray:
    """Odd multiples of 1/15 from -25/15 to 25/15, each as likely (to 2**-32), whose deviation is 1: at gain 15 whole numbers."""
    return (2 * np.floor(26 * share) - 25) / 15


def uniform_quantile(share: np.ndarray) -> np.ndarray:
    """Uniform in (-sqrt(3), sqrt(3)): the U[-1, 1] of theory at scale 'unit' and gain 1/sqrt(3)."""
    return (2 * share - 1) * sqrt(3)


def by_word(stream: Stream, entries: int, edges: np.ndarray, quantile: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`quantile` of one number in (0, 1) an entry, on the grid of odd multiples of 2**-33, so never of 1/2."""
    values = np.empty(len(edges), dtype=np.float32)
    for start in range(0, entries, CHUNK):
        words = stream.words32(min(CHUNK, entries - start))
        first, last = np.searchsorted(edges, (start, start + len(words)))
        values[first:last] = quantile((words[edges[first:last] - start].astype(np.float64) + 0.5) * 2.0**-32)
    return values


BY_WORD: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # of deviation 1, by their quantile functions
    "kaiming_normal": ndtri,  # standard normal (He et al., 2015)
    "uniform": uniform_quantile,
    "grid": grid_quantile,
}

WEIGHTS: dict[str, Callable[[Stream, int, np.ndarray], np.ndarray]] = {
    "signed_constant": signed_constant, **{name: partial(by_word, quantile=quantile) for name, quantile in BY_WORD.items()}}

SCALES: dict[str, Callable[[Layer, float, float], float]] = {
    "final": lambda layer, p_l, k: p_l * k,           # the density the layer ends with
    "edges": lambda layer, p_l, k: p_l,               # the density of S_ER alone
    "none": lambda layer, p_l, k: 1.0,                # as published code does
    "unit": lambda layer, p_l, k: 1 / layer.fan_in,   # weights of one deviation, gain, in all layers, as in theory
}


def standard_deviation(layer: Layer, p_l: float, k: float, scale: str, gain: float) -> float:
    """gain / sqrt(fan_in * density), where `scale` names the density: by default the one that the layer ends with, p_l k.

    Without that scale activations of a network that has no norms shrink from layer to layer, and it can hardly be searched:
    Conv-4 on CIFAR-10 (JPEG), p = 0.2, k = 0.5, 4 epochs, one seed, reached 60% with it and 25% without.

    No layer with an edge ends below one of its entries, so the density is taken as at least that. A bias has the deviation
    of its weight, being one from an input of 1.
    """
    layer = layer.weight or layer
    density = max(SCALES[check_name("scale", scale, SCALES)](layer, p_l, k), 1 / layer.entries)
    deviation = gain / sqrt(layer.fan_in * density)
    if not SMALLEST <= deviation <= LARGEST:
        raise UsageError(f"gain is {gain!r}: the weights of {layer.name} would have a standard deviation of "
                         f"{deviation:g}, outside what float32 holds; use one near sqrt(2)")
    return deviation


def deviations(layer: Layer, edges: np.ndarray, p_l: float, k: float, scale: str, gain: float | str) -> np.ndarray:
    """`standard_deviation` of each of the `edges` as float32, or [1] where it is one for all: a bias of several weights has in
    each part the fan_in of that part's own, and everywhere its own p_l."""
    found = np.array([standard_deviation(weight, p_l, k, scale, gain_of(gain, weight.name)) for weight in layer.weights],
                     dtype=np.float32)
    return found if len(found) == 1 else found[edges // (layer.entries // len(found))]
