"""What the layers of a source are asked for: tolerances, the multiples of their copies, candidates a parameter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import ceil, floor, log2, prod, sqrt

from popup.errors import UsageError
from popup.theory.budget import plan_tolerances, suprema
from popup.theory.law import candidates_needed
from popup.theory.odds import PRODUCT
from popup.theory.subset_sum import MOST_CANDIDATES
from popup.theory.target import Target
from popup.theory.wish import Wish

REACH = 2.0          # of the weights' unit: the largest value that a sum of some 20 weights can be asked for
ROUNDS = 4           # in which tolerances and candidates settle where epsilon is to be proved
EDGE = 0.3           # a candidate's part in the sum of |w_j| of the edges that are kept: half are, of 1/2 on average
DOUBLINGS = 64       # of an epsilon that is too small, to find one that will do
BENT = 0.1           # of epsilon: what copies that are not quite linear may take of it
SIZES = range(1, 6)  # doublings and halvings of a target's weights, to find whether such a target will do


def share_out(target: Target, wish: Wish) -> tuple[list[float], list[float], list[int]]:
    """Tolerances of the parameters, multiples and candidates; a UsageError, with what would do, where a parameter would need
    more than MOST_CANDIDATES."""
    tolerances, multiples, wanted = _shared(target, wish)
    if max(wanted) > MOST_CANDIDATES:
        raise _too_fine(target, max(wanted), wish)
    return tolerances, multiples, wanted


def _shared(target: Target, wish: Wish) -> tuple[list[float], list[float], list[int]]:
    """Tolerances, multiples and candidates. To prove epsilon the tolerances depend on how many edges the sums have, and these
    on the tolerances: from those of the budget they settle in a few rounds."""
    tolerances = _tolerances(target, wish)
    multiples, wanted = _share(target, tolerances, wish)
    for _ in range(ROUNDS if wish.certain and wish.promised and not wish.doubled else 0):
        norms = [layer.weight.shape[1] * count * EDGE * before / after
                 for layer, count, before, after in zip(target.layers, wanted, multiples, multiples[1:], strict=False)]
        epsilon = wish.epsilon * (1 if target.activation.homogeneous else 1 - BENT)
        tolerances = _capped(target, plan_tolerances(target, epsilon, norms))
        multiples, wanted = _share(target, tolerances, wish)
    return tolerances, multiples, wanted


def _tolerances(target: Target, wish: Wish) -> list[float]:
    """Of each layer's parameters; less than its largest parameter, so that not all of a layer may be left out."""
    epsilon = wish.epsilon * (1 if target.activation.homogeneous else 1 - BENT)
    return _capped(target, [wish.tolerance] * len(target.layers) if wish.tolerance else plan_tolerances(target, epsilon))


def _capped(target: Target, wanted: Sequence[float]) -> list[float]:
    return [min(value, layer.largest / 2) for value, layer in zip(wanted, target.layers, strict=True)]


def _candidates(target: Target, tolerances: Sequence[float], multiples: Sequence[float], wish: Wish) -> list[int]:
    """The candidates that the parameters of each layer need, the largest included."""
    units = [PRODUCT, *[PRODUCT if wish.doubled else 1.0] * (len(tolerances) - 1)]
    return [candidates_needed(eps * after / before, layer.largest * after / before / unit, unit == PRODUCT, wish.weights)
            for layer, eps, before, after, unit in zip(target.layers, tolerances, multiples, multiples[1:], units, strict=False)]


def _share(target: Target, tolerances: Sequence[float], wish: Wish) -> tuple[list[float], list[int]]:
    """The multiples, and the candidates that each layer then needs, at most MOST_CANDIDATES if that can be.

    What the largest parameters multiply to, in units of sums, is what the layers are asked for together. If it is above 1
    each is asked for as much. If it is below, the first is asked for less: layer 0's copies are exact, while a layer that
    makes little of sums of whole weights amplifies what the copies below it are off by. The others share it as far as the
    first would need too many candidates.

    Copies of a tanh are of one size: there the weights of the source are, layer for layer."""
    if not target.activation.homogeneous:
        multiples = [1.0]
        for size in weight_sizes(target, wish.doubled):
            multiples.append(multiples[-1] / size)
        return multiples, _candidates(target, tolerances, multiples, wish)
    even = _even(target)
    asked = max(1.0, even)
    while True:
        multiples = _multiples(target, asked)
        wanted = _candidates(target, tolerances, multiples, wish)
        if max(wanted) <= MOST_CANDIDATES or asked <= even:
            return multiples, wanted
        asked = max(even, asked / 2)


