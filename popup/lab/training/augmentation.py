"""Augmentation of training images, each by its own draw, many images in one pass.

Some work on pixels as they are stored, where what is shifted in from outside is 0, and some on normalised images, where 0 is
the mean: STEPS says which. Batches normalise between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from math import log

import numpy as np
import torch
import torch.nn.functional as F

from popup.source.streams import Stream

SMALLEST, WIDEST = 0.08, 4 / 3  # of a resized crop: the least part of the area, the most that it is wider or higher


@dataclass(frozen=True)
class Draws:
    """What is done to each image of an epoch: its shift [n, 2], 0..2*reach of each axis, whether it is flipped [n], the box
    that it is resized from [n, 4] (see `resize_boxes`), and the row and column that its cutout is centred on [n, 2]."""

    shifts: torch.Tensor
    flips: torch.Tensor
    boxes: torch.Tensor
    centres: torch.Tensor

    def __getitem__(self, part: torch.Tensor) -> Draws:
        return Draws(*(draws[part] for draws in vars(self).values()))


class Augmentation:
    """The augmentations `names` of images of `sides` (height, width), drawn from streams of their own."""

    def __init__(self, names: Sequence[str], sides: Sequence[int], seed: int) -> None:
        self.names, self.sides, self.seed = set(names), tuple(sides), seed
        self.reach = tuple(max(1, side // 8) if "crop" in self.names else 0 for side in self.sides)

    def draw(self, epoch: int, count: int, device: torch.device) -> Draws:
        """The draws of `count` images."""
        shifts, centres = (torch.zeros(count, 2, dtype=torch.int64) for _ in range(2))
        flips, boxes = torch.zeros(count, dtype=torch.bool), torch.zeros(count, 0)
        if "crop" in self.names:
            highs = np.tile([2 * reach + 1 for reach in self.reach], count)
            shifts = torch.from_numpy(Stream(self.seed, "crop", str(epoch)).integers(highs, 2 * count)).view(count, 2)
        if "flip" in self.names:
            flips = torch.from_numpy(Stream(self.seed, "flip", str(epoch)).bits(count).copy())
        if "resized_crop" in self.names:
            boxes = torch.from_numpy(draw_boxes(Stream(self.seed, "resized crop", str(epoch)).uniform(4 * count)))
        if "cutout" in self.names:
            stream = Stream(self.seed, "cutout", str(epoch))
            centres = torch.from_numpy(np.stack([stream.integers(side, count) for side in self.sides], axis=1))
        return Draws(*(draw.to(device) for draw in (shifts, flips, boxes, centres)))

    def of_pixels(self, images: torch.Tensor, draws: Draws) -> torch.Tensor:
        """`images` [n, c, h, w] after the steps that come before normalisation."""
        return self._do(images, draws, normalised=False)

    def of_normalised(self, images: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Normalised `images` [n, c, h, w] after the steps that come after it."""
        return self._do(images, draws, normalised=True)

    def _do(self, images: torch.Tensor, draws: Draws, normalised: bool) -> torch.Tensor:
        for step in STEPS:
            if step.normalised == normalised and step.names & self.names:
                images = step.do(self, images, draws)
        return images


def shift_and_flip(images: torch.Tensor, shifts: torch.Tensor, flips: torch.Tensor, reach: Sequence[int]) -> torch.Tensor:
    """Each image [n, c, h, w] padded with zeros, `reach` of them above and below, left and right, cut out again at its shift
    [n, 2], mirrored if flips [n]."""
    n, channels, height, width = images.shape
    above, left = reach
    padded = F.pad(images, (left, left, above, above))  # [n, c, h + 2 above, w + 2 left]
    plane = torch.arange(n * channels, device=images.device).view(n, channels, 1) * padded.shape[2]
    rows = plane + (shifts[:, :1] + torch.arange(height, device=images.device))[:, None]  # [n, c, h]
    columns = torch.arange(width, device=images.device).expand(n, width)
    columns = shifts[:, 1:] + torch.where(flips[:, None], width - 1 - columns, columns)  # [n, w]
    shifted = padded.flatten(0, 2).index_select(0, rows.flatten()).view(n, channels * height, -1)
    return shifted.gather(2, columns[:, None].expand(-1, channels * height, -1)).view(images.shape)


def draw_boxes(uniform: np.ndarray) -> np.ndarray:
    """Boxes for `resize_boxes` [n, 4], float32, from `uniform` [4 n] in (0, 1): of SMALLEST to all of the area, one side up to
    WIDEST times as long as the other, anywhere in the image (Szegedy et al., CVPR 2015, arXiv 1409.4842, section 6).

    Areas are uniform, ratios of the sides log-uniform. A side that would be longer than the image's is as long as it.
    """
    area, ratio, row, column = uniform.reshape(4, -1)
    area, stretch = SMALLEST + (1 - SMALLEST) * area, np.exp((ratio - 0.5) * log(WIDEST))  # the root of the ratio
    height, width = np.minimum(1, np.sqrt(area) / stretch), np.minimum(1, np.sqrt(area) * stretch)
    return np.stack([row * (1 - height), column * (1 - width), height, width], axis=1).astype(np.float32)


def resize_boxes(images: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """The box of each image [n, c, h, w], bilinearly resized to its whole size. boxes [n, 4]: row and column of the corner,
    height, width, in parts of the image's height and width."""
    row, column, height, width = boxes.unbind(1)
    zero = torch.zeros_like(row)
    across, down = torch.stack([width, zero, 2 * column + width - 1], 1), torch.stack([zero, height, 2 * row + height - 1], 1)
    grid = F.affine_grid(torch.stack([across, down], 1), list(images.shape), align_corners=False)  # [n, h, w, 2]
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def cut_out(images: torch.Tensor, centres: torch.Tensor, side: int) -> torch.Tensor:
    """Each image [n, c, h, w] with a square of `side` pixels set to 0 around its centre [n, 2] (DeVries and Taylor, arXiv
    1708.04552: the part of the square that lies outside is lost). Normalised images have mean 0 there."""
    rows, columns = (((torch.arange(size, device=images.device) - centre[:, None] + side // 2) // max(1, side)) == 0
                     for size, centre in zip(images.shape[-2:], centres.T, strict=True))  # [n, h], [n, w]
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)


@dataclass(frozen=True)
class Step:
    """What is done in one pass for the augmentations `names`: to `normalised` images, or to pixels before."""

    names: Set[str]
    normalised: bool
    do: Callable[[Augmentation, torch.Tensor, Draws], torch.Tensor]


STEPS = (  # in this order
    Step({"crop", "flip"}, False, lambda own, images, draws: shift_and_flip(images, draws.shifts, draws.flips, own.reach)),
    Step({"resized_crop"}, True, lambda own, images, draws: resize_boxes(images, draws.boxes)),
    Step({"cutout"}, True, lambda own, images, draws: cut_out(images, draws.centres, min(own.sides) // 2)))
