"""Layerwise densities p_l of an ER network whose total density is p = sum(p_l m_l) / sum(m_l).

Source: Gadhikar, Mukherjee, Burkholz, ICML 2023 (arXiv 2210.02412), section 'Sparsity Ratios'. A new density is one
function (layers, p) -> weights to be scaled, or finished densities, and one line in DENSITIES.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from popup.errors import UsageError, check_name, check_number
from popup.source.layers import Layer

LEAST = 1e-12  # of a layer's share of its edges, of which one is kept at least

Rule = Callable[[Sequence[Layer], float], np.ndarray]


def uniform(layers: Sequence[Layer], p: float) -> np.ndarray:
    """p_l = p."""
    return np.full(len(layers), p)


def erk(layers: Sequence[Layer], p: float) -> np.ndarray:
    """p_l in proportion to (n_in + n_out + k) / (n_in n_out k), k = k1 k2 the filter's size (0 in the sum if linear).

    The paper's form (Mocanu et al., 2018, for its linear part). Others, Evci et al. 2020 among them, take
    k1 + k2 in the sum: that form is `erk_sum`.
    """
    return _proportional(layers, p, [_erk_ratio(layer, float(np.prod(layer.kernel))) for layer in layers])


def erk_sum(layers: Sequence[Layer], p: float) -> np.ndarray:
    """p_l in proportion to (n_in + n_out + k1 + k2) / (n_in n_out k1 k2), the form of Evci et al., ICML 2020."""
    return _proportional(layers, p, [_erk_ratio(layer, float(np.sum(layer.kernel))) for layer in layers])


def _erk_ratio(layer: Layer, kernel: float) -> float:
    sides, spread = layer.connects, kernel if layer.kernel else 0.0
    return (sides.outputs + sides.inputs + spread) / sides.entries


def pyramidal(layers: Sequence[Layer], p: float) -> np.ndarray:
    """p_l = r^l for l = 1..L, r in (0, 1] the root of sum(r^l m_l) = p sum(m_l)."""
    entries = np.array([layer.entries for layer in layers], dtype=float)
    depth = np.arange(1, len(layers) + 1)
    if p == 1:
        return np.ones(len(layers))

    from scipy.optimize import brentq  # a third of a second of import that no other density needs

    def excess(root: float) -> float:
        return float(np.sum(root**depth * entries) / np.sum(entries) - p)

    close: Any = 8.9e-16  # pyright reads from scipy's default that it has to be a number of numpy
    root: Any = brentq(excess, 0.0, 1.0, xtol=1e-16, rtol=close, maxiter=1000)
    return np.asarray(root**depth)


def balanced(layers: Sequence[Layer], p: float) -> np.ndarray:
    """p_l = x / m_l with x = (p / L) sum(m_l): the same number of edges in every layer."""
    return _proportional(layers, p, [1.0 / layer.entries for layer in layers])


DENSITIES: dict[str, Rule] = {
    "uniform": uniform, "erk": erk, "erk_sum": erk_sum, "pyramidal": pyramidal, "balanced": balanced}


def layer_densities(layers: Sequence[Layer], p: float | None, density: str | Mapping[str, float] = "uniform",
                    redistribute: bool = True) -> list[float]:
    """The density p_l of each layer, in the order of `layers`.

    A rule's density above 1 becomes 1. With `redistribute` what it could not take is spread over the other layers
    by the same rule, so that the total is p (to 1e-12); without, the paper's plain clipping, and the total falls short.
    `density` may also map each layer's name to its p_l; `p` is then not used.
    """
    if isinstance(density, Mapping):
        return _given(layers, density)
    p = check_number("er_p", p, 0.0, 1.0, open_low=True)
    rule = DENSITIES[check_name("density", density, DENSITIES)]
    wanted = rule(layers, p)
    return [float(value) for value in (
        _spread(layers, p, wanted, np.ones(len(layers))) if redistribute else np.minimum(wanted, 1.0))]


def layer_shares(layers: Sequence[Layer], p_l: Sequence[float], k: float, density: str) -> list[float]:
    """The fraction k_l of its edges that each layer of a source of densities `p_l` keeps, so that the rule `density` spreads what
    is kept, which is k of all edges.

    A layer of which the rule wants more than its edges keeps all of them, and the others have the rest by the same rule.
    """
    edges, total = np.array(p_l, dtype=float), k * total_density(layers, p_l)
    if k == 1:
        return [1.0] * len(layers)
    wanted = _spread(layers, total, DENSITIES[density](layers, total), edges)
    shares = np.divide(wanted, edges, out=np.ones(len(layers)), where=edges > 0).clip(LEAST, 1.0)
    return [float(f"{share:.12g}") for share in shares]  # so that k of a product is k, and half an edge is a half


def total_density(layers: Sequence[Layer], p_l: Sequence[float]) -> float:
    """p = sum(p_l m_l) / sum(m_l)."""
    entries = sum(layer.entries for layer in layers)
    return sum(p * layer.entries for p, layer in zip(p_l, layers, strict=True)) / entries


def _proportional(layers: Sequence[Layer], p: float, ratio: Sequence[float]) -> np.ndarray:
    """The multiple of `ratio` whose total density is p; single values may lie above 1."""
    entries = np.array([layer.entries for layer in layers], dtype=float)
    return np.array(ratio) * (p * entries.sum() / np.dot(ratio, entries))


def _spread(layers: Sequence[Layer], p: float, wanted: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Set densities above the `most` of their layers to that and scale the others up to the total p, until none is above."""
    entries = np.array([layer.entries for layer in layers], dtype=float)
    full = np.zeros(len(layers), dtype=bool)
    while (wanted > most).any():
        full |= wanted >= most
        left = max(0.0, p * entries.sum() - (most * entries)[full].sum())
        free = np.dot(wanted[~full], entries[~full])
        scale = left / free if free else 0.0
        wanted = np.where(full, most, wanted * scale)
    return wanted


def _given(layers: Sequence[Layer], density: Mapping[str, float]) -> list[float]:
    """The densities of a mapping that must name each layer once, and nothing else."""
    names = [layer.name for layer in layers]
    for name in density:
        check_name("layer in the density mapping", name, names)
    missing = [name for name in names if name not in density]
    if missing:
        raise UsageError(f"the density mapping has no p_l for {missing[0]!r}: name every layer ({len(names)} here)")
    return [float(check_number(f"p_l of {name}", density[name], 0.0, 1.0, open_low=True)) for name in names]
