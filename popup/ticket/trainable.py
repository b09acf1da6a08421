"""A ticket whose own weights learn in any loop, while its zeros stay zero whatever moves the weights.

The weight that a module computes with is made of a parameter each time it is asked for: W at the kept edges, 0 elsewhere
(torch.nn.utils.parametrize). What an optimiser writes outside the mask is used by nothing, and gets gradients of 0. To mask
gradients alone would not do: an optimiser that mixes entries (Muon), adds noise or swaps weights for averages moves them without
a gradient. To mask after each step would have to know the optimiser, and leave weights wrong between the two. The parameter has
the weight's shape, since some optimisers look at that. A tensor that several modules use stays one parameter, masked in each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set

import torch
from torch import nn
from torch.nn.utils import parametrize

from popup.errors import UsageError
from popup.source.layers import Layer, locate
from popup.source.parametrized import lists_on
from popup.source.undo import all_or_nothing
from popup.ticket.sealed import one_line


class Kept(nn.Module):
    """A parametrization: a weight -> the same at the kept edges, exactly 0 elsewhere. `order`: the names of its module's
    parameters, so that each user of a tensor has one of its own. The mask is in no state_dict, so that no file changes it."""

    mask: torch.Tensor

    def __init__(self, mask: torch.Tensor, order: tuple[str, ...]) -> None:
        super().__init__()
        self.order, self.put_on = order, False
        self.register_buffer("mask", mask, persistent=False)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Kept:
        """What torch moves a module by. `to_empty` gives memory without what was there, and from the device "meta" there is no
        way back."""
        mask = self.mask
        super()._apply(fn, recurse)
        if mask.is_meta and not self.mask.is_meta:
            self.mask = mask
            raise UsageError("the zeros of a ticket that was applied to be trained were left behind when its network went to the "
                             "device \"meta\": apply the ticket to a network that has its memory")
        if not mask.is_meta and not self.mask.is_meta:
            self.mask.copy_(mask)
        return self

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return torch.where(self.mask, weight, 0)  # times the mask, an infinite gradient would be none at the zeros

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        """What is assigned to the weight is taken at the kept edges. When torch registers this it asks too, and is left with the
        parameter as it is: else it would give it other memory."""
        if not self.put_on:
            raise NotImplementedError
        return self(weight)


def held_fixed(net: nn.Module) -> set[str]:
    """The names of the parameters that a network holds fixed while others learn, such as a table of positions. A network of which
    none learns was frozen as a whole, as `apply` and `attach` do it, and holds none fixed of its own."""
    parameters = dict(net.named_parameters(remove_duplicate=False))
    fixed = {name for name, parameter in parameters.items() if not parameter.requires_grad}
    return fixed if len(fixed) < len(parameters) else set()


def hold_zeros(net: nn.Module, masks: Sequence[tuple[Layer, torch.Tensor]], fixed: Set[str] = frozenset()) -> nn.Module:
    """Let the plain network's weights learn at the entries of their masks alone (bool, of the layers' shapes), in every module
    that uses them, and its other parameters as they are, but for those named in `fixed`. No value changes. Returns `net`, changed
    in place."""
    orders = {name: tuple(locate(net, name)[0]._parameters) for layer, _ in masks for name in layer.names}
    for layer, mask in masks:
        for name in layer.names:
            module, attribute = locate(net, name)
            if attribute not in lists_on(module):  # a module may have several names
                mask = mask.to(getattr(module, attribute).device)
                _put_on(module, name, Kept(mask, orders[name]))
    for name, parameter in net.named_parameters(remove_duplicate=False):
        if name not in fixed and (parameter.is_floating_point() or parameter.is_complex()):
            parameter.requires_grad_(True)
    return net


def _put_on(module: nn.Module, name: str, part: Kept) -> None:
    try:
        # unsafe: the usual checks would compute the weight once more
        parametrize.register_parametrization(module, name.rpartition(".")[2], part, unsafe=True)
    except Exception as error:  # of a class that allows no subclass, say, or lets nothing be taken off
        raise UsageError(f"{name} cannot be held at its zeros, since torch cannot parametrize its {type(module).__name__} "
                         f"({type(error).__name__}: {one_line(error)}): apply the ticket without trainable, or build the network "
                         "with another class") from error
    part.put_on = True


def release(net: nn.Module) -> nn.Module:
    """Make the weights of a ticket that was applied to be trained plain parameters again, zeros and all, in place, as for
    `state_dict()`; what was tied stays tied. Returns `net`. A UsageError, before anything is changed, if somebody has put more on
    one of them; whatever else fails is undone."""
    held = [(path, module) for path, module in net.named_modules() if _parts(module)]
    for path, module in held:
        if any(len(parts) != 1 or not isinstance(parts[0], Kept) for parts in lists_on(module).values()):
            raise UsageError(f"{path or type(net).__name__} has parametrizations beside the ticket's: remove these first")
    made: dict[int, nn.Parameter] = {}
    with all_or_nothing(net):
        for _, module in held:
            _release(module, made)
    return net


def _release(module: nn.Module, made: dict[int, nn.Parameter]) -> None:
    """`made`: the plain parameters by the identity of those that they were made of."""
    order, weights = _parts(module)[0].order, {}
    for name, parts in lists_on(module).items():
        old = parts.get_parameter("original")
        if id(old) not in made:
            made[id(old)] = nn.Parameter(getattr(module, name).detach().clone(), old.requires_grad)
        weights[name] = made[id(old)]
    module.__class__ = parametrize.type_before_parametrizations(module)  # torch's own way breaks a deep copy's class
    del module.parametrizations
    for name, weight in weights.items():
        setattr(module, name, weight)
    for name in (*order, *(name for name in module._parameters if name not in order)):
        if name in module._parameters:  # somebody may have made it a buffer, say
            module._parameters[name] = module._parameters.pop(name)


def _parts(module: nn.Module) -> list[Kept]:
    """What holds zeros in the module's own weights."""
    return [part for parts in lists_on(module).values() for part in parts if isinstance(part, Kept)]
