"""Whether the construction keeps its promise: in how many sources a ticket of a random target is off by more than epsilon.

The target is one MLP, drawn by a seed; each source is drawn by its own. Each ticket is put together as any ticket, and its
network is compared with the target at random inputs, at corners of the domain and where sign gradients lead
(popup/lab/runs/gaps.py). Of a linear target the certain bound is taken, which is the largest gap there is.
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

from popup.lab.runs.findability import Builder
from popup.lab.runs.gaps import measure_gaps
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


def plan_target(widths: Sequence[int], p: float, epsilon: float, delta: float, seed: int) -> Planned:
    """The random target of those widths and the plan of its sources. Raises UsageError where there is none."""
    target = random_target(widths, seed)
    return Planned(target, make_plan(target, p, Wish(epsilon=epsilon, delta=delta)), p, epsilon, delta)


def measure_misses(planned: Planned, sources: int, seed: int, builder: Builder) -> Misses:
    """Build a ticket of the target in so many sources, of seeds counted up from `seed`."""
    began = time.process_time()
    gaps = [_gap(planned, seed + number, builder) for number in trange(sources, desc="sources", disable=None, leave=False)]
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
    if len(target.layers) == 1:
        return found.guaranteed
    ticket = assemble(recipe, found.layers, found.spare, {}).apply(source).eval().requires_grad_(False)

    def off(images: torch.Tensor) -> torch.Tensor:
        return (ticket(images) / found.multiple - target.outputs(images.flatten(1))).abs()

    gaps = measure_gaps(off, {"middle": torch.zeros(1, *image)}, target.low, target.high, seed, torch.device("cpu"), most=INPUTS)
    return max(gap.largest for gap in gaps.values())
