"""The sparse product, beside the dense one in float64: any shape, density, batch and stride; its gradient; no dense matrix."""

import os
import resource
import subprocess
import sys
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from popup.errors import UsageError
from popup.source.layer_source import draw
from popup.source.layers import find_layers
from popup.source.recipe import Recipe
from popup.ticket.assembled import assemble
from popup.ticket.hashes import hash_array
from popup.ticket.layer import TicketLayer
from popup.ticket.sparse_linear import SparseLinear
from popup.ticket.sparse_product import BLOCK, FEW, product

ROOT = Path(__file__).resolve().parents[2]
WIDTH, KEPT = 8192, 0.01
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}
QUIET = """
import torch
from popup.ticket import SparseLinear
layer = SparseLinear(*(torch.tensor(part, dtype=torch.int32) for part in ([0, 1, 2], [2, 0])), torch.ones(2), 3)
for _ in range(2):
    for count in (1, 3, 40):
        print(layer(torch.ones(count, 3)).sum().item(), end=" ")
"""


def layer_of(rows, columns, density, dtype=torch.float64, seed=0):
    """A layer of that shape, and its edges drawn at random."""
    draws = np.random.default_rng(seed)
    places = np.flatnonzero(draws.random(rows * columns) < density)
    return SparseLinear.at(places, torch.from_numpy(draws.standard_normal(len(places))).to(dtype), (rows, columns))


def laid_out(x, order):
    """The same values in another order in memory: [in, n] row by row, column by column, or with gaps."""
    if order == "columns":
        return x.t().contiguous().t()
    return x.repeat_interleave(2, 1)[:, ::2] if order == "gaps" else x


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")  # of torch's own forward mode
def test_transforms_of_torch_func_are_refused_but_for_vmap():
    layer, x = layer_of(6, 5, 0.5), torch.randn(4, 5, dtype=torch.float64)
    for transform in (torch.func.grad, torch.func.jacrev, torch.func.jacfwd):
        with pytest.raises(UsageError, match=r"no transform of torch\.func .*without sparse=True"):
            transform(lambda x: layer(x).sum())(x)
    assert torch.allclose(torch.func.vmap(layer)(x), layer(x))


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([0.0, 0.05, 0.5, 1.0]), st.integers(0, 300),
       st.sampled_from(["rows", "columns", "gaps"]), st.sampled_from([torch.float32, torch.float64]))
@example(30, 20, 1.0, 2 * BLOCK + 3, "rows", torch.float64)
@example(30, 20, 1.0, FEW, "columns", torch.float32)
@example(30, 20, 1.0, 2 * BLOCK + 3, "rows", torch.float32)
@example(1, 1, 0.0, 0, "rows", torch.float32)
def test_it_is_the_dense_product(rows, columns, density, count, order, dtype):
    layer = layer_of(rows, columns, density, dtype)
    x = torch.randn(columns, count, dtype=dtype)
    found = product(layer.crow, layer.col, layer.values, laid_out(x, order))
    wanted = layer.weight.double() @ x.double()
    assert found.shape == (rows, count) and found.dtype is dtype and found.is_contiguous()
    assert torch.allclose(found.double(), wanted, rtol=0, atol=TOLERANCE[dtype] * (1 + 40))


@pytest.mark.parametrize("count", [1, FEW, BLOCK, BLOCK + 5])
def test_its_gradient_is_the_dense_ones(count):
    layer = layer_of(30, 20, 0.6)
    x, gradient = torch.randn(20, count, dtype=torch.float64, requires_grad=True), torch.randn(30, count, dtype=torch.float64)
    (found,) = torch.autograd.grad(product(layer.crow, layer.col, layer.values, x), x, gradient)
    assert torch.allclose(found, layer.weight.t() @ gradient, rtol=0, atol=1e-12)


def test_it_can_be_differentiated_twice():
    layer = layer_of(5, 4, 0.5)
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: product(layer.crow, layer.col, layer.values, x).square(), x)


@pytest.mark.parametrize("threads", [1, 2])
def test_two_threads_give_the_same_bits(threads):
    layer, x = layer_of(300, 200, 0.3, torch.float32), torch.randn(200, 70, generator=torch.Generator().manual_seed(1))
    one = product(layer.crow, layer.col, layer.values, x)
    torch.set_num_threads(threads)
    try:
        assert torch.equal(product(layer.crow, layer.col, layer.values, x), one)
    finally:
        torch.set_num_threads(1)


def test_no_warning_of_torchs_reaches_anybody():
    command = [sys.executable, "-W", "error", "-c", QUIET]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2.0", "6.0", "80.0"] * 2 and not done.stderr


def test_a_wide_layer_is_never_dense():
    """Not while it is built of a ticket, in a network without memory, nor forward, nor in the gradient: in a process of its own
    the peak memory of all that stays far below the dense weight's."""
    own = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, __file__], cwd=ROOT, env=own, capture_output=True, text=True, check=True)
    assert int(done.stdout) < WIDTH * WIDTH * 4 / 2


def grown():
    """Bytes that the peak of this process has grown by since its ticket was there."""
    with torch.device("meta"):
        net = torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH))
    layers = find_layers(net)
    recipe = Recipe(er_p=2 * KEPT, k=1.0, weights="uniform", scale="unit", gain=1 / sqrt(3), seed=0)
    (source,) = draw(recipe, layers, [2 * KEPT])
    half = np.arange(len(source.edges)) % 2 == 0
    layer = TicketLayer(source.spec, source.p_l, half, hash_array(source.edges), hash_array(source.values))
    ticket = assemble(recipe, [layer], [np.flatnonzero(~half)], {})
    ticket.constants["0.bias"] = (0.0, (WIDTH,))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ticket.apply(net, sparse=True)
    for count in (1, 8, 32):
        x = torch.randn(count, WIDTH, requires_grad=True)
        torch.autograd.grad(net(x).sum(), x)
    assert len(net[0].values) == ticket.layers[0].kept > WIDTH * WIDTH * KEPT / 2
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


if __name__ == "__main__":
    print(grown())
