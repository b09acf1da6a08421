"""How much of a network is masked, and what is said of the rest."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from torch import nn

from popup.errors import UsageError
from popup.source.frozen import left_out
from popup.source.layers import Layer
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


def _skipped(net: nn.Module, name: str, recipe: Recipe) -> bool:
    """Whether `skip` names a parameter, by any of the names that it has."""
    if not recipe.skip:
        return False
    tensor = net.get_parameter(name)
    names = [other for other, parameter in net.named_parameters(remove_duplicate=False) if parameter is tensor]
    return any(matches(pattern, other) for pattern in recipe.skip for other in names)
