"""A validation part of the training data, for whatever selects something: the test data then choose nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from popup.errors import UsageError
from popup.lab.data.dataset import Dataset
from popup.source.masks import share
from popup.source.streams import Stream


def hold_out(data: Dataset, fraction: float) -> Dataset:
    """The data set that is trained on the rest and evaluated on `fraction` of each class of the training data.

    The part is drawn from streams of its own and is the same for every seed of a run; a larger fraction's holds a smaller
    one's. Of each class at least one image stays. Of a text it is the end, as the test data are. Raises UsageError if nothing
    would be held out.
    """
    labels = data.train[1].numpy()
    if labels.ndim > 1:
        return _hold_out_end(data, fraction)
    held = np.zeros(len(labels), dtype=bool)
    for label in range(data.classes):
        members = np.flatnonzero(labels == label)
        order = Stream(0, "validation", str(label)).permutation(len(members))
        held[members[order[:min(share(fraction, len(members)), len(members) - 1)]]] = True
    if not held.any():
        raise UsageError(f"validation is {fraction!r}: of {len(labels)} training images that holds out none; raise it")
    rest, part = torch.from_numpy(~held), torch.from_numpy(held)
    images, targets = data.train
    return replace(data, train=(images[rest], targets[rest]), test=(images[part], targets[part]), evaluated_on="validation")


def _hold_out_end(data: Dataset, fraction: float) -> Dataset:
    """The text without its last windows, which it is evaluated on: they follow those that are trained on."""
    windows, labels = data.train
    cut = len(windows) - min(share(fraction, len(windows)), len(windows) - 1)
    if cut == len(windows):
        raise UsageError(f"validation is {fraction!r}: of {len(windows)} training windows that holds out none; raise it")
    return replace(data, train=(windows[:cut], labels[:cut]), test=(windows[cut:], labels[cut:]), evaluated_on="validation")
