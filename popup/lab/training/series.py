"""Whether a network's layers follow one another: what multiplies each one's weights then multiplies outputs, once a layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from popup.source.frozen import freeze, is_norm
from popup.source.layers import locate


@torch.no_grad()
def in_series(net: nn.Module, names: Sequence[str], image: Sequence[int]) -> bool:
    """Whether each path from input to output passes each of the weights `names` once, with no norm, no shortcut and no activation
    that bends above 0 between them: with all weights twice as large outputs are 2^layers times as large.

    `net` is a plain network in float64 and evaluation mode for images [c, h, w]; its weights are spent. Of a norm in evaluation
    mode outputs would grow too, but not in a search, which takes each batch's statistics.
    """
    if any(map(is_norm, net.modules())):
        return False
    freeze(net)
    inputs, sizes = torch.ones(1, *image, dtype=torch.float64), []
    for scale in (1.0, 2.0):
        for name in names:
            weight = getattr(*locate(net, name))
            weight.fill_(scale * len(weight) / weight.numel())  # near what means its inputs: sizes stay near 1 at any depth
        sizes.append(net(inputs))
    small, large = sizes
    grown = (large / small).log2()
    return bool((small > 0).all()) and torch.allclose(grown, torch.full_like(grown, float(len(names))), rtol=0.0, atol=1e-6)
