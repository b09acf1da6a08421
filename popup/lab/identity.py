"""What tells a network from another of its name: what it is made of, without its weights, which the seed draws anyhow.

Not seen are what a `forward` computes by itself, without a module or an attribute that says so, and attributes whose names begin
with an underscore.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Collection, Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import nn

from popup.ticket.hashes import hash_tensor

HOLDS = " holds"  # behind the name of a buffer
PLAIN = (bool, int, float, complex, str, type(None), torch.dtype)
DEEPEST = 8  # lists inside one another: what holds itself is no plain value


def described(net: nn.Module) -> dict[str, str]:
    """By name each module's class, its attributes that are plain values or functions, and the shapes of the state's tensors."""
    found = {}
    for path, module in net.named_modules():
        prefix = f"{path} " if path else ""
        found[f"{prefix}class"] = type(module).__qualname__
        for name, value in vars(module).items():
            if not name.startswith("_") and name != "training" and (said := _said(value)) is not None:
                found[f"{prefix}{name}"] = said
    state = net.state_dict().items()
    return found | {f"{name} shape": str(list(value.shape)) for name, value in state if isinstance(value, torch.Tensor)}


def held(net: nn.Module) -> dict[str, str]:
    """What the dense buffers that are not in the state hold, by name: of numbers with a point, whose last bits are the machine's,
    three digits of two sums."""
    state = net.state_dict().keys()
    return {f"{name}{HOLDS}": _summed(buffer) for name, buffer in net.named_buffers()
            if name not in state and buffer.layout is torch.strided and not (buffer.is_nested or buffer.is_meta)}


def fingerprint(found: Mapping[str, str], without: Collection[str] = (), where: str = "") -> str:
    """SHA-256, as hex, of what was found, but for some names. Before it stands where it is to be compared: in this version of
    torch, as modules have other attributes in others, and what `where` adds."""
    rows = sorted((name, value) for name, value in found.items() if name not in without)
    return f"torch {torch.__version__.partition('+')[0]}{where}: {hashlib.sha256(repr(rows).encode()).hexdigest()}"


def place_of(known: str) -> str:
    """Where a fingerprint was taken: only two of one place can be compared. Of popups of before, and of data, empty."""
    return known.rpartition(": ")[0]


def differ(first: str, second: str) -> bool:
    """Whether two fingerprints are of two networks, or of two data sets; not if one is empty, or of another place."""
    return bool(first and second) and place_of(first) == place_of(second) and first != second


def _said(value: Any, depth: int = 0) -> str | None:
    """A plain value, or several, or a function, in words that are the same in each process; None for anything else."""
    if isinstance(value, Enum):
        return f"{type(value).__qualname__}.{value.name}"
    if isinstance(value, np.generic):
        return repr(value.item())  # as numpy's own words are others from version to version
    if isinstance(value, PLAIN):
        return repr(value)
    if isinstance(value, functools.partial):
        value = [value.func, value.args, value.keywords]
    elif isinstance(value, Mapping):
        value = [[key, item] for key, item in value.items()]
    if isinstance(value, (list, tuple, set, frozenset)):
        parts = [_said(item, depth + 1) for item in value] if depth < DEEPEST else [None]
        if None in parts:
            return None
        ordered = map(str, parts) if isinstance(value, (list, tuple)) else sorted(map(str, parts))
        return f"[{', '.join(ordered)}]"
    return getattr(value, "__qualname__", None) if callable(value) else None


def _summed(buffer: torch.Tensor) -> str:
    if not (buffer.is_floating_point() or buffer.is_complex()):
        return hash_tensor(buffer)
    numbers = (torch.view_as_real(buffer.resolve_conj()) if buffer.is_complex() else buffer).detach().cpu().double().flatten()
    places = torch.arange(1, len(numbers) + 1, dtype=torch.float64) / max(len(numbers), 1)
    return f"{list(buffer.shape)} {float(numbers.abs() @ places):.3g} {float(numbers @ places):.3g}"
