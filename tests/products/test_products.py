"""The three products against a dense float64 reference, for all shapes, densities, batches and strides, by both kernels."""

import concurrent.futures
import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from popup.products import Products, TorchKernels, best_kernels, by_units
from popup.products.structure import MOST, Structure

ALL_KERNELS = [pytest.param(kernels, id=kernels.name) for kernels in (best_kernels(), TorchKernels())]
BOUND = {torch.float32: 1e-5, torch.float64: 1e-12}


def made(shape, density, batch, dtype, seed, kernels):
    """Products, values of which half are 0, an input and a gradient of the output."""
    draw = np.random.default_rng(seed)
    edges = np.flatnonzero(draw.random(shape[0] * shape[1]) < density)
    values = draw.standard_normal(len(edges)) * (draw.random(len(edges)) < 0.5)
    tensors = [torch.from_numpy(array).to(dtype) for array in (
        values, draw.standard_normal((batch, shape[1])), draw.standard_normal((batch, shape[0])))]
    return edges, Products.of(edges, shape, kernels), *tensors


def three(products, values, x, gradient):
    """The output and both gradients."""
    kept = products.keep(values)
    return products.forward(x, kept), products.input_gradient(gradient, kept), products.edge_gradient(gradient, x)


def reference(shape, edges, values, x, gradient):
    """The same, densely and in float64, and the same of absolute values: what a rounding error is relative to."""
    weight = torch.zeros(shape[0] * shape[1], dtype=torch.float64)
    weight[edges] = values.double()
    weight, x, gradient = weight.view(shape), x.double(), gradient.double()
    for w, a, b in ((weight, x, gradient), (weight.abs(), x.abs(), gradient.abs())):
        yield a @ w.t(), b @ w, (b.t() @ a).reshape(-1)[edges]


def assert_right(shape, edges, values, x, gradient, found):
    exact, sizes = reference(shape, edges, values, x, gradient)
    for ours, right, size in zip(found, exact, sizes, strict=True):
        assert ours.dtype == x.dtype and ours.shape == right.shape
        assert ((ours.double() - right).abs() <= BOUND[x.dtype] * size).all()


@pytest.mark.parametrize("kernels", ALL_KERNELS)
@given(shape=st.tuples(st.integers(1, 300), st.integers(1, 300)), density=st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]),
       batch=st.integers(0, 300), dtype=st.sampled_from([torch.float32, torch.float64]), seed=st.integers(0, 99))
def test_products_are_those_of_the_dense_weight(kernels, shape, density, batch, dtype, seed):
    edges, products, values, x, gradient = made(shape, density, batch, dtype, seed, kernels)
    found = three(products, values, x, gradient)
    assert_right(shape, edges, values, x, gradient, found)
    assert found[0].t().is_contiguous() and found[1].t().is_contiguous()


@pytest.mark.parametrize("kernels", ALL_KERNELS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (0, 5), (5, 0)])
@pytest.mark.parametrize("batch", [1, 16, 128, 129, 256, 257])
def test_narrow_layers(kernels, shape, batch):
    edges, products, values, x, gradient = made(shape, 0.5, batch, torch.float32, 3, kernels)
    assert_right(shape, edges, values, x, gradient, three(products, values, x, gradient))


@pytest.mark.parametrize("kernels", ALL_KERNELS)
@pytest.mark.parametrize("change", [lambda x: x.t().contiguous().t(), lambda x: torch.stack([x, x], 2)[:, :, 0],
                                    lambda x: torch.cat([x, x])[:len(x)], lambda x: x[:1].expand(x.shape),
                                    lambda x: x.detach().requires_grad_()])
def test_inputs_of_any_strides(kernels, change):
    edges, products, values, x, gradient = made((60, 90), 0.3, 40, torch.float64, 0, kernels)
    x, gradient = change(x), change(gradient)
    found = three(products, torch.stack([values, values], 1)[:, 0], x, gradient)
    assert_right((60, 90), edges, values, x.detach(), gradient.detach(), found)
    assert not any(tensor.requires_grad for tensor in found)


def test_a_chain_copies_only_what_enters_it():
    _, products, values, x, _ = made((60, 60), 0.3, 40, torch.float32, 0, best_kernels())
    x = by_units(x)
    assert by_units(x).data_ptr() == x.data_ptr()
    y = products.forward(x, products.keep(values)).relu()
    assert by_units(y).data_ptr() == y.data_ptr()


@pytest.mark.parametrize("kernels", ALL_KERNELS)
def test_a_line_longer_than_16_bits(kernels):
    shape = (3, 200_000)
    edges, products, values, x, gradient = made(shape, 0.01, 5, torch.float32, 0, kernels)
    assert_right(shape, edges, values, x, gradient, three(products, values, x, gradient))
    edges, products, values, x, gradient = made(shape[::-1], 0.01, 5, torch.float32, 0, kernels)
    assert_right(shape[::-1], edges, values, x, gradient, three(products, values, x, gradient))


