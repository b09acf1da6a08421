"""The layers of a target as a source builds them: goals by unit of the layer below, bounds, multiples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from popup.theory.budget import suprema
from popup.theory.plan import Plan
from popup.theory.target import Target


@dataclass(frozen=True)
class Stage:
    """One target layer as it is to be built: `goals` [out, units] its parameters by unit of the layer below and tap, the
    biases last; `bounds` [units] the largest |x| of those, `tolerance` of a parameter (0: sums have to be exact), `multiple`
    of the copies; its taps, the one that is never in the padding, whether it is the last, and of its inputs how many branches
    there are of which one is not 0; and where sums have to be exact, of what parts of 1 they are whole numbers."""

    goals: np.ndarray
    bounds: np.ndarray
    tolerance: float
    multiple: float
    taps: int
    inside: int
    outputs: bool
    branches: int = 1
    fraction: int = 1

    def worst(self, off: np.ndarray) -> np.ndarray:
        """How far sums [rows] are off at most if their parameters are by `off` [rows, units]: of an input's branches one
        counts, as at most one is not 0."""
        parts = off * self.bounds
        inputs = parts[:, :-1].reshape(len(off), self.branches, (parts.shape[1] - 1) // self.branches).max(1)
        return inputs.sum(1) + parts[:, -1]

    @property
    def constant(self) -> int:
        """The unit of the constant 1."""
        return self.goals.shape[1] - 1

    @property
    def sums(self) -> np.ndarray:
        """The goals of what is made by sums [out or out + 1, units]: where they have to be exact, of the constant too."""
        if self.outputs or self.tolerance:
            return self.goals
        return np.concatenate([self.goals, np.eye(self.goals.shape[1])[-1:]])


def stages(target: Target, plan: Plan) -> Iterator[Stage]:
    """The target's layers from the first on; an input's branches are units of their own, w x = w relu(x) - w relu(-x)."""
    activation = target.activation
    one_counts = activation.homogeneous and not activation.slope
    last = len(target.layers) - 1
    for place, (layer, bounds) in enumerate(zip(target.layers, suprema(target), strict=True)):
        weight = layer.weight
        if place == 0:
            weight = np.concatenate([factor * weight for _, factor in target.parts], axis=1)
            bounds = np.concatenate([np.full(target.widths[0], _bound(target, sign)) for sign in target.branches])
        yield Stage(np.concatenate([weight, layer.bias[:, None]], axis=1), np.append(np.repeat(bounds, layer.taps), 1.0),
                    plan.tolerances[place], plan.multiples[place + 1], layer.taps, layer.inside, place == last,
                    len(target.branches) if place == 0 and one_counts else 1, target.fractions[place])


def _bound(target: Target, sign: int) -> float:
    """The largest |phi(sign * x)| of an input, or |x| where that is copied as if it were linear."""
    ends = np.array(target.entering) * sign
    return float(np.abs(target.activation(ends) if target.activation.homogeneous else ends).max())
