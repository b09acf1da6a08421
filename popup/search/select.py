"""Exact selection: precisely n edges, whatever ties the scores have, ties going to the lower edge index."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import sqrt

import numpy as np
import torch

from popup.search.keys import HIGHEST, Keys

PART = 1 << 16  # keys looked at at once: few enough to stay in a core's own cache
FEW = 1 << 16   # keys that are partitioned whole in less time than a bracket's calls take


class Bracket:
    """Where a layer's threshold was, and how far it may have moved since: makes the next selection cheap, never different.

    One pass over the keys splits them into those above the bracket, which are kept, and the thin band inside it, from
    which alone the rest is selected. Should the threshold have left the bracket, the pass shows it and all keys are
    selected from. In training the keys that a step moves the threshold past are at most half a square root of their number
    (Conv-4 and an MLP, 2,560 to two million scores a layer), so the band is a few of these.
    """

    THINNEST, WIDEST = 2.0, 8.0  # of the band, in square roots of the number of keys

    def __init__(self) -> None:
        self.middle, self.reach = 0, -1

    def top(self, bits: np.ndarray, of_bits: Callable[[np.ndarray], np.ndarray], count: int, chosen: np.ndarray) -> None:
        """Mark the `count` highest keys of `bits` in `chosen` (bool), ties to the lower index."""
        if self.reach < 0:
            return self._from_all(of_bits(bits), count, chosen)
        band, band_keys = self._split(bits, of_bits, chosen)
        missing = count - int(np.count_nonzero(chosen))
        if not 0 < missing <= len(band):
            self.reach = min(4 * self.reach + 1, HIGHEST)
            return self._from_all(of_bits(bits), count, chosen)
        best = np.empty(len(band), dtype=bool)
        self.middle = highest(band_keys, missing, best)
        chosen[band[best]] = True
        width = len(band) / sqrt(len(bits))
        if width > self.WIDEST:
            self.reach //= 2
        elif width < self.THINNEST:
            self.reach = min(2 * self.reach + 1, HIGHEST)

    def _split(self, bits: np.ndarray, of_bits: Callable[[np.ndarray], np.ndarray],
               above: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mark which keys are above the bracket; those inside it as indices and keys."""
        low, high = max(self.middle - self.reach, -HIGHEST - 1), min(self.middle + self.reach, HIGHEST)
        places, found = [], []
        for start in range(0, len(bits), PART):
            part, above_here = of_bits(bits[start:start + PART]), above[start:start + PART]
            np.greater(part, high, out=above_here)
            inside = ((part >= low) != above_here).nonzero()[0]
            if len(bits) <= PART:
                return inside, part[inside]
            places.append(inside + start)
            found.append(part[inside])
        return np.concatenate(places), np.concatenate(found)

    def _from_all(self, keys: np.ndarray, count: int, chosen: np.ndarray) -> None:
        self.middle = highest(keys, count, chosen)
        self.reach = max(self.reach, 1 << 16)  # a score of twice the size has a key higher by 1 << 23


def highest(keys: np.ndarray, count: int, chosen: np.ndarray) -> int:
    """Mark the `count` highest keys in `chosen` (bool), ties to the lower index; returns the lowest key that is kept."""
    threshold = _mark(keys, count, chosen)
    more = int(np.count_nonzero(chosen)) - count
    if more:
        _unmark(keys, threshold, more, chosen)
    return int(threshold)


def _mark(keys: np.ndarray, count: int, chosen: np.ndarray) -> np.int32:
    """Mark the `count` highest keys, and those equal to the lowest of them, which is returned. numpy's vectorised partition finds
    it an order of magnitude faster than torch.kthvalue."""
    place = len(keys) - count
    threshold = np.partition(keys, place)[place]
    np.greater_equal(keys, threshold, out=chosen)
    return threshold


def _unmark(keys: np.ndarray, threshold: np.int32 | int, more: int, chosen: np.ndarray) -> None:
    """Take back so many of those equal to the threshold: the last."""
    chosen[(keys == threshold).nonzero()[0][-more:]] = False


@dataclass(frozen=True)
class Ranked:
    """The `keys` of some layers' edges, one layer after the other, and for each layer how many edges it has, how many to keep,
    its bracket, how many it keeps at least, and its place in the network."""

    keys: Keys
    sizes: Sequence[int]
    counts: Sequence[int]
    brackets: Sequence[Bracket]
    floors: Sequence[int]
    places: Sequence[int]

    @property
    def starts(self) -> Iterator[int]:
        """Where each layer's keys begin."""
        return accumulate(self.sizes[:-1], initial=0)

    @property
    def total(self) -> int:
        """How many edges all layers keep."""
        return sum(self.counts)


Scope = Callable[[Sequence[Ranked]], list[torch.Tensor]]  # a bool mask for each


def top(keys: Keys, count: int, bracket: Bracket | None = None) -> torch.Tensor:
    """The `count` highest of the `keys` as a bool mask; ties go to the lower index. `bracket` may speed it up."""
    assert 0 <= count <= len(keys)
    return _top_of_each(Ranked(keys, [len(keys)], [count], [bracket or Bracket()], [0], [0]))


