"""The products by numba: only edges that are kept are multiplied."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from types import ModuleType

import numpy as np
import torch
from torch.nn import functional

from popup.products.structure import BYTES, Structure
from popup.products.threads import share, worth


@dataclass(frozen=True, eq=False)
class Kept:
    """The edges with a value other than 0, side by side: those of segment s from begins[s] to before ends[s]."""

    values: np.ndarray  # [edges], of which the last are unused
    inputs: np.ndarray  # uint16 [edges]
    begins: np.ndarray  # int64 [segments]
    ends: np.ndarray  # int64 [segments]

    def lists(self) -> tuple[np.ndarray, ...]:
        """As the kernels take them."""
        return self.values, self.inputs, self.begins, self.ends


@cache
def _compiled() -> ModuleType:
    """The kernels, imported when they are first used: importing numba takes half a second."""
    from popup.products import compiled
    return compiled


class NumbaKernels:
    """Kernels of numba, for float32 and float64 on the CPU."""

    name = "numba"

    def structure(self, edges: np.ndarray, shape: tuple[int, int]) -> Structure:
        """The structure that the other functions want."""
        return Structure.of(edges, shape)

    def keep(self, structure: Structure, values: torch.Tensor) -> Kept:
        """Put the nonzero values side by side: one pass over the edges."""
        given, segments = values.numpy(), len(structure.begins) - 1
        kept = Kept(np.empty_like(given), np.empty_like(structure.inputs), *np.empty((2, segments), np.int64))
        arguments = (given, structure.inputs, structure.begins, *kept.lists(), structure.blocks)
        share(partial(_compiled().keep, *arguments), structure.shape[0], worth(structure.edges))
        return kept

    def forward(self, structure: Structure, kept: Kept, rows: torch.Tensor) -> torch.Tensor:
        """The outputs' rows [out, n] of the inputs' rows [in, n]."""
        source, result = _whole(rows), rows.new_empty(structure.shape[0], _length(rows))
        arguments = (_flat(result), _flat(source), *kept.lists(), structure.blocks, structure.size, _length(rows))
        share(partial(_compiled().gather, *arguments), structure.shape[0], worth(_work(structure, rows)))
        return result[:, :rows.shape[1]].contiguous()

    def input_gradient(self, structure: Structure, kept: Kept, rows: torch.Tensor) -> torch.Tensor:
        """The inputs' rows [in, n] of the gradient, of the outputs' rows [out, n] of it."""
        source, result = _whole(rows), rows.new_empty(structure.shape[1], _length(rows))
        threads = worth(_work(structure, rows))
        across = min(-(-2 * threads // max(1, structure.blocks)), max(1, _vectors(rows) // 2)) if threads > 1 else 1
        arguments = (_flat(result), _flat(source), *kept.lists(), structure.blocks, structure.size, _length(rows), across)
        share(partial(_compiled().scatter, *arguments), structure.blocks * across, threads)
        return result[:, :rows.shape[1]].contiguous()

    def edge_gradient(self, structure: Structure, outputs: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """The gradient of each edge, of the outputs' rows of the gradient and the inputs' rows."""
        result = outputs.new_empty(structure.edges)
        arguments = (result.numpy(), _flat(_whole(outputs)), _flat(_whole(inputs)), structure.inputs, structure.begins,
                     structure.blocks, structure.size, _length(outputs))
        share(partial(_compiled().dots, *arguments), structure.shape[0], worth(_work(structure, outputs)))
        return result


def _length(rows: torch.Tensor) -> int:
    """How long the kernels' rows are: a vector at the least."""
    return max(rows.shape[1], BYTES // rows.itemsize)


def _vectors(rows: torch.Tensor) -> int:
    return -(-_length(rows) * rows.itemsize // BYTES)


def _work(structure: Structure, rows: torch.Tensor) -> int:
    """How many vectors are multiplied, if all edges are."""
    return structure.edges * _vectors(rows)


def _whole(rows: torch.Tensor) -> torch.Tensor:
    """The rows, made as long as the kernels want them."""
    short = _length(rows) - rows.shape[1]
    return functional.pad(rows, (0, short)) if short else rows


def _flat(rows: torch.Tensor) -> np.ndarray:
    return rows.numpy().reshape(-1)
