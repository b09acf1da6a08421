"""The products by torch's own sparse kernels, for where numba is not installed."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass

import numpy as np
import torch

BUFFER = 1 << 18  # entries of the dense gradient that exist at once
DENSE = 0.2  # the density above which it is faster to compute all entries of the gradient than to sample the edges


@dataclass(frozen=True, eq=False)
class Index:
    """The edges by outputs (CSR) and by inputs (CSC)."""

    shape: tuple[int, int]
    edges: torch.Tensor  # int64 [edges]: flat
    by_output: torch.Tensor  # [out + 1]: the edge with which an output begins
    inputs: torch.Tensor  # [edges]: the edge's input
    by_input: torch.Tensor  # [in + 1]: the place with which an input begins
    outputs: torch.Tensor  # [edges]: the output of the edge in that place
    order: torch.Tensor  # [edges]: which edge is in that place


@dataclass(frozen=True)
class Kept:
    """The weight and its transpose, of the edges that count."""

    weight: torch.Tensor
    transposed: torch.Tensor


@functools.cache
def _said_once() -> None:
    """Have torch say that CSR is in beta, which it does once in a process, where nobody hears it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        begins, numbers = (torch.zeros(size, dtype=torch.int64, device="cpu") for size in (2, 0))
        _csr(begins, numbers, torch.zeros(0, device="cpu"), (1, 1))


def _csr(begins: torch.Tensor, numbers: torch.Tensor, values: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    return torch.sparse_csr_tensor(begins, numbers, values, shape, device=values.device, check_invariants=False)


class TorchKernels:
    """Kernels of torch, which are never differentiated: the backward pass of a CSR product makes the dense matrix."""

    name = "torch"

    def structure(self, edges: np.ndarray, shape: tuple[int, int]) -> Index:
        """The structure that the other functions want."""
        _said_once()
        outputs, inputs = np.divmod(edges, max(1, shape[1]))
        order = np.argsort(inputs, kind="stable")
        kind = torch.int32 if max(*shape, len(edges)) <= 2**31 - 1 else torch.int64
        begins = [np.searchsorted(units, np.arange(length + 1))
                  for units, length in ((outputs, shape[0]), (inputs[order], shape[1]))]
        return Index(shape, torch.from_numpy(edges), *(torch.from_numpy(array).to(kind) for array in (
            begins[0], inputs, begins[1], outputs[order], order)))

    def keep(self, structure: Index, values: torch.Tensor, selected: torch.Tensor | None = None) -> Kept:
        """Both matrices, without the edges that do not count."""
        (outs, ins), which = structure.shape, values if selected is None else selected
        turned, which_turned = (given.index_select(0, structure.order) for given in (values, which))
        return Kept(_compact(structure.by_output, structure.inputs, values, which, (outs, ins)),
                    _compact(structure.by_input, structure.outputs, turned, which_turned, (ins, outs)))

    def forward(self, structure: Index, kept: Kept, rows: torch.Tensor) -> torch.Tensor:
        """The outputs' rows [out, n] of the inputs' rows [in, n]."""
        return (kept.weight @ rows).contiguous()

    def input_gradient(self, structure: Index, kept: Kept, rows: torch.Tensor) -> torch.Tensor:
        """The inputs' rows [in, n] of the gradient, of the outputs' rows [out, n] of it."""
        return (kept.transposed @ rows).contiguous()

    def edge_gradient(self, structure: Index, outputs: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """The gradient of each edge, of the outputs' rows of the gradient and the inputs' rows."""
        if len(structure.edges) > DENSE * structure.shape[0] * structure.shape[1]:
            return _from_blocks(structure, outputs, inputs)
        nothing = outputs.new_zeros(1).expand(len(structure.edges))
        pattern = _csr(structure.by_output, structure.inputs, nothing, structure.shape)
        return torch.sparse.sampled_addmm(pattern, outputs, inputs.t(), beta=0.0).values()


def _from_blocks(structure: Index, outputs: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """The gradient of the edges, taken from the dense one, of which a few rows at a time exist."""
    outs, ins = structure.shape
    result = outputs.new_empty(len(structure.edges))
    step = max(1, BUFFER // max(1, ins))
    buffer = outputs.new_empty(min(step, outs), ins)
    for first in range(0, outs, step):
        last = min(first + step, outs)
        begin, end = int(structure.by_output[first]), int(structure.by_output[last])
        torch.mm(outputs[first:last], inputs.t(), out=buffer[:last - first])
        torch.index_select(buffer.view(-1), 0, structure.edges[begin:end] - first * ins, out=result[begin:end])
    return result


def _compact(begins: torch.Tensor, numbers: torch.Tensor, values: torch.Tensor, which: torch.Tensor,
             shape: tuple[int, int]) -> torch.Tensor:
    """The matrix of the values whose `which` is not 0. (By numpy, which finds them among bools 30 times faster than torch.)"""
    places = np.flatnonzero(which.numpy() != 0)
    before = torch.from_numpy(np.searchsorted(places, begins.numpy())).to(begins.dtype)
    chosen = torch.from_numpy(places)
    return _csr(before, numbers.index_select(0, chosen), values.index_select(0, chosen), shape)
