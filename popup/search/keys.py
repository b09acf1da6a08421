"""What scores are ranked by: int32 keys. The bits of a non-negative float32, read as int32, sort as the float does, so that a
threshold is met exactly and a NaN cannot change how many edges are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch

from popup.errors import UsageError

HIGHEST = torch.iinfo(torch.int32).max  # above the key of every float, infinity included, but for one NaN
Bits = TypeVar("Bits", torch.Tensor, np.ndarray)


class OfBits(Protocol):
    """What makes keys of bits, alike of tensors and of arrays."""

    def __call__(self, bits: Bits, /) -> Bits: ...


def _as_they_are(bits: Bits) -> Bits:
    return bits


@dataclass(frozen=True)
class Keys:
    """int32 keys [edges] that are made from `bits` (int32 [edges]) when they are used: all as a `tensor`, or on the CPU, of
    arrays, some at a time, so that a pass over the keys of scores reads the scores and writes no keys to memory."""

    bits: torch.Tensor
    of_bits: OfBits = _as_they_are

    def __len__(self) -> int:
        return self.bits.shape[0]  # which takes a fraction of the tensor's own len

    def tensor(self) -> torch.Tensor:
        """All keys, int32 [edges], where the bits are."""
        return self.of_bits(self.bits)

    def copied(self) -> Keys:
        """The same keys, of bits in memory of their own."""
        return Keys(self.bits.clone(), self.of_bits)

    def split(self, sizes: Sequence[int]) -> list[Keys]:
        """The keys of layers of so many edges each, which these are one after the other."""
        return [self] if len(sizes) == 1 else [Keys(part, self.of_bits) for part in self.bits.split(sizes)]


@dataclass(frozen=True)
class Rank:
    """What of a score is ranked: the key of a float32's bits, the value, and its derivative with respect to the score."""

    of_bits: OfBits
    value: Callable[[torch.Tensor], torch.Tensor]
    slope: Callable[[torch.Tensor], torch.Tensor]

    def keys(self, scores: torch.Tensor) -> Keys:
        """The keys of `scores` [edges], as they are when the keys are used."""
        if scores.dtype is not torch.float32:
            raise UsageError(f"scores have dtype {scores.dtype} and are ranked as float32: convert the network before it is "
                             "attached, or use torch.autocast")
        return Keys(scores.detach().view(torch.int32), self.of_bits)


def _without_sign(bits: Bits) -> Bits:
    return bits & HIGHEST


def _with_sign(bits: Bits) -> Bits:
    """The bits of a negative float32 sort backwards, so its key is minus that of its magnitude."""
    sign = bits >> 31  # 0 or -1
    return ((bits & HIGHEST) ^ sign) - sign


RANKS = {"magnitude": Rank(_without_sign, torch.abs, torch.sign), "value": Rank(_with_sign, torch.clone, torch.ones_like)}


def magnitude_keys(scores: torch.Tensor) -> Keys:
    """Keys that sort as |score| does."""
    return RANKS["magnitude"].keys(scores)


def signed_keys(scores: torch.Tensor) -> Keys:
    """Keys that sort as the score does, -0 like 0."""
    return RANKS["value"].keys(scores)
