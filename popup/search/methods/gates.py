"""Tsayag and Lindenbaum, *Uncovering a Winning Lottery Ticket with Continuously Relaxed Bernoulli Gates*, arXiv 2603.08914."""

from __future__ import annotations

from math import exp, pi, sqrt
from typing import Any

import numpy as np
import torch
from scipy.special import ndtr

from popup.search.gate import Gate
from popup.search.keys import Keys, signed_keys
from popup.search.layer_state import LayerState
from popup.search.methods.method import Method
from popup.search.search_state import SearchState
from popup.search.unit import Unit


class Gates(Method):
    """Continuous gates instead of a selection: W_eff = c_l * W * z, z = min(1, max(0, s + e)), e ~ N(0, SIGMA^2).

    ds = c_l * dL/dW_eff * W where 0 < z < 1, else 0: no estimator. The expected number of open gates, sum Phi(s / SIGMA), is
    the penalty. Differences: the paper sets the density by the penalty's strength alone; here the ticket keeps exactly the
    n_l highest s, the penalty is STRENGTH times what a layer has open beyond n_l, and scores start where the mean gate is k.
    c_l = sqrt(n_l / sum z^2), at most MOST and a constant to the gradient, gives activations the size that the ticket's have:
    without it a network that has no norms fades from layer to layer and learns nothing. The ticket has no c_l. A global scope is
    for the ticket alone: penalty and c_l stay with each layer's n_l. From `hard_from` of the search on passes use the ticket, and
    the gradient passes its selection straight through: what was learned with open gates loses 2 to 4 points when it is cut.
    """

    trains_ticket = False
    rate = 100.0
    uses = ("score_scale", "penalty", "hard_from")
    SIGMA, STRENGTH, MOST = 0.5, 1e-3, 10.0

    def first_scores(self, uniform: np.ndarray, fan_in: float, k: float) -> np.ndarray:
        from scipy.optimize import brentq  # a fifth of a second of import that no other method needs

        start: Any = brentq(lambda center: mean_gate(center, self.SIGMA) - min(max(k, 0.001), 0.999), -9.0, 9.0)
        return start + 0.02 * self.settings.score_scale * (uniform - 0.5)

    def first_memory(self, layer: LayerState, scores: torch.Tensor, seed: int) -> dict[str, torch.Tensor]:
        return {"scale": torch.ones((), device="cpu")}

    def keys(self, layer: Unit, scores: torch.Tensor) -> Keys:
        return signed_keys(scores)

    def gates(self, state: SearchState) -> list[Gate]:
        if state.progress >= self.settings.hard_from:
            return [Gate(mask) for mask in state.top([self.keys(*pair) for pair in state.pairs()], state.recipe.k)]
        return [self._gate(layer, scores.detach()) for layer, scores in state.pairs()]

    def _gate(self, layer: LayerState, scores: torch.Tensor) -> Gate:
        opened = (scores + self.SIGMA * torch.randn_like(scores)).clamp_(0.0, 1.0)
        total = opened.square().sum().clamp(min=max(1, layer.kept) / self.MOST**2)
        scale = layer.memory("scale").copy_((layer.kept / total).sqrt()).clone()
        return Gate(opened > 0, opened.mul_(scale), scale)

    def slope(self, layer: Unit, scores: torch.Tensor, gate: Gate) -> torch.Tensor:
        if gate.plain:  # the ticket's
            return torch.ones_like(scores)
        return (gate.codes & (gate.factor < gate.most)) * gate.most

    def penalty(self, layer: LayerState, scores: torch.Tensor) -> torch.Tensor:
        opened = 0.5 * (1 + torch.erf(scores / (self.SIGMA * sqrt(2)))).sum()
        return self.settings.penalty * self.STRENGTH * (opened - layer.kept).clamp(min=0)


def mean_gate(center: float, sigma: float) -> float:
    """E[min(1, max(0, center + e))] for e ~ N(0, sigma^2)."""
    low, high = -center / sigma, (1 - center) / sigma
    inside = center * (ndtr(high) - ndtr(low)) + sigma * (_normal_density(low) - _normal_density(high))
    return float(inside + ndtr(-high))


def _normal_density(value: float) -> float:
    return exp(-value * value / 2) / sqrt(2 * pi)
