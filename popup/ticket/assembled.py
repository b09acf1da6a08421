"""A ticket whose mask was not searched for but chosen otherwise: any subset of each layer's edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from popup.errors import UsageError
from popup.search.methods import BUILT
from popup.search.settings import SearchSettings
from popup.source.recipe import LayerSource, Recipe
from popup.ticket.hashes import hash_array
from popup.ticket.layer import TicketLayer
from popup.ticket.ticket import Ticket


def assemble(recipe: Recipe, sources: Sequence[LayerSource], selected: Sequence[np.ndarray], spare: Sequence[np.ndarray],
             about: Mapping[str, Any]) -> Ticket:
    """The ticket of the source that keeps `selected` (bool [edges] a layer) and few of the `spare` edges, or none.

    The counts are a global scope's: k becomes a fraction of all edges that gives just their number. Where no k does (equal
    layers round together) the next higher number is made up with `spare` edges (bool [edges] a layer), which must not
    change the function. The weights must not depend on k (scale 'final' does). Raises UsageError if too few are spare.
    """
    assert recipe.scale != "final" and all(mask.any() for mask in selected)
    kept = sum(int(np.count_nonzero(mask)) for mask in selected)
    k = least_fraction(sources, kept, recipe.count)
    masks, missing = list(selected), _count(sources, k, recipe.count) - kept
    for place, (mask, extra) in enumerate(zip(selected, spare, strict=True)):
        more = np.flatnonzero(extra & ~mask)[:missing]
        masks[place] = mask.copy()
        masks[place][more] = True
        missing -= len(more)
    if missing:
        raise UsageError(f"no k keeps just {kept} of the source's edges, and {missing} more cannot be spared: take another "
                         "seed")
    layers = tuple(TicketLayer(source.spec, source.p_l, mask, hash_array(source.edges), hash_array(source.values))
                   for source, mask in zip(sources, masks, strict=True))
    return Ticket(replace(recipe, k=k), SearchSettings(BUILT, "global"), layers, {}, {}, {}, dict(about))


def least_fraction(sources: Sequence[LayerSource], kept: int, count: str = "nearest") -> float:
    """The least k, to a float's resolution, whose exact counts sum to at least `kept` edges."""
    low, high = 0.0, 1.0
    while True:
        middle = (low + high) / 2
        if not low < middle < high:
            return high
        low, high = (low, middle) if _count(sources, middle, count) >= kept else (middle, high)


def _count(sources: Sequence[LayerSource], k: float, count: str) -> int:
    return sum(source.kept_at(k, count) for source in sources)
