"""Wide ResNet-28-w (Zagoruyko and Komodakis, BMVC 2016): pre-activation blocks, three stages of four, w times as wide."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .resnet import convolution
from .widths import scaled

STEM = 16  # channels of the first convolution, the same for every w


class WideBlock(nn.Module):
    """Norm, ReLU and a 3x3 convolution, twice; where the shape changes the shortcut is a 1x1 convolution of the ReLU."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels_in)
        self.conv1 = convolution(channels_in, channels, 3, stride)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv2 = convolution(channels, channels, 3)
        same = stride == 1 and channels_in == channels
        self.shortcut = None if same else convolution(channels_in, channels, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [n, in, h, w] -> [n, channels, h / stride, w / stride]
        active = torch.relu(self.norm1(x))
        y = self.conv2(torch.relu(self.norm2(self.conv1(active))))
        return y + (x if self.shortcut is None else self.shortcut(active))


def wide_resnet28(image: Sequence[int], classes: int, widths: Sequence[int] = (16, 32, 64), *,
                  width: float = 1.0) -> nn.Sequential:
    """WRN-28-w with w = `width`: stages of 16w, 32w and 64w channels (36.5M parameters at w = 10)."""
    channels = STEM
    layers: list[nn.Module] = [convolution(image[0], channels, 3)]
    for stage, wide in enumerate(scaled(widths, width)):
        for place in range(4):
            layers.append(WideBlock(channels, wide, 2 if stage and not place else 1))
            channels = wide
    return nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(channels, classes))
