"""The data sets: images as uint8 tensors, labels as int64. A new one is a function and one line in DATASETS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from popup.source.streams import Stream

Split = tuple[torch.Tensor, torch.Tensor]  # images uint8 [n, channels, height, width], labels int64 [n]


@dataclass(frozen=True)
class Dataset:
    """A training and a test split; `title` is its name in tables and pictures."""

    title: str
    classes: int
    train: Split
    test: Split

    @property
    def image(self) -> tuple[int, ...]:
        """[channels, height, width]"""
        return tuple(self.train[0].shape[1:])


def digits() -> Dataset:
    """scikit-learn's handwritten digits: 1,797 images of 8x8 pixels with values 0..16, embedded in the package.

    The split is one and the same for every seed: of each class a fifth, drawn from a stream of its own, is test data
    (1,437 and 360 images).
    """
    from sklearn.datasets import load_digits  # a second of import that other data sets need not pay

    images, labels = load_digits(return_X_y=True)
    order = Stream(0, "split", "digits").permutation(len(labels))
    test = np.sort(np.concatenate([_fifth(order[labels[order] == digit]) for digit in range(10)]))
    train = np.setdiff1d(np.arange(len(labels)), test)
    pixels = torch.from_numpy(images.reshape(-1, 1, 8, 8).astype(np.uint8))
    targets = torch.from_numpy(labels.astype(np.int64))
    return Dataset("digits (scikit-learn)", 10, (pixels[train], targets[train]), (pixels[test], targets[test]))


def _fifth(members: np.ndarray) -> np.ndarray:
    return members[:(len(members) + 2) // 5]


DATASETS: dict[str, Callable[[], Dataset]] = {"digits": digits}
