"""A linear layer that holds its kept edges and nothing else: no dense weight, neither to compute with nor while it is built."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from popup.ticket.sparse_product import product

ARRAYS = ("crow", "col", "values")  # the buffers: what a state_dict has in the place of `weight`


class SparseLinear(nn.Module):
    """y = W x + b of a sparse W as compressed rows, for inputs [in], [n, in] or [..., in].

    Buffers: `crow` [out + 1], where each output's edges begin and the last one's end; `col` [kept], which input an edge is of,
    ascending in each row; `values` [kept], its weight. The first two are int32, or int64 from 2**31 kept edges on. The bias is
    the parameter that the layer had. It computes in the type of `values`, under autocast too; gradients reach the input alone.
    """

    crow: torch.Tensor
    col: torch.Tensor
    values: torch.Tensor

    def __init__(self, crow: torch.Tensor, col: torch.Tensor, values: torch.Tensor, in_features: int,
                 bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, len(crow) - 1
        for name, tensor in zip(ARRAYS, (crow, col, values), strict=True):
            self.register_buffer(name, tensor)
        self.bias = bias
        self.by_columns = False  # whether an output may be a view of [out, n], as where a layer like this takes it

    @classmethod
    def at(cls, places: np.ndarray, values: torch.Tensor, shape: Sequence[int]) -> SparseLinear:
        """The layer without bias that has `values` at the ascending flat `places` of a weight of that shape, on their device."""
        rows, columns = np.divmod(places, shape[1])
        starts = np.zeros(shape[0] + 1, dtype=np.int64)
        np.cumsum(np.bincount(rows, minlength=shape[0]), out=starts[1:])
        kind = np.int32 if max(len(places), shape[1]) <= np.iinfo(np.int32).max else np.int64
        crow, col = (torch.from_numpy(part.astype(kind)).to(values.device) for part in (starts, columns))
        return cls(crow, col, values, shape[1])

    def places(self) -> torch.Tensor:
        """The flat indices of its edges in the weight, in the order of `values`, int64 [kept]."""
        rows = torch.arange(self.out_features, device=self.crow.device).repeat_interleave(self.crow.diff().long())
        return rows * self.in_features + self.col

    @property
    def weight(self) -> torch.Tensor:
        """The dense weight [out, in], made anew for whoever asks for it: the layer itself never does."""
        dense = self.values.new_zeros(self.out_features * self.in_features)
        return dense.index_put((self.places(),), self.values).view(self.out_features, self.in_features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.is_autocast_enabled(x.device.type):
            with torch.autocast(x.device.type, enabled=False):
                return self._outputs(x.to(self.values.dtype))
        return self._outputs(x)

    def _outputs(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[-1] != self.in_features or x.dtype != self.values.dtype:
            raise RuntimeError(f"{self} takes {self.values.dtype} [..., {self.in_features}] and got {x.dtype} {list(x.shape)}")
        y = product(self.crow, self.col, self.values, x.reshape(-1, self.in_features).t())  # [out, n]
        if self.bias is not None:
            y += self.bias[:, None]
        if self.by_columns and x.dim() == 2:
            return y.t()
        return y.t().contiguous().view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return (f"in_features={self.in_features}, out_features={self.out_features}, kept={len(self.values)}, "
                f"bias={self.bias is not None}")
