"""The effective weight W * S_P of one layer as a function of its scores, with the straight-through gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
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
    def forward(ctx, scores: torch.Tensor, selected: torch.Tensor, layer: EdgeWeight, dtype: torch.dtype) -> torch.Tensor:
        places = layer.places()
        ctx.save_for_backward(scores, places)
        ctx.layer = layer
        return layer.weight(selected, places, dtype)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        scores, places = ctx.saved_tensors
        layer = ctx.layer
        on_edges = edges.restrict(gradient, places)  # [edges]
        owned = on_edges.to(torch.float32, copy=places is None)  # the gradient itself is autograd's, not ours to write to
        owned.mul_(layer.values).mul_(layer.search.method.slope(scores))
        return owned, None, None, None


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
        self._weight: torch.Tensor | None = None    # [entries]
        self._selected: torch.Tensor | None = None  # [edges], what _weight shows

    def places(self) -> torch.Tensor | None:
        """The edges' flat indices [edges], int64; None if every entry is an edge."""
        return None if self.count == self.layer.entries else edges.decode(self.gaps)

    def dense(self, selected: torch.Tensor) -> torch.Tensor:
        """The selected edges' values as a new weight of the layer's shape and dtype, 0 elsewhere."""
        kept = torch.where(selected, self.values, self.zero).to(self.dtype)
        return edges.expand(kept, self.places(), self.layer.entries).view(self.layer.shape)

    def weight(self, selected: torch.Tensor, places: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
        """The same as `dense`, kept from step to step: only the edges whose selection has changed are written.

        Writing to it is what an optimiser does to an ordinary weight: two forward passes with the same scores share it
        unharmed, and a backward pass after the scores have changed is refused by autograd, as it is there.
        """
        weight, last = self._weight, self._selected
        if weight is None or weight.dtype != dtype or weight.device != self.values.device:
            weight, last = torch.zeros(self.layer.entries, dtype=dtype, device=self.values.device), None
        if last is None or selected.device.type != "cpu":
            self._write(weight, torch.where(selected, self.values, self.zero), places)
        elif last is not selected:
            changed = torch.from_numpy(np.flatnonzero(np.not_equal(selected.numpy(), last.numpy())))
            if len(changed):
                values = torch.where(selected[changed], self.values[changed], self.zero)
                self._write(weight, values, changed if places is None else places[changed])
        self._weight, self._selected = weight, selected
        return weight.view(self.layer.shape)

    @staticmethod
    def _write(weight: torch.Tensor, values: torch.Tensor, places: torch.Tensor | None) -> None:
        """Write `values` at their flat `places`; None: everywhere."""
        if places is None:
            weight.copy_(values)
        else:
            # on the CPU scatter_ into bf16 takes half a millisecond however few the places are
            write = weight.index_copy_ if weight.device.type == "cpu" else weight.scatter_
            write(0, places, values.to(weight.dtype))

    def __getstate__(self) -> dict:
        """A copy or a pickle makes its own kept weight."""
        return {**super().__getstate__(), "_weight": None, "_selected": None}

    def dtype_now(self) -> torch.dtype:
        """The weight's own dtype; under autocast the one it would be cast to, so that it is made in it at once."""
        device = self.values.device.type
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.dtype

    def flat_edges(self) -> torch.Tensor:
        """The flat indices of the edges, ascending, int64."""
        places = self.places()
        return torch.arange(self.count, device=self.values.device) if places is None else places

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        return SelectEdges.apply(scores, self.search.selected(self), self, self.dtype_now())
