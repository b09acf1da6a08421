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
        return torch.empty(0, dtype=torch.uint8)
    gaps = np.diff(edges, prepend=0)
    kind = next((kind for kind, top in GAP_TYPES if gaps.max() <= top), np.int64)
    return torch.from_numpy(gaps.astype(kind))


def decode(gaps: torch.Tensor) -> torch.Tensor:
    """The flat indices of the edges, ascending, int64."""
    return torch.cumsum(gaps, 0, dtype=torch.int64)


def expand(values: torch.Tensor, gaps: torch.Tensor, entries: int) -> torch.Tensor:
    """`values` (one an edge) at the edges' places in a flat tensor of `entries`, 0 elsewhere."""
    if len(values) == entries:
        return values
    dense = values.new_zeros(entries)
    return dense.scatter_(0, decode(gaps), values) if len(values) else dense


def restrict(dense: torch.Tensor, gaps: torch.Tensor, count: int) -> torch.Tensor:
    """The values of a dense tensor at its `count` edges, in the edges' order."""
    flat = dense.reshape(-1)
    if count == len(flat):
        return flat
    return flat.index_select(0, decode(gaps)) if count else flat.new_empty(0)
