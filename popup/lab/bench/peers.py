"""Libraries that train sparse weights on the CPU, where they are installed: each does the same network in its own way."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from popup.lab.bench.bench import Build, Subject, network, training_step


@dataclass(frozen=True)
class Peer:
    """A library: the module that is imported, what installs it, and `layer(linear, p)`, its layer of a dense one's shape in
    which a random fraction `p` of the weights is left, and trained."""

    name: str
    module: str
    install: str
    layer: Callable[[nn.Linear, float], nn.Module]

    def missing(self) -> str | None:
        """One line if it cannot be used here, else None."""
        try:
            importlib.import_module(self.module)
        except ImportError as error:
            return f"{self.name} is not measured ({error}): {self.install}"
        return None


def _sparselab(linear: nn.Linear, p: float) -> nn.Module:
    """sparselab draws the edges itself. It holds transposes by the address of the matrix, and would take a freed one's for that
    of a new one in its place."""
    import sparselab
    from sparselab import ops

    ops._clear_transpose_cache()
    with warnings.catch_warnings():  # of torch, that CSR tensors are new
        warnings.simplefilter("ignore", UserWarning)
        return sparselab.SparseLinear(linear.in_features, linear.out_features, linear.bias is not None, sparsity=1 - p)


def _sparseprop(linear: nn.Linear, p: float) -> nn.Module:
    """SparseProp takes the entries of a dense layer that are not 0."""
    from sparseprop.modules import SparseLinear

    with torch.no_grad():
        linear.weight.mul_(torch.rand_like(linear.weight) < p)
    return SparseLinear.from_dense(linear)


PEERS = (
    Peer("sparselab", "sparselab", "pip install sparselab", _sparselab),
    Peer("SparseProp", "sparseprop.modules", "pip install pybind11 setuptools wheel, then pip install --no-build-isolation "
         "sparseprop, which compiles C++", _sparseprop))


def peer_step(peer: Peer, build: Build, inputs: torch.Tensor, labels: torch.Tensor, p: float) -> Subject:
    """A training step in fp32 of the network that `build` makes with every linear layer replaced by the peer's."""
    net, precision = network(build, inputs.device, "fp32")
    for name, linear in [(name, module) for name, module in net.named_modules() if isinstance(module, nn.Linear)]:
        net.set_submodule(name, peer.layer(linear, p))
    return training_step(f"{peer.name}, p = {p:g}", net, list(net.parameters()), precision, inputs, labels)
