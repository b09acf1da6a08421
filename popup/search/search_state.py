"""How far a search is, and the selection over its layers: what a method is told of the search that it decides in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt

import torch
from torch import nn

from popup.search.keys import Keys
from popup.search.layer_state import LayerState
from popup.search.select import Bracket, Scope
from popup.source.recipe import Recipe, kept_edges


class SearchState:
    """The layers of one network with their scores, and the course of its search.

    `steps` of the optimiser have been done, and `progress`, in [0, 1], of the whole search; `before` is the progress of a
    step ago. `k_at_progress` gives the kept fraction at a progress, `scope` selects over all layers, `floor_of` a share.
    """

    def __init__(self, recipe: Recipe, k_at_progress: Callable[[float], float], scope: Scope,
                 floor_of: Callable[[int], int]) -> None:
        self.recipe, self._k_at, self._scope, self._floor_of = recipe, k_at_progress, scope, floor_of
        self.steps, self.before, self.progress = 0, 0.0, 0.0
        self.layers: list[LayerState] = []
        self._brackets: list[Bracket] = []
        self._modules: list[tuple[nn.Module, str]] = []  # where each layer's scores are, and under which name

    def add(self, layer: LayerState, module: nn.Module, name: str) -> None:
        """Take one layer into the search, which parametrizes `name` of `module`."""
        self.layers.append(layer)
        self._brackets.append(Bracket())
        self._modules.append((module, name))

    def scores(self) -> list[nn.Parameter]:
        """The score parameter [edges] of each layer, in the network's order."""
        return [getattr(module.parametrizations, name).original for module, name in self._modules]

    def pairs(self) -> list[tuple[LayerState, nn.Parameter]]:
        """Each layer with its scores."""
        return list(zip(self.layers, self.scores(), strict=True))

    def k_now(self) -> float:
        """The fraction of edges that the search keeps now; in the end that of the ticket."""
        return self._k_at(self.progress)

    def scale_now(self) -> float:
        """What a selection at `k_now` is multiplied by, so that activations keep the size that the ticket's have: W has the
        deviation that suits k, and sqrt(k / k_now) times it suits k_now."""
        return sqrt(self.recipe.k / self.k_now())

    def top(self, keys: Sequence[Keys], k: float) -> list[torch.Tensor]:
        """For each layer the edges with the highest `keys` [edges], at `k` and in the settings' scope: one bool an edge."""
        counts = [layer.kept if k == self.recipe.k else kept_edges(k, layer.count) for layer in self.layers]
        return self._scope(keys, counts, self._brackets, [self._floor_of(count) for count in counts])

    def redraw(self, wanted: Sequence[torch.Tensor], turn: int, keys: Sequence[Keys]) -> None:
        """Draw weights anew, the `turn`-th time: those of the `wanted` edges (bool [edges] a layer) but for what a selection by
        the `keys` uses now. There is no other way to, so that no edge's weight changes while it is selected."""
        for layer, chosen, used in zip(self.layers, wanted, self.top(keys, self.k_now()), strict=True):
            layer.redraw(chosen.to(used.device) & ~used, turn)

    def memories(self) -> dict[str, torch.Tensor]:
        """What the method remembers, by layer and name."""
        return {f"{layer.spec.name}/{name}": layer.memory(name) for layer in self.layers for name in layer.remembered}
