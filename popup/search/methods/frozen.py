"""Otsuka et al., *Partially Frozen Random Networks Contain Compact Strong Lottery Tickets*, TMLR 2025, arXiv 2402.14029."""

from __future__ import annotations

import numpy as np
import torch

from popup.search.gate import Gate
from popup.search.keys import HIGHEST, Keys
from popup.search.layer_state import LayerState
from popup.search.methods.method import Method
from popup.search.unit import Unit
from popup.source.masks import share
from popup.source.streams import Stream


class Frozen(Method):
    """edge_popup in a source of which a random part is pruned (that is S_ER) and a random part is locked into the ticket.

    Of the n_l edges a layer keeps, floor(locked * n_l + 1/2), drawn from a stream of their own, are kept before the
    search begins; their scores get no gradient. The search is over the others, a fraction p (1 - locked * k) of all
    weights. Differences: the paper gives the pruned and the locked part of all weights, here er_p is 1 - pruned and
    `locked` is relative to the ticket, so that every k is possible; the weights are scaled for the final density.
    """

    uses = (*Method.uses, "locked")
    edgewise = True

    def first_memory(self, layer: LayerState, scores: torch.Tensor, seed: int) -> dict[str, torch.Tensor]:
        locked = np.zeros(layer.count, dtype=bool)
        words = Stream(seed, "locked", layer.spec.name).words32(layer.count)
        locked[np.argsort(words, kind="stable")[:share(self.settings.locked, layer.kept)]] = True
        return {"locked": torch.from_numpy(locked)}

    def keys(self, layer: Unit, scores: torch.Tensor) -> Keys:
        return Keys(self.rank(scores).tensor().clamp_(max=HIGHEST - 1).masked_fill_(layer.memory("locked"), HIGHEST))

    def slope(self, layer: Unit, scores: torch.Tensor, gate: Gate) -> torch.Tensor:
        return super().slope(layer, scores, gate).masked_fill_(layer.memory("locked"), 0.0)
