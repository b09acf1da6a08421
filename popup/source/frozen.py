"""What no search learns: biases, affines of norms and gains of blocks get a value, and all else stays as the network has it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from popup.source.copying import deep_copy, without_hooks
from popup.source.layers import Layer
from popup.source.maskable import kind_of
from popup.source.modes import in_mode

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)
GAIN = re.compile(r"layer_?scale|res_?scale|res_?weight|rezero|gamma|gain|(^|_)ls_?\d*$|(^|_)lambda_?\d+$")
PLACE = re.compile(r"token|(^|_)pos")  # what is added to activations, not multiplied with
TINY = 1.01e-2                         # 1e-2 in bf16 and fp16 is a little more


def is_norm(module: nn.Module) -> bool:
    """Whether `module` normalises: by its class, or the class's name, in torch as in timm and torchvision, unless it holds
    layers (a block with a norm in it) or a parameter that is no vector (a linear layer that normalises)."""
    if isinstance(module, NORMS):
        return True
    named = "norm" in type(module).__name__.lower() and not any(map(kind_of, module.modules()))
    return named and all(map(is_vector, module.parameters()))


@torch.no_grad()
def adds_one(module: nn.Module) -> bool:
    """Whether a norm of somebody else's takes its weight as what is added to 1, or to a shortcut (Gemma's RMSNorm, ConvNeXt's
    response norm), so that it leaves noise as large as it is where the weight is 0: tried on a copy, as the norm alone."""
    weight = getattr(module, "weight", None)
    if type(module).__module__.startswith("torch.nn.") or not isinstance(weight, torch.Tensor) or is_lazy(weight):
        return False
    sizes = []
    for value in (0.0, 1.0):
        tried = in_mode(without_hooks(deep_copy(module), module).to_empty(device="cpu").float(), False)
        for tensor in (*tried.parameters(), *tried.buffers()):
            tensor.fill_(0.0)
        tried.get_parameter("weight").fill_(value)
        sizes.append(_size_of_noise(tried, weight.numel()))
    return None not in sizes and 0.5 < (sizes[0] or 0) < 2 and (sizes[1] or 0) > 1.5 * (sizes[0] or 0)


def _size_of_noise(norm: nn.Module, channels: int) -> float | None:
    """The deviation of what a norm gives for noise of deviation 1, in the first of the usual layouts that it takes."""
    noise = torch.Generator().manual_seed(0)
    for shape in ((16, channels), (16, channels, 4, 4), (16, 4, 4, channels)):
        try:
            with torch.random.fork_rng(devices=[]):
                return float(norm(torch.randn(shape, generator=noise, device="cpu")).std())
        except Exception:  # of somebody else's forward, whatever it wants
            continue
    return None


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


def left_out(net: nn.Module, layers: Sequence[Layer]) -> dict[str, int]:
    """The parameters of `net` that are matrices or more and none of its `layers` (of embeddings, recurrent layers, what is
    skipped), each by its first name with its number of weights."""
    names = {name for layer in layers for name in layer.names}
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
    stay as they are: maskable weights, and a matrix too, whatever it is called (it projects, or is added to attention), but for
    the bias of several experts. Returns what was set, by name."""
    for module in net.modules():
        if (fresh := _fresh(module)) is not None:
            fresh()
    values = {}
    for name, parameter, value in _values(net):
        parameter.requires_grad_(False)
        if value is not None:
            parameter.data.fill_(value)
            values[name] = value
    return values


def written_by_freeze(net: nn.Module) -> list[torch.Tensor]:
    """The tensors of `net` that `freeze` writes to."""
    statistics = [buffer for module in net.modules() if _fresh(module) is not None for buffer in module.buffers(recurse=False)]
    return statistics + [parameter for _, parameter, value in _values(net) if value is not None]


def _fresh(module: nn.Module) -> Callable[[], object] | None:
    """What makes a norm's statistics fresh, if it has some."""
    return getattr(module, "reset_running_stats", None) if is_norm(module) else None


def _values(net: nn.Module) -> Iterator[tuple[str, nn.Parameter, float | None]]:
    """Each parameter, by each of its names, and the value that it is set to, if it is."""
    for path, module in net.named_modules():
        norm, slope, kind = is_norm(module), isinstance(module, nn.PReLU), kind_of(module)
        weights = kind.held_by(module) if kind else ()
        for name, parameter in module.named_parameters(recurse=False):
            full = f"{path}.{name}" if path else name
            value = None if name in weights else frozen_at(full, parameter, norm, slope)
            if norm and name == "weight" and value == 1 and adds_one(module):
                value = 0.0
            if weights and name in ("bias", *(f"{weight}_bias" for weight in weights)):
                value = 0.0
            yield full, parameter, value
