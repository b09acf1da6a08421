"""Logits and labels as a cross-entropy takes them, refused in one line where they do not belong together."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from popup.errors import UsageError


def as_rows(logits: torch.Tensor, labels: torch.Tensor, ignored: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [n, classes] and labels [n] of a batch; of texts each place counts as an image does. `ignored`: the label of places
    that do not count. Looked at here, as a GPU is of no use any more once torch has met a label that is no class."""
    if not torch.is_tensor(labels) or labels.dtype not in (torch.int64, torch.uint8):
        found = f"of {labels.dtype}" if torch.is_tensor(labels) else f"a {type(labels).__name__}"
        raise UsageError(f"labels are {found}: pass class numbers as a tensor int64 [n], or of texts what comes next, int64 "
                         "[n, tokens]")
    if logits.dim() < 2 or labels.numel() != logits.shape[:-1].numel():
        raise UsageError(f"logits have shape {list(logits.shape)} and labels {list(labels.shape)}: pass one label for each row "
                         "of logits [n, classes], or of texts [n, tokens, classes]")
    wanted = labels.flatten().long()  # of uint8 labels 156 would be -100
    check_classes([wanted if ignored is None else wanted[wanted != ignored]], logits.shape[-1])
    return logits.flatten(0, -2), wanted


def check_classes(labels: Sequence[torch.Tensor], classes: int, name: str = "the network") -> None:
    """A UsageError unless all `labels` are class numbers of what `name` has `classes` of."""
    counted = [part for part in labels if part.numel()]
    low, high = min((int(part.min()) for part in counted), default=0), max((int(part.max()) for part in counted), default=0)
    if low < 0 or high >= classes:
        raise UsageError(f"labels go from {low} to {high} and {name} has {classes} classes: labels must be in 0 to "
                         f"{classes - 1}, or its last layer wider")
