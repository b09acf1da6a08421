"""Reading a target: the chain of layers that a network is, or one line that says why it is none."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import nn

from popup.errors import UsageError
from popup.source.modes import in_mode, modes_kept
from popup.theory.calls import GRAPH, Calls, calls_of
from popup.theory.graph import branches, follow, traced
from popup.theory.levels import Levels
from popup.theory.steps import LAYERS, Sides, Step, flattened
from popup.theory.target import Target, TargetLayer

ACTIVATIONS = {nn.ReLU: "relu", nn.LeakyReLU: "leaky", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid"}
STEPS = (nn.Linear, nn.Conv2d, *ACTIVATIONS, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
ALLOWED = {*(kind.__name__ for kind in STEPS), "Flatten", "Identity", "Dropout"}
ALIKE = 1e-4  # of the largest output: by how much two floats of one function may differ
CHECKED = 64  # random inputs, and as many corners, on which a network is compared with the chain that it should be


def read_target(net: nn.Module, image: Sequence[int], low: float, high: float) -> Target:
    """The target of a network of Linear and Conv2d layers with one activation between them and max or average pooling, for
    inputs [n, *image] in [low, high].

    Modules are read in the order in which they are called; where values are added, or a norm is to be folded, the network's
    graph is followed instead (levels.py). A network that differs from that chain on random inputs or corners, or calls what
    might at others, is refused (UsageError).
    """
    graph = traced(net)
    if graph is not None and branches(graph):
        return _read_graph(net, graph, tuple(image), low, high)
    others = {type(module).__name__ for module in net.modules() if not list(module.children())} - ALLOWED
    if others:
        raise _no_chain(f"it has {', '.join(sorted(others))}")
    calls, failure = calls_of(net, torch.zeros(1, *image, device=_device(net)))
    if not any(isinstance(module, (nn.Linear, nn.Conv2d)) for module in calls.steps):
        raise _no_chain("it has no linear layer and no convolution")
    layers, steps = _read(calls.steps, tuple(image))
    if failure:
        raise _no_chain(f"it cannot take an image {list(image)}: {failure}")
    target = Target(layers, steps, low, high)
    _check_activations(target)
    _compare(net, tuple(image), target)
    _check_functions(calls)
    return target


def _read_graph(net: nn.Module, graph: torch.fx.GraphModule, image: tuple[int, ...], low: float, high: float) -> Target:
    """The target of a network with shortcuts or norms: the chain that it equals."""
    levels = Levels(image, low < 0, _no_chain)
    outputs = follow(graph, levels, lambda module, sides: _step(module, _kind(module), sides))
    layers, steps = levels.chain(outputs)
    if not all(np.isfinite(layer.weight).all() and np.isfinite(layer.bias).all() for layer in layers):
        raise UsageError("the target has parameters that are not finite, or a norm without running statistics: train it again")
    target = Target(layers, tuple(flattened(steps)), low, high)
    _compare(net, image, target)
    _check_functions(calls_of(net, torch.zeros(1, *image, device=_device(net)))[0], GRAPH)
    return target


def _read(called: Sequence[nn.Module], image: tuple[int, ...]) -> tuple[tuple[TargetLayer, ...], tuple[Step, ...]]:
    """The layers and steps of modules that are called one after the other, on a map whose size is followed."""
    flat = len(image) != 3
    channels, sides = (prod(image), (1, 1)) if flat else (image[0], (image[1], image[2]))
    layers, steps = list[TargetLayer](), list[Step]()
    for module in called:
        kind = _kind(module)
        if flat and kind != "linear" and kind not in ACTIVATIONS.values():
            raise _no_chain(f"it has a {type(module).__name__} where there is no map")
        if kind == "linear" and not layers:  # each pixel is an input of its own
            channels, sides = channels * prod(sides), (1, 1)
        step = _step(module, kind, sides)
        if kind in LAYERS:
            _check_inputs(module, kind, channels, sides, image if not layers else None)
            layers.append(_layer(module, step, sides))
            channels = len(layers[-1].bias)
        sides = (1, 1) if kind == "linear" else step.sides(sides)
        flat |= kind == "linear"
        if min(sides) < 1:
            raise _no_chain(f"an image {list(image)} is too small for it")
        steps.append(step)
    found, own = _as_tanh(layers, steps)
    return found, tuple(flattened(own))


def _as_tanh(layers: Sequence[TargetLayer], steps: Sequence[Step]) -> tuple[tuple[TargetLayer, ...], list[Step]]:
    """The same function without sigmoids: sigmoid(z) = 1/2 + tanh(z/2) / 2, the half and its constant in the weights around."""
    found, place, own = list(layers), -1, list(steps)
    for number, step in enumerate(steps):
        place += step.kind in LAYERS
        if step.kind != "sigmoid":
            continue
        if not 0 <= place < len(layers) - 1 or found[place + 1].padded:
            raise _no_chain("its Sigmoid stands before its first layer, behind its last or before a padded one, where it is no "
                            "tanh of other weights")
        before, after = found[place], found[place + 1]
        found[place] = replace(before, weight=before.weight / 2, bias=before.bias / 2)
        found[place + 1] = replace(after, weight=after.weight / 2, bias=after.bias + after.weight.sum(1) / 2)
        own[number] = Step("tanh")
    return tuple(found), own


def _check_activations(target: Target) -> None:
    """A UsageError unless one activation stands between any two layers, of one kind."""
    first = next(place for place, step in enumerate(target.steps) if step.kind in LAYERS)
    found = {step.word for step in target.steps[first:] if step.kind in ACTIVATIONS.values()}
    if len(found) > 1:
        raise _no_chain(f"it has {' and '.join(sorted(found))}, and a source has one activation")
    since = ""  # the activation behind the last layer
    for place, step in enumerate(target.steps[first:]):
        if step.kind in LAYERS:
            if place and not since:
                raise _no_chain(f"a {step.word} follows a layer with no activation between")
            since = ""
        elif step.kind in ACTIVATIONS.values():
            if since == "tanh":
                raise _no_chain("it has a tanh or sigmoid of another, and a source has one between layers")
            since = step.kind


def _check_functions(calls: Calls, known: Collection[str] = ()) -> None:
    """A UsageError for functions, not `known`, that might make something else of other inputs than those that are compared."""
    if others := [name for name in calls.others() if name not in known]:
        raise _no_chain(f"it calls {', '.join(others)}, and of functions ReLU and flatten are read")


def _kind(module: nn.Module) -> str:
    kinds = {nn.Linear: "linear", nn.Conv2d: "conv", nn.MaxPool2d: "max", **ACTIVATIONS}
    return next((name for kind, name in kinds.items() if isinstance(module, kind)), "avg")


def _step(module: Any, kind: str, sides: Sides) -> Step:
    """The step of a module on a map of `sides`; a UsageError for the options that are not built."""
    if kind == "leaky":
        if not 0 <= module.negative_slope < 1 or "e" in repr(float(module.negative_slope)):
            raise _no_chain(f"its LeakyReLU has the slope {module.negative_slope:g}, and those of 0.0001 to 1 are built")
        return Step(kind, slope=float(module.negative_slope))
    if kind == "linear" or kind in ACTIVATIONS.values():
        return Step(kind)
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return _equal_parts(module, sides)
    _check_options(module, kind)
    kernel, stride, dilation = (_pair(getattr(module, name, 1)) for name in ("kernel_size", "stride", "dilation"))
    if not isinstance(module.padding, str):
        return Step(kind, kernel, stride, _pair(module.padding), dilation)
    height, width = (apart * (side - 1) * (module.padding == "same") for side, apart in zip(kernel, dilation, strict=True))
    if height % 2 or width % 2:
        raise _no_chain("its Conv2d has padding 'same' with an even kernel, which is more on one side")
    return Step(kind, kernel, stride, (height // 2, width // 2), dilation)


def _equal_parts(module: nn.AdaptiveAvgPool2d, sides: Sides) -> Step:
    out = [size or side for size, side in zip(_pair(module.output_size), sides, strict=True)]
    if any(side % size for side, size in zip(sides, out, strict=True)):
        raise _no_chain(f"its AdaptiveAvgPool2d makes {out} of a map {list(sides)}, which are no equal parts")
    kernel = (sides[0] // out[0], sides[1] // out[1])
    return Step("avg", kernel, kernel)


def _check_options(module: Any, kind: str) -> None:
    name = type(module).__name__
    if getattr(module, "ceil_mode", False) or getattr(module, "divisor_override", None):
        raise _no_chain(f"its {name} has ceil_mode or divisor_override")
    if kind == "avg" and any(_pair(module.padding)):
        raise _no_chain(f"its {name} has padding, so that a constant is another one at the border")
    if getattr(module, "padding_mode", "zeros") != "zeros":
        raise _no_chain(f"its {name} has padding mode {module.padding_mode!r}, not zeros")


def _pair(value: Any) -> tuple[int, int]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def _check_inputs(module: Any, kind: str, channels: int, sides: Sides, image: tuple[int, ...] | None) -> None:
    """A UsageError unless a layer takes what comes before it: the image (for the first), or the layer before's outputs."""
    wanted, there = ((module.in_features, channels * prod(sides)) if kind == "linear" else (module.in_channels, channels))
    what = "inputs" if kind == "linear" else "channels"
    if wanted != there and image is not None:
        raise _no_chain(f"its first {'linear layer' if kind == 'linear' else 'convolution'} has {wanted} {what}, and an "
                        f"image {list(image)} has {there}")
    if wanted != there:
        hint = " (pooling is seen where it is a module, such as nn.MaxPool2d)" if prod(sides) > 1 else ""
        raise _no_chain(f"a layer of {there} outputs is followed by one of {wanted} {what}{hint}")


