"""The control of every method: a ticket drawn at random."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from popup.search.methods.method import Method

if TYPE_CHECKING:
    from popup.search.parametrization import EdgeWeight


class Random(Method):
    """The first scores are the last: S_P is a uniformly random subset of S_ER of exactly the same size."""

    learns = False

    def slope(self, layer: EdgeWeight, scores: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(scores)
