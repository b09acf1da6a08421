"""Edge-popup as it was published, for comparison in the bench only: scores for every weight, sorted in every forward pass.

The algorithm of Ramanujan et al., CVPR 2020: in each layer sort |scores|, set the lower (1 - k) n of a flat copy to 0 and
the others to 1, multiply the frozen weight by it, pass the gradient straight through. Its count is the one of
int((1 - k) n), which is why popup does not select so.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from popup.source.layers import find_layers, locate


class SortedSubset(torch.autograd.Function):
    """Scores -> mask of 0 and 1 by a full sort; the gradient passes through unchanged."""

    @staticmethod
    def forward(ctx: Any, scores: torch.Tensor, k: float) -> torch.Tensor:
        mask = scores.clone()
        order = scores.flatten().sort().indices
        cut = int((1 - k) * scores.numel())
        flat = mask.flatten()
        flat[order[:cut]] = 0
        flat[order[cut:]] = 1
        return flat.view_as(scores)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient, None


class PublishedWeight(nn.Module):
    """Scores of the weight's shape -> weight * mask."""

    def __init__(self, weight: torch.Tensor, k: float) -> None:
        super().__init__()
        self.k = k
        self.register_buffer("frozen", weight.detach().clone())

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        return self.frozen * SortedSubset.apply(scores.abs(), self.k)


def attach_published(net: nn.Module, k: float) -> list[nn.Parameter]:
    """Put published edge-popup on every layer of `net`, in place; returns the scores."""
    net.requires_grad_(False)
    scores = []
    for layer in find_layers(net):
        module, attribute = locate(net, layer.name)
        weight = getattr(module, attribute)
        frozen = torch.sign(weight) * sqrt(2 / layer.fan_in / k)
        score = nn.Parameter(torch.empty_like(weight).uniform_(-1, 1) / sqrt(layer.fan_in))
        setattr(module, attribute, score)
        parametrize.register_parametrization(module, attribute, PublishedWeight(frozen, k), unsafe=True)
        scores.append(score)
    return scores
