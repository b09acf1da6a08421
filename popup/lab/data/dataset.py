"""A data set in memory (or mapped into it), and what a loader is told."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import inf
from pathlib import Path

import torch

from popup.errors import UsageError
from popup.lab.data.streamed import Images
from popup.ticket.hashes import hash_tensor

CHECKED = 1024  # images looked at at once
Split = tuple[Images, torch.Tensor]  # images uint8 [n, channels, height, width], labels int64 [n]; of texts both [n, tokens]


@dataclass(frozen=True)
class Dataset:
    """A training split and the one that accuracy is reported on; `title` is the name in tables and pictures. Images are
    tensors, or Streamed where they do not fit memory."""

    title: str
    classes: int
    train: Split
    test: Split
    evaluated_on: str = "test"  # or "validation": then `test` is a part of the training data, and no test data is used
    fingerprint: str = ""       # SHA-256 of the images and labels, empty where they are part of the package

    @property
    def image(self) -> tuple[int, ...]:
        """[channels, height, width], of a text [tokens]"""
        return tuple(self.train[0].shape[1:])

    def identity(self) -> str:
        """What tells these images and labels from others: the fingerprint, or where there is none that of the tensors. Empty
        where images are streamed without one."""
        tensors = (*self.train, *self.test)
        known = self.fingerprint or not all(isinstance(tensor, torch.Tensor) for tensor in tensors)
        return self.fingerprint if known else fingerprint(*tensors)


@dataclass(frozen=True)
class DataRequest:
    """What a loader is told: where data lie, whether it may download, the side to which a folder's images are resized (0: as
    they are); whether they are streamed (auto: if they are larger than `memory`, bytes), how many processes then decode."""

    directory: Path
    download: bool = False
    side: int = 0
    streaming: str = "auto"
    memory: float = inf
    decoders: int = 1


def fingerprint(*tensors: torch.Tensor) -> str:
    """SHA-256 of images and labels, so that results on changed data are not taken for one another's."""
    return hashlib.sha256("".join(f"{tuple(tensor.shape)}{hash_tensor(tensor)}" for tensor in tensors).encode()).hexdigest()


def check_alike(train: Images, test: Images) -> None:
    """A UsageError if the images of the splits are not of one shape and kind."""
    kinds = [f"{list(images.shape[1:])} {images.dtype}" for images in (train, test)]
    if kinds[0] != kinds[1]:
        raise UsageError(f"training images are {kinds[0]} and test images {kinds[1]}: they must be of one shape and kind")


def check_finite(images: Images, name: str) -> None:
    """A UsageError if float images [n, ...] hold numbers that are not finite: nothing can be learned from them, and a network
    would be right or wrong about them by chance."""
    if not isinstance(images, torch.Tensor) or not images.is_floating_point():
        return
    for start, part in zip(range(0, len(images), CHECKED), images.split(CHECKED), strict=True):
        bad = (~part.isfinite()).reshape(len(part), -1).any(1).nonzero()
        if len(bad):
            raise UsageError(f"{name} hold numbers that are not finite (nan or inf; the first is image {start + int(bad[0])}, "
                             "counted from 0): repair or leave out such images")
