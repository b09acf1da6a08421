"""All or nothing: a network that is being changed goes back to what it was, whatever ends the change before its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def all_or_nothing(net: nn.Module, written: Sequence[torch.Tensor] = ()) -> Iterator[None]:
    """If the block raises, an interrupt too, the modules of `net` are as before: their classes, attributes and hooks, their
    parameters and buffers in order, and which of them learn. Values are kept of the tensors in `written` alone, since all would
    take the network's memory once more: check first what else is written to, and write it last."""
    modules = [(module, type(module), _copied(vars(module))) for module in net.modules()]
    values = [(tensor, tensor.detach().clone()) for tensor in written]
    learned = [(parameter, parameter.requires_grad) for parameter in net.parameters()]
    try:
        yield
    except BaseException:
        for module, kind, (attributes, registries) in modules:
            object.__setattr__(module, "__class__", kind)  # not by a __setattr__ of its own
            vars(module).clear()
            vars(module).update(attributes)
            for registry, entries in registries:  # in place, since somebody may hold it
                registry.clear()
                registry.update(entries)
        for tensor, before in values:
            tensor.data.copy_(before)
        for parameter, learns in learned:
            if parameter.requires_grad is not learns:
                parameter.requires_grad_(learns)
        raise


def _copied(attributes: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[dict[Any, Any], dict[Any, Any]]]]:
    """A module's attributes, and those which are registries (of parameters, hooks, modules), each with its entries."""
    return dict(attributes), [(value, dict(value)) for value in attributes.values() if isinstance(value, dict)]
