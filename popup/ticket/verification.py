"""The laws, proven on a ticket alone: its source is drawn anew, and its mask is compared with what the recipe allows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from popup.source.recipe import GIVEN, LayerSource
from popup.ticket.file import TicketError
from popup.ticket.hashes import hash_array
from popup.ticket.layer import TicketLayer
from popup.ticket.ticket import Ticket


@dataclass(frozen=True)
class Verification:
    """Names of the layers that break something; empty where the law holds."""

    layers: int
    edges: int
    foreign: tuple[str, ...]      # the seed gives other edges or weights than were recorded
    outside: tuple[str, ...]      # W * S_P has an entry off the edges, or with another weight than the source's
    miscounted: tuple[str, ...]   # other counts than k asks for

    @property
    def holds(self) -> bool:
        return not (self.foreign or self.outside or self.miscounted)


def verify(ticket: Ticket) -> Verification:
    """Check the laws on a ticket; that its file is whole was checked when it was loaded."""
    foreign, outside, wanted = [], [], []
    for layer in ticket.layers:
        source = _source(ticket, layer)
        if source is None:
            foreign.append(layer.layer.name)
            continue
        wanted.append(source.kept(ticket.recipe.k))
        effective = layer.effective(ticket.recipe, ticket.method)
        if not _within(layer.weight(ticket.recipe, ticket.method).numpy().reshape(-1), effective):
            outside.append(layer.layer.name)
    miscounted = () if foreign else _miscounted(ticket, wanted)
    edges = sum(len(layer.selected) for layer in ticket.layers)
    return Verification(len(ticket.layers), edges, tuple(foreign), tuple(outside), miscounted)


def _source(ticket: Ticket, layer: TicketLayer) -> LayerSource | None:
    """The layer drawn anew; None if it is not the one that was recorded. Embedded weights must be the seed's own too."""
    try:
        source = layer.source(ticket.recipe)
    except TicketError:
        return None
    if layer.values is not None and ticket.recipe.weights != GIVEN:
        return source if hash_array(layer.draw(ticket.recipe, source.edges)) == layer.weights_hash else None
    return source


def _within(weight: np.ndarray, source: LayerSource) -> bool:
    """Whether every weight in use [entries] is an edge's, with that edge's value."""
    whole = np.zeros_like(weight)
    whole[source.edges] = source.values
    used = weight != 0
    return bool(np.isin(np.flatnonzero(used), source.edges).all() and np.array_equal(weight[used], whole[used]))


def _miscounted(ticket: Ticket, wanted: list[int]) -> tuple[str, ...]:
    """Layers, or under a global scope the whole, that do not keep exactly what k asks for."""
    pairs = list(zip(ticket.layers, wanted, strict=True))
    if ticket.settings.scope == "global":
        empty = tuple(layer.layer.name for layer, want in pairs if want and not layer.kept)
        return empty if sum(layer.kept for layer in ticket.layers) == sum(wanted) else ("the whole network", *empty)
    return tuple(layer.layer.name for layer, want in pairs if layer.kept != want)
