"""Which layers compute sparsely: by shape, density, number type, device and kernels, never by a clock.

So a run computes the same on every machine that has the same kernels, and its bytes stay a function of its config.
"""

from __future__ import annotations

import torch

LEAST_EDGES = 8192  # below, the calls of Python outweigh what the products save
DENSEST = {"numba": 0.3, "torch": 0.1}  # the density of the edges below which sparse products win, by kernels


def pays(shape: tuple[int, ...], edges: int, dtype: torch.dtype, device: torch.device, kernels: str) -> bool:
    """Whether a linear layer with a weight of that shape and so many edges is faster with sparse products than densely."""
    if len(shape) != 2 or dtype != torch.float32 or device.type != "cpu":
        return False
    return edges >= LEAST_EDGES and edges <= DENSEST[kernels] * shape[0] * shape[1] and min(shape) >= 512
