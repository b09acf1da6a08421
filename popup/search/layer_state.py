"""What a search holds of one layer: its frozen source, its code book, and what the method remembers."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np
import torch
from torch import nn

from popup.errors import UsageError
from popup.search.compute import LayerProducts
from popup.search.gate import Gate
from popup.source import edges
from popup.source.books import Book
from popup.source.counts import kept_edges
from popup.source.layer_source import LayerSource, draw_again, draw_several, draw_values, redraw_purpose
from popup.source.layers import Layer
from popup.source.recipe import SOURCE, Recipe

MEMORY = "memory_"  # what the names of the buffers begin with that hold what a method remembers

REDRAW = "redraw"    # the name under which a method remembers redraws


def _probe() -> list[float]:
    """Some numbers that any type holds, and that no memory holds by chance."""
    now = time.perf_counter_ns()
    return [float(now // 97**place % 97) for place in range(6)]


class LayerState(nn.Module):
    """The frozen source of a layer, its edges and their weights: tensors that move with the network and are left out of its
    state_dict, since the seed draws them again, and of its buffers, since averages of networks
    (torch.optim.swa_utils.AveragedModel) average these. What the method remembers is a buffer.
    """

    SOURCE = ("gaps", "values", "drawn", "drawn_in")
    gaps: torch.Tensor      # [edges], or empty if every entry is an edge
    values: torch.Tensor    # [edges], float32, frozen: the first draw, or what was given
    drawn: torch.Tensor     # float32: the last draw of each edge [edges], or all to choose from [draws, edges]; empty where the
    #                         book keeps the first
    drawn_in: torch.Tensor  # [edges], int32: the redraw that gave the last; else empty

    orders: tuple[tuple[str, ...], ...] = ()  # the names of the parameters of each module that uses it, as they were

    def __init__(self, recipe: Recipe, source: LayerSource, book: Book, weight: torch.Tensor) -> None:
        super().__init__()
        self.recipe, self.book = recipe, book
        self.spec: Layer = source.spec
        self.p_l = source.p_l
        self.count = len(source.edges)
        self.kept = kept_edges(recipe.k, self.count, recipe.count)
        self.dtype = weight.dtype
        self.remembered: tuple[str, ...] = ()
        self.gaps = edges.encode(source.edges, source.spec.entries).to(weight.device)
        self.first, self.last = (int(source.edges[0]), int(source.edges[-1])) if self.count else (0, 0)  # flat indices
        self.lead = 0  # by how much the first gap is larger, being counted from a layer that lies before this one
        self.values = torch.from_numpy(source.values).to(weight.device)
        self.drawn = self.values.clone() if not book.keeps_weights else self.values[:0]
        self.drawn_in = torch.zeros(len(self.drawn) if book.held == 1 else 0, dtype=torch.int32, device=weight.device)
        if book.held > 1:
            self.drawn = torch.from_numpy(draw_several(recipe, source, book.held)).to(weight.device)
        self._drawn_at = -1  # how often `turns` had been written to when they were those of what is drawn
        self._fingerprint: str | None = None
        self.products: LayerProducts | None = None  # of a layer that computes on its edges alone
        self.cast = False  # whether autocast casts the weight

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> LayerState:
        """What torch moves and converts a module by: the source keeps its own types, else its weights were others after .half()
        and back; the weight that is made of it has the type that the network gets. From the device "meta" there is no way back:
        the source is not there."""
        try:
            moved = {name: fn(getattr(self, name)) for name in self.SOURCE}
            told = _probe()
            probe = fn(torch.tensor(told, dtype=self.dtype, device=self.values.device))
        except NotImplementedError:
            self.check_data()
            raise
        if not moved["values"].is_meta:
            self.check_data()
            if probe.tolist() != told:  # to_empty, which gives memory without what was there
                moved = {name: getattr(self, name).to(part.device) for name, part in moved.items()}
        vars(self).update({name: part if part.dtype is (own := getattr(self, name)).dtype else own.to(part.device)
                           for name, part in moved.items()})
        self.dtype = probe.dtype
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        """A copy holds its own source, not that of all layers which this one's may lie in."""
        return {name: part.clone() if name in self.SOURCE else part for name, part in vars(self).items()}

    def begin(self) -> None:
        """A pass of the network begins."""

    def count_from(self, lead: int) -> bool:
        """Let the first gap be counted from `lead` entries before this layer. Returns whether the gaps' type can hold it; if not,
        nothing is changed."""
        if self.first + lead > torch.iinfo(self.gaps.dtype).max:
            return False
        if len(self.gaps) and lead != self.lead:
            self.gaps = self.gaps.clone()
            self.gaps[:1], self.lead = self.first + lead, lead
        return True

    def check_data(self) -> None:
        """A UsageError if the source is on the device "meta"."""
        if self.values.is_meta:
            raise UsageError(f"{self.spec.name} was attached on (or moved to) the device 'meta', where tensors have no values, "
                             "and so its source is lost: put the network on a device that has data first, and then attach it")

    def remember(self, memory: Mapping[str, torch.Tensor]) -> None:
        """Take what the method remembers of this layer."""
        self.remembered = tuple(memory)
        for name, tensor in memory.items():
            self.register_buffer(MEMORY + name, tensor.to(self.values.device))

    def memory(self, name: str) -> torch.Tensor:
        """What the method remembers of this layer under `name`."""
        return getattr(self, MEMORY + name)

    def source(self) -> LayerSource:
        """The layer as it was drawn first."""
        self.check_data()
        return LayerSource(self.spec, self.p_l, self.flat_edges().cpu().numpy(), self.values.cpu().numpy())

    @property
    def turns(self) -> torch.Tensor:
        """Of a book that draws weights anew: which redraw gave each edge the weight that it has now [edges], int32; 0: none."""
        return self.memory(REDRAW)

    @property
    def own(self) -> torch.Tensor:
        """The weights that each edge has now [edges], float32: of a book that draws anew the last draws; or all that it may have
        [draws, edges]."""
        return self.values if self.book.keeps_weights else self.drawn

    def at(self, turns: torch.Tensor, places: torch.Tensor | None = None) -> torch.Tensor:
        """Each edge's weight of its own redraw, float32 [edges]: `turns` [edges], counted from 1, 0 for the first draw; below 0
        any. Or of the edges at `places` [n] alone, turns [n]. What `redraw` did not draw is no number: it would be another
        network than the ticket's."""
        if self.book.held > 1:
            drawn = self.drawn if places is None else self.drawn[:, places]
            return drawn.gather(0, turns.clamp(min=0).long()[None])[0]
        drawn, drawn_in = (part if places is None else part[places] for part in (self.drawn, self.drawn_in))
        return torch.where((turns == drawn_in) | (turns < 0), drawn, torch.nan)

    def redraw(self, chosen: torch.Tensor, turn: int) -> None:
        """Let the `chosen` edges (bool [edges]) have their weights of the `turn`-th redraw from now on. Nothing is read back from
        a device."""
        source = self.source()
        fresh = draw_values(self.recipe, self.spec, self.p_l, source.edges, redraw_purpose(turn))
        for turns in (self.turns, self.drawn_in):
            turns.masked_fill_(chosen, turn)
        self.drawn = torch.where(chosen, torch.from_numpy(fresh).to(chosen.device), self.drawn)
        self._drawn_at = self.turns._version

    def redraw_as_remembered(self) -> None:
        """Draw what the redraws gave again, which were read from a checkpoint or a state_dict."""
        values = draw_again(self.recipe, self.source(), self.turns.cpu().numpy())
        self.drawn, self.drawn_in = torch.from_numpy(values).to(self.values.device), self.turns.clone()

    def keep_up(self) -> None:
        """Draw what the redraws gave again if something else than `redraw` has written down others: an average of networks, which
        copies buffers."""
        if REDRAW not in self.remembered or self.turns._version == self._drawn_at or self.turns.is_meta:
            return
        if not torch.equal(self.turns, self.drawn_in):
            self.redraw_as_remembered()
        self._drawn_at = self.turns._version

    def places(self) -> torch.Tensor | None:
        """The edges' flat indices [edges], int32 or int64; None if every entry is an edge."""
        if self.count == self.spec.entries:
            return None
        places = edges.decode(self.gaps, self.spec.entries + self.lead)
        return places - self.lead if self.lead else places

    @property
    def sparse(self) -> bool:
        """Whether it computes on its edges alone: the products are the processor's."""
        return self.products is not None and self.values.device.type == "cpu" and self.dtype in (torch.float32, torch.float64)

    @property
    def own_k(self) -> float | None:
        """The fraction of its edges that it keeps, where that is not the same in all layers."""
        return None if self.recipe.ticket_density == SOURCE else self.recipe.k

    @property
    def layers(self) -> list[LayerState]:
        """A layer by itself, as a group of one."""
        return [self]

    @property
    def unit(self) -> LayerState:
        """What a method is asked about."""
        return self

    def follow(self, place: int, gradient: torch.Tensor) -> None:
        """Nothing is kept of a layer by itself that could lie as the weight's gradient does."""

    def flat_edges(self) -> torch.Tensor:
        """The flat indices of the edges, ascending, int64."""
        places = self.places()
        return torch.arange(self.count, device=self.values.device) if places is None else places.long()

    def effective(self, gate: Gate) -> torch.Tensor:
        """The effective weights of the edges [edges], float32: what the book says of their codes, times the gate's factor."""
        values = self.book.values(self, gate.codes)
        return values if gate.plain else values * gate.factor

    def dense(self, codes: torch.Tensor) -> torch.Tensor:
        """The effective weight for `codes` [edges] as a new tensor of the layer's shape and dtype."""
        return self.anew(Gate(codes), self.dtype)

    def anew(self, gate: Gate, dtype: torch.dtype) -> torch.Tensor:
        """The effective weight [the layer's shape] of a gate in `dtype`, as a new tensor, which its reader may keep and write
        to."""
        return edges.expand(self.effective(gate).to(dtype), self.places(), self.spec.entries).view(self.spec.shape)

    def refuse_written(self) -> NoReturn:
        """The UsageError of a layer whose weight somebody has written to."""
        raise UsageError(f"{self.spec.name} was written to, in a training pass or by what has kept it from one (a forward that "
                         "normalises its weight? a hook?), so that what is trained is no ticket: no weight may change; change "
                         "that, and load a state_dict of before it, or attach anew")

    def fingerprint(self) -> str:
        """SHA-256 of the layer as it was drawn first: its edges' gaps and their weights."""
        if self._fingerprint is None:
            self.check_data()
            parts = hashlib.sha256(str(self.spec.shape).encode())
            gaps = self.gaps.cpu().numpy().copy()
            gaps[:1] -= self.lead
            for array in (gaps, self.values.cpu().numpy()):
                parts.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).view(np.uint8).data)
            self._fingerprint = parts.hexdigest()
        return self._fingerprint

    def check_state(self, state: torch.Tensor, method: str) -> dict[str, Any]:
        """What a state_dict holds beside scores and memory, read; a UsageError if it is of another source, or of a search by
        another method, or none that a search has written."""
        try:
            found = json.loads(bytes(state.tolist()))
            source, steps, progress = found["source"], found["steps"], found["progress"]
            whole = type(steps) is int and steps >= 0 and type(progress) in (int, float) and 0 <= progress <= 1
        except (ValueError, TypeError, KeyError):
            whole = False
        if not whole:
            raise UsageError(f"the state of {self.spec.name} in the state_dict is none that a search has written: its bytes have "
                             "changed since")
        if source != self.fingerprint():
            raise UsageError(f"the scores of {self.spec.name} are of another source: attach with the seed, densities and "
                             "weights that they were learned with")
        if found.get("method", method) != method:  # states of before have none
            raise UsageError(f"the scores of {self.spec.name} are of a search by method {found['method']!r:.40}, and this one is "
                             f"by {method}: attach with the method that they were learned with")
        return dict(found)

    def dtype_now(self) -> torch.dtype:
        """The weight's own dtype; under autocast the one it is cast to, if it is, so that it is made in it at once. (Float64 is
        never cast.)"""
        device = self.values.device.type
        if not self.cast or self.dtype is torch.float64:
            return self.dtype
        if device != "cpu" and not torch.amp.is_autocast_available(device):  # as on "meta"
            return self.dtype
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.dtype
