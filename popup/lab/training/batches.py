"""Batches from tensors that live on the device: order, crop, flip and cutout are drawn per image and done a batch at a time.

Each epoch has its own streams, so that any epoch can be drawn again without the ones before it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from popup.errors import UsageError
from popup.source.streams import Stream

TOGETHER = 1 << 18  # pixels prepared at once: enough to make the calls' own cost small, little enough to stay in cache
COUNTED = 256       # images summed at once


class Normalise:
    """uint8 images to float with mean 0 and deviation 1 in each channel of the training set; floats stay as they are."""

    def __init__(self, images: torch.Tensor) -> None:
        self.identity = images.is_floating_point()
        if not self.identity:
            shape = (-1, *[1] * (images.dim() - 2))
            moments = [mean_and_deviation(*sums) for sums in channel_sums(images)]
            self.mean, self.deviation = (torch.tensor(row, device=images.device).view(shape)
                                         for row in zip(*moments, strict=True))

    def record(self) -> dict[str, list[float]] | None:
        """Mean and deviation of each channel, None for images that stay as they are."""
        if self.identity:
            return None
        return {name: getattr(self, name).flatten().tolist() for name in ("mean", "deviation")}

    @classmethod
    def from_record(cls, record: dict[str, list[float]] | None, images: torch.Tensor) -> Normalise:
        """What gave the record, for images of the shape and on the device of `images`."""
        found = cls.__new__(cls)
        found.identity = record is None
        if record is not None:
            shape = (-1, *[1] * (images.dim() - 2))
            found.mean, found.deviation = (torch.tensor(record[name], device=images.device).view(shape)
                                           for name in ("mean", "deviation"))
        return found

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images if self.identity else (images.float() - self.mean) / self.deviation


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
    """Mean and standard deviation (at least 1e-6) from exact sums."""
    return total / count, max(1e-6, (squares * count - total**2) ** 0.5 / count)


class Batches:
    """The training split on its device, dealt into shuffled batches of one size."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, batch_size: int, augment: tuple[str, ...],
                 seed: int) -> None:
        self.images, self.labels, self.seed, self.augment = images, labels, seed, augment
        self.size = min(batch_size, len(images))
        self.steps = len(images) // self.size
        self.normalise = Normalise(images)
        if augment and images.dim() != 4:
            raise UsageError(f"augment is {augment!r} and the data have shape {list(images.shape[1:])}: "
                             "augmentations are for images [channels, height, width]")

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The batches of one epoch, from step `first` on: inputs float [batch, ...], labels [batch]. Several are prepared at
        a time."""
        count, device = self.steps * self.size, self.images.device
        order = torch.from_numpy(Stream(self.seed, "order", str(epoch)).permutation(len(self.images))).to(device)
        shifts, flips, centres = self._draw(epoch, count)
        together = self.size * max(1, TOGETHER // (self.size * self.images[0].numel()))
        for start in range(first * self.size, count, together):
            part = slice(start, min(start + together, count))
            images = self.images[order[part]]
            if {"crop", "flip"} & set(self.augment):
                images = shift_and_flip(images, shifts[part], flips[part], self._reach())
            inputs = self.normalise(images)
            if "cutout" in self.augment:
                inputs = cut_out(inputs, centres[part], inputs.shape[-1] // 2)
            yield from zip(inputs.split(self.size), self.labels[order[part]].split(self.size), strict=True)

    def _reach(self) -> int:
        return max(1, self.images.shape[-1] // 8) if "crop" in self.augment else 0

    def _draw(self, epoch: int, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """For each image of the epoch its shift [count, 2], 0..2*reach, whether it is flipped [count], and the row and
        column that its cutout is centred on [count, 2]."""
        shifts, centres = (torch.zeros(count, 2, dtype=torch.int64) for _ in range(2))
        flips = torch.zeros(count, dtype=torch.bool)
        if "crop" in self.augment:
            draws = Stream(self.seed, "crop", str(epoch)).integers(2 * self._reach() + 1, 2 * count)
            shifts = torch.from_numpy(draws).view(count, 2)
        if "flip" in self.augment:
            flips = torch.from_numpy(Stream(self.seed, "flip", str(epoch)).bits(count).copy())
        if "cutout" in self.augment:
            stream = Stream(self.seed, "cutout", str(epoch))
            centres = torch.from_numpy(np.stack([stream.integers(side, count) for side in self.images.shape[-2:]], axis=1))
        return tuple(draw.to(self.images.device) for draw in (shifts, flips, centres))


def shift_and_flip(images: torch.Tensor, shifts: torch.Tensor, flips: torch.Tensor, reach: int) -> torch.Tensor:
    """Each image [n, c, h, w] padded with `reach` zeros a side, cut out again at its shift [n, 2], mirrored if flips [n]."""
    n, channels, height, width = images.shape
    padded = torch.nn.functional.pad(images, (reach,) * 4)
    rows = shifts[:, :1] + torch.arange(height, device=images.device)   # [n, h]
    columns = torch.arange(width, device=images.device).expand(n, width)
    columns = shifts[:, 1:] + torch.where(flips[:, None], width - 1 - columns, columns)  # [n, w]
    picture = torch.arange(n, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[None, :, None, None]
    return padded[picture, channel, rows[:, None, :, None], columns[:, None, None, :]]


def cut_out(images: torch.Tensor, centres: torch.Tensor, side: int) -> torch.Tensor:
    """Each image [n, c, h, w] with a square of `side` pixels set to 0 around its centre [n, 2] (DeVries and Taylor, arXiv
    1708.04552: the part of the square that lies outside is lost). Normalised images have mean 0 there."""
    rows, columns = (((torch.arange(size, device=images.device) - centre[:, None] + side // 2) // max(1, side)) == 0
                     for size, centre in zip(images.shape[-2:], centres.T, strict=True))  # [n, h], [n, w]
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)
