"""Multilayer perceptron: linear layers with ReLU between, on flattened images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import nn

from models.widths import scaled


def mlp(image: Sequence[int], classes: int, widths: Sequence[int] = (256, 256), *, width: float = 1.0) -> nn.Sequential:
    """`widths` hidden layers between the flattened image [channels, height, width] and the classes."""
    sizes = [prod(image), *scaled(widths, width), classes]
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
