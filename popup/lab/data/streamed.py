"""Images that stay in their files: torch's DataLoader decodes them ahead of the batch that needs them.

For data sets that fit neither memory nor a disk. What comes out is what the decoded data set holds, pixel by pixel, in the
order that is asked for, whatever the number of processes that decode; so a ticket does not depend on it either.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from popup.errors import UsageError
from popup.lab.data.decode import decode_as
from popup.lab.data.moments import channel_sums as tensor_sums

CPU = torch.device("cpu")
AHEAD = 2  # batches that each process has ready


@dataclass(frozen=True)
class Streamed:
    """uint8 images [n, 3, height, width] in files, as far as training needs them to be a tensor: shape, parts, a device."""

    root: Path
    names: Sequence[str]          # paths under root, one an image
    shape_of_one: tuple[int, ...]  # [3, height, width]
    side: int                     # what the shorter side is resized to, 0: nothing
    sums: torch.Tensor            # int64 [n, 2, 3]: of each channel of each image its pixels' sum and squares' sum
    decoders: int = 1             # processes
    device: torch.device = CPU
    dtype: torch.dtype = torch.uint8

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.names), *self.shape_of_one)

    @property
    def nbytes(self) -> int:
        """Bytes of all images, decoded."""
        return torch.Size(self.shape).numel()

    def __len__(self) -> int:
        return len(self.names)

    def dim(self) -> int:
        return 4

    def to(self, device: torch.device) -> Streamed:
        """The same images, decoded onto `device`."""
        return replace(self, device=device)

    def __getitem__(self, index: torch.Tensor | slice) -> Streamed:
        """Some of the images, still in their files; `index`: a slice, places, or bools [n]."""
        places = torch.arange(len(self))[index].tolist()
        return replace(self, names=[self.names[place] for place in places], sums=self.sums[index])

    def batches(self, parts: Sequence[torch.Tensor | slice]) -> Iterator[torch.Tensor]:
        """Each part of the images in turn, decoded, uint8 [part, 3, height, width] on the device."""
        places = [torch.arange(len(self))[part].tolist() for part in parts]
        if not places:
            return
        loader = DataLoader(Files(self), batch_sampler=places, collate_fn=_stack, worker_init_fn=_ignore_interrupts,
                            num_workers=min(self.decoders, len(places)), prefetch_factor=AHEAD,
                            pin_memory=self.device.type == "cuda",
                            generator=torch.Generator())  # its own: torch's is the network's
        try:
            for images in loader:
                if isinstance(images, UsageError):
                    raise images
                yield images.to(self.device, non_blocking=True)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise OSError("a process that decodes images has died, often for want of memory or of /dev/shm: give fewer "
                          "--decoders or a smaller --batch-size") from None


Images = torch.Tensor | Streamed


def in_memory(images: Images) -> torch.Tensor:
    """The images as a tensor; a UsageError for those that are streamed, where all of them are needed at once."""
    if isinstance(images, Streamed):
        raise UsageError(f"the {len(images):,} images stay in their files, and are needed here all at once: give fewer of "
                         "them, or --streaming never")
    return images


@dataclass(frozen=True)
class Files(Dataset[Any]):
    """What the decoding processes see: image by place, or the UsageError that says why it cannot be one."""

    images: Streamed

    def __getitem__(self, place: int) -> torch.Tensor | UsageError:
        images = self.images
        try:
            pixels = decode_as(images.root / images.names[place], images.side, images.shape_of_one)
            return torch.from_numpy(np.array(pixels, order="C"))
        except UsageError as error:
            return error

    def __len__(self) -> int:
        return len(self.images)


def _stack(images: list[torch.Tensor | UsageError]) -> torch.Tensor | UsageError:
    wrong = next((image for image in images if isinstance(image, UsageError)), None)
    return wrong or torch.stack([image for image in images if isinstance(image, torch.Tensor)])


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C goes to the whole group; the process that trains decides when its decoders end."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)


def in_parts(images: Images, parts: Sequence[torch.Tensor | slice]) -> Iterator[torch.Tensor]:
    """images[part] for each part in turn, as a tensor of its own, to which a forward may write, on the images' device."""
    if isinstance(images, Streamed):
        return images.batches(parts)
    return (images[part].clone() if isinstance(part, slice) else images[part] for part in parts)


def first_images(images: Images, count: int) -> torch.Tensor:
    """The first `count` images as a tensor."""
    return next(in_parts(images, [slice(0, count)]))


def channel_sums(images: Images) -> list[tuple[int, int, int]]:
    """Of each channel how many pixels, their sum, the sum of their squares; exact."""
    if not isinstance(images, Streamed):
        return tensor_sums(images)
    pixels = images.nbytes // images.shape[1]
    return [(pixels, *column) for column in images.sums.sum(0).T.tolist()]
