"""Plain convolutional networks: a small one for 8x8 digits, and Conv-2/4/6/8 (Frankle and Carbin, ICLR 2019;
Ramanujan et al., CVPR 2020), with ReLU, or with ELU as signed supermasks have them (Koster et al., ICLR 2022).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .activations import Activation
from .widths import scaled

HIDDEN = (256, 256)  # the linear layers of Conv-2 to Conv-8


def blocks(channels_in: int, widths: Sequence[int], activation: Activation = nn.ReLU) -> nn.Sequential:
    """For each width two 3x3 convolutions with an activation, then a 2x2 max pool: before the last activation, which is the same,
    bit for bit, in outputs and gradients, and leaves it a quarter of the work (a tenth of a step of Conv-4)."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Conv2d(channels_in, width, 3, padding=1), activation(),
                   nn.Conv2d(width, width, 3, padding=1), nn.MaxPool2d(2), activation()]
        channels_in = width
    return nn.Sequential(*layers)


def head(features: nn.Sequential, image: Sequence[int], hidden: Sequence[int], classes: int,
         activation: Activation = nn.ReLU) -> nn.Sequential:
    """`features`, flattened, and the linear layers: `hidden` widths with an activation, then the classes."""
    with torch.no_grad():
        size = features(torch.zeros(1, *image)).numel()
    layers: list[nn.Module] = [features, nn.Flatten()]
    for width in hidden:
        layers += [nn.Linear(size, width), activation()]
        size = width
    return nn.Sequential(*layers, nn.Linear(size, classes))


def small_conv(image: Sequence[int], classes: int, widths: Sequence[int] = (32, 64), *, width: float = 1.0) -> nn.Sequential:
    """The network for the embedded 8x8 digits: two blocks of `widths` channels and one linear layer."""
    return head(blocks(image[0], scaled(widths, width)), image, (), classes)


def conv2(image: Sequence[int], classes: int, widths: Sequence[int] = (64,), *, width: float = 1.0) -> nn.Sequential:
    """Conv-2: 64-64-pool, then 256-256-classes. `width` scales the two linear layers too, as published code does."""
    return head(blocks(image[0], scaled(widths, width)), image, scaled(HIDDEN, width), classes)


def conv4(image: Sequence[int], classes: int, widths: Sequence[int] = (64, 128), *, width: float = 1.0) -> nn.Sequential:
    """Conv-4: 64-64-pool-128-128-pool, then 256-256-classes."""
    return conv2(image, classes, widths, width=width)


def conv6(image: Sequence[int], classes: int, widths: Sequence[int] = (64, 128, 256), *,
          width: float = 1.0) -> nn.Sequential:
    """Conv-6: 64-64-pool-128-128-pool-256-256-pool, then 256-256-classes."""
    return conv2(image, classes, widths, width=width)


def conv8(image: Sequence[int], classes: int, widths: Sequence[int] = (64, 128, 256, 512), *,
          width: float = 1.0) -> nn.Sequential:
    """Conv-8: four blocks of 64 to 512 channels, then 256-256-classes."""
    return conv2(image, classes, widths, width=width)


def conv2_elu(image: Sequence[int], classes: int, widths: Sequence[int] = (64,), *, width: float = 1.0) -> nn.Sequential:
    """Conv-2 with ELU in the place of ReLU."""
    return head(blocks(image[0], scaled(widths, width), nn.ELU), image, scaled(HIDDEN, width), classes, nn.ELU)


def conv4_elu(image: Sequence[int], classes: int, widths: Sequence[int] = (64, 128), *, width: float = 1.0) -> nn.Sequential:
    """Conv-4 with ELU."""
    return conv2_elu(image, classes, widths, width=width)


def conv6_elu(image: Sequence[int], classes: int, widths: Sequence[int] = (64, 128, 256), *,
              width: float = 1.0) -> nn.Sequential:
    """Conv-6 with ELU."""
    return conv2_elu(image, classes, widths, width=width)


def conv8_elu(image: Sequence[int], classes: int, widths: Sequence[int] = (64, 128, 256, 512), *,
              width: float = 1.0) -> nn.Sequential:
    """Conv-8 with ELU."""
    return conv2_elu(image, classes, widths, width=width)