def _layer(module: Any, step: Step, sides: Sides) -> TargetLayer:
    weight = _array(module.weight)
    bias = np.zeros(len(weight)) if module.bias is None else _array(module.bias)
    if step.kind == "linear":
        return TargetLayer(weight, bias, prod(sides))
    inside = step.inside(sides) if min(step.sides(sides)) > 0 else 0
    if inside is None:
        raise _no_chain(f"its {step.word} has no tap that lies nowhere in the padding, which a bias needs")
    group, size = len(weight) // module.groups, weight.shape[1]
    whole = np.zeros((len(weight), module.in_channels, *weight.shape[2:]))  # channels of other groups: 0
    for place in range(module.groups):
        whole[place * group:(place + 1) * group, place * size:(place + 1) * size] = weight[place * group:(place + 1) * group]
    return TargetLayer(whole.reshape(len(whole), -1), bias, prod(step.kernel), inside, any(step.padding))


def _array(parameter: torch.Tensor) -> np.ndarray:
    array = parameter.detach().double().cpu().numpy()
    if not np.isfinite(array).all():
        raise UsageError("the target has parameters that are not finite: train it again")
    return array


@torch.no_grad()
def _compare(net: nn.Module, image: tuple[int, ...], target: Target) -> None:
    """A UsageError if `net` is not the chain that was read from it."""
    draw = torch.Generator().manual_seed(0)
    share = torch.rand(2 * CHECKED, *image, generator=draw)
    share[CHECKED:].round_()
    inputs = share * (target.high - target.low) + target.low
    with modes_kept(net):
        found = in_mode(net, False)(inputs.clone().to(_device(net))).double().cpu().numpy()  # a copy: it may be changed in place
    wanted = target(inputs.double().numpy())
    difference = float(np.abs(found - wanted).max()) if found.shape == wanted.shape else float("inf")
    if not difference <= ALIKE * max(1.0, float(np.abs(wanted).max())):
        raise _no_chain(f"its outputs differ by {difference:.3g} from that chain's")


def _device(net: nn.Module) -> torch.device:
    return next(net.parameters(), torch.empty(0)).device


def _no_chain(why: str) -> UsageError:
    return UsageError("the target is no chain of Linear and Conv2d layers with ReLU (or leaky ReLU, tanh, sigmoid) between them: "
                      f"{why}; give one that is")
