"""What one pass uses of edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class Gate:
    """Each edge's code, and what the weights that the codes mean are multiplied by while a search trains.

    `factor` is a number, or one an edge [edges], from 0 to `most`: it cannot turn a sign, so that a gate never trains a
    network which no codes of the book describe. A ticket has factor 1.
    """

    codes: torch.Tensor                 # [edges]: bool, or a small whole number where the book has more than two codes
    factor: float | torch.Tensor = 1.0
    most: float | torch.Tensor = 1.0    # a number, or a tensor []: the factor of an edge that is open

    @property
    def plain(self) -> bool:
        """Whether the codes are all there is to it."""
        return isinstance(self.factor, float) and self.factor == 1.0

    def tensors(self) -> list[torch.Tensor]:
        """What of it can be written to."""
        return [self.codes, self.factor] if isinstance(self.factor, torch.Tensor) else [self.codes]

    def same_as(self, other: Gate | None) -> bool:
        """Whether the other shows the very same tensors."""
        return other is not None and self.codes is other.codes and (self.factor is other.factor or (self.plain and other.plain))

    def parts(self, sizes: Sequence[int]) -> list[Gate]:
        """The gates of layers of so many edges each, whose gates one after the other this is."""
        if len(sizes) == 1:
            return [self]
        codes = self.codes.split(sizes)
        factors = self.factor.split(sizes) if isinstance(self.factor, torch.Tensor) else [self.factor] * len(sizes)
        return [Gate(part, factor, self.most) for part, factor in zip(codes, factors, strict=True)]
