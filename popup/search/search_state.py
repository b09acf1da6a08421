"""How far a search is, and the selection over its layers: what a method is told of the search that it decides in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from typing import cast

import torch
from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from popup.errors import UsageError
from popup.search.edge_group import EdgeGroup, each_layer, grouped
from popup.search.keys import Keys
from popup.search.layer_state import REDRAW, LayerState
from popup.search.select import Bracket, Ranked, Scope
from popup.search.sharding import refuse_parts
from popup.search.unit import Unit
from popup.source.counts import kept_edges
from popup.source.parametrized import lists_on
from popup.source.recipe import SOURCE, Recipe


class SearchState:
    """The layers of one network with their scores, and the course of its search.

    `steps` of the optimiser have been done, and `progress`, in [0, 1], of the whole search; `before` is the progress of a
    step ago. `k_at_progress` gives the kept fraction at a progress, `scope` selects over all layers, `floor_of` a share.
    """

    def __init__(self, recipe: Recipe, k_at_progress: Callable[[float], float], scope: Scope,
                 floor_of: Callable[[int], int]) -> None:
        self.recipe, self._k_at, self._scope, self._floor_of = recipe, k_at_progress, scope, floor_of
        self.steps, self.before, self.progress = 0, 0.0, 0.0
        self.ordered = True    # whether first scores lie where the settings want them
        self.ordering = False  # whether passes are for the gradients by which they are to be ordered
        self.layers: list[LayerState] = []
        self._shares: tuple[float, list[float]] = 0.0, []  # of the k that was last asked for
        self.groups: list[EdgeGroup] = []
        self._brackets: list[Bracket] = []
        self._originals: list[ParametrizationList] = []  # what holds each layer's scores
        self.sharded = False                             # whether FSDP2 leaves a process a part of these between passes

    def refuse_unordered(self) -> None:
        """A UsageError if first scores are to be ordered by a gradient, and have not been."""
        if not (self.ordered or self.ordering or self.steps):
            raise UsageError("first_scores is 'gradient': call popup.order_scores(net, batches) before the first training pass "
                             "(popup.fit does)")

    def add(self, layer: LayerState, module: nn.Module, name: str) -> None:
        """Take one layer into the search, which parametrizes `name` of `module`."""
        self.layers.append(layer)
        self._brackets.append(Bracket())
        self._originals.append(lists_on(module)[name])

    def group(self, together: bool) -> None:
        """Have layers that are alike asked about `together`, once all are there; again where they are moved or converted."""
        self._together, self._grouped_on = together, self._place()
        self.groups = grouped(self.layers, together and self.recipe.ticket_density == SOURCE)  # else each has a scale of its own
        for group in self.groups:
            group.join()

    def regroup_if_moved(self) -> None:
        """Let the groups be those of the device that the layers are on now, and of the types that their weights have."""
        if self._place() != self._grouped_on:
            self.group(self._together)

    def _place(self) -> tuple[torch.device, list[torch.dtype]]:
        """What a network is moved or converted to."""
        return self.layers[0].values.device, [layer.dtype for layer in self.layers]

    def scores(self) -> list[nn.Parameter]:
        """The score parameter [edges] of each layer, in the network's order."""
        found = [made._parameters["original"] for made in self._originals]  # a module's own look-up takes ten times as long
        return cast("list[nn.Parameter]", found)  # torch's type has None in it, which is not registered here

    def pairs(self) -> list[tuple[LayerState, nn.Parameter]]:
        """Each layer with its scores."""
        scores = self.scores()
        refuse_parts(self.layers, scores)
        return list(zip(self.layers, scores, strict=True))

    def units(self) -> list[tuple[Unit, torch.Tensor]]:
        """What a method is asked about: each layer with its scores, or several that are asked about together, with theirs."""
        self.regroup_if_moved()
        for layer in self.layers:
            layer.keep_up()
        scores = self.scores()
        refuse_parts(self.layers, scores)
        with torch.no_grad():
            return [(group.unit, scores[group.places[0]] if group.alone else torch.cat([scores[place] for place in group.places]))
                    for group in self.groups]

    def k_now(self) -> float:
        """The fraction of edges that the search keeps now; in the end that of the ticket."""
        return self._k_at(self.progress)

    def shares(self, k: float) -> list[float]:
        """The fraction of its edges that each layer keeps where k of all are kept."""
        if self._shares[0] != k:
            layers = [layer.spec for layer in self.layers], [layer.p_l for layer in self.layers]
            self._shares = k, self.recipe.shares(*layers, k)
        return self._shares[1]

    def scales_now(self) -> list[float]:
        """For each of the `units` what a selection at `k_now` is multiplied by, so that activations have the ticket's size:
        a layer's W has the deviation that suits its k, and sqrt(k / k_now) times it suits k_now."""
        now = self.shares(self.k_now())
        return [sqrt(group.layers[0].recipe.k / now[group.places[0]]) for group in self.groups]

    def top(self, keys: Sequence[Keys], k: float) -> list[torch.Tensor]:
        """For each of the `units` the edges with the highest `keys` [edges], at `k` and in the settings' scope: one bool an
        edge."""
        return self._scope([self._ranked(own, group.places, k) for group, own in zip(self.groups, keys, strict=True)])

    def top_of_one(self, keys: Keys, place: int) -> torch.Tensor:
        """The same of one layer at the ticket's k, where each is selected by itself."""
        return self._scope([self._ranked(keys, [place], self.recipe.k)])[0]

    def _ranked(self, keys: Keys, places: Sequence[int], k: float) -> Ranked:
        """The keys of the layers at these places, and how many each keeps at `k`."""
        layers, shares = [self.layers[place] for place in places], self.shares(k)
        counts = [layer.kept if k == self.recipe.k else kept_edges(shares[place], layer.count, self.recipe.count)
                  for place, layer in zip(places, layers, strict=True)]
        keys = keys.copied() if self.sharded else keys  # FSDP frees scores, which torch refuses once an array was made of them
        return Ranked(keys, [layer.count for layer in layers], counts, [self._brackets[place] for place in places],
                      list(map(self._floor_of, counts)), places)

    def redraw(self, wanted: Sequence[torch.Tensor], turn: int, keys: Sequence[Keys]) -> None:
        """Draw weights anew, the `turn`-th time: those of the `wanted` edges (bool [edges] a layer) but for what a selection by
        the `keys` of the units uses now. There is no other way to, so that no edge's weight changes while it is selected."""
        for layer, chosen, used in zip(self.layers, wanted, self.of_layers(self.top(keys, self.k_now())), strict=True):
            layer.redraw(chosen.to(used.device) & ~used, turn)

    def of_layers(self, found: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """For each layer, in the network's order, its part of what was `found` for each of the units, a value an edge."""
        return list(each_layer(self.groups, [(one,) if group.alone else one.split(group.sizes)
                                             for group, one in zip(self.groups, found, strict=True)]))

    def resume(self, steps: int, progress: float) -> None:
        """Be where a search was after `steps`, its scores and memory being restored already."""
        self.steps, self.before, self.progress = steps, progress, progress
        for layer in self.layers:
            if REDRAW in layer.remembered:
                layer.redraw_as_remembered()

    def memories(self) -> dict[str, torch.Tensor]:
        """What the method remembers, by layer and name."""
        return {f"{layer.spec.name}/{name}": layer.memory(name) for layer in self.layers for name in layer.remembered}
