"""The laws, checked on a ticket alone: its source is drawn anew, and its codes are compared with what the recipe allows. What
a network makes of it is another question (use.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from popup.search.settings import SearchSettings
from popup.source.counts import kept_edges
from popup.source.frozen import frozen_at
from popup.ticket.ticket import Ticket


@dataclass(frozen=True)
class Verification:
    """Names of the layers that break something; empty where the law holds."""

    layers: int
    edges: int
    foreign: tuple[str, ...]      # the seed gives other edges or weights than were recorded
    outside: tuple[str, ...]      # a weight is off the edges, or another than its edge's code means
    miscounted: tuple[str, ...]   # other counts than k asks for
    trained: tuple[str, ...]      # biases that are not 0, gains of norms and blocks that are not 1

    @property
    def holds(self) -> bool:
        return not (self.foreign or self.outside or self.miscounted or self.trained)


def verify(ticket: Ticket) -> Verification:
    """Check the laws on a ticket; that its file is whole was checked when it was loaded."""
    foreign, outside, wanted, others = [], [], [], ticket.others()
    for layer in ticket.layers:
        if not layer.is_the_seeds(ticket.recipe, ticket.book):
            foreign.append(layer.spec.name)
            continue
        wanted.append(kept_edges(layer.own(ticket.recipe).k, len(layer.codes), ticket.recipe.count))
        weight = others.get(layer.spec.name, layer.weight(ticket.recipe, ticket.book))  # what the network gets
        if not _within(weight.numpy().reshape(-1), layer.drawn(ticket.recipe, ticket.book).source.edges,
                       layer.effective(ticket.recipe, ticket.book).numpy()):
            outside.append(layer.spec.name)
    names, kept = [layer.spec.name for layer in ticket.layers], [layer.kept for layer in ticket.layers]
    wrong = () if foreign else miscounted(ticket.settings, names, kept, wanted)
    edges = sum(len(layer.codes) for layer in ticket.layers)
    return Verification(len(ticket.layers), edges, tuple(foreign), tuple(outside), wrong, _trained(ticket))


def _within(weight: np.ndarray, edges: np.ndarray, values: np.ndarray) -> bool:
    """Whether every weight in use [entries] is an edge's, with that edge's value [edges]."""
    whole = np.zeros_like(weight)
    whole[edges] = values
    used = weight != 0
    return np.array_equal(weight[used], whole[used])  # off the edges the second is 0, and the first is not


def miscounted(settings: SearchSettings, names: Sequence[str], kept: Sequence[int], wanted: Sequence[int]) -> tuple[str, ...]:
    """Layers that do not keep exactly what k asks for; under a global scope the whole, and layers below their floor."""
    counts = list(zip(names, kept, wanted, strict=True))
    if settings.scope != "global":
        return tuple(name for name, count, want in counts if count != want)
    few = [name for name, count, want in counts if count < settings.floor_of(want)]
    return tuple(few if sum(kept) == sum(wanted) else ["the whole network", *few])


def _trained(ticket: Ticket) -> tuple[str, ...]:
    """The parameters that attach sets and that have other values: a norm's weight is known by a bias of its shape, or by running
    statistics, beside it. A buffer may have any value, unless its name says that it is none."""
    found, others = [], ticket.others()
    for name, tensor in others.items():
        path, dot, attribute = name.rpartition(".")
        beside = [others.get(f"{path}{dot}{other}") for other in ("bias", "running_mean", "weight")]
        norm = any(other is not None and other is not tensor and other.shape == tensor.shape for other in beside)
        wanted = frozen_at(name, tensor, norm, slope=attribute == "weight" or name in ticket.statistics)
        if wanted is None:
            continue
        values = (wanted, 0.0) if norm and wanted == 1 else (wanted,)  # 0 of a norm that adds its weight to 1
        if not any(bool(tensor.eq(value).all()) for value in values):
            found.append(name)
    return tuple(found)
