"""Whether an attached network's modules still are what attach has made of them."""

from __future__ import annotations

from torch import nn

from popup.errors import UsageError
from popup.search.search import Search
from popup.search.sharding import is_sharded
from popup.source.parametrized import lists_on


def check_owners(search: Search, net: nn.Module) -> None:
    """A UsageError unless the layers of `net` are those that were attached: their scores, or another mask, would be taken for
    what the network computes."""
    search.sharded = search.sharded or is_sharded(net, search.settings.method, search.between)
    for layer, scores in zip(search.layers, search.scores(), strict=True):
        for whole in layer.spec.names:
            path, _, name = whole.rpartition(".")
            try:
                made = lists_on(net.get_submodule(path)).get(name)
            except AttributeError:
                made = None
            if made is None or made[0] is not layer or made._parameters["original"] is not scores:
                raise UsageError(f"{whole} is no longer what attach made of it (was its module replaced, or pruned?): change a "
                                 "network before it is attached")
            if len(made) > 1:
                raise UsageError(f"{whole} has been parametrized since attach, so that what is computed is no ticket: remove "
                                 "that parametrization first")
