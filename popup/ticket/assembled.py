"""A ticket whose mask was not searched for but chosen otherwise: any subset of each layer's edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from popup.errors import UsageError
from popup.search.methods import BUILT
from popup.search.settings import SearchSettings
from popup.source.counts import kept_edges
from popup.source.recipe import Recipe
from popup.ticket.layer import TicketLayer
from popup.ticket.ticket import Ticket


def assemble(recipe: Recipe, layers: Sequence[TicketLayer], spare: Sequence[np.ndarray], about: Mapping[str, Any]) -> Ticket:
    """The ticket of the source that keeps what the codes of `layers` say and few of the `spare` edges, or none.

    The counts are a global scope's: k becomes a fraction of all edges that gives just their number. Where no k does (equal
    layers round together) the next higher number is made up with `spare` edges (their numbers among a layer's edges), which
    must not change the function. The weights must not depend on k (scale 'final' does). Raises UsageError if too few are
    spare.
    """
    assert recipe.scale != "final" and all(layer.codes.any() for layer in layers)
    kept, edges = sum(layer.kept for layer in layers), [len(layer.codes) for layer in layers]
    k = least_fraction(edges, kept, recipe.count)
    exact, missing = list(layers), _count(edges, k, recipe.count) - kept
    for place, (layer, extra) in enumerate(zip(layers, spare, strict=True)):
        more = extra[~layer.codes[extra]][:missing]
        if len(more):
            codes = layer.codes.copy()
            codes[more] = True
            exact[place] = replace(layer, codes=codes)
            missing -= len(more)
    if missing:
        raise UsageError(f"no k keeps just {kept} of the source's edges, and {missing} more cannot be spared: take another "
                         "seed")
    return Ticket(replace(recipe, k=k), SearchSettings(BUILT, "global"), tuple(exact), {}, {}, {}, dict(about))


def least_fraction(edges: Sequence[int], kept: int, count: str = "nearest") -> float:
    """The least k, to a float's resolution, whose exact counts of layers with so many `edges` sum to at least `kept`."""
    low, high = 0.0, 1.0
    while True:
        middle = (low + high) / 2
        if not low < middle < high:
            return high
        low, high = (low, middle) if _count(edges, middle, count) >= kept else (middle, high)


def _count(edges: Sequence[int], k: float, count: str) -> int:
    return sum(kept_edges(k, number, count) for number in edges)
