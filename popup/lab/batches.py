"""Batches from tensors that live on the device: order, crop and flip are drawn per image and done a batch at a time.

Each epoch has its own streams, so that any epoch can be drawn again without the ones before it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from popup.errors import UsageError
from popup.source.streams import Stream


TOGETHER = 1 << 18  # pixels prepared at once: enough to make the calls' own cost small, little enough to stay in cache


class Normalise:
    """uint8 images to float with mean 0 and deviation 1 in each channel of the training set; floats stay as they are."""

    def __init__(self, images: torch.Tensor) -> None:
        self.identity = images.is_floating_point()
        if not self.identity:
            pixels = images.transpose(0, 1).flatten(1).double()  # [channels, n * height * width]
            shape = (-1, *[1] * (images.dim() - 2))
            self.mean = pixels.mean(1).float().view(shape)
            self.deviation = pixels.std(1, correction=0).clamp(min=1e-6).float().view(shape)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images if self.identity else (images.float() - self.mean) / self.deviation


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
                             "crop and flip are for images [channels, height, width]")

    def epoch(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The batches of one epoch: inputs float [batch, ...], labels [batch]. Several are prepared at a time."""
        count, device = self.steps * self.size, self.images.device
        order = torch.from_numpy(Stream(self.seed, "order", str(epoch)).permutation(len(self.images))).to(device)
        shifts, flips = self._draw(epoch, count)
        together = self.size * max(1, TOGETHER // (self.size * self.images[0].numel()))
        for start in range(0, count, together):
            part = slice(start, min(start + together, count))
            images = self.images[order[part]]
            if self.augment:
                images = shift_and_flip(images, shifts[part], flips[part], self._reach())
            labels = self.labels[order[part]]
            yield from zip(self.normalise(images).split(self.size), labels.split(self.size), strict=True)

    def _reach(self) -> int:
        return max(1, self.images.shape[-1] // 8) if "crop" in self.augment else 0

    def _draw(self, epoch: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """For each image of the epoch its shift [count, 2], 0..2*reach, and whether it is flipped [count]."""
        shifts, flips = torch.zeros(count, 2, dtype=torch.int64), torch.zeros(count, dtype=torch.bool)
        if "crop" in self.augment:
            draws = Stream(self.seed, "crop", str(epoch)).integers(2 * self._reach() + 1, 2 * count)
            shifts = torch.from_numpy(draws).view(count, 2)
        if "flip" in self.augment:
            flips = torch.from_numpy(Stream(self.seed, "flip", str(epoch)).bits(count).copy())
        return shifts.to(self.images.device), flips.to(self.images.device)


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
