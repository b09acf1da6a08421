"""Exact selection: precisely n edges, whatever ties the scores have, ties going to the lower edge index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt

import numpy as np
import torch

from popup.search.keys import HIGHEST, Keys

# keys and the number kept of each layer, brackets, and the least number -> one bool mask a layer
Scope = Callable[[Sequence[Keys], Sequence[int], Sequence["Bracket"], Sequence[int]], list[torch.Tensor]]
PART = 1 << 16  # keys looked at at once: few enough to stay in a core's own cache


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

    def top(self, keys: Keys, count: int) -> np.ndarray:
        """The `count` highest keys as a bool mask, ties to the lower index."""
        if self.reach < 0:
            return self._from_all(keys, count)
        chosen, band, band_keys = self._split(keys)
        missing = count - np.count_nonzero(chosen)
        if not 0 < missing <= len(band):
            self.reach = min(4 * self.reach + 1, HIGHEST)
            return self._from_all(keys, count)
        best, self.middle = highest(band_keys, missing)
        chosen[band[best]] = True
        width = len(band) / sqrt(len(keys))
        if width > self.WIDEST:
            self.reach //= 2
        elif width < self.THINNEST:
            self.reach = min(2 * self.reach + 1, HIGHEST)
        return chosen

    def _split(self, keys: Keys) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which keys are above the bracket (bool), which inside it (indices), and the keys inside."""
        low, high = max(self.middle - self.reach, -HIGHEST - 1), min(self.middle + self.reach, HIGHEST)
        above, places, found = np.empty(len(keys), dtype=bool), [], []
        for start in range(0, len(keys), PART):
            part, above_here = keys[start:start + PART], above[start:start + PART]
            np.greater(part, high, out=above_here)
            inside = ((part >= low) != above_here).nonzero()[0]
            places.append(inside + start)
            found.append(part[inside])
        return above, np.concatenate(places), np.concatenate(found)

    def _from_all(self, keys: Keys, count: int) -> np.ndarray:
        chosen, self.middle = highest(keys[:], count)
        self.reach = max(self.reach, 1 << 16)  # a score of twice the size has a key higher by 1 << 23
        return chosen


def highest(keys: np.ndarray, count: int) -> tuple[np.ndarray, int]:
    """The `count` highest keys as a bool mask, ties to the lower index; and the lowest key that is kept.

    numpy's vectorised partition finds that threshold an order of magnitude faster than torch.kthvalue.
    """
    place = len(keys) - count
    threshold = np.partition(keys, place)[place]
    chosen = keys > threshold
    short = count - np.count_nonzero(chosen)
    chosen[(keys == threshold).nonzero()[0][:short]] = True
    return chosen, int(threshold)


def top(keys: Keys, count: int, bracket: Bracket | None = None) -> torch.Tensor:
    """The `count` highest of the `keys` as a bool mask; ties go to the lower index. `bracket` may speed it up."""
    assert 0 <= count <= len(keys)
    if count in (0, len(keys)):
        return torch.full(keys.bits.shape, count > 0, dtype=torch.bool, device=keys.bits.device)
    if keys.bits.device.type != "cpu":
        return _top_on_device(keys.tensor(), count)
    return torch.from_numpy((bracket or Bracket()).top(keys, count))


def _top_on_device(keys: torch.Tensor, count: int) -> torch.Tensor:
    """No value comes back to the host, so the queue of kernels is never waited for.

    On CUDA torch.topk shares a long row out to many blocks, where torch.kthvalue gives it to one: on 10^8 values it was
    20 times slower than a sort (github.com/pytorch/pytorch/issues/75599).
    """
    threshold = keys.topk(count, sorted=False).values.amin()
    chosen, ties = keys > threshold, keys == threshold
    short = count - chosen.sum()
    return chosen | (ties & (ties.cumsum(0, dtype=torch.int32) <= short))


def top_layerwise(keys: Sequence[Keys], counts: Sequence[int], brackets: Sequence[Bracket],
                  floors: Sequence[int]) -> list[torch.Tensor]:
    """In each layer the `counts[l]` highest keys: one bool mask a layer. (A floor is never above its count.)"""
    return [top(layer, count, bracket) for layer, count, bracket in zip(keys, counts, brackets, strict=True)]


def top_globally(keys: Sequence[Keys], counts: Sequence[int], brackets: Sequence[Bracket],
                 floors: Sequence[int]) -> list[torch.Tensor]:
    """Over the whole network the sum(counts) highest keys, the best `floors[l]` edges of each layer among them.

    Ties go to the earlier layer, then to the lower edge index.
    """
    joined = torch.cat([layer.tensor() for layer in keys]).clamp_(max=HIGHEST - 1)  # or the NaN of all bits would tie with a best
    sizes = [len(layer) for layer in keys]
    for layer, floor in zip(joined.split(sizes), floors, strict=True):
        if floor:
            layer.masked_fill_(top(Keys(layer.clone()), floor), HIGHEST)
    return list(top(Keys(joined), sum(counts), brackets[0]).split(sizes))


SCOPES: dict[str, Scope] = {"layer": top_layerwise, "global": top_globally}
