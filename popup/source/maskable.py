"""Which modules have weights that can be masked: a line each, with the weights' names and which of their sides are in and out.

A kind of module is a class, or, of a library that need not be installed, a pattern of its module path and name. One's own:

    popup.register(MyLinear, "in out", weight="kernel")
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import isfinite, prod
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from popup.errors import UsageError

WORDS = ("copies", "out", "in", "*")
ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


@dataclass(frozen=True)
class Sides:
    """What a weight whose shape does not say so connects: `inputs` with `outputs`, through a filter of sides `kernel`, as often
    as the tensor holds that many entries. `fan_in`: the entries that feed one output. `inputs_first`: whether in the tensor the
    inputs come before the outputs."""

    outputs: int
    inputs: int
    kernel: tuple[int, ...]
    fan_in: float
    inputs_first: bool = False

    @property
    def entries(self) -> int:
        """Of one copy."""
        return self.outputs * self.inputs * prod(self.kernel)


Reader = Callable[[nn.Module, str], Sides | None]  # (module, its weight's name) -> None where the shape says it


def in_order(order: str, fan_in: float | None = None) -> Reader:
    """Reads a weight whose dimensions are in that `order`, a word each: copies, out, in, and * for the filter's sides."""
    words = order.split()
    if not words or set(words) - set(WORDS) or not {"in", "out"} <= set(words) or "*" in words[:-1] or words.count("out") > 1:
        raise UsageError(f"order is {order!r}: name each dimension of the weight once by copies, out or in, with * at the end "
                         "for a filter's sides, as in 'out in', 'copies in out' or 'out in *'")
    if fan_in is not None and not (isinstance(fan_in, (int, float)) and isfinite(fan_in) and fan_in > 0):
        raise UsageError(f"fan_in is {fan_in!r}: it must be a number above 0, the entries that feed one output")
    names = words[:-1] if words[-1] == "*" else words

    def read(module: nn.Module, weight: str) -> Sides | None:
        shape = tuple(getattr(module, weight).shape)
        if len(shape) < len(names) or (words[-1] != "*" and len(shape) > len(names)):
            raise UsageError(f"{weight} of {type(module).__name__} has shape {list(shape)}, and is registered as {order!r}: "
                             "register it with a word for each of its dimensions")
        size = {word: prod(side for side, name in zip(shape, names, strict=False) if name == word) for word in WORDS}
        kernel = shape[len(names):]
        feeding = fan_in or size["in"] * prod(kernel)
        found = Sides(size["out"], size["in"], kernel, feeding, names.index("in") < names.index("out"))
        plain = names[0] == "out" and "copies" not in names and names.count("in") == 1
        return None if plain and fan_in is None else found

    return read


def transposed(module: Any, weight: str) -> Sides:
    """A transposed convolution: [in, out / groups, *kernel]. A step leaves an output that part of the filter's taps."""
    inputs = module.in_channels // module.groups
    taps: float = prod(max(1.0, side / step) for side, step in zip(module.kernel_size, module.stride, strict=True))
    return Sides(module.out_channels, inputs, tuple(module.kernel_size), inputs * taps, inputs_first=True)


def expert(module: Any, weight: str) -> Sides:
    """One of transformers' experts, [experts, out, in] or, as GPT-OSS has them, [experts, in, out]: down_proj takes what the
    other gives, half of it where that is gate and value at once, so that the shapes say which it is."""
    down = module.down_proj.shape
    up = next(getattr(module, name).shape for name in ("gate_up_proj", "up_proj") if getattr(module, name, None) is not None)
    gates = 2 if getattr(module, "gate_up_proj", None) is not None else 1
    first = (up[1], up[2]) != (gates * down[2], down[1]) and (up[2], up[1]) == (gates * down[1], down[2])
    shape = getattr(module, weight).shape
    outputs, inputs = (shape[2], shape[1]) if first else (shape[1], shape[2])
    return Sides(outputs, inputs, (), inputs, inputs_first=first)


def mixed(module: Any, weight: str) -> Sides:
    """timm's CondConv2d, [experts, a whole filter], of which each input has its own mixture."""
    inputs = module.in_channels // module.groups
    return Sides(module.out_channels, inputs, tuple(module.kernel_size), inputs * prod(module.kernel_size))


