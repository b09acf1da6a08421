"""Exact tickets: a target of whole numbers in a source of whole numbers, whose subset sums have no error at all.

The source's weights are odd whole numbers from -LARGEST to LARGEST (popup/source/weights.py: grid). A target whose weights
are whole multiples of a power of two is a network of whole numbers times a power of two: so float32 computes both exactly,
as long as no sum outgrows 2**24, and f_P = f_T bit for bit. Sources with weights on a grid are the setting of Kumar and
Natale (arXiv 2508.11020, of which the abstract was read); the construction is this project's.

A sum of n such weights meets a whole number as a sum of uniform weights meets the half of their unit: of the 2**n subsets
every other has the goal's parity, and the sums that there are lie two apart.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil, log2, prod

import numpy as np

from popup.errors import UsageError
from popup.theory.activation import KINDS
from popup.theory.law import trials_needed
from popup.theory.odds import ODDS, Goals, copies_for
from popup.theory.plan import Plan, branch_units, univariate_reach
from popup.theory.target import Target, TargetLayer
from popup.theory.wish import Wish

LARGEST = 25  # of the grid's weights, in whole numbers
MISSED = 0.3  # of a hidden neuron's copies, which are then left out


def quantise(target: Target, bits: int) -> tuple[Target, Target, float]:
    """The target whose weights have so many bits, sign included (the largest of a layer sets its step, a power of two); the
    same as whole numbers; and how much larger the second one's outputs are."""
    quantised, whole, size = [], [], 1.0
    for number, layer in enumerate(target.layers):
        if not layer.weight.any():
            raise UsageError(f"layer {number + 1} of the target has no weight but 0, so that its ticket would have no edge "
                             "there: train it again")
        step = 2.0 ** ceil(log2(float(np.abs(layer.weight).max()) / (2 ** (bits - 1) - 1)))
        size /= step  # a bias is added to what earlier steps have made larger
        own = TargetLayer(np.rint(layer.weight / step), np.rint(layer.bias * size), layer.taps, layer.inside, layer.padded)
        whole.append(own)
        quantised.append(replace(own, weight=own.weight * step, bias=own.bias / size))
    return replace(target, layers=tuple(quantised)), replace(target, layers=tuple(whole)), size


def make_exact_plan(whole: Target, p: float, wish: Wish) -> Plan:
    """The plan of an exact ticket for a target of whole numbers: every copy computes its neuron itself."""
    if not all(value == round(value) for value in (whole.low, whole.high)):
        raise UsageError(f"the inputs lie in [{whole.low:.3g}, {whole.high:.3g}]: exact sums need whole numbers: give "
                         "--normalise none, and images of bytes")
    if others := sorted({step.kind for step in whole.steps if step.kind in KINDS} - {"relu"}):
        raise UsageError(f"the target has {others[0]}, of which no exact ticket is made: leave --bits out")
    if odd := [step for step in whole.steps if step.kind == "avg" and prod(step.kernel).bit_count() != 1]:
        raise UsageError(f"the target has {odd[0].word}, and averages of {prod(odd[0].kernel)} whole numbers are rounded: take "
                         "windows of 2, 4, 8, .. values, or leave --bits out")
    units, count = branch_units(whole), len(whole.layers)
    share, needed = wish.delta / (count + 1), []
    for place, layer in enumerate(whole.layers):
        products = place == 0 or wish.doubled
        unit = LARGEST**2 if products else LARGEST
        single = place == count - 1 or wish.doubled
        goals = np.concatenate([layer.weight, layer.bias[:, None]], axis=1) / unit
        rows = goals if single else goals[[int(np.argmax((goals != 0).sum(1)))]]
        found = copies_for(ODDS["uniform", products], p, 0.5 / unit, Goals.of(rows), share if single else MISSED, 1)
        if found is None:
            raise UsageError(f"at p = {p:g} layer {place + 1} would need more candidates than sums are searched over: give "
                             "fewer --bits or a larger --delta")
        needed.append(found)
    if not wish.doubled:
        needed[1:] = [trials_needed(copies, 1 - MISSED, 1 - share / width)
                      for copies, width in zip(needed[1:], whole.widths[1:], strict=False)]
    if wish.copies and wish.copies < max(needed):
        raise UsageError(f"copies is {wish.copies} and at p = {p:g} an exact ticket needs {max(needed)}: give as many, "
                         "fewer --bits or a larger --delta")
    copies = [wish.copies or number for number in needed]
    reach = univariate_reach(whole, p, wish.doubled)
    return Plan((0.0,) * count, (1.0,) * (count + 1), tuple(ceil(number * p) for number in copies), tuple(copies),
                tuple(units), reach, 1 - share / len(reach), wish.doubled)
