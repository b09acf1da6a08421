"""The data sets by name. A new one is a function from a DataRequest to a Dataset, and one line in DATASETS."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from popup.errors import UsageError, check_name
from popup.lab.data.dataset import DataRequest, Dataset, Split, check_labels
from popup.lab.data.digits import digits
from popup.lab.data.folder import imagenet, load_folder, tiny_imagenet
from popup.lab.data.own import load_own
from popup.lab.data.published import PUBLISHED

__all__ = ["DATASETS", "DataRequest", "Dataset", "Split", "load_dataset"]

DATASETS: dict[str, Callable[[DataRequest], Dataset]] = {
    "digits": digits, **{published.name: published for published in PUBLISHED},
    "tiny_imagenet": tiny_imagenet, "imagenet": imagenet}

FOLDERS = ("folder", "tiny_imagenet", "imagenet")


def settled_name(name: str) -> str:
    """The name of a data set wherever the run goes on: a folder's relative path is made absolute, in this directory."""
    kind, _, path = name.partition(":")
    settled = kind != "folder" or path.startswith("~") or os.path.isabs(path)
    return name if settled else f"folder:{os.path.abspath(path)}"


def load_dataset(name: str, request: DataRequest) -> Dataset:
    """The data set of a name: one of DATASETS, `folder:PATH`, or `my_package.my_module:load` for a user's own; with a
    fingerprint, whoever loads it, by which a run is known to be of these images.

    Raises UsageError, with what to do, if it is unknown or not there.
    """
    kind, colon, path = name.partition(":")
    if not colon:
        check_name("dataset", name, [*DATASETS, "folder:PATH", "MODULE:FUNCTION"])
    if request.side and kind not in FOLDERS:
        raise UsageError(f"image_size is {request.side} and the images of {name!r} have their own size: leave it out; "
                         f"it is for {', '.join(FOLDERS)}")
    data = _found(name, kind, path, request)
    check_labels(data)
    return replace(data, fingerprint=data.identity())


def _found(name: str, kind: str, path: str, request: DataRequest) -> Dataset:
    if name in DATASETS:
        return DATASETS[name](request)
    return load_folder(path, request) if kind == "folder" else load_own(name)
