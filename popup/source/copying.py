"""Deep copies of networks, also of those with what Python or torch makes no copy of: tensors that are compressed sparse, as the
adjacency matrix of a graph network is, nested or of oneDNN; activations that a module keeps; locks, open files, modules."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
import torch.fx
from torch import nn

Net = TypeVar("Net", bound=nn.Module)
TORCHS = vars(nn.Module()).keys()  # the attributes that each module has
COPIED = (torch.strided, torch.sparse_coo, torch.jagged)  # the layouts that torch makes deep copies of


def deep_copy(net: Net, memo: dict[int, Any] | None = None) -> Net:
    """`copy.deepcopy` of a network. `memo`: what stands for an object in the copy, by the object's id. Activations are copied
    without their graph; an attribute that cannot be copied is in both."""
    memo = {} if memo is None else memo
    for module in net.modules():
        for value in _tensors_in([*_attributes(module).values(), *module._buffers.values()]):
            if value.grad_fn is not None or not _is_copied(value):
                memo.setdefault(id(value), value.detach().clone())
    tried = dict(memo)  # a copy that fails leaves halves of copies behind
    try:
        copied = copy.deepcopy(net, tried)
        memo |= tried
    except (TypeError, RuntimeError):  # the second of a queue between processes
        memo |= _uncopyable(net, memo)
        copied = copy.deepcopy(net, memo)
    if isinstance(net, torch.fx.GraphModule):  # whose __deepcopy__ leaves out hooks and attributes of others
        for name in vars(net).keys() - vars(copied).keys() | {name for name in vars(net) if name.endswith("_hooks")}:
            vars(copied)[name] = copy.deepcopy(vars(net)[name], memo)
    return copied


def _attributes(module: nn.Module) -> dict[str, Any]:
    """Those that not each module has: its parameters, children and hooks are left out."""
    return {name: value for name, value in vars(module).items() if name not in TORCHS}


def _tensors_in(values: list[Any]) -> Iterator[torch.Tensor]:
    """The tensors among the values, and in lists and mappings of them, also inside one another."""
    left, seen = list(values), set()
    while left:
        value = left.pop()
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple, dict)) and id(value) not in seen:
            seen.add(id(value))
            left += value.values() if isinstance(value, dict) else value


def _uncopyable(net: nn.Module, memo: dict[int, Any]) -> dict[int, Any]:
    """The attributes of its modules that Python copies none of (a lock, an open file, a generator), each standing for itself."""
    found, parts = {}, memo | {id(module): module for module in net.modules()}
    for module in net.modules():
        for value in _attributes(module).values():
            if isinstance(value, (nn.Module, torch.Tensor)):
                continue
            try:
                copy.deepcopy(value, dict(parts))
            except (TypeError, RuntimeError):
                found[id(value)] = value
    return found


def without_hooks(copied: Net, original: nn.Module) -> Net:
    """A copy that is only looked at, without the hooks on its forward passes: they would tell their owner of passes that nobody
    made. A module that by a __deepcopy__ of its own is in both keeps them."""
    shared = set(original.modules())
    for module in copied.modules():
        for hooks in () if module in shared else (module._forward_hooks, module._forward_pre_hooks):
            hooks.clear()
    return copied


def _is_copied(tensor: torch.Tensor) -> bool:
    """Whether torch makes a deep copy of it."""
    return tensor.layout in COPIED and not (tensor.is_nested and tensor.layout is torch.strided)
