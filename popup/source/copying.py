"""Deep copies of networks, also of those with tensors that torch makes no deep copy of: compressed sparse ones, as the adjacency
matrix of a graph network is, nested ones and those of oneDNN."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
import torch.fx
from torch import nn

Net = TypeVar("Net", bound=nn.Module)
COPIED = (torch.strided, torch.sparse_coo, torch.jagged)  # the layouts that torch makes deep copies of


def deep_copy(net: Net, memo: dict[int, Any] | None = None) -> Net:
    """`copy.deepcopy` of a network. `memo`: what stands for an object in the copy, by the object's id."""
    memo = {} if memo is None else memo
    for module in net.modules():
        for value in (*vars(module).values(), *module._buffers.values()):
            if isinstance(value, torch.Tensor) and not _is_copied(value):
                memo.setdefault(id(value), value.detach().clone())
    copied = copy.deepcopy(net, memo)
    if isinstance(net, torch.fx.GraphModule):  # whose __deepcopy__ leaves out hooks and attributes of others
        for name in vars(net).keys() - vars(copied).keys() | {name for name in vars(net) if name.endswith("_hooks")}:
            vars(copied)[name] = copy.deepcopy(vars(net)[name], memo)
    return copied


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
