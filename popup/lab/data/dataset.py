"""A data set in memory (or mapped into it), and what a loader is told."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import inf
from pathlib import Path

import torch

from popup.errors import UsageError
from popup.lab.data.streamed import Images
from popup.lab.inputs import Tokens, Window, called, is_window
from popup.lab.text import printable
from popup.ticket.hashes import hash_tensor

INPUTS = {"windows of tokens": ("windows", " tokens"), "sequences of tokens": ("sequences", " tokens"),
          "features": ("rows", " features")}  # other inputs are images
MOST_TOKENS = 1 << 20  # that may be told apart
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
    fingerprint: str = ""       # SHA-256 of the images and labels; empty: `load_dataset` makes it
    names: tuple[str, ...] = ()  # of the classes, where they have any
    notes: tuple[str, ...] = ()  # lines on what was left out, or is unlikely
    vocabulary: int = 0          # how many tokens there may be where sequences of them have one label; 0: `load_dataset` counts

    @property
    def image(self) -> tuple[int, ...]:
        """[channels, height, width]; [features]; of whole numbers a Window [tokens], or where one label is of all, Tokens."""
        inputs, labels = self.train
        shape = tuple(inputs.shape[1:])
        if len(shape) != 1 or inputs.dtype is not torch.int64:
            return shape
        return Window(shape) if labels.dim() > 1 else Tokens(shape, self.vocabulary or self.tokens())

    def tokens(self) -> int:
        """How many tokens there are at least, by the largest number of one; 0 where inputs are no tokens."""
        found = [inputs for inputs, _ in (self.train, self.test) if isinstance(inputs, torch.Tensor)]
        whole = found and all(inputs.dtype is torch.int64 and inputs.dim() == 2 for inputs in found)
        return max(int(inputs.max()) for inputs in found) + 1 if whole else 0

    def identity(self) -> str:
        """What tells these images and labels from others: the fingerprint, or where there is none that of the tensors, of images
        that are streamed that of their sums."""
        return self.fingerprint or fingerprint(*(part if isinstance(part, torch.Tensor) else part.sums
                                                 for part in (*self.train, *self.test)))

    def described(self) -> list[str]:
        """What is known before a run begins: how many images and classes, and what is unlikely about them."""
        inputs, of = INPUTS.get(called(self.image), ("images", ""))
        parts = [f"{len(self.train[1]):,} {inputs} of {'x'.join(map(str, self.image))}{of}", f"{self.classes:,} classes",
                 *self._smallest(self.train[1]), f"{len(self.test[1]):,} {self.evaluated_on} {inputs}",
                 *self._smallest(self.test[1])]
        return [printable(line) for line in (f"{self.title}: {', '.join(parts)}", *self.notes)]

    def _smallest(self, labels: torch.Tensor) -> list[str]:
        """How many images the smallest class has, and which it is; of texts nothing."""
        if labels.dim() > 1:
            return []
        found, counts = labels.unique(return_counts=True)
        least, place = int(counts.min()), int(found[counts.argmin()])
        if len(found) < self.classes:
            there = set(found.tolist())
            least, place = 0, next(label for label in range(self.classes) if label not in there)
        return [f"smallest class {least:,} ({self.names[place] if self.names else place})"]


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


def check_labels(data: Dataset) -> None:
    """A UsageError unless every image has a label, int64, that is a class's number, or of a text each token."""
    for part, (images, labels) in (("training", data.train), ("test", data.test)):
        right = isinstance(labels, torch.Tensor) and labels.dtype is torch.int64 and labels.shape == images.shape[:labels.dim()]
        if not right or not len(labels) or int(labels.min()) < 0 or int(labels.max()) >= data.classes:
            raise UsageError(f"the {part} labels of data set {data.title!r:.200} are none for its {len(images):,} images and "
                             f"{data.classes:,} classes: they are int64, one an image, from 0 to {data.classes - 1:,}")


def check_tokens(data: Dataset) -> None:
    """A UsageError for inputs that are tokens and have numbers that none can have: a network would look them up in vain."""
    tokens = data.tokens()
    if not tokens:
        return
    most = data.classes if is_window(data.image) else data.vocabulary or MOST_TOKENS
    least = min(int(inputs.min()) for inputs, _ in (data.train, data.test) if isinstance(inputs, torch.Tensor))
    if least < 0 or tokens > most:
        raise UsageError(f"the inputs of data set {data.title!r:.200} are whole numbers, so tokens, and go from {least:,} to "
                         f"{tokens - 1:,}: number tokens from 0 to below {most:,}; features are floats")


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
