"""Masks of criteria for pruning at initialisation, computed from the seed's own dense random network, in place of S_ER.

Both rank all weights of the network together and keep exactly floor(p m + 1/2) of the m, ties going to the earlier layer and
the lower index. They are computed in float64 on the CPU, so that neither an accelerator nor the number of threads rounds
a weight across the threshold. Differences from both papers: each layer keeps its best edge, whatever its rank; biases are 0
and no candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from popup.errors import UsageError
from popup.source.copying import deep_copy
from popup.source.frozen import freeze, is_norm
from popup.source.labels import as_rows
from popup.source.layer_source import draw_values
from popup.source.layers import Layer, locate
from popup.source.masks import share
from popup.source.modes import in_mode
from popup.source.recipe import GIVEN, ONE_SIZE, Recipe

PART = 32     # images differentiated at once
ROUNDS = 100  # of SynFlow's schedule, as in the paper

Weights = dict[Layer, nn.Parameter]


def snip(net: nn.Module, recipe: Recipe, inputs: torch.Tensor, labels: torch.Tensor) -> dict[str, np.ndarray]:
    """SNIP: bool masks of each layer's shape, by its parameter name; `net` is not changed.

    Lee, Ajanthan, Torr, *SNIP: Single-shot Network Pruning based on Connection Sensitivity*, ICLR 2019, arXiv 1810.02340,
    equations 4 to 6: with the loss L of one batch and a multiplier c of each weight, c = 1,

        s_j = |g_j| / sum_i |g_i|,   g_j = dL(c * w) / dc_j = w_j dL/dw_j

    `inputs` [n, ...] and `labels` [n], of tokens both int64 [n, tokens], are the batch; w is drawn by `recipe`, dense (with
    weights 'given' it is the network's own), and er_p is its p. Differences: the sum, which changes no rank, is left out;
    norms use the statistics of parts of at most PART images; dropout is off. Raises UsageError where a saliency is not
    finite.
    """
    if not all(torch.is_tensor(part) and part.dim() for part in (inputs, labels)):
        raise UsageError(f"the batch is a {type(inputs).__name__} and a {type(labels).__name__}: SNIP takes tensors, inputs "
                         "[n, ...] and labels [n]")
    if not len(inputs) == len(labels) > 0:
        raise UsageError(f"there are {len(inputs)} inputs and {len(labels)} labels: SNIP takes one label an input, and at least "
                         "one")
    net, weights = _dense(net, recipe)
    for module in net.modules():
        module.training = is_norm(module)
    inputs, parts = inputs.cpu(), -(-len(inputs) // PART)
    gradients = [torch.zeros_like(weight) for weight in weights.values()]
    for images, targets in zip(inputs.chunk(parts), labels.cpu().chunk(parts), strict=True):
        rows = as_rows(net(images.double() if images.is_floating_point() else images), targets)
        loss = F.cross_entropy(*rows, reduction="sum") / len(inputs)
        for total, gradient in zip(gradients, _gradients(loss, weights), strict=True):
            total += gradient
    saliencies = [weight.detach() * gradient for weight, gradient in zip(weights.values(), gradients, strict=True)]
    return _masks(list(weights), _keep(list(weights), saliencies, None, recipe.er_p))


def synflow(net: nn.Module, recipe: Recipe, image: Sequence[int]) -> dict[str, np.ndarray]:
    """SynFlow: bool masks of each layer's shape, by its parameter name; `net` is not changed.

    Tanaka, Kunin, Yamins, Ganguli, *Pruning neural networks without any data by iteratively conserving synaptic flow*,
    NeurIPS 2020, arXiv 2006.05467, equation 3 and algorithm 1: all weights being their sizes and the input ones,

        R = 1^T (prod_l |theta_l * mask_l|) 1,   s = dR/dtheta * theta,

    and in round i = 1..ROUNDS the fraction p^(i / ROUNDS) of the weights with the highest s is kept, s being computed anew
    in each. `image` is an input's shape [...]; theta is drawn by `recipe`, dense (with weights 'given' it is the network's
    own), and er_p is its p. Differences: norms are left out (in evaluation mode a fresh batch norm divides by
    sqrt(1 + epsilon); the paper keeps that), and so is the upper bound of ReLU6 and Hardtanh, which would stop all flow;
    what a round has removed never returns, though its s, 0, may tie with others'. Raises UsageError where R is not finite,
    or does not depend on a layer that the network uses.
    """
    if recipe.weights == "signed_constant":
        raise UsageError(ONE_SIZE)
    net, weights = _dense(net, recipe)
    for module in in_mode(net, False).modules():
        if isinstance(module, nn.Hardtanh):  # ReLU6 is one
            module.max_val = inf
        elif is_norm(module):
            module.register_forward_hook(lambda module, inputs, output: inputs[0])
    for parameter in net.parameters():
        parameter.data.abs_()
    sizes = [weight.detach().clone() for weight in weights.values()]
    kept = [torch.ones_like(size, dtype=torch.bool) for size in sizes]
    for turn in range(1, ROUNDS + 1):
        for weight, size, mask in zip(weights.values(), sizes, kept, strict=True):
            weight.data.copy_(size * mask)
        flow = net(torch.ones(1, *image, dtype=torch.float64)).sum()
        pairs = zip(weights.values(), _gradients(flow, weights, flowing=turn == 1), strict=True)
        saliencies = [weight.detach() * gradient for weight, gradient in pairs]
        kept = _keep(list(weights), saliencies, kept, recipe.er_p ** (turn / ROUNDS))
    return _masks(list(weights), kept)


def _dense(net: nn.Module, recipe: Recipe) -> tuple[nn.Module, Weights]:
    """A copy of `net` as the seed's dense source, biases 0 and norms fresh, and its weights, which alone have gradients."""
    layers, net = recipe.layers(net), deep_copy(net).cpu().double()
    freeze(net)
    recipe, weights = replace(recipe, k=1.0), {}
    for layer in layers:
        module, attribute = locate(net, layer.name)
        weights[layer] = getattr(module, attribute).requires_grad_(True)
        if recipe.weights != GIVEN:
            drawn = draw_values(recipe, layer, 1.0, np.arange(layer.entries))
            weights[layer].data.copy_(torch.from_numpy(drawn).view(layer.shape))
    return net, weights


