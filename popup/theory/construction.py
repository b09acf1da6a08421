"""The construction: S_P within S_ER of one fixed source, chosen so that f_P is near f_T. No weight is redrawn or written.

Layer 0 makes univariate copies of the inputs' branches and of the constant (copies.py). In layer l every neuron stands for
one target neuron, and each of its parameters w is the sum over a subset of the edges that S_ER left between the neuron and
the copies of the parameter's input: sum(w_j multiple_j) = multiple w, within the tolerance (subset_sum.py). All these sums
are of different edges, so they are solved independently. The outputs have one copy.

In a convolution the neurons are channels, and each tap of a channel is an input of its own: w[o, i, a, b] is a sum over the
edges at the tap (a, b) from the copies of channel i, which compute a multiple of it at every place of the map. Weights are
[out, in * taps] throughout. ReLU, max pooling and average pooling are taken of each copy by itself: they are positively
homogeneous, and move no copy further from its multiple.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import sqrt

import numpy as np

from popup.source.layers import Layer
from popup.source.recipe import LayerSource, Recipe, draw_layer
from popup.source.weights import standard_deviation
from popup.theory.budget import suprema
from popup.theory.copies import NONE, Copies, deal, pass_constant
from popup.theory.plan import Plan
from popup.theory.subset_sum import MOST_CANDIDATES, Subsets, few_edges
from popup.theory.target import Target


@dataclass(frozen=True)
class LayerFit:
    """How well the parameters of target layer l are met, over all copies: mean candidates (at most MOST_CANDIDATES are used)
    and edges a parameter, the share within tolerance, and the largest error of a parameter."""

    parameters: int
    candidates: float
    edges: float
    met: float
    largest: float
    tolerance: float


@dataclass(frozen=True)
class Construction:
    """S_P by layer, bool [edges] each; `spare` edges lead to neurons that nothing uses.

    The ticket computes `multiple` * f_T. guaranteed: a bound of |f_P / multiple - f_T| in exact arithmetic over the whole
    domain, from the edges that were chosen.
    """

    sources: tuple[LayerSource, ...]
    selected: tuple[np.ndarray, ...]
    spare: tuple[np.ndarray, ...]
    fits: tuple[LayerFit, ...]
    multiple: float
    guaranteed: float


def construct(target: Target, plan: Plan, recipe: Recipe, layers: Sequence[Layer], p_l: Sequence[float],
              threads: int = 1) -> Construction:
    """Choose S_P in the source of `recipe`, whose `layers` (l = 0 .. L, weights [out, in, *kernel]) have the plan's widths."""
    units = [sqrt(3) * standard_deviation(layer, p, recipe.k, recipe.scale, recipe.gain)  # 1 for weights in [-1, 1]
             for layer, p in zip(layers, p_l, strict=True)]
    sources = [draw_layer(recipe, layers[0], p_l[0])]
    copies, kept = deal(_matrix(sources[0]), target.branches)
    chosen, fits, scale = [kept], [], units[0]
    for place, stage in enumerate(stages(target, plan)):
        sources.append(draw_layer(recipe, layers[place + 1], p_l[place + 1]))
        scale *= units[place + 1]
        below = copies.at_taps(stage.taps, stage.inside, stage.constant // stage.taps)
        copies, kept, fit = _build_layer(_matrix(sources[-1]), below, stage, scale, threads)
        chosen.append(kept)
        fits.append(fit)
    spare = _clear_unused(chosen)
    flat = [source.edges for source in sources]
    return Construction(tuple(sources), *(tuple(mask.reshape(-1)[edges] for mask, edges in zip(masks, flat, strict=True))
                                          for masks in (chosen, spare)),
                        tuple(fits), scale, float((copies.error / scale).max()))


@dataclass(frozen=True)
class Stage:
    """One target layer as it is to be built: `goals` [out, units] its parameters by unit of the layer below and tap, the
    biases last; `bounds` [units] the largest |x| of those, `tolerance` of a parameter, `multiple` of the copies; its taps,
    the one that is never in the padding, and whether it is the last."""

    goals: np.ndarray
    bounds: np.ndarray
    tolerance: float
    multiple: float
    taps: int
    inside: int
    outputs: bool

    @property
    def constant(self) -> int:
        """The unit of the constant 1."""
        return self.goals.shape[1] - 1


def stages(target: Target, plan: Plan) -> Iterator[Stage]:
    """The target's layers from the first on; an input's branches are units of their own, w x = w relu(x) - w relu(-x)."""
    last = len(target.layers) - 1
    for place, (layer, bounds) in enumerate(zip(target.layers, suprema(target), strict=True)):
        weight = layer.weight
        if place == 0:
            weight = np.concatenate([sign * weight for sign in target.branches], axis=1)
            bounds = np.concatenate([np.full(target.widths[0], target.high if sign > 0 else -target.low)
                                     for sign in target.branches])
        yield Stage(np.concatenate([weight, layer.bias[:, None]], axis=1), np.append(np.repeat(bounds, layer.taps), 1.0),
                    plan.tolerances[place], plan.multiples[place + 1], layer.taps, layer.inside, place == last)


def dense(source: LayerSource) -> np.ndarray:
    """W * S_ER as float32 of the layer's shape: a drawn weight is never 0."""
    weights = np.zeros(source.spec.entries, dtype=np.float32)
    weights[source.edges] = source.values
    return weights.reshape(source.spec.shape)


def _matrix(source: LayerSource) -> np.ndarray:
    """W * S_ER as [out, in * taps]."""
    return dense(source).reshape(source.spec.shape[0], -1)


def _build_layer(weights: np.ndarray, below: Copies, stage: Stage, scale: float,
                 threads: int) -> tuple[Copies, np.ndarray, LayerFit]:
    """The copies of one layer [rows], the edges they keep [rows, inputs], and how well they fit."""
    rows, out = len(weights), len(stage.goals)
    unit = np.arange(rows) if stage.outputs else np.arange(rows) % (out + 1)
    multiple = np.full(rows, stage.multiple * scale)
    solved = np.flatnonzero(unit < out)
    goals = stage.goals[unit[solved]] * (stage.multiple * scale)  # [solved, units]
    chosen, sums = _solve(weights, below, solved, goals, stage.tolerance * stage.multiple * scale, threads)
    off, limit = np.abs(sums.error), stage.tolerance * stage.multiple * scale
    own, error = off @ stage.bounds, np.zeros(rows)
    for row, row_own in zip(solved, own, strict=True):
        error[row] = row_own + np.abs(weights[row, chosen[row]]) @ below.error[chosen[row]]
    if not stage.outputs:
        _copy_constant(weights, below.of(stage.constant), below, chosen, unit == out, multiple)
        unit[multiple == 0] = NONE
        unit[solved] = _leave_out(unit[solved], own, limit * float(stage.bounds.sum()))
    fit = LayerFit(off.size, float(sums.candidates.mean()), float(sums.edges.mean()), float((off <= limit).mean()),
                   float(off.max()) / (stage.multiple * scale), stage.tolerance)
    return Copies(unit, multiple, error), chosen, fit


def _leave_out(unit: np.ndarray, own: np.ndarray, most: float) -> np.ndarray:
    """The units of copies [rows] without those that miss their target by more than `most`, which is what they may if every
    parameter is within tolerance; the better half of a unit's copies stay whatever they miss by."""
    kept = unit.copy()
    for number in np.unique(unit):
        copies = np.flatnonzero(unit == number)
        order = copies[np.argsort(own[copies], kind="stable")]
        late = order[(len(order) + 1) // 2:]
        kept[late[own[late] > most]] = NONE
    return kept


def _copy_constant(weights: np.ndarray, columns: np.ndarray, below: Copies, chosen: np.ndarray, rows: np.ndarray,
                   multiple: np.ndarray) -> None:
    """Let `rows` (bool) copy the constant from `columns`: writes their edges to `chosen`, their multiples (0: no edge)."""
    edges = weights[np.ix_(rows, columns)]
    kept = pass_constant(edges, below.multiple[columns], float(multiple[rows].max(initial=0.0)))
    multiple[rows] = (np.where(kept, edges, 0) * below.multiple[columns]).sum(1)
    chosen[np.ix_(rows, columns)] = kept


@dataclass(frozen=True)
class Sums:
    """What was found for each row and unit, [rows, units]: sum - goal, candidates there were, edges chosen."""

    error: np.ndarray
    candidates: np.ndarray
    edges: np.ndarray


def _solve(weights: np.ndarray, below: Copies, rows: np.ndarray, goals: np.ndarray, tolerance: float,
           threads: int) -> tuple[np.ndarray, Sums]:
    """One subset sum for each of `rows` and each unit of the layer below. Returns bool like `weights`, and the sums."""
    chosen = np.zeros(weights.shape, dtype=bool)
    sums = Sums(np.zeros(goals.shape), np.zeros(goals.shape), np.zeros(goals.shape))

    def solve_unit(unit: int) -> None:
        columns = below.of(unit)
        values = weights[np.ix_(rows, columns)] * below.multiple[columns]  # [rows, copies of the unit]
        found = _fit(values, goals[:, unit], tolerance)
        where, place = np.nonzero(found.chosen)
        chosen[rows[where], columns[place]] = True
        sums.error[:, unit], sums.edges[:, unit] = found.error, found.chosen.sum(1)
        sums.candidates[:, unit] = np.minimum((values != 0).sum(1), MOST_CANDIDATES)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(solve_unit, range(goals.shape[1])))
    return chosen, sums


def _fit(values: np.ndarray, goals: np.ndarray, tolerance: float) -> Subsets:
    """The subset sum of each row of `values` [rows, copies], 0 where there is no edge. Where there are more candidates than
    are searched over, those of the most exact copies are tried first, then the largest, then those of the other copies."""
    best = Subsets(np.zeros(values.shape, dtype=bool), np.full(len(values), np.inf))
    totals = (values != 0).sum(1)
    for rank in (values == 0, -np.abs(values), np.where(values == 0, np.inf, -np.arange(values.shape[1]))):
        tried = np.isfinite(best.error)
        rows = np.flatnonzero(~tried | ((np.abs(best.error) > tolerance) & (totals > MOST_CANDIDATES)))
        order = np.argsort(rank[rows], axis=1, kind="stable")[:, :MOST_CANDIDATES]
        counts = np.minimum(totals[rows], MOST_CANDIDATES)
        found = few_edges(np.take_along_axis(values[rows], order, axis=1), counts, goals[rows], tolerance)
        better = np.abs(found.error) < np.abs(best.error[rows])
        best.error[rows[better]] = found.error[better]
        best.chosen[rows[better]] = False
        where, place = np.nonzero(found.chosen & better[:, None])
        best.chosen[rows[where], order[where, place]] = True
    return best


def _clear_unused(chosen: list[np.ndarray]) -> list[np.ndarray]:
    """Drop, in place and from the last layer down, the edges into neurons that no kept edge leaves. Returns the places
    [out, in * taps] of each layer whose edges lead to such neurons."""
    spare = [np.zeros(mask.shape, dtype=bool) for mask in chosen]
    for place in range(len(chosen) - 2, -1, -1):
        unused = ~chosen[place + 1].any(0).reshape(len(chosen[place]), -1).any(1)  # [out]: at none of the taps above
        chosen[place][unused] = False
        spare[place][unused] = True
    return spare
