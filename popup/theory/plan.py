"""The plan of a construction: tolerances, multiples, and the source's widths n_S,l = q_l n_T,l that its odds ask for.

Of the probability delta with which a source may miss, each layer gets an equal share. The last layer has one copy of each
output: all of its parameters have to be met, each within the tolerance (a union bound over them); where so fine a tolerance
cannot be met so surely, each output's together, which is what the budget asks for. Of a hidden neuron so many copies are made
that as many are good as the layer above needs (a binomial tail, and a union bound over the neurons).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from scipy.special import bdtrc

from popup.errors import UsageError
from popup.theory.budget import suprema
from popup.theory.law import MOST_COPIES, SHARE, copies_needed, too_sparse, trials_needed
from popup.theory.odds import ODDS, TRIED, Goals, Odds, copies_for, share_near
from popup.theory.shares import gains, share_out
from popup.theory.target import Target
from popup.theory.wish import Wish

SPARE = 1.15         # copies of hidden neurons per one that is needed, where no delta says how many (measured)
LEAST_GOOD = 0.5     # share of a neuron's copies that has to be good


@dataclass(frozen=True)
class Plan:
    """What a construction needs to know of the target, for a source of density p; layers l of the source are 0 .. L.

    tolerances: eps_l of the parameters, l = 1 .. L (0: exact). multiples: a copy in layer l computes multiples[l] times its
    target neuron, in units of the source's weights, l = 0 .. L (the first is 1, and the last too, but of targets with large
    weights). candidates: wanted for a parameter, l = 1 .. L. copies: q_l, l = 0 .. L - 1. units: what has copies in layer l
    (neurons, channels), the constant included. reach: the share of the neurons of a univariate layer that have an edge to a
    unit, of `surety` at least so many. widths: n_S,l; `doubled`: copies[l] are univariate, of single neurons. `carried`:
    nothing is promised of the outputs, and what a sum of a hidden neuron leaves is carried to its next (thinning.py).
    gains: how large the weights of the source's layers are, if not 1 in all (of tanh: layer 0's small, so that it is nearly
    linear, and the next one's as much larger).
    """

    tolerances: tuple[float, ...]
    multiples: tuple[float, ...]
    candidates: tuple[int, ...]
    copies: tuple[int, ...]
    units: tuple[int, ...]
    reach: tuple[float, ...]
    surety: float = SHARE
    doubled: bool = False
    carried: bool = False
    gains: tuple[float, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether sums have to be those of whole numbers."""
        return not any(self.tolerances)

    @property
    def widths(self) -> tuple[int, ...]:
        neurons = [copies * units for copies, units in zip(self.copies, self.units, strict=True)]
        if not self.doubled:
            return (trials_needed(neurons[0], self.reach[0], self.surety), *neurons[1:])
        wide = [trials_needed(count, reach, self.surety) for count, reach in zip(neurons, self.reach, strict=True)]
        return tuple(itertools.chain(*zip(wide, [*self.units[1:], 0], strict=True)))[:-1]

    def entries(self, target: Target) -> int:
        """The weights of the complete source."""
        sizes = [target.widths[0] + 1, *self.widths, target.widths[-1]]
        own = [layer.taps for layer in target.layers]
        taps = list(itertools.chain(*((1, count) for count in own))) if self.doubled else [1, *own]
        return sum(before * after * count for (before, after), count in zip(itertools.pairwise(sizes), taps, strict=True))


def make_plan(target: Target, p: float, wish: Wish) -> Plan:
    """The plan that the wish asks for. Raises UsageError where it cannot be met, and names what would do."""
    activation = target.activation
    if activation.slope and wish.doubled:
        raise UsageError("depth is 2L, and a leaky ReLU's outputs have two branches, which is not built: give --depth L+1")
    if not activation.homogeneous and wish.weights != "uniform":
        raise UsageError(f"weights is {wish.weights}, and sources with {activation.kind} have uniform ones: leave --weights out")
    tolerances, multiples, wanted = share_out(target, wish)
    units, reach = branch_units(target), univariate_reach(target, p, wish.doubled)
    least = copies_needed(wanted[0], p)
    if least * units[0] > MOST_COPIES * reach[0]:
        raise too_sparse(least / reach[0], p)
    share = wish.delta / (len(target.layers) + 1)
    needed = _planned(target, p, wish, tolerances, multiples, wanted, share)
    if wish.copies and wish.copies < max(needed):
        raise _too_narrow(wish.copies, wanted, needed, p)
    copied = [wish.copies] * len(needed) if wish.copies else needed
    if copied[0] * units[0] > MOST_COPIES * reach[0]:
        raise too_sparse(copied[0] / reach[0], p)
    return Plan(tuple(tolerances), tuple(multiples), tuple(wanted), tuple(copied), tuple(units), reach,
                max(SHARE, 1 - share / len(reach)) if wish.promised else SHARE, wish.doubled, not wish.promised,
                gains(target, tolerances, wish.doubled))


