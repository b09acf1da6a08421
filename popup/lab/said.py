"""A value in words that are the same in each process: what tells an attribute of a module from another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from enum import Enum
from typing import Any

import numpy as np
import torch

from popup.lab.foreign import FAULTS
from popup.lab.parts import DEVICE, LONGEST, SIMPLE, is_flat


def words(ends: Iterable[tuple[str, Any]]) -> str:
    """The words for a value: for each of its ends (parts.py) those, behind the way to it."""
    return " ".join(f"{way}={said(end)}" for way, end in ends)


def said(end: Any) -> str:
    """The words for what consists of nothing more; of what has none the class."""
    try:  # what is asked may be a class of the user's
        return _said(end) or f"a {type(end).__qualname__}"
    except FAULTS:
        return f"a {type(end).__qualname__}"


def _member(value: Any) -> str:
    """The words for a member of a set, which may be a tuple of what may be one."""
    return f"({', '.join(map(_member, value))})" if isinstance(value, tuple) else said(value)


def _said(end: Any) -> str:
    if isinstance(end, Enum):
        return f"{type(end).__qualname__}.{end.name}"
    if isinstance(end, np.generic):
        return repr(end.item())  # as numpy's own words are others from version to version
    if isinstance(end, torch.device) or (isinstance(end, str) and DEVICE.fullmatch(end)):
        return "a device"  # which is the machine's
    if isinstance(end, (bytes, bytearray)):
        return hashlib.sha256(end).hexdigest()
    if isinstance(end, int) and end.bit_length() > LONGEST:
        return hex(end)
    if isinstance(end, SIMPLE):
        kind: Any = next(kind for kind in SIMPLE if isinstance(end, kind))
        return str(kind.__repr__(end))  # and not that of a class of the user's, with an address in it
    if isinstance(end, (set, frozenset)):
        return repr(sorted(map(_member, end)))
    if is_flat(end) or isinstance(end, (torch.dtype, torch.layout, torch.memory_format, range)):
        return repr(end)
    return str(end.__qualname__) if isinstance(end, type) or (callable(end) and hasattr(end, "__qualname__")) else ""
