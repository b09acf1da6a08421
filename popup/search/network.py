"""What `attach` leaves on a network: its recipe, its settings, its attached layers, and the selection over them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from popup.errors import UsageError
from popup.search.methods import METHODS, Method
from popup.search.parametrization import EdgeWeight
from popup.search.select import SCOPES, Bracket
from popup.search.settings import SearchSettings
from popup.source.layers import Layer, owner
from popup.source.recipe import Recipe

ATTRIBUTE = "popup_search"


@dataclass(frozen=True)
class LayerDensity:
    """One layer's row: how many entries, the p_l asked for, the edges drawn, how many are kept, kept / entries."""

    name: str
    entries: int
    p_l: float
    edges: int
    kept: int
    density: float


class Search:
    """The search inside one network. In a forward pass of the network every mask is selected once."""

    def __init__(self, recipe: Recipe, settings: SearchSettings) -> None:
        self.recipe, self.settings = recipe, settings
        self.layers: list[EdgeWeight] = []
        self._brackets: list[Bracket] = []
        self._owners: list[tuple[nn.Module, str]] = []
        self._pass: list[torch.Tensor] | None = None
        self.hooks: list[torch.utils.hooks.RemovableHandle] = []

    @property
    def method(self) -> Method:
        return METHODS[self.settings.method]

    def add(self, net: nn.Module, layer: EdgeWeight) -> None:
        """Take one attached layer of `net` into the search."""
        self.layers.append(layer)
        self._brackets.append(Bracket())
        self._owners.append(owner(net, layer.layer.name))

    def scores(self) -> list[nn.Parameter]:
        """The score parameter [edges] of each layer, in the network's order."""
        return [getattr(module.parametrizations, name).original for module, name in self._owners]

    def select(self) -> list[torch.Tensor]:
        """S_P as it is now: for each layer one bool an edge."""
        keys = [self.method.rank(scores) for scores in self.scores()]
        return SCOPES[self.settings.scope](keys, [layer.kept for layer in self.layers], self._brackets)

    def selected(self, layer: EdgeWeight) -> torch.Tensor:
        """The mask of one layer [edges]: this pass's, or outside a pass a fresh one."""
        masks = self._pass if self._pass is not None else self.select()
        return masks[next(place for place, other in enumerate(self.layers) if other is layer)]

    def begin(self, module: nn.Module, inputs: tuple) -> None:
        """Forward pre-hook of the network: select once for the whole pass."""
        self._pass = self.select()

    def end(self, module: nn.Module, inputs: tuple, output: object) -> None:
        """Forward hook of the network, called after an exception too: the masks are good for one pass only."""
        self._pass = None


def search_of(net: nn.Module) -> Search:
    """The search that `attach` left on `net`; a UsageError if there is none."""
    search = getattr(net, ATTRIBUTE, None)
    if search is None:
        raise UsageError(f"{type(net).__name__} is not attached: call popup.attach(net, ...) first")
    return search


def is_attached(net: nn.Module) -> bool:
    """Whether `net` is the network that attach was called on."""
    return getattr(net, ATTRIBUTE, None) is not None


def scores(net: nn.Module) -> list[nn.Parameter]:
    """The only parameters that learn: one 1-D float32 tensor [edges] a layer. Hand them to any optimiser."""
    return search_of(net).scores()


def densities(net: nn.Module) -> list[LayerDensity]:
    """One row a layer, with what S_P keeps now (under a global scope it moves between the layers)."""
    search = search_of(net)
    return [density_row(layer.layer, layer.p_l, layer.count, int(mask.sum()))
            for layer, mask in zip(search.layers, search.select(), strict=True)]


def density_row(layer: Layer, p_l: float, edges: int, kept: int) -> LayerDensity:
    """The row of one layer from its counts."""
    return LayerDensity(layer.name, layer.entries, p_l, edges, kept, kept / layer.entries)
