"""The sparse products of a layer whose edges are fixed while their values change: on the edges alone, never dense."""

from popup.products.products import Kernels, Products, best_kernels, by_units
from popup.products.torch_kernels import TorchKernels

__all__ = ["Kernels", "Products", "TorchKernels", "best_kernels", "by_units"]
