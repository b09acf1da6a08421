"""Multilayer perceptron: linear layers with ReLU between, on flattened images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import nn

from .chain import chain
from .widths import scaled


def mlp(image: Sequence[int], classes: int, widths: Sequence[int] = (256, 256), *, width: float = 1.0) -> nn.Sequential:
    """`widths` hidden layers between the flattened image [channels, height, width] and the classes."""
    sizes = [prod(image), *scaled(widths, width), classes]
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def mlp_constant(image: Sequence[int], classes: int, widths: Sequence[int] = (256, 256), *,
                 width: float = 1.0) -> nn.Sequential:
    """The same without biases, on the flattened image and a constant 1: the first layer's biases are weights like others,
    and are masked as those are; later layers can have a constant from neurons that pass it on."""
    words = ["flatten", "one", "linear", *["relu", "linear"] * len(widths)]
    return chain("-".join(words), image, classes, widths, width=width)
