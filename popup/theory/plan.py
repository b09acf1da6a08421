"""The plan of a construction: tolerances, multiples, and the source's widths n_S,l = q_l n_T,l that the law asks for."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod, sqrt

from scipy.special import bdtrc

from popup.errors import UsageError
from popup.theory.budget import plan_tolerances
from popup.theory.law import MOST_COPIES, SHARE, candidates_needed, copies_needed, too_sparse, trials_needed
from popup.theory.subset_sum import MOST_CANDIDATES
from popup.theory.target import Target

PRODUCT = 1 / sqrt(3)  # the deviation of a product of two weights, as the first sums have, over that of one
SPARE = 1.15         # copies of hidden neurons per one that is needed: those that miss their target are left out (measured)
REACH = 2.0          # of the weights' unit: the largest value that a sum of some 20 weights can be asked for
DOUBLINGS = 64       # of an epsilon that is too small, to find one that will do
SIZES = range(1, 6)  # doublings and halvings of a target's weights, to find whether such a target will do


@dataclass(frozen=True)
class Plan:
    """What a construction needs to know of the target, for a source of density p; layers l of the source are 0 .. L.

    tolerances: eps_l of the parameters, l = 1 .. L. multiples: a copy in layer l computes multiples[l] times its target
    neuron, in units of the source's weights, l = 0 .. L (the first and the last are 1). candidates: wanted for a parameter,
    l = 1 .. L. copies: q_l, l = 0 .. L - 1. units: what has copies in layer l (neurons,
    channels), the constant included. reach: the share of layer 0's neurons that have an edge to a unit. widths: n_S,l.
    """

    tolerances: tuple[float, ...]
    multiples: tuple[float, ...]
    candidates: tuple[int, ...]
    copies: tuple[int, ...]
    units: tuple[int, ...]
    reach: float

    @property
    def widths(self) -> tuple[int, ...]:
        neurons = [copies * units for copies, units in zip(self.copies, self.units, strict=True)]
        return (trials_needed(neurons[0], self.reach), *neurons[1:])

    def entries(self, target: Target) -> int:
        """The weights of the complete source."""
        sizes = [target.widths[0] + 1, *self.widths, target.widths[-1]]
        taps = [1, *(layer.taps for layer in target.layers)]
        return sum(before * after * count for (before, after), count in zip(itertools.pairwise(sizes), taps, strict=True))


def make_plan(target: Target, p: float, epsilon: float, tolerance: float = 0.0, copies: int = 0,
              weights: str = "uniform") -> Plan:
    """The plan for an output error of `epsilon`; or for one `tolerance` of every parameter, if it is given; from a source of
    such `weights`.

    `copies`: q in all layers, in place of those that the law asks for. Raises UsageError where the law says that less
    than SHARE of the parameters would meet their tolerance, and names what would do.
    """
    tolerances = _tolerances(target, epsilon, tolerance)
    multiples, wanted = _share(target, tolerances, weights)
    if max(wanted) > MOST_CANDIDATES:
        raise _too_fine(target, max(wanted), epsilon, tolerance, weights)
    needed = [copies_needed(count, p) for count in wanted]
    needed[1:] = [ceil(SPARE * count) for count in needed[1:]]
    if copies and copies < max(needed):
        raise _too_narrow(copies, wanted, needed, p)
    units = [len(target.branches) * target.widths[0] + 1, *(width + 1 for width in target.widths[1:-1])]
    copied = [copies] * len(needed) if copies else needed
    reach = _reach(target, p)
    if copied[0] * units[0] > MOST_COPIES * reach:
        raise too_sparse(copied[0] / reach, p)
    return Plan(tuple(tolerances), tuple(multiples), tuple(wanted), tuple(copied), tuple(units), reach)


def _tolerances(target: Target, epsilon: float, tolerance: float) -> list[float]:
    """Of each layer's parameters; less than its largest parameter, so that not all of a layer may be left out."""
    wanted = [tolerance] * len(target.layers) if tolerance else plan_tolerances(target, epsilon)
    return [min(value, layer.largest / 2) for value, layer in zip(wanted, target.layers, strict=True)]


def _candidates(target: Target, tolerances: Sequence[float], multiples: Sequence[float], weights: str) -> list[int]:
    """The candidates that the parameters of each layer need, the largest included."""
    units = [PRODUCT, *[1.0] * (len(tolerances) - 1)]
    return [candidates_needed(eps * after / before, layer.largest * after / before / unit, unit == PRODUCT, weights)
            for layer, eps, before, after, unit in zip(target.layers, tolerances, multiples, multiples[1:], units, strict=False)]


