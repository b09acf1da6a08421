"""The entries that a search has in a state_dict: of all attached layers, or of none, or they are refused while nothing is
changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from popup.errors import UsageError
from popup.search.layer_state import MEMORY, LayerState
from popup.search.sharding import refuse_unlike

WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before a name
ALL = "a state_dict holds the states of all attached layers, or of none"


def is_search_state(name: str) -> bool:
    """Whether an entry of a state_dict is the search's own, beside its scores."""
    path, _, last = name.rpartition(".")
    return ".parametrizations." in f".{path}." and (last == "_extra_state" or last.startswith(MEMORY))


def check_states(layers: Sequence[LayerState], scores: Sequence[torch.Tensor], net: nn.Module, state: Mapping[str, Any],
                 prefix: str, method: str) -> bool:
    """Whether `state`, where the names of `net` begin with `prefix`, holds the states of its attached `layers` with their
    `scores`, not none of them. A UsageError if it holds some, or those of another source, another method, other names or several
    moments, or parts of scores that are whole here."""
    own = {f"{prefix}{key}": layer for layer in layers for key in _keys(layer)}
    missing = [key for key in own if not isinstance(state.get(key), torch.Tensor)]
    if 0 < len(missing) < len(own):
        raise UsageError(f"the state_dict has no {missing[0]}, of {own[missing[0]].spec.name}, and {len(own) - len(missing)} of "
                         f"the search's {len(own)} entries: {ALL}, of a search by the same method")
    names = {name for layer in layers for name in layer.spec.names}
    for key in state:
        if key not in own:
            _refuse_foreign(key, key.removeprefix(prefix), net, names)
    if missing:
        return False
    for layer, own_scores in zip(layers, scores, strict=True):
        refuse_unlike(layer, own_scores, state[f"{prefix}{_keys(layer)[0]}"])
        _refuse_shapes(layer, own_scores, state, prefix)
    states = [layer.check_state(state[f"{prefix}{_keys(layer)[-1]}"], method) for layer in layers]
    steps = sorted({found["steps"] for found in states})
    if len(steps) > 1:
        raise UsageError(f"the state_dict has layers after {steps[0]} and others after {steps[-1]} steps: {ALL}, of one moment")
    return True


def _refuse_shapes(layer: LayerState, scores: torch.Tensor, state: Mapping[str, Any], prefix: str) -> None:
    """A UsageError for scores, or a memory, of another shape than the layer's, or without data: torch would load all the rest."""
    own = [scores, *(layer.memory(memory) for memory in layer.remembered)]
    for key, tensor in zip(_keys(layer), own, strict=False):
        given = state[f"{prefix}{key}"]
        if given.shape != tensor.shape or (given.is_meta and not tensor.is_meta):
            found = "without data" if given.is_meta else list(given.shape)
            raise UsageError(f"the state_dict has {prefix}{key} {found}, and here it is {list(tensor.shape)}: {ALL}, of this "
                             "source")


def refuse_assigned(layers: Sequence[LayerState], scores: Sequence[torch.Tensor], state: Mapping[str, Any],
                    prefix: str) -> None:
    """A UsageError for layers that share their weight: load_state_dict(assign=True) makes one tensor of each name's; and for
    scores of another type, which it puts in their place as they are."""
    for layer, own in zip(layers, scores, strict=True):
        if (given := state[f"{prefix}{_keys(layer)[0]}"].dtype) is not own.dtype:
            raise UsageError(f"the state_dict has the scores of {layer.spec.name} in {given}, and they are {own.dtype}: load it "
                             "without assign, which converts them")
        if layer.spec.also:
            raise UsageError(f"{layer.spec.name} and {layer.spec.also[0]} share their scores, of which assign=True makes two: "
                             "load dict(state) without assign (torch notes it in the state itself)")


def _keys(layer: LayerState) -> list[str]:
    """What a layer has in a state_dict, by each of its names: its scores, what is remembered of it, its state."""
    split = [name.rpartition(".") for name in layer.spec.names]
    return [key for where in (f"{path}{dot}parametrizations.{name}" for path, dot, name in split)
            for key in (f"{where}.original", *(f"{where}.0.{MEMORY}{memory}" for memory in layer.remembered),
                        f"{where}.0._extra_state")]


def _refuse_foreign(key: str, name: str, net: nn.Module, weights: set[str]) -> None:
    """A UsageError for an entry that strict=False would leave out in silence and that was meant for an attached layer: a weight
    by the name that it had before, or a state by another; or for what a wrapper has renamed."""
    plain = _unwrapped(name)
    if name in weights or plain in weights:
        raise UsageError(f"the state_dict has a weight {key}, and {plain if plain in weights else name} is attached, where no "
                         "weight changes: load it before attaching; a ticket: popup.load(...).apply(net) on a plain network")
    if _has(net, name):
        return
    if plain != name and _has(net, plain):
        raise UsageError(f"the state_dict has {key}, which here is {plain}: take the wrapper's prefix from its names")
    if ".parametrizations." in f".{name}":
        raise UsageError(f"the state_dict has {key}, which is no entry of this search (of another method, or renamed?): {ALL}, "
                         "by the names of this network's own state_dict")


def _unwrapped(name: str) -> str:
    """A name without what wrappers have put before it."""
    while name.startswith(WRAPPERS):
        name = name.partition(".")[2]
    return name


def _has(net: nn.Module, name: str) -> bool:
    """Whether `net` has a parameter or a buffer, or a module a state, of that name."""
    path, _, last = name.rpartition(".")
    try:
        module = net.get_submodule(path)
    except AttributeError:
        return False
    return last == "_extra_state" or last in module._parameters or last in module._buffers
