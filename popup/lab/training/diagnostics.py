"""What a mask looks like as a graph: dead neurons, disconnected layers, and the density that can matter at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from popup.lab.inputs import is_embedded
from popup.lab.training.series import in_series
from popup.source.copying import deep_copy
from popup.source.frozen import freeze
from popup.source.layers import locate
from popup.ticket.ticket import Ticket

# With these an output is no longer a sum over paths with positive weights: means are taken off, or products formed, or (the last
# row) a neuron that nothing reaches speaks all the same.
SIGNED = (nn.LayerNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm, nn.MultiheadAttention,
          nn.Sigmoid, nn.Hardsigmoid, nn.Softplus, nn.LogSigmoid)
BENT = (nn.ReLU6, nn.Hardtanh, nn.Tanh, nn.SiLU, nn.Mish, nn.Hardswish, nn.GELU, nn.Softsign, nn.Tanhshrink, nn.Hardshrink,
        nn.Softshrink)  # 0 at 0, but no straight line above it: of a sum over paths they would hide some
SCALES = (2.0**-30, 1.0, 2.0)  # of inputs, over which outputs must lie on a line; of the first small enough for any bound


def diagnose(ticket: Ticket, net: nn.Module, image: Sequence[int]) -> dict[str, Any]:
    """For S_ER and S_P, by layer: `dead`, output neurons or channels that no edge feeds (of a bias: without one);
    `effective`, edges that lie on a path from input (or a bias) to output, None where the network mixes signs or multiplies
    (attention, layer norm, squeeze and excitation) or embeds
    tokens. And `series`, whether its layers follow one another. `net` is a plain network of the ticket's architecture for images
    [c, h, w]; it is spent.
    """
    masks: dict[str, list[torch.Tensor]] = {"er": [], "ticket": []}
    for layer in ticket.layers:
        edges = torch.zeros(layer.spec.entries, dtype=torch.float64)
        places = torch.from_numpy(layer.drawn(ticket.recipe, ticket.book).source.edges)
        masks["er"].append(edges.scatter(0, places, 1.0).view(layer.spec.shape))
        masks["ticket"].append(edges.scatter(0, places[torch.from_numpy(layer.selected)], 1.0).view(layer.spec.shape))
    additive = not is_embedded(image) and not any(isinstance(module, SIGNED) for module in net.modules())
    names, net = [layer.spec.name for layer in ticket.layers], deep_copy(net).cpu().double().eval()
    weights = [layer.spec.name for layer in ticket.layers if layer.spec.weight is None]
    series = additive and in_series(net, weights, image)
    sides = {side: {"dead": [int((layer.spec.rows(mask).sum(1) == 0).sum())
                             for layer, mask in zip(ticket.layers, mask_list, strict=True)],
                    "effective": effective_edges(net, names, mask_list, image) if additive else None}
             for side, mask_list in masks.items()}
    return {**sides, "series": series}


def _rows(mask: torch.Tensor) -> torch.Tensor:
    """What feeds each output neuron or channel: [out, entries / out], of a bias [out, 1]."""
    return mask.reshape(len(mask), -1)


def effective_edges(net: nn.Module, names: Sequence[str], masks: Sequence[torch.Tensor],
                    image: Sequence[int]) -> list[int] | None:
    """How many ones of each mask lie on a path from input to output (Vysogorets and Kempe, JMLR 2023).

    With every weight replaced by its mask, a positive input and activations that are straight above 0 all activations are
    sums over paths, so an edge lies on one exactly where the output's gradient is positive (the flow of Tanaka et al.,
    NeurIPS 2020). Where max pooling hides a tied path its edges count only if another position of the filter shows them.
    None where outputs are no such sums.
    """
    freeze(net)
    _straighten(net)
    weights = []
    for name, mask in zip(names, masks, strict=True):
        module, attribute = locate(net, name)
        weight = getattr(module, attribute)
        weight.data.copy_(mask / max(1.0, float(_rows(mask).sum(1).mean())))  # sums stay near 1 at any depth
        weights.append(weight.requires_grad_(True))
    inputs = torch.ones(1, *image, dtype=torch.float64)
    if not _is_straight(net, inputs, [weight for weight in weights if weight.dim() == 1]):
        return None
    gradients = torch.autograd.grad(net(inputs).sum(), weights, allow_unused=True)
    return [0 if gradient is None else int(((gradient > 0) & (mask > 0)).sum())
            for gradient, mask in zip(gradients, masks, strict=True)]


def _straighten(net: nn.Module) -> None:
    """Put a ReLU in place of every activation that is BENT."""
    for module in net.modules():
        for name, child in list(module._modules.items()):  # named_children names a child once, whatever names it has
            if type(child) in BENT:
                setattr(module, name, nn.ReLU())


@torch.no_grad()
def _is_straight(net: nn.Module, inputs: torch.Tensor, biases: Sequence[torch.Tensor]) -> bool:
    """Whether the outputs lie on a line when inputs and biases grow together, as sums over paths (and of constants) do."""
    low, middle, high = (_scaled(net, inputs, biases, scale) for scale in SCALES)
    risen = (middle - low) * (SCALES[2] - SCALES[1]) / (SCALES[1] - SCALES[0])
    return torch.allclose(high - middle, risen, rtol=1e-6, atol=0.0)


def _scaled(net: nn.Module, inputs: torch.Tensor, biases: Sequence[torch.Tensor], scale: float) -> torch.Tensor:
    before = [bias.clone() for bias in biases]
    for bias in biases:
        bias.mul_(scale)
    outputs = net(scale * inputs)
    for bias, value in zip(biases, before, strict=True):
        bias.copy_(value)
    return outputs
