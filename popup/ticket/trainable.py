"""A ticket whose own weights learn in any loop, while its zeros stay zero whatever moves the weights.

The weight that a module computes with is made of a parameter each time it is asked for: W at the kept edges, 0 elsewhere
(torch.nn.utils.parametrize). What an optimiser writes outside the mask is used by nothing, and gets gradients of 0. To mask
gradients alone would not do: an optimiser that mixes entries (Muon), adds noise or swaps weights for averages moves them without
a gradient. To mask after each step would have to know the optimiser, and leave weights wrong between the two. The parameter has
the weight's shape, since some optimisers look at that.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.utils import parametrize

from popup.errors import UsageError
from popup.source.layers import locate
from popup.source.parametrized import lists_on


class Kept(nn.Module):
    """A parametrization: a weight -> the same at the kept edges, exactly 0 elsewhere. `order`: the names of its module's
    parameters. The mask is in no state_dict, so that no file changes it."""

    mask: torch.Tensor

    def __init__(self, mask: torch.Tensor, order: tuple[str, ...]) -> None:
        super().__init__()
        self.order = order
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return torch.where(self.mask, weight, 0)  # times the mask, an infinite gradient would be none at the zeros

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        """What is assigned to the weight is taken at the kept edges."""
        return self(weight)


def hold_zeros(net: nn.Module, masks: Mapping[str, torch.Tensor]) -> nn.Module:
    """Let the plain network's weights learn at the entries of `masks` alone (bool, of their shapes, by parameter name), and its
    other parameters as they are. Returns `net`, changed in place."""
    orders = {name: tuple(locate(net, name)[0]._parameters) for name in masks}
    for name, mask in masks.items():
        module, attribute = locate(net, name)
        parametrize.register_parametrization(module, attribute, Kept(mask.to(getattr(module, attribute).device), orders[name]))
    for parameter in net.parameters():
        if parameter.is_floating_point() or parameter.is_complex():
            parameter.requires_grad_(True)
    return net


def release(net: nn.Module) -> nn.Module:
    """Make the weights of a ticket that was applied to be trained plain parameters again, zeros and all, in place, as for
    `state_dict()`. Returns `net`. A UsageError, before anything is changed, if somebody has put more on one of them."""
    held = [(path, module) for path, module in net.named_modules() if _parts(module)]
    for path, module in held:
        if any(len(parts) != 1 or not isinstance(parts[0], Kept) for parts in lists_on(module).values()):
            raise UsageError(f"{path or type(net).__name__} has parametrizations beside the ticket's: remove these first")
    for _, module in held:
        order = _parts(module)[0].order
        weights = {name: nn.Parameter(getattr(module, name).detach().clone(), parts.get_parameter("original").requires_grad)
                   for name, parts in lists_on(module).items()}
        module.__class__ = parametrize.type_before_parametrizations(module)  # torch's own way breaks a deep copy's class
        del module.parametrizations
        for name, weight in weights.items():
            setattr(module, name, weight)
        for name in order:
            module._parameters[name] = module._parameters.pop(name)
    return net


def _parts(module: nn.Module) -> list[Kept]:
    """What holds zeros in the module's own weights."""
    return [part for parts in lists_on(module).values() for part in parts if isinstance(part, Kept)]
