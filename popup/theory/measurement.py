"""The law measured: how many copies of a neuron a parameter needs in a real ER source, against p and the tolerance."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log, sqrt

import numpy as np

from popup.source.layer_source import draw_edges, draw_layer
from popup.source.layers import Layer
from popup.source.recipe import Recipe
from popup.source.streams import Stream
from popup.theory.law import SHARE
from popup.theory.odds import PRODUCT
from popup.theory.subset_sum import MOST_CANDIDATES, best_subsets, few_edges


@dataclass(frozen=True)
class Requirement:
    """The least numbers of candidates, and of copies q, with which all but a share `delta` of the parameters are met; infinite
    where more than MOST_CANDIDATES candidates are needed. `edges`: those of a parameter that is met, with its least number of
    candidates, on average."""

    p: float
    epsilon: float
    candidates: float
    copies: float
    delta: float = 1 - SHARE
    edges: float = 0.0


def measure_requirements(p: float, epsilons: Sequence[float], parameters: int, seed: int, products: bool = False,
                         deltas: Sequence[float] = (1 - SHARE,)) -> list[Requirement]:
    """One subset sum for each of `parameters` neurons over the edges that S_ER left it, in their order.

    Weights are uniform in [-1, 1], parameters too. `products`: as in the first layer, weights times those of univariate
    neurons, and parameters in [-PRODUCT, PRODUCT].
    """
    values, reach, goals = draw_candidates(p, parameters, seed)
    if products:
        values *= Stream(seed, "univariate", f"law/{p}").uniform(values.size).reshape(values.shape)
        goals *= PRODUCT
    errors = smallest_errors(values, goals, min(epsilons))
    return [row for epsilon in epsilons for row in _requirements(p, epsilon, errors <= epsilon, reach, values, goals, deltas)]


def draw_candidates(p: float, parameters: int, seed: int,
                    most: int = MOST_CANDIDATES) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The weights [parameters, most] of the first edges that S_ER left each, the copies [parameters, most + 1] among which it has
    0, 1, .. of them, and the parameters, all uniform in [-1, 1]."""
    columns = 8 + int(2 * most / p + 8 * sqrt(most) / p)
    recipe = Recipe(er_p=p, k=1.0, weights="uniform", scale="unit", gain=1 / sqrt(3), seed=seed)
    source = draw_layer(recipe, Layer("law", (parameters, columns)), p)
    rows, places = np.divmod(source.edges, columns)
    order = np.arange(len(rows)) - np.searchsorted(rows, rows)  # an edge's place among those of its row
    first = order < most
    values, reach = np.zeros((parameters, most)), np.full((parameters, most + 1), inf)
    values[rows[first], order[first]] = source.values[first]
    reach[rows[first], order[first] + 1] = places[first] + 1  # copies among which a row has so many candidates
    reach[:, 0] = 0
    return values, reach, 2 * Stream(seed, "goals", f"law/{p}").uniform(parameters) - 1


def smallest_errors(values: np.ndarray, goals: np.ndarray, enough: float) -> np.ndarray:
    """The least |sum - goal| over subsets of the first 0, 1, .. n of each row's values [parameters, n]; what is within
    `enough` is not improved. Returns float64 [n + 1, parameters]."""
    errors = np.empty((values.shape[1] + 1, len(goals)))
    errors[0] = np.abs(goals)
    for count in range(1, len(errors)):
        errors[count] = errors[count - 1]
        rows = np.flatnonzero(errors[count] > enough)
        if len(rows):
            found = np.abs(best_subsets(values[rows, :count], goals[rows]).error)
            errors[count, rows] = np.minimum(errors[count, rows], found)
    return errors


def _requirements(p: float, epsilon: float, met: np.ndarray, reach: np.ndarray, values: np.ndarray, goals: np.ndarray,
                  deltas: Sequence[float]) -> list[Requirement]:
    """From `met`, bool [candidates, parameters]."""
    there = met.any(0)
    needed = np.where(there, met.argmax(0), MOST_CANDIDATES)
    copies = np.where(there, reach[np.arange(len(reach)), needed], inf)
    edges = few_edges(values[there], needed[there], goals[there], epsilon).chosen.sum(1).mean() if there.any() else 0.0
    return [Requirement(p, epsilon, _quantile(np.where(there, needed, inf), delta), _quantile(copies, delta), delta, float(edges))
            for delta in deltas]


def _quantile(values: np.ndarray, delta: float = 1 - SHARE) -> float:
    """The least value that all but a share `delta` of the values do not exceed."""
    return float(np.quantile(values, 1 - delta, method="inverted_cdf"))


def fit_constant(found: Sequence[Requirement]) -> float | None:
    """C of q = C log(1/epsilon) / log(1/(1-p)) by least squares of log q, over the finite requirements below p = 1; None if
    there is none."""
    used = [row for row in found if row.p < 1 and 0 < row.copies < inf]
    if not used:
        return None
    return float(np.exp(np.mean([log(row.copies * log(1 / (1 - row.p)) / log(1 / row.epsilon)) for row in used])))


def fit_candidates(found: Sequence[Requirement]) -> tuple[float, float] | None:
    """(a, b) of candidates = a + b log2(1/epsilon), by least squares over the finite requirements; None if they are of less
    than two epsilons, which have no slope."""
    used = [row for row in found if row.candidates < inf]
    if len({row.epsilon for row in used}) < 2:
        return None
    slope, offset = np.polyfit([-np.log2(row.epsilon) for row in used], [row.candidates for row in used], 1)
    return float(offset), float(slope)


@dataclass(frozen=True)
class Representation:
    """Exact representation with q copies of each neuron, weights free: of the pairs (copy, input it needs) the share that
    no edge joins, and of the sources the share in which none is missing."""

    p: float
    copies: int
    missing: float
    represented: float


def measure_representation(widths: Sequence[int], p: float, copies: int, sources: int) -> Representation:
    """Draw the layers between the copies of n_T,0, n_T,1, .. in `sources` ER sources and look which pairs have no edge.

    Every copy of a neuron in a hidden layer needs an edge to some copy of each neuron below; the outputs have one copy.
    """
    missing = pairs = whole = 0
    for seed in range(sources):
        lost = 0
        for place, (below, above) in enumerate(itertools.pairwise(widths)):
            rows = above * (1 if place == len(widths) - 2 else copies)
            recipe = Recipe(er_p=p, k=1.0, seed=seed)
            edges = draw_edges(recipe, Layer(f"{place}.weight", (rows, below * copies)), p)
            joined = np.zeros(rows * below, dtype=bool)
            joined[edges // copies] = True
            lost += int(len(joined) - joined.sum())
            pairs += len(joined)
        missing += lost
        whole += lost == 0
    return Representation(p, copies, missing / pairs, whole / sources)


def copies_to_represent(widths: Sequence[int], p: float, delta: float) -> float:
    """The theorem's q, the same in all layers: the least with q >= log(L m q / delta) / log(1/(1-p)), m the largest number
    of weights of a layer and the outputs' q_L = 1 not made use of."""
    most = max(below * above for below, above in itertools.pairwise(widths))
    copies = 1
    while copies < log((len(widths) - 1) * most * copies / delta) / -log(1 - p):
        copies += 1
    return copies


def least_copies(nodes: int, p: float, delta: float) -> float:
    """The lower bound: with fewer than log(1/(1-(1-delta)^(1/n))) / log(1/(1-p)) neurons in the one hidden layer some of n
    nodes has no edge to it with probability above delta."""
    return log(1 / (1 - (1 - delta) ** (1 / nodes))) / -log(1 - p)
