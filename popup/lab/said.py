"""A value in words that are the same in each process: what tells an attribute of a module from another."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
import types
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import nn

PLAIN = (bool, int, float, complex, str, type(None), torch.dtype, slice, range)
DEVICE = re.compile(r"(cpu|cuda|mps|xpu)(:\d+)?")
DEEPEST, MOST = 8, 10_000  # lists inside one another, and values in all, that are looked at


class Words:
    """What is said of one attribute of a module. Objects of classes that stand in the `home` of the module's own class are said
    by their attributes, of others only the class is."""

    def __init__(self, home: str = "") -> None:
        self.home, self.left = home, MOST

    def of(self, value: Any, depth: int = 0) -> str:
        """The words for a value: what it is, or what it consists of."""
        self.left -= 1
        if self.left < 0 or depth > DEEPEST:
            return "..."
        if isinstance(value, Enum):
            return f"{type(value).__qualname__}.{value.name}"
        if isinstance(value, np.generic):
            return repr(value.item())  # as numpy's own words are others from version to version
        if isinstance(value, torch.device) or (isinstance(value, str) and DEVICE.fullmatch(value)):
            return "a device"  # which is the machine's
        if isinstance(value, PLAIN):
            return repr(value)
        if isinstance(value, (bytes, bytearray)):
            return hashlib.sha256(value).hexdigest()
        parts = self._parts(value)
        if parts is None:
            return f"a {type(value).__qualname__}"
        said = [self.of(part, depth + 1) for part in parts]
        return f"[{', '.join(sorted(said) if isinstance(value, (set, frozenset)) else said)}]"

    def _parts(self, value: Any) -> list[Any] | None:
        """What a value consists of; None where only its class is said."""
        if isinstance(value, nn.Module):  # one that is no child: its mode, say, is none of the network's
            return None
        if isinstance(value, (list, tuple)):
            return list(value)
        if isinstance(value, (set, frozenset)):
            return sorted(value, key=repr)  # the same ones in each process, should there be too many
        if isinstance(value, Mapping):
            return [[key, item] for key, item in value.items()]
        if isinstance(value, functools.partial):
            return [value.func, value.args, value.keywords]
        if isinstance(value, types.MethodType):
            return [value.__func__, value.__self__]
        if isinstance(value, types.FunctionType):
            return _of_function(value)
        if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
            return [value.__qualname__]
        own = type(value).__module__ == self.home or isinstance(value, types.SimpleNamespace)
        if own or dataclasses.is_dataclass(value):
            return [type(value).__qualname__, *sorted(vars(value).items())] if hasattr(value, "__dict__") else None
        return None


def _of_function(function: Callable[..., Any]) -> list[Any]:
    """Of one that is written in Python its name, its code, and the values that it has from where it was made."""
    cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    return [function.__qualname__, *_of_code(function.__code__), function.__defaults__, cells]


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # of a name that is not bound yet
        return False


def _of_code(code: types.CodeType) -> list[Any]:
    constants = [_of_code(part) if isinstance(part, types.CodeType) else part for part in code.co_consts]
    return [code.co_code, code.co_names, constants]
