"""Layers whose edges are asked about together: what a search holds of them lies one layer after the other, so that one call does
for all of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, NoReturn, TypeVar

import torch

from popup.search.cached_weight import CachedWeight, Written
from popup.search.gate import Gate
from popup.search.layer_state import LayerState
from popup.source import edges

MOST_ENTRIES = {"cpu": 1 << 20}  # of a group's layers: the gradients of its dense weights are there at once, here in cache
MOST_ELSEWHERE = 1 << 26
FEW = 1 << 16  # edges

Found = TypeVar("Found")


class EdgeGroup:
    """Some layers of one network, alike in device, dtype and the type of their gaps, or one layer.

    A method that decides edge by edge is asked about the group as about one layer of all these edges; it finds of it what it
    finds of a layer, but for what differs between layers.
    """

    def __init__(self, layers: Sequence[LayerState], places: Sequence[int]) -> None:
        self.layers, self.places = list(layers), list(places)  # in the network's order, and where there
        self.sizes, self.entries = [layer.count for layer in layers], [layer.spec.entries for layer in layers]
        self.count, self.book, self.alone = sum(self.sizes), layers[0].book, len(layers) == 1
        self.starts = [0, *accumulate(self.entries)][:-1]      # of each layer in a flat weight of all
        self.cached_weight = CachedWeight([layer.spec.shape for layer in layers])
        self._values, self._gaps = layers[0].values, layers[0].gaps
        self._parts: list[torch.Tensor] = []
        self._written: int | None = None  # the place of a layer whose weight somebody has written to
        self.lock = threading.RLock()     # of what is kept, which several threads may look at
        self._held: tuple[torch.Tensor | None, list[torch.Tensor | None]] | None = None

    @property
    def unit(self) -> LayerState | EdgeGroup:
        """What a method is asked about."""
        return self.layers[0] if self.alone else self

    @property
    def sparse(self) -> bool:
        """Whether it is a layer that computes on its edges alone."""
        return self.alone and self.layers[0].sparse

    @property
    def values(self) -> torch.Tensor:
        """The frozen weights of all edges [edges], float32."""
        self.join()
        return self.layers[0].values if self.alone else self._values

    @property
    def own(self) -> torch.Tensor:
        """The weights that each edge has now [edges], float32."""
        return self.layers[0].own if self.alone else self.values

    def memory(self, name: str) -> torch.Tensor:
        """What the method remembers of all edges under `name`: a copy, which is there to be read."""
        return torch.cat([layer.memory(name) for layer in self.layers])

    def at(self, turns: torch.Tensor, places: torch.Tensor | None = None) -> torch.Tensor:
        """As of a layer: a group has no redraws, which are a layer's own."""
        return self.layers[0].at(turns, places)

    def join(self) -> None:
        """Let the layers' sources lie one after the other, if they do not (any more: a network was moved or copied)."""
        if self.alone:
            return
        held = [layer.values for layer in self.layers]
        if len(held) == len(self._parts) and all(map(_is, held, self._parts)):
            return
        self._values, self._gaps, self._held = torch.cat(held), torch.cat([layer.gaps for layer in self.layers]), None
        self._parts = list(self._values.split(self.sizes))
        gaps = self._gaps.split([len(layer.gaps) for layer in self.layers])
        for layer, values, gap in zip(self.layers, self._parts, gaps, strict=True):
            layer.values, layer.gaps = values, gap

    def positions(self) -> tuple[torch.Tensor | None, list[torch.Tensor | None]]:
        """The edges' indices in a flat weight of all layers [edges], int32 or int64, and each layer's in its own; None if every
        entry is an edge. They are summed up anew for each pass, but for few edges, where the calls would be what costs."""
        if self.alone:
            places = self.layers[0].places()
            return places, [places]
        self.join()
        if self._held is not None:
            return self._held
        found: tuple[torch.Tensor | None, list[torch.Tensor | None]]
        if not len(self._gaps):
            found = None, [None] * len(self.layers)
        else:
            flat = edges.decode(self._gaps, sum(self.entries))
            found = flat, [part - start if start else part
                           for part, start in zip(flat.split(self.sizes), self.starts, strict=True)]
        self._held = found if self.count <= FEW else None
        return found

    def effective(self, gate: Gate) -> torch.Tensor:
        """The effective weights of the edges [edges], float32: what the book says of their codes, times the gate's factor."""
        values = self.book.values(self.unit, gate.codes)
        return values if gate.plain else values * gate.factor

    def _anew(self, gate: Gate, positions: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
        """The effective weights of all layers, dense [entries], one layer after the other, as a new tensor."""
        return edges.expand(self.effective(gate).to(dtype), positions, sum(self.entries))

    def weights(self, gate: Gate, positions: torch.Tensor | None, dtype: torch.dtype) -> list[torch.Tensor]:
        """The effective weights [each layer's shape] of a training pass. Those of codes are kept from step to step: only changed
        edges are written. They are made anew where that could be seen: while a pass that used them waits for its backward one."""
        cached = self.cached_weight
        self.refuse_again()
        if not (self._fits(dtype) and self._shows(gate, positions)):
            cached.renew(self._anew(gate, positions, dtype))
            cached.show(gate, self.own)
        return [weight.detach() for weight in cached.weights]  # others for each pass, as autograd hangs its graph on them

    def follow(self, place: int, gradient: torch.Tensor) -> None:
        """Let what is kept lie as the gradient of the weight of the layer at `place` does."""
        with self.lock:
            self.cached_weight.follow(place, gradient)

    def _fits(self, dtype: torch.dtype) -> bool:
        """Whether the weights that are kept are there, in `dtype` and of what there is now. A UsageError if the network or a hook
        has written to one, as far as torch counts it."""
        try:
            return self.cached_weight.fits(dtype, self.own)
        except Written as written:
            self._refuse_written(written.place)

    def check_kept(self) -> None:
        """A UsageError if somebody has written to a weight that is kept, also if through `.data` or numpy, which torch does not
        count."""
        with self.lock:
            self.refuse_again()
            cached, meta = self.cached_weight, self.layers[0].values.is_meta
            if cached.memory is None or cached.shown is None or meta or not self._fits(cached.memory.dtype):
                return
            gates = cached.shown.parts(self.sizes)
            for place, (layer, gate, weight) in enumerate(zip(self.layers, gates, cached.weights, strict=True)):
                right = layer.anew(gate, weight.dtype)
                if not bool(((weight == right) | right.isnan()).all()):
                    self._refuse_written(place)

    def forget(self) -> None:
        """Let what is kept from pass to pass be made anew."""
        self.cached_weight.memory = self._held = self._written = None

    def _refuse_written(self, place: int) -> NoReturn:
        """Now, and each time that it is asked from now on: who wrote to a weight may do so again."""
        self.cached_weight.memory, self._written = None, place
        self.layers[place].refuse_written()

    def refuse_again(self) -> None:
        """A UsageError if it was found before that somebody has written to a weight."""
        if self._written is not None:
            self.layers[self._written].refuse_written()

    def _shows(self, gate: Gate, positions: torch.Tensor | None) -> bool:
        """Whether the weights that are kept show `gate`, or may be written to, differ by little, and so have been made to."""
        cached, last = self.cached_weight, self.cached_weight.shown
        if gate.same_as(last):
            return True
        if last is None or not (gate.plain and last.plain and gate.codes.dtype is last.codes.dtype):
            return False
        if cached.in_use() or not self.book.one_by_one:
            return False
        cached.shown = None  # whoever is interrupted from here on leaves what is made anew
        if gate.codes.device.type == "cpu":
            cached.change(last.codes, gate.codes, positions, self.book, self.unit)
        else:
            cached.rewrite(self.effective(gate), positions)
        cached.show(gate, self.own)
        return True

    def __getstate__(self) -> dict[str, Any]:
        """A copy joins its own layers."""
        return {**vars(self), "_values": None, "_gaps": None, "_parts": [], "_held": None, "lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.lock = threading.RLock()


def _is(first: object, second: object) -> bool:
    return first is second


def grouped(layers: Sequence[LayerState], together: bool) -> list[EdgeGroup]:
    """All layers in groups, those alike in one if `together`, else each for itself."""
    open_groups: dict[tuple[Any, ...], list[int]] = {}
    closed: list[list[int]] = []
    for place, layer in enumerate(layers):
        kind = layer.values.device, layer.dtype, layer.cast, layer.gaps.dtype, len(layer.gaps) > 0
        members = open_groups.get(kind)
        joins = together and layer.count > 0 and layer.products is None
        if members is None or not joins or not _fits([layers[other] for other in members], layer):
            members = []
            closed.append(members)
            layer.count_from(0)
            if joins:
                open_groups[kind] = members
        members.append(place)
    return [EdgeGroup([layers[place] for place in members], members) for members in closed]


def _fits(before: Sequence[LayerState], layer: LayerState) -> bool:
    """Whether a layer's gaps can be counted on from the last edge of those `before` it. It then counts so."""
    most = MOST_ENTRIES.get(layer.values.device.type, MOST_ELSEWHERE)
    if sum(other.spec.entries for other in before) + layer.spec.entries > most:
        return False
    return not len(layer.gaps) or layer.count_from(before[-1].spec.entries - before[-1].last)


def each_layer(groups: Sequence[EdgeGroup], found: Sequence[Sequence[Found]]) -> Iterator[Found]:
    """What was found for each layer of each group, in the network's order."""
    of = {place: one for group, parts in zip(groups, found, strict=True) for place, one in zip(group.places, parts, strict=True)}
    return (of[place] for place in range(len(of)))
