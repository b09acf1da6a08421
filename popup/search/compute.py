"""Which layers of a network compute on their edges alone, and how a layer's own call becomes the products of its edges."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import FrameType
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules import module as of_all
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from popup.products.convolution import ConvProducts, Filter, rows_of
from popup.products.products import Products, best_kernels, by_units
from popup.products.rule import pays
from popup.products.structure import MOST
from popup.source.layers import Layer, locate

COMPUTES = ("auto", "dense", "sparse")
EACH_NUMBER = {nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Softplus,
               nn.Hardtanh, nn.Hardswish}  # not Dropout: what it draws goes by how its input lies
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")  # of modules, and with _global of all
KINDS = {2: nn.Linear, 4: nn.Conv2d}  # by the dimensions of the weight: whose forward pass is one product of it


class LayerProducts(Protocol):
    """A layer's three products on its edges, in the words of the call that its module makes."""

    def takes(self, func: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether a call of torch's is the layer's own product."""
        ...

    def keep(self, values: torch.Tensor, selected: torch.Tensor | None) -> Any:
        """The values [edges] where `selected` [edges] is true, or those other than 0, as the products want them."""
        ...

    def hold(self, x: torch.Tensor) -> torch.Tensor:
        """The input as `forward` and `backward` want it: what is kept for the backward pass."""
        ...

    def forward(self, held: torch.Tensor, kept: Any, shape: torch.Size) -> torch.Tensor:
        """The output, of an input of that shape."""
        ...

    def backward(self, gradient: torch.Tensor, held: torch.Tensor, kept: Any, shape: torch.Size,
                 wanted: bool) -> tuple[torch.Tensor | None, torch.Tensor]:
        """The gradients of the input, if it is wanted, and of the edges [edges]."""
        ...


@dataclass(frozen=True, eq=False)
class Onward:
    """Some modules of a chain, from `place` on: a layer, and what its output goes through next up to another linear layer."""

    chain: nn.Sequential
    place: int
    parts: tuple[nn.Module, ...]

    def unseen(self) -> bool:
        """Whether nobody looks at how that output lies, nor its gradient: the chain itself runs them, as they were found, and
        without hooks."""
        now = tuple(self.chain._modules.values())[self.place:self.place + len(self.parts)]
        if len(now) < len(self.parts) or any(one is not other for one, other in zip(now, self.parts, strict=True)):
            return False
        hooked = any(getattr(of_all, f"_global{kind}") or any(getattr(part, kind) for part in now) for kind in HOOKS)
        return not hooked and not any("forward" in vars(part) for part in now) and _runs(self.chain)


@dataclass(frozen=True, eq=False)
class LinearCall:
    """F.linear(x, weight, bias) of x [..., in]. `onward`: where an output [n, out] goes next, if that does not mind that it lies
    unit by unit."""

    products: Products[Any, Any]
    onward: Onward | None = None

    def takes(self, func: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        return func is F.linear and set(kwargs) <= {"bias"}

    def keep(self, values: torch.Tensor, selected: torch.Tensor | None) -> Any:
        return self.products.keep(values, selected)

    def hold(self, x: torch.Tensor) -> torch.Tensor:
        return by_units(_rows(x))  # [n, in], lying unit by unit

    def forward(self, held: torch.Tensor, kept: Any, shape: torch.Size) -> torch.Tensor:
        y = self.products.forward(held, kept)
        lies = len(shape) == 2 and self.onward is not None and self.onward.unseen()
        return (y if lies else y.contiguous().view(*shape[:-1], y.shape[-1])).data  # no view, which nobody could write to

    def backward(self, gradient: torch.Tensor, held: torch.Tensor, kept: Any, shape: torch.Size,
                 wanted: bool) -> tuple[torch.Tensor | None, torch.Tensor]:
        units = by_units(_rows(gradient))
        of_edges = self.products.edge_gradient(units, held)
        return self.products.input_gradient(units, kept).reshape(shape) if wanted else None, of_edges


@dataclass(frozen=True, eq=False)
class ConvCall:
    """F.conv2d(x, weight, bias, stride, padding, dilation, groups) of x [n, in, height, width], in one group."""

    products: ConvProducts

    def takes(self, func: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        how = self.products.filter
        if func is not F.conv2d or kwargs or args[0].dim() != 4 or args[3:] != (how.stride, how.padding, how.dilation, 1):
            return False
        return min(*args[0].shape[2:], *rows_of(how, args[0]).outputs) > 0  # else torch says what is wrong

    def keep(self, values: torch.Tensor, selected: torch.Tensor | None) -> Any:
        return self.products.keep(values, selected)

    def hold(self, x: torch.Tensor) -> torch.Tensor:
        return x.detach()

    def forward(self, held: torch.Tensor, kept: Any, shape: torch.Size) -> torch.Tensor:
        return self.products.forward(held, kept)

    def backward(self, gradient: torch.Tensor, held: torch.Tensor, kept: Any, shape: torch.Size,
                 wanted: bool) -> tuple[torch.Tensor | None, torch.Tensor]:
        return self.products.gradients(gradient, held, kept if wanted else None)


def sparse_layers(net: nn.Module, densities: Sequence[tuple[Layer, float]], compute: str, against: torch.dtype,
                  device: torch.device | None = None, kernels: str = "") -> set[str]:
    """The names of the layers of `net`, given in its order with their p_l, that compute on their edges alone; the rest is as
    `computes_sparsely` takes it."""
    found, chains = set[str](), handovers(net)
    handed: set[nn.Module] = set()  # to which a sparse layer hands what it gives as it lies
    for spec, p_l in densities:
        module, _ = locate(net, spec.name)
        if computes_sparsely(net, spec, p_l, compute, against, device, module in handed, kernels):
            found.add(spec.name)
            handed.update(chains[module].parts[-1:] if module in chains else ())
    return found


def computes_sparsely(net: nn.Module, spec: Layer, p_l: float, compute: str, against: torch.dtype,
                      device: torch.device | None = None, handed: bool = False, kernels: str = "") -> bool:
    """Whether a layer of `net` computes on its edges alone: asked for, or by the rule of popup/products/rule.py, which knows
    densities and not their draws. `against`: the number type of the dense product that is the other choice; `device`: where the
    network will be, if it is not there yet; `handed`: whether its input comes from a sparse layer, and lies unit by unit;
    `kernels`: the name of other ones than those at hand."""
    module, attribute = locate(net, spec.name)
    kind = KINDS.get(len(spec.shape))
    if compute == "dense" or kind is None or spec.also or attribute != "weight" or not _is_plain(module, kind):
        return False
    kernels = kernels or best_kernels().name
    if isinstance(module, nn.Conv2d) and (kernels != "numba" or prod(spec.kernel) > MOST):
        return False
    tensor: torch.Tensor = getattr(module, attribute)
    device = device or tensor.device
    if device.type != "cpu" or tensor.dtype not in (torch.float32, torch.float64):
        return False
    if compute == "sparse":
        return True
    return tensor.dtype is torch.float32 and pays(spec.shape, p_l * spec.entries, against, device, kernels, handed=handed)


def _is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module's forward pass is torch's own: one product in one group, with zeros at the margins."""
    own = type(module).forward is kind.forward and "forward" not in vars(module)
    if isinstance(module, NonDynamicallyQuantizableLinear):  # torch's own, whose weight its owner reads and nobody calls
        return False
    if kind is nn.Conv2d:
        return (own and isinstance(module, nn.Conv2d) and type(module)._conv_forward is nn.Conv2d._conv_forward
                and module.groups == 1 and module.padding_mode == "zeros"
                and _two(module.stride, 1) and _two(module.padding, 0) and _two(module.dilation, 1))
    return own and isinstance(module, kind)


def _two(sides: object, least: int) -> bool:
    """Whether it is what torch makes of one number: else torch says what it means by it, or what is wrong."""
    return isinstance(sides, tuple) and len(sides) == 2 and all(type(side) is int and side >= least for side in sides)


def _rows(x: torch.Tensor) -> torch.Tensor:
    """[n, units] of [..., units], of which any may be 0."""
    return x.reshape(x.shape[:-1].numel(), x.shape[-1])


def _runs(chain: nn.Sequential) -> bool:
    """Whether it is the forward pass of `chain` that calls, and not one that goes through its modules or a slice of it."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not nn.Sequential.forward.__code__:
        frame = frame.f_back
    return frame is not None and frame.f_locals["self"] is chain


def handovers(net: nn.Module) -> dict[nn.Module, Onward]:
    """Each module with what comes next, if a chain of layers hands what it gives, through functions of single numbers at most,
    to another linear layer: in the first such chain, where it first stands."""
    found: dict[nn.Module, Onward] = {}
    for chain in (part for part in net.modules() if type(part) is nn.Sequential):
        parts, end = list(chain), None
        for place in reversed(range(len(parts))):
            first = parts[place] not in found or found[parts[place]].chain is chain
            if first and end is not None and isinstance(parts[end], nn.Linear) and _is_plain(parts[end], nn.Linear):
                found[parts[place]] = Onward(chain, place, tuple(parts[place:end + 1]))
            end = end if type(parts[place]) in EACH_NUMBER else place
    return found


def calls_of(net: nn.Module, layers: Mapping[Layer, np.ndarray]) -> dict[str, LayerProducts]:
    """By name the products of the `layers` that compute sparsely, whose edges are these flat indices, ascending. One hands on
    what it gives as it lies to another of them alone: a narrow dense product of such takes up to 15 times as long (MKL on an AMD
    EPYC, 128 x 2048 by 2048 x 10), which is more than copying it."""
    chains, sparse = handovers(net), {locate(net, spec.name)[0] for spec in layers}
    return {spec.name: call_of(locate(net, spec.name)[0], spec, edges, chains, sparse) for spec, edges in layers.items()}


def call_of(module: nn.Module, spec: Layer, edges: np.ndarray, chains: Mapping[nn.Module, Onward],
            sparse: Collection[nn.Module]) -> LayerProducts:
    """The products of one of them, which is `module`'s."""
    outputs, inputs = spec.shape[:2]
    if not isinstance(module, nn.Conv2d):
        onward = chains.get(module)
        sparsely = onward is not None and onward.parts[-1] in sparse
        return LinearCall(Products.of(edges, (outputs, inputs), best_kernels()), onward if sparsely else None)
    kernel, stride, padding, dilation = map(_pair, (spec.kernel, module.stride, module.padding, module.dilation))
    return ConvCall(ConvProducts.of(edges, (outputs, inputs, *kernel), Filter(kernel, stride, padding, dilation)))


def _pair(sides: str | tuple[int, ...]) -> tuple[int, int]:
    height, width = map(int, sides)  # two numbers, as it is plain
    return height, width