def _planned(target: Target, p: float, wish: Wish, tolerances: Sequence[float], multiples: Sequence[float],
             wanted: Sequence[int], share: float) -> list[int]:
    """q_0 .. q_{L-1}: from the last layer down, each as the one above it needs."""
    needed = [copies_needed(count, p) for count in wanted]
    if not wish.promised:
        return [needed[0], *(count if wish.doubled else ceil(SPARE * count) for count in needed[1:])]
    goals, bounds, last = _goals(target), suprema(target), len(needed) - 1
    for place in range(last, -1, -1):
        odds, size = _odds(place, wish), multiples[place + 1] / multiples[place]
        if place == last or wish.doubled:  # one copy each, of which every parameter counts
            found = copies_for(odds, p, tolerances[place] * size, Goals.of(goals[place] * size), share, needed[place])
            if found is not None:
                needed[place] = found
                continue
        wanted_good = LEAST_GOOD if place < last and not wish.doubled else 1 - share / target.widths[place + 1]
        sums = np.append(np.repeat(bounds[place], target.layers[place].taps), 1.0)
        good = share_near(odds, needed[place], p, tolerances[place] * size, goals[place] * size, sums)
        while good < wanted_good and needed[place] * p < TRIED:
            needed[place] += max(1, needed[place] // 8)
            good = share_near(odds, needed[place], p, tolerances[place] * size, goals[place] * size, sums)
        if good < wanted_good:
            raise _too_sure(wish, target, place, p)
        if place == last or wish.doubled:
            continue
        needed[place + 1] = trials_needed(needed[place + 1], good, 1 - share / target.widths[place + 1])
    return needed


def _goals(target: Target) -> list[np.ndarray]:
    """The parameters of each layer [out, parameters], biases last."""
    return [np.concatenate([layer.weight, layer.bias[:, None]], axis=1) for layer in target.layers]


def _odds(place: int, wish: Wish) -> Odds:
    return ODDS[wish.weights, place == 0 or wish.doubled]


def branch_units(target: Target) -> list[int]:
    """What has copies in layers 0 .. L - 1: branches of inputs, then neurons; and the constant."""
    return [len(target.branches) * target.widths[0] + 1, *(width + 1 for width in target.widths[1:-1])]


def univariate_reach(target: Target, p: float, doubled: bool) -> tuple[float, ...]:
    """The probability that a neuron of layer 0 has an edge to anything that can be copied: of any sign to an input of both,
    of the right sign to the others and to the constant. With many inputs it is 1, with one channel and p = 0.3 it is 0.4.
    (Each set of units needs enough neurons that reach one of it, by Hall's theorem; all together need most.) `doubled`: and
    that of the other univariate layers, which copy neurons."""
    inputs = target.widths[0]
    if not target.activation.homogeneous:  # there edges of either sign copy either
        return tuple(1 - (1 - p) ** (width + 1) for width in (target.widths[:-1] if doubled else target.widths[:1]))
    missing = (1 - p) ** inputs if len(target.branches) == 2 else (1 - p / 2) ** inputs
    neurons = [1 - (1 - p / 2) ** (width + 1) for width in target.widths[1:-1]] if doubled else []
    return (1 - missing * (1 - p / 2), *neurons)


def _too_sure(wish: Wish, target: Target, place: int, p: float) -> UsageError:
    return UsageError(f"delta is {wish.delta:g}: layer {place + 1} of the target would need more copies at p = {p:g} than sums "
                      f"are searched over to be within epsilon {wish.epsilon:g} so surely; give a larger --delta or --epsilon")


def _too_narrow(copies: int, wanted: Sequence[int], needed: Sequence[int], p: float) -> UsageError:
    place = max(range(len(needed)), key=needed.__getitem__)
    share = float(bdtrc(min(wanted[place] - 1, copies), copies, p))  # scipy has none for more candidates than copies
    return UsageError(f"width factor {copies} is too small at p = {p:g}: {100 * share:.2g}% of the parameters of layer "
                      f"{place + 1} would have the {wanted[place]} candidates they need, not {100 * SHARE:g}%; "
                      f"{max(needed)} will do")
