"""What a network has beside its state, which a forward may change: numbers, tensors and generators that modules have as
attributes, and buffers that the state leaves out. A checkpoint keeps the generators; of the rest it is only told that it changes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from popup.lab.identity import is_dense, summed
from popup.lab.randomness import GENERATORS, state_of, words_of
from popup.search.layer_state import LayerState


def generators(net: nn.Module) -> dict[str, Any]:
    """Those that its modules have as attributes, by name."""
    return {f"{path} {name}".strip(): value for path, name, value in _attributes(net) if isinstance(value, GENERATORS)}


def generator_records(net: nn.Module) -> dict[str, Any]:
    """The states of these, as JSON holds them."""
    return {name: state_of(generator) for name, generator in generators(net).items()}


def set_generators(net: nn.Module, records: Any) -> None:
    """Let them go on from these states. A ValueError, TypeError or KeyError if they are not theirs."""
    found = generators(net)
    if not isinstance(records, dict) or records.keys() != found.keys():
        raise ValueError(f"it has the states of {len(records)} generators of the network, which has {len(found)}")
    for name, generator in found.items():
        _set(generator, records[name])


def _set(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(torch.from_numpy(words_of(state, "u1")))
    elif isinstance(generator, random.Random):
        version, words, gauss = state
        generator.setstate((version, tuple(words), gauss))
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    else:
        kind, words, *rest = state
        generator.set_state((kind, np.array(words, dtype=np.uint32), *rest))


def beside(net: nn.Module) -> dict[str, str]:
    """All else that no checkpoint keeps, by name, as `changed` compares it."""
    kept = net.state_dict().keys()
    found = {name: summed(buffer) for name, buffer in net.named_buffers() if name not in kept and is_dense(buffer)}
    for path, name, value in _attributes(net):
        if isinstance(value, torch.Tensor) and is_dense(value):
            found[f"{path}.{name}".strip(".")] = summed(value)
        elif type(value) in (int, float):
            found[f"{path}.{name}".strip(".")] = repr(value)
    return found


def changed(before: dict[str, str], net: nn.Module) -> list[str]:
    """The names of what is not as it was `before`."""
    now = beside(net)
    return sorted(name for name, value in before.items() if now.get(name) != value)


def _attributes(net: nn.Module) -> Iterator[tuple[str, str, Any]]:
    """The attributes of a network's own modules: those of a search on it are none of these."""
    for path, module in net.named_modules():
        if not isinstance(module, (LayerState, ParametrizationList)):
            yield from ((path, name, value) for name, value in vars(module).items() if name != "training")
