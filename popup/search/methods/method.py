"""What a search method decides: its contract with the laws, the tickets and the proof. The base class is edge-popup's rule; a
method overrides what it does otherwise.

A method owns its scores, the gates that it trains by and their slope, names its code book, and gives the codes of the edges
that are selected. It holds its settings and nothing else. What it has to remember of a layer (averages, locked edges, redraws)
lies in that layer's `memory`, tensors that move with the network and are part of a checkpoint.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from popup.search.gate import Gate
from popup.search.keys import RANKS, Keys
from popup.search.layer_state import LayerState
from popup.search.search_state import SearchState
from popup.search.unit import Unit
from popup.source.books import PLAIN, Book

FAN_IN, KEPT = "fan_in", "kept"  # what the size of first scores follows: all inputs of a unit, or as many as it keeps


def in_order_of(wanted: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """The `sizes` [edges], the n-th highest where `wanted` [edges] is the n-th highest; among equal ones as they were."""
    found, drawn = torch.empty_like(sizes), sizes.argsort(descending=True, stable=True)
    found[drawn[wanted[drawn].argsort(descending=True, stable=True)]] = sizes[drawn]
    return found


class Options(Protocol):
    """What methods read of SearchSettings (popup/search/settings.py), which knows them all."""

    @property
    def method(self) -> str: ...
    @property
    def rank(self) -> str: ...
    @property
    def score_scale(self) -> float: ...
    @property
    def average_from(self) -> float: ...
    @property
    def locked(self) -> float: ...
    @property
    def redraw_every(self) -> int: ...
    @property
    def redraw_rate(self) -> float: ...
    @property
    def penalty(self) -> float: ...
    @property
    def hard_from(self) -> float: ...
    @property
    def coats(self) -> int: ...
    @property
    def coat_rule(self) -> str: ...
    @property
    def draws(self) -> int: ...
    @property
    def draw_choice(self) -> str: ...


class Method:
    """How scores become a gate in training, how they become the ticket's codes, and what gradient they get."""

    book: Book = PLAIN       # what the codes of its tickets mean
    edgewise = False         # whether it decides edge by edge, and may be asked about the edges of several layers at once; each
    #                          class says it for itself: one that overrides what another decides may decide otherwise
    learns = True            # whether scores get a gradient at all
    trains_ticket = True     # whether it trains by the ticket's codes, once k is the ticket's: attach and the proof compare
    scores_an_edge = 1       # how many scores an edge has: scores [n * edges] are all first ones, all second ones and so on
    rate = 1.0               # factor on the learning rate: by how much larger its scores move than edge_popup's
    score_unit = FAN_IN      # what its first scores are multiples of, unless asked for otherwise
    uses: tuple[str, ...] = ("rank", "score_scale", "score_unit", "first_scores", "anneal")  # the settings that matter to it,
    #                                                                                          beside method and scope

    def __init__(self, settings: Options) -> None:
        self.settings = settings

    @property
    def asked_together(self) -> bool:
        """Whether layers may be asked about together: its class itself has said that it is edgewise."""
        return vars(type(self)).get("edgewise", False)

    def first_scores(self, uniform: np.ndarray, fan_in: float, k: float) -> np.ndarray:
        """The first scores, from `uniform` [edges], float64 in (0, 1): here uniform in +-score_scale / sqrt(fan_in). `fan_in` is
        the layer's, or by the settings what of it is kept on average.

        At score_scale 1 this is the distribution of published edge-popup (kaiming_uniform_ with a = sqrt(5)).
        """
        bound = self.settings.score_scale / np.sqrt(fan_in)
        return uniform * (2 * bound) - bound

    def reordered(self, scores: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """The first `scores` [edges] among other edges: of the same sizes, the highest where a weight lowers the loss most, by
        its `gradient` dL/ds; each keeps its sign, where |s| is ranked."""
        rank = RANKS[self.settings.rank]
        slope = rank.slope(scores)
        return slope * in_order_of(-gradient * slope, rank.value(scores))

    def first_memory(self, layer: LayerState, scores: torch.Tensor, seed: int) -> dict[str, torch.Tensor]:
        """What is remembered of a layer with the first `scores` [edges], by name."""
        return {}

    def rank(self, scores: torch.Tensor) -> Keys:
        """Keys [edges], the highest of which are selected: by |s| or by s, as the settings say."""
        return RANKS[self.settings.rank].keys(scores)

    def keys(self, layer: Unit, scores: torch.Tensor) -> Keys:
        """Keys [edges] of one layer, the highest of which are the ticket."""
        return self.rank(scores)

    def training_keys(self, layer: Unit, scores: torch.Tensor) -> Keys:
        """The keys of a training pass, where they are not the ticket's."""
        return self.keys(layer, scores)

    def codes(self, layer: Unit, scores: torch.Tensor, selected: torch.Tensor) -> torch.Tensor:
        """The codes [edges] that the `selected` edges (bool [edges]) have by their `scores`, 0 for the others: here 1."""
        return selected

    def gates(self, state: SearchState) -> list[Gate]:
        """What a training pass uses of each unit (of each layer, unless the method is edgewise): here the selection at k as it is
        now, scaled while that is more than the ticket's."""
        units = state.units()
        selected = state.top([self.training_keys(*unit) for unit in units], state.k_now())
        return [Gate(self.codes(*unit, mask), scale, scale)
                for unit, mask, scale in zip(units, selected, state.scales_now(), strict=True)]

    def weights(self, layer: Unit) -> torch.Tensor:
        """The weight that each edge has now [edges], float32, which its score's gradient dL/dW_eff is multiplied by."""
        return layer.values

    def slope(self, layer: Unit, scores: torch.Tensor, gate: Gate) -> torch.Tensor:
        """d gate / d score [edges], which the score's gradient dL/dW_eff * W is multiplied by; here straight through the
        selection, so that only d rank / d score is left (and the scale, where the selection is scaled)."""
        slope = RANKS[self.settings.rank].slope(scores)
        return slope if gate.plain else slope.mul_(gate.most)

    def score_gradient(self, layer: Unit, scores: torch.Tensor, gate: Gate, gradient: torch.Tensor) -> torch.Tensor:
        """dL/ds of all `scores` from the `gradient` dL/dW_eff of the edges [edges], which may be written to."""
        return gradient.mul_(self.weights(layer)).mul_(self.slope(layer, scores, gate))

    def penalty(self, layer: LayerState, scores: torch.Tensor) -> torch.Tensor | None:
        """What a layer adds to the loss, a differentiable scalar; None: nothing. `penalty` of the settings multiplies the
        method's own strength."""
        return None

    def after_step(self, state: SearchState) -> None:
        """What is to be done once the optimiser has changed the scores."""
