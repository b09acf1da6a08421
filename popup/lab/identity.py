"""What tells a network from another of its name: what it is made of, without the weights that a seed draws anyhow.

Not seen are what a `forward` computes by itself, without a module or an attribute that says so, and attributes whose names begin
with an underscore.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from popup.lab.randomness import GENERATORS, state_of
from popup.lab.said import Words
from popup.source.frozen import is_norm
from popup.ticket.hashes import hash_tensor

HOLDS, DRAWN = "holds", "drawn"  # behind the name of a buffer or an attribute, and of a parameter
MOST = 5    # words that a line names
CHUNKS = 8  # of a tensor, each with sums of its own
SEED = "@"  # before the seed, behind what differs by it


def described(net: nn.Module) -> dict[str, str]:
    """By name each module's class, its children's names, its attributes in words (said.py); and the shapes of the state."""
    found = {}
    for path, module in net.named_modules():
        prefix = f"{path} " if path else ""
        found[f"{prefix}class"] = type(module).__qualname__
        found[f"{prefix}children"] = repr(list(module._modules))
        for name, value in _attributes(module):
            if not isinstance(value, (torch.Tensor, np.ndarray, *GENERATORS)):
                found[f"{prefix}{name}"] = Words(type(module).__module__).of(value)
    state = net.state_dict().items()
    return found | {f"{name} shape": str(list(value.shape)) for name, value in state if isinstance(value, torch.Tensor)}


def held(net: nn.Module) -> dict[str, str]:
    """What the dense buffers hold, by name, but for the statistics of norms: of numbers with a point, whose last bits are the
    machine's, some digits of sums."""
    norms = {f"{path}." for path, module in net.named_modules() if is_norm(module)}
    return {f"{name} {HOLDS}": summed(buffer) for name, buffer in net.named_buffers()
            if f"{name.rpartition('.')[0]}." not in norms and is_dense(buffer)}


def kept(net: nn.Module) -> dict[str, str]:
    """What modules hold in attributes beside: tensors, arrays, and generators with the state that they are in."""
    found = {}
    for path, module in net.named_modules():
        for name, value in _attributes(module):
            if isinstance(value, torch.Tensor) and is_dense(value):
                found[f"{path} {name} {HOLDS}"] = summed(value)
            elif isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
                found[f"{path} {name} {HOLDS}"] = summed(torch.from_numpy(np.ascontiguousarray(value)))
            elif isinstance(value, GENERATORS):
                found[f"{path} {name} {HOLDS}"] = hashlib.sha256(repr(state_of(value)).encode()).hexdigest()
    return found


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Those of its own, by name."""
    return ((name, value) for name, value in vars(module).items() if not name.startswith("_") and name != "training")


def is_dense(tensor: torch.Tensor) -> bool:
    """Whether its numbers are there, one by one."""
    return tensor.layout is torch.strided and not (tensor.is_nested or tensor.is_meta)


def summed(tensor: torch.Tensor) -> str:
    """What tells a tensor's numbers from others, though another machine computes their last bits otherwise: where it is 0 or not
    finite, and of its parts three digits of two sums. Of whole numbers all."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return hash_tensor(tensor)
    numbers = (torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor).detach().cpu().double().flatten()
    kinds = (numbers == 0) + 2 * numbers.isposinf() + 3 * numbers.isneginf() + 4 * numbers.isnan()
    sizes = numbers.nan_to_num(0.0, 0.0, 0.0).asinh()  # so that none hides all others
    sums = [f"{float(part.abs() @ _places(part)):.3g} {float(part @ _places(part)):.3g}" for part in sizes.chunk(CHUNKS)]
    return f"{list(tensor.shape)} {hash_tensor(kinds.to(torch.uint8))} {' '.join(sums)}"


def _places(part: torch.Tensor) -> torch.Tensor:
    return torch.arange(1, len(part) + 1, dtype=torch.float64) / max(len(part), 1)


def fingerprint(found: Mapping[str, str], without: Collection[str] = (), by_seed: Collection[str] = (), seed: int = 0) -> str:
    """What was found, but for some names, in short: for each last word of the names a hash. `by_seed`: the names of what is
    another for another `seed`. Before it stands where it is to be compared, as modules have other attributes in other versions of
    torch, and functions other code in those of Python."""
    rows: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, value in sorted(found.items()):
        if name not in without:
            rows[f"{_last(name)}{SEED}{seed}" if name in by_seed else _last(name)].append((name, value))
    where = f"torch {torch.__version__.partition('+')[0]}, python {sys.version_info.major}.{sys.version_info.minor}"
    return f"{where}: " + " ".join(f"{word}={_hash(each)}" for word, each in rows.items())


def _last(name: str) -> str:
    """The last word of a name of what was found: of an attribute, a buffer or a parameter its own."""
    return re.sub(r"\W", "?", name.removesuffix(f" {HOLDS}").removesuffix(f" {DRAWN}").rpartition(" ")[2].rpartition(".")[2])


def _hash(rows: list[tuple[str, str]]) -> str:
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:12]


def place_of(known: str) -> str:
    """Where a fingerprint was taken: only two of one place can be compared. Of popups of before, and of data, empty."""
    return known.rpartition(": ")[0]


def whatever_the_seed(known: str) -> str:
    """What of a fingerprint is the same for each seed."""
    return " ".join(part for part in known.split(" ") if SEED not in part)


def differing(first: str, second: str) -> list[str]:
    """The words by which two fingerprints are of two networks; none if they are not, or of other places. Data sets have none."""
    if not first or not second or place_of(first) != place_of(second) or first == second:
        return []
    one, other = map(_words, (first, second))
    if not one and not other:
        return ["data"]
    common = {word.partition(SEED)[2] for word in one} & {word.partition(SEED)[2] for word in other}
    return sorted({word.partition(SEED)[0] for word in one.keys() | other.keys()
                   if one.get(word) != other.get(word) and word.partition(SEED)[2] in common | {""}})


def listed(words: Sequence[str]) -> str:
    """Words by which networks differ, at most five of them."""
    return ", ".join(words[:MOST]) + (f" and {len(words) - MOST} more" if len(words) > MOST else "")


def _words(known: str) -> dict[str, str]:
    """The hash of each word of a fingerprint."""
    return dict(part.split("=", 1) for part in known.rpartition(": ")[2].split(" ") if "=" in part)


def differ(first: str, second: str) -> bool:
    """Whether two fingerprints are of two networks, or of two data sets; not if one is empty, or of another place."""
    return bool(differing(first, second))
