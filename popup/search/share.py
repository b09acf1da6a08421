"""How much of a network is masked, and what is said of the rest."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from torch import nn

from popup.errors import UsageError
from popup.source.frozen import left_out
from popup.source.layer_source import LayerSource
from popup.source.layers import BIAS_OF, Layer, locate, users
from popup.source.patterns import matches
from popup.source.recipe import Recipe

UNTOLD = 0.01  # of the weights: as many may have no scores without a warning (class tokens, places)
LEAST = 0.5    # of the weights: as many must have scores, unless skip or only leaves the others out
NAMED = 6      # parameters that a warning names


def tell_left_out(net: nn.Module, layers: Sequence[Layer], recipe: Recipe) -> None:
    """A warning if a part of the network that counts has no scores and the recipe does not leave it out itself; a UsageError if
    that is most of what it does not leave out."""
    others = {} if recipe.only else {name: count for name, count in left_out(net, layers).items()
                                     if not _skipped(net, name, recipe)}
    masked, dense = sum(layer.entries for layer in layers), sum(others.values())
    share = dense / (masked + dense)
    if share <= UNTOLD:
        return
    largest = sorted(others, key=others.__getitem__, reverse=True)
    names = ", ".join(f"{name} ({others[name]:,})" for name in largest[:NAMED])
    more = f", and {len(others) - NAMED} more" if len(others) > NAMED else ""
    if share > 1 - LEAST:
        raise UsageError(f"{share:.1%} of the weights would stay dense: {names}{more}; if that is meant, say so with "
                         f"skip=({largest[0].rpartition('.')[0] or largest[0]!r}, ...) or only=(...), also --skip and --only; "
                         "popup.register has modules of other kinds masked")
    warnings.warn(f"{share:.1%} of the weights stay dense, as they are now, and count in no density: {names}{more}; skip=(...) "
                  "says that this is meant, popup.register has further kinds of modules masked", stacklevel=5)


def tell_biases(net: nn.Module, layers: Sequence[Layer], recipe: Recipe) -> None:
    """A warning of the biases that are not searched though the recipe searches biases: of a module whose weight another has
    too, since the bias of a layer is that of its first."""
    names = {name for layer in layers for name in layer.names}
    others = [f"{path}.{BIAS_OF[weight]}" for layer in layers if layer.weight is None for name in layer.names[1:]
              for path, _, weight in [name.rpartition(".")] if weight in BIAS_OF]
    left = [name for name in others if name not in names and getattr(*locate(net, name), None) is not None
            and not _skipped(net, name, recipe)] if recipe.searches_biases and not recipe.only else []
    if left:
        names_left = f"{', '.join(left[:NAMED])} {'stay' if left[1:] else 'stays'}"
        warnings.warn(f"bias is 'search', and {names_left} 0: a layer's bias is that of the first module that has its weight; "
                      "untie the weights, or say that it is meant by skip", stacklevel=5)


def refuse_grouped(layers: Sequence[Layer], recipe: Recipe) -> None:
    """A UsageError for `connected` and a transposed convolution with groups, whose outputs are told apart by their place in a
    group alone, so that some would have no edge."""
    for layer in layers if recipe.connected else []:
        if layer.sides is not None and layer.sides.inputs_first and layer.shape[1] != layer.sides.outputs:
            raise UsageError(f"connected is for outputs that each have an edge, and {layer.name} {list(layer.shape)} is a "
                             "transposed convolution with groups: leave connected out, or skip the layer")


def refuse_padding(net: nn.Module, source: Sequence[LayerSource]) -> None:
    """A UsageError for a masked table with an edge in the row of its padding_idx, to whose scores torch gives no gradient."""
    for layer in source:
        modules = [module for module, _ in users(net, layer.spec)]
        rows = [module.padding_idx for module in modules if isinstance(module, nn.Embedding) and module.padding_idx is not None]
        if len(rows) < len(modules):  # a head that is tied to it learns by that row
            continue
        width = layer.spec.shape[-1]
        if any(np.searchsorted(layer.edges, row * width) < np.searchsorted(layer.edges, (row + 1) * width) for row in rows):
            raise UsageError(f"{layer.spec.name} has edges in row {rows[0]}, the padding_idx of its table, whose scores would "
                             "never learn: build it without padding_idx, or leave it out of `only`")


def _skipped(net: nn.Module, name: str, recipe: Recipe) -> bool:
    """Whether `skip` names a parameter, by any of the names that it has."""
    if not recipe.skip:
        return False
    tensor = net.get_parameter(name)
    names = [other for other, parameter in net.named_parameters(remove_duplicate=False) if parameter is tensor]
    return any(matches(pattern, other) for pattern in recipe.skip for other in names)
