"""Code books: what the small whole number that a ticket holds for an edge says of the edge's effective weight.

Code 0 is always a dropped edge. A new book is an object or a class here. Nothing else in popup works out the weights of a ticket:
`Book.values` (and `some`, for a few edges) serves the forward pass, merge, apply, the file, verify, the controls and the proof.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from popup.source.layer_source import LayerSource, draw_again
from popup.source.recipe import Recipe

Array = TypeVar("Array", torch.Tensor, np.ndarray)
MANY = np.iinfo(np.int32).max  # codes of a book that has no end of them
MOST_DRAWS = 255               # to choose from


class EdgeWeights(Protocol):
    """What a book reads of a layer of the source: the frozen weights of its edges, float32 [edges]."""

    @property
    def values(self) -> torch.Tensor:
        """The first draw, or what was given."""
        ...

    def at(self, turns: torch.Tensor, places: torch.Tensor | None = None) -> torch.Tensor:
        """Each edge's weight of its own redraw: `turns` [edges], counted from 1, 0 for the first draw; below 0 any. Or of the
        edges at `places` [n] alone, turns [n]."""
        ...


@dataclass(frozen=True)
class Drawn:
    """The weights of a layer of a source, redraws made when they are asked for. `stored`: those of `source` are the weights that
    the edges have, redraws and all."""

    recipe: Recipe
    source: LayerSource
    stored: bool = False

    @property
    def values(self) -> torch.Tensor:
        """The first draw, float32 [edges]."""
        return torch.from_numpy(self.source.values)

    def at(self, turns: torch.Tensor, places: torch.Tensor | None = None) -> torch.Tensor:
        """Each edge's weight of its own redraw, float32 [edges], or those of the edges at `places` [n]."""
        if places is not None:
            whole = torch.zeros(len(self.source.edges), dtype=turns.dtype, device="cpu").index_copy(0, places, turns)
            return self.at(whole)[places]
        return self.values if self.stored else torch.from_numpy(draw_again(self.recipe, self.source, turns.cpu().numpy()))


@dataclass(frozen=True)
class Sample:
    """Weights to see a book's meaning by."""

    values: torch.Tensor

    def at(self, turns: torch.Tensor, places: torch.Tensor | None = None) -> torch.Tensor:
        """Another weight for each redraw."""
        return (self.values if places is None else self.values[places]) * (turns + 1)


SAMPLE = Sample(torch.linspace(-1.5, 2.0, 320, device="cpu"))  # as many codes are seen


