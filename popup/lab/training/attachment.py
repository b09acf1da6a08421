"""A config's search on a plain network, whose edges the seed draws or a pruning criterion cuts out."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from popup.errors import UsageError
from popup.lab.config import Config
from popup.lab.data.datasets import Split
from popup.lab.data.streamed import Streamed, in_parts
from popup.lab.precision import Precision
from popup.lab.randomness import seeded
from popup.lab.training.batches import Batches, Normalise
from popup.search.attach import attach_recipe
from popup.search.compute import sparse_layers
from popup.search.network import search_of
from popup.search.ordering import order_scores
from popup.source.layers import Layer
from popup.source.masks import COMPUTED, given_edges
from popup.source.saliency import snip, synflow
from popup.source.streams import Stream

BATCH = 128  # images that SNIP looks at, as in its paper for CIFAR-10
ORDERED_BY = 8  # batches that first scores are ordered by


def attach_config(net: nn.Module, config: Config, train: Split) -> nn.Module:
    """Turn the plain network `net` into the source of `config`, in place, and return it. `train`: the images that a mask may
    be computed from."""
    compute = config.training.compute
    if compute == "auto" and not may_be_sparse(config, next(net.parameters()).device):
        compute = "dense"
    return attach_recipe(net, config.source, config.search, edges=computed_edges(net, config, train), compute=compute,
                         against=Precision.of(net, config.training.precision).dtype)


def order_if_asked(net: nn.Module, batches: Batches) -> None:
    """Order the first scores of an attached network by the gradient of some batches, where its settings say so and nobody has
    yet. They are drawn from a stream of their own, as is what the network may draw; their images are normalised and not
    augmented."""
    search = search_of(net)
    if search.ordered or search.steps:
        return
    chosen = Stream(batches.seed, "first scores").permutation(len(batches.images))[:BATCH * ORDERED_BY]
    place = "cpu" if isinstance(batches.images, Streamed) else batches.images.device
    parts = torch.from_numpy(chosen).to(place).split(BATCH)
    parts = parts[:-1] if len(parts) > 1 and len(parts[-1]) == 1 else parts  # of one image norms have no statistics
    with seeded(batches.seed, "first scores", search.scores()[0].device):
        order_scores(net, ((batches.normalise(images), batches.labels[part.to(images.device)])
                           for part, images in zip(parts, in_parts(batches.images, parts), strict=True)))


def may_be_sparse(config: Config, device: torch.device) -> bool:
    """Whether "auto" may choose sparse layers: on the CPU, where densities are known before there are masks, and where no
    compiler takes the weights."""
    return device.type == "cpu" and config.source.mask not in COMPUTED and not config.training.compile


def settled_compute(net: nn.Module, config: Config, device: torch.device) -> Config:
    """The config with "auto" made "dense" where no layer of the plain network `net` pays to compute sparsely: it is the same run
    then, and has its name. `net` may be without data, of what will be on `device`."""
    return config if paying_layers(net, config, device) else config.replace(compute="dense")


def paying_layers(net: nn.Module, config: Config, device: torch.device, kernels: str = "") -> list[Layer]:
    """The layers of such a network that pay to compute sparsely. `kernels`: the name of other ones than those at hand."""
    against = Precision.of(net, config.training.precision, device).dtype
    layers = config.source.layers(net)
    densities = list(zip(layers, config.source.densities(layers), strict=True))
    names = sparse_layers(net, densities, "auto", against, device, kernels)
    return [layer for layer in layers if layer.name in names]


def computed_edges(net: nn.Module, config: Config, train: Split) -> dict[str, np.ndarray] | None:
    """The edges of a mask that is computed from `net`, by layer name; None where the seed draws them.

    SNIP's batch is drawn from a stream of its own, and its images are normalised and not augmented.
    """
    recipe, (images, labels) = config.source, train
    if recipe.mask not in COMPUTED:
        return None
    if recipe.mask == "synflow":
        if images.dtype is torch.int64:
            raise UsageError("mask is 'synflow', whose input is all ones, and tokens are numbers of words: use snip or bernoulli")
        return given_edges(recipe.layers(net), synflow(net, recipe, images.shape[1:]))
    chosen = torch.from_numpy(Stream(recipe.seed, "saliency").permutation(len(images))[:BATCH])
    batch = Normalise(images)(next(in_parts(images, [chosen]))), labels[chosen.to(labels.device)]
    return given_edges(recipe.layers(net), snip(net, recipe, *batch))
