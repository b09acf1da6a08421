"""What of a network can be masked: its layers, by parameter name, weights and where it is asked for biases; and what else it
holds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.nn.utils import parametrize

from popup.errors import UsageError

MASKABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)
ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
GAIN = re.compile(r"layer_?scale|res_?scale|res_?weight|rezero|gamma|gain|(^|_)ls_?\d*$|(^|_)lambda_?\d+$")
PLACE = re.compile(r"token|(^|_)pos")  # what is added to activations, not multiplied with
TINY = 1.01e-2                         # 1e-2 in bf16 and fp16 is a little more
BIAS_OF = {"weight": "bias", "in_proj_weight": "in_proj_bias", "q_proj_weight": "in_proj_bias"}  # a module's weight: its bias


@dataclass(frozen=True)
class Layer:
    """One maskable tensor: its parameter name and shape, of a weight [out, in] or [out, in / groups, *kernel], of a bias
    [out]."""

    name: str
    shape: tuple[int, ...]
    weight: Layer | None = None      # of a bias: the weight whose outputs it is added to
    further: tuple[Layer, ...] = ()  # of a bias that is one for three weights: those of its second and last third

    @property
    def entries(self) -> int:
        """m_l, the number of weights (or biases)."""
        return prod(self.shape)

    @property
    def fan_in(self) -> int:
        """The entries that feed one output neuron or channel; a bias has its weight's."""
        return prod(self.shape[1:]) if self.weight is None else self.weight.fan_in

    @property
    def weights(self) -> tuple[Layer, ...]:
        """The weights whose deviations its equal parts have: itself; of a bias those that it is added to the outputs of."""
        return self.weight or self, *self.further

    @property
    def kernel(self) -> tuple[int, ...]:
        """The filter's sides; empty for a linear layer."""
        return self.shape[2:]


