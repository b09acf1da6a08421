"""What a method is asked about: the edges of one layer, or those of several layers as if they were one's."""

from __future__ import annotations

from typing import Protocol

import torch

from popup.source.books import Book, EdgeWeights


class Unit(EdgeWeights, Protocol):
    """A layer, or a group of layers whose edges lie one after the other: what the two have in common."""

    @property
    def count(self) -> int:
        """How many edges there are."""
        ...

    @property
    def book(self) -> Book:
        """What the codes of the edges mean."""
        ...

    @property
    def own(self) -> torch.Tensor:
        """The weights that each edge has now [edges], float32."""
        ...

    def memory(self, name: str) -> torch.Tensor:
        """What the method remembers of the edges under `name`."""
        ...
