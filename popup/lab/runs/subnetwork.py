"""The subnetworks of a ticket's source that controls begin with: which edges each layer has, and their weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from popup.source.books import PLAIN, Book, Drawn
from popup.source.layer_source import LayerSource, draw_values
from popup.source.recipe import Recipe
from popup.source.streams import Stream


@dataclass(frozen=True)
class Subnetwork:
    """What a control starts from: each layer's source, the ticket's codes of its edges, and the book that they are of. `dense`:
    the state_dict of the dense network after its training, for controls that begin with it. `temperature`: what the ticket's loss
    multiplies logits by."""

    sources: list[Drawn]
    codes: list[np.ndarray]  # [edges] a layer
    book: Book
    dense: Mapping[str, torch.Tensor] = field(default_factory=dict)
    temperature: float = 1.0

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


def whole_ticket(start: Subnetwork) -> list[LayerSource]:
    """The ticket itself: its edges with the weights that its codes mean."""
    return start.keep(lambda stream, codes: codes)


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
