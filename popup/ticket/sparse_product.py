"""The product of a sparse matrix and dense columns, by torch's own kernels. This is the one place that chooses among them."""

from __future__ import annotations

import functools
import warnings
from math import inf
from typing import Any

import torch
import torch.nn.functional as F
from torch._C._functorch import TransformType, peek_interpreter_stack

from popup.errors import UsageError

FEW = 16        # columns up to which the CSR kernels win in float32; with more, sums over bags of rows take 0.6 of their time
BLOCK = 128     # columns taken at a time, so that the input's rows, which the edges of each output read anew, stay in the cache
TALL = 4096     # rows of the input from which half as many are taken
READ_OFTEN = 8  # times that an input is read on average, from which taking blocks of columns pays for copying them
CSR_COLUMNS = {torch.float32: FEW, torch.float64: inf}  # of float64 the sums over bags take twice the time; others have no CSR


def product(starts: torch.Tensor, columns: torch.Tensor, values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """W x [out, n], contiguous, of W as compressed rows (`starts` [out + 1], `columns` [kept], `values` [kept]) and x [in, n].

    Under autograd the gradient reaches x alone, and no dense W is made for it.
    """
    if torch.compiler.is_compiling():  # what is traced must not depend on how many columns there are
        return _by_bags(starts, columns, values, x)
    transformed = peek_interpreter_stack()
    if transformed is not None and transformed.key() != TransformType.Vmap:
        raise UsageError("sparse layers can be differentiated by autograd, and by no transform of torch.func (grad, jvp, "
                         "jacrev): apply the ticket without sparse=True, which gives dense layers")
    if torch.is_grad_enabled() and x.requires_grad:
        return _Differentiable.apply(starts, columns, values, x)
    return _product(starts, columns, values, x)


class _Differentiable(torch.autograd.Function):
    """The product whose gradient is the product with the transposed matrix: torch's own, of CSR tensors, would be dense, and
    that of embeddings takes several times as long."""

    @staticmethod
    def forward(ctx: Any, starts: torch.Tensor, columns: torch.Tensor, values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(starts, columns, values)
        ctx.inputs = len(x)
        return _product(starts, columns, values, x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[None, None, None, torch.Tensor]:
        starts, columns, values = ctx.saved_tensors
        return None, None, None, product(*_transposed(starts, columns, values, ctx.inputs), gradient)


def _transposed(starts: torch.Tensor, columns: torch.Tensor, values: torch.Tensor,
                inputs: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The rows of the transposed matrix, which has `inputs` of them. On the CPU scipy counts, where a sort of millions of
    edges takes six times as long."""
    if values.device.type == "cpu" and values.dtype in CSR_COLUMNS:
        from scipy.sparse import csr_matrix  # a sixth of a second of import that only a backward pass needs

        matrix = csr_matrix((values.numpy(), columns.numpy(), starts.numpy()), (len(starts) - 1, inputs)).tocsc()
        arrays = torch.from_numpy(matrix.indptr), torch.from_numpy(matrix.indices), torch.from_numpy(matrix.data)
        return arrays[0].to(starts.dtype), arrays[1].to(columns.dtype), arrays[2]
    order = torch.argsort(columns, stable=True)
    rows = torch.arange(len(starts) - 1, device=starts.device, dtype=starts.dtype).repeat_interleave(starts.diff())
    counts = torch.bincount(columns, minlength=inputs)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(starts.dtype), rows[order], values[order]


def _product(starts: torch.Tensor, columns: torch.Tensor, values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    if _has_csr(values) and x.shape[1] <= CSR_COLUMNS[values.dtype]:
        return _by_csr(starts, columns, values, x)
    width = BLOCK if len(x) <= TALL else BLOCK // 2
    if x.shape[1] <= width or len(values) < READ_OFTEN * len(x):
        return _by_bags(starts, columns, values, x)
    return torch.cat([_by_bags(starts, columns, values, part) for part in x.split(width, 1)], 1)


def _by_bags(starts: torch.Tensor, columns: torch.Tensor, values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Each output is a weighted sum over a bag of rows of x, which embeddings have a fast kernel for."""
    return F.embedding_bag(columns, x.contiguous(), starts, mode="sum", per_sample_weights=values, include_last_offset=True)


def _has_csr(values: torch.Tensor) -> bool:
    """Whether torch's CSR kernels can be used: on the CPU they are MKL's."""
    return values.device.type == "cpu" and values.dtype in CSR_COLUMNS and torch.backends.mkl.is_available()


def _by_csr(starts: torch.Tensor, columns: torch.Tensor, values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    _warn_once()
    matrix = torch.sparse_csr_tensor(starts, columns, values, (len(starts) - 1, len(x)), device=values.device,
                                     check_invariants=False)
    if x.shape[1] == 1:  # a third of the time of a matrix of one column
        return x.new_empty(len(starts) - 1, 1).copy_((matrix @ x.reshape(-1))[:, None])  # no view: a bias is added in place
    return matrix @ x.contiguous()


@functools.cache
def _warn_once() -> None:
    """Let torch say, once in a process and to nobody, that its CSR tensors are in beta."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        begins, numbers = (torch.zeros(size, dtype=torch.int32, device="cpu") for size in (2, 0))
        torch.sparse_csr_tensor(begins, numbers, torch.zeros(0, device="cpu"), (1, 1), device="cpu", check_invariants=False)
