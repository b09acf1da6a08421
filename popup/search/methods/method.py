"""What a search method may decide. The base class is edge-popup's rule; a method overrides what it does otherwise.

A method holds its settings and nothing else. What it has to remember of a layer (averages, locked edges, redraws) lies in
that layer's `memory`, tensors that move with the network and are part of a checkpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from popup.search.keys import RANKS, Keys

if TYPE_CHECKING:
    from popup.search.network import Search
    from popup.search.parametrization import EdgeWeight
    from popup.search.settings import SearchSettings


class Method:
    """How scores become a mask in training, how they become the ticket, and what gradient they get."""

    learns = True            # whether scores get a gradient at all
    rate = 1.0               # factor on the learning rate: by how much larger its scores move than edge_popup's
    redraws = False          # whether edges that are not selected may get new weights from the streams
    uses: tuple[str, ...] = ("rank", "score_scale", "anneal")  # the settings that matter to it, beside method and scope

    def __init__(self, settings: SearchSettings) -> None:
        self.settings = settings
        # whether a selected edge's effective weight is its W, whatever else is selected
        self.constant_values = type(self).values is Method.values

    def first_scores(self, uniform: np.ndarray, fan_in: int, k: float) -> np.ndarray:
        """The first scores, from `uniform` [edges], float64 in (0, 1): here uniform in +-score_scale / sqrt(fan_in).

        At score_scale 1 this is the distribution of published edge-popup (kaiming_uniform_ with a = sqrt(5)).
        """
        bound = self.settings.score_scale / np.sqrt(fan_in)
        return uniform * (2 * bound) - bound

    def memory(self, layer: EdgeWeight, scores: torch.Tensor, seed: int) -> dict[str, torch.Tensor]:
        """What is remembered of a layer with the first `scores` [edges], by name."""
        return {}

    def rank(self, scores: torch.Tensor) -> Keys:
        """Keys [edges], the highest of which are selected: by |s| or by s, as the settings say."""
        return RANKS[self.settings.rank].keys(scores)

    def keys(self, layer: EdgeWeight, scores: torch.Tensor) -> Keys:
        """Keys [edges] of one layer, the highest of which are the ticket."""
        return self.rank(scores)

    def training_keys(self, layer: EdgeWeight, scores: torch.Tensor) -> Keys:
        """The keys of a training pass, where they are not the ticket's."""
        return self.keys(layer, scores)

    def gates(self, search: Search) -> list[torch.Tensor]:
        """What a training pass multiplies each layer's W with, bool or float32 [edges]: here the selection at k as it is
        now, scaled while that is more than the ticket's."""
        selected = search.top([self.training_keys(*pair) for pair in search.pairs()], search.k_now())
        return selected if search.scale_now() == 1 else [mask * search.scale_now() for mask in selected]

    def scale(self, layer: EdgeWeight) -> float | torch.Tensor:
        """What the gates of this pass are multiplied by, kept for its backward pass."""
        return layer.search.scale_now()

    def slope(self, layer: EdgeWeight, scores: torch.Tensor, gate: torch.Tensor, scale: float | torch.Tensor) -> torch.Tensor:
        """d gate / d score [edges], which the score's gradient dL/dW_eff * W is multiplied by; here straight through the
        selection, so that only d rank / d score is left (and the scale, where the selection is scaled)."""
        slope = RANKS[self.settings.rank].slope(scores)
        return slope if gate.dtype is torch.bool else slope.mul_(scale)

    def values(self, values: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        """What the `gate` multiplies in the forward pass [edges], from the edges' W, which is also what the backward pass
        multiplies with; where the gate is 0 it does not matter."""
        return values

    def penalty(self, layer: EdgeWeight, scores: torch.Tensor) -> torch.Tensor | None:
        """What a layer adds to the loss, a differentiable scalar; None: nothing. `penalty` of the settings multiplies the
        method's own strength."""
        return None

    def after_step(self, search: Search) -> None:
        """What is to be done once the optimiser has changed the scores."""

    def restored(self, search: Search) -> None:
        """What is to be done once scores and memory have been read from a checkpoint."""
