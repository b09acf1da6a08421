"""One layer of a source, and how it is drawn: its edges and their weights, from the recipe and the layer's own streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from popup.errors import UsageError
from popup.source.connected import CONNECTED
from popup.source.counts import kept_edges
from popup.source.gains import check_patterns
from popup.source.layers import Layer
from popup.source.masks import MASKS
from popup.source.recipe import GIVEN, Recipe
from popup.source.streams import Stream
from popup.source.weights import WEIGHTS, deviations


@dataclass(frozen=True)
class LayerSource:
    """One layer of the source: where its edges are (flat, ascending, int64) and their weights (float32)."""

    spec: Layer
    p_l: float
    edges: np.ndarray
    values: np.ndarray

    def kept_at(self, k: float, count: str = "nearest") -> int:
        """n_l, how many edges are kept at `k`, rounded by `count`."""
        return kept_edges(k, len(self.edges), count)


def draw_layer(recipe: Recipe, layer: Layer, p_l: float, given: np.ndarray | None = None,
               edges: np.ndarray | None = None) -> LayerSource:
    """Draw one layer of the source. The same arguments give the same bits, whatever else the network holds.

    `given` [entries], for weights 'given': the values the edges take theirs from, as they are. `edges`, for a mask that no
    seed draws: their flat indices, ascending, int64.
    """
    edges = draw_edges(recipe, layer, p_l) if edges is None else edges
    if recipe.weights == GIVEN and given is not None:
        values = given.reshape(-1)[edges].astype(np.float32)
        _refuse_zeros(recipe, layer, values, given)
        return LayerSource(layer, p_l, edges, values)
    return LayerSource(layer, p_l, edges, draw_values(recipe, layer, p_l, edges))


def _refuse_zeros(recipe: Recipe, layer: Layer, values: np.ndarray, given: np.ndarray) -> None:
    """A UsageError if the `values` of edges, out of the layer's `given` weights, have a 0: counted as kept, it would be in no
    use."""
    zeros = len(values) - np.count_nonzero(values)
    if not zeros:
        return
    if not given.astype(np.float32).any():
        remedy = "has no other weight: initialise it, or use " + ("bias='zero'" if layer.weight else "weights='signed_constant'")
    elif recipe.mask == GIVEN:
        remedy = f"needs a mask without these: masks[{layer.name!r}] & (weight != 0)"
    else:
        remedy = ("keeps to its own edges with mask='given', masks={layer.name: net.get_parameter(layer.name) != 0 for layer in "
                  f"popup.source.find_layers(net{', True' * recipe.searches_biases})}} in place of er_p and density")
    raise UsageError(f"weights are 'given', and {layer.name} has the weight 0 at {zeros} of its {len(values)} edges, and "
                     f"{remedy}")


def draw_edges(recipe: Recipe, layer: Layer, p_l: float) -> np.ndarray:
    """The flat indices of a layer's edges, ascending, int64."""
    if not recipe.draws_edges:
        raise UsageError(f"mask is {recipe.mask!r}, so no seed draws the edges of {layer.name}: attach a network with "
                         f"popup.attach(net, mask='given', masks=...), or use {', '.join(MASKS)}")
    if recipe.connected and layer.weight is None:
        if layer.sides is not None and not (layer.sides.inputs_first and layer.sides.entries == layer.entries):
            raise UsageError(f"connected is for layers of outputs and inputs, and {layer.name} {list(layer.shape)} has several "
                             "of these: leave connected out, or skip the layer")
        return CONNECTED[recipe.mask](recipe.seed, layer.name, layer.shape, p_l)
    return MASKS[recipe.mask](recipe.seed, layer.name, layer.entries, p_l)


def draw_values(recipe: Recipe, layer: Layer, p_l: float, edges: np.ndarray, purpose: str = "weights") -> np.ndarray:
    """The frozen weights (float32) of a layer's edges; another `purpose` gives another, independent draw."""
    if recipe.weights == GIVEN:
        raise UsageError(f"weights are 'given', so no seed draws those of {layer.name}: attach a network that has them "
                         f"with popup.attach(net, weights='given'), or use {', '.join(WEIGHTS)}")
    scaled = deviations(layer, edges, p_l, recipe.k, recipe.scale, recipe.gain)
    return WEIGHTS[recipe.weights](Stream(recipe.seed, purpose, layer.name), layer.entries, edges) * scaled


def redraw_purpose(turn: int) -> str:
    """The name of the stream that a layer's weights come from in its `turn`-th redraw, counted from 1."""
    return f"redraw {turn}"


def draw_again(recipe: Recipe, source: LayerSource, redraws: np.ndarray) -> np.ndarray:
    """The weights (float32) of a layer's edges after redraws: `redraws` [edges] says which was an edge's last, counted from
    1; 0: none, the edge has its first weight."""
    values = source.values.copy()
    for turn in np.unique(redraws[redraws > 0]):
        fresh = draw_values(recipe, source.spec, source.p_l, source.edges, redraw_purpose(int(turn)))
        values[redraws == turn] = fresh[redraws == turn]
    return values


def draw_several(recipe: Recipe, source: LayerSource, count: int) -> np.ndarray:
    """The first `count` draws of the weights of a layer's edges, float32 [count, edges]: its own, and those of the redraws."""
    others = [draw_values(recipe, source.spec, source.p_l, source.edges, redraw_purpose(turn)) for turn in range(1, count)]
    return np.stack([source.values, *others])


def draw_source(recipe: Recipe, layers: Sequence[Layer], p_l: Mapping[str, float] | None = None,
                weights: Mapping[str, np.ndarray] | None = None,
                edges: Mapping[str, np.ndarray] | None = None) -> list[LayerSource]:
    """Draw the whole source at the recipe's densities, or at the realised ones of the `edges` where these are given.

    By layer name: `p_l` for density 'given', `weights` [entries] for weights 'given', `edges` for a mask no seed draws.
    """
    if edges is None:
        return draw(recipe, layers, recipe.densities(layers, p_l), weights)
    return draw(recipe, layers, [len(edges[layer.name]) / layer.entries for layer in layers], weights, edges)


def draw(recipe: Recipe, layers: Sequence[Layer], p_l: Sequence[float],
         given: Mapping[str, np.ndarray] | None = None, edges: Mapping[str, np.ndarray] | None = None) -> list[LayerSource]:
    """Draw the whole source; a UsageError if not one layer has got an edge, or if a gain's pattern is of no layer. `given`,
    `edges`: by layer name."""
    check_patterns(recipe.gain, [layer.name for layer in layers if layer.weight is None])
    source = [draw_layer(own, layer, p, given[layer.name] if given else None, edges[layer.name] if edges else None)
              for own, layer, p in zip(recipe.of_each(layers, p_l), layers, p_l, strict=True)]
    if not any(len(layer.edges) for layer in source):
        entries = sum(layer.entries for layer in layers)
        raise UsageError(f"er_p {recipe.er_p:g} leaves no edge in any of the {len(layers)} layers "
                         f"({entries} weights in all): raise er_p or widen the network")
    return source
