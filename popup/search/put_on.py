"""The parametrizations of a search put on a network: scores in the place of each layer's weight, in every module that uses it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.utils import parametrize

from popup.search.compute import LayerProducts
from popup.search.parametrization import EdgeWeight, ask_for_what_is_ready
from popup.search.search import Search
from popup.search.settings import first_scores
from popup.source.layer_source import LayerSource
from popup.source.layers import users
from popup.source.maskable import is_cast
from popup.source.recipe import Recipe

Orders = tuple[tuple[str, ...], ...]  # of each user of a tensor the names of its parameters


def attach_layers(net: nn.Module, search: Search, source: list[LayerSource],
                  products: Mapping[str, LayerProducts] | None = None) -> None:
    """Let each layer's weight be computed from scores, in place; those named in `products` compute on their edges alone, by
    these."""
    orders = [tuple(tuple(module._parameters) for module, _ in users(net, layer.spec)) for layer in source]
    recipes = search.recipe.of_each([layer.spec for layer in source], [layer.p_l for layer in source])
    for recipe, layer, order in zip(recipes, source, orders, strict=True):
        _attach_layer(net, search, recipe, layer, order, (products or {}).get(layer.spec.name))
    search.group(search.method.asked_together)


def _attach_layer(net: nn.Module, search: Search, recipe: Recipe, source: LayerSource, orders: Orders,
                  products: LayerProducts | None) -> None:
    """Replace one weight by its scores [edges] and the parametrization that computes the weight from them, one for all modules
    that use it. `recipe`: the layer's own; `products`: those of a layer that computes on its edges alone."""
    using = users(net, source.spec)
    weight, edges = getattr(*using[0]), len(source.edges)
    first = torch.from_numpy(first_scores(search.settings, recipe.seed, source.spec, edges, recipe.k))
    scores = nn.Parameter(first.to(weight.device))
    layer = EdgeWeight(search, recipe, source, weight, orders)
    layer.products, layer.cast = products, all(is_cast(module) for module, _ in using)
    layer.remember(search.method.first_memory(layer, first, recipe.seed))
    for module, attribute in using:
        setattr(module, attribute, scores)
        # unsafe: the usual checks would run the parametrization, which needs its scores registered first
        parametrize.register_parametrization(module, attribute, layer, unsafe=True)
        ask_for_what_is_ready(module, attribute)
    search.add(layer, *using[0])
