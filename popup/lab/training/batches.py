"""Batches from tensors that live on the device: order, crop, flip and cutout are drawn per image and done a batch at a time.

Each epoch has its own streams, so that any epoch can be drawn again without the ones before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np
import torch

from popup.errors import UsageError
from popup.lab.data.moments import mean_and_deviation
from popup.lab.data.streamed import Images, Streamed, channel_sums, in_parts
from popup.lab.training.ranks import Ranks
from popup.source.streams import Stream

TOGETHER = 1 << 18  # pixels prepared at once: enough to make the calls' own cost small, little enough to stay in cache


class Normalise:
    """uint8 images to float with mean 0 and deviation 1 in each channel of the training set; floats stay as they are."""

    def __init__(self, images: Images) -> None:
        self.identity = images.dtype.is_floating_point
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


class Batches:
    """The training split, on its device or streamed to it, dealt into shuffled batches of one size, which every rank can
    cut into equal `parts`."""

    def __init__(self, images: Images, labels: torch.Tensor, batch_size: int, augment: tuple[str, ...],
                 seed: int, ranks: Ranks | None = None, parts: int = 1) -> None:
        self.ranks = ranks or Ranks()
        self.images, self.labels, self.seed, self.augment = images, labels, seed, augment
        self.size = min(batch_size, len(images))
        self.steps = len(images) // self.size
        self.ranks.check_batch(self.size, parts)
        self.normalise = Normalise(images)
        if augment and images.dim() != 4:
            raise UsageError(f"augment is {augment!r} and the data have shape {list(images.shape[1:])}: "
                             "augmentations are for images [channels, height, width]")

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """This rank's part of the batches of one epoch, from step `first` on: inputs float [part, ...], labels [part].

        All ranks' parts together are the batch that one rank would have. Several batches are prepared at a time.
        """
        count, device = self.steps * self.size, self.images.device
        place = torch.device("cpu") if isinstance(self.images, Streamed) else device  # where images are looked up
        order = torch.from_numpy(Stream(self.seed, "order", str(epoch)).permutation(len(self.images))).to(place)
        shifts, flips, centres = self._draw(epoch, count)
        mine = torch.arange(count, device=place).view(self.steps, self.size)[:, self.ranks.part(self.size)]  # [steps, part]
        together = max(1, TOGETHER // (mine.shape[1] * prod(self.images.shape[1:])))
        parts = [mine[step:step + together].flatten() for step in range(first, self.steps, together)]
        for part, images in zip(parts, in_parts(self.images, [order[part] for part in parts]), strict=True):
            if {"crop", "flip"} & set(self.augment):
                images = shift_and_flip(images, shifts[part], flips[part], self._reach())
            inputs = self.normalise(images)
            if "cutout" in self.augment:
                inputs = cut_out(inputs, centres[part], inputs.shape[-1] // 2)
            labels = self.labels[order[part].to(device)]
            yield from zip(inputs.split(mine.shape[1]), labels.split(mine.shape[1]), strict=True)

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