def _top_of_each(ranked: Ranked) -> torch.Tensor:
    """In each layer the highest keys, as a bool mask of all."""
    bits = ranked.keys.bits
    if ranked.total in (0, len(bits)):
        return torch.full(bits.shape, ranked.total > 0, dtype=torch.bool, device=bits.device)
    if bits.device.type == "cpu":
        return _top_by_numpy(ranked)
    return _top_on_device(ranked.keys.tensor(), ranked.sizes, ranked.counts)


def _top_by_numpy(ranked: Ranked) -> torch.Tensor:
    bits, of_bits = ranked.keys.bits.numpy(), ranked.keys.of_bits
    chosen = np.empty(len(bits), dtype=bool)
    if len(bits) <= FEW:
        _top_of_few(of_bits(bits), ranked, chosen)
        return torch.from_numpy(chosen)
    for start, size, count, bracket in zip(ranked.starts, ranked.sizes, ranked.counts, ranked.brackets, strict=True):
        if count in (0, size):
            chosen[start:start + size] = count > 0
        else:
            bracket.top(bits[start:start + size], of_bits, count, chosen[start:start + size])
    return torch.from_numpy(chosen)


def _top_of_few(keys: np.ndarray, ranked: Ranked, chosen: np.ndarray) -> None:
    """The same of so few that the calls are what costs: ties are looked for once."""
    found = []
    for start, size, count in zip(ranked.starts, ranked.sizes, ranked.counts, strict=True):
        part = slice(start, start + size)
        found.append(_mark(keys[part], count, chosen[part]) if count else HIGHEST)
    if np.count_nonzero(chosen) == ranked.total and all(ranked.counts):
        return
    for start, size, count, threshold in zip(ranked.starts, ranked.sizes, ranked.counts, found, strict=True):
        part = slice(start, start + size)
        if not count:
            chosen[part] = False
        elif more := int(np.count_nonzero(chosen[part])) - count:
            _unmark(keys[part], threshold, more, chosen[part])


def _top_on_device(keys: torch.Tensor, sizes: Sequence[int], counts: Sequence[int]) -> torch.Tensor:
    """No value comes back to the host, so the queue of kernels is never waited for; a layer takes two calls of its own.

    On CUDA torch.topk shares a long row out to many blocks, where torch.kthvalue gives it to one: on 10^8 values it was
    20 times slower than a sort (github.com/pytorch/pytorch/issues/75599).
    """
    several = len(sizes) > 1
    parts = keys.split(list(sizes)) if several else [keys]
    thresholds = [part.topk(max(count, 1), sorted=False).values.amin() for part, count in zip(parts, counts, strict=True)]
    if not several:
        chosen, ties = keys > thresholds[0], keys == thresholds[0]
        short = counts[0] - chosen.sum()
        return chosen | (ties & (ties.cumsum(0, dtype=torch.int32) <= short))
    lengths, wanted = (torch.tensor(numbers, device="cpu").to(keys.device) for numbers in (sizes, counts))
    layer = torch.arange(len(sizes), device=keys.device).repeat_interleave(lengths, output_size=len(keys))
    threshold = torch.stack(thresholds)[layer]
    chosen, ties = keys > threshold, keys == threshold
    short = wanted - wanted.new_zeros(len(sizes)).index_add_(0, layer, chosen.long())
    rank, starts = ties.cumsum(0), lengths.cumsum(0) - lengths  # of each tie among those of all layers, from 1
    before = rank[starts] - ties[starts].long()                 # ties that come before a layer's first edge
    return chosen | (ties & (rank <= (before + short)[layer]))


def top_layerwise(ranked: Sequence[Ranked]) -> list[torch.Tensor]:
    """In each layer the `counts[l]` highest keys. (A floor is never above its count.)"""
    return [_top_of_each(each) for each in ranked]


def top_globally(ranked: Sequence[Ranked]) -> list[torch.Tensor]:
    """Over the whole network the sum of all counts of the highest keys, the best `floors[l]` edges of each layer among them.

    Ties go to the earlier layer, then to the lower edge index.
    """
    layers = sorted(((place, part, count, floor, bracket) for each in ranked for place, part, count, floor, bracket in zip(
        each.places, each.keys.split(each.sizes), each.counts, each.floors, each.brackets, strict=True)), key=lambda one: one[0])
    joined = torch.cat([keys.tensor() for _, keys, *_ in layers]).clamp_(max=HIGHEST - 1)  # or the NaN of all bits would tie
    sizes = [len(keys) for _, keys, *_ in layers]
    for part, (_, _, _, floor, _) in zip(joined.split(sizes), layers, strict=True):
        if floor:
            part.masked_fill_(top(Keys(part.clone()), floor), HIGHEST)
    chosen = top(Keys(joined), sum(count for _, _, count, _, _ in layers), layers[0][-1]).split(sizes)
    found = {place: mask for (place, *_), mask in zip(layers, chosen, strict=True)}
    return [found[each.places[0]] if len(each.places) == 1 else torch.cat([found[place] for place in each.places])
            for each in ranked]


SCOPES: dict[str, Scope] = {"layer": top_layerwise, "global": top_globally}
