"""Where sparse products win: the time of a layer's three products over the dense ones', taken alternately in one process.

    python tests/products/crossover.py 512x512 784x2048 64x64x3x3/32 --batch 128 --density 0.2 0.05

A layer is out x in, or out x in x height x width of the taps / height of the images. Prints the median of the ratios.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from popup.lab.machine import keep_freed_memory
from popup.products import Products, TorchKernels, best_kernels
from popup.products.convolution import ConvProducts, Filter

Work = Callable[[], object]


def drawn(shape: tuple[int, ...], density: float) -> tuple[np.ndarray, torch.Tensor]:
    """Edges and their values, of which half are not selected."""
    edges = np.flatnonzero(np.random.default_rng(0).random(int(np.prod(shape))) < density)
    return edges, torch.randn(len(edges)) * (torch.rand(len(edges)) < 0.5)


def linear(shape: tuple[int, int], batch: int, density: float) -> dict[str, Work]:
    """The three products of a linear layer, densely and by each of the kernels."""
    weight, x, gradient = torch.randn(shape), torch.randn(batch, shape[1]), torch.randn(batch, shape[0])
    edges, values = drawn(shape, density)

    def sparse(products: Products) -> object:
        kept = products.keep(values)
        return products.forward(x, kept), products.input_gradient(gradient, kept), products.edge_gradient(gradient, x)

    made = {kernels.name: Products.of(edges, shape, kernels) for kernels in (best_kernels(), TorchKernels())}
    return {"dense": lambda: (x @ weight.t(), gradient @ weight, gradient.t() @ x),
            **{name: lambda products=products: sparse(products) for name, products in made.items()}}


def convolution(shape: tuple[int, int, int, int], size: int, batch: int, density: float, bfloat16: bool) -> dict[str, Work]:
    """The same of a convolution that keeps the images' size: densely, by `bfloat16` in both precisions, and sparsely."""
    x, weight = (torch.randn(form).to(memory_format=torch.channels_last) for form in ((batch, shape[1], size, size), shape))
    padding = [shape[2] // 2, shape[3] // 2]
    gradient = torch.randn_like(functional.conv2d(x, weight, padding=padding))
    edges, values = drawn(shape, density)
    products = ConvProducts.of(edges, shape, Filter(shape[2:], padding=tuple(padding)))

    def dense(x: torch.Tensor, weight: torch.Tensor, gradient: torch.Tensor) -> object:
        return functional.conv2d(x, weight, padding=padding), torch.ops.aten.convolution_backward(
            gradient, x, weight, None, [1, 1], padding, [1, 1], False, [0, 0], 1, [True, True, False])

    def sparse() -> object:
        kept = products.keep(values)
        return products.forward(x, kept), products.gradients(gradient, x, kept)

    works = {"dense": lambda: dense(x, weight, gradient), "numba": sparse}
    if bfloat16:
        halves = [tensor.bfloat16() for tensor in (x, weight, gradient)]
        works["dense bfloat16"] = lambda: dense(*halves)
    return works


def ratios(works: dict[str, Work], repeats: int) -> dict[str, float]:
    """The median over the repeats of each work's time over the dense one's."""
    times = {name: [] for name in works}
    for _ in range(repeats + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - start)
    return {name: float(np.median(np.divide(times[name][1:], times["dense"][1:]))) for name in works if name != "dense"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layers", nargs="+")
    parser.add_argument("--batch", type=int, nargs="+", default=[128])
    parser.add_argument("--density", type=float, nargs="+", default=[0.2, 0.05, 0.01])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--bfloat16", action="store_true", help="time dense convolutions in bfloat16 too")
    chosen = parser.parse_args()
    keep_freed_memory()  # as a run does
    torch.set_num_threads(chosen.threads)
    for layer in chosen.layers:
        form, _, size = layer.partition("/")
        shape = tuple(map(int, form.split("x")))
        for batch in chosen.batch:
            for density in chosen.density:
                works = (convolution(shape, int(size), batch, density, chosen.bfloat16) if size
                         else linear(shape, batch, density))
                found = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios(works, chosen.repeats).items())
                print(f"{layer} batch {batch} density {density}: {found}", flush=True)


if __name__ == "__main__":
    main()
