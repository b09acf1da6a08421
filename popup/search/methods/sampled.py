"""Zhou et al., *Deconstructing Lottery Tickets: Zeros, Signs, and the Supermask*, NeurIPS 2019, arXiv 1905.01067, section 5."""

from __future__ import annotations

import numpy as np
import torch

from popup.search.gate import Gate
from popup.search.keys import Keys, signed_keys
from popup.search.layer_state import LayerState
from popup.search.methods.method import Method
from popup.search.search_state import SearchState
from popup.search.unit import Unit


class Sampled(Method):
    """Each training pass draws every edge by itself: W_eff = W * Bernoulli(sigmoid(s)).

    ds = (dL/dW_eff * W) * sigmoid(s) (1 - sigmoid(s)), the gradient of the probability in the place of the draw's.
    Differences: scores start around logit(k), so that the draws have the ticket's density on average; the ticket keeps
    exactly the n_l highest s in the place of a last draw; the loss gets STRENGTH times a layer's edges times the squared
    distance of their mean probability from the ticket's n_l / edges, or the density would drift (the paper lets it). A
    global scope is for the ticket alone.
    """

    trains_ticket = False
    rate = 1000.0
    uses = ("score_scale", "penalty")
    STRENGTH = 1e-3

    def first_scores(self, uniform: np.ndarray, fan_in: float, k: float) -> np.ndarray:
        share = min(max(k, 0.001), 0.999)
        return np.log(share / (1 - share)) + self.settings.score_scale * (uniform - 0.5)

    def keys(self, layer: Unit, scores: torch.Tensor) -> Keys:
        return signed_keys(scores)

    def gates(self, state: SearchState) -> list[Gate]:
        return [Gate(torch.rand_like(scores.detach()) < scores.detach().sigmoid()) for scores in state.scores()]

    def slope(self, layer: Unit, scores: torch.Tensor, gate: Gate) -> torch.Tensor:
        chance = scores.sigmoid()
        return chance * (1 - chance)

    def penalty(self, layer: LayerState, scores: torch.Tensor) -> torch.Tensor | None:
        if not layer.count:
            return None
        distance = scores.sigmoid().mean() - layer.kept / layer.count
        return self.settings.penalty * self.STRENGTH * layer.count * distance.square()
