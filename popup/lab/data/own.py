"""A user's own data: a function of theirs that returns tensors or arrays."""

from __future__ import annotations

import inspect
import os
import pkgutil
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from popup.errors import UsageError
from popup.lab.data.dataset import Dataset, Split, check_alike, check_finite

CHANNELS = (1, 2, 3, 4)  # that images usually have


def load_own(name: str) -> Dataset:
    """The data set that the function `my_package.my_module:load` returns: (train images, labels), (test images, labels).

    Images [n, channels, height, width] uint8 (normalised by the run) or float (used as they are), labels whole numbers
    from 0, as tensors or arrays. It may return a `Dataset` too, which says how many classes there are and is taken as it is.
    Raises UsageError for anything else, and for what looks like channels last or like labels that do not count from 0.
    """
    data = _dataset(name, _find(name)())
    for part, (images, _) in (("training", data.train), ("test", data.test)):
        check_finite(images, f"the {part} images of data set {name!r}")
    return data


def _dataset(name: str, found: Any) -> Dataset:
    """What the function of that name has returned, as a Dataset."""
    try:
        if isinstance(found, Dataset):
            (images, labels), (tests, marks) = found.train, found.test
            check_alike(images, tests)
            return replace(found, train=(images, _whole(labels)), test=(tests, _whole(marks)))
        train, test = (_split(*part) for part in found)
        check_alike(train[0], test[0])
        classes = int(max(train[1].max(), test[1].max())) + 1
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"data set {name!r} returned something else than ((images, labels), (images, labels)) with images "
                         f"[n, channels, height, width] and labels [n] from 0: {' '.join(str(error).split())}") from None
    return Dataset(name, classes, train, test, notes=_likely(name, train, test, classes))


def _whole(labels: Any) -> torch.Tensor:
    """Labels as int64, if they are whole numbers."""
    labels = torch.as_tensor(labels)
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"labels have dtype {labels.dtype}")
    return labels.to(torch.int64)


def _likely(name: str, train: Split, test: Split, classes: int) -> tuple[str, ...]:
    """A line on classes without images. A UsageError for images and labels that are hardly meant so: who means them says so by
    returning a Dataset."""
    shape = train[0].shape[1:]
    if shape[2] in CHANNELS and shape[0] not in CHANNELS and shape[1] not in CHANNELS:
        raise UsageError(f"the images of data set {name!r} are {list(shape)}, which look like [height, width, channels]: return "
                         "images.transpose(0, 3, 1, 2), or if they have that many channels a popup.lab.data.dataset.Dataset")
    there = torch.cat([train[1], test[1]]).unique()
    least = int(there.min())
    if least > 0 or 2 * len(there) < classes:
        raise UsageError(f"the labels of data set {name!r} are {len(there):,} different numbers from {least:,} to "
                         f"{classes - 1:,}, which would be {classes:,} classes: number them from 0, or return a "
                         "popup.lab.data.dataset.Dataset, which says how many there are")
    empty = classes - len(train[1].unique())
    return (f"WARNING: {empty:,} of {classes:,} classes have no training image",) if empty else ()


def _find(name: str) -> Callable[[], Any]:
    """The function, from a module in the working directory or wherever Python finds it."""
    if os.getcwd() not in sys.path:  # run.py's own directory is on it; what the function imports later is found there too
        sys.path.append(os.getcwd())
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"data set {name!r} is not there ({error}): write MODULE:FUNCTION, of a module that can be "
                         "imported from this directory, or folder:PATH") from None
    if not callable(found):
        raise UsageError(f"data set {name!r} is {type(found).__name__}: it must be a function without arguments")
    try:
        inspect.signature(found).bind()
    except TypeError as error:
        raise UsageError(f"data set {name!r} is called without arguments: {error}") from None
    return found


def _split(images: Any, labels: Any) -> Split:
    images, labels = torch.as_tensor(images), torch.as_tensor(labels)
    if images.dim() != 4 or not (images.dtype is torch.uint8 or images.is_floating_point()):
        raise ValueError(f"images have shape {list(images.shape)} and dtype {images.dtype}, not uint8 or float")
    whole = not labels.is_floating_point() and not labels.is_complex()
    if labels.shape != images.shape[:1] or not whole or not len(labels) or labels.to(torch.int64).min() < 0:
        raise ValueError(f"{len(images)} images have labels of shape {list(labels.shape)} and dtype {labels.dtype}")
    return images if images.dtype is torch.uint8 else images.float(), labels.to(torch.int64)
