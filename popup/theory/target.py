"""The target f_T: a chain of layers with ReLU between them, and what of it the proof's error budget needs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from popup.errors import UsageError

ALLOWED = {"Linear", "ReLU", "Flatten", "Identity", "Dropout"}
CHECKED = 64  # random inputs on which a network is compared with the chain that it should be


@dataclass(frozen=True)
class TargetLayer:
    """One layer of the target: weight float64 [out, in], bias float64 [out]."""

    weight: np.ndarray
    bias: np.ndarray

    @property
    def largest(self) -> float:
        """The largest absolute value of its parameters."""
        return float(max(np.abs(self.weight).max(), np.abs(self.bias).max()))


@dataclass(frozen=True)
class Target:
    """f_T on inputs whose every coordinate lies in [low, high]."""

    layers: tuple[TargetLayer, ...]
    low: float
    high: float

    @property
    def widths(self) -> list[int]:
        """n_T,0 (the input), n_T,1 .. n_T,L."""
        return [self.layers[0].weight.shape[1], *(layer.weight.shape[0] for layer in self.layers)]

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return sum(layer.weight.size + layer.bias.size for layer in self.layers)

    @property
    def branches(self) -> list[int]:
        """The signs that an input takes: x = relu(x) - relu(-x), of which one is enough for inputs of one sign."""
        return [sign for sign, there in ((1, self.high > 0), (-1, self.low < 0)) if there]

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """f_T in float64: [n, in] -> [n, out]."""
        for layer in self.layers[:-1]:
            inputs = np.maximum(inputs @ layer.weight.T + layer.bias, 0.0)
        return inputs @ self.layers[-1].weight.T + self.layers[-1].bias


def read_target(net: nn.Module, image: Sequence[int], low: float, high: float) -> Target:
    """The target of a network of linear layers with ReLU between them, for inputs [n, *image], flattened, in [low, high].

    Whatever else the network does shows: it is compared with that chain on random inputs, and refused (UsageError).
    """
    linear = [module for module in net.modules() if isinstance(module, nn.Linear)]
    others = sorted({type(module).__name__ for module in net.modules() if not list(module.children())} - ALLOWED)
    if others or not linear:
        raise _no_chain(f"it has {', '.join(others) or 'no linear layer'}")
    layers = tuple(TargetLayer(_array(module.weight), np.zeros(module.out_features) if module.bias is None
                               else _array(module.bias)) for module in linear)
    for before, after in itertools.pairwise(layers):
        if before.weight.shape[0] != after.weight.shape[1]:
            raise _no_chain(f"a layer of {before.weight.shape[0]} outputs is followed by one of {after.weight.shape[1]} "
                            "inputs")
    target = Target(layers, low, high)
    _compare(net, tuple(image), target)
    return target


def _array(parameter: torch.Tensor) -> np.ndarray:
    array = parameter.detach().double().cpu().numpy()
    if not np.isfinite(array).all():
        raise UsageError("the target has parameters that are not finite: train it again")
    return array


@torch.no_grad()
def _compare(net: nn.Module, image: tuple[int, ...], target: Target) -> None:
    """A UsageError if `net` is not the chain that was read from it."""
    draw = torch.Generator().manual_seed(0)
    inputs = torch.rand(CHECKED, *image, generator=draw) * (target.high - target.low) + target.low
    if inputs[0].numel() != target.widths[0]:
        raise _no_chain(f"its first linear layer has {target.widths[0]} inputs, and an image {list(image)} has "
                        f"{inputs[0].numel()}")
    training = net.training
    found = net.eval()(inputs).double().numpy()
    net.train(training)
    wanted = target(inputs.flatten(1).double().numpy())
    difference = float(np.abs(found - wanted).max()) if found.shape == wanted.shape else float("inf")
    if not difference <= 1e-3 * max(1.0, float(np.abs(wanted).max())):
        raise _no_chain(f"its outputs differ by {difference:.3g} from that chain's")


def _no_chain(why: str) -> UsageError:
    return UsageError(f"the target is no chain of linear layers with ReLU between them: {why}; give one that is")
