"""The effective weight W * S_P of one layer as a function of its scores, with the straight-through gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from popup.source import edges
from popup.source.layers import Layer
from popup.source.recipe import LayerSource

if TYPE_CHECKING:
    from popup.search.network import Search


class SelectEdges(torch.autograd.Function):
    """Forward: W at the selected edges, 0 elsewhere. Backward: ds = (dL/dW_eff * W) * slope(s) on all edges."""

    @staticmethod
    def forward(ctx, scores: torch.Tensor, selected: torch.Tensor, layer: EdgeWeight) -> torch.Tensor:
        places = layer.places()
        ctx.save_for_backward(scores, places)
        ctx.layer = layer
        return layer.dense(selected, places)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        scores, places = ctx.saved_tensors
        layer = ctx.layer
        on_edges = edges.restrict(gradient, places).float()  # [edges]
        return on_edges * layer.values * layer.search.method.slope(scores), None, None


class EdgeWeight(nn.Module):
    """A parametrization (torch.nn.utils.parametrize): scores [edges] -> weight [the layer's shape].

    Holds the frozen source of the layer: its edges and their weights, as buffers that move with the network and are
    left out of its state_dict, since the seed draws them again.
    """

    gaps: torch.Tensor    # [edges], or empty if every entry is an edge
    values: torch.Tensor  # [edges], float32, frozen

    def __init__(self, search: Search, source: LayerSource, weight: torch.Tensor) -> None:
        super().__init__()
        self.search = search
        self.layer: Layer = source.layer
        self.p_l = source.p_l
        self.count = len(source.edges)
        self.kept = source.kept(search.recipe.k)
        self.dtype = weight.dtype
        gaps = edges.encode(source.edges, source.layer.entries)
        self.register_buffer("gaps", gaps.to(weight.device), persistent=False)
        self.register_buffer("values", torch.from_numpy(source.values).to(weight.device), persistent=False)
        self.register_buffer("zero", torch.zeros((), device=weight.device), persistent=False)

    def places(self) -> torch.Tensor | None:
        """The edges' flat indices [edges], int64; None if every entry is an edge."""
        return None if self.count == self.layer.entries else edges.decode(self.gaps)

    def dense(self, selected: torch.Tensor, places: torch.Tensor | None) -> torch.Tensor:
        """The selected edges' values as a weight of the layer's shape and dtype, 0 elsewhere."""
        kept = torch.where(selected, self.values, self.zero).to(self.dtype)
        return edges.expand(kept, places, self.layer.entries).view(self.layer.shape)

    def flat_edges(self) -> torch.Tensor:
        """The flat indices of the edges, ascending, int64."""
        places = self.places()
        return torch.arange(self.count, device=self.values.device) if places is None else places

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        return SelectEdges.apply(scores, self.search.selected(self), self)
