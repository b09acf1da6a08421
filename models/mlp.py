"""Multilayer perceptron: linear layers with ReLU between, on flattened images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
from torch import nn

from models.widths import scaled


def mlp(image: Sequence[int], classes: int, widths: Sequence[int] = (256, 256), *, width: float = 1.0) -> nn.Sequential:
    """`widths` hidden layers between the flattened image [channels, height, width] and the classes."""
    sizes = [prod(image), *scaled(widths, width), classes]
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class AppendOne(nn.Module):
    """[n, features] -> [n, features + 1]: the constant 1 as a last feature."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x.new_ones(len(x), 1)], dim=1)


def mlp_constant(image: Sequence[int], classes: int, widths: Sequence[int] = (256, 256), *,
                 width: float = 1.0) -> nn.Sequential:
    """The same without biases, on the flattened image and a constant 1: the first layer's biases are weights like others,
    and are masked as those are; later layers can have a constant from neurons that pass it on."""
    sizes = [prod(image) + 1, *scaled(widths, width), classes]
    layers: list[nn.Module] = [nn.Flatten(), AppendOne()]
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out, bias=False), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
