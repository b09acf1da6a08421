"""The three products of a sparse convolution, on its edges alone, by the kernels of a linear layer.

A channel of the input is a row: its padded images, one after the other. What a tap of the filter sees of it is the same row
from a later start, so an edge adds value * row[start:] to the row of its output, and only where rows start tells a convolution
from a linear layer. The outputs' rows have the input's padded form; what lies at its margins is computed and cut away, and is 0
in a gradient. With a stride a channel has as many rows as the taps see phases of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby, product

import numpy as np
import torch

from popup.products.numba_kernels import Kept, NumbaKernels, dots, gather, lay, scatter
from popup.products.structure import Structure

Pair = tuple[int, int]
Slices = tuple[slice, ...]


@dataclass(frozen=True)
class Filter:
    """The form of a convolution: its taps, how far it moves, what is added at the margins, how far taps are apart."""

    taps: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    def places(self) -> list[tuple[Pair, Pair]]:
        """The phase that each tap sees, and which row and column of it."""
        places = product(*(range(0, count * apart, apart) for count, apart in zip(self.taps, self.dilation, strict=True)))
        return [((row % self.stride[0], column % self.stride[1]), (row // self.stride[0], column // self.stride[1]))
                for row, column in places]


@dataclass(frozen=True)
class Rows:
    """How images [n, channels, height, width] lie as rows, for a filter. What is computed of it once is the same at each step."""

    filter: Filter
    images: int
    channels: int
    size: Pair

    @cached_property
    def phases(self) -> list[Pair]:
        """The phases that taps see."""
        return sorted({phase for phase, _ in self.filter.places()})

    @cached_property
    def grid(self) -> Pair:
        """Height and width of a phase of a padded image."""
        height, width = (-(-(length + 2 * margin) // step) for length, margin, step in zip(
            self.size, self.filter.padding, self.filter.stride, strict=True))
        return height, width

    @cached_property
    def outputs(self) -> Pair:
        """Height and width of the output."""
        height, width = (
            (length + 2 * margin - apart * (count - 1) - 1) // step + 1 for length, margin, apart, count, step in zip(
                self.size, self.filter.padding, self.filter.dilation, self.filter.taps, self.filter.stride, strict=True))
        return height, width

    @cached_property
    def length(self) -> int:
        """Of an output's row: an odd number of vectors, since rows a power of two apart want the same lines of the cache."""
        vectors = -(-self.images * self.grid[0] * self.grid[1] // 16)
        return 16 * (vectors | 1)

    @cached_property
    def starts(self) -> np.ndarray:
        """Where the row begins that an edge multiplies, by its channel and tap."""
        within = [self.phases.index(phase) * self.stride + row * self.grid[1] + column
                  for phase, (row, column) in self.filter.places()]
        return (np.arange(self.channels)[:, None] * len(self.phases) * self.stride + np.array(within)).reshape(-1)

    @cached_property
    def stride(self) -> int:
        """From an input's row to the next: the last tap reads that much beyond."""
        return self.length + 16 * -(-max(row * self.grid[1] + column for _, (row, column) in self.filter.places()) // 16)

    @cached_property
    def parts(self) -> list[tuple[int, Slices, Slices]]:
        """Slices of a phase's grid, and those of the images that they hold: all that some tap sees. The rest stays 0, and were
        it infinite in the images, it would be no tap's either."""
        return [(number, (rows[0], columns[0]), (rows[1], columns[1])) for number, phase in enumerate(self.phases)
                for rows, columns in product(*(self._seen(axis, at) for axis, at in enumerate(phase)))]

    def _seen(self, axis: int, phase: int) -> list[tuple[slice, slice]]:
        """Along an axis, the places of a phase that hold images and that a tap sees, as slices, and those of the images."""
        step, beyond, apart = self.filter.stride[axis], phase - self.filter.padding[axis], self.filter.dilation[axis]
        seen = np.zeros(self.grid[axis], dtype=bool)
        for tap in range(0, self.filter.taps[axis] * apart, apart):
            if tap % step == phase:
                seen[tap // step:tap // step + self.outputs[axis]] = True
        held = [place for place in np.flatnonzero(seen).tolist() if 0 <= place * step + beyond < self.size[axis]]
        runs = [[place for _, place in run] for _, run in groupby(enumerate(held), lambda pair: pair[1] - pair[0])]
        return [(slice(run[0], run[-1] + 1), slice(run[0] * step + beyond, run[-1] * step + beyond + 1, step)) for run in runs]

    @cached_property
    def all_seen(self) -> bool:
        """Whether each pixel of the images is some tap's."""
        held = sum((rows.stop - rows.start) * (columns.stop - columns.start) for _, (rows, columns), _ in self.parts)
        return held == self.size[0] * self.size[1]

    def views(self, rows: torch.Tensor, images: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Each part, of the inputs' rows [channels, phases, stride] and of the images: two views of one form."""
        whole = rows[:, :, :self.images * self.grid[0] * self.grid[1]].view(*rows.shape[:2], self.images, *self.grid)
        for number, here, there in self.parts:
            yield whole[:, number][:, :, *here].transpose(0, 1), images[:, :, *there]

    def of_inputs(self, images: torch.Tensor) -> torch.Tensor:
        """The rows of the inputs, zeros at the margins."""
        rows = images.new_zeros(self.channels, len(self.phases), self.stride)
        for place, part in self.views(rows, images):
            lay(place, part)
        return rows

    def to_inputs(self, rows: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """The images whose rows these are, in the memory format of `like`; what no tap sees is 0."""
        images = _empty(like.shape, like)
        if not self.all_seen:
            images.zero_()
        for place, part in self.views(rows, images):
            part.copy_(place)
        return images

    def of_outputs(self, rows: torch.Tensor) -> torch.Tensor:
        """The outputs within their rows [out, length], a view of [n, out, height, width]."""
        whole = rows[:, :self.images * self.grid[0] * self.grid[1]].view(len(rows), self.images, *self.grid)
        return whole[:, :, :self.outputs[0], :self.outputs[1]].transpose(0, 1)


@dataclass(frozen=True, eq=False)
class ConvProducts:
    """The products of a convolution with a weight [out, in, height, width] in one group, by numba's kernels."""

    shape: tuple[int, int, int, int]
    filter: Filter
    structure: Structure

    @classmethod
    def of(cls, edges: np.ndarray, shape: tuple[int, int, int, int], filter: Filter) -> ConvProducts:
        """The products of a convolution of that shape whose edges are these flat indices, ascending."""
        taps = shape[2] * shape[3]
        return cls(shape, filter, Structure.of(edges, (shape[0], shape[1] * taps), together=taps))

    def keep(self, values: torch.Tensor, selected: torch.Tensor | None = None) -> Kept:
        """The values, one an edge, as `forward` and `gradients` take them.

        Those count that are not 0; or by `selected` [edges], of bools or bytes, which costs less than to make the others 0.
        """
        return NumbaKernels().keep(self.structure, values.detach().contiguous(), selected)

    def forward(self, x: torch.Tensor, kept: Kept) -> torch.Tensor:
        """The output [n, out, height, width] of an input [n, in, height, width], in its memory format."""
        rows = rows_of(self.filter, x)
        result = x.new_empty(self.shape[0], rows.length)
        gather(self.structure, kept, rows.of_inputs(x.detach()), rows.starts, result)
        y = _empty((rows.images, self.shape[0], *rows.outputs), x)
        y.copy_(rows.of_outputs(result))
        return y

    def gradients(self, gradient: torch.Tensor, x: torch.Tensor, kept: Kept | None) -> tuple[torch.Tensor | None, torch.Tensor]:
        """The gradients of the input and of the edges, of that of the output and the input; None for `kept`: only the edges'."""
        rows = rows_of(self.filter, x)
        starts, outputs = rows.starts, self._gradient(gradient, rows)
        of_edges = dots(self.structure, outputs, rows.of_inputs(x.detach()), starts)
        if kept is None:
            return None, of_edges
        result = x.new_zeros(self.shape[1], len(rows.phases), rows.stride)
        scatter(self.structure, kept, outputs, starts, result)
        return rows.to_inputs(result, x), of_edges

    def _gradient(self, gradient: torch.Tensor, rows: Rows) -> torch.Tensor:
        """The rows of the outputs' gradient, zeros at the margins."""
        result = gradient.new_zeros(self.shape[0], rows.length)
        lay(rows.of_outputs(result), gradient.detach())
        return result


def rows_of(filter: Filter, images: torch.Tensor) -> Rows:
    """How images [n, channels, height, width] lie as rows."""
    count, channels, height, width = images.shape
    return _remembered(filter, count, channels, (height, width))


_remembered = lru_cache(maxsize=64)(Rows)  # a step of a small network would spend a third of its time on what they tell


def _empty(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Room for images, in the memory format that torch's own convolution has for those of `like`."""
    form = torch.channels_last if _by_pixels(like) else torch.contiguous_format
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=form)


def _by_pixels(images: torch.Tensor) -> bool:
    """Whether torch takes images to lie in channels last. It goes by the steps alone (c10/core/MemoryFormat.h): of one channel,
    and of slices, too."""
    least = 0
    for side in (1, 3, 2, 0):
        step, size = images.stride(side), images.shape[side]
        if step < max(least, side == 1) or not size:
            return False
        if side == 0 and least == images.stride(1):
            return False  # single numbers lie both ways
        least = step * max(size, 1)
    return True