def weight_sizes(target: Target, doubled: bool) -> list[float]:
    """Of a target with tanh, how large the weights of the source's layers 1 .. L are (each with the univariate layer before it):
    powers of two, with which no parameter is more than a sum's unit."""
    units = [PRODUCT, *[PRODUCT if doubled else 1.0] * (len(target.layers) - 1)]
    if not all(layer.largest for layer in target.layers):
        _even(target)
    return [2.0 ** ceil(log2(layer.largest / unit)) for layer, unit in zip(target.layers, units, strict=True)]


def gains(target: Target, tolerances: Sequence[float], doubled: bool) -> tuple[float, ...]:
    """Of a target with tanh, the factors of the source's weights, layer for layer; else none. What univariate copies bend,
    |w x|**3 / 3, is to be a share BENT of what the parameters above may be off by, with MOST_CANDIDATES edges each."""
    if target.activation.homogeneous:
        return ()
    found = list[float]()
    sizes = weight_sizes(target, doubled)
    for place, (size, tolerance, bound) in enumerate(zip(sizes, tolerances, suprema(target), strict=True)):
        if place and not doubled:
            found.append(size)
            continue
        reach = max(1.0, float(bound.max()))
        small = 2.0 ** min(-4, floor(log2(sqrt(3 * BENT * tolerance / (MOST_CANDIDATES * size)) / reach)))
        found += [small, size / small]
    return tuple(found)


def _even(target: Target) -> float:
    """What each layer's sums are asked for, of their unit, if all are asked for as much; a UsageError if it cannot be."""
    largest = [layer.largest for layer in target.layers]
    if not all(largest):
        raise UsageError(f"layer {largest.index(0) + 1} of the target has no parameter but 0, so that its ticket would have no "
                         "edge there: train it again")
    return min(REACH, (prod(largest) / PRODUCT) ** (1 / len(largest)))


def _multiples(target: Target, asked: float) -> list[float]:
    """How much of a neuron its copies compute. ReLU is homogeneous, so the copies of a hidden layer may be of any size, and
    the output is to be itself: from there down each layer's largest parameter becomes `asked`, as a sum of weights, and the
    first layer's whatever that leaves, as a sum of products. What is more than REACH of those makes the output a multiple of
    itself that is below 1."""
    largest = [layer.largest for layer in target.layers]
    multiples = [min(1.0, REACH * PRODUCT / largest[0] * prod(asked / size for size in largest[1:]))]
    for size in largest[:0:-1]:
        multiples.append(multiples[-1] * size / asked)
    return [1.0, *multiples[::-1]]


def _too_fine(target: Target, wanted: int, wish: Wish) -> UsageError:
    """The refusal, with what will do: a value, and weights of another size, if there are such."""
    def fits(value: float, size: float = 1.0) -> bool:
        other = replace(wish, tolerance=value) if wish.tolerance else replace(wish, epsilon=value)
        return max(_shared(target.scaled(size), other)[2]) <= MOST_CANDIDATES

    name, value = ("tolerance", wish.tolerance) if wish.tolerance else ("epsilon", wish.epsilon)
    coarse = max(value, 2.0 ** (-DOUBLINGS // 2))  # with less no sum is met
    larger = _least(fits, coarse)
    sizes = {"smaller": [2.0**-power for power in SIZES], "larger": [2.0**power for power in SIZES]}
    sized = [f"{word} weights" for word, those in sizes.items()
             if any(fits(value, size) for size in those)]
    others = " or ".join(sized[:1] + ["fewer layers"] * (len(target.layers) > 1))
    remedies = [f"{larger:.2g} will do"] if larger else [f"no {name} will do"]
    remedies += [f"{'or' if larger else 'but'} a target of {others}"] if others else []
    return UsageError(f"{name} is {value:g}: a parameter would need {wanted} candidates, and sums are searched over "
                      f"{MOST_CANDIDATES}; {', '.join(remedies)}")


def _least(fits: Callable[[float], bool], coarse: float) -> float | None:
    """A value above `coarse` that fits, at most a tenth above the least, of two digits; None if there is none."""
    high = next((wider for power in range(1, DOUBLINGS) if fits(wider := coarse * 2.0**power)), None)
    if high is None:
        return None
    low = high / 2
    while high > 1.05 * low:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high * 1.05
