"""Signed supermasks: a kept edge may have its sign turned. Koster, Grothe, Rettinger, *Signing the Supermask: Keep, Hide,
Invert*, ICLR 2022, arXiv 2201.13361."""

from __future__ import annotations

import numpy as np
import torch

from popup.search.gate import Gate
from popup.search.keys import Keys, magnitude_keys
from popup.search.methods.method import KEPT, Method, in_order_of
from popup.search.unit import Unit
from popup.source.books import SIGNED


class Signed(Method):
    """The edges with the largest |s| are kept, with the sign of s: W_eff = W * sign(s) * [|s| is among the n_l largest].

    The gradient passes selection and sign straight through, ds = dL/dW_eff * W. Differences: the paper keeps what is beyond two
    thresholds, so that the count of kept edges is learned; here it is exactly n_l, as of every method.

    Scores start START times as large as edge_popup's, and follow the weights' size. An edge's gradient has its weight in it,
    which is the larger the fewer edges are kept. From scores that are small beside it the first steps turn the edges into a unit
    that ought to give less against it, until it is dead and no gradient reaches it: at 1% of the weights whole layers died.
    """

    book = SIGNED
    edgewise = True
    score_unit = KEPT
    START = 3.0
    uses = ("score_scale", "score_unit", "first_scores", "anneal")

    def first_scores(self, uniform: np.ndarray, fan_in: float, k: float) -> np.ndarray:
        return self.START * super().first_scores(uniform, fan_in, k)

    def reordered(self, scores: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """The largest where a sign matters most, and each with the sign that lowers the loss."""
        return torch.where(gradient > 0, -1, 1) * in_order_of(gradient.abs(), scores.abs())

    def keys(self, layer: Unit, scores: torch.Tensor) -> Keys:
        return magnitude_keys(scores)

    def codes(self, layer: Unit, scores: torch.Tensor, selected: torch.Tensor) -> torch.Tensor:
        return torch.where(scores.detach() < 0, 2, 1).to(torch.uint8) * selected

    def slope(self, layer: Unit, scores: torch.Tensor, gate: Gate) -> torch.Tensor:
        return torch.ones_like(scores).mul_(gate.most)
