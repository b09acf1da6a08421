"""|f_T - f_P| measured: on data, at random inputs of the domain and random corners of it, and where sign gradients lead.

The promise is about every input of the domain, and the largest gap of a network of ReLUs lies far from data: at corners, in
directions that no random input takes. What is found is a lower bound of the largest gap, and no proof.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import torch

from popup.lab.training.training import EVALUATION_BATCH
from popup.source.streams import Stream

RANDOM_INPUTS = 4096                                  # and as many corners
STARTS = 64                                           # inputs from which sign gradients are followed, about
STEPS = (1, 0.5, 0.25, 0.125, 0.0625, 1, 0.5, 0.25)  # of the domain's side
Off = Callable[[torch.Tensor], torch.Tensor]          # inputs [n, *image] -> |f_T - f_P| [n, outputs]


@dataclass(frozen=True)
class Gap:
    """|f_T - f_P| on so many `inputs`: the largest over inputs and outputs, and the mean."""

    largest: float
    mean: float
    inputs: int = 0


def measure_gaps(off: Off, data: Mapping[str, torch.Tensor], low: float, high: float, seed: int,
                 device: torch.device, whole: bool = False, most: int | None = None) -> dict[str, Gap]:
    """The gaps on `data` (by name, [n, *image]), at `random` inputs of [low, high] and its `corners`, and at the `worst`
    inputs that signs of gradients lead to from those where the gap is largest. `whole`: at whole numbers alone. `most`: of each
    kind the first so many."""
    if whole:
        off = _at_whole(off)
    image = next(iter(data.values())).shape[1:]
    inputs = {**data, "random": random_inputs(image, low, high, seed), "corners": random_corners(image, low, high, seed)}
    gaps, starts = {}, []
    for name, images in ((name, images[:most]) for name, images in inputs.items()):
        found = torch.cat([_measure(off, part.to(device)) for part in images.split(EVALUATION_BATCH)])
        gaps[name] = _gap(found)
        starts.append(_largest(images, found))
    images, outputs = (torch.cat(parts) for parts in zip(*starts, strict=True))
    gaps["worst"] = _gap(_climb(off, images.to(device), outputs.to(device), low, high))
    return gaps


def _at_whole(off: Off) -> Off:
    """The gap at the nearest whole numbers, with gradients as if nothing were rounded."""
    return lambda images: off(images + (images.round() - images).detach())


def random_inputs(image: tuple[int, ...], low: float, high: float, seed: int) -> torch.Tensor:
    """RANDOM_INPUTS images whose every coordinate is uniform in [low, high]."""
    share = torch.from_numpy(Stream(seed, "random inputs").uniform(RANDOM_INPUTS * prod(image))).float()
    return (share * (high - low) + low).view(RANDOM_INPUTS, *image)


def random_corners(image: tuple[int, ...], low: float, high: float, seed: int) -> torch.Tensor:
    """RANDOM_INPUTS images whose every coordinate is `low` or `high`, the first two of them all of one."""
    share = torch.from_numpy(Stream(seed, "random corners").uniform(RANDOM_INPUTS * prod(image))).view(RANDOM_INPUTS, *image)
    share[0], share[1] = 0, 1
    return torch.where(share < 0.5, low, high).float()


@torch.no_grad()
def _measure(off: Off, images: torch.Tensor) -> torch.Tensor:
    return off(images).cpu()


def _gap(found: torch.Tensor) -> Gap:
    return Gap(float(found.max()), float(found.mean()), len(found))


def _largest(images: torch.Tensor, found: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For each output the images with its largest gaps: images [n, *image], outputs [n]."""
    count = max(1, STARTS // found.shape[1])
    places = found.topk(min(count, len(found)), dim=0).indices.T  # [outputs, count]
    outputs = torch.arange(found.shape[1])[:, None].expand_as(places)
    return images[places.reshape(-1)], outputs.reshape(-1)


def _climb(off: Off, images: torch.Tensor, outputs: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """The gaps [n, 1] of the given outputs, uphill from the images by steps along the signs of their gradients."""
    best, largest = images, _measure(off, images).to(images.device).gather(1, outputs[:, None])
    for step in STEPS:
        for part in torch.arange(len(best), device=best.device).split(EVALUATION_BATCH):
            start = best[part].clone().requires_grad_()
            (gradient,) = torch.autograd.grad(off(start).gather(1, outputs[part, None]).sum(), start)
            moved = (best[part] + step * (high - low) * gradient.sign()).clamp(low, high)
            gap = _measure(off, moved).to(images.device).gather(1, outputs[part, None])
            higher = gap > largest[part]
            largest[part] = torch.where(higher, gap, largest[part])
            best[part] = torch.where(higher.view(-1, *[1] * (best.dim() - 1)), moved, best[part])
    return largest
