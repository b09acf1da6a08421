"""Exact selection: precisely n edges, whatever ties the scores have, ties going to the lower edge index.

Scores are ranked as integers. The bits of a non-negative float32, read as int32, sort as the float does, so that a
threshold is met exactly and a NaN cannot change how many edges are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from popup.errors import UsageError

HIGHEST = torch.iinfo(torch.int32).max  # above the key of every float, infinity included, but for one NaN


def magnitude_keys(scores: torch.Tensor) -> torch.Tensor:
    """int32 keys that sort as |score| does: the bits of the float32 without its sign."""
    return _bits(scores) & HIGHEST


def signed_keys(scores: torch.Tensor) -> torch.Tensor:
    """int32 keys that sort as the score does, -0 like 0: the bits of a negative float32 sort backwards, so all but its sign
    are turned over."""
    bits = _bits(scores.detach() + 0.0)  # -0 + 0 is 0
    return bits ^ ((bits >> 31) & HIGHEST)


def _bits(scores: torch.Tensor) -> torch.Tensor:
    if scores.dtype is not torch.float32:
        raise UsageError(f"scores have dtype {scores.dtype} and are ranked as float32: convert the network before it is "
                         "attached, or use torch.autocast")
    return scores.detach().view(torch.int32)


@dataclass(frozen=True)
class Rank:
    """What of a score is ranked: as int32 keys, as a float32 value, and its derivative with respect to the score."""

    keys: Callable[[torch.Tensor], torch.Tensor]
    value: Callable[[torch.Tensor], torch.Tensor]
    slope: Callable[[torch.Tensor], torch.Tensor]


RANKS = {"magnitude": Rank(magnitude_keys, torch.abs, torch.sign), "value": Rank(signed_keys, torch.clone, torch.ones_like)}


class Bracket:
    """Where a layer's threshold was, and how far it may have moved since: makes the next selection cheap, never different.

    One pass over the keys splits them into those above the bracket, which are kept, and the thin band inside it, from
    which alone the rest is selected. Should the threshold have left the bracket, the pass shows it and all keys are
    selected from.
    """

    WIDEST, THINNEST = 0.05, 0.01  # the band's share of the keys, kept between these

    def __init__(self) -> None:
        self.middle, self.reach = 0, -1

    def top(self, keys: np.ndarray, count: int) -> np.ndarray:
        """The `count` highest keys as a bool mask, ties to the lower index."""
        if self.reach < 0:
            return self._from_all(keys, count)
        chosen = keys > self.middle + self.reach
        missing = count - np.count_nonzero(chosen)
        band = np.flatnonzero((keys >= self.middle - self.reach) ^ chosen)
        if not 0 < missing <= len(band):
            self.reach = min(4 * self.reach + 1, HIGHEST)
            return self._from_all(keys, count)
        best, self.middle = highest(keys[band], missing)
        chosen[band[best]] = True
        share = len(band) / len(keys)
        self.reach = self.reach // 2 if share > self.WIDEST else self.reach * 2 + 1 if share < self.THINNEST else self.reach
        return chosen

    def _from_all(self, keys: np.ndarray, count: int) -> np.ndarray:
        chosen, self.middle = highest(keys, count)
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
    chosen[np.flatnonzero(keys == threshold)[:short]] = True
    return chosen, int(threshold)


def top(keys: torch.Tensor, count: int, bracket: Bracket | None = None) -> torch.Tensor:
    """The `count` highest of the int32 `keys` as a bool mask; ties go to the lower index. `bracket` may speed it up."""
    assert 0 <= count <= len(keys)
    if count in (0, len(keys)):
        return torch.full(keys.shape, count > 0, dtype=torch.bool, device=keys.device)
    if keys.device.type != "cpu":
        return _top_on_device(keys, count)
    return torch.from_numpy((bracket or Bracket()).top(keys.numpy(), count))


def _top_on_device(keys: torch.Tensor, count: int) -> torch.Tensor:
    """No value comes back to the host, so the queue of kernels is never waited for.

    On CUDA torch.topk shares a long row out to many blocks, where torch.kthvalue gives it to one: on 10^8 values it was
    20 times slower than a sort (github.com/pytorch/pytorch/issues/75599).
    """
    threshold = keys.topk(count, sorted=False).values.amin()
    chosen, ties = keys > threshold, keys == threshold
    short = count - chosen.sum()
    return chosen | (ties & (ties.cumsum(0, dtype=torch.int32) <= short))


def top_layerwise(keys: Sequence[torch.Tensor], counts: Sequence[int], brackets: Sequence[Bracket],
                  floors: Sequence[int]) -> list[torch.Tensor]:
    """In each layer the `counts[l]` highest keys: one bool mask a layer. (A floor is never above its count.)"""
    return [top(layer, count, bracket) for layer, count, bracket in zip(keys, counts, brackets, strict=True)]


def top_globally(keys: Sequence[torch.Tensor], counts: Sequence[int], brackets: Sequence[Bracket],
                 floors: Sequence[int]) -> list[torch.Tensor]:
    """Over the whole network the sum(counts) highest keys, the best `floors[l]` edges of each layer among them.

    Ties go to the earlier layer, then to the lower edge index.
    """
    joined = torch.cat(list(keys)).clamp_(max=HIGHEST - 1)  # the NaN of all bits would tie with a layer's best edge
    sizes = [len(layer) for layer in keys]
    for layer, floor in zip(joined.split(sizes), floors, strict=True):
        if floor:
            layer.masked_fill_(top(layer.clone(), floor), HIGHEST)
    return list(top(joined, sum(counts), brackets[0]).split(sizes))


SCOPES = {"layer": top_layerwise, "global": top_globally}