def _reach(target: Target, p: float) -> float:
    """The probability that a neuron of layer 0 has an edge to anything that can be copied: of any sign to an input of both,
    of the right sign to the others and to the constant. With many inputs it is 1, with one channel and p = 0.3 it is 0.4.
    (Each set of units needs enough neurons that reach one of it, by Hall's theorem; all together need most.)"""
    inputs = target.widths[0]
    missing = (1 - p) ** inputs if len(target.branches) == 2 else (1 - p / 2) ** inputs
    return 1 - missing * (1 - p / 2)


def _share(target: Target, tolerances: Sequence[float], weights: str) -> tuple[list[float], list[int]]:
    """The multiples, and the candidates that each layer then needs, at most MOST_CANDIDATES if that can be.

    What the largest parameters multiply to, in units of sums, is what the layers are asked for together. If it is above 1
    each is asked for as much. If it is below, the first is asked for less: layer 0's copies are exact, while a layer that
    makes little of sums of whole weights amplifies what the copies below it are off by. The others share it as far as the
    first would need too many candidates."""
    even = _even(target)
    asked = max(1.0, even)
    while True:
        multiples = _multiples(target, asked)
        wanted = _candidates(target, tolerances, multiples, weights)
        if max(wanted) <= MOST_CANDIDATES or asked <= even:
            return multiples, wanted
        asked = max(even, asked / 2)


def _even(target: Target) -> float:
    """What each layer's sums are asked for, of their unit, if all are asked for as much; a UsageError if it cannot be."""
    largest = [layer.largest for layer in target.layers]
    if not all(largest):
        raise UsageError(f"layer {largest.index(0) + 1} of the target has no parameter but 0, so that its ticket would have no "
                         "edge there: train it again")
    even = (prod(largest) / PRODUCT) ** (1 / len(largest))
    if even > REACH:
        raise UsageError(f"the target is too large: the largest |parameter| of its layers multiply to {prod(largest):.3g}, and "
                         f"{len(largest)} layers of weights in [-1, 1] reach {PRODUCT * REACH ** len(largest):.3g}; train it "
                         "with more weight decay, or divide its last layer by a constant")
    return even


def _multiples(target: Target, asked: float) -> list[float]:
    """How much of a neuron its copies compute. ReLU is homogeneous, so the copies of a hidden layer may be of any size, and
    the output has to be itself: from there down each layer's largest parameter becomes `asked`, as a sum of weights, and the
    first layer's whatever that leaves, as a sum of products."""
    multiples = [1.0]
    for layer in target.layers[:0:-1]:
        multiples.append(multiples[-1] * layer.largest / asked)
    return [1.0, *multiples[::-1]]


def _too_fine(target: Target, wanted: int, epsilon: float, tolerance: float, weights: str) -> UsageError:
    """The refusal, with what will do: a value, and weights of another size, if there are such."""
    def fits(value: float, size: float = 1.0) -> bool:
        other = target.scaled(size)
        tolerances = _tolerances(other, *((0.0, value) if tolerance else (value, 0.0)))
        return max(_share(other, tolerances, weights)[1]) <= MOST_CANDIDATES

    name, value = ("tolerance", tolerance) if tolerance else ("epsilon", epsilon)
    coarse = max(value, 2.0 ** (-DOUBLINGS // 2))  # with less no sum is met
    larger = next((wider for power in range(1, DOUBLINGS) if fits(wider := coarse * 2.0**power)), None)
    sizes = {"smaller": [2.0**-power for power in SIZES], "larger": [2.0**power for power in SIZES]}
    sized = [f"{word} weights" for word, those in sizes.items()
             if any(fits(value, size) for size in those if size * _even(target) <= REACH)]
    others = " or ".join(sized[:1] + ["fewer layers"] * (len(target.layers) > 1))
    remedies = [f"{larger * 1.05:.2g} will do"] if larger else [f"no {name} will do"]
    remedies += [f"{'or' if larger else 'but'} a target of {others}"] if others else []
    return UsageError(f"{name} is {value:g}: a parameter would need {wanted} candidates, and sums are searched over "
                      f"{MOST_CANDIDATES}; {', '.join(remedies)}")


def _too_narrow(copies: int, wanted: Sequence[int], needed: Sequence[int], p: float) -> UsageError:
    place = max(range(len(needed)), key=needed.__getitem__)
    share = float(bdtrc(min(wanted[place] - 1, copies), copies, p))  # scipy has none for more candidates than copies
    return UsageError(f"width factor {copies} is too small at p = {p:g}: {100 * share:.2g}% of the parameters of layer "
                      f"{place + 1} would have the {wanted[place]} candidates they need, not {100 * SHARE:g}%; "
                      f"{max(needed)} will do")
