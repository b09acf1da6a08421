"""The effective weights of some layers that are kept from pass to pass, so that a pass writes only what has changed."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import prod
from operator import attrgetter
from typing import Any

import numpy as np
import torch

from popup.search.gate import Gate
from popup.source.books import Book, EdgeWeights

VERSION = attrgetter("_version")
SHORT = 1 << 15  # an array that is compared in less time than more calls take


class Written(Exception):
    """Somebody has written to a weight that is kept: that of the layer at `place`."""

    def __init__(self, place: int) -> None:
        super().__init__(place)
        self.place = place


class CachedWeight:
    """The weights of layers of some `shapes` in one memory, what they show [edges], and whether they may still be used. A copy or
    a pickle of it is empty.

    No attributes of a module: to set one of an nn.Module takes longer than many a write to the weight.
    """

    __slots__ = ("bounds", "channels_last", "given", "memory", "nodes", "pinned", "shapes", "shown", "tracked", "values",
                 "versions", "weights")

    def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
        self.shapes = list(shapes)
        self.bounds = [0, *accumulate(map(prod, shapes))]  # of each layer in the memory
        self.memory: torch.Tensor | None = None
        self.weights: list[torch.Tensor] = []    # each layer's part, with a count of its own of what is written to it
        self.shown: Gate | None = None
        self.tracked: list[torch.Tensor] = []    # what of that can be written to
        self.values: torch.Tensor | None = None  # the edges' values that they were made of
        self.versions: tuple[int, ...] = ()      # theirs, those of the values and of what they show, when they were written last
        self.nodes: list[weakref.ref[Any]] = []  # the autograd nodes of passes that may need them in a backward pass
        self.given: list[weakref.ref[torch.Tensor]] = []  # to passes, whose products hold what their own backward needs
        self.pinned = False                      # whether a pass uses them that has no such node
        self.channels_last = [False] * len(self.shapes)  # whether a convolution works in channels last, on the CPU

    def fits(self, dtype: torch.dtype, values: torch.Tensor) -> bool:
        """Whether they are there, in `dtype` and of `values`, and nobody has written to these or to what they show. A Written if
        somebody else has written to one of them, as far as torch counts."""
        if self.memory is None or self.values is None or self.shown is None:
            return False
        now = versions(*self.weights, self.values, *self.tracked)
        if now != self.versions:
            for place in range(len(self.weights)):
                if now[place] != self.versions[place]:
                    raise Written(place)
            return False
        return self.values is values and self.memory.dtype == dtype

    def renew(self, memory: torch.Tensor) -> None:
        """They are what `memory` [entries], new, holds from now on: passes that use the old ones have those for themselves."""
        self.nodes, self.given, self.pinned, self.shown = [], [], False, None
        self.memory, self.weights = memory, []
        for place, shape in enumerate(self.shapes):
            part = memory[self.bounds[place]:self.bounds[place + 1]]
            self.channels_last[place] &= memory.device.type == "cpu"
            if self.channels_last[place]:
                filters, channels, height, width = shape
                part.copy_(part.view(shape).permute(0, 2, 3, 1).reshape(-1))
                part = part.view(filters, height, width, channels).permute(0, 3, 1, 2)
            self.weights.append(part.view(shape).data)  # which counts what is written to it alone

    def show(self, gate: Gate, values: torch.Tensor) -> None:
        """They show `gate` now, of the edges' `values`."""
        self.shown, self.values, self.tracked = gate, values, gate.tensors()
        self.versions = versions(*self.weights, values, *self.tracked)

    def change(self, shown: torch.Tensor, codes: torch.Tensor, positions: torch.Tensor | None, book: Book,
               weights: EdgeWeights) -> None:
        """Let them show `codes` of the `book` in the place of those `shown`, on the CPU: only where the two differ, and by numpy,
        whose calls take a fraction of torch's (into bf16 torch's scatter_ takes half a millisecond however little it writes)."""
        chosen = codes.numpy()
        changed = differing(chosen, shown.numpy())
        if len(changed):
            now = book.some(weights, chosen, changed)
            flat = changed if positions is None else positions.numpy()[changed]
            if any(self.channels_last):
                flat = self._in_memory(flat.astype(np.int64))
            memory = self._there()
            if memory.dtype is torch.float32:
                memory.numpy()[flat] = now
            else:
                memory.index_copy_(0, torch.from_numpy(flat.astype(np.int64)), torch.from_numpy(now).to(memory.dtype))

    def rewrite(self, values: torch.Tensor, positions: torch.Tensor | None) -> None:
        """Let all edges have `values` [edges], float32: on a GPU less than to find out which differ."""
        memory = self._there()
        values = values.to(memory.dtype)
        memory.copy_(values) if positions is None else memory.scatter_(0, positions.long(), values)

    def _there(self) -> torch.Tensor:
        """The memory, of which somebody has made sure that it is there."""
        if self.memory is None:
            raise RuntimeError("nothing is kept")
        return self.memory

    def follow(self, place: int, gradient: torch.Tensor) -> None:
        """Lie as a weight's `gradient` does: a convolution in channels last, for which a weight that lies otherwise is copied
        in its forward and in its backward pass, gives it in channels last."""
        channels_last = (gradient.dim() == 4 and gradient.device.type == "cpu" and not gradient.is_contiguous()
                         and gradient.is_contiguous(memory_format=torch.channels_last))
        if channels_last is not self.channels_last[place]:
            self.channels_last[place], self.memory = channels_last, None

    def _in_memory(self, flat: np.ndarray) -> np.ndarray:
        """Where the entries of `flat` indices, ascending, int64, lie."""
        ends = np.searchsorted(flat, self.bounds)
        for place, (begin, end) in enumerate(pairwise(ends)):
            if self.channels_last[place]:
                _, channels, height, width = self.shapes[place]
                size = height * width
                part = flat[begin:end] - self.bounds[place]
                of_filter = part % (channels * size)
                channel, tap = np.divmod(of_filter, size)
                flat[begin:end] += tap * channels + channel - of_filter
        return flat

    def use(self, given: Sequence[torch.Tensor]) -> None:
        """A pass uses them, by these tensors. Without an autograd node: scores do not learn, and what comes before them may."""
        node = given[0].grad_fn
        if node is None:
            self.pinned = True
        else:
            self.nodes.append(weakref.ref(node))
        self.given += map(weakref.ref, given)

    def in_use(self) -> bool:
        """Whether a backward pass can still need them as they are: the first of a graph, one more of a graph that is retained, or
        one of a part that the first did not reach. (What is held by a compiled product is another tensor of the same memory, so
        that the nodes are asked too.)"""
        self.nodes = [node for node in self.nodes if _has_tensors(node())]
        self.given = [tensor for tensor in self.given if tensor() is not None]
        return self.pinned or bool(self.nodes) or bool(self.given)

    def __reduce__(self) -> tuple[type[CachedWeight], tuple[list[tuple[int, ...]]]]:
        return CachedWeight, (self.shapes,)


def _has_tensors(node: Any) -> bool:
    """Whether an autograd node is there and has not given its tensors free."""
    try:
        return node is not None and node._raw_saved_tensors is not None
    except RuntimeError:  # "Trying to backward through the graph a second time"
        return False


def differing(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Where two arrays [n] of one small type differ, ascending, int64. Compared eight bytes at a time, as few do, where they are
    long."""
    if len(first) <= SHORT:
        return (first != second).nonzero()[0]
    together = 8 // first.itemsize
    whole = len(first) // together * together
    one, other = first[:whole].view(np.uint64), second[:whole].view(np.uint64)
    words = (one != other).nonzero()[0]
    inside = (one[words] ^ other[words]).view(f"u{first.itemsize}").nonzero()[0]
    found = words[inside // together] * together + inside % together
    if whole == len(first):
        return found
    return np.concatenate([found, (first[whole:] != second[whole:]).nonzero()[0] + whole])


def versions(*tensors: torch.Tensor) -> tuple[int, ...]:
    """How often torch has written to each; those of inference mode do not count."""
    try:
        return tuple(map(VERSION, tensors))
    except RuntimeError:
        return tuple(-1 if tensor.is_inference() else tensor._version for tensor in tensors)
