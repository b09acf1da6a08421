"""The control of every method: a ticket drawn at random."""

from __future__ import annotations

import numpy as np
import torch

from popup.search.gate import Gate
from popup.search.keys import Keys, magnitude_keys
from popup.search.methods.method import Method
from popup.search.search_state import SearchState
from popup.search.unit import Unit


class Random(Method):
    """The first scores are the last: S_P is a uniformly random subset of S_ER of exactly the same size. A global
    scope draws from all layers' edges together, but for the best of each."""

    learns = False
    uses = ()

    def first_scores(self, uniform: np.ndarray, fan_in: float, k: float) -> np.ndarray:
        return 2 * uniform - 1  # alike in all layers, or a global scope would prefer those of a small fan-in

    def keys(self, layer: Unit, scores: torch.Tensor) -> Keys:
        return magnitude_keys(scores)

    def gates(self, state: SearchState) -> list[Gate]:
        return [Gate(mask) for mask in state.top([self.keys(*pair) for pair in state.pairs()], state.recipe.k)]

    def slope(self, layer: Unit, scores: torch.Tensor, gate: Gate) -> torch.Tensor:
        return torch.zeros_like(scores)
