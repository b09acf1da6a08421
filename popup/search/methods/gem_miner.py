"""Sreenivasan et al., *Rare Gems: Finding Lottery Tickets at Initialization*, NeurIPS 2022, arXiv 2202.12002, section 3."""

from __future__ import annotations

import numpy as np
import torch

from popup.search.gate import Gate
from popup.search.keys import Keys, signed_keys
from popup.search.layer_state import LayerState
from popup.search.methods.method import Method
from popup.search.search_state import SearchState
from popup.search.unit import Unit


class GemMiner(Method):
    """Scores in [0, 1] that are rounded: W_eff = W * q * [s >= 1/2], with q the edges that are not frozen yet.

    The gradient passes the rounding straight through, ds = dL/dW_eff * W * q; after each step s is clamped to [0, 1]; the
    loss gets STRENGTH times the sum of s^2. In FREEZINGS rounds, evenly over the search, the edges with the lowest
    scores leave q for good, in a geometric course from all edges to the n_l that are kept; the ticket keeps the highest
    scores of q. Differences from the authors' code (github.com/ksreenivasan/pruning_is_enough, `hc_iter`): a layer's own
    share is frozen (there the whole network is ranked, as here with scope='global'), there every 5 of 150 epochs;
    the number kept is exact, where theirs are the scores of q above 1/2, so at most that many; their penalty is 3e-6 to
    1e-4, more for sparser tickets. During the search the number of ones is not that of the ticket.
    """

    trains_ticket = False
    rate = 10.0
    uses = ("penalty",)
    FREEZINGS, STRENGTH = 10, 1e-5

    def first_scores(self, uniform: np.ndarray, fan_in: float, k: float) -> np.ndarray:
        return uniform

    def first_memory(self, layer: LayerState, scores: torch.Tensor, seed: int) -> dict[str, torch.Tensor]:
        return {"free": torch.ones(layer.count, dtype=torch.bool, device="cpu")}

    def keys(self, layer: Unit, scores: torch.Tensor) -> Keys:
        return signed_keys(torch.where(layer.memory("free"), scores.detach(), -1.0))

    def gates(self, state: SearchState) -> list[Gate]:
        return [Gate((scores.detach() >= 0.5) & layer.memory("free")) for layer, scores in state.pairs()]

    def slope(self, layer: Unit, scores: torch.Tensor, gate: Gate) -> torch.Tensor:
        return layer.memory("free").to(scores.dtype)

    def penalty(self, layer: LayerState, scores: torch.Tensor) -> torch.Tensor:
        return self.settings.penalty * self.STRENGTH * scores.square().sum()

    @torch.no_grad()
    def after_step(self, state: SearchState) -> None:
        for scores in state.scores():
            scores.clamp_(0.0, 1.0)
        before, now = (int(progress * (self.FREEZINGS + 1)) for progress in (state.before, state.progress))
        if now > before:
            left = state.recipe.k ** min(1.0, now / self.FREEZINGS)
            for layer, free in zip(state.layers, state.top([self.keys(*pair) for pair in state.pairs()], left), strict=True):
                layer.memory("free").copy_(free)
