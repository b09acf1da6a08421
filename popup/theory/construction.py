"""The construction: S_P within S_ER of one fixed source, chosen so that f_P is near f_T. No weight is redrawn or written.

Layer 0 makes univariate copies of the inputs' branches and of the constant (copies.py). In layer l every neuron stands for
one target neuron, and each of its parameters w is the sum over a subset of the edges that S_ER left between the neuron and
the copies of the parameter's input: sum(w_j multiple_j) = multiple w, within the tolerance (subset_sum.py). All these sums
are of different edges, so they are solved independently. The outputs have one copy.

In the form of twice the target's depth there is one copy of each hidden neuron, and before each layer stands one of
univariate copies, as layer 0 is. The copies of a neuron are then off by the same, so that no sum amplifies it.

In a convolution the neurons are channels, and each tap of a channel is an input of its own: w[o, i, a, b] is a sum over the
edges at the tap (a, b) from the copies of channel i, which compute a multiple of it at every place of the map. Weights are
[out, in * taps] throughout. ReLU, max pooling and average pooling are taken of each copy by itself: they are positively
homogeneous, and move no copy further from its multiple.

A source's layers are drawn and solved in blocks of rows: what stays is a byte an edge, and what is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from popup.errors import UsageError
from popup.source import blocks
from popup.source.gains import gain_of
from popup.source.layer_source import LayerSource, draw_layer
from popup.source.layers import Layer
from popup.source.recipe import Recipe
from popup.source.weights import standard_deviation
from popup.theory.activation import Activation
from popup.theory.budget import suprema
from popup.theory.copies import NONE, Copies, deal, pass_constant
from popup.theory.kept import KeptEdges, clear_unused
from popup.theory.plan import Plan
from popup.theory.stages import Stage, stages
from popup.theory.sums import solve
from popup.theory.taken import taken_by
from popup.theory.tally import LayerFit, Tally
from popup.theory.target import Target
from popup.theory.thinning import thin
from popup.ticket.layer import TicketLayer

WHOLE = 2.0**24  # up to here float32 has every whole number


@dataclass(frozen=True)
class Construction:
    """S_P by layer, as a ticket has it; `spare` some edges a layer that lead to neurons that nothing uses.

    The ticket computes `multiple` * f_T. guaranteed: a bound of |f_P / multiple - f_T| in exact arithmetic over the whole
    domain, from the edges that were chosen.
    """

    layers: tuple[TicketLayer, ...]
    spare: tuple[np.ndarray, ...]
    fits: tuple[LayerFit, ...]
    multiple: float
    guaranteed: float


def construct(target: Target, plan: Plan, recipe: Recipe, layers: Sequence[Layer], p_l: Sequence[float],
              threads: int = 1) -> Construction:
    """Choose S_P in the source of `recipe`, whose `layers` (weights [out, in, *kernel]) have the plan's widths."""
    todo = _Layers(recipe, layers, p_l)
    units = [1.0 if plan.exact else todo.unit(place) for place in range(len(layers))]  # of whole numbers 1 is the unit
    bounds = [float(bound.max()) for bound in suprema(target)]
    copies, scale = _univariate(todo, target, None, bounds[0], plan.exact), units[0]
    fits, kept = list[LayerFit](), todo.kept
    all_stages = list(stages(target, plan))
    for stage, above in zip(all_stages, [*all_stages[1:], None], strict=True):
        if plan.doubled and fits:
            copies = _univariate(todo, target, copies, bounds[len(fits)], plan.exact)
            scale *= units[len(kept) - 1]
        scale *= units[len(kept)]
        below = copies.at_taps(stage.taps, stage.inside, stage.constant // stage.taps)
        copies, fit = _build_layer(todo, below, stage, above, scale, threads, plan, target.activation)
        fits.append(fit)
    clear_unused(kept)
    found, spare = zip(*(layer.finish() for layer in kept), strict=True)
    multiple = scale * plan.multiples[-1]
    return Construction(found, spare, tuple(fits), multiple, float((copies.error / multiple).max()))


class _Layers:
    """The source's layers, to be drawn one after the other, and what is `kept` of those that were."""

    def __init__(self, recipe: Recipe, layers: Sequence[Layer], p_l: Sequence[float]) -> None:
        self.recipe, self.layers, self.p_l = recipe, layers, p_l
        self.kept: list[KeptEdges] = []

    def unit(self, place: int) -> float:
        """1 for weights in [-1, 1]."""
        recipe = self.recipe
        return sqrt(3) * standard_deviation(self.layers[place], self.p_l[place], recipe.k, recipe.scale,
                                            gain_of(recipe.gain, self.layers[place].name))

    def begin(self) -> KeptEdges:
        """The next layer, without an edge."""
        place = len(self.kept)
        self.kept.append(KeptEdges(self.layers[place], self.p_l[place]))
        return self.kept[-1]

    def draw(self) -> LayerSource:
        """The layer that was begun last, as one."""
        return draw_layer(self.recipe, self.kept[-1].spec, self.kept[-1].p_l)

    def weights_above(self) -> np.ndarray:
        """W * S_ER of the layer above the one that was begun last."""
        place = len(self.kept)
        return _matrix(draw_layer(self.recipe, self.layers[place], self.p_l[place]), range(self.layers[place].shape[0]))

    def blocks(self) -> Iterator[tuple[range, LayerSource]]:
        """The same in blocks of rows."""
        return blocks.draw_blocks(self.recipe, self.kept[-1].spec, self.kept[-1].p_l, blocks.BLOCK)


def _univariate(todo: _Layers, target: Target, below: Copies | None, bound: float, exact: bool) -> Copies:
    """A layer whose neurons copy an input each, or a neuron of `below`, which are there in the order of their units; either
    is at most `bound`, and neurons of the source are besides what they are off by."""
    layer = todo.begin()
    source, activation = todo.draw(), target.activation
    branches = target.branches if below is None else [1]
    copies, chosen = deal(_matrix(source, range(layer.spec.shape[0])), branches, exact, not activation.homogeneous)
    layer.add(range(layer.spec.shape[0]), source, chosen)
    if below is not None:
        used = copies.unit != NONE  # a constant's copy may have another multiple than the neurons, and an error 0
        at = np.where(used, copies.unit, 0)
        error = np.where(used, np.abs(copies.multiple) * below.error[at], 0)
        copies = Copies(np.where(below.unit[at] == NONE, NONE, copies.unit), copies.multiple * below.multiple[at], error)
    if activation.homogeneous:
        return copies
    reach = bound if below is None else bound + float(below.error.max())  # those are their target's, times 1
    return copies.bent(activation, reach, layer.spec.shape[1] - 1)


def _matrix(source: LayerSource, rows: range) -> np.ndarray:
    """W * S_ER of some rows as float32 [rows, in * taps]: a drawn weight is never 0."""
    size = source.spec.entries // source.spec.shape[0]
    weights = np.zeros(len(rows) * size, dtype=np.float32)
    weights[source.edges - rows.start * size] = source.values
    return weights.reshape(len(rows), size)


def _build_layer(todo: _Layers, below: Copies, stage: Stage, above: Stage | None, scale: float, threads: int,
                 plan: Plan, activation: Activation) -> tuple[Copies, LayerFit]:
    """The copies of one layer, and how well their parameters fit. Of a doubled plan there is one of each, of copies that are
    off by the same."""
    layer, out, size = todo.begin(), len(stage.sums), stage.multiple * scale
    rows, units = layer.spec.shape[0], len(stage.goals) + (not stage.outputs)
    unit, multiple, error, own = np.arange(rows) % units, np.full(rows, size), np.zeros(rows), np.zeros(rows)
    columns = [below.of(number, plan.carried) for number in range(stage.goals.shape[1])]
    thinned = thin(stage.sums, stage.tolerance) if plan.carried and (plan.doubled or not stage.outputs) else None
    if plan.carried and not plan.doubled and above and above.outputs:
        unit[~taken_by(todo.weights_above(), above, scale * todo.unit(len(todo.kept)), unit, size, threads)] = NONE
    tally = Tally(stage.tolerance * size)
    for block, source in todo.blocks():
        weights, part = _matrix(source, block), slice(block.start, block.stop)
        solved = np.flatnonzero((unit[part] < out) & (unit[part] != NONE))
        goals = stage.sums[unit[part][solved]] * size  # [solved, units]
        chosen, sums = solve(weights, below, columns, solved, goals, tally.limit, threads,
                             None if thinned is None else thinned[unit[part][solved]] * size)
        off = tally.add(sums)
        own[part][solved], error[part][solved] = off @ stage.bounds, stage.worst(off)
        if plan.doubled:
            worst = np.array([np.abs(below.error[of] / below.multiple[of]).max(initial=0) for of in columns])
            error[part][solved] += np.abs(goals + sums.error) @ worst
        for own_error in (below.bend, *(() if plan.doubled else (below.error,))):
            if own_error is not None and own_error.any():
                for row in solved:
                    error[part][row] += np.abs(weights[row, chosen[row]]) @ own_error[chosen[row]]
        passed = unit[part] == len(stage.goals)
        if out == len(stage.goals) and not stage.outputs:
            found = _copy_constant(weights, columns[stage.constant], below, chosen, passed, size)
            multiple[part][passed] = activation(found)
        if not stage.tolerance:
            _check_whole(weights, chosen, below, stage)
        layer.add(block, source, chosen)
    if not stage.outputs:
        own_rows = unit < out
        unit[multiple == 0] = NONE
        if not plan.doubled:
            most = tally.limit * float(stage.bounds.sum())
            unit[own_rows] = _leave_out(unit[own_rows], own[own_rows], most, bool(stage.tolerance))
    return Copies(unit, multiple, error), tally.fit(size, stage.tolerance)


def _leave_out(unit: np.ndarray, own: np.ndarray, most: float, some: bool) -> np.ndarray:
    """The units of copies [rows] without those that miss their target by more than `most`, which is what they may if every
    parameter is within tolerance. `some`: the better half of a unit's copies stay whatever they miss by."""
    kept = unit.copy()
    for number in np.unique(unit):
        copies = np.flatnonzero(unit == number)
        order = copies[np.argsort(own[copies], kind="stable")]
        late = order[(len(order) + 1) // 2 if some else 0:]
        kept[late[own[late] > most]] = NONE
    return kept


def _copy_constant(weights: np.ndarray, columns: np.ndarray, below: Copies, chosen: np.ndarray, rows: np.ndarray,
                   wanted: float) -> np.ndarray:
    """Let `rows` (bool) copy the constant from `columns`: writes their edges to `chosen`. Returns their multiples (0: no
    edge), of at least `wanted` where edges reach it."""
    edges = weights[np.ix_(rows, columns)]
    kept = pass_constant(edges, below.multiple[columns], wanted)
    chosen[np.ix_(rows, columns)] = kept
    return (np.where(kept, edges, 0) * below.multiple[columns]).sum(1)


def _check_whole(weights: np.ndarray, chosen: np.ndarray, below: Copies, stage: Stage) -> None:
    """A UsageError if sums of whole numbers could outgrow those that float32 has."""
    largest = below.multiple * np.where(below.unit == NONE, 0, stage.bounds[below.unit])
    most = float((np.abs(np.where(chosen, weights, 0)) @ largest).max(initial=0)) * stage.fraction
    if most >= WHOLE:
        parts = f" of {stage.fraction} parts of 1, as averages make" if stage.fraction > 1 else ""
        raise UsageError(f"sums of up to {most:,.0f}{parts} could arise, and float32 has every whole number up to {WHOLE:,.0f}: "
                         "give fewer --bits, inputs of fewer values, or a narrower target")
