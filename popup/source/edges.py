"""The edges of a layer as a tensor: the gaps between their flat indices, in the smallest integer type that holds them.

At p = 0.2 a gap takes one byte where the index takes eight. The indices are summed up again where they are used,
which costs less than the scatter that follows. A layer whose entries are all edges needs no index: its gaps are empty.
"""

from __future__ import annotations

import numpy as np
import torch

GAP_TYPES = ((np.uint8, 255), (np.int16, 32767), (np.int32, 2**31 - 1))


def encode(edges: np.ndarray, entries: int) -> torch.Tensor:
    """Gaps between ascending flat indices (the first counted from 0); empty if all `entries` are edges."""
    if len(edges) == entries or len(edges) == 0:
        return torch.empty(0, dtype=torch.uint8, device="cpu")
    gaps = np.diff(edges, prepend=0)
    kind = next((kind for kind, top in GAP_TYPES if gaps.max() <= top), np.int64)
    return torch.from_numpy(gaps.astype(kind))


def decode(gaps: torch.Tensor, entries: int) -> torch.Tensor:
    """The flat indices of the edges, ascending: on the CPU int32 if those of all `entries` fit, which sums and gathers faster;
    elsewhere int64, which more operations take as it is."""
    short = gaps.device.type == "cpu" and entries <= 2**31 - 1
    return torch.cumsum(gaps, 0, dtype=torch.int32 if short else torch.int64)


def expand(values: torch.Tensor, places: torch.Tensor | None, entries: int) -> torch.Tensor:
    """`values` (one an edge) at their `places` in a flat tensor of `entries`, 0 elsewhere; None: every entry is an edge."""
    return values if places is None else values.new_zeros(entries).scatter_(0, places.long(), values)


def restrict(dense: torch.Tensor, places: torch.Tensor | None, out: torch.Tensor) -> None:
    """Write to `out`, float32 [edges], the values of a dense tensor at the edges' flat `places`, in their order; None: all.
    (A table with sparse=True has sparse gradients, of the rows that were read.)"""
    dense = dense if dense.layout is torch.strided else dense.to_dense()
    if places is not None and places.dtype is torch.int64 and dense.dtype is out.dtype:
        torch.take(dense, places, out=out)  # one call fewer, which on a GPU counts
        return
    flat = dense.reshape(-1)
    if places is None or flat.dtype is not out.dtype:
        out.copy_(flat if places is None else flat.index_select(0, places))
    else:
        torch.index_select(flat, 0, places, out=out)
