"""An attached network made plain: the search taken off it, in place or in a copy."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from popup.errors import UsageError
from popup.search.network import ATTRIBUTE, search_of, unwrapped
from popup.search.refusals import refuse_inference, take_saving_back
from popup.search.search import Search
from popup.source.copying import deep_copy
from popup.source.layers import users
from popup.source.parametrized import lists_on
from popup.source.undo import all_or_nothing


def detach(net: nn.Module) -> nn.Module:
    """Take the search off `net`, in place: each weight becomes the plain, frozen tensor that its codes mean. Returns the network,
    without what wraps it. Raises UsageError, and changes nothing, if somebody else has parametrized a tensor since."""
    search, net = search_of(net), unwrapped(net)
    refuse_inference(net)
    weights = _plain_weights(net, search)
    with all_or_nothing(net):
        made = _made_plain(net, search, search.hooks, weights)
    for group in search.groups:  # whose dense weights would stay until Python looks for rings
        group.forget()
    return made


def _plain_weights(net: nn.Module, search: Search) -> list[torch.Tensor]:
    """The weight that each layer's codes mean, as a new tensor."""
    _refuse_others(net, search)
    return [layer.dense(codes) for layer, codes in zip(search.layers, search.codes(), strict=True)]


def _made_plain(net: nn.Module, search: Search, hooks: Sequence[RemovableHandle], weights: Sequence[torch.Tensor]) -> nn.Module:
    """`net` with `weights` in the place of the layers of `search`, and without its `hooks`; in place."""
    for layer, weight in zip(search.layers, weights, strict=True):
        plain = nn.Parameter(weight, requires_grad=False)
        for (module, attribute), order in zip(users(net, layer.spec), layer.orders, strict=True):
            _restore_class(module)
            setattr(module, attribute, plain)
            for name in (*order, *(name for name in module._parameters if name not in order)):
                if name in module._parameters:  # of a bias that is a layer too: not yet
                    module._parameters[name] = module._parameters.pop(name)
    for hook in hooks:
        hook.remove()
    delattr(net, ATTRIBUTE)
    take_saving_back(net)
    return net


def _refuse_others(net: nn.Module, search: Search) -> None:
    """A UsageError for a parametrization that is not of `search`, or is behind it, which `_restore_class` would lose."""
    ours = {id(layer) for layer in search.layers}
    for path, module in net.named_modules():
        if isinstance(module, parametrize.ParametrizationList) and {id(part) for part in module} - ours:
            holder, _, name = path.rpartition(".parametrizations.")
            if any(id(part[0]) in ours for part in lists_on(net.get_submodule(holder)).values()):
                raise UsageError(f"{holder}.{name} has been parametrized since attach: remove that parametrization first")


def _restore_class(module: nn.Module) -> None:
    """Undo torch's parametrization of a module. torch's own remove_parametrizations deletes the attribute from the
    module's class, which a deep copy shares with its original, and so would break the original."""
    if parametrize.is_parametrized(module):
        module.__class__ = parametrize.type_before_parametrizations(module)
        del module.parametrizations


def merge(net: nn.Module) -> nn.Module:
    """A plain copy of an attached network that computes the same; `net` stays attached."""
    search, net = search_of(net), unwrapped(net)
    weights = _plain_weights(net, search)
    searched = (search, *(module.parametrizations for layer in search.layers for module, _ in users(net, layer.spec)))
    memo: dict[int, Any] = {id(part): part for part in searched}  # of which the copy needs none
    plain = deep_copy(net, memo)
    _refuse_shared(net, plain, search)
    if vars(plain).get(ATTRIBUTE) is not search:  # a __deepcopy__ of the network's own, which does otherwise
        return detach(plain)
    return _made_plain(plain, search, copy.deepcopy(search.hooks, memo), weights)


def _refuse_shared(net: nn.Module, plain: nn.Module, search: Search) -> None:
    """A UsageError if a module that holds a layer of `net` is in its copy `plain` itself, and would lose its search there."""
    for layer in search.layers:
        for (module, _), (copied, _) in zip(users(net, layer.spec), users(plain, layer.spec), strict=True):
            if copied is module:
                raise UsageError(f"a deep copy of the network has the same {type(module).__name__} that holds {layer.spec.name}, "
                                 "by a __deepcopy__ of its own, and cannot be made plain: popup.detach(net) does that in place")
