"""Controls: what a ticket's accuracy is compared with, in the ticket's own source, at its counts, on its data.

A control is a run of its own, whose config differs from its ticket's in `role`. A new one is a function and a line in
CONTROLS. Norms get fresh statistics from training data in each of them, as the ticket's do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from math import sqrt

import numpy as np
import torch
from torch import nn

from popup.lab.config import Config
from popup.lab.data.datasets import Dataset, Split
from popup.lab.precision import Precision
from popup.lab.training.batches import Batches
from popup.lab.training.checkpoint import Checkpoints
from popup.lab.training.norms import synchronised
from popup.lab.training.optimizers import sgd
from popup.lab.training.randomness import seeded
from popup.lab.training.ranks import Ranks
from popup.lab.training.state import Metrics, TrainingState
from popup.lab.training.training import evaluate, load_batches, optimise, refresh_statistics
from popup.search.settings import SearchSettings
from popup.source.books import PLAIN, Book, Drawn
from popup.source.frozen import freeze
from popup.source.layers import locate
from popup.source.masks import COMPUTED
from popup.source.recipe import LayerSource, Recipe, draw_values
from popup.source.streams import Stream
from popup.ticket.hashes import hash_array

TICKET = "ticket"


@dataclass(frozen=True)
class Subnetwork:
    """What a control starts from: each layer's source, the ticket's codes of its edges, and the book that they are of."""

    sources: list[Drawn]
    codes: list[np.ndarray]  # [edges] a layer
    book: Book

    def keep(self, choose: Callable[[Stream, np.ndarray], np.ndarray], purpose: str = "") -> list[LayerSource]:
        """Each layer's source cut down to the edges that have a code by `choose(the stream of that purpose, the ticket's codes)`,
        with the weights which the codes mean."""
        return [_cut(drawn, self.book, choose(Stream(drawn.recipe.seed, purpose, drawn.source.spec.name), codes))
                for drawn, codes in zip(self.sources, self.codes, strict=True)]


def whole_source_of(recipe: Recipe, sources: Sequence[LayerSource]) -> Subnetwork:
    """A start of which every edge is kept with its own weight."""
    every = [np.ones(len(source.edges), dtype=bool) for source in sources]
    return Subnetwork([Drawn(recipe, source) for source in sources], every, PLAIN)


def _cut(drawn: Drawn, book: Book, codes: np.ndarray) -> LayerSource:
    """The source with the edges alone whose code is not 0, and their effective weights."""
    chosen, values = codes != 0, book.values(drawn, torch.from_numpy(codes)).numpy()
    return replace(drawn.source, edges=drawn.source.edges[chosen], values=values[chosen])


@dataclass(frozen=True)
class Control:
    """`build` gives each layer's edges and weights; `trained` says whether the weights then learn.

    `fixed` holds config fields that do not matter to it, at one value each: runs that differ in them only are one run.
    """

    title: str
    build: Callable[[Subnetwork], list[LayerSource]]
    trained: bool = False
    fixed: tuple[tuple[str, object], ...] = ()

    @property
    def needs_ticket(self) -> bool:
        """Whether the ticket must have been found before; its mask is not used where k is fixed at 1."""
        return ("k", 1.0) not in self.fixed


def random_subnetwork(start: Subnetwork) -> list[LayerSource]:
    """As many edges of S_ER in each layer as the ticket keeps, all sets equally likely, with the ticket's codes in turn."""
    def choose(stream: Stream, codes: np.ndarray) -> np.ndarray:
        kept, chosen = codes[codes != 0], np.zeros_like(codes)
        chosen[stream.permutation(len(codes))[:len(kept)]] = kept
        return chosen

    return start.keep(choose, "random subnetwork")


def shuffled_mask(start: Subnetwork) -> list[LayerSource]:
    """The learned codes, shuffled within each layer's edges."""
    return start.keep(lambda stream, codes: codes[stream.permutation(len(codes))], "shuffled mask")


def redrawn_weights(start: Subnetwork) -> list[LayerSource]:
    """The learned codes on weights of another draw."""
    def redrawn(drawn: Drawn) -> Drawn:
        source = drawn.source
        values = draw_values(drawn.recipe, source.spec, source.p_l, source.edges, "redrawn weights")
        return Drawn(drawn.recipe, replace(source, values=values), stored=True)

    return replace(start, sources=[redrawn(drawn) for drawn in start.sources]).keep(lambda stream, codes: codes)


def whole_source(start: Subnetwork) -> list[LayerSource]:
    """f(x; W S_ER): all edges with their own weights, whatever the ticket keeps."""
    return [drawn.source for drawn in start.sources]


TRAINED_GAIN = sqrt(2)  # of He et al., 2015, whatever gain suits a search
SEARCH_ONLY = (*((part.name, part.default) for part in fields(SearchSettings)), ("k", 1.0), ("weights", "kaiming_normal"),
               ("scale", "final"), ("gain", TRAINED_GAIN), ("lr", 0.1), ("optimizer", "sgd"), ("compute", "dense"))
SOURCE_ONLY = (("er_p", 1.0), ("density", "uniform"), ("redistribute", True), ("mask", "bernoulli"), ("bias", "zero"))

CONTROLS: dict[str, Control] = {
    "random": Control("random subnetwork", random_subnetwork),
    "shuffled": Control("shuffled mask", shuffled_mask),
    "redrawn": Control("redrawn weights", redrawn_weights),
    "source": Control("unpruned source", whole_source),
    "random_trained": Control("random subnetwork, weights trained", random_subnetwork, trained=True),
    "er_trained": Control("ER source, weights trained", whole_source, trained=True, fixed=SEARCH_ONLY),
    "dense_trained": Control("dense network, weights trained", whole_source, trained=True, fixed=SEARCH_ONLY + SOURCE_ONLY),
}


def control_config(config: Config, role: str) -> Config:
    """The config of a ticket's control. Where its mask is computed from the weights, they are those of the ticket."""
    fixed = dict(CONTROLS[role].fixed)
    if fixed.get("mask", config.source.mask) in COMPUTED:
        fixed = {name: value for name, value in fixed.items() if name not in ("weights", "scale", "gain")}
    return config.replace(role=role, **fixed)


def run_control(net: nn.Module, data: Dataset, config: Config, start: Subnetwork,
                on_epoch: Callable[[Metrics], None], checkpoints: Checkpoints | None = None,
                ranks: Ranks | None = None) -> tuple[list[Metrics], list[LayerSource]]:
    """Turn the plain network `net` into the control of `config`, train it if it is to be, and evaluate it.

    Returns its metrics (one row if nothing is trained) and the subnetwork that was evaluated.
    """
    control = CONTROLS[config.task.role]
    layers = control.build(start)
    batches, test = load_batches(net, data.train, data.test, config, ranks or Ranks())
    freeze(net)
    precision = Precision.of(net, config.training.precision)
    if control.trained:
        return _train_weights(net, layers, config, precision, batches, test, on_epoch, checkpoints or Checkpoints()), layers
    _set_weights(net, layers)
    with seeded(config.source.seed, "statistics", test[0].device), synchronised(net, batches.ranks, config.training.sync_norm):
        refresh_statistics(net, batches, precision)
    metrics = {"epoch": 0, **evaluate(net, *test, batches.normalise, precision, batches.ranks)}
    on_epoch(metrics)
    return [metrics], layers


def _set_weights(net: nn.Module, layers: Sequence[LayerSource]) -> list[torch.Tensor]:
    """Write each layer's values at its edges and 0 elsewhere; returns the masks as float of the weights' shapes."""
    masks = []
    for source in layers:
        module, attribute = locate(net, source.spec.name)
        dense, mask = (np.zeros(source.spec.entries, dtype=np.float32) for _ in range(2))
        dense[source.edges], mask[source.edges] = source.values, 1
        weight = getattr(module, attribute)
        weight.data.copy_(torch.from_numpy(dense).view(source.spec.shape))
        masks.append(torch.from_numpy(mask).view(source.spec.shape).to(weight))
    return masks


def _train_weights(net: nn.Module, layers: Sequence[LayerSource], config: Config, precision: Precision, batches: Batches,
                   test: Split, on_epoch: Callable[[Metrics], None], checkpoints: Checkpoints) -> list[Metrics]:
    """Ordinary training of all parameters, weights outside the mask held at 0 by masking their gradients.

    Weights start Kaiming normal, scaled for the density the layer really has.
    """
    recipe = replace(config.source, k=1.0, weights="kaiming_normal", scale="final", gain=TRAINED_GAIN)
    fresh = [replace(source, values=draw_values(recipe, source.spec, max(1, len(source.edges)) / source.spec.entries,
                                                source.edges, "trained weights")) for source in layers]
    masks = _set_weights(net, fresh)
    net.requires_grad_(True)
    masked = [(net.get_parameter(source.spec.name), mask) for source, mask in zip(layers, masks, strict=True)
              if len(source.edges) < source.spec.entries]

    def hold() -> None:
        for weight, mask in masked:
            if weight.grad is not None:
                weight.grad.mul_(mask)

    parameters, lr = list(net.parameters()), config.training.weight_lr
    frozen = {source.spec.name: hash_array(source.edges) for source in layers}
    state = TrainingState(net, parameters, sgd(parameters, config.training, lr), batches.steps, precision,
                          frozen=frozen, ranks=batches.ranks, hold=hold)
    return optimise(state, batches, test, config.training, lr, lambda trained: trained, on_epoch, checkpoints)
