"""What torch.nn.utils.parametrize has put on a module."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.parametrize import ParametrizationList


def lists_on(module: nn.Module) -> dict[str, ParametrizationList]:
    """The list of parametrizations of each attribute of `module` itself that has one, by the attribute's name."""
    held = module._modules.get("parametrizations")
    found = held._modules.items() if held is not None else ()
    return {name: parts for name, parts in found if isinstance(parts, ParametrizationList)}