def _gradients(scalar: torch.Tensor, weights: Weights, flowing: bool = False) -> list[torch.Tensor]:
    """d scalar / d weight; 0 for a weight that the network does not use. `flowing`: for one that it uses 0 is an error."""
    found = torch.autograd.grad(scalar, list(weights.values()), allow_unused=True)
    for layer, gradient in zip(weights, found, strict=True):
        if flowing and gradient is not None and not gradient.any():
            raise UsageError(f"no synaptic flow depends on {layer.name}: an activation behind it is bounded (sigmoid, tanh?), "
                             "and SynFlow does not rank such networks; use mask snip or bernoulli")
    return [torch.zeros_like(weight) if gradient is None else gradient
            for weight, gradient in zip(weights.values(), found, strict=True)]


def _keep(layers: Sequence[Layer], saliencies: Sequence[torch.Tensor], among: Sequence[torch.Tensor] | None,
          p: float) -> list[torch.Tensor]:
    """The fraction p of the whole network with the highest |saliency|, each layer's best included, all `among` those of the
    round before: bool tensors of the saliencies' shapes."""
    for layer, saliency in zip(layers, saliencies, strict=True):
        if not saliency.isfinite().all():
            raise UsageError(f"the saliencies of {layer.name} are not finite: use a smaller gain, or another mask")
    ranked = torch.cat([saliency.abs().flatten() for saliency in saliencies])
    if among is not None:
        ranked[~torch.cat([mask.flatten() for mask in among])] = -1.0
    count, sizes = share(p, len(ranked)), [layer.entries for layer in layers]
    if count < len(layers):
        raise UsageError(f"er_p is {p!r}: that is {count} of {len(ranked)} weights, and each of the {len(layers)} layers "
                         "keeps one: raise er_p")
    for part in ranked.split(sizes):
        part[part.argmax()] = torch.inf
    return [mask.view(layer.shape) for layer, mask in zip(layers, _highest(ranked, count).split(sizes), strict=True)]


def _highest(ranked: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` highest as a bool mask, ties to the lower index. (Sorting all would take ten times as long.) Negative ones
    are no candidates: left in, that many ties would make numpy's partition ten times slower."""
    values = ranked.numpy()
    candidates = values[values >= 0]
    place = len(candidates) - count
    threshold = np.partition(candidates, place)[place]
    kept = values > threshold
    kept[np.flatnonzero(values == threshold)[:count - np.count_nonzero(kept)]] = True
    return torch.from_numpy(kept)


def _masks(layers: Sequence[Layer], kept: Sequence[torch.Tensor]) -> dict[str, np.ndarray]:
    return {layer.name: mask.numpy() for layer, mask in zip(layers, kept, strict=True)}
