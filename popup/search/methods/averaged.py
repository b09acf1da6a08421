"""Score averaging: the ticket of the mean ranking over the last part of the search, not of its last step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from popup.search.keys import RANKS, Keys
from popup.search.methods.method import Method

if TYPE_CHECKING:
    from popup.search.network import Search
    from popup.search.parametrization import EdgeWeight


class Averaged(Method):
    """Trained as edge_popup; the ticket keeps the edges with the highest mean of |s| (or of s) over all steps after
    `average_from` of the search, as Izmailov et al. (UAI 2018, arXiv 1803.05407) average weights. Before that it keeps
    those that are the highest now.
    """

    uses = (*Method.uses, "average_from")

    def memory(self, layer: EdgeWeight, scores: torch.Tensor, seed: int) -> dict[str, torch.Tensor]:
        return {"mean": RANKS[self.settings.rank].value(scores), "steps": torch.zeros((), dtype=torch.int64)}

    def keys(self, layer: EdgeWeight, scores: torch.Tensor) -> Keys:
        return self.rank(layer.memory("mean"))

    def training_keys(self, layer: EdgeWeight, scores: torch.Tensor) -> Keys:
        return self.rank(scores)

    def after_step(self, search: Search) -> None:
        for layer, scores in search.pairs():
            mean, now = layer.memory("mean"), RANKS[self.settings.rank].value(scores.detach())
            if search.progress < self.settings.average_from:
                mean.copy_(now)
            else:
                mean += (now - mean) / layer.memory("steps").add_(1)
