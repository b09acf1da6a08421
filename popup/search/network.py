"""What an attached network is asked: its scores, its densities, and to go on by a step."""

from __future__ import annotations

import torch
from torch import nn

from popup.errors import UsageError, check_number
from popup.products.products import best_kernels
from popup.search.density import Densities, density_row
from popup.search.owners import check_owners
from popup.search.search import Search

ATTRIBUTE = "popup_search"
WRAPPED = ("_orig_mod", "module", "_forward_module", "_fsdp_wrapped_module")  # what wrappers call the network that they wrap


def unwrapped(net: nn.Module) -> nn.Module:
    """The attached network inside of what wraps it (DistributedDataParallel, AveragedModel, torch.compile, Fabric); or `net`
    itself, if none is. A UsageError for what is no network."""
    if not isinstance(net, nn.Module):
        raise UsageError(f"net is a {type(net).__name__}: pass the network itself, a torch.nn.Module")
    if isinstance(net, torch.jit.ScriptModule):
        raise UsageError(f"net is a {type(net).__name__}, a program that torch.jit made: pass the network that it was made of")
    inner = net
    while ATTRIBUTE not in vars(inner):
        found = next((part for name in WRAPPED if (part := inner._modules.get(name)) is not None), None)
        if found is None:
            return net
        inner = found
    return inner


def search_of(net: nn.Module) -> Search:
    """The search that `attach` left on `net`, or on what it wraps; a UsageError if there is none."""
    net = unwrapped(net)
    search = vars(net).get(ATTRIBUTE)
    if search is None:
        raise UsageError(f"{type(net).__name__} is not attached: call popup.attach(net, ...) first")
    check_owners(search, net)
    return search


def computing(net: nn.Module) -> str:
    """How the layers compute, in words: "dense", or on their edges alone by which kernels, and how many of them."""
    layers = search_of(net).layers
    sparse = sum(layer.sparse for layer in layers)
    return f"sparse ({best_kernels().name}), {sparse} of {len(layers)} layers" if sparse else "dense"


def is_attached(net: nn.Module) -> bool:
    """Whether `net` is the network that attach was called on."""
    return vars(net).get(ATTRIBUTE) is not None


def scores(net: nn.Module) -> list[nn.Parameter]:
    """The only parameters that learn: one 1-D float32 tensor [edges] a layer. Hand them to any optimiser."""
    return search_of(net).scores()


def advance(net: nn.Module, progress: float) -> None:
    """Tell the search in `net` that a step of the optimiser is done, `progress` in [0, 1] of the whole search being behind
    it. For loops of one's own with a method or a schedule that changes on the way; `popup.fit` does it."""
    search_of(net).advance(check_number("progress", progress, 0.0, 1.0))


def penalty(net: nn.Module) -> torch.Tensor:
    """What the method wants added to the loss, a scalar; 0 for those that want nothing."""
    search = search_of(net)
    found = search.penalty()
    return search.scores()[0].new_zeros(()) if found is None else found


def densities(net: nn.Module) -> Densities:
    """One row a layer, with what S_P keeps now (under a global scope it moves between the layers)."""
    search = search_of(net)
    return Densities(density_row(layer.spec, layer.p_l, layer.count, kept, layer.own_k)
                     for layer, kept in zip(search.layers, search.counts(), strict=True))
