"""Published data sets whose files torchvision reads (and, asked to, downloads and checks)."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from popup.errors import UsageError
from popup.lab.data.cache import cached, key_of, save, writing
from popup.lab.data.dataset import DataRequest, Dataset

IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
DAMAGE = (RuntimeError, ValueError, AssertionError, KeyError, TypeError, EOFError, OSError, pickle.UnpicklingError)


@dataclass(frozen=True)
class Published:
    """A data set of torchvision.datasets: its class there, the files it consists of, the order of its arrays' axes.

    Called with a request it is the data set's loader. `axes` brings the class's images to [n, channels, height, width];
    where they have no channels, one is put in.
    """

    name: str
    title: str
    classes: int
    reader: str
    files: tuple[str, ...]
    axes: tuple[int, ...] | None = None
    splits: tuple[tuple[str, object], tuple[str, object]] = (("train", True), ("train", False))

    def __call__(self, request: DataRequest) -> Dataset:
        missing = self._missing(request.directory)
        if missing and not request.download:
            raise UsageError(f"data set {self.name!r} is not in {str(request.directory)!r}: {missing[0]} is missing"
                             f"{f' with {len(missing) - 1} more files' if missing[1:] else ''}; run once with --download, "
                             "or name the directory that has it with --data-dir")
        if missing:  # downloads; only then there are files to make the key of
            with writing(request.directory / "decoded"):  # one process alone: another would read halves of archives
                if self._missing(request.directory):
                    self.read(request)
        train, test, fingerprint = cached(request.directory, self.name, self._key(request.directory),
                                          lambda folder: self.decode(request, folder))
        return Dataset(self.title, self.classes, train, test, fingerprint=fingerprint)

    def _missing(self, directory: Path) -> list[str]:
        return [file for file in self.files if not (directory / file).is_file()]

    def _key(self, directory: Path) -> str:
        found = [(file, (directory / file).stat()) for file in self.files]
        return key_of((file, status.st_size, status.st_mtime_ns) for file, status in found)

    def read(self, request: DataRequest) -> list[tuple[np.ndarray, np.ndarray]]:
        """Images as they lie in the files and labels, of the training and the test split."""
        import torchvision.datasets  # takes two seconds, and only the first start needs it

        reader = getattr(torchvision.datasets, self.reader)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*align should be passed")  # CIFAR's pickles are of numpy 1
                sets = [reader(str(request.directory), download=request.download, **dict([split])) for split in self.splits]
            return [(np.asarray(part.data), np.asarray(part.labels if hasattr(part, "labels") else part.targets))
                    for part in sets]
        except DAMAGE as error:
            missing, reason = self._missing(request.directory), " ".join(str(error).split()) or "a file is of another format"
            what, remedy = ("cannot be read", f"remove {self.files[0].partition('/')[0]} there and run once with --download")
            if missing:
                what, remedy = "cannot be downloaded", f"put {missing[0]} and what else it consists of there yourself"
            raise UsageError(f"data set {self.name!r} in {str(request.directory)!r} {what} "
                             f"({type(error).__name__}: {reason}): {remedy}") from None

    def decode(self, request: DataRequest, folder: Path) -> None:
        """Write the four arrays of the cache."""
        for part, (images, labels) in zip(("train", "test"), self.read(request), strict=True):
            images = images.transpose(self.axes) if self.axes else images
            images = images[:, None] if images.ndim == 3 else images
            save(folder / f"{part}_images.npy", np.ascontiguousarray(images, dtype=np.uint8))
            save(folder / f"{part}_labels.npy", labels.astype(np.int64))


def _idx(name: str, title: str, reader: str) -> Published:
    return Published(name, title, 10, reader, tuple(f"{reader}/raw/{file}" for file in IDX))


def _pickles(folder: str, files: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{folder}/{file}" for file in files)


PUBLISHED = (
    _idx("mnist", "MNIST", "MNIST"),
    _idx("fashion_mnist", "Fashion-MNIST", "FashionMNIST"),
    _idx("kmnist", "KMNIST", "KMNIST"),
    Published("cifar10", "CIFAR-10", 10, "CIFAR10", axes=(0, 3, 1, 2), files=_pickles("cifar-10-batches-py", (
        *(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"))),
    Published("cifar100", "CIFAR-100", 100, "CIFAR100", axes=(0, 3, 1, 2),
              files=_pickles("cifar-100-python", ("train", "test", "meta"))),
    Published("svhn", "SVHN", 10, "SVHN", ("train_32x32.mat", "test_32x32.mat"),
              splits=(("split", "train"), ("split", "test"))),
)
