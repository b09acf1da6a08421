"""VGG-11/16/19 (Simonyan and Zisserman, ICLR 2015) as used for CIFAR: with batch norm, and one linear layer at the end."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from .widths import scaled

BLOCKS = (64, 128, 256, 512, 512)


def vgg(image: Sequence[int], classes: int, widths: Sequence[int], depths: Sequence[int]) -> nn.Sequential:
    """For each of `widths` `depths[i]` 3x3 convolutions with batch norm and ReLU, then a pool; mean and linear layer."""
    if len(widths) > len(depths):
        raise ValueError(f"{len(widths)} widths for {len(depths)} blocks: give one a block")
    channels, layers = image[0], []
    for block, width in enumerate(widths):
        for _ in range(depths[block]):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        layers.insert(-1, nn.MaxPool2d(2))  # before the last ReLU, as in models/conv.py
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def vgg11(image: Sequence[int], classes: int, widths: Sequence[int] = BLOCKS, *, width: float = 1.0) -> nn.Sequential:
    """VGG-11 with batch norm: blocks of 1, 1, 2, 2, 2 convolutions, for images of 32 pixels or more."""
    return vgg(image, classes, scaled(widths, width), (1, 1, 2, 2, 2))


def vgg16(image: Sequence[int], classes: int, widths: Sequence[int] = BLOCKS, *, width: float = 1.0) -> nn.Sequential:
    """VGG-16 with batch norm: blocks of 2, 2, 3, 3, 3 convolutions."""
    return vgg(image, classes, scaled(widths, width), (2, 2, 3, 3, 3))


def vgg19(image: Sequence[int], classes: int, widths: Sequence[int] = BLOCKS, *, width: float = 1.0) -> nn.Sequential:
    """VGG-19 with batch norm: blocks of 2, 2, 4, 4, 4 convolutions."""
    return vgg(image, classes, scaled(widths, width), (2, 2, 4, 4, 4))
