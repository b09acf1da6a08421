"""Batches from tensors that live on the device: order and augmentation are drawn per image and done a batch at a time.

Each epoch has its own streams, so that any epoch can be drawn again without the ones before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import torch

from popup.errors import UsageError
from popup.lab.data.moments import mean_and_deviation
from popup.lab.data.streamed import Images, Streamed, channel_sums, in_parts
from popup.lab.training.augmentation import Augmentation
from popup.lab.training.ranks import Ranks
from popup.source.streams import Stream

TOGETHER = 1 << 18  # pixels prepared at once: enough to make the calls' own cost small, little enough to stay in cache


class Normalise:
    """uint8 images to float with mean 0 and deviation 1 in each channel of the training set; others stay as they are."""

    def __init__(self, images: Images) -> None:
        self.identity = images.dtype is not torch.uint8
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
    def from_record(cls, record: dict[str, list[float]] | None, images: Images) -> Normalise:
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
        self.images, self.labels, self.seed = images, labels, seed
        self.size = min(batch_size, len(images))
        self.steps = len(images) // self.size
        self.ranks.check_batch(self.size, parts)
        self.normalise = Normalise(images)
        if augment and images.dim() != 4:
            raise UsageError(f"augment is {augment!r} and the data have shape {list(images.shape[1:])}: "
                             "augmentations are for images [channels, height, width]")
        self.augmentation = Augmentation(augment, images.shape[-2:], seed)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """This rank's part of the batches of one epoch, from step `first` on: inputs float [part, ...], labels [part]; of texts
        both int64 [part, tokens].

        All ranks' parts together are the batch that one rank would have. Several batches are prepared at a time.
        """
        count, device = self.steps * self.size, self.images.device
        place = torch.device("cpu") if isinstance(self.images, Streamed) else device  # where images are looked up
        order = torch.from_numpy(Stream(self.seed, "order", str(epoch)).permutation(len(self.images))).to(place)
        draws = self.augmentation.draw(epoch, count, device)
        mine = torch.arange(count, device=place).view(self.steps, self.size)[:, self.ranks.part(self.size)]  # [steps, part]
        together = max(1, TOGETHER // (mine.shape[1] * prod(self.images.shape[1:])))
        parts = [mine[step:step + together].flatten() for step in range(first, self.steps, together)]
        for part, images in zip(parts, in_parts(self.images, [order[part] for part in parts]), strict=True):
            drawn = draws[part.to(device)]
            inputs = self.normalise(self.augmentation.of_pixels(images, drawn))
            inputs = self.augmentation.of_normalised(inputs, drawn)
            labels = self.labels[order[part].to(device)]
            yield from zip(inputs.split(mine.shape[1]), labels.split(mine.shape[1]), strict=True)
