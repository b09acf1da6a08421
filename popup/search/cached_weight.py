"""The effective weight of a layer that is kept from pass to pass, so that a pass writes only what has changed."""

from __future__ import annotations

import weakref
from operator import attrgetter

import numpy as np
import torch

from popup.search.gate import Gate
from popup.source.books import Book, EdgeWeights

VERSION = attrgetter("_version")


class Written(Exception):
    """Somebody has written to a weight that is kept."""


class CachedWeight:
    """A weight, what it shows [edges], and whether it may still be used. A copy or a pickle of it is empty.

    No attributes of the parametrization: to set one of an nn.Module takes longer than many a write to the weight.
    """

    __slots__ = ("channels_last", "pinned", "places", "shown", "tracked", "users", "values", "versions", "weight")

    def __init__(self) -> None:
        self.weight: torch.Tensor | None = None
        self.shown: Gate | None = None
        self.tracked: list[torch.Tensor] = []    # what of that can be written to
        self.places: torch.Tensor | None = None  # the edges' flat indices, while a pass is under way
        self.values: torch.Tensor | None = None  # the edges' values that it was made of
        self.versions: tuple[int, ...] = ()      # its own, those of the values and of what it shows, when it was written to last
        self.users: list[weakref.ref] = []       # the autograd nodes of passes that may need it in a backward pass
        self.pinned = False                      # whether a pass uses it that has no such node
        self.channels_last = False               # whether the network's convolutions work in channels last, on the CPU

    def fits(self, dtype: torch.dtype, values: torch.Tensor) -> bool:
        """Whether it is there, in `dtype` and of `values`, and nobody has written to these or to what it shows. A Written if
        somebody else has written to it itself, as far as torch counts."""
        if self.weight is None:
            return False
        now = versions(self.weight, self.values, *self.tracked)
        if now[0] != self.versions[0]:
            raise Written
        return now == self.versions and self.values is values and self.weight.dtype == dtype

    def renew(self, weight: torch.Tensor) -> None:
        """It is `weight` from now on: passes that use the old one have that for themselves."""
        self.users, self.pinned = [], False
        self.channels_last &= weight.device.type == "cpu"
        self.weight = weight.contiguous(memory_format=torch.channels_last) if self.channels_last else weight

    def show(self, gate: Gate, values: torch.Tensor) -> None:
        """It shows `gate` now, of the edges' `values`."""
        self.shown, self.values, self.tracked = gate, values, gate.tensors()
        self.versions = versions(self.weight, values, *self.tracked)

    def change(self, codes: torch.Tensor, places: torch.Tensor | None, book: Book, weights: EdgeWeights) -> None:
        """Let it show `codes` of the `book` in the place of others, on the CPU: only where the two differ, and by numpy, whose
        calls take a fraction of torch's (into bf16 torch's scatter_ takes half a millisecond however little it writes)."""
        chosen = codes.numpy()
        changed = differing(chosen, self.shown.codes.numpy())
        if len(changed):
            now = book.some(weights, chosen, changed)
            flat = changed if places is None else places.numpy()[changed].astype(np.int64)
            self._memory().index_copy_(0, torch.from_numpy(self._in_memory(flat)), torch.from_numpy(now).to(self.weight.dtype))

    def rewrite(self, values: torch.Tensor, places: torch.Tensor | None) -> None:
        """Let all edges have `values` [edges], float32: on a GPU less than to find out which differ."""
        flat, values = self.weight.view(-1), values.to(self.weight.dtype)
        flat.copy_(values) if places is None else flat.scatter_(0, places.long(), values)

    def follow(self, gradient: torch.Tensor) -> None:
        """Lie as the weight's `gradient` does: a convolution in channels last, for which a weight that lies otherwise is copied
        in its forward and in its backward pass, gives it in channels last."""
        channels_last = (gradient.device.type == "cpu" and gradient.dim() == 4 and not gradient.is_contiguous()
                         and gradient.is_contiguous(memory_format=torch.channels_last))
        if channels_last is not self.channels_last:
            self.channels_last, self.weight = channels_last, None

    def _memory(self) -> torch.Tensor:
        """The entries in the order in which they lie."""
        return self.weight.permute(0, 2, 3, 1).reshape(-1) if self.channels_last else self.weight.view(-1)

    def _in_memory(self, flat: np.ndarray) -> np.ndarray:
        """Where the entries of `flat` indices lie."""
        if not self.channels_last:
            return flat
        _, channels, height, width = self.weight.shape
        size = height * width
        of_filter = flat % (channels * size)
        channel, tap = np.divmod(of_filter, size)
        return flat - of_filter + tap * channels + channel

    def use(self, node: object | None) -> None:
        """A pass uses it, whose autograd node this is; None: scores do not learn, and what comes before them may."""
        if node is None:
            self.pinned = True
        else:
            self.users.append(weakref.ref(node))

    def in_use(self) -> bool:
        """Whether a backward pass can still need it as it is: the first of a graph, or one more of a graph that is retained."""
        self.users = [user for user in self.users if _has_tensors(user())]
        return self.pinned or bool(self.users)

    def __reduce__(self) -> tuple:
        return CachedWeight, ()


def _has_tensors(node: object | None) -> bool:
    """Whether an autograd node is there and has not given its tensors free."""
    try:
        return node is not None and node._raw_saved_tensors is not None
    except RuntimeError:  # "Trying to backward through the graph a second time"
        return False


def differing(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Where two arrays [n] of one small type differ, ascending, int64. Compared eight bytes at a time, as few do."""
    together = 8 // first.itemsize
    whole = len(first) // together * together
    one, other = first[:whole].view(np.uint64), second[:whole].view(np.uint64)
    words = (one != other).nonzero()[0]
    inside = (one[words] ^ other[words]).view(f"u{first.itemsize}").nonzero()[0]
    found = words[inside // together] * together + inside % together
    if whole == len(first):
        return found
    return np.concatenate([found, (first[whole:] != second[whole:]).nonzero()[0] + whole])


def versions(*tensors: torch.Tensor) -> tuple[int, ...]:
    """How often torch has written to each; those of inference mode do not count."""
    try:
        return tuple(map(VERSION, tensors))
    except RuntimeError:
        return tuple(-1 if tensor.is_inference() else tensor._version for tensor in tensors)
