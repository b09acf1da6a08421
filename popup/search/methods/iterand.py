"""Chijiwa et al., *Pruning Randomly Initialized Neural Networks with Iterative Randomization*, NeurIPS 2021, arXiv
2106.09269, algorithm 1."""

from __future__ import annotations

import numpy as np
import torch

from popup.search.layer_state import REDRAW, LayerState
from popup.search.methods.method import Method
from popup.search.search_state import SearchState
from popup.search.unit import Unit
from popup.source.books import DRAWS
from popup.source.masks import share
from popup.source.streams import Stream


class Iterand(Method):
    """edge_popup, and every `redraw_every` steps each edge that is not selected gets a new weight with probability
    `redraw_rate` (the paper's K_per and r).

    The t-th redraw of a layer takes its new weights, and which edges get one, from streams of their own. So the weights
    change, but only of unselected edges and only to what the seed says: a ticket records t for each kept edge (0: never
    redrawn) and is drawn again from that. The authors' code (github.com/dchiji-ntt/iterand) redraws every 300 steps with
    r = 0.1 on CIFAR-10 and every 1000 on ImageNet. Differences: nothing is redrawn in the last tenth of the search, where
    a new weight could no longer be judged; their code ranks s itself, which is `rank` value here.
    """

    book = DRAWS
    uses = (*Method.uses, "redraw_every", "redraw_rate")
    LAST = 0.9

    def first_memory(self, layer: LayerState, scores: torch.Tensor, seed: int) -> dict[str, torch.Tensor]:
        return {REDRAW: torch.zeros(layer.count, dtype=torch.int32, device="cpu")}

    def codes(self, layer: Unit, scores: torch.Tensor, selected: torch.Tensor) -> torch.Tensor:
        return (layer.memory(REDRAW) + 1) * selected

    def weights(self, layer: Unit) -> torch.Tensor:
        return layer.own

    def after_step(self, state: SearchState) -> None:
        turn, rest = divmod(state.steps, self.settings.redraw_every)
        if rest == 0 and state.progress < self.LAST:
            bound = np.uint64(share(self.settings.redraw_rate, 1 << 32))
            streams = [Stream(state.recipe.seed, f"redraw {turn} chosen", layer.spec.name) for layer in state.layers]
            wanted = [torch.from_numpy(stream.words32(layer.count) < bound)
                      for stream, layer in zip(streams, state.layers, strict=True)]
            state.redraw(wanted, turn, [self.training_keys(*pair) for pair in state.pairs()])
