"""Whether each weight that is to be masked reaches a product as it is, seen with a batch of real inputs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from popup.errors import UsageError
from popup.search.watch import Watched, watched
from popup.source.copying import deep_copy
from popup.source.layers import Layer, skip_of
from popup.source.modes import in_mode


@torch.no_grad()
def look(net: nn.Module, tensors: Mapping[str, torch.Tensor | None], inputs: torch.Tensor,
         forward: Callable[[nn.Module], torch.Tensor] | None = None) -> tuple[Watched, torch.Tensor]:
    """What the products of `net` get of the layers in `tensors` (what each ought to be; None: what it is), and what the network
    gives of `inputs` in evaluation mode. `forward` runs a network on them; None: net(inputs).

    A copy is run in training mode too if there is a layer that evaluation does not reach (of an auxiliary head, say). Nothing
    is changed by it: neither modes, weights, statistics nor the random state.
    """
    run = forward or (lambda net: net(inputs.clone()))  # to which it may write
    modes, outputs = {module: module.training for module in net.modules()}, []
    with torch.random.fork_rng([inputs.device] if inputs.is_cuda else []):
        try:
            net.eval()
            seen = watched(net, tensors, lambda: outputs.append(run(net)), inputs)
        finally:
            for module, mode in modes.items():
                module.training = mode
        if seen.unreached and not seen.faults:
            trained = in_mode(deep_copy(net), True)
            seen = _both(seen, watched(trained, tensors, lambda: run(trained), inputs))
    return seen, outputs[0]


def refuse_seen(net: nn.Module, names: Iterable[str], inputs: tuple[Any, ...]) -> None:
    """A UsageError for a layer in `names` whose weight a product of the plain network `net` gets otherwise than it is, in an
    evaluation of `inputs`, as a forward hook with keywords has them. If that fails, nothing is known."""
    copied = _copied(inputs)
    if copied is None:
        return
    args, kwargs = copied
    cuda = {tensor.device for tensor in net.parameters() if tensor.is_cuda}
    with torch.no_grad(), torch.random.fork_rng(cuda):
        try:
            seen = watched(in_mode(net, False), dict.fromkeys(names), lambda: net(*args, **kwargs), (args, kwargs))
        except Exception:  # of somebody else's forward, whatever it may be
            return
    _refuse_faults(seen)


def _copied(inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """A copy of what a pass gets, to which it may write, also within objects, and which it may use up, as an iterator; None where
    there is none (of a generator, say)."""
    memo = {id(part): part.detach().clone() for part in tree_leaves(inputs) if isinstance(part, torch.Tensor)}
    try:
        copied: tuple[Any, ...] = copy.deepcopy(inputs, memo)
    except Exception:  # of somebody else's __deepcopy__, whatever it may be
        return None
    return copied


def _refuse_faults(seen: Watched) -> None:
    for name, fault in seen.faults.items():
        raise UsageError(f"{name} {fault}: what is computed would be no ticket; let forward use the weight that the layer's "
                         f"module has, unchanged, or leave the layer out: {skip_of(name)}")


def check_reached(net: nn.Module, layers: Iterable[Layer], inputs: torch.Tensor) -> torch.Tensor:
    """A UsageError that names the first of the `layers` of the plain network `net` that no product gets, or gets otherwise than
    it is. Returns what the network gives of `inputs` in evaluation mode."""
    seen, outputs = look(net, {layer.name: None for layer in layers}, inputs)
    _refuse_faults(seen)
    for name in seen.unreached:
        raise UsageError(f"{name} reaches no product of {type(net).__name__}'s forward pass, which has another tensor in its "
                         "place or does not use the layer: ask the module for its weight each time, or leave the layer out: "
                         f"{skip_of(name)}")
    return outputs


def _both(first: Watched, second: Watched) -> Watched:
    """What was seen in two passes."""
    return Watched({name: times + second.reached[name] for name, times in first.reached.items()}, first.faults | second.faults)
