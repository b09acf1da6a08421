"""Whether the construction keeps its promise: in how many sources a ticket of a random target is off by more than epsilon.

The target is one MLP, drawn by a seed; each source is drawn by its own. Each ticket is put together as any ticket, and its
network is compared with the target, both in float64, so that no rounding is in a gap: at random inputs, at corners of the domain
and where sign gradients lead (popup/lab/runs/gaps.py). Of a linear target it is the largest gap there is.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt

import numpy as np
import torch
from tqdm import trange

from popup.lab.runs.existence import check_size
from popup.lab.runs.findability import Builder
from popup.lab.runs.gaps import Off, measure_gaps
from popup.source.layers import find_layers
from popup.source.recipe import Recipe
from popup.source.streams import Stream
from popup.theory.construction import construct
from popup.theory.plan import Plan, make_plan
from popup.theory.steps import Step
from popup.theory.target import Target, TargetLayer
from popup.theory.wish import Wish
from popup.ticket.assembled import assemble

LOW, HIGH = -1.0, 1.0
INPUTS = 512       # random ones and corners at which a ticket is looked at
HIDDEN_SIZE = 0.5  # of the largest weights and biases of hidden layers; of the last layer 1


@dataclass(frozen=True)
class Planned:
    """A target, and the plan of a source of density p that is to hold a ticket of it within epsilon, but for a share delta."""

    target: Target
    plan: Plan
    p: float
    epsilon: float
    delta: float

    @property
    def entries(self) -> int:
        """The weights of each source."""
        return self.plan.entries(self.target)


@dataclass(frozen=True)
class Misses:
    """A target's widths, p and what was asked for; the plan's copies a layer; of so many `sources` how many `missed` epsilon; the
    largest gap of all; CPU seconds."""

    widths: tuple[int, ...]
    p: float
    epsilon: float
    delta: float
    copies: tuple[int, ...]
    sources: int
    missed: int
    largest: float
    seconds: float

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the probability of a miss (Clopper and Pearson, Biometrika 26, 1934)."""
        from scipy.stats import beta  # more than a second of import, which little else needs

        missed, held = self.missed, self.sources - self.missed
        return (float(beta.ppf(0.025, missed, held + 1)) if missed else 0.0,
                float(beta.ppf(0.975, missed + 1, held)) if held else 1.0)


def random_target(widths: Sequence[int], seed: int) -> Target:
    """An MLP with ReLU on [-1, 1], weights and biases uniform within its sizes."""
    draws, layers, steps = Stream(seed, "random target"), list[TargetLayer](), list[Step]()
    for inputs, outputs in pairwise(widths):
        size = 1.0 if len(layers) == len(widths) - 2 else HIDDEN_SIZE
        drawn = (2 * draws.uniform(outputs * (inputs + 1)) - 1).reshape(outputs, inputs + 1) * size
        drawn = drawn.astype(np.float32).astype(np.float64)  # what a network of float32 has
        layers.append(TargetLayer(np.ascontiguousarray(drawn[:, :-1]), drawn[:, -1].copy()))
        steps += [Step("relu"), Step("linear")] if steps else [Step("linear")]
    return Target(tuple(layers), tuple(steps), LOW, HIGH)


def plan_target(widths: Sequence[int], p: float, epsilon: float, delta: float, seed: int, most: int) -> Planned:
    """The random target of those widths and the plan of its sources. Raises UsageError where there is none, and for sources of
    more than `most` weights."""
    target = random_target(widths, seed)
    plan = make_plan(target, p, Wish(epsilon=epsilon, delta=delta))
    check_size(plan, target, p, most)
    return Planned(target, plan, p, epsilon, delta)


def measure_misses(planned: Planned, sources: int, seed: int, builder: Builder) -> Misses:
    """Build a ticket of the target in so many sources, of seeds counted up from `seed`."""
    began = time.process_time()
    what = f"{'-'.join(map(str, planned.target.widths))}, p {planned.p:g}, eps {planned.epsilon:g}"
    gaps = [_gap(planned, seed + number, builder) for number in trange(sources, desc=what, disable=None, leave=False)]
    missed = sum(gap > planned.epsilon for gap in gaps)
    return Misses(tuple(planned.target.widths), planned.p, planned.epsilon, planned.delta, planned.plan.copies, sources, missed,
                  max(gaps), time.process_time() - began)


def _gap(planned: Planned, seed: int, builder: Builder) -> float:
    """The largest gap that was found of one source's ticket; of a linear target the largest that there is."""
    target, plan = planned.target, planned.plan
    recipe = Recipe(er_p=planned.p, k=1.0, weights="uniform", scale="unit", gain=1 / sqrt(3), seed=seed)
    image = (1, 1, target.widths[0])
    source = builder(image, target.widths[-1], plan.widths)
    layers = find_layers(source)
    found = construct(target, plan, recipe, layers, recipe.densities(layers))
    ticket = assemble(recipe, found.layers, found.spare, {}).apply(source).eval().requires_grad_(False).double()

    def error(images: torch.Tensor) -> torch.Tensor:
        images = images.double()
        return ticket(images) / found.multiple - target.outputs(images.flatten(1))

    if len(target.layers) == 1:
        return _largest(error, image)
    gaps = measure_gaps(lambda images: error(images).abs(), {"middle": torch.zeros(1, *image)}, target.low, target.high, seed,
                        torch.device("cpu"), most=INPUTS)
    return max(gap.largest for gap in gaps.values())


def _largest(error: Off, image: tuple[int, int, int]) -> float:
    """The largest |error| in [-1, 1]^n of a linear target's ticket, whose neurons take one input each: the error is a sum over
    the inputs of what is linear on both sides of 0, so that 0 and the ends of each axis tell all."""
    axes = torch.eye(image[-1]).view(-1, *image)
    errors = error(torch.cat([torch.zeros(1, *image), axes, -axes]))  # [1 + 2n, outputs]
    middle, sides = errors[0], (errors[1:] - errors[0]).unflatten(0, (2, -1))  # [outputs], [2, n, outputs]
    above = middle + sides.clamp(min=0).amax(0).sum(0)
    below = middle + sides.clamp(max=0).amin(0).sum(0)
    return float(torch.maximum(above, -below).max())
