"""The recipe of a source: the few values from which the whole random network f(x; W * S_ER) is drawn again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from math import sqrt
from typing import Any

from torch import nn

from popup.errors import UsageError, check_count, check_flag, check_name, check_number
from popup.source.counts import COUNTS
from popup.source.densities import DENSITIES, layer_densities, layer_shares
from popup.source.gains import as_one, as_words, check_gain, from_words
from popup.source.layers import Layer, find_layers
from popup.source.masks import COMPUTED, MASKS
from popup.source.weights import SCALES, WEIGHTS

LATER = "later"  # of a field that a version added after there were tickets: the value that is what they did
GIVEN, SEARCH = "given", "search"
SOURCE = "source"  # of the ticket's density: as the source's
BIASES = ("zero", SEARCH)
SPREAD = ("density", "redistribute", "mask", "connected")  # how edges are chosen and spread: nothing to a source that has all
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
    ticket_density: str = field(default=SOURCE, metadata={LATER: SOURCE, "axis": True, "choices": (SOURCE, *DENSITIES), "help": (
        "how the ticket's edges are spread over the layers: source, so that each keeps k of its edges; or as that rule for "
        "--density spreads so many, but that a layer which has fewer edges keeps all")})
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
        for name in ("er_p", "k", "gain"):  # 1 and 1.0 are one recipe, and so are the bytes of their tickets
            if isinstance(value := getattr(self, name), int):
                object.__setattr__(self, name, float(value))
        check_count("seed", self.seed, 0)
        check_name("density", self.density, [*DENSITIES, GIVEN])
        check_name("ticket_density", self.ticket_density, [SOURCE, *DENSITIES])
        check_name("mask", self.mask, [*MASKS, *COMPUTED, GIVEN])
        check_name("bias", self.bias, BIASES)
        check_name("weights", self.weights, [*WEIGHTS, GIVEN])
        check_name("scale", self.scale, SCALES)
        check_name("count", self.count, COUNTS)
        check_flag("redistribute", self.redistribute)
        check_flag("connected", self.connected)
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

    @property
    def complete(self) -> bool:
        """Whether S_ER has every edge, so that no field of SPREAD makes another network."""
        return self.er_p == 1 and self.mask in (*MASKS, *COMPUTED) and (self.redistribute or self.density == "uniform")

    def densities(self, layers: Sequence[Layer], given: Mapping[str, float] | None = None) -> list[float]:
        """p_l of each layer, the rule being for the weights: a bias has its weight's. `given` (required when density is
        'given') maps the weights' names to p_l."""
        if self.density == GIVEN and given is None:
            raise UsageError("density is 'given': pass the mapping from layer name to p_l")
        weights = [layer for layer in layers if layer.weight is None]
        p_l = layer_densities(weights, self.er_p, self.density if given is None else given, self.redistribute)
        return _with_biases(layers, p_l)

    def shares(self, layers: Sequence[Layer], p_l: Sequence[float], k: float) -> list[float]:
        """k_l, the fraction of each layer's edges that is kept where k of all are: k, or what `ticket_density` gives a source of
        densities `p_l`; a bias has its weight's."""
        if self.ticket_density == SOURCE:
            return [k] * len(layers)
        weights = [layer for layer in layers if layer.weight is None]
        of_weights = [p for layer, p in zip(layers, p_l, strict=True) if layer.weight is None]
        return _with_biases(layers, layer_shares(weights, of_weights, k, self.ticket_density))

    def of_each(self, layers: Sequence[Layer], p_l: Sequence[float]) -> list[Recipe]:
        """The recipe of each layer by itself, whose k is the layer's own k_l."""
        return [self.with_k(k) for k in self.shares(layers, p_l, self.k)]

    def with_k(self, k: float) -> Recipe:
        """The same with another k."""
        return self if k == self.k else replace(self, k=k)

    def layers(self, net: nn.Module) -> list[Layer]:
        """The layers of a plain network that it masks."""
        return find_layers(net, self.searches_biases, self.skip, self.only)

    def record(self) -> dict[str, float | int | str | bool]:
        """The recipe as plain values, for a ticket's metadata: without what came later and is what was done before."""
        return {name: value for name, value in asdict(self).items() if name not in as_before(self)}


def _with_biases(layers: Sequence[Layer], of_weights: Sequence[float]) -> list[float]:
    """For each of the `layers` its value `of_weights`, which are of the weights alone: a bias has its weight's."""
    found = dict(zip((layer.name for layer in layers if layer.weight is None), of_weights, strict=True))
    return [found[(layer.weight or layer).name] for layer in layers]
