"""A user's own data: a function of theirs that returns tensors or arrays."""

from __future__ import annotations

import inspect
import os
import pkgutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from popup.errors import UsageError
from popup.lab.data.dataset import Dataset, Split, check_alike, check_finite
from popup.lab.data.streamed import Images, Streamed
from popup.lab.foreign import FAULTS, told
from popup.lab.randomness import loading

CHANNELS = (1, 2, 3, 4)  # that images usually have
SHAPED = (2, 4)          # in how many dimensions inputs are: features and tokens, images


def load_own(name: str) -> Dataset:
    """The data set that the function `my_package.my_module:load` returns: (train images, labels), (test images, labels).

    Images [n, channels, height, width] or features [n, features], uint8 (normalised by the run) or float (used as they are), or
    tokens [n, tokens], other whole numbers; labels whole numbers from 0, one an input, as tensors or arrays. It may return a
    `Dataset` too, which says how many classes (and tokens) there are and is taken as it is. Raises UsageError for anything else,
    and for what looks like channels last or like labels that do not count from 0.
    """
    data = _dataset(name, _returned(name))
    for part, (images, _) in (("training", data.train), ("test", data.test)):
        check_finite(images, f"the {part} images of data set {name!r}")
    return data


def _returned(name: str) -> Any:
    """What the function of that name returns, the same in each process. A UsageError if it fails, or ends the program."""
    with loading():
        function = _find(name)
    try:
        with loading():
            return function()
    except (UsageError, MemoryError):
        raise
    except FAULTS as error:
        raise UsageError(f"data set {name!r} cannot be loaded by its function: {told(error)}") from None


def _dataset(name: str, found: Any) -> Dataset:
    """What the function of that name has returned, as a Dataset."""
    try:
        if isinstance(found, Dataset):
            (images, labels), (tests, marks) = ((_inputs(part), answers) for part, answers in (found.train, found.test))
            check_alike(images, tests)
            if images.dim() not in SHAPED:
                raise ValueError(f"inputs have shape {list(images.shape)}")
            if len(found.names) not in (0, found.classes):
                raise ValueError(f"{len(found.names):,} names are given for {found.classes:,} classes")
            return replace(found, train=(images, _whole(labels)), test=(tests, _whole(marks)))
        train, test = (_split(*part) for part in found)
        check_alike(train[0], test[0])
        classes = int(max(train[1].max(), test[1].max())) + 1
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"data set {name!r} returned something else than ((images, labels), (images, labels)) with images "
                         "[n, channels, height, width], features or tokens [n, number], and labels [n] from 0: "
                         f"{' '.join(str(error).split())}") from None
    return Dataset(name, classes, train, test, notes=_likely(name, train, test, classes))


def _inputs(images: Any) -> Images:
    """Images as a tensor in which nothing learns, also where a network that does has made them, in the precision of networks;
    streamed ones as they are."""
    if isinstance(images, Streamed):
        return images
    with warnings.catch_warnings():  # torch warns of arrays that may not be written to, as of a file that is mapped to be read
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        found = torch.as_tensor(images).detach()
    return found.float() if found.is_floating_point() else found


def _whole(labels: Any) -> torch.Tensor:
    """Labels as int64, if they are whole numbers."""
    labels = torch.as_tensor(labels)
    if labels.dim() != 1:
        raise ValueError(f"labels have shape {list(labels.shape)}; a label a token have text:FILE, and popup.fit in Python")
    if not _is_whole(labels):
        raise ValueError(f"labels have dtype {labels.dtype}")
    return labels.to(torch.int64)


def _likely(name: str, train: Split, test: Split, classes: int) -> tuple[str, ...]:
    """A line on classes without images. A UsageError for images and labels that are hardly meant so: who means them says so by
    returning a Dataset."""
    shape = train[0].shape[1:]
    if len(shape) == 3 and shape[2] in CHANNELS and shape[0] not in CHANNELS and shape[1] not in CHANNELS:
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
    except (UsageError, MemoryError):
        raise
    except FAULTS as error:
        raise UsageError(f"data set {name!r}: its module cannot be imported: {told(error)}") from None
    if not callable(found):
        raise UsageError(f"data set {name!r} is {type(found).__name__}: it must be a function without arguments")
    try:
        inspect.signature(found).bind()
    except TypeError as error:
        raise UsageError(f"data set {name!r} is called without arguments: {error}") from None
    return found


def _split(inputs: Any, labels: Any) -> Split:
    inputs = _inputs(inputs)
    tokens = inputs.dim() == 2 and _is_whole(inputs) and inputs.dtype not in (torch.uint8, torch.bool)
    if inputs.dim() not in SHAPED or not (tokens or inputs.dtype is torch.uint8 or inputs.is_floating_point()):
        raise ValueError(f"inputs have shape {list(inputs.shape)} and dtype {inputs.dtype}, not uint8, float or tokens")
    whole = _whole(labels)
    if len(whole) != len(inputs) or not len(whole) or whole.min() < 0:
        raise ValueError(f"{len(inputs)} inputs have {len(whole)} labels, or some below 0")
    return inputs.long() if tokens else inputs, whole


def _is_whole(values: torch.Tensor) -> bool:
    return not values.is_floating_point() and not values.is_complex()
