"""Weights that something else than their module holds too: attach replaces the one, and the network computes with the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from types import FunctionType, MethodType

import torch
from torch import nn

from popup.errors import UsageError
from popup.search.provenance import storage_of
from popup.source.layers import Layer, locate, skip_of

CONTAINERS = (list, tuple, set, frozenset, deque)
PLAIN, EMPTY = (bool, int, float, str, type(None)), (dict, *CONTAINERS)  # most of what a module has, and holds no tensor
DEPTH = 8  # how far into containers we look


def refuse_held(net: nn.Module, layers: list[Layer]) -> None:
    """A UsageError for a layer whose very tensor, or a view of it, is also in an attribute of a module of `net`: by itself, in
    containers, in a function's closure or defaults, or as another parameter of the same memory."""
    weights: dict[int | None, list[tuple[Layer, torch.Tensor]]] = {}
    for layer in layers:
        module, attribute = locate(net, layer.name)
        own: torch.Tensor = getattr(module, attribute)
        weights.setdefault(storage_of(own), []).append((layer, own))
    known = set(map(id, net.modules()))
    for path, module in net.named_modules():
        for where, tensor in _held_by(module, known):
            where = f"{path}.{where}" if path else where
            for layer, weight in weights.get(storage_of(tensor), ()):
                if where not in layer.names and _overlap(tensor, weight):
                    raise UsageError(f"{layer.name} is also held by {where}, which would keep the tensor that attach replaces: "
                                     "let forward ask the layer's module for its weight, and give parameters memory of their "
                                     f"own; or leave the layer out: {skip_of(layer.name)}")


def _held_by(module: nn.Module, known: set[int]) -> Iterator[tuple[str, torch.Tensor]]:
    """Each tensor that `module` itself holds, with its name or how to get there."""
    for key, value in vars(module).items():
        if key in ("_parameters", "_buffers"):
            yield from ((name, tensor) for name, tensor in value.items() if tensor is not None)
        elif key != "_modules" and not isinstance(value, PLAIN) and (not isinstance(value, EMPTY) or value):
            yield from ((f"{key}{way}", tensor) for way, tensor in tensors_held(value, known))


def _overlap(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two tensors of one memory have parts of it in common, as far as first and last entries tell."""
    spans = []
    for tensor in (first, second):
        start = tensor.storage_offset() * tensor.element_size()
        last = sum((side - 1) * step for side, step in zip(tensor.shape, tensor.stride(), strict=True)) if tensor.numel() else -1
        spans.append((start, start + (last + 1) * tensor.element_size()))
    return bool(spans[0][0] < spans[1][1] and spans[1][0] < spans[0][1])


def tensors_held(value: object, known: set[int]) -> Iterator[tuple[str, torch.Tensor]]:
    """Each tensor in `value` with how to get there. Modules in `known` are not entered: they are asked for their weight."""
    seen, waiting = set(), [("", value, 0)]
    while waiting:
        way, part, depth = waiting.pop()
        if isinstance(part, torch.Tensor):
            yield way, part
        elif depth < DEPTH and id(part) not in seen and id(part) not in known:
            seen.add(id(part))
            waiting += [(f"{way}{label}", inner, depth + 1) for label, inner in _parts(part)]


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """What a container, a function or a module of nobody's holds."""
    if isinstance(value, dict):
        yield from ((f"[{key!r:.40}]", inner) for key, inner in list(value.items()))
    elif isinstance(value, CONTAINERS):
        yield from ((f"[{place}]", inner) for place, inner in enumerate(value))
    elif isinstance(value, partial):
        yield from ((" of a partial", inner) for inner in (value.func, value.args, value.keywords))
    elif isinstance(value, MethodType):
        yield from ((".__self__", value.__self__), (".__func__", value.__func__))
    elif isinstance(value, FunctionType):
        yield from ((f" (a variable of {value.__qualname__})", inner) for inner in _variables(value))
        yield from ((f" (a default of {value.__qualname__})", inner) for inner in (value.__defaults__, value.__kwdefaults__))
    elif isinstance(value, nn.Module):
        yield from ((f".{key}", inner) for key, inner in (vars(value) | value._parameters | value._modules).items())


def _variables(function: FunctionType) -> Iterator[object]:
    """What a function's closure holds."""
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # of a variable that has no value yet
            yield cell.cell_contents
