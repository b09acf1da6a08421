"""Chijiwa et al., *Pruning Randomly Initialized Neural Networks with Iterative Randomization*, NeurIPS 2021, arXiv
2106.09269, algorithm 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from popup.search.methods.method import Method
from popup.source.masks import share
from popup.source.recipe import draw_again, draw_values, redraw_purpose
from popup.source.streams import Stream

if TYPE_CHECKING:
    from popup.search.network import Search
    from popup.search.parametrization import EdgeWeight


class Iterand(Method):
    """edge_popup, and every `redraw_every` steps each edge that is not selected gets a new weight with probability
    `redraw_rate` (the paper's K_per and r).

    The t-th redraw of a layer takes its new weights, and which edges get one, from streams of their own. So the weights
    change, but only of unselected edges and only to what the seed says: a ticket records t for each kept edge (0: never
    redrawn) and is drawn again from that. The authors' code (github.com/dchiji-ntt/iterand) redraws every 300 steps with
    r = 0.1 on CIFAR-10 and every 1000 on ImageNet. Differences: nothing is redrawn in the last tenth of the search, where
    a new weight could no longer be judged; their code ranks s itself, which is `rank` value here.
    """

    redraws = True
    uses = (*Method.uses, "redraw_every", "redraw_rate")
    LAST = 0.9

    def memory(self, layer: EdgeWeight, scores: torch.Tensor, seed: int) -> dict[str, torch.Tensor]:
        return {"redraw": torch.zeros(layer.count, dtype=torch.int32)}

    def after_step(self, search: Search) -> None:
        turn, rest = divmod(search.steps, self.settings.redraw_every)
        if rest == 0 and search.progress < self.LAST:
            used = search.top([self.training_keys(*pair) for pair in search.pairs()], search.k_now())  # more than the ticket's
            for layer, selected in zip(search.layers, used, strict=True):
                self._redraw(search, layer, selected, turn)

    def _redraw(self, search: Search, layer: EdgeWeight, selected: torch.Tensor, turn: int) -> None:
        words = Stream(search.recipe.seed, f"redraw {turn} chosen", layer.layer.name).words32(layer.count)
        chosen = torch.from_numpy(words < np.uint64(share(self.settings.redraw_rate, 1 << 32))).to(selected.device)
        layer.memory("redraw").masked_fill_(chosen & ~selected, turn)
        source = layer.source()
        fresh = draw_values(search.recipe, layer.layer, layer.p_l, source.edges, redraw_purpose(turn))
        layer.rewrite(torch.where(chosen & ~selected, torch.from_numpy(fresh).to(selected.device), layer.values))

    def restored(self, search: Search) -> None:
        for layer in search.layers:
            values = draw_again(search.recipe, layer.source(), layer.memory("redraw").cpu().numpy())
            layer.rewrite(torch.from_numpy(values))
