"""What a network has beside its state, which a forward may change: what modules have in attributes, and buffers that the state
leaves out. A checkpoint keeps the generators among it; of the rest it is only told that it changes.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from popup.lab.identity import holds
from popup.lab.parts import Attribute, attributes, home_of
from popup.lab.randomness import has_own_draws, numbers_state, set_numbers_state, state_of, words_of
from popup.lab.said import said
from popup.search.layer_state import LayerState


def generators(net: nn.Module) -> dict[str, Any]:
    """Those that its modules have in attributes, whatever they stand inside of, by name."""
    return {f"{each.path} {each.name}{way}".strip(): end for each in _own(net) for way, end in each.ends()
            if has_own_draws(end)}


def generator_records(net: nn.Module) -> dict[str, Any]:
    """The states of these, as JSON holds them."""
    return {name: state_of(generator) for name, generator in generators(net).items()}


def set_generators(net: nn.Module, records: Any) -> None:
    """Let them go on from these states. An error if they are not theirs."""
    found = generators(net)
    if not isinstance(records, dict) or records.keys() != found.keys():
        raise ValueError(f"it has the states of {len(records)} generators of the network, which has {len(found)}")
    for name, generator in found.items():
        _set(generator, records[name])


@contextlib.contextmanager
def draws_kept_if_it_fails(net: nn.Module) -> Iterator[None]:
    """If the block raises, all generators but torch's are as before: numpy's, Python's and those of the network."""
    numbers, own = numbers_state(), generator_records(net)
    try:
        yield
    except BaseException:
        set_numbers_state(numbers)
        set_generators(net, own)
        raise


def _set(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(torch.from_numpy(words_of(state, "u1")))
    elif isinstance(generator, random.Random):
        version, words, gauss = state
        generator.setstate((version, tuple(words), gauss))
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, np.random.BitGenerator):
        generator.state = state
    elif isinstance(state, dict):  # of a RandomState on other bits than the usual ones
        generator.set_state(state)
    else:
        kind, words, *rest = state
        generator.set_state((kind, np.array(words, dtype=np.uint32), *rest))


def beside(net: nn.Module) -> dict[str, str]:
    """All else that no checkpoint keeps, by name, as `changed` compares it; and the generators that the modules' files have as
    names of their own."""
    kept = net.state_dict().keys()
    found = {name: holds(buffer) for name, buffer in net.named_buffers() if name not in kept}
    for each in _own(net):
        if not isinstance(each.value, (torch.Size, type(None))):  # which a pass may note, and reads none of
            found[f"{each.path}.{each.name}".strip(".")] = " ".join(f"{way}={holds(end) or said(end)}" for way, end in each.ends()
                                                                    if not has_own_draws(end))
    for home in set(map(home_of, net.modules())) & sys.modules.keys():
        found |= {f"{home}.{name}": holds(value) for name, value in vars(sys.modules[home]).items()
                  if has_own_draws(value)}
    return found


def changed(before: dict[str, str], net: nn.Module) -> list[str]:
    """The names of what is not as it was `before`."""
    now = beside(net)
    return sorted(name for name, value in before.items() if now.get(name) != value)


def _own(net: nn.Module) -> Iterator[Attribute]:
    """The attributes of a network's own modules: those of a search on it are none of these."""
    return (each for each in attributes(net) if not isinstance(each.module, (LayerState, ParametrizationList)))
