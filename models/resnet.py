"""Residual networks (He et al., CVPR 2016) with the CIFAR stem: one 3x3 convolution, no pooling before the stages.

ResNet-18/34/50 have the stages of the ImageNet networks and 1x1 convolutions where a shortcut changes shape (option B of
the paper), ResNet-20/32/44/56/110 are the paper's own for CIFAR-10: three stages, shortcuts without parameters (option A),
which is what its parameter counts (0.27M to 1.7M) and its results are for. ResNet-20 has ReLU, or ELU as signed supermasks have
it (Koster et al., ICLR 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .activations import Activation
from .widths import scaled


def convolution(channels_in: int, channels: int, size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the sides, but for the stride."""
    return nn.Conv2d(channels_in, channels, size, stride, padding=size // 2, bias=False)


Shortcut = Callable[[int, int, int], nn.Module]  # (channels before, channels after, stride)


def projection(channels_in: int, channels: int, stride: int) -> nn.Module:
    """Option B: a 1x1 convolution where the shape changes, else the identity."""
    if stride == 1 and channels_in == channels:
        return nn.Sequential()
    return nn.Sequential(convolution(channels_in, channels, 1, stride), nn.BatchNorm2d(channels))


class Padding(nn.Module):
    """Option A: every `stride`-th pixel, and channels of zeros on both sides for those that are missing."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        if channels < channels_in:
            raise ValueError(f"a shortcut by zero padding cannot go from {channels_in} to {channels} channels: "
                             "give widths that do not shrink")
        missing = channels - channels_in
        self.stride, self.pad = stride, (0, 0, 0, 0, missing // 2, missing - missing // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [n, in, h, w] -> [n, channels, h / stride, w / stride]
        return F.pad(x[:, :, ::self.stride, ::self.stride], self.pad)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside the shortcut."""

    expansion = 1

    def __init__(self, channels_in: int, channels: int, stride: int, shortcut: Shortcut = projection,
                 activation: Activation = nn.ReLU) -> None:
        super().__init__()
        self.conv1 = convolution(channels_in, channels, 3, stride)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = convolution(channels, channels, 3)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut, self.activation = shortcut(channels_in, channels, stride), activation()

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [n, in, h, w] -> [n, channels, h / stride, w / stride]
        y = self.activation(self.norm1(self.conv1(x)))
        return self.activation(self.norm2(self.conv2(y)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside the shortcut; the last has four times the channels."""

    expansion = 4

    def __init__(self, channels_in: int, channels: int, stride: int, shortcut: Shortcut = projection,
                 activation: Activation = nn.ReLU) -> None:
        super().__init__()
        self.conv1 = convolution(channels_in, channels, 1)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = convolution(channels, channels, 3, stride)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv3 = convolution(channels, 4 * channels, 1)
        self.norm3 = nn.BatchNorm2d(4 * channels)
        self.shortcut, self.activation = shortcut(channels_in, 4 * channels, stride), activation()

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [n, in, h, w] -> [n, 4 channels, h / stride, w / stride]
        y = self.activation(self.norm1(self.conv1(x)))
        y = self.activation(self.norm2(self.conv2(y)))
        return self.activation(self.norm3(self.conv3(y)) + self.shortcut(x))


def residual(image: Sequence[int], classes: int, widths: Sequence[int], depths: Sequence[int],
             block: type[BasicBlock | Bottleneck] = BasicBlock, shortcut: Shortcut = projection,
             activation: Activation = nn.ReLU) -> nn.Sequential:
    """The stem, a stage of `depths[i]` blocks for each of `widths` (the first at full resolution), mean, linear layer."""
    if len(widths) > len(depths):
        raise ValueError(f"{len(widths)} widths for {len(depths)} stages: give one a stage")
    channels = widths[0]
    layers: list[nn.Module] = [convolution(image[0], channels, 3), nn.BatchNorm2d(channels), activation()]
    for stage, width in enumerate(widths):
        for place in range(depths[stage]):
            layers.append(block(channels, width, 2 if stage and not place else 1, shortcut, activation))
            channels = block.expansion * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


STAGES = (64, 128, 256, 512)  # channels of the ImageNet networks' stages
SMALL = (16, 32, 64)          # and of the paper's CIFAR networks


def resnet18(image: Sequence[int], classes: int, widths: Sequence[int] = STAGES, *, width: float = 1.0) -> nn.Sequential:
    """CIFAR ResNet-18: four stages of two blocks. With fewer `widths`, as many stages."""
    return residual(image, classes, scaled(widths, width), (2, 2, 2, 2))


def resnet34(image: Sequence[int], classes: int, widths: Sequence[int] = STAGES, *, width: float = 1.0) -> nn.Sequential:
    """CIFAR ResNet-34: four stages of 3, 4, 6 and 3 blocks."""
    return residual(image, classes, scaled(widths, width), (3, 4, 6, 3))


def resnet50(image: Sequence[int], classes: int, widths: Sequence[int] = STAGES, *, width: float = 1.0) -> nn.Sequential:
    """CIFAR ResNet-50: four stages of 3, 4, 6 and 3 bottlenecks."""
    return residual(image, classes, scaled(widths, width), (3, 4, 6, 3), Bottleneck)


def resnet20(image: Sequence[int], classes: int, widths: Sequence[int] = SMALL, *, width: float = 1.0) -> nn.Sequential:
    """ResNet-20: three stages of 3 blocks (6n + 2 layers with n = 3)."""
    return residual(image, classes, scaled(widths, width), (3, 3, 3), shortcut=Padding)


def resnet20_elu(image: Sequence[int], classes: int, widths: Sequence[int] = SMALL, *, width: float = 1.0) -> nn.Sequential:
    """ResNet-20 with ELU in the place of ReLU."""
    return residual(image, classes, scaled(widths, width), (3, 3, 3), shortcut=Padding, activation=nn.ELU)


def resnet32(image: Sequence[int], classes: int, widths: Sequence[int] = SMALL, *, width: float = 1.0) -> nn.Sequential:
    """ResNet-32: three stages of 5 blocks."""
    return residual(image, classes, scaled(widths, width), (5, 5, 5), shortcut=Padding)


def resnet44(image: Sequence[int], classes: int, widths: Sequence[int] = SMALL, *, width: float = 1.0) -> nn.Sequential:
    """ResNet-44: three stages of 7 blocks."""
    return residual(image, classes, scaled(widths, width), (7, 7, 7), shortcut=Padding)


def resnet56(image: Sequence[int], classes: int, widths: Sequence[int] = SMALL, *, width: float = 1.0) -> nn.Sequential:
    """ResNet-56: three stages of 9 blocks."""
    return residual(image, classes, scaled(widths, width), (9, 9, 9), shortcut=Padding)


def resnet110(image: Sequence[int], classes: int, widths: Sequence[int] = SMALL, *, width: float = 1.0) -> nn.Sequential:
    """ResNet-110: three stages of 18 blocks."""
    return residual(image, classes, scaled(widths, width), (18, 18, 18), shortcut=Padding)
