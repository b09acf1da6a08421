"""The search methods: how scores are ranked, and what the straight-through gradient multiplies.

A new method is one entry of METHODS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from popup.search.select import magnitude_keys


@dataclass(frozen=True)
class Method:
    """`rank` gives int32 keys, the highest of which are kept; `slope` gives d rank / d score, one value an edge."""

    rank: Callable[[torch.Tensor], torch.Tensor]
    slope: Callable[[torch.Tensor], torch.Tensor]


# Ramanujan et al., CVPR 2020: the largest |s| are kept, and the gradient passes the selection straight through, so
# that ds = (dL/dW_eff * W) * sign(s).
EDGE_POPUP = Method(rank=magnitude_keys, slope=torch.sign)

METHODS: dict[str, Method] = {"edge_popup": EDGE_POPUP}
