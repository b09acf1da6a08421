"""The data sets by name. A new one is a function from a DataRequest to a Dataset, and one line in DATASETS."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from popup.errors import UsageError, check_name
from popup.lab.data.dataset import DataRequest, Dataset, Split, check_labels, check_tokens
from popup.lab.data.digits import digits
from popup.lab.data.folder import imagenet, load_folder, tiny_imagenet
from popup.lab.data.own import load_own
from popup.lab.data.published import PUBLISHED
from popup.lab.data.text import load_text
from popup.lab.inputs import Tokens

__all__ = ["DATASETS", "DataRequest", "Dataset", "Split", "load_dataset"]

DATASETS: dict[str, Callable[[DataRequest], Dataset]] = {
    "digits": digits, **{published.name: published for published in PUBLISHED},
    "tiny_imagenet": tiny_imagenet, "imagenet": imagenet}

SIZED = ("folder", "tiny_imagenet", "imagenet", "text")  # whose inputs may have a size that is asked for
OF_FILES = {"folder": load_folder, "text": load_text}    # before the colon of a name with a path


def settled_name(name: str) -> str:
    """The name of a data set wherever the run goes on: a relative path is made absolute, in this directory."""
    kind, _, path = name.partition(":")
    settled = kind not in OF_FILES or not path or path.startswith("~") or os.path.isabs(path)
    return name if settled else f"{kind}:{os.path.abspath(path)}"


def load_dataset(name: str, request: DataRequest) -> Dataset:
    """The data set of a name: one of DATASETS, `folder:PATH`, `text:FILE`, or `my_package.my_module:load` for a
    user's own; with a fingerprint, whoever loads it, by which a run is known to be of these images.

    Raises UsageError, with what to do, if it is unknown or not there.
    """
    kind, colon, path = name.partition(":")
    if not colon:
        check_name("dataset", name, [*DATASETS, "folder:PATH", "text:FILE", "MODULE:FUNCTION"])
    if request.side and kind not in SIZED:
        raise UsageError(f"image_size is {request.side} and the images of {name!r} have their own size: leave it out; "
                         f"it is for {', '.join(SIZED)}")
    data = _found(name, kind, path, request)
    check_labels(data)
    check_tokens(data)
    vocabulary = data.image.vocabulary if isinstance(data.image, Tokens) else 0
    return replace(data, fingerprint=data.identity(), vocabulary=vocabulary)


def _found(name: str, kind: str, path: str, request: DataRequest) -> Dataset:
    if name in DATASETS:
        return DATASETS[name](request)
    return OF_FILES[kind](path, request) if kind in OF_FILES else load_own(name)