@dataclass(frozen=True)
class Kind:
    """One kind of module: its class, or a pattern of MODULE.NAME, its weights' names, and what reads their sides. `asked`:
    whether it is masked only where `only` names it. `tried`: whether attach need not try what its forward does with them, since
    the tests do (experts may take gigabytes). `cast`: whether under autocast its forward takes its weights in autocast's type."""

    of: type[nn.Module] | str
    weights: tuple[str, ...]
    read: Reader
    asked: bool = False
    tried: bool = False
    cast: bool = False

    def has(self, module: nn.Module) -> bool:
        """Whether `module` is of this kind."""
        if not isinstance(self.of, str):
            return isinstance(module, self.of)
        return any(fnmatchcase(f"{kind.__module__}.{kind.__qualname__}", self.of) for kind in type(module).__mro__)

    def held_by(self, module: nn.Module) -> tuple[str, ...]:
        """Which of the weights `module` itself holds; a part of it may have such a name."""
        return tuple(name for name in self.weights if isinstance(getattr(module, name, None), torch.Tensor))


CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
EXPERTS = ("gate_up_proj", "gate_proj", "up_proj", "down_proj")

KINDS: list[Kind] = [
    Kind(nn.Linear, ("weight",), in_order("out in"), cast=True),
    *(Kind(convolution, ("weight",), in_order("out in *"), cast=True) for convolution in CONVOLUTIONS),
    *(Kind(convolution, ("weight",), transposed, cast=True) for convolution in TRANSPOSED),
    Kind(nn.MultiheadAttention, ATTENTION, in_order("out in"), cast=True),
    Kind(nn.Bilinear, ("weight",), in_order("out in in")),
    Kind(nn.Embedding, ("weight",), in_order("in out", fan_in=1), asked=True),
    Kind("transformers.pytorch_utils.Conv1D", ("weight",), in_order("in out"), tried=True, cast=True),
    Kind("transformers.models.*ParallelExperts", ("weight",), in_order("copies out in"), tried=True),
    Kind("transformers.models.*Experts", EXPERTS, expert, tried=True),
    Kind("transformers.models.*Router", ("weight",), in_order("out in"), tried=True),
    Kind("timm.layers.cond_conv2d.CondConv2d", ("weight",), mixed, tried=True),
]


def register(kind: type[nn.Module] | str, order: str = "out in", *, weight: str | tuple[str, ...] = "weight",
             fan_in: float | None = None) -> None:
    """Have the weights of a `kind` of module masked: a class, or a pattern of MODULE.NAME, as "my_package.layers.*Linear".

    `order` says what the dimensions of the weight are, a word each: "out in", "in out", "copies out in" for weights that lie
    behind one another, "out in *" with a filter's sides at the end. `weight`: the parameter's name, or several. `fan_in`: the
    entries that feed one output, where these are not the inputs times the filter. What is registered later goes before what was
    there. A ticket holds what it needs of this, so that who applies it need register nothing.
    """
    if not (isinstance(kind, str) and kind) and not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise UsageError(f"kind is {kind!r:.80}: pass a class of modules, or a pattern of its module path and name, as "
                         "'my_package.layers.*Linear'")
    names = (weight,) if isinstance(weight, str) else tuple(weight)
    if not names or not all(isinstance(name, str) and name.isidentifier() for name in names):
        raise UsageError(f"weight is {weight!r:.80}: pass the name of the parameter that is masked, or several")
    KINDS.insert(0, Kind(kind, names, in_order(order, fan_in)))


def maskable_entries(net: nn.Module) -> int:
    """How many weights of `net` can be masked, but for those that are attached."""
    pairs = ((module, kind) for module in net.modules() if (kind := next((kind for kind in KINDS if kind.has(module)), None)))
    tensors = (module._parameters.get(name) for module, kind in pairs if not kind.asked for name in kind.weights)
    return sum({id(tensor): tensor.numel() for tensor in tensors if tensor is not None and not is_lazy(tensor)}.values())


def is_cast(module: nn.Module) -> bool:
    """Whether autocast casts the weights of `module` itself: products do, and not what a class of somebody else's makes of them,
    nor a bilinear layer or a table, whose own type is used."""
    kind = kind_of(module)
    if kind is None or not kind.cast or "forward" in vars(module):
        return False
    names = ("forward", "_conv_forward")
    return isinstance(kind.of, str) or all(getattr(type(module), name, None) is getattr(kind.of, name, None) for name in names)


def kind_of(module: nn.Module) -> Kind | None:
    """The first kind that `module` is of and has a weight of; None: it has no weights to mask."""
    return next((kind for kind in KINDS if kind.has(module) and kind.held_by(module)), None)
