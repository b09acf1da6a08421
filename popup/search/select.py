"""Exact selection: precisely n edges, whatever ties the scores have, ties going to the lower edge index.

Scores are ranked as integers. The bits of a non-negative float32, read as int32, sort as the float does, so that a
threshold is met exactly and a NaN cannot change how many edges are kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from popup.errors import UsageError

HIGHEST = torch.iinfo(torch.int32).max  # above the key of every float, infinity included, but for one NaN


def magnitude_keys(scores: torch.Tensor) -> torch.Tensor:
    """int32 keys that sort as |score| does: the bits of the float32 without its sign."""
    if scores.dtype is not torch.float32:
        raise UsageError(f"scores have dtype {scores.dtype} and are ranked as float32: convert the network before it is "
                         "attached, or use torch.autocast")
    return scores.detach().view(torch.int32) & HIGHEST


def top(keys: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` highest of the int32 `keys` as a bool mask; ties go to the lower index."""
    assert 0 <= count <= len(keys)
    if count in (0, len(keys)):
        return torch.full(keys.shape, count > 0, dtype=torch.bool, device=keys.device)
    return _top_numpy(keys, count) if keys.device.type == "cpu" else _top_torch(keys, count)


def _top_numpy(keys: torch.Tensor, count: int) -> torch.Tensor:
    """On the CPU numpy's vectorised partition finds the threshold an order of magnitude faster than torch.kthvalue."""
    array = keys.numpy()
    place = len(array) - count
    threshold = np.partition(array, place)[place]
    chosen = array > threshold
    short = count - np.count_nonzero(chosen)
    chosen[np.flatnonzero(array == threshold)[:short]] = True
    return torch.from_numpy(chosen)


def _top_torch(keys: torch.Tensor, count: int) -> torch.Tensor:
    """On a device: no value comes back to the host, so the queue of kernels is never waited for."""
    threshold = torch.kthvalue(keys, len(keys) - count + 1).values
    chosen, ties = keys > threshold, keys == threshold
    short = count - chosen.sum()
    return chosen | (ties & (ties.cumsum(0, dtype=torch.int32) <= short))


def top_layerwise(keys: Sequence[torch.Tensor], counts: Sequence[int]) -> list[torch.Tensor]:
    """In each layer the `counts[l]` highest keys: one bool mask a layer."""
    return [top(layer, count) for layer, count in zip(keys, counts, strict=True)]


def top_globally(keys: Sequence[torch.Tensor], counts: Sequence[int]) -> list[torch.Tensor]:
    """Over the whole network the sum(counts) highest keys, the best edge of each layer among them.

    Ties go to the earlier layer, then to the lower edge index.
    """
    joined = torch.cat(list(keys)).clamp_(max=HIGHEST - 1)  # the NaN of all bits would tie with a layer's best edge
    sizes = [len(layer) for layer in keys]
    for layer in joined.split(sizes):
        if len(layer):
            layer.masked_fill_(top(layer.clone(), 1), HIGHEST)
    return list(top(joined, sum(counts)).split(sizes))


SCOPES = {"layer": top_layerwise, "global": top_globally}
