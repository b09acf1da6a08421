"""Sreenivasan et al., *Rare Gems: Finding Lottery Tickets at Initialization*, NeurIPS 2022, arXiv 2202.12002, section 3."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from popup.search.keys import Keys, signed_keys
from popup.search.methods.method import Method

if TYPE_CHECKING:
    from popup.search.network import Search
    from popup.search.parametrization import EdgeWeight


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

    rate = 10.0
    uses = ("penalty",)
    FREEZINGS, STRENGTH = 10, 1e-5

    def first_scores(self, uniform: np.ndarray, fan_in: int, k: float) -> np.ndarray:
        return uniform

    def memory(self, layer: EdgeWeight, scores: torch.Tensor, seed: int) -> dict[str, torch.Tensor]:
        return {"free": torch.ones(layer.count, dtype=torch.bool)}

    def keys(self, layer: EdgeWeight, scores: torch.Tensor) -> Keys:
        return signed_keys(torch.where(layer.memory("free"), scores.detach(), -1.0))

    def gates(self, search: Search) -> list[torch.Tensor]:
        return [(scores.detach() >= 0.5) & layer.memory("free") for layer, scores in search.pairs()]

    def slope(self, layer: EdgeWeight, scores: torch.Tensor, gate: torch.Tensor, scale: float | torch.Tensor) -> torch.Tensor:
        return layer.memory("free").to(scores.dtype)

    def penalty(self, layer: EdgeWeight, scores: torch.Tensor) -> torch.Tensor:
        return self.settings.penalty * self.STRENGTH * scores.square().sum()

    @torch.no_grad()
    def after_step(self, search: Search) -> None:
        for scores in search.scores():
            scores.clamp_(0.0, 1.0)
        before, now = (int(progress * (self.FREEZINGS + 1)) for progress in (search.before, search.progress))
        if now > before:
            left = search.recipe.k ** min(1.0, now / self.FREEZINGS)
            for layer, free in zip(search.layers, search.top([self.keys(*pair) for pair in search.pairs()], left), strict=True):
                layer.memory("free").copy_(free)
