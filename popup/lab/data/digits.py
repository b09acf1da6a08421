"""The embedded data set."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from popup.lab.data.dataset import DataRequest, Dataset
from popup.source.streams import Stream


def digits(request: DataRequest | None = None) -> Dataset:
    """scikit-learn's handwritten digits: 1,797 images of 8x8 pixels with values 0..16, embedded in the package.

    The split is one and the same for every seed: of each class a fifth, drawn from a stream of its own, is test data
    (1,438 and 359 images).
    """
    images, labels = _load()
    order = Stream(0, "split", "digits").permutation(len(labels))
    test = np.sort(np.concatenate([_fifth(order[labels[order] == digit]) for digit in range(10)]))
    train = np.setdiff1d(np.arange(len(labels)), test)
    pixels = torch.from_numpy(images.reshape(-1, 1, 8, 8).astype(np.uint8))
    targets = torch.from_numpy(labels.astype(np.int64))
    return Dataset("digits (scikit-learn)", 10, (pixels[train], targets[train]), (pixels[test], targets[test]))


def _load() -> tuple[np.ndarray, np.ndarray]:
    """Pixels [n, 64] and labels [n], from the file in the package: to import what reads it takes as long as small runs do. A
    scikit-learn that keeps it elsewhere is asked."""
    package = find_spec("sklearn")
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz" if package and package.origin else None
    if file is not None and file.exists():
        table = np.loadtxt(file, delimiter=",", dtype=np.int64)
        return table[:, :-1], table[:, -1]
    from sklearn.datasets import load_digits

    found: Any = load_digits(return_X_y=True)
    images, labels = found
    return images, labels


def _fifth(members: np.ndarray) -> np.ndarray:
    return members[:(len(members) + 2) // 5]
