"""The three products of a sparse layer: its output, the gradient of its input and the gradient of its edges.

Which entries of the weight are edges is fixed; their values change each step, and those that do not count cost nothing. No dense
weight and no dense gradient is made. Activations are [n, units], as torch has them, but lie unit by unit: each product gives the
transpose of a contiguous [units, n] and takes one without a copy, so a chain of sparse layers copies its first input only.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch

from popup.products.numba_kernels import NumbaKernels
from popup.products.torch_kernels import TorchKernels

Structure = TypeVar("Structure")
Kept = TypeVar("Kept")


class Kernels(Protocol[Structure, Kept]):
    """One way to compute the products, of contiguous [units, n] with n > 0; what it holds is its own."""

    name: str

    def structure(self, edges: np.ndarray, shape: tuple[int, int]) -> Structure:
        """What is computed once, of the edges as ascending flat indices into a weight [out, in]."""
        ...

    def keep(self, structure: Structure, values: torch.Tensor, selected: torch.Tensor | None) -> Kept:
        """The values, one an edge, as the products want them: the selected ones, or those that are not 0."""
        ...

    def forward(self, structure: Structure, kept: Kept, rows: torch.Tensor) -> torch.Tensor:
        """[out, n] of the inputs' [in, n]."""
        ...

    def input_gradient(self, structure: Structure, kept: Kept, rows: torch.Tensor) -> torch.Tensor:
        """[in, n] of the outputs' gradient [out, n]."""
        ...

    def edge_gradient(self, structure: Structure, outputs: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """[edges] of the outputs' gradient [out, n] and the inputs' [in, n]."""
        ...


@functools.cache
def best_kernels() -> Kernels[Any, Any]:
    """Numba's kernels where it is installed (`pip install numba`), else torch's own."""
    return TorchKernels() if importlib.util.find_spec("numba") is None else NumbaKernels()


@dataclass(frozen=True, eq=False)
class Products(Generic[Structure, Kept]):
    """The products of a layer with a weight [out, in], in float32 or float64 on the CPU. Nothing here is differentiated."""

    shape: tuple[int, int]
    kernels: Kernels[Structure, Kept]
    structure: Structure

    @classmethod
    def of(cls, edges: np.ndarray, shape: tuple[int, int], kernels: Kernels[Structure, Kept]) -> Products[Structure, Kept]:
        """The products of a layer of that shape whose edges are these flat indices, ascending."""
        return cls(shape, kernels, kernels.structure(edges, shape))

    def keep(self, values: torch.Tensor, selected: torch.Tensor | None = None) -> Kept:
        """The values, one an edge, as `forward` and `input_gradient` take them.

        Those count that are not 0; or by `selected` [edges], of bools or bytes, which costs less than to make the others 0.
        """
        return self.kernels.keep(self.structure, values.detach().contiguous(), selected)

    def forward(self, x: torch.Tensor, kept: Kept) -> torch.Tensor:
        """The output [n, out] of an input [n, in]."""
        rows = _rows(x)
        return (self.kernels.forward(self.structure, kept, rows) if rows.shape[1] else rows.new_empty(self.shape[0], 0)).t()

    def input_gradient(self, gradient: torch.Tensor, kept: Kept) -> torch.Tensor:
        """The gradient of the input [n, in], of that of the output [n, out]."""
        rows = _rows(gradient)
        empty = rows.new_empty(self.shape[1], 0)
        return (self.kernels.input_gradient(self.structure, kept, rows) if rows.shape[1] else empty).t()

    def edge_gradient(self, gradient: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The gradient of the edges [edges], in their order, of that of the output [n, out] and the input [n, in]."""
        return self.kernels.edge_gradient(self.structure, _rows(gradient), _rows(x))


def by_units(activations: torch.Tensor) -> torch.Tensor:
    """The same [n, units], lying unit by unit: made once where several products take them, else each makes its own."""
    return _rows(activations).t()


def _rows(activations: torch.Tensor) -> torch.Tensor:
    """[units, n] of [n, units]: contiguous, which costs nothing where a product gave it."""
    return activations.detach().t().contiguous()
