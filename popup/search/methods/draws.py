"""Slot machines: one of several random weights for each edge. Aladago and Torresani, *Slot Machines: Discovering Winning
Combinations of Random Weights in Neural Networks*, ICML 2021, arXiv 2101.06475."""

from __future__ import annotations

import torch

from popup.search.gate import Gate
from popup.search.keys import Keys, signed_keys
from popup.search.methods.method import Method, Options
from popup.search.search_state import SearchState
from popup.search.unit import Unit
from popup.source.books import several_draws

CHOICES = ("greedy", "sampled")


class SlotMachine(Method):
    """Each edge has K weights, drawn from the seed, and a score for each: scores [K * edges], all of the first draw, then all of
    the second and so on (memory is K times that of edge_popup). The n_l edges with the highest best score are kept, each with
    the draw of that score, and the gradient passes the choice straight through, to the score of every draw of every edge:

        W_eff = W_j, j = argmax_i s_i (ties to the lower draw),   ds_i = dL/dW_eff * W_i

    `sampled`: a training pass draws j of each kept edge from softmax(s) instead, with the same gradient; the ticket has the
    highest. Differences: the paper keeps every edge (k = 1 here); its scores start uniform in [0, lambda * Glorot's deviation],
    lambda 1 in convolutions and 0.1 in linear layers, here as edge_popup's (--score-scale; only differences count).
    """

    uses = ("score_scale", "score_unit", "anneal", "draws", "draw_choice")

    def __init__(self, settings: Options) -> None:
        super().__init__(settings)
        self.book = several_draws(settings.draws)
        self.scores_an_edge = settings.draws
        self.trains_ticket = settings.draw_choice == "greedy"

    def keys(self, layer: Unit, scores: torch.Tensor) -> Keys:
        return Keys(self._best(signed_keys(scores).tensor())[0])

    def codes(self, layer: Unit, scores: torch.Tensor, selected: torch.Tensor) -> torch.Tensor:
        return self._best(signed_keys(scores).tensor())[1] * selected

    def gates(self, state: SearchState) -> list[Gate]:
        if self.trains_ticket:
            return super().gates(state)
        selected = state.top([self.keys(*pair) for pair in state.pairs()], state.k_now())
        return [Gate(self._best(_noisy(scores.detach()))[1] * mask, scale, scale)
                for scores, mask, scale in zip(state.scores(), selected, state.scales_now(), strict=True)]

    def slope(self, layer: Unit, scores: torch.Tensor, gate: Gate) -> torch.Tensor:
        return torch.ones_like(scores).mul_(gate.most)

    def score_gradient(self, layer: Unit, scores: torch.Tensor, gate: Gate, gradient: torch.Tensor) -> torch.Tensor:
        return (gradient * layer.own).view(-1).mul_(self.slope(layer, scores, gate))

    def _best(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of `values` [K * edges] the highest of each edge [edges], and its place, counted from 1: uint8 [edges]."""
        first, *others = values.view(self.settings.draws, -1)
        best, codes = first, torch.ones_like(first, dtype=torch.uint8)
        for place, other in enumerate(others, 2):
            codes = codes.masked_fill(other > best, place)
            best = torch.maximum(best, other)
        return best, codes


def _noisy(scores: torch.Tensor) -> torch.Tensor:
    """Scores with Gumbel's noise, the highest of which has the probability of softmax(scores)."""
    return scores - torch.empty_like(scores).exponential_().clamp_(min=1e-30).log_()
