"""Existence against findability: from which width on a source holds a ticket, and from which on edge-popup finds one as good.

The target is x -> w x of two inputs in [-1, 1], random for each source. In every source the construction chooses edges with all
of its width, and edge-popup searches the same S_ER with the same weights, for each of K; its best counts. Gaps are the largest
on a grid of the whole domain, corners included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf, sqrt

import numpy as np
import torch
from torch import nn

from popup.search.attach import attach_recipe
from popup.search.network import advance, scores
from popup.search.settings import SearchSettings
from popup.source.layers import find_layers
from popup.source.recipe import Recipe
from popup.source.streams import Stream
from popup.theory.construction import construct
from popup.theory.plan import make_plan
from popup.theory.steps import Step
from popup.theory.target import Target, TargetLayer
from popup.theory.wish import Wish
from popup.ticket.assembled import assemble

INPUTS, SIDE = 2, 33           # of the target, and of the grid on which gaps are looked at
SEEN = 17                      # of the grid that a search sees, whole, at each step
K = (0.3, 0.5, 0.7)            # kept shares that edge-popup is given
STEPS, RATE = 600, 0.1         # of a search with Adam, on the mean squared gap; the rate in deviations of the first scores
FINE = 1e-3                    # tolerance of the built sums, from which they are not made finer
HIDDEN = (16, 32, 64, 128, 256, 512, 1024)
Builder = Callable[..., nn.Module]  # (image, classes, widths) -> the source network


@dataclass(frozen=True)
class Trial:
    """One source of so many hidden neurons: the largest gap of the ticket that is built in it, and of the best one found."""

    p: float
    width: int
    seed: int
    built: float
    found: float


def run_trial(p: float, width: int, seed: int, builder: Builder) -> Trial:
    """The source has a constant as third input, and one hidden layer."""
    weight = 2 * Stream(seed, "findability").uniform(INPUTS)[None] - 1
    target = Target((TargetLayer(weight, np.zeros(1)),), (Step("linear"),), -1.0, 1.0)
    recipe = Recipe(er_p=p, k=1.0, weights="uniform", scale="unit", gain=1 / sqrt(3), seed=seed)
    x, goal = _grid(SIDE, weight)
    net = builder((1, 1, INPUTS), 1, (width,))
    layers = find_layers(net)
    plan = replace(make_plan(target, p, Wish(tolerance=0.1)), tolerances=(FINE,), carried=False)
    with torch.no_grad():
        made = construct(target, plan, recipe, layers, recipe.densities(layers))
        built = float(goal.abs().max())  # what a ticket without an edge is off by
        if all(layer.codes.any() for layer in made.layers):
            ticket = assemble(recipe, made.layers, made.spare, {})
            built = float((ticket.apply(net)(x)[:, 0] - goal).abs().max())
    if not any(len(layer.codes) for layer in made.layers):
        return Trial(p, width, seed, built, built)  # no edge was drawn, so that there is nothing to search
    best = min(_search(replace(recipe, k=k), weight, builder((1, 1, INPUTS), 1, (width,))) for k in K)
    return Trial(p, width, seed, built, best)


def _grid(side: int, weight: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs [side ** 2, 1, 1, INPUTS], and the target's outputs."""
    values = torch.linspace(-1, 1, side)
    x = torch.cartesian_prod(values, values).view(-1, 1, 1, INPUTS)
    return x, x.flatten(1) @ torch.from_numpy(weight[0]).float()


def _search(recipe: Recipe, weight: np.ndarray, net: nn.Module) -> float:
    """The largest gap of edge-popup's ticket, after its last step."""
    x, goal = _grid(SEEN, weight)
    attach_recipe(net, recipe, SearchSettings())
    learned = scores(net)
    size = goal.square().mean()
    optimiser = torch.optim.Adam(learned, lr=RATE * float(torch.cat([part.detach() for part in learned]).std()))
    course = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for step in range(STEPS):
        optimiser.zero_grad()
        ((net(x)[:, 0] - goal).square().mean() / size).backward()
        optimiser.step()
        course.step()
        advance(net, (step + 1) / STEPS)
    x, goal = _grid(SIDE, weight)
    with torch.no_grad():
        return float((net.eval()(x)[:, 0] - goal).abs().max())


def best_known(trial: Trial) -> float:
    """The gap of the best ticket that is known to be there: of few neurons the construction is not the better one."""
    return min(trial.built, trial.found)


def best_found(trial: Trial) -> float:
    """The gap of edge-popup's."""
    return trial.found


def least_width(trials: Sequence[Trial], epsilon: float, gap: Callable[[Trial], float]) -> float:
    """The least width from which on, at all that were tried, at least half of the sources are within `epsilon`; infinite if
    the widest is not."""
    widths = sorted({trial.width for trial in trials}, reverse=True)
    least = inf
    for width in widths:
        gaps = [gap(trial) for trial in trials if trial.width == width]
        if 2 * sum(value <= epsilon for value in gaps) < len(gaps):
            break
        least = width
    return least
