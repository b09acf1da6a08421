"""What attach tries before it changes anything: whether modules of unusual classes compute with their weight as it is."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from popup.errors import UsageError
from popup.search.watch import Watched, watched
from popup.source.copying import deep_copy, without_hooks
from popup.source.layers import Layer, locate, skip_of
from popup.source.maskable import kind_of as kind_of_weights
from popup.source.modes import in_mode

USUAL = {nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention, nn.modules.linear.NonDynamicallyQuantizableLinear,
         nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Bilinear, nn.Embedding}
WIDTHS = {"in_features", "out_features", "in_channels", "out_channels", "training"}  # what makes no other kind of a module


def refuse_unfaithful(net: nn.Module, layers: list[Layer]) -> None:
    """A UsageError for a layer whose module, tried alone, computes with something else than its weight.

    Tried are copies of modules of other classes than torch's own, one of each class and configuration, with a small input in
    evaluation and in training mode. A module that takes none of the inputs that we can think of is not refused: whether its
    weight reaches its products is seen when a run looks at the whole network with its data. The same goes for what a module
    around it does with the weight.
    """
    kinds: dict[tuple[Any, ...], tuple[nn.Module, list[Layer]]] = {}
    for layer in layers:
        module, _ = locate(net, layer.name)
        masked = kind_of_weights(module)
        known = type(module) in USUAL or (masked is not None and masked.tried)
        if not known or "forward" in vars(module):
            kind = kind_of(module)
            tried, names = kinds.setdefault(kind, (module, []))
            if tried is module:
                names.append(layer)
    for module, names in kinds.values():
        fault = trial(module, [layer.name.rpartition(".")[2] for layer in names])
        if fault is not None:
            attribute, words = fault
            name = next(layer.name for layer in names if layer.name.rpartition(".")[2] == attribute)
            raise UsageError(f"{name} {words} in {type(module).__name__}, tried alone: what is computed would be no ticket; "
                             f"put a plain layer of torch's in its place, or leave it out: {skip_of(name)}")


def kind_of(module: nn.Module) -> tuple[Any, ...]:
    """What modules that behave alike have in common: their class and all their settings but widths."""
    settings = {key: value for key, value in vars(module).items()
                if key not in WIDTHS and isinstance(value, (bool, int, float, str, tuple, type(None)))}
    return type(module), repr(sorted(settings.items())), id(module) if "forward" in vars(module) else None


def trial(module: nn.Module, attributes: list[str]) -> tuple[str, str] | None:
    """An attribute of `module` and what is wrong with the use that its forward makes of it; None: nothing, or it cannot be
    tried. The module, its hooks and the random state of torch are left as they are."""
    devices = {tensor.device for tensor in module.parameters() if tensor.device.type == "cuda"}
    with torch.random.fork_rng(devices), torch.no_grad():
        try:
            subject = _subject(module, attributes)
        except Exception:  # of somebody else's __deepcopy__, whatever it may be
            return None
        runs = [run for training in (False, True) if (run := _run(in_mode(subject, training), attributes)) is not None]
    for attribute in attributes:
        fault = next((run.faults[attribute] for run in runs if attribute in run.faults), None)
        own = "forward" not in vars(module)  # a function that an instance was given may use the instance, not the copy
        if fault is None and own and runs and not any(run.reached[attribute] for run in runs):
            fault = "reaches no product"
        if fault is not None:
            return attribute, fault
    return None


def _subject(module: nn.Module, attributes: list[str]) -> nn.Module:
    """A copy to try: with data if it has none, without hooks, half of its weights zero."""
    subject = deep_copy(module)
    own = set(map(id, (*module.modules(), *module.parameters(), *module.buffers())))
    if own & set(map(id, (*subject.modules(), *subject.parameters(), *subject.buffers()))):
        raise TypeError(f"a copy of {type(module).__name__} is not its own")  # by a __deepcopy__, and would be written to
    if any(tensor.is_meta for tensor in subject.parameters()):
        subject = subject.to_empty(device="cpu")
        for tensor in (*subject.parameters(), *subject.buffers()):
            tensor.fill_(1)
    without_hooks(subject, module)
    for attribute in attributes:
        weight = getattr(subject, attribute)
        values = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0), device="cpu")
        weight.copy_(values * (values > 0))
    return subject


def _run(subject: nn.Module, attributes: list[str]) -> Watched | None:
    """What is seen with the first input that the module takes; None: it takes none."""
    for inputs in examples(subject):
        try:
            return watched(subject, dict.fromkeys(attributes), partial(subject, *inputs), inputs)
        except Exception:  # of somebody else's forward, whatever it may be
            continue
    return None


def examples(module: nn.Module) -> Iterator[tuple[torch.Tensor, ...]]:
    """Small inputs [2, ...] that a module like `module` may take: one to three alike; values that choose among several weights,
    or say how much each counts; and of a bilinear one two, of a look-up whole numbers."""
    parameter, generator = getattr(module, _attribute(module)), torch.Generator().manual_seed(1)
    first = torch.zeros(2, 1, dtype=torch.long, device=parameter.device)
    if isinstance(module, nn.Embedding):
        yield (first,)
    if isinstance(module, nn.Bilinear):
        sizes = module.in1_features, module.in2_features
        yield tuple(torch.randn(2, size, generator=generator, device="cpu").to(parameter) for size in sizes)
    for shape in _shapes(module):
        values = torch.randn(shape, generator=generator, device="cpu").to(parameter)
        share = torch.ones(2, len(parameter), device=parameter.device, dtype=parameter.dtype)
        yield from ((values,), (values, values), (values, values, values), (values, first, share[:, :1]), (values, share))


def _shapes(module: nn.Module) -> Iterator[tuple[int, ...]]:
    if isinstance(module, nn.MultiheadAttention):
        yield 2, 3, module.embed_dim
        return
    kernel, steps = getattr(module, "kernel_size", ()), getattr(module, "dilation", ())
    inputs = getattr(module, "in_channels", None) or _inputs(module)
    if kernel:
        if not isinstance(kernel, tuple):  # of a class of somebody else's, which has one number for all sides
            kernel = getattr(module, _attribute(module)).shape[2:]
        steps = steps if isinstance(steps, tuple) and len(steps) == len(kernel) else (1,) * len(kernel)
        sides = [(side - 1) * step + 4 for side, step in zip(kernel, steps, strict=True)]
        yield from ((2, inputs, *(side * times for side in sides)) for times in (1, 4))
    else:
        yield from ((2, *middle, inputs) for middle in ((), (3,), (2, 2)))


def _inputs(module: nn.Module) -> int:
    """How many inputs the first of a module's weights takes."""
    kind, attribute = kind_of_weights(module), _attribute(module)
    sides = kind.read(module, attribute) if kind is not None else None
    return getattr(module, attribute).shape[1] if sides is None else sides.inputs


def _attribute(module: nn.Module) -> str:
    """The name of the first of a module's weights."""
    kind = kind_of_weights(module)
    return kind.held_by(module)[0] if kind is not None else "weight"
