"""The modes of modules, training or evaluation, which what is done to a network for a while leaves as they were."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TypeVar

from torch import nn

Net = TypeVar("Net", bound=nn.Module)


def in_mode(net: Net, training: bool) -> Net:
    """The network in training or in evaluation mode: train() of somebody else's may return nothing."""
    if training:
        net.train()
    else:
        net.eval()
    return net


@contextlib.contextmanager
def modes_kept(net: nn.Module) -> Iterator[None]:
    """After the block each module of `net` is in training or in evaluation as before it."""
    modes = [(module, module.training) for module in net.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