@dataclass(frozen=True)
class Book(ABC):
    """A code book: its name, how many codes it has (0 among them), and the weights that they mean.

    `one_by_one`: whether an edge's value depends on its own code alone, whatever codes the others have. `keeps_weights`: whether
    values come from an edge's first W alone, and not from other draws of the seed.
    """

    name: str
    codes: int
    one_by_one: bool = True
    keeps_weights: bool = True

    @abstractmethod
    def values(self, weights: EdgeWeights, codes: torch.Tensor) -> torch.Tensor:
        """The effective weights of a layer's edges, float32 [edges], from their `codes` [edges]: bool where the book has two,
        else a small whole number. A pure function: the same weights and codes give the same bits."""

    def selected(self, weights: EdgeWeights, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The same for who leaves out edges by himself: numbers [edges] that are the effective weights where the second, bool
        [edges], is true, and 0 elsewhere; None: they are the effective weights."""
        return self.values(weights, codes), None

    def some(self, weights: EdgeWeights, codes: np.ndarray, places: np.ndarray) -> np.ndarray:
        """`values` at a few `places` (int64 [n]) alone, on the CPU."""
        return self.values(weights, torch.from_numpy(codes)).numpy()[places]

    def holds(self, codes: torch.Tensor) -> bool:
        """Whether all `codes` are ones of this book."""
        return not codes.is_floating_point() and bool(((codes >= 0) & (codes <= self.codes - 1)).all())  # 256 is 0 of uint8

    @property
    def held(self) -> int:
        """How many draws of each edge a search holds at once: its first or its last one, or all that there are to choose from."""
        return 1

    def redrawn(self, codes: np.ndarray) -> int:
        """How many of the `codes` stand for another draw than the first."""
        return 0

    @property
    def first_is_own(self) -> bool:
        """Whether code 1 is the edge's own first weight, as it is in most books."""
        codes = torch.ones(len(SAMPLE.values), dtype=torch.bool if self.codes == 2 else torch.int32, device="cpu")
        return self.one_by_one and torch.equal(self.values(SAMPLE, codes), SAMPLE.values)

    def record(self) -> dict[str, Any]:
        """The book as plain values, for a ticket's metadata."""
        return {"name": self.name, "codes": self.codes}

    def meaning(self) -> torch.Tensor:
        """What it says of a small sample of weights and codes: another after a search, and the book is none that a ticket
        names."""
        codes = torch.arange(len(SAMPLE.values), device="cpu") % self.codes
        return self.values(SAMPLE, codes.bool() if self.codes == 2 else codes.int())


@dataclass(frozen=True)
class Factors(Book):
    """Each code is a factor of the edge's own W; that of code 0 is 0."""

    factors: tuple[float, ...] = (0.0, 1.0)

    def values(self, weights: EdgeWeights, codes: torch.Tensor) -> torch.Tensor:
        plain = type(self) is Factors and self.codes == 2  # another class may mean something else by a code
        if plain and codes.device.type == "cpu" and weights.values.dtype is torch.float32:
            return _selected(weights.values * self.factors[1] if self.factors[1] != 1 else weights.values, codes)
        return self._of(weights.values, codes, torch.where)

    def selected(self, weights: EdgeWeights, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        if type(self) is not Factors or self.codes > 2 or self.factors[1] != 1:
            return super().selected(weights, codes)
        return weights.values, codes

    def some(self, weights: EdgeWeights, codes: np.ndarray, places: np.ndarray) -> np.ndarray:
        return self._of(weights.values.numpy()[places], codes[places], np.where)

    def _of(self, values: Array, codes: Array, where: Callable[..., Array]) -> Array:
        """By torch, or for a few edges by numpy, whose calls take a fraction of torch's."""
        found = where(codes if self.codes == 2 else codes == 1, values * self.factors[1] if self.factors[1] != 1 else values, 0)
        for code, factor in enumerate(self.factors[2:], 2):
            found = where(codes == code, values * factor, found)
        return found

    def record(self) -> dict[str, Any]:
        return {**super().record(), "factors": list(self.factors)}


def _selected(values: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """The `values`, float32, where `codes` are true, and 0 elsewhere: by their bits, on the CPU. torch.where takes seven times as
    long where codes alternate."""
    bits = codes.numpy().view(np.int8).astype(np.int32)
    np.negative(bits, out=bits)  # all bits of a code that is true
    np.bitwise_and(bits, values.numpy().view(np.int32), out=bits)
    return torch.from_numpy(bits.view(np.float32))


@dataclass(frozen=True)
class Binary(Book):
    """Code 1 is alpha sign(W), with one scale a layer: alpha is the mean |W| of the edges that are kept."""

    def values(self, weights: EdgeWeights, codes: torch.Tensor) -> torch.Tensor:
        total = torch.where(codes, weights.values.abs(), 0).sum(dtype=torch.float64)
        scale = total / codes.sum().clamp(min=1)
        return torch.where(codes, weights.values.sign() * scale.to(weights.values.dtype), 0)


@dataclass(frozen=True)
class Draws(Book):
    """Code j is the weight of the seed's j-th draw: 1 the first, 1 + t that of the layer's t-th redraw. There is no end to them
    (MANY codes), or each edge has a few to choose from."""

    @property
    def held(self) -> int:
        return 1 if self.codes == MANY else self.codes - 1

    def values(self, weights: EdgeWeights, codes: torch.Tensor) -> torch.Tensor:
        return torch.where(codes > 0, weights.at(codes.int() - 1), 0)

    def some(self, weights: EdgeWeights, codes: np.ndarray, places: np.ndarray) -> np.ndarray:
        chosen = codes[places]
        now = weights.at(torch.from_numpy(chosen).int() - 1, torch.from_numpy(places)).numpy()
        return np.where(chosen > 0, now, np.float32(0))

    def redrawn(self, codes: np.ndarray) -> int:
        return int(np.count_nonzero(codes > 1))


PLAIN = Factors("plain", 2)
SIGNED = Factors("signed", 3, factors=(0.0, 1.0, -1.0))
BINARY = Binary("binary", 2, one_by_one=False)
DRAWS = Draws("draws", MANY, keeps_weights=False)


def several_draws(count: int) -> Draws:
    """The book of the first `count` draws alone."""
    return Draws("draws", count + 1, keeps_weights=False)
