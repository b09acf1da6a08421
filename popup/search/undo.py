"""All or nothing: a network that is being changed goes back to what it was, whatever ends the change before its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from popup.source.frozen import written_by_freeze


@contextmanager
def all_or_nothing(net: nn.Module) -> Iterator[None]:
    """Within it `net` is frozen, its tensors, modules' classes, attributes and hooks are replaced; no tensor is written to but by
    `freeze`. An interrupt and an error leave it as it was."""
    modules = [(module, type(module), _copied(vars(module))) for module in net.modules()]
    tensors = [(tensor, tensor.detach().clone()) for tensor in written_by_freeze(net)]
    learned = [(parameter, parameter.requires_grad) for parameter in net.parameters()]
    try:
        yield
    except BaseException:
        for module, kind, (attributes, registries) in modules:
            object.__setattr__(module, "__class__", kind)  # not by a __setattr__ of its own
            vars(module).clear()
            vars(module).update(attributes)
            for registry, entries in registries:
                registry.clear()
                registry.update(entries)
        for tensor, values in tensors:
            tensor.data.copy_(values)
        for parameter, learns in learned:
            if parameter.requires_grad is not learns:
                parameter.requires_grad_(learns)
        raise


def _copied(attributes: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[dict[Any, Any], dict[Any, Any]]]]:
    """A module's attributes, and those which are registries (of parameters, hooks, modules), each with its entries."""
    return dict(attributes), [(value, dict(value)) for value in attributes.values() if isinstance(value, dict)]
