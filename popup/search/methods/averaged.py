"""Score averaging: the ticket of the mean ranking over the last part of the search, not of its last step."""

from __future__ import annotations

import torch

from popup.search.keys import RANKS, Keys
from popup.search.layer_state import LayerState
from popup.search.methods.method import Method
from popup.search.search_state import SearchState
from popup.search.unit import Unit


class Averaged(Method):
    """Trained as edge_popup; the ticket keeps the edges with the highest mean of |s| (or of s) over all steps after
    `average_from` of the search, as Izmailov et al. (UAI 2018, arXiv 1803.05407) average weights. Before that it keeps
    those that are the highest now.
    """

    trains_ticket = False  # which is of the mean of what it trained by
    uses = (*Method.uses, "average_from")

    def first_memory(self, layer: LayerState, scores: torch.Tensor, seed: int) -> dict[str, torch.Tensor]:
        return {"mean": RANKS[self.settings.rank].value(scores), "steps": torch.zeros((), dtype=torch.int64, device="cpu")}

    def keys(self, layer: Unit, scores: torch.Tensor) -> Keys:
        return self.rank(layer.memory("mean"))

    def training_keys(self, layer: Unit, scores: torch.Tensor) -> Keys:
        return self.rank(scores)

    def after_step(self, state: SearchState) -> None:
        for layer, scores in state.pairs():
            mean, now = layer.memory("mean"), RANKS[self.settings.rank].value(scores.detach())
            if state.progress < self.settings.average_from:
                mean.copy_(now)
            else:
                mean += (now - mean) / layer.memory("steps").add_(1)
