"""The embedded data set."""

from __future__ import annotations

import numpy as np
import torch

from popup.lab.data.dataset import DataRequest, Dataset
from popup.source.streams import Stream


def digits(request: DataRequest | None = None) -> Dataset:
    """scikit-learn's handwritten digits: 1,797 images of 8x8 pixels with values 0..16, embedded in the package.

    The split is one and the same for every seed: of each class a fifth, drawn from a stream of its own, is test data
    (1,438 and 359 images).
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