@pytest.mark.parametrize("kernels", ALL_KERNELS)
def test_what_is_not_selected_is_not_looked_at(kernels):
    """A unit that only edges of value 0 lead away from may be infinite: its products would be no numbers."""
    edges, products, values, x, gradient = made((50, 70), 0.3, 20, torch.float32, 0, kernels)
    values[torch.from_numpy(edges % 70 == 11)] = 0
    x[:, 11] = torch.inf
    assert products.forward(x, products.keep(values)).isfinite().all()
    values[torch.from_numpy(edges // 70 == 7)] = 0
    gradient[:, 7] = torch.inf
    assert products.input_gradient(gradient, products.keep(values)).isfinite().all()


@pytest.mark.parametrize("kernels", ALL_KERNELS)
@pytest.mark.parametrize("kind", [torch.bool, torch.uint8])
@pytest.mark.parametrize("step", [1, 2])
def test_selected_values_are_kept_whatever_the_others_are(kernels, kind, step):
    """As if the others were 0; and they may even be no numbers."""
    _, products, values, x, gradient = made((90, 130), 0.4, 20, torch.float32, 0, kernels)
    right = three(products, values, x, gradient)
    selected = (values != 0).to(kind).repeat_interleave(step)[::step]
    kept = products.keep(torch.where(values != 0, values, torch.nan), selected)
    assert torch.equal(products.forward(x, kept), right[0])
    assert torch.equal(products.input_gradient(gradient, kept), right[1])


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_inputs_that_16_bits_do_not_tell_apart_are_no_block():
    right = torch.arange(0, 3 * MOST, 5).numpy()
    assert Structure.of(right, (3, MOST), together=MOST).size == MOST
    with pytest.raises(ValueError, match="65,537 inputs stay in one block"):
        Structure.of(right, (2, MOST + 1), together=MOST + 1)


@pytest.mark.parametrize("kernels", ALL_KERNELS)
@pytest.mark.parametrize("dtype", BOUND)
def test_results_do_not_depend_on_the_number_of_threads(kernels, dtype, threads):
    _, products, values, x, gradient = made((900, 1100), 0.3, 150, dtype, 0, kernels)
    threads(1)
    alone = three(products, values, x, gradient)
    for count in (2, 3):
        threads(count)
        assert all(map(torch.equal, alone, three(products, values, x, gradient)))


@pytest.mark.parametrize("length", [16, 16 * 9, 16 * 9 + 1, 16 * 9 + 15, 16 * 10 + 5, 16 * 33 + 2, 40])
@pytest.mark.parametrize("dtype", BOUND)
def test_no_two_threads_write_to_the_same_numbers(length, dtype, monkeypatch):
    """Long rows in parts, of which the last may be less than a vector: each number is written by one piece of the work alone."""
    numba_kernels = pytest.importorskip("popup.products.numba_kernels")
    pytest.importorskip("numba")
    monkeypatch.setattr(numba_kernels, "LONG", 32)
    monkeypatch.setattr(numba_kernels, "PART", 16)
    edges = (torch.rand(20 * 300) < 0.4).nonzero()[:, 0].numpy()
    structure = Structure.of(edges, (20, 300))
    kept = numba_kernels.NumbaKernels().keep(structure, torch.ones(len(edges), dtype=dtype))
    source, result = torch.ones(300, length, dtype=dtype), torch.empty(20, length, dtype=dtype)
    written = list[torch.Tensor]()

    def one_by_one(work, units, threads):
        for unit in range(units):
            result.fill_(torch.nan)
            work(unit, unit + 1)
            written.append(~result.isnan())

    monkeypatch.setattr(numba_kernels, "share", one_by_one)
    numba_kernels.gather(structure, kept, source, length, result)
    assert structure.blocks > 1 and len(written) > 1 and torch.stack(written).sum(0).eq(1).all()


@pytest.mark.parametrize("kernels", ALL_KERNELS)
def test_two_callers_at_once(kernels, threads):
    _, products, values, x, gradient = made((900, 1100), 0.3, 64, torch.float32, 0, kernels)
    threads(2)
    right = three(products, values, x, gradient)
    with concurrent.futures.ThreadPoolExecutor(2) as callers:
        found = [callers.submit(three, products, values, x, gradient) for _ in range(8)]
        assert all(all(map(torch.equal, right, one.result())) for one in found)


def _in_a_child(products, values, x, gradient, right):
    assert all(map(torch.equal, right, three(products, values, x, gradient)))
    os._exit(0)


def test_after_a_fork_the_threads_are_its_own(monkeypatch):
    monkeypatch.setattr("popup.products.threads.torch.get_num_threads", lambda: 2)  # torch's own do not outlive a fork
    _, products, values, x, gradient = made((900, 1100), 0.3, 64, torch.float32, 0, best_kernels())
    right = three(products, values, x, gradient)
    child = multiprocessing.get_context("fork").Process(target=_in_a_child, args=(products, values, x, gradient, right))
    child.start()
    child.join(60)
    assert child.exitcode == 0


PEAK = """
import resource, sys
import numpy as np, torch
from popup.products import Products, TorchKernels, best_kernels
kernels = TorchKernels() if sys.argv[1] == "torch" else best_kernels()
width, draw = 8192, np.random.default_rng(0)
def three(width):
    edges = np.unique(draw.integers(0, width * width, width * width // 100))
    products = Products.of(edges, (width, width), kernels)
    x, values = torch.randn(32, width), torch.randn(len(edges))
    kept = products.keep(values)
    products.edge_gradient(products.forward(x, kept), products.input_gradient(x, kept))
three(64)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
three(width)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.parametrize("kernels", ALL_KERNELS)
def test_no_dense_matrix_is_made(kernels):
    """8192 wide at 1%: a dense weight would be 256 MiB, an index of 64 bits an edge is 5."""
    found = subprocess.run([sys.executable, "-c", PEAK, kernels.name], capture_output=True, text=True, check=True)
    assert float(found.stdout) < 100
