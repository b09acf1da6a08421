"""The user's network given back as it came, if it is refused while it is made ready."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy


class AsItCame:
    """All that `attach` changes of a plain network: what its modules are and hold, in which order, what learns, and the values of
    all tensors but the `masked` ones, in whose place scores come while nobody writes to them."""

    def __init__(self, net: nn.Module, masked: Collection[str]) -> None:
        self._modules = [(module, type(module), [(name, value, _contents(value)) for name, value in vars(module).items()])
                         for module in net.modules()]
        tensors = [*net.named_parameters(), *net.named_buffers()]
        self._tensors = [(tensor, tensor.requires_grad, None if name in masked or is_lazy(tensor) else tensor.detach().clone())
                         for name, tensor in tensors]

    @torch.no_grad()
    def restore(self) -> None:
        """Let the network be so again, the same objects in it."""
        for module, kind, held in self._modules:
            if type(module) is not kind:  # a class that torch's parametrize has made
                module.__class__ = kind
            vars(module).clear()
            for name, value, contents in held:
                if contents is not None:  # the same dict, which the handles of hooks know
                    value.clear()
                    value.update(contents)
                vars(module)[name] = value
        for tensor, learns, values in self._tensors:
            if values is not None:
                tensor.data.copy_(values)
            if tensor.requires_grad != learns:
                tensor.requires_grad_(learns)


def _contents(value: Any) -> dict[Any, Any] | None:
    """What a dict of a module holds (its parameters, its hooks); None for what is no dict."""
    return dict(value) if type(value) in (dict, OrderedDict) else None


@contextlib.contextmanager
def restored_if_refused(net: nn.Module, masked: Collection[str]) -> Iterator[None]:
    """If the block, which attaches to the plain network `net`, ends by an exception or an interrupt, the network is as it came.
    `masked`: the names of what attach masks."""
    before = AsItCame(net, masked)
    try:
        yield
    except BaseException:
        before.restore()
        raise
