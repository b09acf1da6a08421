"""The recipe of a source: the few values from which the whole random network f(x; W * S_ER) is drawn again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from math import sqrt
from typing import Any

import numpy as np
from torch import nn

from popup.errors import UsageError, check_count, check_name, check_number
from popup.source.connected import CONNECTED
from popup.source.counts import COUNTS, kept_edges
from popup.source.densities import DENSITIES, layer_densities
from popup.source.gains import as_one, as_words, check_gain, check_patterns, from_words
from popup.source.layers import Layer, find_layers
from popup.source.masks import COMPUTED, MASKS
from popup.source.streams import Stream
from popup.source.weights import SCALES, WEIGHTS, deviations

LATER = "later"  # of a field that a version added after there were tickets: the value that is what they did
GIVEN, SEARCH = "given", "search"
BIASES = ("zero", SEARCH)
ONE_SIZE = ("mask is 'synflow', which ranks weights by their size, and with weights 'signed_constant' those of a layer have one "
            "size: use weights 'kaiming_normal'")


def as_before(settings: Any) -> set[str]:
    """The fields of a dataclass that came later and have the value that is what was done before there were such."""
    return {part.name for part in fields(settings)
            if LATER in part.metadata and getattr(settings, part.name) == part.metadata[LATER]}


@dataclass(frozen=True)
class Recipe:
    """Seed, densities and weights of one source; `k` is here because the weights are scaled for the final density."""

    er_p: float = field(default=0.2, metadata={
        "axis": True, "help": "ER density p in (0, 1]: the fraction of all weights that are edges of the source"})
    k: float = field(default=0.5, metadata={
        "axis": True, "help": "fraction in (0, 1] of the ER edges that the ticket keeps; the final density is about p*k"})
    density: str = field(default="uniform", metadata={
        "axis": True, "help": "how p is spread over the layers", "choices": tuple(DENSITIES)})
    redistribute: bool = field(default=True, metadata={
        "help": "spread what a full layer cannot take over the others, so that the total is p"})
    mask: str = field(default="bernoulli", metadata={
        "axis": True, "choices": (*MASKS, *COMPUTED),
        "help": "edges drawn independently, or exactly p_l of each layer's entries; or, without --density, the fraction p "
                "of the whole network that a criterion for pruning at initialisation keeps"})
    bias: str = field(default="zero", metadata={
        "axis": True, "choices": BIASES,
        "help": "biases are 0, or random and frozen as their layers' weights are, with edges and scores of their own"})
    weights: str = field(default="signed_constant", metadata={
        "axis": True, "help": "distribution of the frozen weights", "choices": tuple(WEIGHTS)})
    scale: str = field(default="final", metadata={
        "help": "which density scales the weights' standard deviation: p_l*k, p_l, none, or (unit) not even fan_in",
        "choices": tuple(SCALES)})
    gain: float | str = field(default=sqrt(2), metadata={
        "words": (as_words, lambda words: as_one(from_words(words))),
        "help": "weights have standard deviation gain / sqrt(fan_in * density); a number, and PATTERN=NUMBER for layers whose "
                "name, or whose module's, the pattern is of: 1.1 *.attention.qkv=2.8"})
    connected: bool = field(default=False, metadata={
        "help": "no unit of a layer (of a convolution: no channel) is without an edge in S_ER, of which there are as many on "
                "average", LATER: False})
    count: str = field(default="nearest", metadata={
        "help": "how k of a layer's edges is made a whole number: nearest (halves up), ceil, or drop_floor: n - int((1 - k) n) "
                "in floats, as github.com/allenai/hidden-networks counts", "choices": tuple(COUNTS), LATER: "nearest"})
    seed: int = field(default=0, metadata={"help": "the seed of every draw: source, scores, batches, augmentation"})
    skip: tuple[str, ...] = field(default=(), metadata={LATER: (), "help": (
        "modules or parameters that stay dense and frozen as the network has them, by names or patterns such as '*.head'")})
    only: tuple[str, ...] = field(default=(), metadata={LATER: (), "help": (
        "the modules or parameters, by names or patterns, that are masked, embeddings too where it names them; all else stays "
        "dense")})

    def __post_init__(self) -> None:
        check_number("er_p", self.er_p, 0.0, 1.0, open_low=True)
        check_number("k", self.k, 0.0, 1.0, open_low=True)
        check_gain(self.gain)
        check_count("seed", self.seed, 0)
        check_name("density", self.density, [*DENSITIES, GIVEN])
        check_name("mask", self.mask, [*MASKS, *COMPUTED, GIVEN])
        check_name("bias", self.bias, BIASES)
        check_name("weights", self.weights, [*WEIGHTS, GIVEN])
        check_name("scale", self.scale, SCALES)
        check_name("count", self.count, COUNTS)
        if self.connected and not self.draws_edges:
            raise UsageError(f"connected is for edges that the seed draws, and mask is {self.mask!r}: leave connected out, or "
                             f"use mask {' or '.join(MASKS)}")
        if not self.draws_edges and self.density != "uniform":
            raise UsageError(f"density is {self.density!r} and mask is {self.mask!r}, which has layerwise densities of its "
                             "own: leave density out")
        if self.mask == "synflow" and self.weights == "signed_constant":
            raise UsageError(ONE_SIZE)
        if self.searches_biases and self.mask in COMPUTED:
            raise UsageError(f"bias is 'search' and mask is {self.mask!r}, which ranks weights alone: use bias 'zero', or "
                             f"mask {' or '.join(MASKS)}")

    @property
    def searches_biases(self) -> bool:
        """Whether biases are layers too."""
        return self.bias == SEARCH

    @property
    def draws_edges(self) -> bool:
        """Whether the seed draws S_ER; else a ticket has to hold it."""
        return self.mask in MASKS

    def densities(self, layers: Sequence[Layer], given: Mapping[str, float] | None = None) -> list[float]:
        """p_l of each layer, the rule being for the weights: a bias has its weight's. `given` (required when density is
        'given') maps the weights' names to p_l."""
        if self.density == GIVEN and given is None:
            raise UsageError("density is 'given': pass the mapping from layer name to p_l")
        weights = [layer for layer in layers if layer.weight is None]
        p_l = layer_densities(weights, self.er_p, self.density if given is None else given, self.redistribute)
        found = {layer.name: p for layer, p in zip(weights, p_l, strict=True)}
        return [found[(layer.weight or layer).name] for layer in layers]

    def layers(self, net: nn.Module) -> list[Layer]:
        """The layers of a plain network that it masks."""
        return find_layers(net, self.searches_biases, self.skip, self.only)

    def record(self) -> dict[str, float | int | str | bool]:
        """The recipe as plain values, for a ticket's metadata: without what came later and is what was done before."""
        return {name: value for name, value in asdict(self).items() if name not in as_before(self)}


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
    source = [draw_layer(recipe, layer, p, given[layer.name] if given else None, edges[layer.name] if edges else None)
              for layer, p in zip(layers, p_l, strict=True)]
    if not any(len(layer.edges) for layer in source):
        entries = sum(layer.entries for layer in layers)
        raise UsageError(f"er_p {recipe.er_p:g} leaves no edge in any of the {len(layers)} layers "
                         f"({entries} weights in all): raise er_p or widen the network")
    return source
