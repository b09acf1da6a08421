"""The proof that a run prints: the laws, checked on the network that was searched, against the source drawn anew."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from popup.search.attach import merge
from popup.search.layer_state import LayerState
from popup.search.network import search_of
from popup.search.search import Search
from popup.source.books import Drawn
from popup.source.layers import owner
from popup.source.recipe import GIVEN, LayerSource, draw_edges, draw_layer
from popup.ticket.hashes import frozen_hashes
from popup.ticket.verification import miscounted


@dataclass(frozen=True)
class Proof:
    """One line a law: what was checked, over how many, and what failed (empty if nothing did)."""

    frozen: int                       # tensors whose hash was compared
    changed: tuple[str, ...]          # tensors whose hash is another than before
    outside: tuple[str, ...]          # layers with a weight where the source has none, or another than the source's
    miscounted: tuple[str, ...]       # layers that do not keep exactly what they must
    differing: int                    # predictions in which the merged network differs
    predictions: int                  # predictions compared

    @property
    def holds(self) -> bool:
        return not (self.changed or self.outside or self.miscounted or self.differing)


def prove(net: nn.Module, before: dict[str, str], inputs: torch.Tensor) -> Proof:
    """Check the laws on an attached network.

    `before`: `frozen_hashes(net)` from before the search. `inputs` [n, ...]: a batch to compare predictions on.
    """
    search, after = search_of(net), frozen_hashes(net)
    changed = tuple(sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name)))
    kept, outside = _compare_with_source(net, search)
    differing = _differing_predictions(net, inputs)
    names, wanted = [layer.layer.name for layer in search.layers], [layer.kept for layer in search.layers]
    wrong = miscounted(search.settings, names, kept, wanted)
    return Proof(len(after), changed, outside, wrong, differing, len(inputs))


def _compare_with_source(net: nn.Module, search: Search) -> tuple[list[int], tuple[str, ...]]:
    """Draw each layer's source anew; count the effective weights, and name the layers whose weights are not among it."""
    kept, outside = [], []
    for layer, codes in zip(search.layers, search.codes(), strict=True):
        module, attribute = owner(net, layer.layer.name)
        weight = getattr(module, attribute).detach().cpu().flatten()
        fresh = _source(search, layer)
        values = layer.book.values(Drawn(search.recipe, fresh), codes.cpu())
        source = torch.zeros(layer.layer.entries).scatter_(0, torch.from_numpy(fresh.edges), values).to(weight.dtype)
        used = weight != 0
        zero = (codes != 0) & (layer.values == 0)  # a given weight may be 0, a drawn one never
        kept.append(int(used.sum()) + int(zero.sum()))
        if not torch.equal(weight[used], source[used]):
            outside.append(layer.layer.name)
    return kept, tuple(outside)


def _source(search: Search, layer: LayerState) -> LayerSource:
    """The layer drawn anew; edges or weights that no seed draws are compared by their hash from before alone."""
    recipe = search.recipe
    edges = draw_edges(recipe, layer.layer, layer.p_l) if recipe.draws_edges else layer.flat_edges().cpu().numpy()
    if recipe.weights == GIVEN:
        return LayerSource(layer.layer, layer.p_l, edges, layer.values.cpu().numpy())
    return draw_layer(recipe, layer.layer, layer.p_l, edges=edges)


@torch.no_grad()
def _differing_predictions(net: nn.Module, inputs: torch.Tensor) -> int:
    """How many predictions the plain merged network makes that are not the attached network's own."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    same = net(inputs).argmax(-1) == merge(net)(inputs).argmax(-1)
    for module, training in modes:
        module.training = training
    return int((~same).sum())