def locate(net: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds parameter `name`, and the parameter's name inside it."""
    path, _, attribute = name.rpartition(".")
    return net.get_submodule(path), attribute


def find_layers(net: nn.Module, biases: bool = False) -> list[Layer]:
    """The maskable layers of `net` in the order it defines them; with `biases` each weight is followed by its bias, if any.

    Raises UsageError, with the parameter's name, for a weight that is shared between modules, not yet
    initialised (lazy), or already parametrized, and for a network that has no maskable weight at all.
    """
    layers: list[Layer] = []
    seen: dict[int, str] = {}
    for path, module in net.named_modules(remove_duplicate=False):
        for attribute in _maskable(module, biases):
            name = f"{path}.{attribute}" if path else attribute
            weight = _plain_weight(module, attribute, name)
            if id(weight) in seen:
                raise UsageError(f"{name} is the same tensor as {seen[id(weight)]}: a tied weight cannot be "
                                 "masked twice; give each module its own")
            seen[id(weight)] = name
            layers.append(Layer(name, tuple(weight.shape), weight_of(name, layers[-1] if layers else None)))
    if not layers:
        raise UsageError(f"{type(net).__name__} has no Linear or Conv1d/2d/3d weight to mask")
    _refuse_other_ties(net, seen)
    _refuse_lazy(net)
    return with_further(layers)


def weight_of(name: str, before: Layer | None) -> Layer | None:
    """The layer `before` the one of that name, if it is the weight that this one is the bias of; else None."""
    if before is None:
        return None
    (path, _, attribute), (module, _, weight) = name.rpartition("."), before.name.rpartition(".")
    return before if path == module and BIAS_OF.get(weight) == attribute else None


def with_further(layers: Sequence[Layer]) -> list[Layer]:
    """The `layers`, the bias of attention with separate projections (kdim, vdim) with the weights of keys and values too."""
    found = {layer.name: layer for layer in layers}
    whole = []
    for layer in layers:
        path = layer.weight.name.removesuffix("q_proj_weight") if layer.weight else ""
        further = [found.get(f"{path}{name}") for name in ("k_proj_weight", "v_proj_weight")]
        thirds = layer.weight and all(part and 3 * part.shape[0] == layer.entries for part in (layer.weight, *further))
        whole.append(replace(layer, further=tuple(further)) if thirds else layer)
    return whole


def _maskable(module: nn.Module, biases: bool) -> list[str]:
    """The names of the maskable weights that `module` itself holds, each with its bias behind it if `biases`."""
    attention = isinstance(module, nn.MultiheadAttention)
    names = ATTENTION if attention else ("weight",) if isinstance(module, MASKABLE) else ()
    weights = [name for name in names if getattr(module, name, None) is not None]
    found = [(weight, BIAS_OF.get(weight, "")) if biases else (weight,) for weight in weights]
    return [name for pair in found for name in pair if getattr(module, name, None) is not None]


def _plain_weight(module: nn.Module, attribute: str, name: str) -> nn.Parameter:
    """The parameter itself, or a UsageError that says why it cannot be masked."""
    if parametrize.is_parametrized(module):
        raise UsageError(f"{name} is in a module that is already parametrized: remove that parametrization first "
                         "(popup.detach for popup's own)")
    weight = module._parameters.get(attribute)
    if weight is None:
        raise UsageError(f"{name} is not a parameter of its module (an old weight_norm or pruning hook?): "
                         "remove what computes it first")
    if isinstance(weight, UninitializedParameter):
        raise UsageError(f"{name} is lazy and has no shape yet: run the network once before attaching")
    if weight.is_complex() or not weight.is_floating_point():
        raise UsageError(f"{name} has dtype {weight.dtype}: only real floating-point weights can be masked")
    if weight.numel() == 0:
        raise UsageError(f"{name} has shape {list(weight.shape)}: a layer without entries cannot be masked")
    return weight


def _refuse_other_ties(net: nn.Module, weights: dict[int, str]) -> None:
    """A maskable weight that another module (an embedding, say) also uses cannot be replaced either."""
    for name, parameter in net.named_parameters(remove_duplicate=False):
        first = weights.get(id(parameter), name)
        if first != name:
            raise UsageError(f"{name} is the same tensor as {first}: a tied weight cannot be masked; "
                             "give each module its own")


def _refuse_lazy(net: nn.Module) -> None:
    """A lazy norm, say: it is not masked but has to be frozen, and has nothing to freeze yet."""
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        if isinstance(tensor, (UninitializedParameter, UninitializedBuffer)):
            raise UsageError(f"{name} is lazy and has no shape yet: run the network once before attaching")


def is_norm(module: nn.Module) -> bool:
    """Whether `module` normalises: by its class, or the class's name, in torch as in timm and torchvision, unless it holds
    layers (a block with a norm in it) or a parameter that is no vector (a linear layer that normalises)."""
    if isinstance(module, NORMS):
        return True
    named = "norm" in type(module).__name__.lower() and not any(isinstance(part, MASKABLE) for part in module.modules())
    return named and all(map(is_vector, module.parameters()))


def is_gain(name: str) -> bool:
    """Whether a parameter of that name scales a block beside its shortcut (the layer scale of ConvNeXt, timm's gamma), which its
    own name or that of its module says.

    Such gains start at 1e-6 or 0 and learn to be more; frozen there, the block would not exist.
    """
    return any(GAIN.search(part) for part in _last_words(name))


def is_tiny(parameter: torch.Tensor) -> bool:
    """Whether it is one value that is near 0 and not 0, as gains start whatever their name. On "meta" nobody knows."""
    if parameter.is_meta or not parameter.is_floating_point() or not parameter.numel():
        return False
    first = parameter.detach().flatten()[0]
    return 0 < abs(float(first)) <= TINY and bool((parameter == first).all())


def _last_words(name: str) -> list[str]:
    return name.lower().split(".")[-2:]


def left_out(net: nn.Module, layers: list[Layer]) -> dict[str, int]:
    """The parameters of `net` that are matrices or more and none of its `layers` (of transposed convolutions, embeddings,
    recurrent layers, ...), each with its number of weights."""
    names = {layer.name for layer in layers}
    return {name: parameter.numel() for name, parameter in net.named_parameters()
            if name not in names and not is_vector(parameter) and frozen_at(name, parameter, False) is None}


def frozen_at(name: str, parameter: torch.Tensor, norm: bool, slope: bool = False) -> float | None:
    """The value that `freeze` gives a parameter, and that a ticket's must have: 0 for biases, 1 for norms' and blocks' gains;
    None: its own. `norm`: whether its module normalises. `slope`: whether it may be an activation's, which starts small too."""
    attribute, small = name.rpartition(".")[2], norm or is_vector(parameter)
    if attribute.endswith("bias"):
        return 0.0 if small else None
    if small and (is_gain(name) or (norm and attribute == "weight")):
        return 1.0
    placed = any(PLACE.search(part) for part in _last_words(name))
    return 1.0 if not slope and not placed and is_tiny(parameter) else None


def is_vector(tensor: torch.Tensor) -> bool:
    """Whether at most one side is longer than 1."""
    return sum(side > 1 for side in tensor.shape) <= 1


def freeze(net: nn.Module) -> dict[str, float]:
    """No parameter of `net` learns: biases become 0, norm affines 1 and 0 with fresh statistics, gains of blocks 1, others
    stay as they are: maskable weights, and a matrix too, whatever it is called (it projects, or is added to attention).
    Returns what was set, by name."""
    values = {}
    for path, module in net.named_modules():
        norm, slope, weights = is_norm(module), isinstance(module, nn.PReLU), _maskable(module, False)
        if norm and hasattr(module, "reset_running_stats"):
            module.reset_running_stats()
        for name, parameter in module.named_parameters(recurse=False):
            parameter.requires_grad_(False)
            full = f"{path}.{name}" if path else name
            value = None if name in weights else frozen_at(full, parameter, norm, slope)
            if value is not None:
                parameter.data.fill_(value)
                values[full] = value
    return values
