"""Exact sums over the pixels of uint8 images, and the mean and deviation that follow from them."""

from __future__ import annotations

import torch

COUNTED = 256  # images summed at once


def image_sums(images: torch.Tensor) -> torch.Tensor:
    """Sums of the pixels and of their squares, of each channel of each image [n, channels, ...]: int64 [n, 2, channels]."""
    pixels = images.flatten(2).long()  # [n, channels, pixels]
    return torch.stack([pixels.sum(2), (pixels * pixels).sum(2)], dim=1)


def channel_sums(images: torch.Tensor) -> list[tuple[int, int, int]]:
    """Of each channel of uint8 images [n, channels, ...]: how many pixels, their sum, the sum of their squares; exact.

    A part at a time: a float copy of all images would be eight times their size.
    """
    axes = [axis for axis in range(images.dim()) if axis != 1]
    sums = torch.zeros(2, images.shape[1], dtype=torch.int64, device=images.device)
    for part in images.split(COUNTED):
        pixels = part.int()
        sums += torch.stack([pixels.sum(axes), (pixels * pixels).sum(axes)])
    count = images.numel() // images.shape[1]
    return [(count, *column) for column in sums.T.tolist()]


def mean_and_deviation(count: int, total: int, squares: int) -> tuple[float, float]:
    """Mean and standard deviation from exact sums; 1 for the deviation of what is constant, which is then only shifted."""
    return total / count, (squares * count - total**2) ** 0.5 / count or 1.0
