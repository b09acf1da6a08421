"""The proof that a run prints: the laws, checked on the network that was searched, and on a plain one that becomes the saved
ticket, against the source drawn anew. Passes that torch.compile has compiled are not looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from popup.errors import UsageError
from popup.search.contract import gate_faults
from popup.search.layer_state import LayerState
from popup.search.network import search_of, unwrapped
from popup.search.plain import merge
from popup.search.search import Search
from popup.source.books import Drawn
from popup.source.layer_source import LayerSource, draw_edges, draw_layer
from popup.source.layers import locate
from popup.source.modes import in_mode
from popup.source.recipe import GIVEN
from popup.ticket.hashes import frozen_hashes
from popup.ticket.ticket import Ticket, extract
from popup.ticket.use import differing, look_at_use
from popup.ticket.verification import miscounted

Expected = dict[str, torch.Tensor]  # each layer's effective weight, dense, by name


@dataclass(frozen=True)
class Proof:
    """One field a law: what was checked, over how many, and what failed (empty if nothing did)."""

    frozen: int                       # tensors whose hash was compared
    changed: tuple[str, ...]          # tensors whose hash is another than before
    redraws: int                      # edges that have a weight of the seed's redraws
    redrawn: int                      # and how many of them are kept
    outside: tuple[str, ...]          # layers with a weight where the source has none, or another than the source's
    miscounted: tuple[str, ...]       # layers that do not keep exactly what they must
    trained: tuple[str, ...]          # layers that the method trains as no ticket of it can be, with what is wrong
    misused: tuple[str, ...]          # layers whose products get something else than the ticket's weights, with what
    anew: bool                        # whether the network of the ticket was built anew, not copied from the searched one
    differing: int                    # outputs in which that network differs from the searched one
    predictions: int                  # outputs compared

    @property
    def holds(self) -> bool:
        return not (self.changed or self.outside or self.miscounted or self.trained or self.misused or self.differing)


def prove(net: nn.Module, before: dict[str, str], inputs: torch.Tensor, ticket: Ticket | None = None,
          plain: nn.Module | None = None, forward: Callable[[nn.Module], torch.Tensor] | None = None) -> Proof:
    """Check the laws on an attached network.

    `before`: `frozen_hashes(net)` from before the search. `inputs` [n, ...]: a batch to compare outputs on, which `forward` runs
    a network on (None: net(inputs)). `ticket`: the one that was saved, as it was read back (None: the one that `net` holds).
    `plain`: a network of the architecture, built anew, which becomes the ticket (None: a copy of `net`).
    """
    search, net = search_of(net), unwrapped(net)
    after = frozen_hashes(net)
    changed = tuple(sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name)))
    if not torch.equal(search.meaning, search.method.book.meaning()):
        changed = (*changed, f"what the code book {search.method.book.name!r} says")
    sources = [_source(search, layer) for layer in search.layers]
    expected = _expected(search, sources)
    kept, outside = _compare_weights(net, search, expected)
    names, recipe = [layer.spec.name for layer in search.layers], search.recipe
    shares = recipe.shares([layer.spec for layer in search.layers], [layer.p_l for layer in search.layers], recipe.k)
    wanted = [source.kept_at(k, recipe.count) for source, k in zip(sources, shares, strict=True)]
    trained = contract_faults(search)
    misused, others = _compare_use(net, expected, inputs, ticket, plain, forward)
    redrawn = sum(layer.book.redrawn(codes.cpu().numpy()) for layer, codes in zip(search.layers, search.codes(), strict=True))
    redraws = sum(int(layer.drawn_in.count_nonzero()) for layer in search.layers)
    return Proof(len(after), changed, redraws, redrawn, outside, miscounted(search.settings, names, kept, wanted),
                 tuple(f"{name}: {words}" for name, words in trained.items()), misused, plain is not None, others, len(inputs))


def contract_faults(search: Search) -> dict[str, str]:
    """What is wrong with the gates that the method trains by now, by layer. What it remembers, and the random state, stay."""
    memory = {name: tensor.clone() for name, tensor in search.memories().items()}
    device = search.layers[0].values.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        found = gate_faults(search, search.training_gates())
    for name, tensor in search.memories().items():
        tensor.copy_(memory[name])
    return found


def _expected(search: Search, sources: list[LayerSource]) -> Expected:
    """The dense weights that the codes of each layer's edges mean in its source drawn anew."""
    found = {}
    for layer, codes, fresh in zip(search.layers, search.codes(), sources, strict=True):
        values = layer.book.values(Drawn(layer.recipe, fresh), codes.cpu())
        dense = torch.zeros(layer.spec.entries, device="cpu").scatter_(0, torch.from_numpy(fresh.edges), values)
        found[layer.spec.name] = dense.view(layer.spec.shape)
    return found


def _source(search: Search, layer: LayerState) -> LayerSource:
    """The layer drawn anew; edges or weights that no seed draws are compared by their hash from before alone."""
    recipe = layer.recipe
    edges = draw_edges(recipe, layer.spec, layer.p_l) if recipe.draws_edges else layer.flat_edges().cpu().numpy()
    if recipe.weights == GIVEN:
        return LayerSource(layer.spec, layer.p_l, edges, layer.values.cpu().numpy())
    return draw_layer(recipe, layer.spec, layer.p_l, edges=edges)


def _compare_weights(net: nn.Module, search: Search, expected: Expected) -> tuple[list[int], tuple[str, ...]]:
    """Count the weights that the attached network has in use, and name the layers whose weights are not the expected ones."""
    kept, outside = [], []
    for name, source in expected.items():
        module, attribute = locate(net, name)
        weight = getattr(module, attribute).detach().cpu()
        used = weight != 0
        kept.append(int(used.sum()))
        if not torch.equal(weight[used], source.to(weight.dtype)[used]):
            outside.append(name)
    return kept, tuple(outside)


def _compare_use(net: nn.Module, expected: Expected, inputs: torch.Tensor, ticket: Ticket | None, plain: nn.Module | None,
                 forward: Callable[[nn.Module], torch.Tensor] | None) -> tuple[tuple[str, ...], int]:
    """Let a plain network be the ticket, and look at what its products get and what it gives, beside the searched one's."""
    try:
        tried = (ticket or extract(net)).apply(merge(net) if plain is None else plain)
    except UsageError as error:  # of a parameter that is not what attach left, for one
        return (f"the ticket cannot be applied: {error}",), len(inputs)
    right = {name: tensor.to(inputs.device) for name, tensor in expected.items()}
    faults, outputs = look_at_use(tried.to(inputs.device), right, inputs, forward)
    modes = {module: module.training for module in net.modules()}
    with torch.no_grad():
        own = (forward or (lambda net: net(inputs.clone())))(in_mode(net, False))
    for module, mode in modes.items():
        module.training = mode
    return faults, differing(own, outputs)
