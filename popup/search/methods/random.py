"""The control of every method: a ticket drawn at random."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from popup.search.keys import Keys, magnitude_keys
from popup.search.methods.method import Method

if TYPE_CHECKING:
    from popup.search.network import Search
    from popup.search.parametrization import EdgeWeight


class Random(Method):
    """The first scores are the last: S_P is a uniformly random subset of S_ER of exactly the same size. A global
    scope draws from all layers' edges together, but for the best of each."""

    learns = False
    uses = ()

    def first_scores(self, uniform: np.ndarray, fan_in: int, k: float) -> np.ndarray:
        return 2 * uniform - 1  # alike in all layers, or a global scope would prefer those of a small fan-in

    def keys(self, layer: EdgeWeight, scores: torch.Tensor) -> Keys:
        return magnitude_keys(scores)

    def gates(self, search: Search) -> list[torch.Tensor]:
        return search.select()

    def slope(self, layer: EdgeWeight, scores: torch.Tensor, gate: torch.Tensor, scale: float | torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(scores)
