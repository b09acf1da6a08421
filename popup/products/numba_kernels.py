"""The products by numba: only edges that are kept are multiplied, from lists in the order in which each walk needs them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from popup.products import compiled
from popup.products.structure import Blocks, Structure
from popup.products.threads import share


@dataclass(frozen=True, eq=False)
class Walk:
    """The kept edges in the order of a walk: those of segment s from begins[s] to before ends[s], what follows is not used."""

    blocks: Blocks
    begins: np.ndarray  # int64, of the structure
    ends: np.ndarray  # int64
    values: np.ndarray  # [edges]
    numbers: np.ndarray  # uint16 [edges]: counted from the beginning of the segment's block

    @classmethod
    def empty(cls, blocks: Blocks, begins: np.ndarray, values: np.ndarray) -> Walk:
        """Room for as many edges as there are values."""
        return cls(blocks, begins, np.empty(len(begins) - 1, np.int64), np.empty_like(values), np.empty(len(values), np.uint16))


@dataclass(frozen=True)
class Kept:
    """The edges with a value other than 0, in the order of both walks."""

    by_output: Walk
    by_input: Walk


class NumbaKernels:
    """Kernels of numba, for float32 and float64 on the CPU."""

    name = "numba"

    def structure(self, edges: np.ndarray, shape: tuple[int, int]) -> Structure:
        """The structure that the other functions want."""
        return Structure.of(edges, shape)

    def keep(self, structure: Structure, values: torch.Tensor) -> Kept:
        """Put the nonzero values in order: one pass over the edges."""
        given = values.numpy()
        kept = Kept(Walk.empty(structure.input_blocks, structure.by_output, given),
                    Walk.empty(structure.output_blocks, structure.by_input, given))
        outs, blocks = kept.by_output, structure.output_blocks
        arguments = (given, structure.inputs, outs.begins, kept.by_input.begins, outs.blocks.count, outs.blocks.size,
                     blocks.count, blocks.size, structure.shape[0], outs.values, outs.numbers, outs.ends,
                     kept.by_input.values, kept.by_input.numbers, kept.by_input.ends)
        share(lambda first, last: compiled.keep(*arguments, first, last), blocks.count, 4 * structure.edges)
        return kept

    def forward(self, structure: Structure, kept: Kept, rows: torch.Tensor) -> torch.Tensor:
        """The outputs' rows [out, n] of the inputs' rows [in, n]."""
        return _combine(structure.shape[0], kept.by_output, rows)

    def input_gradient(self, structure: Structure, kept: Kept, rows: torch.Tensor) -> torch.Tensor:
        """The inputs' rows [in, n] of the gradient, of the outputs' rows [out, n] of it."""
        return _combine(structure.shape[1], kept.by_input, rows)

    def edge_gradient(self, structure: Structure, outputs: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """The gradient of each edge, of the outputs' rows of the gradient and the inputs' rows."""
        result, length = outputs.new_empty(structure.edges), _padded(outputs.shape[1], outputs)
        blocks = structure.input_blocks
        arguments = (result.numpy(), _flat(outputs, length), _flat(inputs, length), structure.inputs, structure.by_output,
                     blocks.count, blocks.size, length)
        share(lambda first, last: compiled.dots(*arguments, first, last), structure.shape[0],
              structure.edges * length * outputs.itemsize / compiled.BYTES)
        return result


def _combine(units: int, walk: Walk, rows: torch.Tensor) -> torch.Tensor:
    count, length = rows.shape[1], _padded(rows.shape[1], rows)
    result, blocks = rows.new_empty(units, length), walk.blocks
    arguments = (_flat(result, length), _flat(rows, length), walk.values, walk.numbers, walk.begins, walk.ends,
                 blocks.count, blocks.size, length)
    share(lambda first, last: compiled.combine(*arguments, first, last), units,
          len(walk.values) * length * rows.itemsize / compiled.BYTES)
    return result if length == count else result[:, :count].contiguous()


def _padded(count: int, rows: torch.Tensor) -> int:
    """How long rows must be: a vector at the least."""
    return max(count, compiled.BYTES // rows.itemsize)


def _flat(rows: torch.Tensor, length: int) -> np.ndarray:
    """The rows one after the other, each of that length."""
    return functional.pad(rows, (0, length - rows.shape[1])).numpy().reshape(-1) if rows.shape[1] < length \
        else rows.numpy().reshape(-1)
